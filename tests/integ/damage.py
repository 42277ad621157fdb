#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage in a store, as cmekfs and the independent reader see it: block by block they must agree.

    damage.py make DIR BLOCK_SIZE SEED FILES KIND...     DIR/store, with its keys in DIR/keys.json, and its damage
    damage.py compare DIR POINT                          the store with its mount at POINT

Each file of the volume has one damage of one of the kinds; DIR/damage tells which.
"""
import errno
import json
import mmap
import os
import random
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))
import cmekfs_reader as reader  # noqa: E402
import local_unwrap  # noqa: E402
import make_keystore  # noqa: E402
import make_volume  # noqa: E402

PAGE, BLOCKS = 4096, 96


def make_sources(top, block, rng, files):
    """Files of all sizes, with islands of data."""
    sizes = [1, block - 1, block, block + 1, 5 * block, 96 * block - 3, 96 * block, 96 * block + 1, 200 * block + 7,
             300 * block]
    for i in range(files):
        size = rng.choice(sizes)
        with open(os.path.join(top, f"file-{i}"), "wb") as file:
            file.truncate(size)
            for _ in range(rng.randint(1, 7)):
                file.seek(rng.randrange(size) // block * block)
                file.write(rng.randbytes(min(rng.randint(1, 5) * block, size - file.tell())))


class Damage:
    """One stored file, and what can be done to it."""

    def __init__(self, file, block, rng):
        self.file = file
        self.rng = rng
        self.block = block
        self.group = PAGE + BLOCKS * block
        self.size = os.fstat(file.fileno()).st_size
        self.groups = -(-self.size // self.group)

    def some_page(self):
        """The offset of a map page that is there."""
        return self.rng.choice([
            at for at in range(0, self.size, self.group) if any(os.pread(self.file.fileno(), PAGE, at))])

    def some_block(self):
        plain = reader.plain_size(self.size, self.block)
        index = self.rng.randrange(-(-plain // self.block))
        return index // BLOCKS * self.group + PAGE + index % BLOCKS * self.block

    def flip(self, at):
        byte = os.pread(self.file.fileno(), 1, at)[0]
        os.pwrite(self.file.fileno(), bytes([byte ^ 1 << self.rng.randrange(8)]), at)
        return at

    def none(self):
        return 0

    def flip_page(self):
        return self.flip(self.some_page() + self.rng.randrange(PAGE))

    def flip_block(self):
        at = self.some_block()
        return self.flip(self.rng.randrange(at, min(at + self.block, self.size)))

    def zero_page(self):
        at = self.some_page()
        os.pwrite(self.file.fileno(), bytes(PAGE), at)
        return at

    def zero_block(self):
        at = self.some_block()
        os.pwrite(self.file.fileno(), bytes(min(self.block, self.size - at)), at)
        return at

    def swap_blocks(self):
        one, two = self.some_block(), self.some_block()
        length = min(self.block, self.size - max(one, two))
        data = [os.pread(self.file.fileno(), length, at) for at in (one, two)]
        os.pwrite(self.file.fileno(), data[0], two)
        os.pwrite(self.file.fileno(), data[1], one)
        return one, two

    def swap_pages(self):
        one, two = self.some_page(), self.some_page()
        data = [os.pread(self.file.fileno(), PAGE, at) for at in (one, two)]
        os.pwrite(self.file.fileno(), data[0], two)
        os.pwrite(self.file.fileno(), data[1], one)
        return one, two

    def truncate(self):
        """Cuts it behind its first page: what is shorter counts as emptied by a crash."""
        to = self.rng.choice((self.rng.randrange(self.size), self.rng.randrange(self.groups) * self.group + PAGE,
                              self.rng.randrange(self.groups) * self.group))
        if to > PAGE:
            os.truncate(self.file.fileno(), to)
        return to

    def extend(self):
        to = self.size + self.rng.choice((1, PAGE, self.block, self.group, self.rng.randrange(1, 3 * self.group)))
        os.truncate(self.file.fileno(), to)
        return to


def make(top, block, seed, files, kinds):
    rng = random.Random(seed)
    source, store = os.path.join(top, "source"), os.path.join(top, "store")
    os.mkdir(source)
    make_sources(source, block, rng, files)
    kek, volume_uuid = os.urandom(32), str(uuid.uuid4())
    keys = make_keystore.KeyStoreMaker(["main"])
    keys.write(os.path.join(top, "keys.json"))
    make_volume.VolumeMaker(store, kek, block, deks=2, slots=[keys.slot(0, "main", kek, volume_uuid)],
                            volume_uuid=volume_uuid).make(source)
    done = {}
    volume = reader.Volume(store, kek)
    for node in volume.walk():
        if node.path:
            with open(os.path.join(store, os.fsdecode(node.stored_path)), "r+b", buffering=0) as file:
                kind = rng.choice(kinds)
                done[node.path.decode()] = f"{kind} {getattr(Damage(file, block, rng), kind)()}"
    with open(os.path.join(top, "damage"), "w", encoding="ascii") as file:
        json.dump(done, file)


def through_mount(path, block, limit):
    """What each block reads as until the end, by O_DIRECT, so that no page stands for its neighbours; or its error.

    The size of a file that was cut is that of the store, but reading goes on, by the sealed size. No more than limit
    blocks are tried, as errors have no end.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer, result = mmap.mmap(-1, block), []
    while len(result) < limit:
        try:
            length = os.preadv(fd, [buffer], len(result) * block)
            if length == 0:
                break
            result.append(bytes(buffer[:length]))
        except OSError as error:
            result.append(errno.errorcode[error.errno])
    os.close(fd)
    return result


def through_reader(volume, path):
    block = volume.header.block_size
    with open(path, "rb") as stored:
        try:
            file = reader.File(volume, stored.fileno())
        except reader.Damage:
            return None     # the size is not known
        result = []
        for index in range(-(-file.size // block)):
            length = min(block, file.size - index * block)
            try:
                result.append(file.read_block(index) or bytes(length))
            except reader.Damage:
                result.append("EIO")
        return result


def compare(top, point):
    store = os.path.join(top, "store")
    with open(os.path.join(top, "damage"), encoding="ascii") as file:
        done = json.load(file)
    keys = local_unwrap.KeyStore(os.path.join(top, "keys.json"))
    kek = local_unwrap.unwrap_slots(keys, local_unwrap.volume_header(store))
    volume = reader.Volume(store, kek, ignore_journal=True)
    bad = errors = 0
    for node in volume.walk():
        if node.path == b"":
            continue
        name = node.path.decode()
        expected = through_reader(volume, os.path.join(store, os.fsdecode(node.stored_path)))
        limit = 1 if expected is None else len(expected)
        found = through_mount(os.path.join(point, name), volume.header.block_size, limit + 1)
        if expected is None:
            same = found and all(block == "EIO" for block in found)
            errors += 1
        else:
            same = found[:limit] == expected and (len(found) == limit or expected[-1:] == found[-1:] == ["EIO"])
            errors += "EIO" in expected
        if not same:
            bad += 1
            first = next((i for i, (a, b) in enumerate(zip(found, expected or [])) if a != b), "none of both")
            print(f"{name}: {done[name]}: {len(found)} blocks at the mount, "
                  f"{'none' if expected is None else len(expected)} by the reader; they differ first in block {first}")
    print(f"{len(done)} files, {errors} with errors, {bad} not alike")
    return bad


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
    else:
        sys.exit(1 if compare(sys.argv[2], sys.argv[3]) else 0)
