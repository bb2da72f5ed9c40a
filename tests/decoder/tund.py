"""The protocol of PROTOCOL.md in Python, written from that text alone.

It shares no code with tund: where the two differ, one of them or the text is wrong. It is meant to be read. It must
not carry traffic: it does not resist timing attacks and does not erase keys.
"""

import hashlib
import hmac
import itertools
from collections import namedtuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as xchacha_open
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as xchacha_seal
from nacl.bindings import crypto_scalarmult as exchange
from nacl.bindings import crypto_scalarmult_base as public_of
from nacl.exceptions import CryptoError

import ml_kem

SUITES = {1: "chacha20-poly1305", 2: "aes-256-gcm"}
AEADS = {1: ChaCha20Poly1305, 2: AESGCM}
TAG, HEADER, KEY_ID = 16, 5, 16
FRAME, STREAM, CONTROL = 0, 1, 2
NEVER_VALID = 1 << 29
CONTROL_MAX, PING_MAX = 1200, 9216
INITIATION, ANSWER, RETRY = 1, 2, 3
X25519, HYBRID = 1, 2
PARTS = 3
SALT, RECORD_MAX = 16, 16384

Header = namedtuple("Header", "slot kind lane counter")
Opened = namedtuple("Opened", "key header body")
Handshake = namedtuple("Handshake", "type instance seq token message padding")


def expand(key, info):
    """HKDF-Expand to 32 bytes: its first block (RFC 5869)."""
    return hmac.digest(key, info + b"\x01", "sha256")


def aes(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(text, pad):
    return bytes(a ^ b for a, b in zip(text, pad))


def secret(shared=None, private=None, peer_public=None):
    """Section 1: the link secret L."""
    material = shared
    if private is not None:
        material = exchange(private, peer_public) + (shared or bytes(32))
    return hmac.digest(b"tund link v1", material, "sha256")


class Keys:
    """Section 1: the keys derived from L."""

    def __init__(self, link_secret):
        self.secret = link_secret
        self.probe, self.mask, self.wrap, self.psk, self.stream, self.loop = (
            expand(link_secret, label) for label in (b"probe", b"mask", b"wrap", b"psk", b"stream", b"loop"))
        self.key_ids = {}

    # Section 2

    def masked(self, front, tag):
        flipped = tag[:-1] + bytes([tag[-1] ^ 1])
        return xor(front, aes(self.mask, tag) + aes(self.mask, flipped))

    # Section 4

    def check(self, time, random):
        return aes(self.probe, b"stat" + time + random)[:4]

    def new_key_id(self, microseconds, random):
        time = microseconds.to_bytes(8, "big")
        return time + random + self.check(time, random)

    def is_key_id(self, key_id):
        return self.check(key_id[:8], key_id[8:12]) == key_id[12:]

    def static_key(self, suite, direction, key_id, lane, named=b""):
        assert bool(lane) == bool(named), "lanes beside lane 0 have their keys for the key id that was named"
        return expand(self.secret, b"tund v1 static" + bytes([suite, direction]) + key_id + bytes([lane]) + named)

    def seal_static(self, suite, direction, key_id, header, body, named=b""):
        key = self.static_key(suite, direction, key_id, header.lane, named)
        text, tag = seal(suite, key, header, body)
        return self.masked(key_id + packed(header), tag) + text + tag

    def open_static(self, datagram):
        """The key id, suite and direction under which a datagram verifies, and its content. The key of a lane depends on
        a named key id: each one seen so far (`key_ids`) is tried."""
        if len(datagram) < KEY_ID + HEADER + TAG:
            return None
        front = self.masked(datagram[:KEY_ID + HEADER], datagram[-TAG:])
        key_id, header = front[:KEY_ID], unpacked(front[KEY_ID:])
        if not self.is_key_id(key_id):
            return None
        for suite, direction, named in itertools.product(SUITES, (0, 1), self.key_ids if header.lane else [b""]):
            key = self.static_key(suite, direction, key_id, header.lane, named)
            body = unseal(suite, key, header, datagram[KEY_ID + HEADER:])
            if body is not None:
                self.key_ids |= {key_id: None}
                return key_id, suite, direction, Opened(key, header, body)
        return None

    # Section 3

    def wrapped(self, random, handshake, length):
        """A handshake datagram of this length."""
        message = handshake.message
        text = (bytes([handshake.type]) + handshake.instance + handshake.seq.to_bytes(8, "big") + handshake.token
                + len(message).to_bytes(2, "big") + message)
        text += bytes(length - 24 - len(text) - TAG)
        nonce = random + aes(self.probe, random)[:8]
        return nonce + xchacha_seal(text, None, nonce, self.wrap)

    def unwrapped(self, datagram):
        nonce, text = datagram[:24], datagram[24:]
        if len(datagram) < 24 + 35 + TAG or aes(self.probe, nonce[:16])[:8] != nonce[16:]:
            return None
        try:
            plain = xchacha_open(text, None, nonce, self.wrap)
        except CryptoError:
            return None
        end = 35 + int.from_bytes(plain[33:35], "big")
        if end > len(plain) or any(plain[end:]):
            raise ValueError("a handshake with a wrong length or with padding that is not zero")
        return Handshake(plain[0], plain[1:9], int.from_bytes(plain[9:17], "big"), plain[17:33], plain[35:end],
                         len(plain) - end)

    def seal_session(self, suite, direction_key, header, body):
        text, tag = seal(suite, session_key(suite, direction_key, header.lane), header, body)
        return self.masked(packed(header), tag) + text + tag

    def open_session(self, suite, direction_key, datagram):
        if len(datagram) < HEADER + TAG:
            return None
        header = unpacked(self.masked(datagram[:HEADER], datagram[-TAG:]))
        key = session_key(suite, direction_key, header.lane)
        body = unseal(suite, key, header, datagram[HEADER:])
        return None if body is None else Opened(key, header, body)


def session_key(suite, direction_key, lane):
    return expand(direction_key, b"tund v1 lane" + bytes([suite, lane]))


def packed(header):
    return bytes([header.slot << 6 | header.kind << 4 | header.lane]) + header.counter.to_bytes(4, "big")


def unpacked(text):
    return Header(text[0] >> 6, text[0] >> 4 & 3, text[0] & 15, int.from_bytes(text[1:], "big"))


def nonce_of(header):
    return bytes(8) + header.counter.to_bytes(4, "big")


def seal(suite, key, header, body):
    text = AEADS[suite](key).encrypt(nonce_of(header), body, packed(header))
    return text[:-TAG], text[-TAG:]


def unseal(suite, key, header, text):
    if header.counter >= NEVER_VALID:
        return None
    try:
        return AEADS[suite](key).decrypt(nonce_of(header), text, packed(header))
    except InvalidTag:
        return None


class Noise:
    """Section 3.2: NNpsk0, or KKpsk0 with static keys, in two messages (Noise revision 34)."""

    def __init__(self, initiator, prologue, psk, ephemeral, static=None, peer_static=None):
        self.initiator, self.ephemeral, self.static, self.peer_static = initiator, ephemeral, static, peer_static
        name = b"Noise_%s_25519_ChaChaPoly_SHA256" % (b"KKpsk0" if static else b"NNpsk0")
        self.hash = name + bytes(32 - len(name)) if len(name) <= 32 else hashlib.sha256(name).digest()
        self.chain, self.key, self.nonce = self.hash, None, 0
        self.psk = psk
        self.mix_hash(prologue)
        if static:
            own = public_of(static)
            for public in (own, peer_static) if initiator else (peer_static, own):
                self.mix_hash(public)

    def mix_hash(self, data):
        self.hash = hashlib.sha256(self.hash + data).digest()

    def derive(self, material, count):
        """Noise's HKDF."""
        key, outputs = hmac.digest(self.chain, material, "sha256"), [b""]
        for number in range(1, count + 1):
            outputs.append(hmac.digest(key, outputs[-1] + bytes([number]), "sha256"))
        return outputs[1:]

    def mix_key(self, material):
        self.chain, self.key = self.derive(material, 2)
        self.nonce = 0

    def mix_psk(self):
        self.chain, mixed, self.key = self.derive(self.psk, 3)
        self.mix_hash(mixed)
        self.nonce = 0

    def cipher(self):
        nonce = bytes(4) + self.nonce.to_bytes(8, "little")
        self.nonce += 1
        return ChaCha20Poly1305(self.key), nonce

    def write(self, payload):
        self.mix_psk_once()
        own = public_of(self.ephemeral)
        self.mix_ephemeral(own)
        self.mix_exchanges(self.initiator)
        cipher, nonce = self.cipher()
        text = cipher.encrypt(nonce, payload, self.hash)
        self.mix_hash(text)
        return own + text

    def read(self, message):
        self.mix_psk_once()
        self.peer_ephemeral = message[:32]
        self.mix_ephemeral(self.peer_ephemeral)
        self.mix_exchanges(not self.initiator)
        cipher, nonce = self.cipher()
        payload = cipher.decrypt(nonce, message[32:], self.hash)
        self.mix_hash(message[32:])
        return payload

    def mix_psk_once(self):
        if self.psk is not None:
            self.mix_psk()
            self.psk = None

    def mix_ephemeral(self, public):
        self.mix_hash(public)
        self.mix_key(public)

    def mix_exchanges(self, first_message):
        """Does es and ss in the first message, ee and se in the second. The first letter is the initiator's key."""
        if first_message and self.static:
            self.mix_key(self.exchange_es())
            self.mix_key(exchange(self.static, self.peer_static))
        if not first_message:
            self.mix_key(exchange(self.ephemeral, self.peer_ephemeral))
            if self.static:
                self.mix_key(self.exchange_se())

    def exchange_es(self):
        if self.initiator:
            return exchange(self.ephemeral, self.peer_static)
        return exchange(self.static, self.peer_ephemeral)

    def exchange_se(self):
        if self.initiator:
            return exchange(self.static, self.peer_ephemeral)
        return exchange(self.ephemeral, self.peer_static)

    def split(self):
        """The direction keys: initiator to responder, responder to initiator."""
        return self.derive(b"", 2)


class Hybrid(Noise):
    """Section 3.2: the same with ML-KEM-768; `seed` is d ‖ z of the initiator's key, or the responder's m."""

    def __init__(self, seed, *noise):
        super().__init__(*noise)
        self.seed = seed

    def write(self, payload):
        if self.initiator:
            own, self.decapsulation_key = ml_kem.generate(self.seed)
        else:
            own, self.shared = ml_kem.encapsulate(self.peer_key, self.seed)
        return super().write(own + payload)

    def read(self, message):
        payload = super().read(message)
        length = ml_kem.CIPHERTEXT if self.initiator else ml_kem.ENCAPSULATION_KEY
        theirs, payload = payload[:length], payload[length:]
        if self.initiator:
            self.shared = ml_kem.decapsulate(self.decapsulation_key, theirs)
        else:
            self.peer_key = theirs
        return payload

    def split(self):
        self.mix_key(self.shared + self.hash)
        return super().split()


def type_of(version, kind, part=0):
    return version << 4 | part << 2 | kind


def version_of(handshake):
    return handshake.type >> 4


def kind_of(handshake):
    return handshake.type & 3


def part_of(handshake):
    return handshake.type >> 2 & 3


def in_parts(handshake):
    """The same message in three parts."""
    message, length = handshake.message, -(-len(handshake.message) // PARTS)
    return [handshake._replace(type=handshake.type | part << 2, message=message[(part - 1) * length:part * length])
            for part in range(1, PARTS + 1)]


def prologue(handshake):
    return b"tund v%d" % version_of(handshake) + handshake.instance + handshake.seq.to_bytes(8, "big") + handshake.token


class Refused(ValueError):
    """A control message that a receiver refuses; the text is its name in section 6.3."""


def read_key(path):
    """A key file: comment lines and one line of 64 hexadecimal digits."""
    with open(path, encoding="ascii") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    (line,) = lines
    key = bytes.fromhex(line)
    assert len(key) == 32, f"{path}: a key has 32 bytes"
    return key


class Reader:
    """Section 6.1: the subset of CBOR that is used, in its only valid encoding."""

    DEPTH = 4

    def __init__(self, text):
        self.text = text

    def take(self, length):
        if length > len(self.text):
            raise Refused("Truncated")
        taken, self.text = self.text[:length], self.text[length:]
        return taken

    def argument(self, short):
        if short < 24:
            return short
        if short == 31:
            raise Refused("Indefinite")
        if short > 27:
            raise Refused("Unsupported")
        size = 1 << short - 24
        value = int.from_bytes(self.take(size), "big")
        if value < (24 if size == 1 else 1 << 4 * size):
            raise Refused("NotShortest")
        return value

    def value(self, depth=0):
        first = self.take(1)[0]
        major, short = first >> 5, first & 31
        if major in (1, 6, 7):
            raise Refused("Unsupported")
        argument = self.argument(short)
        if major == 0:
            return argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            try:
                return self.take(argument).decode()
            except UnicodeDecodeError:
                raise Refused("NotUtf8") from None
        if depth == self.DEPTH:
            raise Refused("TooDeep")
        if major == 4:
            return [self.value(depth + 1) for _ in range(argument)]
        return self.pairs(argument, depth)

    def pairs(self, count, depth):
        fields, last = {}, -1
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, int):
                raise Refused("WrongType")
            if key <= last:
                raise Refused("KeyOrder")
            fields[key], last = self.value(depth + 1), key
        return fields


def unsigned(bits):
    return lambda value: isinstance(value, int), lambda value: value < 1 << bits


def octets(least, most):
    return lambda value: isinstance(value, bytes), lambda value: least <= len(value) <= most


def text(most):
    return lambda value: isinstance(value, str), lambda value: len(value.encode()) <= most


def is_route(value):
    """An address and a prefix length, with no bits set after the prefix."""
    if len(value) not in (5, 17):
        return False
    address, length = value[:-1], value[-1]
    after = len(address) * 8 - length
    return after >= 0 and int.from_bytes(address, "big") & ((1 << after) - 1) == 0


FLAG = unsigned(1)
ZEROS = octets(0, PING_MAX)[0], lambda value: not any(value)
ADDRESSES = (lambda value: isinstance(value, list) and all(isinstance(one, bytes) for one in value),
             lambda value: len(value) <= 16 and all(len(one) in (4, 16) for one in value))
ROUTES = (ADDRESSES[0], lambda value: value and sum(len(one) + 1 for one in value) <= 540 and all(map(is_route, value)))
ENDS = (ADDRESSES[0], lambda value: len(value) == 2 and all(len(one) in (6, 18) for one in value))
CHALLENGE = {"challenge": octets(16, 16)}
LANES = unsigned(8)[0], lambda value: 1 <= value <= 16
PADDING = octets(0, 600)[0], lambda value: len(value) <= 600 and not any(value)
OPTIONAL = {"routes", "heard", "padding", "lanes", "rank", "named"}
MESSAGES = {
    1: ("ping", {"n": unsigned(32), "padding": ZEROS}),
    2: ("pong", {"n": unsigned(32), "received": unsigned(64)}),
    3: ("path", CHALLENGE),
    4: ("path-reply", CHALLENGE),
    7: ("hello", {"version": unsigned(8), "mode": FLAG, "mtu": unsigned(32), "addresses": ADDRESSES,
                  "peers": ADDRESSES, "budget": unsigned(16), "capabilities": unsigned(32), "name": text(64),
                  "seen": FLAG, "routes": ROUTES, "heard": octets(16, 16), "padding": PADDING, "lanes": LANES,
                  "rank": unsigned(32), "named": octets(16, 16)}),
    8: ("bye", {"reason": text(128)}),
    9: ("clones", {"ends": ENDS}),
    10: ("probed", {"probe": octets(16, 16)}),
    11: ("loop", {"state": (FLAG[0], lambda value: value < 3), "origin": octets(8, 8), "vlan": unsigned(16), "tunnelled": FLAG}),
}


def parse_control(body):
    """Section 6: the name and fields of a control message; (None, {}) for a type that is ignored."""
    if not body:
        raise Refused("Truncated")
    if body[0] not in MESSAGES:
        return None, {}
    if len(body) > (PING_MAX if body[0] == 1 else CONTROL_MAX):
        raise Refused("OutOfRange")
    reader = Reader(body[1:])
    values = reader.value()
    if reader.text:
        raise Refused("LeftOver")
    if not isinstance(values, dict):
        raise Refused("WrongType")
    name, fields = MESSAGES[body[0]]
    found = {}
    for number, (field, (is_type, is_in_range)) in enumerate(fields.items()):
        if number not in values and field in OPTIONAL:
            continue
        if number not in values:
            raise Refused(f"Missing({number})")
        if not is_type(values[number]):
            raise Refused("WrongType")
        if not is_in_range(values[number]):
            raise Refused("OutOfRange")
        found[field] = values[number]
    return name, found


def encoded(value):
    """The only valid CBOR encoding of a value."""
    def head(major, argument):
        if argument < 24:
            return bytes([major << 5 | argument])
        power = next(power for power in range(4) if argument < 1 << (8 << power))
        return bytes([major << 5 | 24 + power]) + argument.to_bytes(1 << power, "big")

    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encoded, value))
    pairs = (encoded(key) + encoded(one) for key, one in sorted(value.items()))
    return head(5, len(value)) + b"".join(pairs)


def control(message, /, **fields):
    """The body of a control message."""
    type_, (_, order) = next(item for item in MESSAGES.items() if item[1][0] == message)
    assert [name for name in order if name in fields or name not in OPTIONAL] == list(fields), f"fields: {list(order)}"
    return bytes([type_]) + encoded({list(order).index(name): value for name, value in fields.items()})


class Stream:
    """Section 5.2: the frames in the stream blocks of one key, which come in the order of their counters."""

    def __init__(self, largest_frame):
        self.largest_frame = largest_frame
        self.partial, self.missing, self.next = b"", 0, None

    def other(self, counter):
        """Notes a counter that was used for something else: it ends a partial frame."""
        self.partial, self.missing, self.next = b"", 0, counter + 1

    def block(self, counter, body):
        in_turn = counter == self.next
        partial, missing = (self.partial, self.missing) if in_turn else (b"", 0)
        self.other(counter)
        if len(body) < 2:
            return []
        offset, stream = int.from_bytes(body[:2], "big"), body[2:]
        taken, stream = stream[:offset], stream[offset:]
        frames = []
        if missing and missing == offset:
            partial += taken
            if len(taken) < offset:
                self.partial, self.missing = partial, offset - len(taken)
                return []
            frames.append(partial)
        while len(stream) >= 3:
            length = int.from_bytes(stream[:2], "big")
            if length == 0 or length > self.largest_frame:
                break
            frame, stream = stream[2:2 + length], stream[2 + length:]
            if len(frame) < length:
                self.partial, self.missing = frame, length - len(frame)
                break
            frames.append(frame)
        return frames


def loop_probe(keys, origin, round_number, vlan):
    """Section 7.1: the frame that reveals where the segments are joined; in VLAN 0 it has no tag."""
    block = origin + round_number + vlan + bytes(2)
    source = bytes([origin[0] & 0xfc | 2]) + origin[1:6]
    tag = b"\x81\x00" + vlan if any(vlan) else b""
    frame = b"\xff" * 6 + source + tag + b"\x88\xb5tund" + block + aes(keys.loop, block)
    return frame.ljust(64, b"\0")


class Lengths:
    """Section 11: masks or unmasks the lengths of one direction of a stream."""

    def __init__(self, keys, salt):
        self.key, self.salt, self.count = keys.stream, int.from_bytes(salt, "big"), 0

    def masked(self, length):
        block = (self.salt ^ self.count).to_bytes(SALT, "big")
        self.count += 1
        return xor(length, aes(self.key, block))


class Records:
    """Section 11: the datagrams of one direction of a stream."""

    def __init__(self, keys):
        self.keys, self.lengths, self.length, self.held = keys, None, None, b""

    def take(self, size):
        if len(self.held) < size:
            return None
        part, self.held = self.held[:size], self.held[size:]
        return part

    def feed(self, data):
        """The datagrams that these bytes complete."""
        self.held += data
        if self.lengths is None and (salt := self.take(SALT)):
            self.lengths = Lengths(self.keys, salt)
        while self.lengths:
            if self.length is None and (masked := self.take(2)):
                self.length = int.from_bytes(self.lengths.masked(masked), "big")
                assert 1 <= self.length <= RECORD_MAX, f"a record of {self.length} bytes"
            datagram = self.length and self.take(self.length)
            if not datagram:
                return
            self.length = None
            yield datagram
