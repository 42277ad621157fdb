#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
Checks mkimage against a log made here: that flushed writes are always there, that each unit of the others is as it was
before or after one of them, what each mode promises, and that a seed and a prefix make no difference. Needs no mount.
"""

import os
import random
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import cuts  # pylint: disable=wrong-import-position

PROGRAM = os.path.abspath("tests/powercut/mkimage")
SECTOR = 512
IMAGE_SECTORS = 256
RECORDS = 300


def make_log(rng):
    """Records (type, sector, bytes) with a flush now and then; pending requests never lie over each other fully."""
    records = []
    for number in range(RECORDS):
        kind = rng.choices((cuts.WRITE, cuts.FLUSH, cuts.DISCARD, cuts.MARK), (80, 8, 6, 6))[0]
        if kind == cuts.FLUSH:
            records.append((kind, 0, b""))
        elif kind == cuts.MARK:
            records.append((kind, 0, f"ack {number % 3} {number}\n".encode()))
        else:
            sectors = rng.randint(1, 40)
            first = rng.randrange(IMAGE_SECTORS - sectors)
            fill = bytes(sectors * SECTOR) if kind == cuts.DISCARD else rng.randbytes(sectors * SECTOR)
            records.append((kind, first, fill))
    return records


def write_log(path, records):
    with open(path, "wb") as f:
        for kind, sector, data in records:
            f.write(cuts.HEAD.pack(cuts.MAGIC, kind, sector * SECTOR, len(data)))
            if kind in (cuts.WRITE, cuts.MARK):
                f.write(data)


def apply(image, record):
    kind, sector, data = record
    if kind in (cuts.WRITE, cuts.DISCARD):
        image[sector * SECTOR:sector * SECTOR + len(data)] = data


def sectors_of(data):
    return [data[at:at + SECTOR] for at in range(0, len(data), SECTOR)]


class MkimageTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.rng = random.Random(7)
        self.records = make_log(self.rng)
        self.base = bytearray(self.rng.randbytes(IMAGE_SECTORS * SECTOR))
        self.base[:16 * SECTOR] = bytes(16 * SECTOR)
        with open(self.path("base"), "wb") as f:
            f.write(self.base)
        write_log(self.path("log"), self.records)
        self.recording = cuts.Recording(self.path("base"), self.path("log"))

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def make(self, maker, index, mode, seed=1):
        out = self.path("out")
        maker.make(cuts.Cut(0, index, mode, seed), out)
        with open(out, "rb") as f:
            data = f.read()
        os.unlink(out)
        return data

    def maker(self, tear, name="x"):
        return cuts.ImageMaker(PROGRAM, self.recording, tear, self.path(name))

    def flushed(self, index):
        """The image at the last flush before the cut, and the records since."""
        flush = max((i + 1 for i in range(index) if self.records[i][0] == cuts.FLUSH), default=0)
        image = bytearray(self.base)
        for record in self.records[:flush]:
            apply(image, record)
        return image, self.records[flush:index]

    def test_index(self):
        self.assertEqual(len(self.recording), RECORDS)
        self.assertEqual(list(self.recording.types), [kind for kind, _, _ in self.records])
        marks = [i for i, record in enumerate(self.records) if record[0] == cuts.MARK]
        self.assertEqual(self.recording.acks(marks[-1]).get(marks[-1] % 3, 0) < marks[-1], True)
        self.assertEqual(self.recording.acks(marks[-1] + 1)[marks[-1] % 3], marks[-1])

    def test_none_and_all(self):
        for tear in ("512", "4096", "whole"):
            with self.maker(tear) as maker:
                for index in range(0, RECORDS + 1, 7):
                    image, pending = self.flushed(index)
                    self.assertEqual(self.make(maker, index, "none"), image)
                    for record in pending:
                        apply(image, record)
                    self.assertEqual(self.make(maker, index, "all"), image)

    def test_units(self):
        """Each sector is that of the flushed image or of a later request, and sectors of one unit go together."""
        for tear, unit in (("512", 1), ("4096", 8), ("whole", IMAGE_SECTORS)):
            with self.maker(tear) as maker:
                for index in range(3, RECORDS + 1, 5):
                    mode = cuts.MODES[index % len(cuts.MODES)]
                    self.check_units(self.make(maker, index, mode, index), index, unit)

    def check_units(self, data, index, unit):
        image, pending = self.flushed(index)
        allowed = [{bytes(sector): [(-1, 0)]} for sector in sectors_of(image)]
        for number, (kind, first, fill) in enumerate(pending):
            if kind in (cuts.WRITE, cuts.DISCARD):
                for i, sector in enumerate(sectors_of(fill)):
                    allowed[first + i].setdefault(sector, []).append((number, first))
        kept = {}
        for at, sector in enumerate(sectors_of(data)):
            self.assertIn(sector, allowed[at])
            kept[at] = allowed[at][sector][-1][0]
        for number, (kind, first, fill) in enumerate(pending):
            if kind == cuts.WRITE:
                self.check_request(kept, number, first, len(fill) // SECTOR, unit)

    def check_request(self, kept, number, first, sectors, unit):
        """In each unit of a request either no sector is of an older one, or none is of this one."""
        for start in range(first - first % unit, first + sectors, unit):
            within = [kept[at] for at in range(max(start, first), min(start + unit, first + sectors))]
            if number in within:
                self.assertTrue(all(other >= number for other in within))

    def test_seed_and_prefix(self):
        with self.maker("512", "far") as walked, self.maker("512", "near") as straight:
            for index in range(10, RECORDS - 10, 11):
                self.make(walked, index, "half", index)
            first = self.make(walked, RECORDS - 5, "mixed", 99)
            self.assertEqual(first, self.make(straight, RECORDS - 5, "mixed", 99))
            self.assertEqual(first, self.make(walked, RECORDS - 5, "mixed", 99))

    def test_refuses(self):
        with self.maker("512") as maker:
            self.make(maker, RECORDS, "none")
            for index in (RECORDS + 1, 1):
                with self.assertRaises(subprocess.CalledProcessError):
                    self.make(maker, index, "none")
                self.assertFalse(os.path.exists(self.path("out")))


if __name__ == "__main__":
    unittest.main()
