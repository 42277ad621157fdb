#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a cmekfs volume without cmekfs.

This program was written from doc/format.md alone and follows its sections in
order; it shares no code with the product and never writes to the store. That
it works is the proof that the document is true and sufficient. It needs
Python 3.11 and python3-cryptography (38 or later, over OpenSSL 3).

It must not know how keys come out of a KMS: the KEK is given to it.
"""

import argparse
import base64
import binascii
import ctypes
import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import resource
import stat
import struct
import sys
import uuid
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Damage(Exception):
    """Bytes of the store are not what was written there: EIO."""


class Refused(Exception):
    """The volume cannot or should not be read as things are."""


# --- Conventions -----------------------------------------------------------

def u16(data, at=0):
    return struct.unpack_from("<H", data, at)[0]


def u32(data, at=0):
    return struct.unpack_from("<I", data, at)[0]


def u48(data, at=0):
    return int.from_bytes(data[at:at + 6], "little")


def u64(data, at=0):
    return struct.unpack_from("<Q", data, at)[0]


def le64(value):
    return struct.pack("<Q", value)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def un_b64url(text):
    """Decode base64url without padding, the canonical form only."""
    if not re.fullmatch(rb"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise ValueError("not base64url")
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def is_zero(data):
    return not any(data)


def ceil_div(a, b):
    return -(-a // b)


def gcm_open(key, nonce, ciphertext, tag, aad):
    """Decrypt, or raise InvalidTag."""
    return AESGCM(key).decrypt(nonce, ciphertext + tag, aad)


def hkdf(key, info, length=32, salt=None):
    return HKDF(hashes.SHA256(), length, salt, info).derive(key)


# --- 2. Volume header ------------------------------------------------------

HEAD_BYTES = 4096
HEADER_MAGIC = b"CMEKFS\r\n"
KNOWN_INCOMPAT = frozenset()


@dataclass
class Header:
    """One good copy of the volume header."""
    copy: int
    sequence: int
    uuid: bytes
    hmac: bytes
    hashed: bytes           # what SHA-256 and HMAC cover
    config: dict

    @property
    def block_size(self):
        return self.config["block_size"]

    @property
    def symlink_max(self):
        return self.config["symlink_max"]


def parse_header(data, copy):
    """Check one copy in the order that section 2 gives, all but its HMAC."""
    if len(data) < HEAD_BYTES:
        raise Damage("shorter than its head")
    if data[0:8] != HEADER_MAGIC:
        raise Damage("no header magic")
    if u32(data, 8) != 1:
        raise Damage(f"version {u32(data, 8)} is not known")
    if u32(data, 12) != HEAD_BYTES:
        raise Damage(f"head length {u32(data, 12)}")
    sequence, area, text = u64(data, 16), u64(data, 40), u64(data, 48)
    if not 4096 <= area <= 1048576 or area % 4096 or text > area:
        raise Damage("area or text length out of bounds")
    if len(data) != HEAD_BYTES + area:
        raise Damage("file length differs from what the head says")
    hashed = data[:56] + bytes(64) + data[120:]
    if hashlib.sha256(hashed).digest() != data[56:88]:
        raise Damage("SHA-256 differs")
    if not is_zero(data[120:HEAD_BYTES]):
        raise Damage("reserved bytes are not zero")
    if not is_zero(data[HEAD_BYTES + text:]):
        raise Damage("the area behind the text is not zero")
    try:
        config = json.loads(data[HEAD_BYTES:HEAD_BYTES + text].decode("utf-8"))
    except ValueError as error:
        raise Damage(f"JSON: {error}") from None
    check_config(config, data[24:40])
    return Header(copy, sequence, data[24:40], data[88:120], hashed, config)


def check_config(config, head_uuid):
    def need(condition, what):
        if not condition:
            raise Damage(f"header text: {what}")

    def is_int(value, low, high):
        return type(value) is int and low <= value <= high

    need(isinstance(config, dict), "not an object")
    need(config.get("format") == 1, "format")
    features = config.get("features")
    need(isinstance(features, dict) and
         all(isinstance(features.get(k), list) for k in ("compat", "ro_compat", "incompat")), "features")
    try:
        same = uuid.UUID(config["uuid"]).bytes == head_uuid
    except (KeyError, ValueError, AttributeError):
        same = False
    need(same, "uuid differs from the head's")
    need(isinstance(config.get("label"), str) and len(config["label"].encode()) <= 64, "label")
    need(config.get("block_size") in (4096, 8192, 16384, 32768, 65536), "block_size")
    need(is_int(config.get("symlink_max"), 1023, 4095), "symlink_max")
    need(isinstance(config.get("created"), str), "created")

    slots = config.get("slots")
    need(isinstance(slots, list) and 1 <= len(slots) <= 32, "slots")
    for slot in slots:
        need(isinstance(slot, dict) and is_int(slot.get("id"), 0, 31), "slot id")
        need(slot.get("purpose") in ("data", "backup", "recovery"), "slot purpose")
        need(slot.get("provider") in ("local", "aws", "gcp", "ibm", "recovery"), "slot provider")
        for name in ("key", "resolved", "version", "region", "wrapped", "created", "rewrapped"):
            need(isinstance(slot.get(name), str), f"slot {name}")
        need(isinstance(slot.get("principal"), dict), "slot principal")
    need(len({slot["id"] for slot in slots}) == len(slots), "slot ids repeat")

    deks = config.get("deks")
    need(isinstance(deks, dict) and isinstance(deks.get("table"), list), "deks")
    states = {}
    for dek in deks["table"]:
        need(isinstance(dek, dict) and is_int(dek.get("id"), 1, 65535), "DEK id")
        need(dek["id"] not in states, "DEK ids repeat")
        states[dek["id"]] = dek.get("state")
        need(dek.get("state") in ("active", "decrypt-only", "retired", "destroyed"), "DEK state")
        need(is_int(dek.get("domain"), 0, 0), "DEK domain")
        need(("wrapped" in dek) == (dek["state"] != "destroyed"), "DEK wrapped")
        if "wrapped" in dek:
            try:
                length = len(base64.b64decode(dek["wrapped"], validate=True))
            except (binascii.Error, TypeError, ValueError):
                length = -1
            need(length == 60, "DEK wrapped")
    need([i for i in states if states[i] == "active"] == [deks.get("active")], "active DEK")
    need(is_int(deks.get("next"), max(states) + 1, 65536), "next DEK")


def load_headers(store_fd):
    """Both copies: a list of (Header or None, trouble or None), indexed by copy."""
    copies = []
    for copy in (0, 1):
        try:
            fd = os.open(f".cmekfs/header.{copy}", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=store_fd)
            with open(fd, "rb") as file:
                data = file.read(HEAD_BYTES + 1048576 + 1)
            copies.append((parse_header(data, copy), None))
        except (OSError, Damage) as error:
            copies.append((None, str(error)))
    return copies


def choose_header(copies, mac_key):
    """The good copy with the highest sequence number; a failed HMAC makes a copy yield."""
    good = sorted((h for h, _ in copies if h), key=lambda h: -h.sequence)
    if not good:
        raise Refused("no good volume header: " + "; ".join(f"copy {i}: {t}" for i, (_, t) in enumerate(copies)))
    for header in good:
        if hmac.compare_digest(hmac.digest(mac_key, header.hashed, "sha256"), header.hmac):
            unknown = set(header.config["features"]["incompat"]) - KNOWN_INCOMPAT
            if unknown:
                raise Refused(f"unknown incompatible features: {', '.join(sorted(map(str, unknown)))}")
            return header
    raise Refused("the header's HMAC fails: this is not the KEK of this volume, or the header was tampered with")


# --- 3. Keys ---------------------------------------------------------------

NONCE_DATA, NONCE_MAP, NONCE_JOURNAL, NONCE_XATTR = 1, 2, 3, 4


def nonce(domain, counter):
    return bytes([domain]) + bytes(5) + counter.to_bytes(6, "little")


class Keys:
    """All keys of a volume, derived when first needed."""

    def __init__(self, kek, header):
        self.header = header
        self.wrap_key = hkdf(kek, b"cmekfs 1 wrap")
        self.table = {dek["id"]: dek for dek in header.config["deks"]["table"]}
        self.cache = {}

    def dek(self, dek_id):
        if ("dek", dek_id) not in self.cache:
            entry = self.table.get(dek_id)
            if entry is None:
                raise Damage(f"DEK {dek_id} is not in the table")
            if "wrapped" not in entry:
                raise Damage(f"DEK {dek_id} is destroyed")
            blob = base64.b64decode(entry["wrapped"])
            aad = self.header.uuid + struct.pack("<HI", dek_id, entry["domain"])
            try:
                key = gcm_open(self.wrap_key, blob[:12], blob[12:44], blob[44:], aad)
            except InvalidTag:
                raise Damage(f"DEK {dek_id} does not unwrap") from None
            self.cache["dek", dek_id] = key
        return self.cache["dek", dek_id]

    def derive(self, dek_id, info, salt=None, length=32):
        what = (dek_id, info, salt, length)
        if what not in self.cache:
            if len(self.cache) > 10000:
                self.cache.clear()
            self.cache[what] = hkdf(self.dek(dek_id), info, length, salt)
        return self.cache[what]

    def content(self, dek_id, salt, file_id):
        return self.derive(dek_id, b"cmekfs 1 content" + file_id, salt)

    def journal(self, dek_id, salt):
        return self.derive(dek_id, b"cmekfs 1 journal", salt)

    def xattr(self, dek_id, salt):
        return self.derive(dek_id, b"cmekfs 1 xattr", salt)

    def name(self, dek_id):
        return AESSIV(self.derive(dek_id, b"cmekfs 1 name", length=64))

    def symlink(self, dek_id):
        return AESSIV(self.derive(dek_id, b"cmekfs 1 symlink", length=64))

    def xattr_name(self, dek_id):
        return self.derive(dek_id, b"cmekfs 1 xattr name")


# --- 4. Names --------------------------------------------------------------

# 4.1 Directory ids

@dataclass
class DirId:
    id: bytes
    deks: list      # the DEK of the names, then that of the names not moved yet


def read_dir_id(dir_fd):
    """The directory's id, or None where the symlink is not there."""
    try:
        text = os.readlink(b".cmekfs.dir", dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damage(f".cmekfs.dir: {error.strerror}") from None
    match = re.fullmatch(rb"v1:([0-9a-f]{4})(?:,([0-9a-f]{4}))?:([A-Za-z0-9_-]{22})", text)
    try:
        dir_id = un_b64url(match[3])
    except (TypeError, ValueError):
        raise Damage(".cmekfs.dir is not a directory id") from None
    return DirId(dir_id, [int(x, 16) for x in match.groups()[:2] if x is not None])


# 4.2 Entry names

STORED_NAME = re.compile(rb"[A-Za-z0-9_-]{23,255}")


def valid_name(name):
    return 1 <= len(name) <= 255 and b"/" not in name and b"\0" not in name and name not in (b".", b"..")


def open_name(keys, dir_id, stored_form):
    """The plain name of a stored form, or None if it is none of this directory."""
    try:
        sealed = un_b64url(stored_form)
    except ValueError:
        return None
    for dek_id in dir_id.deks:
        try:
            plain = keys.name(dek_id).decrypt(sealed, [dir_id.id])
        except (InvalidTag, ValueError):
            continue
        return plain if valid_name(plain) else None
    return None


# 4.3 Symlink targets

LINK_TEXT = re.compile(rb"1([0-9a-f]{4})"
                       rb"(?:-([A-Za-z0-9_-]+)|\+([A-Za-z0-9_-]{22})([0-9a-f]{4})([A-Za-z0-9_-]+))")


def link_text_parts(text, symlink_max):
    """Split a stored text: DEK id, link id or None, length of E, what the text has of E."""
    match = LINK_TEXT.fullmatch(text)
    if not match:
        raise Damage("the symlink's text has no known form")
    if match[2] is not None:
        return int(match[1], 16), None, len(match[2]), match[2]
    if len(match[5]) != symlink_max - 32:
        raise Damage("the text of a continued symlink has a wrong length")
    return int(match[1], 16), match[3], int(match[4], 16), match[5]


def read_link(volume, dir_fd, stored):
    """The target of a symlink; also the link id where it is continued."""
    text = os.readlink(stored, dir_fd=dir_fd)
    dek_id, link_id, length, sealed = link_text_parts(text, volume.header.symlink_max)
    if link_id is not None:
        pieces = ceil_div(length - len(sealed), volume.header.symlink_max)
        for i in range(1, pieces + 1):
            name = link_id + b".%d" % i
            try:
                sealed += os.readlink(b".cmekfs/links/" + name, dir_fd=volume.fd)
            except OSError as error:
                raise Damage(f"continuation {name.decode()}: {error.strerror}") from None
            if i < pieces and len(sealed) != volume.header.symlink_max * (i + 1) - 32:
                raise Damage(f"continuation {name.decode()} has a wrong length")
    if len(sealed) != length:
        raise Damage("the symlink has a wrong length")
    try:
        data = un_b64url(sealed)
        target = volume.keys.symlink(dek_id).decrypt(data[16:], [b"symlink", data[:16]])
    except (ValueError, InvalidTag):
        raise Damage("the symlink's target fails authentication") from None
    if not 1 <= len(target) <= 4095 or len(target) != length * 3 // 4 - 32:
        raise Damage("the symlink's target has a wrong length")
    return target, link_id


# 4.4 Extended attributes

XATTR_STORED = re.compile(rb"user\.cmekfs\.([A-Za-z0-9_-]{22})\.([0-9a-f]{4})")


def open_xattr(keys, stored_name, value):
    """(full name, value) of a sealed attribute."""
    match = XATTR_STORED.fullmatch(stored_name)
    dek_id = int(match[2], 16)
    if len(value) < 16 + 6 + 16:
        raise Damage("the attribute is too short")
    salt, counter, tag, sealed = value[:16], u48(value, 16), value[22:38], value[38:]
    try:
        data = gcm_open(keys.xattr(dek_id, salt), nonce(NONCE_XATTR, counter), sealed, tag, stored_name)
    except InvalidTag:
        raise Damage("the attribute fails authentication") from None
    if len(data) < 2 or len(data) < 2 + u16(data):
        raise Damage("the attribute's name has a wrong length")
    name = data[2:2 + u16(data)]
    digest = hmac.digest(keys.xattr_name(dek_id), name, "sha256")[:16]
    if not name.startswith((b"user.", b"trusted.")) or b64url(digest) != match[1]:
        raise Damage("the attribute's name does not belong to its stored name")
    return name, data[2 + len(name):]


# --- 5. File content -------------------------------------------------------

PAGE_BYTES = 4096
GROUP_BLOCKS = 96
ENTRY_BYTES = 40
HOLE = bytes(ENTRY_BYTES)


# 5.1 Layout

def stored_size(plain, block):
    return ceil_div(ceil_div(plain, block), GROUP_BLOCKS) * PAGE_BYTES + plain


def plain_size(stored, block):
    group, rest = divmod(stored, PAGE_BYTES + GROUP_BLOCKS * block)
    return group * GROUP_BLOCKS * block + max(0, rest - PAGE_BYTES)


# 5.2 Map page

@dataclass
class MapPage:
    dek_id: int
    file_id: bytes
    entries: list           # 96 times 40 bytes
    group: int
    mount_id: bytes
    record: int
    plain_bytes: int        # of this group
    file_bytes: int = 0     # these three: group 0 only
    groups: int = 0
    absent: list = field(default_factory=list)      # of (first group, count)


def open_map_page(keys, page, group, block):
    if page[0:4] != b"CMK\x01":
        raise Damage(f"group {group}: no map page")
    dek_id, counter, salt, file_id, tag = u32(page, 4), u64(page, 8), page[16:32], page[32:48], page[48:64]
    if counter >= 1 << 48:
        raise Damage(f"group {group}: the map page's counter is out of bounds")
    try:
        plain = gcm_open(keys.content(dek_id, salt, file_id), nonce(NONCE_MAP, counter), page[64:], tag,
                         page[0:48] + le64(group))
    except InvalidTag:
        raise Damage(f"group {group}: the map page fails authentication") from None
    entries = [plain[i:i + ENTRY_BYTES] for i in range(0, GROUP_BLOCKS * ENTRY_BYTES, ENTRY_BYTES)]
    trailer = page[:64] + plain     # so that offsets are those of the page
    result = MapPage(dek_id, file_id, entries, u64(trailer, 3904), trailer[3916:3932], u64(trailer, 3932),
                     u32(trailer, 3940))
    if result.group != group:
        raise Damage(f"group {group}: the map page names group {result.group}")
    if u32(trailer, 3912) != 0:
        raise Damage(f"group {group}: unknown flags")
    if result.plain_bytes > GROUP_BLOCKS * block:
        raise Damage(f"group {group}: more plain bytes than a group holds")
    if not is_zero(trailer[4080:]) or group and not is_zero(trailer[3944:4080]):
        raise Damage(f"group {group}: reserved bytes are not zero")
    if group == 0:
        result.file_bytes, result.groups = u64(trailer, 3944), u64(trailer, 3952)
        result.absent = absent_ranges(trailer[3960:4080])
        if result.groups != ceil_div(ceil_div(result.file_bytes, block), GROUP_BLOCKS):
            raise Damage("the group count does not fit the size")
    return result


def absent_ranges(data):
    ranges, behind = [], 0
    for at in range(0, 120, 12):
        first, count = u64(data, at), u32(data, at + 8)
        if count == 0:
            if not is_zero(data[at:]):
                raise Damage("an absent range follows an unused one")
            break
        if first <= behind:     # group 0 is never absent, and ranges do not touch
            raise Damage("absent ranges are not in order")
        ranges.append((first, count))
        behind = first + count
    return ranges


# 5.3 Data block, 5.4 Reading a file

class File:
    """The content of one stored file, open for reading, with what a replay would bring to it (section 7.3)."""

    def __init__(self, volume, fd, replay=None):
        self.volume = volume
        self.block = volume.header.block_size
        self.group_bytes = PAGE_BYTES + GROUP_BLOCKS * self.block
        self.fd = fd
        self.stored = os.fstat(fd).st_size
        self.replay = replay if replay and replay.belongs_to(self.pread(0, PAGE_BYTES)) else Replay()
        self.pages = {}
        self.first = None
        self.size = 0
        if self.stored == 0 and not self.replay.pages or self.replay.size == 0:
            return
        page = self.page_bytes(0)
        if self.stored <= PAGE_BYTES and is_zero(page) and not self.replay.pages:
            return      # no plain size gives this: a crash left it, and nothing was sealed yet
        if len(page) < PAGE_BYTES:
            raise Damage("cut inside of its first map page")
        self.first = open_map_page(volume.keys, page, 0, self.block)
        self.size = self.first.file_bytes
        self.check_plain_bytes(self.first)

    def pread(self, at, length):
        data = b""
        while len(data) < length:
            piece = os.pread(self.fd, length - len(data), at + len(data))
            if not piece:
                break
            data += piece
        return data

    def page_bytes(self, group):
        return self.replay.pages.get(group) or self.pread(group * self.group_bytes, PAGE_BYTES)

    def page(self, group):
        """The map page of a group, or None for a group of holes."""
        if group == 0:
            return self.first
        if any(first <= group < first + count for first, count in self.first.absent):
            return None
        if group not in self.pages:
            data = self.page_bytes(group)
            if len(data) < PAGE_BYTES:
                raise Damage(f"group {group} is behind the end of the stored file")
            page = open_map_page(self.volume.keys, data, group, self.block)
            if page.file_id != self.first.file_id:
                raise Damage(f"group {group} belongs to another file")
            self.check_plain_bytes(page)
            self.pages = {group: page}
        return self.pages[group]

    def check_plain_bytes(self, page):
        expected = min(GROUP_BLOCKS * self.block, self.size - page.group * GROUP_BLOCKS * self.block)
        if page.plain_bytes != expected:
            raise Damage(f"group {page.group} has {page.plain_bytes} plain bytes where the size wants {expected}")

    def read_block(self, index):
        """The plain bytes of a block, None for a hole."""
        group, slot = divmod(index, GROUP_BLOCKS)
        page = self.page(group)
        if page is None or page.entries[slot] == HOLE:
            return None
        length = min(self.block, page.plain_bytes - slot * self.block)
        entry = page.entries[slot]
        salt, counter, dek_id, tag = entry[0:16], u48(entry, 16), u16(entry, 22), entry[24:40]
        data = self.replay.blocks.get(index)
        if data is None:
            data = self.pread(group * self.group_bytes + PAGE_BYTES + slot * self.block, length)
        if len(data) < length:
            raise Damage(f"block {index} is behind the end of the stored file")
        try:
            return gcm_open(self.volume.keys.content(dek_id, salt, page.file_id), nonce(NONCE_DATA, counter), data,
                            tag, le64(index))
        except InvalidTag:
            raise Damage(f"block {index} fails authentication") from None

    def blocks(self):
        """All blocks in order: (offset, length, data), data being None for a hole."""
        for index in range(ceil_div(self.size, self.block)):
            offset = index * self.block
            length = min(self.block, self.size - offset)
            yield offset, length, self.read_block(index)


# --- 7. Journal ------------------------------------------------------------

JOURNAL_RING = 8192
RECORD_HEAD = 128
FILE_TOUCH, FILE_NEW, FILE_MTIME, FILE_PART = 1, 2, 4, 8


def align_page(length):
    return ceil_div(length, PAGE_BYTES) * PAGE_BYTES


# 7.1 Superblock

@dataclass
class Superblock:
    copy: int
    mount_id: bytes
    sequence: int
    length: int
    tail: int
    tail_sequence: int
    dek_high_water: int
    empty: bool
    handle: tuple       # type, bytes


def open_superblock(volume, data, copy):
    if len(data) < PAGE_BYTES or data[0:8] != b"CMEKJNL\n":
        raise Damage("no superblock magic")
    if u32(data, 8) != 1:
        raise Damage(f"version {u32(data, 8)} is not known")
    dek_id, salt, counter, tag = u32(data, 12), data[16:32], u64(data, 32), data[40:56]
    if counter >= 1 << 48:
        raise Damage("the counter is out of bounds")
    try:
        plain = gcm_open(volume.keys.journal(dek_id, salt), nonce(NONCE_JOURNAL, counter), data[56:PAGE_BYTES], tag,
                         data[0:40] + volume.header.uuid)
    except InvalidTag:
        raise Damage("the superblock fails authentication") from None
    flags, handle_bytes = u32(plain, 52), u32(plain, 60)
    if handle_bytes > 128 or not is_zero(plain[192:]) or flags & ~1:
        raise Damage("malformed superblock")
    return Superblock(copy, plain[0:16], u64(plain, 16), u64(plain, 24), u64(plain, 32), u64(plain, 40),
                      u32(plain, 48), bool(flags & 1), (u32(plain, 56), plain[64:64 + handle_bytes]))


# 7.2 Record

@dataclass
class Record:
    offset: int
    sequence: int
    length: int
    images: bytes
    items: list


def open_record(volume, file, offset, superblock, sequence):
    """The record with that sequence number at that offset; Damage where it is not."""
    file.seek(offset)
    head = file.read(RECORD_HEAD)
    if len(head) < RECORD_HEAD or head[0:8] != b"CMEKREC\n":
        raise Damage("no record magic")
    dek_id, meta, salt, counter = u32(head, 8), u32(head, 12), head[16:32], u64(head, 32)
    length, tag = u64(head, 48), head[72:88]
    if u64(head, 40) != sequence or head[56:72] != superblock.mount_id:
        raise Damage("a record of another time or mount")
    images_at = align_page(RECORD_HEAD + meta)
    if length % PAGE_BYTES or length < images_at or length > superblock.length - offset or counter >= 1 << 48:
        raise Damage("record length out of bounds")
    body = head + file.read(length - RECORD_HEAD)
    if len(body) < length or not is_zero(body[88:128]) or not is_zero(body[RECORD_HEAD + meta:images_at]):
        raise Damage("malformed record")
    images = body[images_at:]
    try:
        plain = gcm_open(volume.keys.journal(dek_id, salt), nonce(NONCE_JOURNAL, counter),
                         body[RECORD_HEAD:RECORD_HEAD + meta], tag, head[0:72] + volume.header.uuid + images)
    except InvalidTag:
        raise Damage("the record fails authentication") from None
    return Record(offset, sequence, length, images, list(record_items(plain)))


# 7.3 Meta data

def record_items(data):
    """(name, fields) of each item."""
    at = 0
    while at < len(data):
        if len(data) - at < 8 or u16(data, at + 2) or len(data) - at - 8 < u32(data, at + 4):
            raise Damage("malformed record item")
        kind, body = u16(data, at), data[at + 8:at + 8 + u32(data, at + 4)]
        at += 8 + len(body)
        try:
            yield record_item(kind, body)
        except struct.error:
            raise Damage("malformed record item") from None


def record_item(kind, body):
    if kind == 1:
        handle_bytes = u32(body, 4)
        path_bytes = u32(body, 8 + handle_bytes)
        at = 12 + handle_bytes + path_bytes
        flags, size, seconds, nanoseconds = struct.unpack_from("<IQQI", body, at + 16)
        if len(body) != at + 40 or handle_bytes > 128:
            raise Damage("malformed FILE item")
        return "FILE", {"handle": (u32(body), body[8:8 + handle_bytes]), "path": body[12 + handle_bytes:at],
                        "file_id": body[at:at + 16], "flags": flags, "size": size,
                        "mtime_ns": seconds * 10**9 + nanoseconds}
    layouts = {2: ("MAP", "<QI", ("group", "image")), 3: ("BLOCK", "<QII", ("block", "length", "image")),
               4: ("INPLACE", "<QQ", ("first", "count")), 5: ("PUNCH", "<QQ", ("first", "count"))}
    if kind not in layouts:
        raise Damage(f"unknown record item {kind}")
    name, layout, names = layouts[kind]
    if len(body) != struct.calcsize(layout):
        raise Damage(f"malformed {name} item")
    return name, dict(zip(names, struct.unpack(layout, body)))


class Journal:
    """One journal file: its superblock and its log."""

    def __init__(self, volume, name):
        self.volume = volume
        self.name = name
        self.trouble = []
        self.superblock = None
        for copy in (0, 1):
            with self.open() as file:
                file.seek(copy * PAGE_BYTES)
                data = file.read(PAGE_BYTES)
            try:
                superblock = open_superblock(volume, data, copy)
            except Damage as error:
                self.trouble.append(f"superblock {copy}: {error}")
                continue
            if self.superblock is None or superblock.sequence > self.superblock.sequence:
                self.superblock = superblock

    def open(self):
        return open(os.open(".cmekfs/" + self.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.volume.fd), "rb")

    @property
    def empty(self):
        return self.superblock is not None and self.superblock.empty

    def records(self):
        """From the tail to the end of the log."""
        if self.empty or self.superblock is None:
            return
        with self.open() as file:
            offset, sequence = self.superblock.tail, self.superblock.tail_sequence
            while record := self.record_at(file, offset, sequence):
                yield record
                offset, sequence = record.offset + record.length, sequence + 1

    def record_at(self, file, offset, sequence):
        """The next record, here or at the beginning of the ring; None at the end of the log."""
        for place in dict.fromkeys((offset, JOURNAL_RING)):
            try:
                return open_record(self.volume, file, place, self.superblock, sequence)
            except Damage:
                continue
        return None

    def is_damaged(self):
        """A record behind the end of the log: the one that is missing was durable once."""
        if self.empty or self.superblock is None:
            return False
        behind = self.superblock.tail_sequence + len(list(self.records()))
        with self.open() as file:
            if os.fstat(file.fileno()).st_size < self.superblock.length:
                return True
            for place in range(JOURNAL_RING, self.superblock.length, PAGE_BYTES):
                file.seek(place)
                head = file.read(RECORD_HEAD)
                if head[0:8] == b"CMEKREC\n" and head[56:72] == self.superblock.mount_id and u64(head, 40) > behind:
                    try:
                        open_record(self.volume, file, place, self.superblock, u64(head, 40))
                        return True
                    except Damage:
                        continue
        return False

    def is_copy(self):
        return self.superblock.handle != store_handle(self.volume.fd, b".cmekfs/" + os.fsencode(self.name))


class FileHandle(ctypes.Structure):
    """struct file_handle of name_to_handle_at(2)."""
    _fields_ = [("length", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def store_handle(dir_fd, name):
    """The handle (type, bytes) of a file, or None where the store has none."""
    handle, mount = FileHandle(length=128), ctypes.c_int()
    if ctypes.CDLL(None).name_to_handle_at(dir_fd, name, ctypes.byref(handle), ctypes.byref(mount), 0):
        return None
    return handle.type, bytes(handle.data[:handle.length])


@dataclass
class Replay:
    """What the records of one file leave to be brought to it."""
    pages: dict = field(default_factory=dict)       # group -> image
    blocks: dict = field(default_factory=dict)      # index -> image
    size: int = None                                # the last sealed size
    mtime_ns: int = None
    file_ids: set = None                            # where it was found by its path: the ids in its records
    newest_id: bytes = None
    unfinished: bool = False                        # the last record was a touch or a part

    def belongs_to(self, first_page):
        """A file found by its path may be another one by now."""
        return self.file_ids is None or is_zero(first_page) or first_page[32:48] in self.file_ids

    def drop_blocks(self, first, behind):
        for index in [i for i in self.blocks if first <= i < behind]:
            del self.blocks[index]

    def start_record(self, fields, block):
        touch, new = fields["flags"] & FILE_TOUCH, fields["flags"] & FILE_NEW
        self.unfinished = bool(fields["flags"] & (FILE_TOUCH | FILE_PART))
        self.size = fields["size"]
        if new and not touch and (fields["file_id"] != self.newest_id or (self.size == 0 and not self.unfinished)):
            self.pages.clear()
            self.blocks.clear()
        if not (touch and new):
            self.newest_id = fields["file_id"]
            if self.file_ids is not None:
                self.file_ids.add(fields["file_id"])
        if not self.unfinished:
            self.cut(block)
        if fields["flags"] & FILE_MTIME:
            self.mtime_ns = fields["mtime_ns"]

    def cut(self, block):
        """What lies behind the size does not count."""
        blocks = ceil_div(self.size, block)
        self.drop_blocks(blocks, 1 << 64)
        self.pages = {g: p for g, p in self.pages.items() if g < ceil_div(blocks, GROUP_BLOCKS)}

    def item(self, name, fields, images):
        at = fields.get("image", 0) * PAGE_BYTES
        if name == "MAP":
            self.pages[fields["group"]] = images[at:at + PAGE_BYTES]
        elif name == "BLOCK":
            self.blocks[fields["block"]] = images[at:at + fields["length"]]
        else:
            first, behind = fields["first"], fields["first"] + fields["count"]
            self.drop_blocks(first, behind)
            if name == "PUNCH":     # of whole groups, whose older pages do not count either
                for group in [g for g in self.pages if first <= g * GROUP_BLOCKS and (g + 1) * GROUP_BLOCKS <= behind]:
                    del self.pages[group]


def replay_journals(volume):
    """The replays of all files, by their handles or, in a copy of a journal, by their paths."""
    replays = {}
    for journal in volume.journals:
        if journal.superblock is None:
            raise Refused(f".cmekfs/{journal.name}: no good superblock")
        if journal.is_damaged():
            raise Refused(f".cmekfs/{journal.name}: a record in its middle is damaged")
        by_path = journal.is_copy()     # without handles the two are never the same either
        for record in journal.records():
            replay = None
            for name, fields in record.items:
                if name == "FILE":
                    key = fields["path"] if by_path else fields["handle"]
                    replay = replays.setdefault(key, Replay(file_ids=set() if by_path else None))
                    replay.start_record(fields, volume.header.block_size)
                elif replay is None:
                    raise Damage(f".cmekfs/{journal.name}: record {record.sequence} does not begin with a file")
                else:
                    replay.item(name, fields, record.images)
    for replay in replays.values():
        replay.cut(volume.header.block_size)
    return replays


# --- 1. Store layout -------------------------------------------------------

@dataclass
class Node:
    """One entry of the volume. dir_fd is open only while the walk is in its directory."""
    path: bytes         # plain, relative to the root; b"" is the root itself
    dir_fd: int
    stored: bytes       # its name in dir_fd
    stored_path: bytes  # its path in the store
    stat: os.stat_result
    replay: Replay = None

    @property
    def kind(self):
        return stat.S_IFMT(self.stat.st_mode)

    @property
    def mtime_ns(self):
        return self.stat.st_mtime_ns if self.replay is None or self.replay.mtime_ns is None else self.replay.mtime_ns

    @property
    def proc_path(self):
        """A path for the calls that take no directory descriptor."""
        return b"/proc/self/fd/%d/%s" % (self.dir_fd, self.stored)

    def open(self, flags=0):
        return os.open(self.stored, os.O_RDONLY | os.O_NOFOLLOW | flags, dir_fd=self.dir_fd)


class Volume:
    def __init__(self, store, kek, ignore_journal=False, replay=False):
        try:
            self.fd = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Refused(f"{store}: {error.strerror}") from None
        self.lock_fd = self.lock(ignore_journal)
        self.copies = load_headers(self.fd)
        mac_key = hkdf(kek, b"cmekfs 1 header mac")
        self.header = choose_header(self.copies, mac_key)
        self.mac_good = [bool(h) and hmac.compare_digest(hmac.digest(mac_key, h.hashed, "sha256"), h.hmac)
                         for h, _ in self.copies]
        self.keys = Keys(kek, self.header)
        names = sorted(n for n in os.listdir(self.control_path()) if re.fullmatch(r"journal\.[0-9]+", n))
        self.journals = [Journal(self, name) for name in names]
        self.notes = []         # (path, what) of foreign and left-over things that were met
        self.problems = []      # (path, what) of damage that was met
        self.replays = replay_journals(self) if replay else {}
        if not ignore_journal and not replay:
            for journal in self.journals:
                if not journal.empty:
                    raise Refused(f".cmekfs/{journal.name} is not empty: mount the volume read-write once, so that it "
                                  "is replayed, or give --replay or --ignore-journal")

    def control_path(self, name=""):
        return f"/proc/self/fd/{self.fd}/.cmekfs/{name}"

    def lock(self, ignore):
        """Share the lock as a read-only mount does; it ends with this process."""
        try:
            fd = os.open(".cmekfs/lock", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.fd)
            flock = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, flock)
            return fd
        except OSError as error:
            if ignore or error.errno == errno.ENOENT:
                return -1
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Refused("the volume is mounted read-write (its lock is held)") from None
            raise Refused(f".cmekfs/lock: {error.strerror}") from None

    def root(self):
        return Node(b"", self.fd, b".", b"", os.stat(".", dir_fd=self.fd))

    def child(self, node, dir_fd, plain, stored):
        child = Node(join(node.path, plain), dir_fd, stored, join(node.stored_path, stored),
                     os.stat(stored, dir_fd=dir_fd, follow_symlinks=False))
        if self.replays and child.kind == stat.S_IFREG:
            child.replay = self.replays.get(store_handle(dir_fd, stored)) or self.replays.get(child.stored_path)
        return child

    def entries(self, dir_fd, path):
        """(plain name, stored name) of a directory, sorted by plain name. What is no entry is noted."""
        own = {b".cmekfs.dir"} | ({b".cmekfs"} if path == b"" else set())
        stored_names = [n for n in map(os.fsencode, os.listdir(dir_fd)) if n not in own]
        dir_id = read_dir_id(dir_fd)
        if dir_id is None:
            if stored_names:
                raise Damage("entries, but no directory id")
            return []
        found = {}
        for stored in stored_names:
            try:
                plain = self.entry_name(dir_fd, dir_id, stored, stored_names)
                if plain in found:
                    raise Damage("a second entry of the same name")
                if plain is not None:
                    found[plain] = stored
            except Damage as error:
                self.problems.append((join(path, stored), f"not listed: {error}"))
            except ValueError as error:
                self.notes.append((join(path, stored), f"not listed: {error}"))
        return sorted(found.items())

    def entry_name(self, dir_fd, dir_id, stored, siblings):
        """The plain name; None for a link that belongs to an entry; ValueError for what is foreign."""
        form = stored
        match = re.fullmatch(rb"([A-Za-z0-9_-]{43})\.([nl])", stored)
        if match and match[2] == b"l":
            if match[1] + b".n" not in siblings:
                raise ValueError("a long name's link without an entry")
            return None
        if match:
            try:
                form = os.readlink(match[1] + b".l", dir_fd=dir_fd)
            except OSError as error:
                raise Damage(f"a long name's link: {error.strerror}") from None
            if len(form) <= 255 or b64url(hashlib.sha256(form).digest()) != match[1]:
                raise Damage("a long name's link does not belong to it")
        elif not STORED_NAME.fullmatch(stored):
            raise ValueError("a foreign name")
        plain = open_name(self.keys, dir_id, form)
        if plain is None:
            raise Damage("the name fails authentication in this directory")
        return plain

    def walk(self, node=None, within=None):
        """All nodes below and with this one: a directory comes before its entries, which are sorted by name.

        Given a path, only the nodes on the way there.
        """
        node = node or self.root()
        yield node
        if node.kind != stat.S_IFDIR:
            return
        fd = node.open(os.O_DIRECTORY)
        try:
            for plain, stored in self.entries(fd, node.path):
                path = join(node.path, plain)
                if within is None or within == path or within.startswith(path + b"/"):
                    yield from self.walk(self.child(node, fd, plain, stored), within)
        except Damage as error:
            self.problems.append((node.path, str(error)))
        finally:
            os.close(fd)

    def xattrs(self, node):
        """Plain attributes by name; those of other namespaces pass unchanged."""
        result = {}
        for name in map(os.fsencode, os.listxattr(node.proc_path, follow_symlinks=False)):
            value = os.getxattr(node.proc_path, name, follow_symlinks=False)
            if XATTR_STORED.fullmatch(name):
                name, value = open_xattr(self.keys, name, value)
            elif name.startswith((b"user.", b"trusted.")):
                self.notes.append((node.path, f"foreign attribute {escape(name)}"))
                continue
            result[name] = value
        return result


def join(path, name):
    return path + b"/" + name if path else name


# --- The commands ----------------------------------------------------------

KIND_LETTERS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p", stat.S_IFSOCK: "s",
                stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


def escape(data):
    """Bytes as printable ASCII, so that a listing has one line for each entry."""
    return "".join(chr(c) if 0x20 <= c < 0x7f and c != 0x5c else f"\\x{c:02x}" for c in data)


def listing_line(path, status, mtime_ns, size, target, digest=None):
    """One line of a listing; list_tree.py makes the same ones through a mount.

    Of a directory neither the size nor the link count is the volume's own matter.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        size = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    elif kind not in (stat.S_IFREG, stat.S_IFLNK):
        size = "-"
    columns = [KIND_LETTERS[kind], f"{stat.S_IMODE(status.st_mode):04o}", status.st_uid, status.st_gid,
               f"{mtime_ns // 10**9}.{mtime_ns % 10**9:09}",
               "-" if kind == stat.S_IFDIR else status.st_nlink, size, escape(path) or ".", target]
    if digest is not None:
        columns.append(digest)
    return "\t".join(map(str, columns)).rstrip("\t")


def xattr_lines(path, xattrs):
    for name, value in sorted(xattrs.items()):
        if name.startswith((b"user.", b"trusted.")):
            yield f"x\t{escape(path) or '.'}\t{escape(name)}\t{hashlib.sha256(value).hexdigest()}"


def report(path, what):
    print(f"cmekfs_reader: {escape(path) or '.'}: {what}", file=sys.stderr)


def report_walk(volume):
    """Say what the walk met on its way; True where nothing was damaged."""
    for path, what in volume.notes + volume.problems:
        report(path, what)
    return not volume.problems


def file_digest(file):
    """SHA-256 of the plain content."""
    digest = hashlib.sha256()
    for _, length, data in file.blocks():
        digest.update(bytes(length) if data is None else data)
    return digest.hexdigest()


def command_info(volume, _):
    config = volume.header.config
    for copy, (header, trouble) in enumerate(volume.copies):
        state = trouble or f"sequence {header.sequence}, HMAC {'good' if volume.mac_good[copy] else 'FAILS'}"
        print(f"header {copy}: {state}")
    print(f"uuid: {config['uuid']}\nlabel: {escape(config['label'].encode())}\ncreated: {config['created']}")
    print(f"block size: {config['block_size']}\nsymlink max: {config['symlink_max']}")
    for slot in config["slots"]:
        print(f"slot {slot['id']}: {slot['purpose']} {slot['resolved']} version {slot['version'] or '-'}")
    for dek in config["deks"]["table"]:
        print(f"DEK {dek['id']}: {dek['state']}, created {dek.get('created', '-')}")
    for journal in volume.journals:
        print(f"{journal.name}: {'empty' if journal.empty else 'not empty'}")
    return True


def command_tree(volume, args):
    seen = {}
    for node in volume.walk():
        size, target, digest = "-", "", "" if args.full else None
        try:
            first = seen.setdefault((node.stat.st_dev, node.stat.st_ino), node.path)
            if node.kind == stat.S_IFREG:
                with open(node.open(), "rb") as fd:
                    file = File(volume, fd.fileno(), node.replay)
                    size = file.size
                    digest = file_digest(file) if args.full else None
            elif node.kind == stat.S_IFLNK:
                plain, _ = read_link(volume, node.dir_fd, node.stored)
                size, target = len(plain), "->" + escape(plain)
            if first != node.path:
                target += "=" + escape(first)
            lines = [listing_line(node.path, node.stat, node.mtime_ns, size, target, digest)]
            if args.full:
                lines.extend(xattr_lines(node.path, volume.xattrs(node)))
        except (Damage, OSError) as error:
            volume.problems.append((node.path, str(error)))
            lines = [listing_line(node.path, node.stat, node.mtime_ns, "?", "", digest)]
        print("\n".join(lines))
    return report_walk(volume)


def command_cat(volume, args):
    path = b"/".join(part for part in os.fsencode(args.path).split(b"/") if part)
    for node in volume.walk(within=path):
        if node.path != path:
            continue
        if node.kind != stat.S_IFREG:
            raise Refused(f"{escape(path) or '.'}: not a regular file")
        with open(node.open(), "rb") as fd:
            try:
                for _, length, data in File(volume, fd.fileno(), node.replay).blocks():
                    sys.stdout.buffer.write(bytes(length) if data is None else data)
            except Damage as error:
                volume.problems.append((path, str(error)))
        sys.stdout.buffer.flush()
        return report_walk(volume)
    report_walk(volume)
    raise Refused(f"{escape(path)}: no such file")


class Export:
    """Copies everything out. What fails authentication is left out, and reported."""

    def __init__(self, volume, directory):
        self.volume = volume
        self.is_root = os.geteuid() == 0
        self.seen = {}
        self.open_dirs = []     # (node, descriptor of its copy, attributes), the root first
        os.makedirs(directory, exist_ok=True)
        self.root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        if os.listdir(self.root_fd):
            raise Refused(f"{directory}: not empty")

    def run(self):
        for node in self.volume.walk():
            parent = node.path.rpartition(b"/")[0]
            while self.open_dirs and (node.path == b"" or self.open_dirs[-1][0].path != parent):
                self.finish_dir()
            try:
                self.copy(node, node.path.rpartition(b"/")[2])
            except (Damage, OSError) as error:
                self.volume.problems.append((node.path, str(error)))
        while self.open_dirs:
            self.finish_dir()

    def copy(self, node, name):
        if node.path == b"":
            self.open_dirs.append((node, self.root_fd, self.xattrs(node)))
            return
        parent_fd = self.open_dirs[-1][1]
        identity = (node.stat.st_dev, node.stat.st_ino)
        if node.kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
            self.open_dirs.append((node, fd, self.xattrs(node)))
        elif identity in self.seen:
            os.link(self.seen[identity], name, src_dir_fd=self.root_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        else:
            if node.kind == stat.S_IFREG:
                self.copy_file(node, name, parent_fd)
            elif node.kind == stat.S_IFLNK:
                target, _ = read_link(self.volume, node.dir_fd, node.stored)
                os.symlink(target, name, dir_fd=parent_fd)
                self.attributes(node, b"/proc/self/fd/%d/%s" % (parent_fd, name), self.xattrs(node))
            else:
                os.mknod(name, node.kind | 0o600, node.stat.st_rdev, dir_fd=parent_fd)
                self.attributes(node, b"/proc/self/fd/%d/%s" % (parent_fd, name), self.xattrs(node))
            self.seen[identity] = node.path

    def copy_file(self, node, name, parent_fd):
        out_fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent_fd)
        try:
            with open(node.open(), "rb") as fd, open(out_fd, "wb") as out:
                file = File(self.volume, fd.fileno(), node.replay)
                for offset, _, data in file.blocks():
                    if data is not None:
                        out.seek(offset)
                        out.write(data)
                out.truncate(file.size)
                out.flush()
                self.attributes(node, out.fileno(), self.xattrs(node))
        except Damage:
            os.unlink(name, dir_fd=parent_fd)
            raise

    def xattrs(self, node):
        try:
            xattrs = self.volume.xattrs(node)
        except Damage as error:
            self.volume.problems.append((node.path, f"extended attributes left out: {error}"))
            return {}
        return {n: v for n, v in xattrs.items() if self.is_root or n.startswith(b"user.")}

    def attributes(self, node, copy, xattrs):
        """Set everything but the content on a descriptor or a path."""
        where = {} if isinstance(copy, int) else {"follow_symlinks": False}
        for name, value in xattrs.items():
            os.setxattr(copy, name, value, **where)
        if self.is_root:
            os.chown(copy, node.stat.st_uid, node.stat.st_gid, **where)
        if node.kind != stat.S_IFLNK:
            os.chmod(copy, stat.S_IMODE(node.stat.st_mode))
        os.utime(copy, ns=(node.stat.st_atime_ns, node.mtime_ns), **where)

    def finish_dir(self):
        node, fd, xattrs = self.open_dirs.pop()
        try:
            self.attributes(node, fd, xattrs)
        except OSError as error:
            self.volume.problems.append((node.path, str(error)))
        if fd != self.root_fd:
            os.close(fd)


def command_export(volume, args):
    Export(volume, args.directory).run()
    return report_walk(volume)


class Verify:
    """Authenticates all there is, and counts."""

    def __init__(self, volume):
        self.volume = volume
        self.counts = dict.fromkeys(
            ("header copies", "DEKs", "directories", "files", "symlinks", "continued symlinks", "special files",
             "further hard links", "long names", "extended attributes", "map pages", "absent groups", "data blocks",
             "hole blocks", "plain bytes"), 0)
        self.problems = volume.problems
        self.seen = set()
        self.links = set()

    def count(self, what, by=1):
        self.counts[what] += by

    def run(self):
        self.keys()
        for node in self.volume.walk():
            try:
                self.node(node)
            except (Damage, OSError) as error:
                self.problems.append((node.path, str(error)))
        self.continuations()
        return self.counts

    def keys(self):
        for copy, (header, trouble) in enumerate(self.volume.copies):
            if header and self.volume.mac_good[copy]:
                self.count("header copies")
            else:
                self.problems.append((b".cmekfs/header.%d" % copy, trouble or "the HMAC fails"))
        for dek_id, entry in self.volume.keys.table.items():
            if "wrapped" in entry:
                try:
                    self.volume.keys.dek(dek_id)
                    self.count("DEKs")
                except Damage as error:
                    self.problems.append((b".cmekfs", str(error)))

    def node(self, node):
        if node.stored.endswith(b".n"):
            self.count("long names")
        identity = (node.stat.st_dev, node.stat.st_ino)
        if node.kind != stat.S_IFDIR and identity in self.seen:
            self.count("further hard links")
            return
        self.seen.add(identity)
        if node.kind == stat.S_IFDIR:
            self.count("directories")
        elif node.kind == stat.S_IFREG:
            self.count("files")
            with open(node.open(), "rb") as fd:
                self.content(node, fd.fileno())
        elif node.kind == stat.S_IFLNK:
            self.count("symlinks")
            _, link_id = read_link(self.volume, node.dir_fd, node.stored)
            if link_id is not None:
                self.count("continued symlinks")
                self.links.add(link_id)
        else:
            self.count("special files")
        xattrs = self.volume.xattrs(node)
        self.count("extended attributes", sum(n.startswith((b"user.", b"trusted.")) for n in xattrs))

    def content(self, node, fd):
        """All groups and blocks: one bad block does not hide the next."""
        file = File(self.volume, fd, node.replay)
        if file.stored < stored_size(file.size, file.block):
            self.problems.append((node.path, "the stored file is shorter than its sealed size needs"))
        if file.stored > stored_size(file.size, file.block):
            self.volume.notes.append((node.path, "the stored file is longer than its sealed size needs"))
        self.count("plain bytes", file.size)
        blocks = ceil_div(file.size, file.block)
        for group in range(ceil_div(blocks, GROUP_BLOCKS)):
            in_group = range(group * GROUP_BLOCKS, min(blocks, (group + 1) * GROUP_BLOCKS))
            try:
                page = file.page(group)
            except Damage as error:
                self.problems.append((node.path, str(error)))
                continue
            self.count("absent groups" if page is None else "map pages")
            if page is not None:
                self.blocks(node, file, page, in_group)

    def blocks(self, node, file, page, in_group):
        if not all(entry == HOLE for entry in page.entries[len(in_group):]):
            self.problems.append((node.path, f"group {page.group} has blocks behind the end of the file"))
        for index in in_group:
            try:
                self.count("hole blocks" if file.read_block(index) is None else "data blocks")
            except Damage as error:
                self.problems.append((node.path, str(error)))

    def continuations(self):
        for name in map(os.fsencode, os.listdir(self.volume.control_path("links"))):
            if name.rpartition(b".")[0] not in self.links:
                self.volume.notes.append((b".cmekfs/links/" + name, "belongs to no symlink"))


def command_verify(volume, _):
    for what, number in Verify(volume).run().items():
        print(f"{what}: {number}")
    print(f"notes: {len(volume.notes)}\ndamage: {len(volume.problems)}")
    return report_walk(volume)


def shown(value):
    """A field of a journal item for people."""
    if isinstance(value, tuple):
        return f"{value[0]}:{value[1].hex()}"
    return escape(value) if isinstance(value, bytes) else value


def command_journal(volume, _):
    for journal in volume.journals:
        for trouble in journal.trouble:
            print(f"{journal.name}: {trouble}")
        if journal.superblock is None:
            continue
        block = journal.superblock
        print(f"{journal.name}: superblock {block.copy} sequence {block.sequence}, mount {block.mount_id.hex()}, "
              f"{block.length} bytes, tail {block.tail} record {block.tail_sequence}, next DEK {block.dek_high_water}, "
              f"{'empty' if block.empty else 'not empty'}, handle {block.handle[0]}:{block.handle[1].hex()}")
        for record in journal.records():
            print(f"{journal.name}: record {record.sequence} at {record.offset}, {record.length} bytes, "
                  f"{len(record.images) // PAGE_BYTES} images")
            for name, fields in record.items:
                print(f"{journal.name}:   {name} " + " ".join(f"{k}={shown(v)}" for k, v in fields.items()))
    return all(journal.superblock for journal in volume.journals)


def read_kek(path):
    with open(0 if path == "-" else path, "rb") as file:
        data = file.read(4096)
    if len(data) == 32:
        return data
    try:
        kek = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        kek = b""
    if len(kek) != 32:
        raise Refused(f"{path}: neither 32 bytes nor 64 hexadecimal digits")
    return kek


def parse_args(argv):
    parser = argparse.ArgumentParser(description="Read a cmekfs volume without cmekfs.")
    parser.add_argument("--kek-file", required=True, metavar="FILE", help="the KEK: 32 bytes or hex; - is stdin")
    parser.add_argument("--ignore-journal", action="store_true",
                        help="read as things are, though a mount's journal is to be replayed")
    parser.add_argument("--replay", action="store_true",
                        help="read as if the journals had been replayed")
    parser.add_argument("store")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print the header")
    tree = commands.add_parser("tree", help="list all entries")
    tree.add_argument("--full", action="store_true", help="with SHA-256 of contents and extended attributes")
    cat = commands.add_parser("cat", help="print a file")
    cat.add_argument("path")
    export = commands.add_parser("export", help="copy everything out")
    export.add_argument("directory")
    commands.add_parser("verify", help="authenticate everything")
    commands.add_parser("journal", help="list the journals")
    return parser.parse_args(argv)


def main(argv=None):
    """0: all is well; 1: damage was found; 2: refused."""
    args = parse_args(argv)
    sys.setrecursionlimit(100000)       # the walk recurses once for each level of directories
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    commands = {"info": command_info, "tree": command_tree, "cat": command_cat, "export": command_export,
                "verify": command_verify, "journal": command_journal}
    try:
        ignore = args.ignore_journal or args.command in ("info", "journal")
        volume = Volume(args.store, read_kek(args.kek_file), ignore, args.replay)
        return 0 if commands[args.command](volume, args) else 1
    except (Refused, Damage, OSError) as error:
        print(f"cmekfs_reader: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
