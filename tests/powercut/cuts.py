# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the power fails: reads the index of a recording and chooses a cut for each image. Knows no file systems."""

import bisect
import mmap
import pathlib
import random
import struct
import subprocess
from collections import namedtuple

HEAD = struct.Struct("=IIQQ")  # record.h
MAGIC = 0x31524350
WRITE, FLUSH, DISCARD, MARK = 1, 2, 3, 4

# What becomes of the writes that no flush covers; mkimage.c explains them.
MODES = ("none", "all", "few", "half", "most", "mixed", "one", "early", "late")

Cut = namedtuple("Cut", "image index mode seed")


class Recording:
    """A base image, the log of what was done to it, and the index of that log."""

    def __init__(self, base, log):
        self.base = base
        self.log = log
        self.types = bytearray()
        self.marks = []  # (index of the record behind the mark, words)
        self.written_bytes = 0
        self._read()
        self._mark_ends = [end for end, _ in self.marks]

    def _read(self):
        with open(self.log, "rb") as f:
            if f.seek(0, 2) == 0:
                return
            with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as data:
                self._parse(data)

    def _parse(self, data):
        at = 0
        while at + HEAD.size <= len(data):
            magic, kind, _, length = HEAD.unpack_from(data, at)
            if magic != MAGIC:
                raise ValueError(f"{self.log}: not a record at {at}")
            at += HEAD.size
            self.types.append(kind)
            if kind == MARK:
                self.marks.append((len(self.types), data[at:at + length].decode().split()))
            elif kind == WRITE:
                self.written_bytes += length
            if kind in (WRITE, MARK):
                at += length

    def __len__(self):
        return len(self.types)

    def count(self, kind):
        return self.types.count(bytes([kind]))

    def first_cut(self):
        """Cuts make sense from where the workload began, which is the mark "start"; without it from the beginning."""
        return next((end for end, words in self.marks if words == ["start"]), 0)

    def acks(self, cut):
        """The last number each writer acknowledged among the first cut records: {writer: number}."""
        acks = {}
        for _, words in self.marks[:bisect.bisect_right(self._mark_ends, cut)]:
            if words[0] == "ack":
                acks[int(words[1])] = int(words[2])
        return acks


def plan(recording, seed, images):
    """The cuts of these image numbers, in the order of the log. An image depends on seed and its number alone."""
    first, last = recording.first_cut(), len(recording)
    marks = [end for end, _ in recording.marks if end > first] or [last]
    flushes = [i for i in range(first, last) if recording.types[i] == FLUSH] or [last]
    cuts = []
    for image in images:
        rng = random.Random(f"cut {seed} {image}")
        kind = rng.random()
        if kind < 0.25:
            # Just acknowledged, and nothing that was not flushed survives: finds promises kept by luck.
            index, mode = rng.choice(marks), rng.choice(("none", "none", "few", "late"))
        elif kind < 0.5:
            # A flush that never came: as much as can be is in flight.
            index, mode = rng.choice(flushes), rng.choice(MODES)
        else:
            index, mode = rng.randint(first, last), rng.choice(MODES)
        cuts.append(Cut(image, index, mode, rng.getrandbits(63)))
    return sorted(cuts, key=lambda cut: (cut.index, cut.image))


class ImageMaker:
    """Makes crash images of one recording, each in turn, with cuts that never go back."""

    def __init__(self, program, recording, tear, scratch):
        self.program = program
        self.recording = recording
        self.tear = tear
        self.prefix = scratch + ".prefix"
        subprocess.run(["cp", "--sparse=always", recording.base, self.prefix], check=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for path in (self.prefix, self.prefix + ".pos"):
            pathlib.Path(path).unlink(missing_ok=True)

    def make(self, cut, out):
        subprocess.run([self.program, self.recording.log, self.prefix, out, str(cut.index), self.tear, cut.mode,
                        str(cut.seed)], check=True, stdout=subprocess.DEVNULL)
