#!/usr/bin/python3
"""An end of a link, written from PROTOCOL.md alone: it brings up a link with tund and pings through it.

    end.py --shared static.key --mode handshake --remote 10.0.0.2:1417 --own 192.168.86.81 --peer 192.168.86.18

It initiates, sends hellos, answers the peer's requests, and sends echo requests (RFC 792) as frames. It writes its
session keys to --sessions FILE for decode.py. It exits with 0 if every echo request was answered.
"""

import argparse
import ipaddress
import os
import socket
import struct
import sys
import time

import decode
import tund
from tund import Handshake, Header

PATIENCE = 20
RECEIVE_SLOT = 2
INSTANCE = 8
PINGS = 5
SMALL, LARGE = 20, 1360
COUNTERS, ROOM = 1 << 29, 300


class StaticMode:
    """Section 4: every datagram stands alone."""

    def __init__(self, keys, suite, direction):
        self.keys, self.suite, self.direction, self.counter = keys, suite, direction, -1
        self.key_id, self.heard, self.taken = keys.new_key_id(time.time_ns() // 1000, os.urandom(4)), None, {}

    def sealed(self, kind, body):
        self.counter += 1
        return self.keys.seal_static(self.suite, self.direction, self.key_id, Header(0, kind, 0, self.counter), body)

    def opened(self, datagram):
        found = self.keys.open_static(datagram)
        if found is None:
            return None
        key_id, suite, direction, opened = found
        assert (suite, direction) == (self.suite, 1 - self.direction), "a datagram of the wrong direction"
        name, fields = tund.parse_control(opened.body) if opened.header.kind == tund.CONTROL else (None, {})
        if name == "hello":
            self.heard = key_id
            if key_id not in self.taken and fields.get("heard") == self.key_id:
                self.taken[key_id] = opened.header.counter
                return opened
        return opened if opened.header.counter > self.taken.get(key_id, COUNTERS) else None

    def names(self):
        """Additional fields of a hello: which key id was heard, and room for an answer."""
        return ({"heard": self.heard} if self.heard else {}) | {"padding": bytes(ROOM)}


class SessionMode:
    """Section 3: a session after one round trip. `send` and `receive` carry datagrams."""

    def __init__(self, keys, statics, suites, form, send, receive):
        self.keys, self.counter = keys, -1
        version, parts = form
        instance, token = os.urandom(8), bytes(16)
        for seq in range(1, 9):
            unsigned = Handshake(tund.type_of(version, tund.INITIATION), instance, seq, token, b"", 0)
            noise = (True, tund.prologue(unsigned), keys.psk, os.urandom(32), *(statics or ()))
            noise = tund.Noise(*noise) if version == tund.X25519 else tund.Hybrid(os.urandom(64), *noise)
            whole = unsigned._replace(message=noise.write(bytes([RECEIVE_SLOT, 1, len(suites), *suites])))
            low, high = (488, 548) if parts else (200, 548) if version == tund.X25519 else (1312, 1372)
            lengths = []
            for handshake in tund.in_parts(whole) if parts else [whole]:
                lengths.append(low + int.from_bytes(os.urandom(2), "big") % (high - low + 1))
                send(keys.wrapped(os.urandom(16), handshake, lengths[-1]))
            answer = self.answer_to(unsigned, min(lengths), receive)
            if answer and tund.kind_of(answer) == tund.RETRY:
                token = answer.token
            elif answer:
                self.take(noise, answer, suites)
                return
        raise TimeoutError("no answer to any initiation")

    def answer_to(self, initiation, length, receive):
        deadline, parts = time.monotonic() + 2, {}
        while datagram := receive(deadline):
            found = self.keys.unwrapped(datagram)
            if found and found[1:3] == initiation[1:3]:
                assert len(datagram) <= length, "an answer longer than what it answers"
                assert tund.version_of(found) == tund.version_of(initiation), "another version"
                parts[tund.part_of(found)] = found.message
                if 0 in parts or len(parts) == tund.PARTS:
                    return found._replace(message=b"".join(parts[number] for number in sorted(parts)))
        return None

    def take(self, noise, answer, suites):
        slot, lanes, count, *chosen = noise.read(answer.message)[INSTANCE:]
        assert (lanes, count, len(chosen)) == (1, 1, 1) and chosen[0] in suites, f"payload {slot} {lanes} {chosen}"
        self.slot, (self.suite,), self.direction_keys = slot, chosen, noise.split()

    def sealed(self, kind, body):
        self.counter += 1
        header = Header(self.slot, kind, 0, self.counter)
        return self.keys.seal_session(self.suite, self.direction_keys[0], header, body)

    def names(self):
        return {}

    def opened(self, datagram):
        opened = self.keys.open_session(self.suite, self.direction_keys[1], datagram)
        assert not opened or opened.header.slot == RECEIVE_SLOT, f"for slot {opened.header.slot}"
        return opened


class End:
    def __init__(self, socket_, mode, own, peer, mtu):
        self.socket, self.mode, self.own, self.peer, self.mtu = socket_, mode, own, peer, mtu
        self.stream, self.seen, self.hello = tund.Stream(0xffff), False, None
        self.replies = set()

    def send(self, kind, body):
        self.socket.send(self.mode.sealed(kind, body))

    def say_hello(self):
        self.send(tund.CONTROL, tund.control(
            "hello", version=1, mode=0, mtu=self.mtu, addresses=[self.own], peers=[self.peer], budget=1400,
            capabilities=0, name="from the document", seen=int(self.hello is not None), **self.mode.names()))

    def receive_until(self, deadline, done):
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            datagram = receive(self.socket, left)
            if datagram:
                self.take(datagram)
        return True

    def take(self, datagram):
        opened = self.mode.opened(datagram)
        if opened is None:
            return
        header, body = opened.header, opened.body
        if header.kind == tund.STREAM:
            for frame in self.stream.block(header.counter, body):
                self.take_frame(frame)
            return
        self.stream.other(header.counter)
        if header.kind == tund.FRAME:
            self.take_frame(body)
        else:
            self.take_control(*tund.parse_control(body))

    def take_control(self, name, fields):
        if name == "ping":
            self.send(tund.CONTROL, tund.control("pong", n=fields["n"], received=1))
        elif name == "path":
            self.send(tund.CONTROL, tund.control("path-reply", **fields))
        elif name == "hello":
            self.hello = fields
            if not fields["seen"]:
                self.say_hello()
        elif name == "bye":
            raise ConnectionError(f"the peer said bye: {fields['reason']!r}")

    def take_frame(self, frame):
        """Counts an echo reply from the peer's inner address, by its length and sequence number."""
        if frame[9] == 1 and frame[12:16] == self.peer and frame[16:20] == self.own and frame[20] == 0:
            self.replies.add((len(frame), struct.unpack(">H", frame[26:28])[0]))

    def come_up(self):
        """Sends hellos until the peer has seen one."""
        for _ in range(PATIENCE):
            self.say_hello()
            if self.receive_until(time.monotonic() + 1, lambda: self.hello and self.hello["seen"]):
                self.say_hello()
                return
        raise TimeoutError(f"the link did not come up; the peer's hello: {self.hello}")

    def ping(self, number, length, kind):
        frame = echo_request(self.own, self.peer, number, length)
        body = frame if kind == tund.FRAME else bytes(2) + len(frame).to_bytes(2, "big") + frame
        self.send(kind, body)
        return self.receive_until(time.monotonic() + 2, lambda: (length, number) in self.replies)


class TcpSocket:
    """Section 11: datagrams over a stream, with those methods of a socket that are used here."""

    def __init__(self, keys, tcp):
        self.tcp, self.records, self.waiting, self.salt = tcp, tund.Records(keys), [], os.urandom(tund.SALT)
        self.lengths = tund.Lengths(keys, self.salt)

    def send(self, datagram):
        self.tcp.sendall(self.salt + self.lengths.masked(len(datagram).to_bytes(2, "big")) + datagram)
        self.salt = b""

    def settimeout(self, seconds):
        self.tcp.settimeout(seconds)

    def recv(self, size):
        while not self.waiting:
            data = self.tcp.recv(size)
            if not data:
                raise ConnectionError("the stream ended")
            self.waiting += self.records.feed(data)
        return self.waiting.pop(0)


def connected(keys, remote):
    """A socket that sends datagrams to HOST:PORT, or over a stream to tcp:HOST:PORT."""
    stream = remote.startswith("tcp:")
    host, port = remote.removeprefix("tcp:").split(":")
    outer = socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    outer.connect((host, int(port)))
    return TcpSocket(keys, outer) if stream else outer


def checksum(text):
    total = sum(struct.unpack(f">{len(text) // 2}H", text))
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    return (~total & 0xffff).to_bytes(2, "big")


def echo_request(source, target, number, length):
    head = struct.pack(">BBHHHBBH", 0x45, 0, length, number, 0, 64, 1, 0) + source + target
    head = head[:10] + checksum(head) + head[12:]
    echo = struct.pack(">BBHHH", 8, 0, 0, 7, number) + bytes(length - 28)
    return head + echo[:2] + checksum(echo) + echo[4:]


def receive(socket_, seconds):
    socket_.settimeout(max(seconds, 0.001))
    try:
        return socket_.recv(65535)
    except TimeoutError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    decode.key_arguments(parser)
    parser.add_argument("--mode", choices=("static", "handshake"), default="handshake")
    parser.add_argument("--suites", default="1,2", help="in the order of preference; static: the first")
    parser.add_argument("--version", type=int, default=tund.HYBRID, help="of the handshake")
    parser.add_argument("--parts", action="store_true", help="initiate in parts")
    parser.add_argument("--direction", type=int, default=1, help="of a static key")
    parser.add_argument("--remote", required=True)
    parser.add_argument("--own", required=True, type=lambda text: ipaddress.ip_address(text).packed)
    parser.add_argument("--peer", required=True, type=lambda text: ipaddress.ip_address(text).packed)
    parser.add_argument("--mtu", type=int, default=1420)
    parser.add_argument("--sessions", metavar="FILE")
    options = parser.parse_args()
    keys, statics = decode.keys_of(options)
    suites = [int(suite) for suite in options.suites.split(",")]
    outer = connected(keys, options.remote)
    if options.mode == "static":
        mode = StaticMode(keys, suites[0], options.direction)
    else:
        form = options.version, options.parts
        take = lambda until: receive(outer, until - time.monotonic())
        mode = SessionMode(keys, statics, suites, form, outer.send, take)
        if options.sessions:
            with open(options.sessions, "w", encoding="ascii") as file:
                print(mode.suite, *(key.hex() for key in mode.direction_keys), file=file)
    end = End(outer, mode, options.own, options.peer, options.mtu)
    end.come_up()
    print(f"up with {end.hello['name']!r}, {tund.SUITES[mode.suite]}")
    cases = [(length, kind) for length in (28 + SMALL, LARGE) for kind in (tund.FRAME, tund.STREAM)]
    answered = [end.ping(number, *cases[number % len(cases)]) for number in range(PINGS * len(cases))]
    print(f"{sum(answered)} of {len(answered)} echo requests answered")
    end.send(tund.CONTROL, tund.control("bye", reason="done"))
    return 0 if all(answered) else 1


if __name__ == "__main__":
    sys.exit(main())
