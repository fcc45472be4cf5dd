#!/usr/bin/env python3
"""Section 11 of proto/WIRE.md, written a second time: prints the vectors that stand there.

Three agents, five values in a ring of 32 bits; Python's hashlib and cryptography instead of libsodium, and big-integer
polynomials instead of masks and shifts. tests/unit/test_secagg_wire.c plays the same sum with the real code and compares
every object with the page.
"""
import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

N, K, T, BITS = 3, 2, 2, 32
CONTEXT = bytes([7]) + bytes(31)
u16 = lambda x: struct.pack("<H", x)
u32 = lambda x: struct.pack("<I", x)


def h(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def label(text):
    return text.encode() + b"\0"


def head(number):
    return b"CSA1" + bytes([number, 0, 0, 0]) + CONTEXT


def stream(key, nonce16, size):
    return Cipher(algorithms.ChaCha20(key, nonce16), mode=None).encryptor().update(bytes(size))


# The harness's certificates and signatures: an id, and a digest instead of ECDSA.
def cert(i):
    return b"certificate".ljust(16, b"\0") + struct.pack("<Q", 1000 + i) + bytes(16)


def sign(i, message):
    return h(b"only the harness knows\0", cert(i), message)


def public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret, other):
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(other))


# GF(2^16)
def mul(a, b):
    product = 0
    for i in range(16):
        if b >> i & 1:
            product ^= a << i
    for i in range(31, 15, -1):
        if product >> i & 1:
            product ^= 0x1100B << (i - 16)
    return product


def deal(secret, rows, holders):
    """rows: T - 1 rows of 32 bytes, the coefficients of x, x^2, ..."""
    shares = {}
    for x in holders:
        value = [0] * 16
        for row in reversed([secret] + rows):
            symbols = struct.unpack("<16H", row)
            value = [mul(v, x) ^ s for v, s in zip(value, symbols)]
        shares[x - 1] = struct.pack("<16H", *value)
    return shares


# Draw number d of the kernel's randomness is 32 bytes of value d, from 1 on.
draws = iter(bytes([d]) * 32 for d in range(1, 100))
up, down = {}, {}
c_sk, s_sk, b = [], [], []
for i in range(N):
    c_sk.append(next(draws)), s_sk.append(next(draws)), b.append(next(draws))
    keys = public(c_sk[i]) + public(s_sk[i])
    message = h(label("cohort secagg advertise 1"), CONTEXT, keys)
    body = keys + u16(len(cert(i))) + cert(i) + u16(32) + sign(i, message)
    up[i, 1] = head(1) + body

# U1: by principal
principal = [h(cert(i)) for i in range(N)]
order = sorted(range(N), key=lambda i: principal[i])
index = {agent: place for place, agent in enumerate(order)}
entries = b"".join(
    principal[a] + h(label("cohort secagg keys 1"), CONTEXT, principal[a], up[a, 1][40:104])[:16] for a in order
)
numbers = u32(N) + u32(K) + u32(T)
view = h(label("cohort secagg roster 1"), CONTEXT, numbers, entries)
near = {a: [o for o in order if o != a] for a in order}  # up to 32 agents: everybody
for a in range(N):
    down[a, 2] = head(2) + numbers + entries + b"".join(up[o, 1][40:] for o in near[a])

self_share, sealed, checks, own = {}, {}, {}, {}
for a in range(N):
    me, rng = index[a], next(draws)
    coefficients = stream(rng, bytes(16), 64)  # (T - 1) * 32 bytes for b, then for the key
    holders = [me + 1] + [index[o] + 1 for o in near[a]]
    of_b = deal(b[a], [coefficients[:32]], holders)
    of_s = deal(s_sk[a], [coefficients[32:64]], holders[1:])
    own[a] = of_b[me]

    def check(kind, holder, share):
        return h(label("cohort secagg share check 1"), view, u32(kind), u32(me), u32(holder), share)[:16]

    out = h(label("cohort secagg commitment 1"), view, u32(me), b[a])
    out += b"".join(check(1, x - 1, of_b[x - 1]) for x in holders)
    out += b"".join(check(2, x - 1, of_s[x - 1]) for x in holders[1:])
    for o in near[a]:
        to = index[o]
        key = h(label("cohort secagg share key 1"), view, u32(me), u32(to), agree(c_sk[a], public(c_sk[o])))
        sealed[a, o] = ChaCha20Poly1305(key).encrypt(bytes(12), of_b[to] + of_s[to], view)
        checks[a, o] = check(1, to, of_b[to]) + check(2, to, of_s[to])
        self_share[a, o] = (of_b[to], of_s[to])
        out += sealed[a, o]
    up[a, 3] = head(3) + out

everybody = bytes([7])
for a in range(N):
    down[a, 4] = head(4) + everybody + u32(K) + b"".join(sealed[o, a] + checks[o, a] for o in near[a])


def mask(seed, count):
    return struct.unpack("<%dI" % count, stream(seed, bytes(8) + struct.pack("<Q", 0), 4 * count))


values = [[100 * (a + 1) - v for v in range(5)] for a in range(N)]
seeds = {}
for a in range(N):
    me, y = index[a], list(values[a])
    seeds[a, "self"] = h(label("cohort secagg self mask 1"), view, u32(me), b[a])
    y = [(x + m) for x, m in zip(y, mask(seeds[a, "self"], 5))]
    for o in near[a]:
        low, high = sorted((me, index[o]))
        seed = h(label("cohort secagg pair mask 1"), view, u32(low), u32(high), agree(s_sk[a], public(s_sk[o])))
        seeds[a, o] = seed
        y = [x + (m if index[o] > me else -m) for x, m in zip(y, mask(seed, 5))]
    up[a, 5] = head(5) + b"".join(u32(x % 2**BITS) for x in y)

survived = [a for a in range(N) if a != 2]  # agent 2 leaves before MASK
u3 = bytes([sum(1 << index[a] for a in survived)])
message = h(label("cohort secagg survivors 1"), view, u32(1), everybody, u3)
for a in survived:
    down[a, 6] = head(6) + u3
    others = sorted(index[o] for o in range(N) if o != a)
    up[a, 7] = head(7) + u16(32) + sign(a, message) + u32(len(others)) + b"".join(u32(o) for o in others)
for a in survived:
    shown = [o for o in sorted(survived, key=lambda o: index[o]) if o != a]
    down[a, 8] = head(8) + u32(len(shown)) + b"".join(
        u32(index[o]) + u16(len(cert(o))) + cert(o) + u16(32) + sign(o, message) for o in shown
    )
    out = own[a] + u32(K)
    for o in near[a]:
        kind = 1 if o in survived else 2
        out += u32(index[o]) + bytes([kind]) + self_share[o, a][kind - 1]
    up[a, 9] = head(9) + out

names = "ADVERT ROSTER SHARES DELIVERY MASKED SURVIVORS SIGNED PROOFS REVEAL".split()
for number, name in enumerate(names, 1):
    source = up if number % 2 else down
    print("    secagg %s: %s" % (name, source[0, number].hex()))
print("    secagg roster-digest: %s" % view.hex())
print("    secagg self-seed: %s" % seeds[0, "self"].hex())
print("    secagg pair-seed: %s" % seeds[0, 1].hex())
total = [sum(values[a][v] for a in survived) for v in range(5)]
print("    secagg sum: %s" % b"".join(struct.pack("<q", x) for x in total).hex())


# The graph of 40 agents from the seed 00 01 ... 1f.
def below(words, bound):
    while True:
        x = next(words)
        if x >= (2**64 - bound) % bound:
            return x % bound


words = iter(struct.unpack("<512Q", stream(bytes(range(32)), bytes(16), 4096)))
ring = list(range(40))
for i in range(39, 0, -1):
    j = below(words, i + 1)
    ring[i], ring[j] = ring[j], ring[i]
print("    secagg ring: %s" % bytes(ring).hex())
