#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a local key store, and key slots of volumes wrapped by it, for tests.

Written from doc/kms/local.md alone, and apart from local_unwrap.py. It makes a
store that was not there before; it does not change one.
"""

import argparse
import base64
import datetime
import hmac
import json
import os
import sys
import uuid

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

NOW = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def b64(data):
    return base64.b64encode(data).decode()


def hkdf(key, salt, info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info.encode()).derive(key)


class KeyStoreMaker:
    """A store with one key for each name, each with as many versions as wanted."""

    def __init__(self, names, versions=1, passphrase=None, n=16384):
        self.uuid = uuid.uuid4()
        self.key_file = None
        if passphrase is None:
            master = self.key_file = os.urandom(32)
            self.protection = {"type": "key-file"}
        else:
            salt = os.urandom(32)
            master = Scrypt(salt=salt, length=32, n=n, r=8, p=1).derive(passphrase)
            self.protection = {"type": "passphrase", "kdf": "scrypt", "n": n, "r": 8, "p": 1, "salt": b64(salt)}
        self.wrap_key = hkdf(master, self.uuid.bytes, "cmekfs key store v1: wrap")
        self.mac_key = hkdf(master, self.uuid.bytes, "cmekfs key store v1: mac")
        self.check = hkdf(master, self.uuid.bytes, "cmekfs key store v1: check")
        self.material = {name: [os.urandom(32) for _ in range(versions)] for name in names}

    def text(self):
        keys = [{"name": name, "state": "enabled", "created": NOW,
                 "versions": [{"version": i + 1, "created": NOW, "wrapped": b64(self.sealed(name, i + 1))}
                              for i in range(len(material))]}
                for name, material in sorted(self.material.items())]
        store = {"format": "cmekfs key store", "version": 1, "uuid": str(self.uuid), "created": NOW, "sequence": 1,
                 "protection": self.protection, "check": b64(self.check), "keys": keys}
        text = json.dumps(store, sort_keys=True, separators=(",", ":"))
        store["mac"] = b64(hmac.new(self.mac_key, text.encode(), "sha256").digest())
        return json.dumps(store, indent=1)

    def sealed(self, name, version):
        nonce = os.urandom(12)
        aad = self.uuid.bytes + len(name).to_bytes(1, "little") + name.encode() + version.to_bytes(4, "little")
        return nonce + AESGCM(self.wrap_key).encrypt(nonce, self.material[name][version - 1], aad)

    def write(self, path):
        if self.key_file:
            self.put(path + ".key", self.key_file)
        self.put(path, self.text().encode())

    @staticmethod
    def put(path, data):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)

    def wrap(self, name, kek, volume_uuid, purpose, version=None):
        """What a slot has in `wrapped`, before base64."""
        version = version or len(self.material[name])
        salt, nonce = os.urandom(16), os.urandom(12)
        aad = b""
        for line in (f"cmekfs:volume={volume_uuid}", f"cmekfs:slot={purpose}", name):
            aad += len(line).to_bytes(2, "little") + line.encode()
        aad += version.to_bytes(4, "little")
        key = hkdf(self.material[name][version - 1], salt, "cmekfs local wrap v1")
        return b"CML\x01" + version.to_bytes(4, "little") + salt + nonce + AESGCM(key).encrypt(nonce, kek, aad)

    def slot(self, slot_id, name, kek, volume_uuid, purpose="data", version=None):
        version = version or len(self.material[name])
        return {"id": slot_id, "purpose": purpose, "provider": "local", "key": f"local:{name}",
                "resolved": f"local:{name}", "version": str(version), "region": "", "principal": {},
                "wrapped": b64(self.wrap(name, kek, volume_uuid, purpose, version)), "created": NOW, "rewrapped": NOW}


def main():
    parser = argparse.ArgumentParser(description="Make a local key store and slots for a volume, for tests.")
    parser.add_argument("--kek-file", required=True, metavar="FILE", help="the volume's KEK, 32 bytes")
    parser.add_argument("--uuid", required=True, help="of the volume")
    parser.add_argument("--versions", type=int, default=1, help="how many versions each key has; the first one wraps")
    parser.add_argument("--passphrase-file", metavar="FILE", help="in place of a key file")
    parser.add_argument("keystore", help="the key store to be made")
    parser.add_argument("names", nargs="+", metavar="NAME[=PURPOSE]", help="a key, and the purpose of its slot")
    args = parser.parse_args()
    with open(args.kek_file, "rb") as file:
        kek = file.read()
    passphrase = None
    if args.passphrase_file:
        with open(args.passphrase_file, "rb") as file:
            passphrase = file.readline().rstrip(b"\n")
    pairs = [(name, purpose or "data") for name, _, purpose in (arg.partition("=") for arg in args.names)]
    maker = KeyStoreMaker([name for name, _ in pairs], args.versions, passphrase)
    maker.write(args.keystore)
    slots = [maker.slot(i, name, kek, args.uuid, purpose, 1) for i, (name, purpose) in enumerate(pairs)]
    json.dump(slots, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
