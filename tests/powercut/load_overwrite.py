# SPDX-License-Identifier: GPL-3.0-or-later
"""
Overwrites runs of blocks in files of a fixed size. Each block says which file, place and version it is, under a
checksum, so that the checker sees one that is torn, that is older than its last sync, or of another place.
"""

import mmap
import os
import struct
import zlib

from load import Writers, noise, open_for, pread_full, punch, pwrite_full

BLOCK = 4096
BLOCKS = 256
FILES = 2  # of each writer
HEAD = struct.Struct("<8sHHIQ")
MAGIC = b"pcblock1"
HOLE = -1
WRITES_A_STEP = 32  # versions are step * this + the write's number, so that they grow


def block_bytes(seed, file, block, version):
    body = HEAD.pack(MAGIC, file, 0, block, version)
    body += noise(BLOCK - len(body) - 4, seed, file, block, version)
    return body + struct.pack("<I", zlib.crc32(body))


def block_version(data, file, block):
    """The version of a block that is whole and in its place, HOLE for zeros, None for anything else."""
    if not any(data):
        return HOLE
    magic, in_file, _, in_block, version = HEAD.unpack_from(data)
    if magic != MAGIC or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        return None
    return version if (in_file, in_block) == (file, block) else None


class Step:
    """Some writes (file, first block, count) to one writer's files, and how they are made durable."""

    def __init__(self, rng, can_punch):
        self.file = rng.randrange(FILES)
        how = rng.random()
        self.sync = ("fsync", "fdatasync", "fdatasync", None)[rng.randrange(4)]
        self.hole = False
        if how < 0.06:
            # More than a commit takes: the way of bulk writes.
            self.writes = [self._place(rng, rng.randint(64, 200))]
        elif how < 0.16:
            # Synced by the write itself, or through a mapping: only what was written is promised.
            self.sync = rng.choice(("dsync", "msync"))
            self.writes = [self._place(rng, rng.randint(1, 16))]
        elif how < 0.22 and can_punch:
            self.hole = True
            self.writes = [self._place(rng, rng.randint(1, 120))]
        else:
            self.writes = [self._place(rng, rng.randint(1, 16)) for _ in range(rng.randint(1, 6))]

    def _place(self, rng, count):
        return rng.randrange(BLOCKS - count + 1), count


class Model:
    """For each block of a writer's files the versions it may have; the first is the last one that was synced."""

    def __init__(self):
        self.allowed = [[[0] for _ in range(BLOCKS)] for _ in range(FILES)]
        self.dirty = [set() for _ in range(FILES)]

    def begin(self, number, step):
        for i, (first, count) in enumerate(step.writes):
            version = HOLE if step.hole else number * WRITES_A_STEP + i
            for block in range(first, first + count):
                self.allowed[step.file][block].append(version)
                self.dirty[step.file].add(block)

    def synced(self, step):
        if not step.sync:
            return
        blocks = self.dirty[step.file]
        if step.sync in ("dsync", "msync"):
            first, count = step.writes[0]
            blocks = set(range(first, first + count))
        for block in blocks:
            del self.allowed[step.file][block][:-1]
        self.dirty[step.file] -= blocks


class Overwrite(Writers):
    name = "overwrite"

    def __init__(self, settings):
        super().__init__(settings)
        self.models = [Model() for _ in range(self.writers)]
        self.steps = [self._steps(writer) for writer in range(self.writers)]
        self.reached = [0] * self.writers
        self.next_step = [next(steps) for steps in self.steps]

    def _steps(self, writer):
        rng = self.rng("steps", writer)
        while True:
            yield Step(rng, self.settings.can_punch)

    def _path(self, top, writer, file):
        return os.path.join(top, f"blocks-{self._id(writer, file)}")

    @staticmethod
    def _id(writer, file):
        return writer * FILES + file

    def setup(self, top):
        for writer in range(self.writers):
            for file in range(FILES):
                with open(self._path(top, writer, file), "xb") as f:
                    for block in range(BLOCKS):
                        f.write(block_bytes(self.settings.seed, self._id(writer, file), block, 0))

    def writer(self, top, number, resources):
        steps = self._steps(number)
        fds = [open_for(resources, self._path(top, number, file)) for file in range(FILES)]

        def take_step(step_number):
            step = next(steps)
            fd = fds[step.file]
            for i, (first, count) in enumerate(step.writes):
                if step.hole:
                    punch(fd, first * BLOCK, count * BLOCK)
                    continue
                data = b"".join(block_bytes(self.settings.seed, self._id(number, step.file), block,
                                            step_number * WRITES_A_STEP + i) for block in range(first, first + count))
                self._write(fd, data, first * BLOCK, step.sync)
            if step.sync == "fsync":
                os.fsync(fd)
            elif step.sync == "fdatasync":
                os.fdatasync(fd)

        return take_step

    @staticmethod
    def _write(fd, data, offset, sync):
        if sync == "dsync":
            if os.pwritev(fd, [data], offset, os.RWF_DSYNC) != len(data):
                raise OSError("short write")
        elif sync == "msync":
            with mmap.mmap(fd, len(data), offset=offset) as area:
                area[:] = data
                area.flush()
        else:
            pwrite_full(fd, data, offset)

    def advance(self, acks):
        for writer, model in enumerate(self.models):
            while self.reached[writer] < acks.get(writer, 0):
                self.reached[writer] += 1
                model.begin(self.reached[writer], self.next_step[writer])
                model.synced(self.next_step[writer])
                self.next_step[writer] = next(self.steps[writer])

    def check(self, top, report):
        for writer, model in enumerate(self.models):
            model.begin(self.reached[writer] + 1, self.next_step[writer])
            for file in range(FILES):
                self._check_file(self._path(top, writer, file), self._id(writer, file), model.allowed[file], report)

    @staticmethod
    def _check_file(path, file, allowed, report):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            report.error(e, f"file {file}")
            return
        try:
            size = os.fstat(fd).st_size
            if size != BLOCKS * BLOCK:
                report.add("lost", f"file {file} has {size} bytes")
            for block, versions in enumerate(allowed):
                check_block(fd, file, block, versions, report)
        finally:
            os.close(fd)


def check_block(fd, file, block, versions, report):
    where = f"file {file} block {block}"
    try:
        data = pread_full(fd, BLOCK, block * BLOCK)
    except OSError as e:
        report.error(e, where)
        return
    version = block_version(data, file, block) if len(data) == BLOCK else None
    if version is None:
        report.add("torn", f"{where}, {len(data)} bytes, may be {versions}")
    elif version not in versions:
        report.add("lost", f"{where} is version {version}, may be {versions}")
