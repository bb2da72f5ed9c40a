-- The cryptography that tund.lua needs: AES-256, AES-256-GCM, ChaCha20-Poly1305, on tables of bytes.
-- Slow and plain, and not for secrets: its timing tells of the keys.

-- Numbers of 32 bits: Lua 5.2 has a library for them, later ones operators.

local bits = bit32 or load([[return {
    band = function(a, b) return a & b end,
    bxor = function(a, ...) for _, b in ipairs({...}) do a = a ~ b end return a & 0xffffffff end,
    rshift = function(a, n) return (a & 0xffffffff) >> n end,
    lrotate = function(a, n) a = a & 0xffffffff return ((a << n) | (a >> (32 - n))) & 0xffffffff end,
}]])()
local band, bxor, rshift, lrotate = bits.band, bits.bxor, bits.rshift, bits.lrotate

local function word(bytes, at) -- big-endian, as in AES
    return ((bytes[at] * 256 + bytes[at + 1]) * 256 + bytes[at + 2]) * 256 + bytes[at + 3]
end

local function put(bytes, at, value)
    bytes[at], bytes[at + 1] = rshift(value, 24), band(rshift(value, 16), 255)
    bytes[at + 2], bytes[at + 3] = band(rshift(value, 8), 255), band(value, 255)
end

local function slice(bytes, first, last)
    local part = {}
    for at = first, last do part[#part + 1] = bytes[at] end
    return part
end

local function unhex(text)
    local bytes = {}
    for pair in text:gmatch("%x%x") do bytes[#bytes + 1] = tonumber(pair, 16) end
    return bytes
end

local function hex(bytes, first, last)
    local digits = {}
    for at = first, last do digits[#digits + 1] = ("%02x"):format(bytes[at]) end
    return table.concat(digits)
end

local function text(bytes) -- a Lua string
    local parts = {}
    for at = 1, #bytes, 4000 do
        parts[#parts + 1] = string.char(table.unpack(bytes, at, math.min(at + 3999, #bytes)))
    end
    return table.concat(parts)
end

local function same(a, a_at, b, b_at, length)
    for i = 0, length - 1 do
        if a[a_at + i] ~= b[b_at + i] then return false end
    end
    return true
end

-- AES-256, one block at a time (FIPS 197).

local sbox, mixed = {}, {}
do
    local function double(a) return a < 128 and a * 2 or bxor(a * 2, 0x11b) end
    local power, log, value = {}, {}, 1
    for n = 0, 254 do
        power[n], log[value] = value, n
        value = bxor(double(value), value) -- three generates all
    end
    for a = 0, 255 do
        local inverse = a == 0 and 0 or power[(255 - log[a]) % 255]
        local s = inverse
        for turn = 1, 4 do
            s = bxor(s, band(inverse * 2 ^ turn, 255), rshift(inverse, 8 - turn))
        end
        s = bxor(s, 0x63)
        sbox[a] = s
        mixed[a] = double(s) * 0x1000000 + s * 0x10000 + s * 0x100 + bxor(double(s), s)
    end
end

local function substitute(value)
    return sbox[rshift(value, 24)] * 0x1000000 + sbox[band(rshift(value, 16), 255)] * 0x10000
        + sbox[band(rshift(value, 8), 255)] * 0x100 + sbox[band(value, 255)]
end

local function schedule(key)
    local words, round = {}, 1
    for i = 0, 7 do words[i] = word(key, 4 * i + 1) end
    for i = 8, 59 do
        local last = words[i - 1]
        if i % 8 == 0 then
            last = bxor(substitute(lrotate(last, 8)), round * 0x1000000)
            round = round * 2
        elseif i % 8 == 4 then
            last = substitute(last)
        end
        words[i] = bxor(words[i - 8], last)
    end
    return words
end

local function encrypt(words, block, at)
    local s = {}
    for i = 0, 3 do s[i] = bxor(word(block, at + 4 * i), words[i]) end
    for round = 1, 13 do
        local t = {}
        for i = 0, 3 do
            t[i] = bxor(mixed[rshift(s[i], 24)],
                lrotate(mixed[band(rshift(s[(i + 1) % 4], 16), 255)], 24),
                lrotate(mixed[band(rshift(s[(i + 2) % 4], 8), 255)], 16),
                lrotate(mixed[band(s[(i + 3) % 4], 255)], 8), words[4 * round + i])
        end
        s = t
    end
    local out = {}
    for i = 0, 3 do
        local last = sbox[rshift(s[i], 24)] * 0x1000000 + sbox[band(rshift(s[(i + 1) % 4], 16), 255)] * 0x10000
            + sbox[band(rshift(s[(i + 2) % 4], 8), 255)] * 0x100 + sbox[band(s[(i + 3) % 4], 255)]
        put(out, 4 * i + 1, bxor(last, words[56 + i]))
    end
    return out
end

local function lengths(header, body, order)
    local block = {}
    for i = 1, 16 do block[i] = 0 end
    for i = 0, 3 do
        local shift = order == "big" and 3 - i or i
        local at = order == "big" and 5 or 1
        local scale = order == "big" and 8 or 1
        block[at + i] = math.floor(header * scale / 256 ^ shift) % 256
        block[at + 8 + i] = math.floor(body * scale / 256 ^ shift) % 256
    end
    return block
end

-- AES-256-GCM (NIST SP 800-38D). Returns the body, or nothing if the tag is another one.
local function open_gcm(key, nonce, header, sealed)
    local words, size = schedule(key), #sealed - 16
    local zero = {}
    for i = 1, 16 do zero[i] = 0 end
    local h = encrypt(words, zero, 1)
    local h0, h1, h2, h3 = word(h, 1), word(h, 5), word(h, 9), word(h, 13)
    local y0, y1, y2, y3 = 0, 0, 0, 0
    local function take(bytes, at, last)
        local block = {}
        for i = 1, 16 do block[i] = at + i - 1 <= last and bytes[at + i - 1] or 0 end
        local x = {bxor(y0, word(block, 1)), bxor(y1, word(block, 5)), bxor(y2, word(block, 9)),
            bxor(y3, word(block, 13))}
        local v0, v1, v2, v3 = h0, h1, h2, h3
        y0, y1, y2, y3 = 0, 0, 0, 0
        for i = 1, 4 do
            local bit = 0x80000000
            for _ = 1, 32 do
                if band(x[i], bit) ~= 0 then
                    y0, y1, y2, y3 = bxor(y0, v0), bxor(y1, v1), bxor(y2, v2), bxor(y3, v3)
                end
                bit = rshift(bit, 1)
                local low = v3 % 2
                v3 = rshift(v3, 1) + v2 % 2 * 0x80000000
                v2 = rshift(v2, 1) + v1 % 2 * 0x80000000
                v1 = rshift(v1, 1) + v0 % 2 * 0x80000000
                v0 = rshift(v0, 1)
                if low == 1 then v0 = bxor(v0, 0xe1000000) end
            end
        end
    end
    for at = 1, #header, 16 do take(header, at, #header) end
    for at = 1, size, 16 do take(sealed, at, size) end
    take(lengths(#header, size, "big"), 1, 16)
    local function stream(counter)
        local block = slice(nonce, 1, 12)
        put(block, 13, counter)
        return encrypt(words, block, 1)
    end
    local tag, pad = {}, stream(1)
    put(tag, 1, y0) put(tag, 5, y1) put(tag, 9, y2) put(tag, 13, y3)
    for i = 1, 16 do
        if bxor(tag[i], pad[i]) ~= sealed[size + i] then return nil end
    end
    local body = {}
    for at = 0, size - 1, 16 do
        pad = stream(2 + at / 16)
        for i = 1, math.min(16, size - at) do body[at + i] = bxor(sealed[at + i], pad[i]) end
    end
    return body
end

-- ChaCha20-Poly1305 (RFC 8439), likewise.

local function little(bytes, at)
    return bytes[at] + bytes[at + 1] * 256 + bytes[at + 2] * 65536 + bytes[at + 3] * 16777216
end

local function chacha(key, counter, nonce)
    local start = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}
    for i = 0, 7 do start[5 + i] = little(key, 4 * i + 1) end
    start[13] = counter
    for i = 0, 2 do start[14 + i] = little(nonce, 4 * i + 1) end
    local s = slice(start, 1, 16)
    local function quarter(a, b, c, d)
        s[a] = (s[a] + s[b]) % 0x100000000; s[d] = lrotate(bxor(s[d], s[a]), 16)
        s[c] = (s[c] + s[d]) % 0x100000000; s[b] = lrotate(bxor(s[b], s[c]), 12)
        s[a] = (s[a] + s[b]) % 0x100000000; s[d] = lrotate(bxor(s[d], s[a]), 8)
        s[c] = (s[c] + s[d]) % 0x100000000; s[b] = lrotate(bxor(s[b], s[c]), 7)
    end
    for _ = 1, 10 do
        quarter(1, 5, 9, 13) quarter(2, 6, 10, 14) quarter(3, 7, 11, 15) quarter(4, 8, 12, 16)
        quarter(1, 6, 11, 16) quarter(2, 7, 12, 13) quarter(3, 8, 9, 14) quarter(4, 5, 10, 15)
    end
    local out = {}
    for i = 1, 16 do
        local value = (s[i] + start[i]) % 0x100000000
        for shift = 0, 24, 8 do out[#out + 1] = band(rshift(value, shift), 255) end
    end
    return out
end

-- Poly1305 with limbs of a byte: 2^136 is 320 modulo 2^130 - 5.
local function poly1305(key, blocks)
    local r, h = slice(key, 1, 16), {}
    for _, at in ipairs({4, 8, 12, 16}) do r[at] = band(r[at], 15) end
    for _, at in ipairs({5, 9, 13}) do r[at] = band(r[at], 252) end
    r[17] = 0
    for i = 1, 17 do h[i] = 0 end
    local function carry()
        for _ = 1, 2 do
            local over = 0
            for i = 1, 16 do
                local sum = h[i] + over
                h[i], over = sum % 256, math.floor(sum / 256)
            end
            local top = h[17] + over
            h[17] = top % 4
            h[1] = h[1] + 5 * math.floor(top / 4)
        end
    end
    for _, block in ipairs(blocks) do
        for i = 1, 16 do h[i] = h[i] + block[i] end
        h[17] = h[17] + 1
        local product = {}
        for i = 1, 17 do
            local sum = 0
            for j = 1, 17 do
                sum = sum + h[j] * (j <= i and r[i + 1 - j] or 320 * r[i + 18 - j])
            end
            product[i] = sum
        end
        h = product
        carry()
    end
    carry()
    -- Less the modulus, if it is not smaller than that.
    local less, over = {}, 5
    for i = 1, 16 do
        local sum = h[i] + over
        less[i], over = sum % 256, math.floor(sum / 256)
    end
    if h[17] + over >= 4 then h = less end
    local tag, sum = {}, 0
    for i = 1, 16 do
        sum = math.floor(sum / 256) + h[i] + key[16 + i]
        tag[i] = sum % 256
    end
    return tag
end

local function open_chacha(key, nonce, header, sealed)
    local size, blocks = #sealed - 16, {}
    local function add(bytes, last)
        for at = 1, last, 16 do
            local block = {}
            for i = 1, 16 do block[i] = at + i - 1 <= last and bytes[at + i - 1] or 0 end
            blocks[#blocks + 1] = block
        end
    end
    add(header, #header)
    add(sealed, size)
    blocks[#blocks + 1] = lengths(#header, size, "little")
    local tag = poly1305(chacha(key, 0, nonce), blocks)
    if not same(tag, 1, sealed, size + 1, 16) then return nil end
    local body, pad = {}, nil
    for at = 0, size - 1 do
        if at % 64 == 0 then pad = chacha(key, 1 + at / 64, nonce) end
        body[at + 1] = bxor(sealed[at + 1], pad[at % 64 + 1])
    end
    return body
end

local OPEN = {["chacha20-poly1305"] = open_chacha, ["aes-256-gcm"] = open_gcm}

return {
    word = word, put = put, slice = slice, unhex = unhex, hex = hex, text = text, same = same, bits = bits,
    schedule = schedule, encrypt = encrypt, open = OPEN,
}
