#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a local key store, and unwrap a volume's KEK with it, without cmekfs.

Written from doc/kms/local.md alone, whose sections it follows in order; the
volume's header is read by cmekfs_reader.py. It never writes.
"""

import argparse
import base64
import binascii
import datetime
import hmac
import json
import os
import re
import stat
import struct
import sys
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

import cmekfs_reader as reader


class Refused(Exception):
    """The store or the key is not to be used; the message says why."""


def derive(key, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def un_b64(text, length, what):
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        data = b""
    if len(data) != length:
        raise Refused(f"{what}: not {length} bytes of base64")
    return data


# --- 1. Files --------------------------------------------------------------

def read_private(path, limit):
    """A file that nobody but us or root may touch."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path}: not a regular file")
        if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            raise Refused(f"{path}: not private to its owner")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"{path}: too large")
    return data


def default_path():
    if os.environ.get("CMEKFS_LOCAL_KEYSTORE"):
        return os.environ["CMEKFS_LOCAL_KEYSTORE"]
    if os.geteuid() == 0:
        return "/var/lib/cmekfs/keys.json"
    data_home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.environ["HOME"], ".local/share")
    return os.path.join(data_home, "cmekfs/keys.json")


# --- 2. The store ----------------------------------------------------------

def no_duplicates(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a member appears twice")
    return result


def exactly(value, what, required, optional=()):
    if not isinstance(value, dict) or not set(required) <= set(value) <= set(required) | set(optional):
        raise Refused(f"{what}: wrong members")


def time_of(text, what):
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
            raise ValueError
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise Refused(f"{what}: not a time") from None


def parse_store(data):
    try:
        store = json.loads(data.decode("utf-8"), object_pairs_hook=no_duplicates)
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from None
    if not isinstance(store, dict) or store.get("format") != "cmekfs key store":
        raise Refused("not a key store")
    if store.get("version") != 1:
        raise Refused("a version that is not known")
    exactly(store, "store", ("format", "version", "uuid", "created", "sequence", "protection", "check", "keys", "mac"))
    try:
        good = str(uuid.UUID(store["uuid"])) == store["uuid"]
    except (AttributeError, TypeError, ValueError):
        good = False
    if not good:
        raise Refused("uuid: not one")
    time_of(store["created"], "created")
    if type(store["sequence"]) is not int or not 1 <= store["sequence"] < 1 << 53:
        raise Refused("sequence: out of bounds")
    return store


# --- 3. Master key, check and MAC ------------------------------------------

def master_key(store, path, passphrase):
    protection = store["protection"]
    if not isinstance(protection, dict) or protection.get("type") not in ("key-file", "passphrase"):
        raise Refused("protection: not known")
    if protection["type"] == "key-file":
        exactly(protection, "protection", ("type",))
        key = read_private(path + ".key", 32)
        if len(key) != 32:
            raise Refused(f"{path}.key: not 32 bytes")
        return key
    exactly(protection, "protection", ("type", "kdf", "n", "r", "p", "salt"))
    n, r, p = (protection[name] for name in "nrp")
    if not all(type(x) is int for x in (n, r, p)) or protection["kdf"] != "scrypt":
        raise Refused("protection: malformed")
    if not 16384 <= n <= 1048576 or n & (n - 1) or not 1 <= r <= 8 or not 1 <= p <= 4:
        raise Refused("protection: parameters out of bounds")
    if passphrase is None or not 1 <= len(passphrase) <= 4096:
        raise Refused("the store wants a passphrase")
    return Scrypt(un_b64(protection["salt"], 32, "salt"), 32, n, r, p).derive(passphrase)


def canonical(store):
    return json.dumps({k: v for k, v in store.items() if k != "mac"}, sort_keys=True, separators=(",", ":")).encode()


class KeyStore:
    """An authenticated key store."""

    def __init__(self, path, passphrase=None):
        self.store = parse_store(read_private(path, 8 << 20))
        self.salt = uuid.UUID(self.store["uuid"]).bytes
        master = master_key(self.store, path, passphrase)
        self.wrap_key, mac_key, check = (derive(master, self.salt, b"cmekfs key store v1: " + use)
                                         for use in (b"wrap", b"mac", b"check"))
        if not hmac.compare_digest(check, un_b64(self.store["check"], 32, "check")):
            raise Refused("the passphrase is wrong, or the key file is another store's")
        mac = hmac.digest(mac_key, canonical(self.store), "sha256")
        if not hmac.compare_digest(mac, un_b64(self.store["mac"], 32, "mac")):
            raise Refused("the MAC differs: the store was edited or is damaged")
        self.keys = parse_keys(self.store["keys"])

    # --- 4. Keys -----------------------------------------------------------

    def material(self, name, version):
        """The material of a version of a key that may be used now."""
        key = self.keys.get(name)
        if key is None:
            raise Refused(f"no key {name}")
        state = key["state"]
        if state == "pending-deletion":
            due = time_of(key["deletion_date"], "deletion_date")
            state = "destroyed" if due <= datetime.datetime.now(datetime.timezone.utc) else state
        if state != "enabled":
            raise Refused(f"the key {name} is {state}")
        if not 1 <= version <= len(key["versions"]):
            raise Refused(f"the key {name} has no version {version}")
        wrapped = key["versions"][version - 1].get("wrapped")
        if wrapped is None:
            raise Refused(f"version {version} of the key {name} was destroyed")
        blob = un_b64(wrapped, 60, "wrapped")
        aad = self.salt + bytes([len(name)]) + name.encode() + struct.pack("<I", version)
        try:
            return AESGCM(self.wrap_key).decrypt(blob[:12], blob[12:], aad)
        except InvalidTag:
            raise Refused(f"the material of version {version} of the key {name} fails authentication") from None

    # --- 5. What keys wrap -------------------------------------------------

    def unwrap(self, name, blob, volume_uuid, purpose):
        if len(blob) != 84 or blob[0:4] != b"CML\x01":
            raise Refused("not wrapped by a local key")
        version, salt, nonce = struct.unpack_from("<I", blob, 4)[0], blob[8:24], blob[24:36]
        aad = b"".join(struct.pack("<H", len(part)) + part for part in
                       (b"cmekfs:volume=" + volume_uuid.encode(), b"cmekfs:slot=" + purpose.encode(), name.encode()))
        key = derive(self.material(name, version), salt, b"cmekfs local wrap v1")
        try:
            return AESGCM(key).decrypt(nonce, blob[36:], aad + struct.pack("<I", version))
        except InvalidTag:
            raise Refused(f"does not unwrap with {name}: another volume, purpose, key or store") from None


def parse_keys(keys):
    if not isinstance(keys, list):
        raise Refused("keys: not an array")
    result = {}
    for key in keys:
        exactly(key, "key", ("name", "state", "created", "versions"), ("deletion_date", "destroyed"))
        name, state, versions = key["name"], key["state"], key["versions"]
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
            raise Refused("key: not a name")
        if result and name <= max(result):
            raise Refused("keys: not sorted")
        if state not in ("enabled", "disabled", "pending-deletion", "destroyed"):
            raise Refused(f"key {name}: state")
        if ("deletion_date" in key) != (state == "pending-deletion") or ("destroyed" in key) != (state == "destroyed"):
            raise Refused(f"key {name}: dates that do not fit its state")
        for member in ("created", "deletion_date", "destroyed"):
            if member in key:
                time_of(key[member], f"key {name}: {member}")
        if not isinstance(versions, list) or not versions:
            raise Refused(f"key {name}: versions")
        for i, version in enumerate(versions):
            exactly(version, f"key {name}: version", ("version", "created"), ("wrapped",))
            time_of(version["created"], f"key {name}: version {i + 1}")
            if version["version"] != i + 1 or state == "destroyed" and "wrapped" in version:
                raise Refused(f"key {name}: version {i + 1}")
        result[name] = key
    return result


# --- The command -----------------------------------------------------------

def volume_header(path):
    """The header copy with the highest sequence; nobody can check its HMAC before the KEK is there."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    good = [header for header, _ in reader.load_headers(fd) if header]
    os.close(fd)
    if not good:
        raise Refused(f"{path}: no good volume header")
    return max(good, key=lambda header: header.sequence)


def unwrap_slots(keystore, header, slot_id=None):
    """The KEK of the first slot that unwraps, of those that were asked for."""
    trouble = []
    for slot in header.config["slots"]:
        if slot["provider"] != "local" or slot_id not in (None, slot["id"]):
            continue
        name = slot["resolved"].removeprefix("local:")
        try:
            return keystore.unwrap(name, base64.b64decode(slot["wrapped"]), header.config["uuid"], slot["purpose"])
        except Refused as error:
            trouble.append(f"slot {slot['id']}: {error}")
    raise Refused("; ".join(trouble) or "no such slot of a local key")


def main():
    parser = argparse.ArgumentParser(description="Unwrap a volume's KEK with a local key store; it goes to stdout.")
    parser.add_argument("--keystore", default=default_path())
    parser.add_argument("--passphrase-file", metavar="FILE")
    parser.add_argument("--slot", type=int, help="of this slot only")
    parser.add_argument("store", help="the volume's store directory")
    args = parser.parse_args()
    try:
        passphrase = None
        if args.passphrase_file:
            passphrase = read_private(args.passphrase_file, 1 << 20).split(b"\n")[0]
        kek = unwrap_slots(KeyStore(args.keystore, passphrase), volume_header(args.store), args.slot)
    except (Refused, OSError) as error:
        sys.exit(f"local_unwrap: {error}")
    if sys.stdout.isatty():
        sys.exit("local_unwrap: a key does not belong on a terminal")
    sys.stdout.buffer.write(kek)


if __name__ == "__main__":
    main()
