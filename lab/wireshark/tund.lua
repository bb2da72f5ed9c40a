-- Wireshark's view of tund: what is outside of every datagram, and with a key log what is inside.
-- PROTOCOL.md says what the bytes mean, tund(8) what is in a key log, README.md beside this file how to use it.
--
-- Wireshark's Lua has no cryptography, so what opening takes is here: slow, plain, and not for secrets.

local tund = Proto("tund", "tund")

tund.prefs.keylog = Pref.string("Key logs", "", "files of tund --key-log, separated by commas")
tund.prefs.port = Pref.uint("UDP port", 8863, "datagrams of this port are tund's even if no key opens them")

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
    take(header, 1, #header)
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

-- Key logs.

local links = {}    -- {static, tap, probe, mask, keys = {[name .. "/" .. lane] = {key, ...}}}
local opened = {}   -- what has been opened, by its tag: the same datagram may be there twice
local sizes, looked -- of the files, and when

local function read_logs()
    links, sizes = {}, {}
    for path in tund.prefs.keylog:gmatch("[^,]+") do
        local file, link = io.open(path, "r"), nil
        if file then
            local words_of = function(line)
                local words = {}
                for one in line:gmatch("%S+") do words[#words + 1] = one end
                return words
            end
            for line in file:lines() do
                local words = words_of(line)
                if words[1] == "link" and #words == 5 then
                    link = {static = words[2] == "static", tap = words[3] == "tap", keys = {},
                        probe = schedule(unhex(words[4])), mask = schedule(unhex(words[5]))}
                    links[#links + 1] = link
                elseif words[1] == "key" and #words == 6 and link and OPEN[words[3]] then
                    local name = words[4] .. "/" .. words[5]
                    local known = link.keys[name] or {}
                    link.keys[name] = known
                    -- The newest first.
                    table.insert(known, 1, {way = words[2], suite = words[3], bytes = unhex(words[6])})
                end
            end
            sizes[path] = file:seek("end")
            file:close()
        end
    end
end

-- In a live capture the logs grow. Looks once a second.
local function have_grown()
    if looked == os.time() then return false end
    looked = os.time()
    for path in tund.prefs.keylog:gmatch("[^,]+") do
        local file = io.open(path, "r")
        local size = file and file:seek("end")
        if file then file:close() end
        if size ~= sizes[path] then return true end
    end
    return false
end

function tund.init()
    opened, looked = {}, nil
    read_logs()
end

-- Opening.

-- The first bytes without their mask.
local function unmask(link, datagram, length)
    local tag = slice(datagram, #datagram - 15, #datagram)
    local mask = encrypt(link.mask, tag, 1)
    if length > 16 then
        tag[16] = bxor(tag[16], 1)
        for _, byte in ipairs(encrypt(link.mask, tag, 1)) do mask[#mask + 1] = byte end
    end
    local bytes = {}
    for i = 1, length do bytes[i] = bxor(datagram[i], mask[i]) end
    return bytes
end

local function is_sid(link, sid)
    local block = {0x73, 0x74, 0x61, 0x74} -- "stat"
    for i = 1, 12 do block[4 + i] = sid[i] end
    return same(encrypt(link.probe, block, 1), 1, sid, 13, 4)
end

-- What a link's keys make of a datagram, if they make anything of it.
local function open_with(link, datagram)
    local front = link.static and 21 or 5
    if #datagram < front + 16 then return nil end
    local bytes = unmask(link, datagram, front)
    local found = {outer = "data", front = front, tap = link.tap}
    if link.static then
        if not is_sid(link, bytes) then return nil end
        found.sid = hex(bytes, 1, 16)
        -- Microseconds.
        found.time = 0
        for i = 1, 8 do found.time = found.time * 256 + bytes[i] end
    end
    local header = slice(bytes, front - 4, front)
    found.header = header
    found.slot, found.kind, found.lane = rshift(header[1], 6), band(rshift(header[1], 4), 3), band(header[1], 15)
    found.counter = word(header, 2)
    if found.counter < 2 ^ 29 and found.kind < 3 then
        local nonce = {0, 0, 0, 0, 0, 0, 0, 0}
        put(nonce, 9, found.counter)
        local sealed = slice(datagram, front + 1, #datagram)
        local name = found.sid or tostring(found.slot)
        for _, key in ipairs(link.keys[name .. "/" .. found.lane] or {}) do
            local body = OPEN[key.suite](key.bytes, nonce, header, sealed)
            if body then
                found.key, found.body = key, body
                return found
            end
        end
    end
    if link.static then return found end
    return nil
end

-- A handshake shows by its first 24 bytes; the logs hold no key for what is in it.
local function is_handshake(link, datagram)
    return not link.static and #datagram >= 40 and same(encrypt(link.probe, datagram, 1), 1, datagram, 17, 8)
end

-- Puts the parts of frames together: what ends in this body, and in words what does not.
local function assemble(key, counter, body)
    local parts = {}
    local function part(bytes, words) parts[#parts + 1] = {bytes = bytes, words = words} end
    if #body < 2 then return parts end
    local offset, at = body[1] * 256 + body[2], 3
    local begun = key.begun
    key.begun = nil
    if offset > 0 then
        local last = math.min(#body, offset + 2)
        local rest = slice(body, 3, last)
        if begun and begun.counter + 1 == counter and begun.missing == offset then
            for _, byte in ipairs(rest) do begun.bytes[#begun.bytes + 1] = byte end
            begun.missing = offset - #rest
            if begun.missing == 0 then
                part(begun.bytes)
            else
                begun.counter, key.begun = counter, begun
                part(nil, ("part of a frame: %d bytes, %d to come"):format(#rest, begun.missing))
            end
        else
            part(nil, ("part of a frame that began before: %d bytes, its beginning was not seen"):format(#rest))
        end
        at = last + 1
    end
    while at + 2 <= #body do
        local length = body[at] * 256 + body[at + 1]
        if length == 0 then break end
        local bytes = slice(body, at + 2, math.min(#body, at + 1 + length))
        if #bytes == length then
            part(bytes)
        else
            key.begun = {bytes = bytes, missing = length - #bytes, counter = counter}
            part(nil, ("part of a frame: %d bytes, %d to come"):format(#bytes, length - #bytes))
        end
        at = at + 2 + length
    end
    return parts
end

local function look(datagram, again)
    for _, link in ipairs(links) do
        if is_handshake(link, datagram) then return {outer = "handshake"} end
    end
    local best
    for _, link in ipairs(links) do
        local found = open_with(link, datagram)
        if found and found.body then
            if found.kind == 1 then found.parts = assemble(found.key, found.counter, found.body) end
            return found
        end
        best = best or found
    end
    if not again and have_grown() then
        read_logs()
        return look(datagram, true)
    end
    return best
end

local function find(datagram)
    if #datagram < 21 then return nil end
    local tag = hex(datagram, #datagram - 15, #datagram)
    local found = opened[tag]
    if found == nil then
        found = look(datagram)
        -- What no key opened may be opened later.
        if found and (found.body or found.outer == "handshake") then opened[tag] = found end
    end
    return found
end

-- Control messages (PROTOCOL.md 6).

local MESSAGES = {"ping", "pong", "path", "path-reply", "challenge", "challenge-reply", "hello", "bye"}
local FIELDS = {
    {[0] = "n", "padding"}, {[0] = "n", "received"}, {[0] = "challenge"}, {[0] = "challenge"}, {[0] = "challenge"},
    {[0] = "challenge"}, {[0] = "version", "mode", "mtu", "addresses", "peers", "budget", "capabilities", "name",
    "seen", "routes"}, {[0] = "reason"},
}

-- A value of CBOR as words, and where the next one begins. Bodies are authentic, but may still be a faulty peer's.
local function value(bytes, at, depth)
    local first = bytes[at]
    if not first or depth > 4 then return nil end
    local major, count = rshift(first, 5), first % 32
    at = at + 1
    if count >= 24 then
        local size = ({[24] = 1, [25] = 2, [26] = 4, [27] = 8})[count]
        if not size or at + size - 1 > #bytes then return nil end
        count = 0
        for i = 0, size - 1 do count = count * 256 + bytes[at + i] end
        at = at + size
    end
    if major == 0 then return ("%d"):format(count), at, count end
    if major == 2 or major == 3 then
        if at + count - 1 > #bytes then return nil end
        local part = slice(bytes, at, at + count - 1)
        return major == 3 and ("%q"):format(text(part)) or hex(part, 1, #part), at + count, part
    end
    if major == 4 then
        local items, words = {}, nil
        for _ = 1, math.min(count, #bytes) do
            local item
            words, at, item = value(bytes, at, depth + 1)
            if not words then return nil end
            items[#items + 1] = type(item) == "table" and item or words
        end
        return "", at, items
    end
    return nil
end

local function address(bytes, length)
    if length == 4 then return table.concat(slice(bytes, 1, 4), ".") end
    local groups = {}
    for i = 1, 16, 2 do groups[#groups + 1] = ("%x"):format(bytes[i] * 256 + bytes[i + 1]) end
    return table.concat(groups, ":")
end

-- An address, or a route: an address and the length of its prefix.
local function place(bytes)
    if type(bytes) ~= "table" then return tostring(bytes) end
    local size = #bytes
    if size == 4 or size == 16 then return address(bytes, size) end
    if size == 5 or size == 17 then return address(bytes, size - 1) .. "/" .. bytes[size] end
    return hex(bytes, 1, size)
end

-- {name, words} of every field; nothing if the body is no message.
local function message(body)
    local kind, head = body[1], body[2]
    if not head or rshift(head, 5) ~= 5 or head % 32 > 23 then return nil end
    local names, fields, at = FIELDS[kind] or {}, {}, 3
    for _ = 1, head % 32 do
        local key, words, item
        key, at = value(body, at, 1)
        if not key then return nil end
        words, at, item = value(body, at, 1)
        if not words then return nil end
        local name = names[tonumber(key)] or "field " .. key
        if name == "addresses" or name == "peers" or name == "routes" then
            local places = {}
            for _, one in ipairs(item) do places[#places + 1] = place(one) end
            words = #places == 0 and "none" or table.concat(places, ", ")
        elseif name == "mode" then
            words = words == "1" and "tap" or "tun"
        elseif name == "padding" then
            words = ("%d bytes"):format(#item)
        end
        fields[#fields + 1] = {name, words}
    end
    return MESSAGES[kind] or ("message %d"):format(kind), fields
end

-- Showing.

local f = tund.fields
f.outer = ProtoField.string("tund.outer", "Datagram", base.NONE, "data, handshake or unknown")
f.sid = ProtoField.bytes("tund.sid", "Sid")
f.time = ProtoField.absolute_time("tund.sid.time", "Drawn at")
f.slot = ProtoField.uint8("tund.slot", "Slot")
f.kind = ProtoField.uint8("tund.kind", "Kind", base.DEC, {[0] = "frame", "stream block", "control", "reserved"})
f.lane = ProtoField.uint8("tund.lane", "Lane")
f.counter = ProtoField.uint32("tund.counter", "Counter")
f.verified = ProtoField.bool("tund.verified", "Tag verified")
f.suite = ProtoField.string("tund.suite", "Suite")
f.way = ProtoField.string("tund.way", "Way", base.NONE, "out or in, as seen from the end that wrote the log")
f.offset = ProtoField.uint16("tund.block.offset", "Offset")
f.part = ProtoField.string("tund.block.part", "Part")
f.control = ProtoField.string("tund.control", "Control message")
f.field = ProtoField.string("tund.control.field", "Field")

local inner_ip, inner_ipv6, inner_ethernet =
    Dissector.get("ip"), Dissector.get("ipv6"), Dissector.get("eth_withoutfcs")

local function show_frame(bytes, tap, pinfo, root)
    local frame = ByteArray.new(text(bytes), true):tvb("Frame")
    local version = not tap and rshift(bytes[1] or 0, 4)
    if tap then
        inner_ethernet:call(frame, pinfo, root)
    elseif version == 4 then
        inner_ip:call(frame, pinfo, root)
    elseif version == 6 then
        inner_ipv6:call(frame, pinfo, root)
    else
        Dissector.get("data"):call(frame, pinfo, root)
    end
end

local function show_control(body, pinfo, tree)
    local range = ByteArray.new(text(body), true):tvb("Control message")()
    local name, fields = message(body)
    if not name then
        pinfo.cols.info = "control message that is none"
        tree:add(f.control, range, "malformed")
        return
    end
    local item, words = tree:add(f.control, range, name), {}
    for _, field in ipairs(fields) do
        words[#words + 1] = field[1] .. "=" .. field[2]
        item:add(f.field, range, table.concat(field, ": "))
    end
    pinfo.cols.info = name .. " " .. table.concat(words, " ")
end

local function show_header(found, buffer, tree)
    local front = found.front
    if found.sid then
        local seconds = math.floor(found.time / 1000000)
        tree:add(f.sid, buffer(0, 16), ByteArray.new(found.sid):raw())
        tree:add(f.time, buffer(0, 16), NSTime.new(seconds, math.floor(found.time - seconds * 1000000) * 1000))
    end
    tree:add(f.slot, buffer(front - 5, 1), found.slot)
    tree:add(f.kind, buffer(front - 5, 1), found.kind)
    tree:add(f.lane, buffer(front - 5, 1), found.lane)
    tree:add(f.counter, buffer(front - 4, 4), found.counter)
    tree:add(f.verified, buffer(buffer:len() - 16, 16), found.body ~= nil)
end

local function show(found, buffer, pinfo, root)
    pinfo.cols.protocol = "tund"
    local tree = root:add(tund, buffer())
    tree:add(f.outer, buffer(), found and found.outer or "unknown")
    if not found then
        pinfo.cols.info = "unknown: cannot be verified, the key is missing"
        tree:append_text(": cannot be verified, the key is missing")
        return
    end
    if found.outer == "handshake" then
        pinfo.cols.info = "handshake"
        tree:append_text(": handshake")
        return
    end
    show_header(found, buffer, tree)
    if not found.body then
        pinfo.cols.info = "data: cannot be verified, the key of its sid is missing"
        tree:append_text(": cannot be verified, the key of its sid is missing")
        return
    end
    tree:add(f.suite, found.key.suite):set_generated()
    tree:add(f.way, found.key.way):set_generated()
    tree:append_text((", counter %d"):format(found.counter))
    if found.kind == 0 then
        show_frame(found.body, found.tap, pinfo, root)
    elseif found.kind == 2 then
        show_control(found.body, pinfo, tree)
    else
        pinfo.cols.info = "stream block"
        if #found.body >= 2 then
            tree:add(f.offset, buffer(found.front, 2), found.body[1] * 256 + found.body[2])
        end
        for _, part in ipairs(found.parts) do
            if part.bytes then
                tree:add(f.part, ("a frame of %d bytes"):format(#part.bytes))
                show_frame(part.bytes, found.tap, pinfo, root)
            else
                tree:add(f.part, part.words)
            end
        end
    end
end

local function bytes_of(buffer)
    local bytes, raw = {}, buffer:raw()
    for at = 1, #raw do bytes[at] = raw:byte(at) end
    return bytes
end

function tund.dissector(buffer, pinfo, root)
    show(find(bytes_of(buffer)), buffer, pinfo, root)
    return buffer:len()
end

-- Any UDP datagram may be tund's: it is if a key says so, and then the others of its conversation are too.
tund:register_heuristic("udp", function(buffer, pinfo, root)
    local found = find(bytes_of(buffer))
    if not found then return false end
    pinfo.conversation = tund
    show(found, buffer, pinfo, root)
    return true
end)

local ports, port = DissectorTable.get("udp.port"), nil
local function follow_port()
    if port == tund.prefs.port then return end
    if port then ports:remove(port, tund) end
    port = tund.prefs.port
    ports:add(port, tund)
end
tund.prefs_changed = follow_port
follow_port()
