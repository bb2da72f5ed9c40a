#!/usr/bin/python3
"""Checks every `vector` block of PROTOCOL.md against tund.py: vectors.py PROTOCOL.md"""

import re
import sys

import tund
from tund import Header, Keys


def blocks(text):
    """The name and fields of every vector; a field has a list of all its values."""
    for name, lines in re.findall(r"^```vector (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        fields, values = {}, []
        for line in lines.splitlines():
            line = line.split("#")[0]
            field = re.match(r"([a-z-]+):", line)
            if field:
                values = fields.setdefault(field.group(1), [])
                values.append("")
                line = line[field.end():]
            values[-1] += "".join(line.split())
        yield name, {field: [bytes.fromhex(value) for value in values] for field, values in fields.items()}


def number(text):
    return int.from_bytes(text, "big")


def is_equal(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: found {found}, the document says {wanted}")


def check_secret(one):
    is_equal("secret", tund.secret(one.get("shared"), one.get("private"), one.get("peer-public")), one["secret"])


def check_mask(one):
    is_equal("mask", Keys(one["secret"]).masked(bytes(21), one["tag"]), one["mask"])


def check_handshake_keys(one):
    keys = Keys(one["secret"])
    is_equal("probe", tund.aes(keys.probe, one["random"])[:8], one["probe"])
    is_equal("wrap", keys.wrap, one["wrap"])
    is_equal("psk", keys.psk, one["psk"])


def check_exchange(fields):
    """Both handshake datagrams, and what the ends hold afterwards, from the given ephemeral keys."""
    one = {field: values[0] for field, values in fields.items()}
    keys, statics = Keys(one["secret"]), [(), ()]
    if "initiator" in one:
        private = [one["initiator"], one["responder"]]
        statics = [(private[end], tund.public_of(private[1 - end])) for end in (0, 1)]
        is_equal("secret", tund.secret(None, *statics[1]), one["secret"])
    hybrid = "kem-seed" in one
    version = tund.HYBRID if hybrid else tund.X25519
    seeds = [one["kem-seed"], one["kem-message"]] if hybrid else []
    empty = tund.Handshake(tund.type_of(version, 0), one["instance"], number(one["seq"]), one["token"], b"", 0)
    ends = []
    for end in (0, 1):
        noise = (end == 0, tund.prologue(empty), keys.psk, fields["ephemeral"][end], *statics[end])
        ends.append(tund.Hybrid(seeds[end], *noise) if hybrid else tund.Noise(*noise))
    datagrams = list(zip(fields["random"], fields["datagram"]))
    for end, kind in enumerate((tund.INITIATION, tund.ANSWER)):
        message = ends[end].write(fields["payload"][end])
        is_equal("payload", ends[1 - end].read(message), fields["payload"][end])
        whole = empty._replace(type=tund.type_of(version, kind), message=message)
        for handshake in [whole] if len(fields["datagram"]) == 2 else tund.in_parts(whole):
            random, datagram = datagrams.pop(0)
            is_equal("datagram", keys.wrapped(random, handshake, len(datagram)), datagram)
            is_equal("inside", keys.unwrapped(datagram)[:5], handshake[:5])
    for end in ends:
        is_equal("direction keys", end.split(), fields["direction-key"])


def check_key_id(one):
    key_id = Keys(one["secret"]).new_key_id(number(one["time"]), one["random"])
    is_equal("key id", key_id, one["key-id"])


def header_of(one, slot):
    return Header(slot, number(one["kind"]), number(one["lane"]), number(one["counter"]))


def check_session(one):
    keys, suite, header = Keys(one["secret"]), number(one["suite"]), header_of(one, number(one["slot"]))
    sealed = keys.seal_session(suite, one["direction-key"], header, one["body"])
    is_equal("datagram", sealed, one["datagram"])
    opened = keys.open_session(suite, one["direction-key"], one["datagram"])
    is_equal("content", opened[1:], (header, one["body"]))


def check_static(one):
    keys, suite, direction = Keys(one["secret"]), number(one["suite"]), number(one["direction"])
    named = one.get("named", b"")
    keys.key_ids = {named: None}
    sealed = keys.seal_static(suite, direction, one["key-id"], header_of(one, 0), one["body"], named)
    is_equal("datagram", sealed, one["datagram"])
    key_id, found_suite, found_direction, opened = keys.open_static(one["datagram"])
    is_equal("key id, suite, direction", (key_id, found_suite, found_direction), (one["key-id"], suite, direction))
    is_equal("content", opened[1:], (header_of(one, 0), one["body"]))


def check_block(fields):
    stream, capacity = tund.Stream(0xffff), number(fields["capacity"][0])
    frames = []
    for counter, body in enumerate(fields["body"]):
        is_equal("a body above the capacity", len(body) > capacity, False)
        frames += stream.block(counter, body)
    is_equal("frames", frames, fields["frame"])


def check_refused_block(fields):
    stream = tund.Stream(number(fields["largest-frame"][0]))
    frames = [frame for counter, body in enumerate(fields["body"]) for frame in stream.block(counter, body)]
    is_equal("frames", frames, fields["frame"])


def check_control(name, one):
    found, fields = tund.parse_control(one["body"])
    is_equal("message", name.startswith(found), True)
    is_equal("its only encoding", tund.control(found, **fields), one["body"])


def check_refused_control(name, one):
    try:
        found = tund.parse_control(one["body"])
    except tund.Refused as refused:
        is_equal("reason", str(refused), name)
    else:
        raise AssertionError(f"taken as {found}")


def check_stream(fields):
    keys = Keys(fields["secret"][0])
    records, stream = tund.Records(keys), fields["stream"][0]
    is_equal("datagrams", [one for at in range(len(stream)) for one in records.feed(stream[at:at + 1])], fields["datagram"])
    lengths, salt = tund.Lengths(keys, fields["salt"][0]), fields["salt"][0]
    written = (lengths.masked(len(one).to_bytes(2, "big")) + one for one in fields["datagram"])
    is_equal("stream", b"".join((salt, *written)), stream)


def check_loop(one):
    frame = tund.loop_probe(Keys(one["secret"]), one["origin"], one["round"], one["vlan"])
    is_equal("frame", frame, one["frame"])


def check(name, fields):
    group, rest = name.split("/")
    one = {field: values[0] for field, values in fields.items()}
    if group == "block":
        check_block(fields)
    elif group == "exchange":
        check_exchange(fields)
    elif group == "stream":
        check_stream(fields)
    elif group == "refused-block":
        check_refused_block(fields)
    elif group == "control":
        check_control(rest, one)
    elif group == "refused-control":
        check_refused_control(rest, one)
    else:
        checks = {"secret": check_secret, "mask": check_mask, "handshake": check_handshake_keys, "key-id": check_key_id,
                  "session": check_session, "static": check_static, "loop": check_loop}
        checks[group](one)


def main():
    count = failed = 0
    with open(sys.argv[1], encoding="utf-8") as document:
        vectors = list(blocks(document.read()))
    for name, fields in vectors:
        count += 1
        try:
            check(name, fields)
        except Exception as error:  # one bad vector must not hide the others
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}")
    print(f"{count} vectors, {failed} failed")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
