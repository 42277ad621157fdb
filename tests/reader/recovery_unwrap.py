#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unwrap a volume's KEK with a recovery code, which is read from stdin, without cmekfs.

Written from doc/kms/recovery.md alone, whose sections it follows in order. The KEK goes to stdout. It never writes.
"""

import argparse
import base64
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from local_unwrap import volume_header

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def times(a, b):
    product = 0
    for bit in range(5):
        if b >> bit & 1:
            product ^= a << bit
    for bit in (8, 7, 6, 5):
        if product >> bit & 1:
            product ^= 0b100101 << bit - 5
    return product


def bits_of(text):
    text = text.upper().replace("O", "0").replace("I", "1").replace("L", "1")
    digits = [ALPHABET.index(c) for c in text if c not in "- \n"]
    if len(digits) != 60:
        sys.exit("recovery_unwrap: not 12 groups of 5")
    bits = 0
    for group in range(12):
        *data, check = digits[5 * group:5 * group + 5]
        want = group + 1
        for i, digit in enumerate(data):
            want ^= times(i + 2, digit)
            bits = bits << 5 | digit
        if check != want:
            sys.exit(f"recovery_unwrap: group {group + 1}")
    return bits.to_bytes(30, "big")


def derive(secret, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def unwrap(private, slot, uuid):
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    if slot["resolved"].split(":")[2] != base64.urlsafe_b64encode(public).rstrip(b"=").decode():
        sys.exit("recovery_unwrap: another slot's code")
    blob = base64.b64decode(slot["wrapped"])
    if len(blob) != 84 or blob[:4] != b"CMR\x01":
        sys.exit("recovery_unwrap: not wrapped for a code")
    shared = private.exchange(X25519PublicKey.from_public_bytes(blob[4:36]))
    aad = f"cmekfs:volume={uuid}\0cmekfs:slot={slot['purpose']}\0".encode()
    try:
        return AESGCM(derive(shared, blob[4:36] + public, b"cmekfs recovery wrap v1")).decrypt(bytes(12), blob[36:], aad)
    except InvalidTag:
        sys.exit("recovery_unwrap: fails authentication")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("slot", type=int)
    args = parser.parse_args()
    config = volume_header(args.store).config
    private = X25519PrivateKey.from_private_bytes(derive(bits_of(sys.stdin.read()), None, b"cmekfs recovery key v1"))
    slot = next(slot for slot in config["slots"] if slot["id"] == args.slot)
    sys.stdout.buffer.write(unwrap(private, slot, config["uuid"]))


if __name__ == "__main__":
    main()
