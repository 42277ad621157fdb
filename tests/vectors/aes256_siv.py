#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes tests/vectors/aes256_siv.h, the AES-256-SIV rows of tests/unit/check_crypto.c, on its standard output.

RFC 5297 has vectors for 256-bit keys only. This is S2V and CTR written out from sections 2.4 to 2.6 of the RFC over
nothing but single AES blocks, so that it shares no SIV code with OpenSSL. It proves itself on the RFC's own vectors
(A.1, A.2) and on the AES-256 one of OpenSSL's evpciph_aes_siv.txt, and compares each row with AESSIV of
python3-cryptography.
"""
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV


def block(key, data):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def dbl(data):
    n = int.from_bytes(data, "big") << 1
    if n >> 128:
        n = (n & (1 << 128) - 1) ^ 0x87
    return n.to_bytes(16, "big")


def cmac(key, data):
    k1 = dbl(block(key, bytes(16)))
    full = data and len(data) % 16 == 0
    last = (len(data) - 1) // 16 * 16 if data else 0
    tail = xor(data[last:], k1) if full else xor((data[last:] + b"\x80").ljust(16, b"\0"), dbl(k1))
    state = bytes(16)
    for i in range(0, last, 16):
        state = block(key, xor(state, data[i:i + 16]))
    return block(key, xor(state, tail))


def seal(key, strings, plain):
    k1, k2 = key[:len(key) // 2], key[len(key) // 2:]
    d = cmac(k1, bytes(16))
    for s in strings:
        d = xor(dbl(d), cmac(k1, s))
    if len(plain) >= 16:
        t = plain[:-16] + xor(plain[-16:], d)
    else:
        t = xor(dbl(d), (plain + b"\x80").ljust(16, b"\0"))
    v = cmac(k1, t)
    q = int.from_bytes(v, "big") & ~(1 << 63 | 1 << 31)
    stream = b"".join(block(k2, (q + i & (1 << 128) - 1).to_bytes(16, "big")) for i in range(len(plain) // 16 + 1))
    return v + xor(plain, stream)


def prove():
    h = bytes.fromhex
    assert seal(h("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
                [h("101112131415161718191a1b1c1d1e1f2021222324252627")],
                h("112233445566778899aabbccddee")) == \
        h("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c")
    assert seal(h("7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f"),
                [h("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100"),
                 h("102030405060708090a0"), h("09f911029d74e35bd84156c5635688c0")],
                b"this is some plaintext to encrypt using SIV-AES") == \
        h("7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829"
          "ea64ad544a272e9c485b62a3fd5c0d")
    assert seal(h("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
                  "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefffffefdfcfbfaf9f8f7f6f5f4f3f2f1f0"),
                [h("101112131415161718191a1b1c1d1e1f2021222324252627")],
                h("112233445566778899aabbccddee")) == \
        h("724dfb2eaf94dbb19b0ba3a299a0801ef3b05a55498ec2552690b89810e4")


def literal(data):
    digits = data.hex()
    lines = [digits[i:i + 96] for i in range(0, len(digits), 96)] or [""]
    return "\n\t  ".join('"%s"' % line for line in lines)


def row(name, key, strings, plain):
    sealed = seal(key, strings, plain)
    assert AESSIV(key).encrypt(plain, strings) == sealed
    ads = ", ".join(literal(s) for s in strings)
    print('\t{ "%s",\n\t  %s,\n\t  { %s },\n\t  %s,\n\t  %s },' %
          (name, literal(key), ads or "NULL", literal(plain), literal(sealed)))


prove()
print("/* SPDX-License-Identifier: GPL-3.0-or-later */")
print("/* Made by aes256_siv.py, which says how: name, key, associated strings, plain text, V and ciphertext. */")
count_up = bytes(range(64))
count_down = bytes(range(255, 191, -1))
directory = bytes(range(0xa0, 0xb0))
row("no associated data", count_up, [], b"a")
row("one byte", count_up, [directory], b"x")
row("name of 15", count_down, [directory], b"fifteen-bytes.x")
row("name of 16", count_down, [directory], b"sixteen-bytes.xx")
row("name of 17", count_down, [directory], b"seventeen-bytes.x")
row("name of 255", count_up, [directory], bytes(33 + i % 90 for i in range(255)))
row("two strings", count_up, [b"symlink", bytes(range(16))], b"../lib/x86_64-linux-gnu/libc.so.6")
row("order of strings", count_up, [bytes(range(16)), b"symlink"], b"../lib/x86_64-linux-gnu/libc.so.6")
row("three strings", count_down, [b"a", b"bc", bytes(40)], bytes(64))
