-- Wireshark's view of tund: what is outside of every datagram, and with a key log what is inside.
-- PROTOCOL.md says what the bytes mean, tund(8) what is in a key log, README.md beside this file how to use it.

local tund = Proto("tund", "tund")

tund.prefs.keylog = Pref.string("Key logs", "", "files of tund --key-log, separated by commas")
tund.prefs.port = Pref.uint("UDP port", 8863, "datagrams of this port are tund's even if no key opens them")

-- What opening takes is in the file beside this one.
local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local crypto = dofile(folder .. "tund_crypto.lua")
local word, put, slice, unhex, hex, text, same =
    crypto.word, crypto.put, crypto.slice, crypto.unhex, crypto.hex, crypto.text, crypto.same
local schedule, encrypt, OPEN = crypto.schedule, crypto.encrypt, crypto.open
local band, bxor, rshift = crypto.bits.band, crypto.bits.bxor, crypto.bits.rshift

-- Key logs.

-- {static, tap, probe, mask, stream, keys = {[name .. "/" .. lane] = {key, ...}}, handshakes = {[first bytes] = key}}
local links = {}
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
                if words[1] == "link" and #words == 6 then
                    link = {static = words[2] == "static", tap = words[3] == "tap", keys = {}, handshakes = {},
                        probe = schedule(unhex(words[4])), mask = schedule(unhex(words[5])),
                        stream = schedule(unhex(words[6]))}
                    links[#links + 1] = link
                elseif words[1] == "key" and #words == 6 and link and OPEN[words[3]] then
                    local name = words[4] .. "/" .. words[5]
                    local known = link.keys[name] or {}
                    link.keys[name] = known
                    -- The newest first.
                    table.insert(known, 1, {way = words[2], suite = words[3], bytes = unhex(words[6])})
                elseif words[1] == "handshake" and #words == 4 and link then
                    link.handshakes[words[3]] = {way = words[2], bytes = unhex(words[4])}
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

-- Parts of handshake messages, by what their message is known by.
local messages = {}

-- Of connections: how far each direction is, and where what a segment completed began.
local ways, places

function tund.init()
    opened, messages, looked, ways, places = {}, {}, nil, {}, {}
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

local function is_key_id(link, key_id)
    local block = {0x73, 0x74, 0x61, 0x74} -- "stat"
    for i = 1, 12 do block[4 + i] = key_id[i] end
    return same(encrypt(link.probe, block, 1), 1, key_id, 13, 4)
end

-- What a link's keys make of a datagram, if they make anything of it.
local function open_with(link, datagram)
    local front = link.static and 21 or 5
    if #datagram < front + 16 then return nil end
    local bytes = unmask(link, datagram, front)
    local found = {outer = "data", front = front, tap = link.tap}
    if link.static then
        if not is_key_id(link, bytes) then return nil end
        found.key_id = hex(bytes, 1, 16)
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
        local name = found.key_id or tostring(found.slot)
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

-- A handshake shows by its first 24 bytes.
local function is_handshake(link, datagram)
    return not link.static and #datagram >= 40 and same(encrypt(link.probe, datagram, 1), 1, datagram, 17, 8)
end

-- What a handshake says outside of Noise (PROTOCOL.md 3.1). A part that makes its message whole gets that.
local function envelope(body)
    local first = body[1]
    local said = {version = rshift(first, 4), part = band(rshift(first, 2), 3), kind = band(first, 3)}
    if #body == 1 then return (first == 0x14 or first == 0x24) and said or nil end
    if #body < 35 or said.kind == 0 then return nil end
    said.length = body[34] * 256 + body[35]
    if 35 + said.length > #body then return nil end
    local message = slice(body, 36, 35 + said.length)
    if said.part == 0 then
        said.message = message
        return said
    end
    local name = said.kind .. hex(body, 2, 33)
    local parts = messages[name] or {}
    messages[name], parts[said.part] = parts, message
    if parts[1] and parts[2] and parts[3] then
        said.message, messages[name] = {}, nil
        for _, part in ipairs(parts) do
            for _, byte in ipairs(part) do said.message[#said.message + 1] = byte end
        end
    end
    return said
end

-- XChaCha20-Poly1305 is ChaCha20-Poly1305 under a key of its own for each first 16 bytes, and that is in the log.
local function open_handshake(link, datagram)
    local found, key = {outer = "handshake"}, link.handshakes[hex(datagram, 1, 16)]
    if not key then return found end
    local nonce = {0, 0, 0, 0}
    for i = 17, 24 do nonce[#nonce + 1] = datagram[i] end
    local body = OPEN["chacha20-poly1305"](key.bytes, nonce, {}, slice(datagram, 25, #datagram))
    if body and body[1] then found.key, found.body, found.said = key, body, envelope(body) end
    return found
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
    local best
    for _, link in ipairs(links) do
        if is_handshake(link, datagram) then
            best = open_handshake(link, datagram)
            if best.body then return best end
        end
    end
    for _, link in ipairs(best and {} or links) do
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
        if found and found.body then opened[tag] = found end
    end
    return found
end

-- Control messages (PROTOCOL.md 6).

local MESSAGES = {"ping", "pong", "path", "path-reply", [7] = "hello", [8] = "bye", [9] = "clones",
    [10] = "probed", [11] = "loop"}
local FIELDS = {
    {[0] = "n", "padding"}, {[0] = "n", "received"}, {[0] = "challenge"}, {[0] = "challenge"},
    [7] = {[0] = "version", "mode", "mtu", "addresses", "peers", "budget", "capabilities", "name", "seen", "routes",
    "heard", "padding", "lanes", "rank", "named"}, [8] = {[0] = "reason"}, [9] = {[0] = "ends"},
    [10] = {[0] = "probe"}, [11] = {[0] = "state", "origin", "vlan", "tunnelled"},
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

-- An address, alone, with a port, or with the length of a prefix.
local function place(bytes)
    if type(bytes) ~= "table" then return tostring(bytes) end
    local size = #bytes
    if size == 4 or size == 16 then return address(bytes, size) end
    if size == 6 then return address(bytes, 4) .. ":" .. bytes[5] * 256 + bytes[6] end
    if size == 18 then return "[" .. address(bytes, 16) .. "]:" .. bytes[17] * 256 + bytes[18] end
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
        if name == "addresses" or name == "peers" or name == "routes" or name == "ends" then
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
f.key_id = ProtoField.bytes("tund.key_id", "Key id")
f.time = ProtoField.absolute_time("tund.key_id.time", "Drawn at")
f.slot = ProtoField.uint8("tund.slot", "Slot")
f.kind = ProtoField.uint8("tund.kind", "Kind", base.DEC, {[0] = "frame", "stream block", "control", "reserved"})
f.lane = ProtoField.uint8("tund.lane", "Lane")
f.counter = ProtoField.uint32("tund.counter", "Counter")
f.verified = ProtoField.bool("tund.verified", "Tag verified")
f.suite = ProtoField.string("tund.suite", "Suite")
f.way = ProtoField.string("tund.way", "Way", base.NONE, "out or in, as seen from the end that wrote the log")
f.offset = ProtoField.uint16("tund.block.offset", "Offset")
f.part = ProtoField.string("tund.block.part", "Part")
f.handshake = ProtoField.string("tund.handshake", "Handshake", base.NONE, "initiation, answer, retry or sign")
f.exchange = ProtoField.uint8("tund.handshake.version", "Version", base.DEC,
    {"X25519", "X25519 and ML-KEM-768"}, 0xf0)
f.handshake_part = ProtoField.uint8("tund.handshake.part", "Part of the message", base.DEC,
    {[0] = "all of it", "first of three", "second of three", "third of three"}, 0x0c)
f.instance = ProtoField.bytes("tund.handshake.instance", "Instance")
f.seq = ProtoField.uint64("tund.handshake.seq", "Seq")
f.token = ProtoField.bytes("tund.handshake.token", "Token")
f.length = ProtoField.uint16("tund.handshake.length", "Length")
f.padding = ProtoField.uint16("tund.handshake.padding", "Padding")
f.message = ProtoField.uint16("tund.handshake.message", "Length of the Noise message")
f.ephemeral = ProtoField.bytes("tund.handshake.ephemeral", "Ephemeral key of X25519")
f.kem = ProtoField.string("tund.handshake.kem", "ML-KEM-768")
f.payload = ProtoField.uint16("tund.handshake.payload", "Length of the sealed payload")
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

local HANDSHAKES = {[0] = "sign", "initiation", "answer", "retry"}
-- What is sealed in the message: its name, its length, and the least that follows it.
local KEM = {{"encapsulation key", 1184, 3}, {"ciphertext", 1088, 11}}

-- The Noise message: a key, and a payload with its tag. What the payload is follows from version and length, since it stays sealed.
local function show_message(said, tree)
    tree:add(f.message, #said.message):set_generated()
    local payload, what = #said.message - 48, KEM[said.kind]
    if said.version == 2 then payload = payload - what[2] end
    if payload < what[3] then
        tree:append_text(": malformed, the message is too short")
        return
    end
    tree:add(f.ephemeral, ByteArray.new(text(slice(said.message, 1, 32)), true):tvb("Ephemeral key")())
    if said.version == 2 then tree:add(f.kem, ("%s, %d bytes, sealed"):format(what[1], what[2])) end
    tree:add(f.payload, payload)
end

local function show_handshake(found, buffer, pinfo, tree)
    local said, name = found.said, "handshake"
    tree:add(f.verified, buffer(buffer:len() - 16, 16), found.body ~= nil)
    if not found.body then
        pinfo.cols.info = "handshake: cannot be verified, its key is missing"
        tree:append_text(": handshake, cannot be verified, its key is missing")
        return
    end
    tree:add(f.way, found.key.way):set_generated()
    local inside = ByteArray.new(text(found.body), true):tvb("Handshake")
    if not said then
        pinfo.cols.info = "handshake that is none"
        tree:add(f.handshake, inside(), "malformed")
        return
    end
    name = HANDSHAKES[said.kind]
    if said.part > 0 and said.length then name = ("%s, part %d of 3"):format(name, said.part) end
    local item = tree:add(f.handshake, inside(), name)
    item:add(f.exchange, inside(0, 1))
    tree:append_text(": " .. name)
    pinfo.cols.info = "handshake: " .. name .. (said.version == 2 and ", with ML-KEM-768" or "")
    if not said.length then return end
    item:add(f.handshake_part, inside(0, 1))
    item:add(f.instance, inside(1, 8))
    item:add(f.seq, inside(9, 8))
    item:add(f.token, inside(17, 16))
    item:add(f.length, inside(33, 2))
    item:add(f.padding, inside:len() - 35 - said.length):set_generated()
    if said.message and said.kind ~= 3 then show_message(said, item) end
end

local function show_header(found, buffer, tree)
    local front = found.front
    if found.key_id then
        local seconds = math.floor(found.time / 1000000)
        tree:add(f.key_id, buffer(0, 16), ByteArray.new(found.key_id):raw())
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
        show_handshake(found, buffer, pinfo, tree)
        return
    end
    show_header(found, buffer, tree)
    if not found.body then
        pinfo.cols.info = "data: cannot be verified, the key of its id is missing"
        tree:append_text(": cannot be verified, the key of its id is missing")
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

-- Streams: the same datagrams as records of a TCP connection (PROTOCOL.md 11).

local stream = Proto("tund_stream", "tund over TCP")
local LONGEST = 16384

-- The length of the record that begins there, the one with this number.
local function length_of(link, salt, number, bytes, at)
    local block = slice(salt, 1, 16)
    for i = 16, 11, -1 do
        block[i] = bxor(block[i], number % 256)
        number = math.floor(number / 256)
    end
    local mask = encrypt(link.stream, block, 1)
    return bxor(bytes[at], mask[1]) * 256 + bxor(bytes[at + 1], mask[2])
end

-- The link whose keys open the first record, or whether more bytes may tell.
local function beginning(bytes)
    if #bytes < 18 then return nil, true end
    local more = false
    for _, link in ipairs(links) do
        local length = length_of(link, bytes, 0, bytes, 17)
        if length > 0 and length <= LONGEST then
            local found = #bytes >= 18 + length and find(slice(bytes, 19, 18 + length))
            if found and (found.body or found.outer == "handshake") then return link end
            more = more or #bytes < 18 + length
        end
    end
    return nil, more
end

local function show_records(buffer, pinfo, root)
    local bytes = bytes_of(buffer)
    local name = ("%s %d %s %d"):format(tostring(pinfo.src), pinfo.src_port, tostring(pinfo.dst), pinfo.dst_port)
    local place = pinfo.number .. " " .. name .. " " .. hex(bytes, 1, math.min(#bytes, 18))
    local from = places[place] or ways[name]
    if not from then
        local link, more = beginning(bytes)
        if not link then
            if more then pinfo.desegment_offset, pinfo.desegment_len = 0, DESEGMENT_ONE_MORE_SEGMENT end
            return
        end
        from = {link = link, salt = slice(bytes, 1, 16), number = 0, at = 17}
    end
    local known = places[place] ~= nil
    places[place] = from
    local at, number = from.at, from.number
    while at <= #bytes do
        local length = at < #bytes and length_of(from.link, from.salt, number, bytes, at) or 1
        if length == 0 or length > LONGEST then break end
        local missing = at + 1 + length - #bytes
        if missing > 0 then
            pinfo.desegment_offset, pinfo.desegment_len = at - 1, missing
            break
        end
        show(find(slice(bytes, at + 2, at + 1 + length)), buffer(at + 1, length):tvb(), pinfo, root)
        at, number = at + 2 + length, number + 1
    end
    if not known then ways[name] = {link = from.link, salt = from.salt, number = number, at = 1} end
end

function stream.dissector(buffer, pinfo, root)
    show_records(buffer, pinfo, root)
    return buffer:len()
end

-- The keys tell which connections are tund's.
stream:register_heuristic("tcp", function(buffer, pinfo, root)
    if not beginning(bytes_of(buffer)) then return false end
    pinfo.conversation = stream
    show_records(buffer, pinfo, root)
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
