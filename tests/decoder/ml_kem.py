"""ML-KEM-768, written from FIPS 203 alone. Algorithm numbers are those of FIPS 203.

It is the reference for the vectors of PROTOCOL.md, and serves the other end in tests. It is slow, and its running time depends on secrets.

    ml_kem.py ACVP-FILE    checks it against NIST's vectors
"""

import hashlib
import sys

Q, N, K, ETA, DU, DV = 3329, 256, 3, 2, 10, 4
SEED, ENCAPSULATION_KEY, CIPHERTEXT = 64, 384 * K + 32, 32 * (DU * K + DV)


def reversed7(number):
    return int(f"{number:07b}"[::-1], 2)


ZETAS = [pow(17, reversed7(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * reversed7(i) + 1, Q) for i in range(128)]


def hash_g(data):
    digest = hashlib.sha3_512(data).digest()
    return digest[:32], digest[32:]


def encode(numbers, bits):
    """Algorithm 5, for all coefficients of a polynomial."""
    return sum(number << bits * i for i, number in enumerate(numbers)).to_bytes(32 * bits, "little")


def decode(data, bits):
    """Algorithm 6; 12-bit values are taken modulo q."""
    whole, modulus = int.from_bytes(data, "little"), Q if bits == 12 else 1 << bits
    return [(whole >> bits * i & (1 << bits) - 1) % modulus for i in range(N)]


def compress(numbers, bits):
    return [((number << bits + 1) + Q) // (2 * Q) % (1 << bits) for number in numbers]


def decompress(numbers, bits):
    return [(2 * Q * number + (1 << bits)) >> bits + 1 for number in numbers]


def sample_ntt(seed):
    """Algorithm 7. No seed is known to need 1600 bytes; if they do not suffice, it raises StopIteration."""
    stream = hashlib.shake_128(seed).digest(1600)
    pairs = ((stream[i] | (stream[i + 1] & 15) << 8, stream[i + 1] >> 4 | stream[i + 2] << 4)
             for i in range(0, len(stream) - 2, 3))
    taken = (number for pair in pairs for number in pair if number < Q)
    return [next(taken) for _ in range(N)]


def sample_cbd(seed, nonce):
    """Algorithm 8 with PRF, for eta 2."""
    whole = int.from_bytes(hashlib.shake_256(seed + bytes([nonce])).digest(64 * ETA), "little")
    bit = [whole >> i & 1 for i in range(4 * N)]
    return [(bit[4 * i] + bit[4 * i + 1] - bit[4 * i + 2] - bit[4 * i + 3]) % Q for i in range(N)]


def ntt(numbers):
    """Algorithm 9."""
    out, i, length = list(numbers), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * out[j + length] % Q
                out[j + length], out[j] = (out[j] - t) % Q, (out[j] + t) % Q
        length //= 2
    return out


def inverse_ntt(numbers):
    """Algorithm 10."""
    out, i, length = list(numbers), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i - 1
            for j in range(start, start + length):
                t = out[j]
                out[j], out[j + length] = (t + out[j + length]) % Q, zeta * (out[j + length] - t) % Q
        length *= 2
    return [number * 3303 % Q for number in out]


def add(a, b):
    return [(x + y) % Q for x, y in zip(a, b)]


def product(a, b):
    """Algorithms 11 and 12."""
    out = []
    for i, gamma in enumerate(GAMMAS):
        (a0, a1), (b0, b1) = a[2 * i:2 * i + 2], b[2 * i:2 * i + 2]
        out += [(a0 * b0 + a1 * b1 * gamma) % Q, (a0 * b1 + a1 * b0) % Q]
    return out


def dot(left, right):
    total = [0] * N
    for a, b in zip(left, right):
        total = add(total, product(a, b))
    return total


def matrix(rho):
    return [[sample_ntt(rho + bytes([column, row])) for column in range(K)] for row in range(K)]


def split(data, length):
    return [data[i:i + length] for i in range(0, len(data), length)]


def generate(seed):
    """Algorithms 13 and 16: the encapsulation and the decapsulation key of d ‖ z."""
    d, z = seed[:32], seed[32:]
    rho, sigma = hash_g(d + bytes([K]))
    secret = [ntt(sample_cbd(sigma, i)) for i in range(K)]
    error = [ntt(sample_cbd(sigma, K + i)) for i in range(K)]
    public = [add(dot(row, secret), e) for row, e in zip(matrix(rho), error)]
    key = b"".join(encode(t, 12) for t in public) + rho
    return key, b"".join(encode(s, 12) for s in secret) + key + hashlib.sha3_256(key).digest() + z


def encrypt(key, message, randomness):
    """Algorithm 14."""
    public, rho = [decode(part, 12) for part in split(key[:-32], 384)], key[-32:]
    y = [ntt(sample_cbd(randomness, i)) for i in range(K)]
    e1 = [sample_cbd(randomness, K + i) for i in range(K)]
    columns = zip(*matrix(rho))
    u = [add(inverse_ntt(dot(column, y)), e) for column, e in zip(columns, e1)]
    v = add(inverse_ntt(dot(public, y)), sample_cbd(randomness, 2 * K))
    v = add(v, decompress(decode(message, 1), 1))
    return b"".join(encode(compress(one, DU), DU) for one in u) + encode(compress(v, DV), DV)


def encapsulate(key, message):
    """Algorithms 17 and 20: the ciphertext and the shared key. Raises ValueError if the key has another length or a coefficient of q or more."""
    if len(key) != ENCAPSULATION_KEY or any(encode(decode(part, 12), 12) != part for part in split(key[:-32], 384)):
        raise ValueError("no encapsulation key")
    shared, randomness = hash_g(message + hashlib.sha3_256(key).digest())
    return encrypt(key, message, randomness), shared


def decapsulate(key, ciphertext):
    """Algorithms 15, 18 and 21: the shared key, or a key that nobody else has."""
    if len(ciphertext) != CIPHERTEXT:
        raise ValueError("no ciphertext")
    secret, public, check, z = key[:384 * K], key[384 * K:-64], key[-64:-32], key[-32:]
    u = [decompress(decode(part, DU), DU) for part in split(ciphertext[:32 * DU * K], 32 * DU)]
    v = decompress(decode(ciphertext[32 * DU * K:], DV), DV)
    w = inverse_ntt(dot([decode(part, 12) for part in split(secret, 384)], map(ntt, u)))
    message = encode(compress([(x - y) % Q for x, y in zip(v, w)], 1), 1)
    shared, randomness = hash_g(message + check)
    if encrypt(public, message, randomness) != ciphertext:
        return hashlib.shake_256(z + ciphertext).digest(32)
    return shared


def main():
    def is_right(kind, fields):
        if kind == "generate":
            d, z, digest = fields
            return hashlib.sha256(b"".join(generate(d + z))).digest() == digest
        if kind == "encapsulate":
            key, message, digest, shared = fields
            ciphertext, found = encapsulate(key, message)
            return (hashlib.sha256(ciphertext).digest(), found) == (digest, shared)
        return decapsulate(decapsulation_key, fields[0]) == fields[1]

    count, decapsulation_key = 0, None
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in file:
            kind, number, *fields = line.split()
            fields = [bytes.fromhex(field) for field in fields] if kind != "#" else None
            if kind == "key":
                (decapsulation_key,) = fields
            elif fields:
                assert is_right(kind, fields), f"{kind} {number}"
                count += 1
    print(f"{count} vectors of NIST hold")


if __name__ == "__main__":
    main()
