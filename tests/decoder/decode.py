#!/usr/bin/python3
"""Decodes a capture of tund's datagrams with the key of the link, and prints what each of them is.

    decode.py --shared static.key capture.pcap
    decode.py --private own.key --peer-public HEX [--shared static.key] capture.pcap

The key files alone open handshakes, but not the datagrams of a session: that is the point of sessions. An end of the
link can provide a line `SUITE INITIATOR-KEY RESPONDER-KEY` for each session in --sessions FILE.
"""

import argparse
import ipaddress
import struct
import sys
from collections import namedtuple

import tund

Packet = namedtuple("Packet", "protocol source target text")
Datagram = namedtuple("Datagram", "source target payload")
Seen = namedtuple("Seen", "opened summary")
TCP, UDP, SYN = 6, 17, 2
KINDS = {tund.FRAME: "frame", tund.STREAM: "stream block", tund.CONTROL: "control"}
HANDSHAKES = {tund.INITIATION: "initiation", tund.ANSWER: "answer", tund.RETRY: "retry"}
EXCHANGES = {tund.X25519: "X25519", tund.HYBRID: "X25519 + ML-KEM-768"}


def frames_of_pcap(path):
    """The Ethernet frames of a capture file (pcap, in either byte order)."""
    with open(path, "rb") as file:
        head = file.read(24)
        order = "<" if head[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
        (link_type,) = struct.unpack(order + "I", head[20:])
        assert link_type == 1, "the capture is not of Ethernet"
        while record := file.read(16):
            _, _, length, _ = struct.unpack(order + "IIII", record)
            yield file.read(length)


def packet_of(frame):
    """The UDP or TCP packet in an Ethernet frame, if there is one."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and packet[9] in (TCP, UDP):
        start, end, protocol = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big"), packet[9]
        addresses = packet[12:16], packet[16:20]
    elif kind == b"\x86\xdd" and packet[6] in (TCP, UDP):
        start, end, protocol = 40, 40 + int.from_bytes(packet[4:6], "big"), packet[6]
        addresses = packet[8:24], packet[24:40]
    else:
        return None
    text = packet[start:end]
    ends = (f"{ipaddress.ip_address(host)}:{port}" for host, port in zip(addresses, struct.unpack(">HH", text[:4])))
    return Packet(protocol, *ends, text)


class Direction:
    """What one end of a TCP connection sends, in order (RFC 9293)."""

    def __init__(self, keys):
        self.records, self.first, self.next, self.early = tund.Records(keys), None, 0, {}

    def take(self, text):
        """The datagrams that this segment completes."""
        number, start, syn = int.from_bytes(text[4:8], "big"), (text[12] >> 4) * 4, text[13] & SYN
        if syn:
            self.first = number + 1
        elif self.first is not None:
            self.early[(number - self.first) % (1 << 32)] = text[start:]
        while self.early and min(self.early) <= self.next:
            at = min(self.early)
            fresh = self.early.pop(at)[self.next - at:]
            self.next += len(fresh)
            yield from self.records.feed(fresh)


def datagrams_of(packets, keys):
    """The datagrams of UDP and of streams, each once it is complete."""
    directions = {}
    for packet in packets:
        if packet.protocol == UDP:
            yield Datagram(packet.source, packet.target, packet.text[8:int.from_bytes(packet.text[4:6], "big")])
            continue
        direction = directions.setdefault(packet[1:3], Direction(keys))
        for datagram in direction.take(packet.text):
            yield Datagram(packet.source, packet.target, datagram)


def shown_address(value):
    """An address, or a route: an address and a prefix length."""
    if len(value) in (4, 16):
        return str(ipaddress.ip_address(value))
    return f"{ipaddress.ip_address(value[:-1])}/{value[-1]}"


def shown(value):
    if isinstance(value, bytes):
        return value.hex() or "-"
    if isinstance(value, list):
        return ",".join(map(shown_address, value)) or "-"
    return repr(value) if isinstance(value, str) else str(value)


def listed(fields):
    return " ".join(f"{name}={shown(value)}" for name, value in fields.items())


def describe_frame(frame):
    text = f"frame of {len(frame)}"
    if len(frame) >= 20 and frame[0] >> 4 == 4:
        text += f" IPv4 {ipaddress.ip_address(frame[12:16])} > {ipaddress.ip_address(frame[16:20])}"
        text += f" protocol {frame[9]}"
    return f"{text} {frame.hex()}"


class Decoder:
    def __init__(self, keys, sessions, statics=None, largest_frame=0xffff):
        self.keys, self.sessions, self.statics, self.largest_frame = keys, sessions, statics, largest_frame
        self.parts = {}

    def open(self, payload):
        """What a datagram is, from the key that opens it."""
        if static := self.keys.open_static(payload):
            key_id, suite, direction, opened = static
            return Seen(opened, f"static key id {key_id.hex()} {tund.SUITES[suite]} direction {direction}")
        if handshake := self.keys.unwrapped(payload):
            return Seen(None, f"handshake {self.describe_handshake(handshake)}")
        for number, (suite, *direction_keys) in enumerate(self.sessions):
            for direction, key in enumerate(direction_keys):
                if opened := self.keys.open_session(suite, key, payload):
                    return Seen(opened, f"session {number} {tund.SUITES[suite]} direction {direction}")
        return Seen(None, f"unknown, {len(payload)} bytes")

    def describe_handshake(self, handshake):
        part, kind = tund.part_of(handshake), tund.kind_of(handshake)
        text = (f"{HANDSHAKES.get(kind, kind)} {EXCHANGES[tund.version_of(handshake)]}"
                + (f" part {part}" if part else "") + f" instance {handshake.instance.hex()}"
                f" seq {handshake.seq} token {handshake.token.hex()} message {len(handshake.message)}"
                f" padding {handshake.padding}")
        if part:
            message = self.parts.setdefault((kind, *handshake[1:4]), {})
            message[part] = handshake.message
            if len(message) < tund.PARTS:
                return text
            handshake = handshake._replace(message=b"".join(message[number] for number in sorted(message)))
        if kind != tund.INITIATION:
            return text
        noise = (False, tund.prologue(handshake), self.keys.psk, None, *(self.statics or ()))
        noise = tund.Hybrid(None, *noise) if tund.version_of(handshake) == tund.HYBRID else tund.Noise(*noise)
        try:
            payload = noise.read(handshake.message)
        except tund.InvalidTag:  # sealed to another key pair
            return f"{text} payload sealed"
        suites = ",".join(tund.SUITES.get(suite, str(suite)) for suite in payload[3:3 + payload[2]])
        return f"{text} slot {payload[0]} lanes {payload[1]} suites {suites}"

    def decode(self, datagrams):
        """A line for each datagram, in the order of the capture."""
        seen = [self.open(datagram.payload) for datagram in datagrams]
        contents = self.contents(seen)
        for number, (datagram, one) in enumerate(zip(datagrams, seen)):
            text = f"{datagram.source} > {datagram.target} {one.summary}"
            if one.opened:
                header = one.opened.header
                text += f" slot {header.slot} lane {header.lane} counter {header.counter}"
                text += f" {KINDS.get(header.kind, 'reserved')}: {contents[number]}"
            yield text

    def contents(self, seen):
        """The content of each datagram that was opened. Streams are reassembled in the order of counters."""
        streams, contents = {}, {}
        ordered = sorted((one.opened.key, one.opened.header.counter, number)
                         for number, one in enumerate(seen) if one.opened)
        last = None
        for key, counter, number in ordered:
            header, body = seen[number].opened[1:]
            if (key, counter) == last:
                contents[number] = "seen before"
                continue
            last = key, counter
            stream = streams.setdefault(key, tund.Stream(self.largest_frame))
            if header.kind == tund.STREAM:
                whole = stream.block(counter, body)
                contents[number] = "; ".join(map(describe_frame, whole)) or "part of a frame"
                continue
            stream.other(counter)
            if header.kind == tund.FRAME:
                contents[number] = describe_frame(body)
            else:
                name, fields = tund.parse_control(body)
                contents[number] = f"{name} {listed(fields)}"
        return contents


def sessions_of(path):
    with open(path, encoding="ascii") as file:
        for line in file:
            suite, *keys = line.split()
            yield int(suite), *(bytes.fromhex(key) for key in keys)


def key_arguments(parser):
    """The options that name a link's keys, shared by all programs here."""
    parser.add_argument("--shared", metavar="FILE")
    parser.add_argument("--private", metavar="FILE")
    parser.add_argument("--peer-public", metavar="HEX", type=bytes.fromhex)


def keys_of(options):
    """The keys of the link, and Noise's pair of static keys or None."""
    shared = tund.read_key(options.shared) if options.shared else None
    private = tund.read_key(options.private) if options.private else None
    statics = (private, options.peer_public) if private else None
    return tund.Keys(tund.secret(shared, private, options.peer_public)), statics


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    key_arguments(parser)
    parser.add_argument("--sessions", metavar="FILE")
    parser.add_argument("capture")
    options = parser.parse_args()
    keys, statics = keys_of(options)
    sessions = list(sessions_of(options.sessions)) if options.sessions else []
    packets = (one for frame in frames_of_pcap(options.capture) if (one := packet_of(frame)))
    for line in Decoder(keys, sessions, statics).decode(list(datagrams_of(packets, keys))):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
