#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a cmekfs volume from a directory tree, for tests.

Written from doc/format.md alone, apart from cmekfs_reader.py too: the two
share no code, so that they cannot be wrong together. The volume's KEK is given;
its key slots come from a file, or one is made up that no KMS can unwrap.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import os
import resource
import stat
import struct
import sys
import uuid

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DATA, MAP, JOURNAL, XATTR = 1, 2, 3, 4      # nonce domains
PAGE, BLOCKS = 4096, 96


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def derive(key, info, length=32, salt=None):
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(key)


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def made_up_slot():
    return {"id": 0, "purpose": "data", "provider": "local", "key": "local:made-up", "resolved": "local:made-up",
            "version": "", "region": "", "principal": {}, "wrapped": base64.b64encode(b"made up").decode(),
            "created": now(), "rewrapped": now()}


class Sealer:
    """The seals of one session: a salt, and a counter that never repeats under it."""

    def __init__(self, deks, seals_per_salt=1000):
        self.deks = deks                    # id -> 32 bytes; seals take turns with them
        self.seals_per_salt = seals_per_salt
        self.counter = 0
        self.salt = os.urandom(16)

    def turn(self):
        """The DEK id for what is sealed next."""
        return sorted(self.deks)[self.counter % len(self.deks)]

    def seal(self, dek_id, info, domain, plain, aad):
        """(salt, counter, ciphertext, tag); aad is made by a function, as it may have salt and counter in it."""
        self.counter += 1
        if self.counter % self.seals_per_salt == 0:
            self.salt = os.urandom(16)
        nonce = struct.pack("<B5xQ", domain, self.counter)[:12]
        key = derive(self.deks[dek_id], info, salt=self.salt)
        sealed = AESGCM(key).encrypt(nonce, plain, aad(self.salt, self.counter))
        return self.salt, self.counter, sealed[:-16], sealed[-16:]


class VolumeMaker:
    """Writes one volume. What is public is what the tests vary."""

    def __init__(self, store, kek, block=4096, symlink_max=1023, deks=1, label="", slots=None, area=65536,
                 zeros_are_holes=True, moving=False, volume_uuid=None):
        self.store = store
        self.kek = kek
        self.block = block
        self.symlink_max = symlink_max
        self.label = label
        self.slots = slots or [made_up_slot()]
        self.area = area
        self.zeros_are_holes = zeros_are_holes
        self.moving = moving                # directories whose names are half way from DEK 1 to DEK 2
        self.uuid = uuid.UUID(volume_uuid) if volume_uuid else uuid.uuid4()
        self.deks = {i + 1: os.urandom(32) for i in range(deks)}
        self.sealer = Sealer(self.deks)
        self.inodes = {}                    # (device, inode) of the source -> O_PATH descriptor in the store

    # Section 1

    def make(self, source):
        os.makedirs(self.store, exist_ok=True)
        control = os.path.join(self.store, ".cmekfs")
        os.mkdir(control, 0o700)
        os.mkdir(os.path.join(control, "links"), 0o700)
        os.mkdir(os.path.join(control, "lost"), 0o700)
        os.close(os.open(os.path.join(control, "lock"), os.O_CREAT | os.O_WRONLY, 0o600))
        header = self.header(1)
        for copy in (0, 1):
            with open(os.path.join(control, f"header.{copy}"), "wb") as file:
                file.write(header)
        source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        store_fd = os.open(self.store, os.O_RDONLY | os.O_DIRECTORY)
        self.links_fd = os.open(os.path.join(control, "links"), os.O_RDONLY | os.O_DIRECTORY)
        self.directory(source_fd, store_fd, is_root=True)
        for fd in (source_fd, store_fd, self.links_fd, *self.inodes.values()):
            os.close(fd)

    # Section 2

    def header(self, sequence):
        deks = {"next": len(self.deks) + 1, "active": len(self.deks), "table": [self.wrapped(i) for i in self.deks]}
        text = json.dumps({
            "format": 1, "features": {"compat": [], "ro_compat": [], "incompat": []}, "uuid": str(self.uuid),
            "label": self.label, "block_size": self.block, "symlink_max": self.symlink_max, "created": now(),
            "slots": self.slots, "deks": deks,
        }).encode()
        area = text.ljust(self.area, b"\0")
        assert len(area) == self.area
        fields = (b"CMEKFS\r\n" + struct.pack("<IIQ", 1, 4096, sequence) + self.uuid.bytes +
                  struct.pack("<QQ", self.area, len(text)))
        covered = fields + bytes(4096 - len(fields)) + area
        mac = hmac.new(derive(self.kek, b"cmekfs 1 header mac"), covered, "sha256").digest()
        return fields + hashlib.sha256(covered).digest() + mac + covered[120:]

    # Section 3

    def wrapped(self, dek_id):
        nonce = os.urandom(12)
        aad = self.uuid.bytes + struct.pack("<HI", dek_id, 0)
        sealed = AESGCM(derive(self.kek, b"cmekfs 1 wrap")).encrypt(nonce, self.deks[dek_id], aad)
        return {"id": dek_id, "state": "active" if dek_id == len(self.deks) else "decrypt-only", "domain": 0,
                "created": now(), "wrapped": base64.b64encode(nonce + sealed).decode()}

    # Section 4

    def directory(self, source_fd, store_fd, is_root=False):
        names = sorted(os.fsencode(name) for name in os.listdir(source_fd))
        if names or is_root:
            dir_id, dek_id = os.urandom(16), len(self.deks)
            old = ",%04x" % (dek_id - 1) if self.moving else ""
            os.symlink("v1:%04x%s:%s" % (dek_id, old, b64url(dir_id)), ".cmekfs.dir", dir_fd=store_fd)
            for i, name in enumerate(names):
                stored = self.stored_name(store_fd, dir_id, name, dek_id - i % 2 if self.moving else dek_id)
                self.entry(source_fd, name, store_fd, stored)
        self.attributes(source_fd, store_fd, f"/proc/self/fd/{source_fd}", f"/proc/self/fd/{store_fd}")

    def stored_name(self, store_fd, dir_id, name, dek_id):
        """The name for an entry in the store; makes the link that a long one needs."""
        key = derive(self.deks[dek_id], b"cmekfs 1 name", 64)
        form = b64url(AESSIV(key).encrypt(name, [dir_id]))
        if len(form) <= 255:
            return form
        digest = b64url(hashlib.sha256(form.encode()).digest())
        os.symlink(form, digest + ".l", dir_fd=store_fd)
        return digest + ".n"

    def entry(self, source_fd, name, store_fd, stored):
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        identity = (status.st_dev, status.st_ino)
        if kind == stat.S_IFDIR:
            os.mkdir(stored, 0o700, dir_fd=store_fd)
            source_sub = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source_fd)
            store_sub = os.open(stored, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=store_fd)
            self.directory(source_sub, store_sub)
            os.close(source_sub)
            os.close(store_sub)
            return
        if identity in self.inodes:
            os.link(f"/proc/self/fd/{self.inodes[identity]}", stored, dst_dir_fd=store_fd)
            return
        if kind == stat.S_IFREG:
            in_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source_fd)
            out_fd = os.open(stored, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=store_fd)
            with open(in_fd, "rb") as source, open(out_fd, "r+b") as out:
                self.content(source, out)
        elif kind == stat.S_IFLNK:
            os.symlink(self.link_text(os.fsencode(os.readlink(name, dir_fd=source_fd))), stored, dir_fd=store_fd)
        else:
            os.mknod(stored, kind | 0o600, status.st_rdev, dir_fd=store_fd)
        self.attributes(None, None, b"/proc/self/fd/%d/%s" % (source_fd, name), f"/proc/self/fd/{store_fd}/{stored}")
        if status.st_nlink > 1:
            self.inodes[identity] = os.open(stored, os.O_PATH | os.O_NOFOLLOW, dir_fd=store_fd)

    def link_text(self, target):
        dek_id = self.sealer.turn()
        self.sealer.counter += 1
        nonce = os.urandom(16)
        key = derive(self.deks[dek_id], b"cmekfs 1 symlink", 64)
        text = b64url(nonce + AESSIV(key).encrypt(target, [b"symlink", nonce]))
        if 6 + len(text) <= self.symlink_max:
            return "1%04x-%s" % (dek_id, text)
        link_id, head = b64url(os.urandom(16)), self.symlink_max - 32
        rest = text[head:]
        pieces = [rest[i:i + self.symlink_max] for i in range(0, len(rest), self.symlink_max)]
        for i, piece in enumerate(pieces):
            os.symlink(piece, f"{link_id}.{i + 1}", dir_fd=self.links_fd)
        return "1%04x+%s%04x%s" % (dek_id, link_id, len(text), text[:head])

    def attributes(self, source_fd, store_fd, source, copy):
        """Owner, mode, times and extended attributes of the source for its copy in the store."""
        source = source if source_fd is None else source_fd
        copy = copy if store_fd is None else store_fd
        how = {} if store_fd is not None else {"follow_symlinks": False}
        status = os.stat(source, **how)
        for name in os.listxattr(source, **how):
            value = os.getxattr(source, name, **how)
            os.setxattr(copy, *self.xattr(os.fsencode(name), value), **how)
        if os.geteuid() == 0:
            os.chown(copy, status.st_uid, status.st_gid, **how)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(copy, stat.S_IMODE(status.st_mode))
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns), **how)

    def xattr(self, name, value):
        """(stored name, stored value) of an attribute."""
        if not name.startswith((b"user.", b"trusted.")):
            return name, value
        dek_id = self.sealer.turn()
        key = derive(self.deks[dek_id], b"cmekfs 1 xattr name")
        digest = hmac.new(key, name, "sha256").digest()[:16]
        stored = f"user.cmekfs.{b64url(digest)}.{dek_id:04x}".encode()
        plain = struct.pack("<H", len(name)) + name + value
        salt, counter, sealed, tag = self.sealer.seal(dek_id, b"cmekfs 1 xattr", XATTR, plain, lambda *_: stored)
        return stored, salt + counter.to_bytes(6, "little") + tag + sealed

    # Section 5

    def content(self, source, out):
        size = os.fstat(source.fileno()).st_size
        if size == 0:
            return
        file_id = os.urandom(16)
        group_plain = BLOCKS * self.block
        groups = -(-size // group_plain)
        out.truncate(groups * PAGE + size)
        entries, all_holes = {}, []
        for group in range(groups):
            found = self.group_blocks(source, out, group, file_id)
            if group and not any(map(any, found)):
                all_holes.append(group)
            else:
                entries[group] = found
        absent = self.absent_ranges(all_holes)
        gone = {group for first, count in absent for group in range(first, first + count)}
        for group in range(groups):
            if group not in gone:
                found = entries.get(group, [bytes(40)] * BLOCKS)
                out.seek(group * (PAGE + group_plain))
                out.write(self.map_page(group, groups, size, found, file_id, absent))

    def group_blocks(self, source, out, group, file_id):
        """Writes the blocks of a group; its 96 entries."""
        entries = [bytes(40)] * BLOCKS
        for slot in range(BLOCKS):
            index = group * BLOCKS + slot
            source.seek(index * self.block)
            data = source.read(self.block)
            if not data:
                break
            if self.zeros_are_holes and not any(data):
                continue
            dek_id = self.sealer.turn()
            salt, counter, sealed, tag = self.sealer.seal(dek_id, b"cmekfs 1 content" + file_id, DATA, data,
                                                          lambda *_, index=index: struct.pack("<Q", index))
            out.seek((group + 1) * PAGE + index * self.block)
            out.write(sealed)
            entries[slot] = salt + counter.to_bytes(6, "little") + struct.pack("<H", dek_id) + tag
        return entries

    @staticmethod
    def absent_ranges(groups):
        """Up to ten (first, count) ranges; more than that lose the smallest."""
        ranges = []
        for group in groups:
            if ranges and sum(ranges[-1]) == group:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
            else:
                ranges.append((group, 1))
        while len(ranges) > 10:
            ranges.remove(min(ranges, key=lambda item: item[1]))
        return ranges

    def map_page(self, group, groups, size, entries, file_id, absent, record=0):
        in_group = min(BLOCKS * self.block, size - group * BLOCKS * self.block)
        plain = b"".join(entries) + struct.pack("<QI16sQI", group, 0, b"made by a writer", record, in_group)
        if group == 0:
            plain += struct.pack("<QQ", size, groups) + b"".join(struct.pack("<QI", *item) for item in absent)
        plain = plain.ljust(PAGE - 64, b"\0")
        dek_id = self.sealer.turn()
        head = b""

        def aad(salt, counter):
            nonlocal head
            head = b"CMK\x01" + struct.pack("<IQ", dek_id, counter) + salt + file_id
            return head + struct.pack("<Q", group)

        _, _, sealed, tag = self.sealer.seal(dek_id, b"cmekfs 1 content" + file_id, MAP, plain, aad)
        return head + tag + sealed

    # Section 7

    def superblock(self, sequence, tail, tail_sequence, length, empty, handle=(1, b"a handle")):
        plain = (b"a mount of tests" + struct.pack("<QQQQ", sequence, length, tail, tail_sequence) +
                 struct.pack("<II", len(self.deks) + 1, empty) +
                 struct.pack("<II128s", handle[0], len(handle[1]), handle[1]))
        plain = plain.ljust(PAGE - 56, b"\0")
        dek_id = len(self.deks)
        head = b""

        def aad(salt, counter):
            nonlocal head
            head = b"CMEKJNL\n" + struct.pack("<II", 1, dek_id) + salt + struct.pack("<Q", counter)
            return head + self.uuid.bytes

        _, _, sealed, tag = self.sealer.seal(dek_id, b"cmekfs 1 journal", JOURNAL, plain, aad)
        return head + tag + sealed

    def record(self, sequence, items, images=b"", mount_id=b"a mount of tests"):
        """items: (type, body) pairs; images: whole pages."""
        meta = b"".join(struct.pack("<HHI", kind, 0, len(body)) + body for kind, body in items)
        images_at = -(-(128 + len(meta)) // PAGE) * PAGE
        dek_id = len(self.deks)
        head = b""

        def aad(salt, counter):
            nonlocal head
            head = (b"CMEKREC\n" + struct.pack("<II", dek_id, len(meta)) + salt +
                    struct.pack("<QQQ", counter, sequence, images_at + len(images)) + mount_id)
            return head + self.uuid.bytes + images

        _, _, sealed, tag = self.sealer.seal(dek_id, b"cmekfs 1 journal", JOURNAL, meta, aad)
        return (head + tag + bytes(40) + sealed).ljust(images_at, b"\0") + images

    @staticmethod
    def file_item(path, file_id, size, flags=0, mtime=(0, 0), handle=b""):
        return 1, (struct.pack("<II", 1 if handle else 0, len(handle)) + handle + struct.pack("<I", len(path)) + path +
                   file_id + struct.pack("<IQQI", flags, size, *mtime))


def longest_symlink(directory):
    """What the store takes, by trying."""
    trial = os.path.join(directory, ".trial-symlink")
    low, high = 1023, 4095
    while low < high:
        middle = (low + high + 1) // 2
        try:
            os.symlink("x" * middle, trial)
            os.unlink(trial)
            low = middle
        except OSError:
            high = middle - 1
    return low


def main():
    parser = argparse.ArgumentParser(description="Make a cmekfs volume from a directory tree, for tests.")
    parser.add_argument("--kek-file", required=True, metavar="FILE", help="the KEK: 32 bytes or hex; - is stdin")
    parser.add_argument("--block-size", type=int, default=4096)
    parser.add_argument("--symlink-max", type=int, help="default: what the store takes")
    parser.add_argument("--deks", type=int, default=1, help="how many DEKs take turns")
    parser.add_argument("--label", default="")
    parser.add_argument("--uuid")
    parser.add_argument("--slots", metavar="FILE", help="JSON array of the key slots")
    parser.add_argument("--no-holes", action="store_true", help="write blocks of zeros, too")
    parser.add_argument("source")
    parser.add_argument("store", help="an empty directory, or one to be made")
    args = parser.parse_args()

    with open(0 if args.kek_file == "-" else args.kek_file, "rb") as file:
        kek = file.read()
    if len(kek) != 32:
        kek = bytes.fromhex(kek.decode())
    slots = None
    if args.slots:
        with open(args.slots, encoding="utf-8") as file:
            slots = json.load(file)
    sys.setrecursionlimit(100000)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.makedirs(args.store, exist_ok=True)
    if os.listdir(args.store):
        sys.exit(f"make_volume: {args.store}: not empty")
    symlink_max = args.symlink_max or longest_symlink(args.store)
    VolumeMaker(args.store, kek, args.block_size, symlink_max, args.deks, args.label, slots,
                zeros_are_holes=not args.no_holes, volume_uuid=args.uuid).make(args.source)


if __name__ == "__main__":
    main()
