#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Self tests of cmekfs_reader.py, on the vectors of doc/format.md and on volumes of make_volume.py.

What section 5.4 and others say is detected must be detected here, and what
section 5.5 says is not must read without complaint.
"""

import base64
import contextlib
import hashlib
import hmac
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import unittest

os.environ["PYTHONDONTWRITEBYTECODE"] = "1"       # nothing into the source tree
sys.dont_write_bytecode = True
try:
    import cmekfs_reader as reader
    import local_unwrap
    import make_keystore
    import make_volume as maker
except ModuleNotFoundError as missing:
    print(missing)
    sys.exit(77)        # skipped, for automake

HERE = os.path.dirname(os.path.abspath(__file__))
KEK = bytes(range(100, 132))


def write(path, data=b"", size=None):
    with open(path, "wb") as file:
        file.write(data)
        if size is not None:
            file.truncate(size)


def pattern(length, seed=0):
    """Bytes that differ in each place and for each seed."""
    out = b"".join(hashlib.sha256(struct.pack("<QQ", seed, i)).digest() for i in range(-(-length // 32)))
    return out[:length]


def run(program, *args, stdin=b""):
    """(exit code, output, messages) of one of our programs."""
    done = subprocess.run([sys.executable, os.path.join(HERE, program), *args], input=stdin, capture_output=True,
                          check=False)
    return done.returncode, done.stdout, done.stderr


class Case(unittest.TestCase):
    """A scratch directory with a source tree, and a store made from it."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="reader.")
        self.addCleanup(shutil.rmtree, self.dir)
        self.src = self.path("src")
        self.store = self.path("store")
        os.mkdir(self.src)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def make(self, store=None, **how):
        volume = maker.VolumeMaker(store or self.store, KEK, **how)
        volume.make(self.src)
        return volume

    def open(self, **how):
        return reader.Volume(self.store, KEK, **how)

    def command(self, *argv, code=0):
        """Output and messages of the reader's command line, in this process. An option may come first."""
        kek = self.path("kek")
        write(kek, KEK)
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            options = [arg for arg in argv[:1] if arg in ("--ignore-journal", "--replay")]
            result = reader.main(["--kek-file", kek, *options, self.store, *argv[len(options):]])
        out.flush()
        self.assertEqual(result, code, err.getvalue())
        return out.buffer.getvalue(), err.getvalue()

    def cat(self, path, code=0):
        return self.command("cat", path, code=code)[0]

    def nodes(self):
        """Plain path -> path in the store, and where a long name's link is."""
        result = {}
        for node in self.open(ignore_journal=True).walk():
            result[node.path] = os.path.join(os.readlink(f"/proc/self/fd/{node.dir_fd}"), os.fsdecode(node.stored))
        return result

    def stored(self, path):
        return self.nodes()[os.fsencode(path)]

    def verify(self, damage=0, notes=0):
        """The counts of verify, which must find that much."""
        out, err = self.command("verify", code=1 if damage else 0)
        counts = {k: int(v) for k, v in (line.split(": ") for line in out.decode().splitlines())}
        self.assertEqual((counts["damage"], counts["notes"]), (damage, notes), err)
        return counts

    def listing(self, directory):
        code, out, err = run("list_tree.py", "--full", directory)
        self.assertEqual((code, err), (0, b""))
        return out.decode()

    def round_trip(self):
        """The volume lists, verifies and exports as what it was made from."""
        expected = self.listing(self.src)
        self.assertEqual(self.command("tree", "--full")[0].decode(), expected)
        counts = self.verify()
        self.command("export", self.path("out"))
        self.assertEqual(self.listing(self.path("out")), expected)
        return counts


def load_vectors():
    with open(os.path.join(HERE, "..", "vectors", "format-v1.txt"), encoding="ascii") as file:
        pairs = (line.split(" = ") for line in file.read().splitlines() if line and line[0] != "#")
        return {name: bytes.fromhex(value) for name, value in pairs}


class Vectors(unittest.TestCase):
    """Section 8."""

    @classmethod
    def setUpClass(cls):
        cls.v = load_vectors()
        cls.header = reader.parse_header(cls.v["header"], 0)
        cls.keys = reader.Keys(cls.v["kek"], cls.header)

    def test_header(self):
        self.assertEqual(self.header.sequence, 7)
        self.assertEqual(self.header.uuid, self.v["uuid"])
        mac_key = reader.hkdf(self.v["kek"], b"cmekfs 1 header mac")
        self.assertEqual(mac_key, self.v["header_mac_key"])
        self.assertIs(reader.choose_header([(self.header, None), (None, "gone")], mac_key), self.header)

    def test_keys(self):
        salt, keys = self.v["salt"], self.keys
        self.assertEqual(keys.wrap_key, self.v["wrap_key"])
        self.assertEqual(keys.table[1]["wrapped"], base64.b64encode(self.v["dek_wrapped"]).decode())
        self.assertEqual(keys.dek(1), self.v["dek"])
        self.assertEqual(keys.content(1, salt, self.v["file_id"]), self.v["content_key"])
        self.assertEqual(keys.journal(1, salt), self.v["journal_key"])
        self.assertEqual(keys.xattr(1, salt), self.v["xattr_key"])
        self.assertEqual(keys.xattr_name(1), self.v["xattr_name_key"])
        self.assertEqual(keys.derive(1, b"cmekfs 1 name", length=64), self.v["name_key"])
        self.assertEqual(keys.derive(1, b"cmekfs 1 symlink", length=64), self.v["symlink_key"])
        with self.assertRaises(reader.Damage):
            keys.dek(2)

    def test_names(self):
        dir_id = reader.DirId(self.v["dir_id"], [1])
        for name in ("name", "name_175", "name_176", "name_255"):
            stored = self.v[name + "_stored"]
            self.assertEqual(reader.open_name(self.keys, dir_id, stored), self.v[name])
            if name + "_h" in self.v:
                self.assertEqual(reader.b64url(hashlib.sha256(stored).digest()), self.v[name + "_h"])

    def test_dir_links(self):
        for text, deks in (("dir_link", [1]), ("dir_link_moving", [2, 1])):
            with tempfile.TemporaryDirectory() as place:
                os.symlink(self.v[text], os.path.join(os.fsencode(place), b".cmekfs.dir"))
                fd = os.open(place, os.O_RDONLY)
                self.assertEqual(reader.read_dir_id(fd), reader.DirId(self.v["dir_id"], deks))
                os.close(fd)

    def test_symlinks(self):
        with tempfile.TemporaryDirectory() as place:
            links = os.path.join(place, ".cmekfs", "links")
            os.makedirs(links)
            os.symlink(self.v["symlink_text"], os.path.join(os.fsencode(place), b"short"))
            os.symlink(self.v["symlink_long_text_1023"], os.path.join(os.fsencode(place), b"long"))
            link_id = reader.b64url(self.v["symlink_long_id"]).decode()
            os.symlink(self.v["symlink_long_rest_1023"].decode(), os.path.join(links, link_id + ".1"))

            class Volume:
                keys = self.keys
                fd = os.open(place, os.O_RDONLY)

                class header:
                    symlink_max = 1023

            self.assertEqual(reader.read_link(Volume, Volume.fd, b"short"), (self.v["symlink_target"], None))
            self.assertEqual(reader.read_link(Volume, Volume.fd, b"long"),
                             (self.v["symlink_long_target"], link_id.encode()))
            os.close(Volume.fd)

    def test_xattr(self):
        opened = reader.open_xattr(self.keys, self.v["xattr_stored_name"], self.v["xattr_stored_value"])
        self.assertEqual(opened, (self.v["xattr_name"], self.v["xattr_value"]))

    def test_content(self):
        class Volume:
            keys = self.keys
            header = self.header

        with tempfile.TemporaryFile() as stored:
            stored.write(self.v["map0_page"] + self.v["block0_cipher"] + self.v["block1_cipher"])
            stored.flush()
            file = reader.File(Volume, stored.fileno())
            self.assertEqual([data for _, _, data in file.blocks()], [self.v["block0_plain"], self.v["block1_plain"]])
            self.assertEqual(file.first.mount_id, self.v["mount_id"])
        page = reader.open_map_page(self.keys, self.v["map5_page"], 5, 4096)
        self.assertEqual((page.record, page.plain_bytes), (77, 393216))
        self.assertEqual([i for i in range(96) if any(page.entries[i])], [1])

    def test_journal(self):
        class Volume:
            keys = self.keys
            header = self.header

        block = reader.open_superblock(Volume, self.v["journal_superblock"], 0)
        self.assertEqual(block, reader.Superblock(0, self.v["mount_id"], 3, 64 << 20, 8192, 1, 2, True,
                                                  (1, self.v["journal_handle"])))
        file = io.BytesIO(bytes(8192) + self.v["journal_record"])
        record = reader.open_record(Volume, file, 8192, block, 1)
        self.assertEqual([name for name, _ in record.items], ["FILE", "MAP", "BLOCK"])
        self.assertEqual(record.items[0][1]["mtime_ns"], 1700000000123456789)
        self.assertEqual(record.items[2][1], {"block": 1, "length": 100, "image": 1})


class Tables(Case):
    """The worked byte counts of the document."""

    def test_sizes(self):
        rows = {0: (0, 0, 0), 1: (4097,) * 3, 4095: (8191,) * 3, 4096: (8192,) * 3, 4097: (8193,) * 3}
        blocks = (4096, 16384, 65536)
        relative = ((lambda b: b - 1, (8191, 20479, 69631)), (lambda b: b, (8192, 20480, 69632)),
                    (lambda b: b + 1, (8193, 20481, 69633)), (lambda b: 96 * b, (397312, 1576960, 6295552)),
                    (lambda b: 96 * b + 1, (401409, 1581057, 6299649)))
        for i, block in enumerate(blocks):
            pairs = [(plain, row[i]) for plain, row in rows.items()] + [(f(block), row[i]) for f, row in relative]
            for plain, stored in pairs:
                self.assertEqual(reader.stored_size(plain, block), stored)
                self.assertEqual(reader.plain_size(stored, block), plain)
            for rest in (1, 4095, 4096):
                self.assertEqual(reader.plain_size(4096 + 96 * block + rest, block), 96 * block)

    def test_names(self):
        for length in (1, 14, 175, 176, 255):
            write(os.path.join(self.src, "n" * length))
        self.make()
        expected = {1: (23, None), 14: (40, None), 175: (255, None), 176: (45, 256), 255: (45, 362)}
        for length, (stored_length, form_length) in expected.items():
            stored = self.stored("n" * length)
            self.assertEqual(len(os.path.basename(stored)), stored_length)
            if form_length:
                self.assertEqual(len(os.readlink(stored[:-2] + ".l")), form_length)

    def test_symlinks(self):
        expected = {4095: {1: [50], 730: [1022], 731: [1024], 3034: [4094], 4095: [4095, 1440]},
                    1023: {1: [50], 730: [1022], 731: [1023, 27], 3034: [1023] * 4 + [28], 4095: [1023] * 5 + [420]}}
        for length in (1, 730, 731, 3034, 4095):
            os.symlink("t" * length, os.path.join(self.src, str(length)))
        for symlink_max, rows in expected.items():
            self.store = self.path(str(symlink_max))
            self.make(symlink_max=symlink_max)
            for length, pieces in rows.items():
                text = os.readlink(self.stored(str(length)))
                found = [len(text)]
                for i in range(1, len(pieces)):
                    found.append(len(os.readlink(os.path.join(self.store, ".cmekfs/links", f"{text[6:28]}.{i}"))))
                self.assertEqual(found, pieces)
            self.assertEqual(len(os.listdir(os.path.join(self.store, ".cmekfs/links"))),
                             sum(len(pieces) - 1 for pieces in rows.values()))


class RoundTrips(Case):
    def odd_tree(self):
        src = os.fsencode(self.src)
        names = [b"plain", b" ", b"-", b"...", b".hidden", b"a\nb", b"a\tb\\c", b"\xff\xfe", "é".encode(), b"n" * 175,
                 b"n" * 176, b"n" * 255, bytes(i if i not in (0, 47) else 95 for i in range(1, 256)), b"CON", b"a.n",
                 b"x" * 43 + b".l", b".cmekfs", b".cmekfs.dir", b"v1:0001:", b"*"]
        for i, name in enumerate(names):
            write(os.path.join(src, name), pattern(i * 37, i))
            os.chmod(os.path.join(src, name), (0o644, 0o600, 0o755, 0o4711, 0o000, 0o1777)[i % 6])
        deep = src
        for i in range(20):
            deep = os.path.join(deep, b"deep-%d" % i)
            os.mkdir(deep)
        write(os.path.join(deep, b"at the end"), b"bottom")
        os.mkdir(os.path.join(src, b"empty"))
        os.mkdir(os.path.join(src, b"d" * 255))
        write(os.path.join(src, b"d" * 255, b"f" * 200), b"long in long")
        for length in (1, 2, 100, 730, 731, 1023, 2048, 3034, 3035, 4095):
            os.symlink(pattern(length).translate(bytes.maketrans(b"\0", b"x")), os.path.join(src, b"link-%d" % length))
        os.link(os.path.join(src, b"plain"), os.path.join(src, b"empty", b"hard"))
        os.link(os.path.join(src, b"link-4095"), os.path.join(src, b"empty", b"hard-link"), follow_symlinks=False)
        os.mkfifo(os.path.join(src, b"fifo"))
        os.mknod(os.path.join(src, b"socket"), stat.S_IFSOCK | 0o640)
        if os.geteuid() == 0:
            os.mknod(os.path.join(src, b"device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.chown(os.path.join(src, b"plain"), 12345, 54321)
            os.chown(os.path.join(src, b"link-1"), 7, 8, follow_symlinks=False)
        with contextlib.suppress(OSError):      # no user attributes on this file system
            os.setxattr(os.path.join(src, b"plain"), b"user.comment", b"quarterly figures")
            os.setxattr(os.path.join(src, b"plain"), b"user.empty", b"")
            os.setxattr(os.path.join(src, b"plain"), b"user." + b"\xf0" * 250, bytes(1000))
            os.setxattr(os.path.join(src, b"empty"), b"user.dir", b"x")
        os.utime(os.path.join(src, b"plain"), ns=(1, 1234567890123456789))
        os.utime(os.path.join(src, b"empty"), ns=(1, 0))

    def test_odd_trees(self):
        self.odd_tree()
        for how in ({"symlink_max": 1023}, {"symlink_max": 4095, "block": 16384}, {"symlink_max": 2000, "deks": 3},
                    {"deks": 2, "moving": True, "label": "é" * 32, "area": 1048576}):
            with self.subTest(how):
                self.store = self.path("store-" + "-".join(map(str, how)))
                self.make(**how)
                counts = self.round_trip()
                self.assertEqual(counts["long names"], 5)       # 176, 255, 255 odd bytes, directory, and the one in it
                self.assertEqual(counts["further hard links"], 2)
                shutil.rmtree(self.path("out"))

    def test_too_deep_for_paths(self):
        here = os.open(self.src, os.O_RDONLY)
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=here)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        self.make()
        self.assertEqual(self.round_trip()["directories"], 31)

    def sizes(self, block):
        group = 96 * block
        near = [0, 1, 100, block, 2 * block, 95 * block, group, group + block, 2 * group, 2 * group + block]
        return sorted({n + d for n in near for d in (-1, 0, 1) if n + d >= 0})

    def test_sizes(self):
        for block in (4096, 16384):
            for size in self.sizes(block):
                write(os.path.join(self.src, f"{block}-{size}"), pattern(64) * (size // 64) + pattern(size % 64, size))
            self.store = self.path(f"store-{block}")
            self.make(block=block, deks=2)
            self.round_trip()
            for size in self.sizes(block):
                self.assertEqual(os.stat(self.stored(f"{block}-{size}")).st_size, reader.stored_size(size, block))
            shutil.rmtree(self.path("out"))

    def test_zeros_written(self):
        write(os.path.join(self.src, "zeros"), size=1000000)
        self.make(zeros_are_holes=False)
        self.assertEqual(self.round_trip()["hole blocks"], 0)

    def test_sparse(self):
        for block in (4096, 16384):
            group = 96 * block
            for size in self.sizes(block):
                write(os.path.join(self.src, f"hole-{size}"), size=size)
            with open(os.path.join(self.src, "some"), "wb") as file:
                for at in (5 * block, 97 * block + 7, 4 * group, 9 * group - 1):
                    file.seek(at)
                    file.write(pattern(block // 2))
                file.truncate(12 * group + 3)
            with open(os.path.join(self.src, "many"), "wb") as file:       # 15 ranges: 5 must be closed
                for i in range(1, 16):
                    file.seek((i * (i + 3) // 2 - 1) * group)
                    file.write(b"x")
            self.store = self.path(f"store-{block}")
            self.make(block=block)
            counts = self.round_trip()
            self.assertGreater(counts["absent groups"], 0)
            with open(self.stored("many"), "rb") as file:
                ranges = reader.File(self.open(), file.fileno()).first.absent
            self.assertEqual(len(ranges), 10)
            self.assertNotIn(1, [count for _, count in ranges])
            shutil.rmtree(self.path("out"))
            for name in os.listdir(self.src):
                os.unlink(os.path.join(self.src, name))

    def test_large_sparse(self):
        write(os.path.join(self.src, "large"), size=100 << 20)
        self.make(block=65536)
        counts = self.verify()
        self.assertEqual((counts["data blocks"], counts["absent groups"]), (0, 16))


class ContentDamage(Case):
    """Section 5: what is detected, and what is not."""
    B = 4096
    G = 4096 + 96 * 4096

    def setUp(self):
        super().setUp()
        # Group 0 and 2 have blocks, group 1 is absent, group 3 is a tail.
        self.data = pattern(20 * self.B) + bytes(172 * self.B) + pattern(96 * self.B, 2) + pattern(self.B + 50, 3)
        write(os.path.join(self.src, "file"), self.data)
        write(os.path.join(self.src, "other"), pattern(30 * self.B, 9))
        self.make(deks=2)
        self.target = self.stored("file")

    def block_at(self, index):
        return index // 96 * self.G + 4096 + index % 96 * self.B

    def poke(self, at, data, path=None):
        with open(path or self.target, "r+b") as file:
            file.seek(at)
            file.write(data)

    def peek(self, at, length, path=None):
        with open(path or self.target, "rb") as file:
            file.seek(at)
            return file.read(length)

    def flip(self, at, path=None):
        self.poke(at, bytes([self.peek(at, 1, path)[0] ^ 0x10]), path)

    def restore(self):
        shutil.copyfile(self.target + ".good", self.target)

    def bad_blocks(self):
        """The blocks of the file that do not read; the others must read as they were made."""
        with open(self.target, "rb") as stored:
            try:
                file = reader.File(self.open(), stored.fileno())
            except reader.Damage:
                return "all"
            self.assertEqual(file.size, len(self.data))
            bad = []
            for index in range(-(-len(self.data) // self.B)):
                expected = self.data[index * self.B:(index + 1) * self.B]
                try:
                    data = file.read_block(index)
                    self.assertEqual(data if data is not None else bytes(len(expected)), expected)
                except reader.Damage:
                    bad.append(index)
            return bad

    def all_of(self, *groups):
        blocks = -(-len(self.data) // self.B)
        return [i for g in groups for i in range(g * 96, min(blocks, g * 96 + 96))]

    def test_good(self):
        self.assertEqual(self.bad_blocks(), [])
        self.assertEqual(self.verify()["absent groups"], 1)

    def test_flips_in_map_pages(self):
        shutil.copyfile(self.target, self.target + ".good")
        offsets = [0, 4, 5, 8, 13, 15, 16, 31, 32, 47, 48, 63, 64, 100, 3903, 3904, 3911, 3912, 3916, 3932, 3940, 3944,
                   3952, 3960, 4079, 4080, 4095]
        for offset in offsets:
            for group, expected in ((0, "all"), (2, self.all_of(2)), (3, self.all_of(3))):
                with self.subTest(offset=offset, group=group):
                    self.flip(group * self.G + offset)
                    self.assertEqual(self.bad_blocks(), expected)
                    self.restore()
        os.unlink(self.target + ".good")

    def test_flips_in_blocks(self):
        for index, at in ((0, 0), (19, 4095), (192, 17), (287, 4000), (288, 1), (289, 49)):
            self.flip(self.block_at(index) + at)
            self.assertEqual(self.bad_blocks(), [index])
            self.flip(self.block_at(index) + at)
        self.assertEqual(self.bad_blocks(), [])

    def test_commands_stop_at_damage(self):
        self.flip(self.block_at(200))
        self.assertEqual(self.cat("file", code=1), self.data[:200 * self.B])
        self.assertEqual(self.cat("other"), pattern(30 * self.B, 9))
        self.verify(damage=1)
        _, err = self.command("export", self.path("out"), code=1)
        self.assertIn("block 200 fails authentication", err)
        self.assertEqual(os.listdir(self.path("out")), ["other"])
        self.command("tree", code=0)
        self.assertIn("file: block 200", self.command("tree", "--full", code=1)[1])

    def test_bytes_of_holes_do_not_matter(self):
        self.poke(self.block_at(50), b"noise")
        self.assertEqual(self.bad_blocks(), [])

    def test_swapped_blocks(self):
        for a, b in ((3, 4), (5, 200)):
            one, two = (self.peek(self.block_at(i), self.B) for i in (a, b))
            self.poke(self.block_at(a), two)
            self.poke(self.block_at(b), one)
            self.assertEqual(self.bad_blocks(), [a, b])
            self.poke(self.block_at(a), one)
            self.poke(self.block_at(b), two)

    def test_swapped_groups(self):
        write(os.path.join(self.src, "file"), pattern(3 * 96 * self.B))
        self.store = self.path("store2")
        self.make()
        self.data, self.target = pattern(3 * 96 * self.B), self.stored("file")
        one, two = (self.peek(i * self.G, self.G) for i in (1, 2))
        self.poke(self.G, two + one)
        self.assertEqual(self.bad_blocks(), self.all_of(1, 2))

    def test_parts_of_another_file(self):
        other = self.stored("other")
        self.poke(self.block_at(7), self.peek(self.block_at(7), self.B, other))
        self.assertEqual(self.bad_blocks(), [7])
        self.poke(2 * self.G, self.peek(0, self.G, other))
        self.assertEqual(self.bad_blocks(), [7] + self.all_of(2))
        self.poke(0, self.peek(0, 4096, other))     # another file's first page makes it that file, without its blocks
        with open(self.target, "rb") as stored:
            file = reader.File(self.open(), stored.fileno())
            self.assertEqual(file.size, 30 * self.B)
            for index in (0, 19):
                self.assertRaises(reader.Damage, file.read_block, index)

    def test_truncated(self):
        for length, bad in ((self.block_at(289) + 49, [289]), (self.block_at(289), [289]),
                            (self.block_at(288), [288, 289]), (3 * self.G + 4095, [288, 289]),
                            (3 * self.G, [288, 289]),
                            (self.block_at(200) + 1, self.all_of(2)[8:] + self.all_of(3)),
                            (self.block_at(10), list(range(10, 20)) + self.all_of(2, 3)),
                            (4096, list(range(20)) + self.all_of(2, 3)), (4095, "all"), (1, "all")):
            os.truncate(self.target, length)
            self.assertEqual(self.bad_blocks(), bad, length)
        os.truncate(self.target, 0)     # not detected: section 5.5
        self.assertEqual(self.cat("file"), b"")
        self.verify()

    def test_extended(self):
        for more in (1, 5000, self.G):
            os.truncate(self.target, reader.stored_size(len(self.data), self.B) + more)
            self.assertEqual(self.bad_blocks(), [])
            self.assertEqual(self.cat("file"), self.data)
        self.verify(notes=1)

    def test_zeroed(self):
        self.poke(self.block_at(4), bytes(self.B))
        self.assertEqual(self.bad_blocks(), [4])
        self.poke(2 * self.G, bytes(4096))
        self.assertEqual(self.bad_blocks(), [4] + self.all_of(2))
        self.poke(self.G, bytes(self.G))            # it is absent anyway
        self.assertEqual(self.bad_blocks(), [4] + self.all_of(2))
        self.poke(0, bytes(4096))
        self.assertEqual(self.bad_blocks(), "all")

    def test_bytes_of_absent_groups_do_not_matter(self):
        self.poke(self.G, b"x" * self.G)
        self.assertEqual(self.bad_blocks(), [])
        self.poke(self.G, self.peek(0, 4096))
        self.assertEqual(self.bad_blocks(), [])

    def test_crash_remnants(self):
        for length in (1, 4095, 4096):
            write(self.target, size=length)
            self.assertEqual(self.cat("file"), b"")
        write(self.target, size=4097)
        self.cat("file", code=1)

    def test_rolled_back_block_or_page(self):
        """An older block under the newer page, and an older page over newer blocks."""
        old = self.peek(0, self.G)
        with open(self.target, "r+b") as out, open(os.path.join(self.src, "file"), "rb") as source:
            volume = self.same_deks()
            page = reader.open_map_page(self.open().keys, old[:4096], 0, self.B)
            entries = volume.group_blocks(source, out, 0, page.file_id)
            out.seek(0)
            out.write(volume.map_page(0, 4, len(self.data), entries, page.file_id, page.absent))
        self.assertEqual(self.bad_blocks(), [])
        new = self.peek(0, self.G)
        self.poke(self.block_at(3), old[self.block_at(3):self.block_at(4)])
        self.assertEqual(self.bad_blocks(), [3])
        self.poke(0, old[:4096] + new[4096:])
        self.assertEqual(self.bad_blocks(), list(range(20)))
        self.poke(0, old)           # the whole group: not detected
        self.assertEqual(self.bad_blocks(), [])

    def same_deks(self):
        volume = maker.VolumeMaker(self.path("unused"), KEK, deks=2)
        keys = self.open().keys
        volume.deks.update({dek_id: keys.dek(dek_id) for dek_id in volume.deks})
        return volume

    def test_exchanged_files(self):
        other = self.stored("other")
        os.rename(other, other + "~")
        os.rename(self.target, other)
        os.rename(other + "~", self.target)
        self.assertEqual(self.cat("other"), self.data)
        self.verify()

    def test_groups_between_copies(self):
        """Copies made in the store have one file id."""
        shutil.copyfile(self.target, self.stored("other"))
        self.poke(0, self.peek(0, self.G, self.stored("other")))
        self.assertEqual(self.bad_blocks(), [])

    def test_plain_bytes_that_do_not_fit(self):
        """A last group that was sealed before the file grew, or before it was cut."""
        volume = self.same_deks()
        page = reader.open_map_page(self.open().keys, self.peek(0, 4096), 0, self.B)
        for size, bad in ((10 * 96 * self.B, range(288, 384)), (len(self.data) - 1, range(288, 290)),
                          (len(self.data) + 1, range(288, 290))):
            groups = -(-size // (96 * self.B))
            absent = [(1, 1), (4, 6)] if groups > 4 else [(1, 1)]
            self.poke(0, volume.map_page(0, groups, size, page.entries, page.file_id, absent))
            os.truncate(self.target, reader.stored_size(size, self.B))
            with open(self.target, "rb") as stored:
                file = reader.File(self.open(), stored.fileno())
                self.assertEqual(file.size, size)
                for index in (0, 191, 287):
                    file.read_block(index)
                for index in bad:
                    self.assertRaises(reader.Damage, file.read_block, index)


class NameDamage(Case):
    """Section 4."""

    def setUp(self):
        super().setUp()
        os.mkdir(os.path.join(self.src, "dir"))
        os.mkdir(os.path.join(self.src, "two"))
        for name in ("file", "dir/file", "dir/" + "n" * 200, "two/file"):
            write(os.path.join(self.src, name), name.encode())
        os.symlink("/target", os.path.join(self.src, "short"))
        os.symlink("t" * 4000, os.path.join(self.src, "long"))
        self.make(symlink_max=1023)

    def paths(self):
        return sorted(path.decode() for path in self.nodes())

    def rename(self, old, new):
        os.rename(old, new)
        return new

    def test_flipped_name(self):
        path = self.stored("file")
        head, name = os.path.split(path)
        self.rename(path, os.path.join(head, ("A" if name[0] != "A" else "B") + name[1:]))
        self.assertNotIn("file", self.paths())
        self.verify(damage=1)

    def test_name_is_not_canonical(self):
        """The last character has unused bits: another one there would be a second name for the same entry."""
        path = self.stored("file")
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        other = path[:-1] + alphabet[alphabet.index(path[-1]) | 1]
        shutil.copy(path, other)
        self.verify(damage=1)

    def test_moved_to_another_directory(self):
        self.rename(self.stored("dir/file"), os.path.join(self.store, os.path.basename(self.stored("dir/file"))))
        self.assertNotIn("dir/file", self.paths())
        self.verify(damage=1)

    def test_exchanged_directories(self):
        """Not detected: section 5.5."""
        one, two = self.stored("dir"), self.stored("two")
        self.rename(one, one + "~")
        self.rename(two, one)
        self.rename(one + "~", two)
        self.assertEqual(self.cat("two/file"), b"dir/file")
        self.verify()

    def test_foreign_names(self):
        for name in ("lost+found", ".nfs0000", "x.n", "short", ".Trash"):
            write(os.path.join(self.store, name))
        os.mkdir(os.path.join(self.stored("dir"), ".cmekfs"))
        self.verify(notes=6)

    def test_directory_id(self):
        link = os.path.join(self.stored("dir"), ".cmekfs.dir")
        text = os.readlink(link)
        other = "B" if text[-2] == "A" else "A"
        for bad in (text[:-2] + other + text[-1], text.replace("v1", "v2"), text + "A", text[:-1], text[:8] + "!" * 22,
                    text.replace(":0001:", ":0009:"), text.replace("0001", "0001,"), text.upper()):
            os.unlink(link)
            os.symlink(bad, link)
            self.verify(damage=2 if len(bad) == len(text) and bad.startswith("v1:000") and "!" not in bad else 1)
        os.unlink(link)
        self.verify(damage=1)

    def test_empty_directory_needs_no_id(self):
        os.mkdir(os.path.join(self.src, "empty"))
        self.store = self.path("store2")
        self.make()
        self.assertEqual(os.listdir(self.stored("empty")), [])
        self.verify()

    def test_long_names(self):
        entry = self.stored("dir/" + "n" * 200)
        link = entry[:-2] + ".l"
        text = os.readlink(link)
        os.unlink(link)
        self.verify(damage=1)
        os.symlink(text[:-1] + "!", link)
        self.verify(damage=1)
        os.unlink(link)
        os.symlink(text, link)
        self.verify()
        os.unlink(entry)        # the link alone is what a crash leaves
        self.verify(notes=1)

    def test_short_symlink(self):
        path = self.stored("short")
        text = os.readlink(path)
        for bad in ("/etc/passwd", text[:-1], text + "AAAA", text[:20] + ("B" if text[20] == "A" else "A") + text[21:],
                    "2" + text[1:], "10009" + text[5:], text.replace("-", "+", 1)):
            os.unlink(path)
            os.symlink(bad, path)
            self.assertIn("short", self.command("tree", code=1)[1])

    def test_long_symlink(self):
        links = os.path.join(self.store, ".cmekfs/links")
        names = sorted(os.listdir(links))
        self.assertEqual(len(names), 5)
        texts = [os.readlink(os.path.join(links, name)) for name in names]

        def put(i, text):
            os.unlink(os.path.join(links, names[i]))
            os.symlink(text, os.path.join(links, names[i]))

        put(0, texts[1])
        put(1, texts[0])
        self.verify(damage=1, notes=5)
        put(0, texts[0])
        put(1, texts[1])
        self.assertEqual(self.verify()["continued symlinks"], 1)
        put(4, texts[4][:-1])
        self.verify(damage=1, notes=5)
        put(4, texts[4] + "A")
        self.verify(damage=1, notes=5)
        os.unlink(os.path.join(links, names[4]))
        self.verify(damage=1, notes=4)

    def test_orphaned_continuation(self):
        os.unlink(self.stored("long"))
        self.verify(notes=5)


class XattrDamage(Case):
    """Section 4.4."""

    def setUp(self):
        super().setUp()
        for name in ("one", "two"):
            write(os.path.join(self.src, name))
            try:
                os.setxattr(os.path.join(self.src, name), "user.tag", name.encode() * 10)
            except OSError:
                self.skipTest("no user attributes here")
        self.make()
        self.target = self.stored("one")
        self.name = os.listxattr(self.target)[0]
        self.value = os.getxattr(self.target, self.name)

    def test_value(self):
        for at in (0, 16, 22, 38, len(self.value) - 1):
            bad = bytearray(self.value)
            bad[at] ^= 1
            os.setxattr(self.target, self.name, bytes(bad))
            self.verify(damage=1)
        os.setxattr(self.target, self.name, self.value[:30])
        self.verify(damage=1)
        os.setxattr(self.target, self.name, self.value)
        self.verify()

    def test_name(self):
        digit = "B" if self.name[12] == "A" else "A"
        os.setxattr(self.target, self.name[:12] + digit + self.name[13:], self.value)
        os.removexattr(self.target, self.name)
        self.verify(damage=1)

    def test_moved_between_files(self):
        """Not detected: section 5.5."""
        other = self.stored("two")
        os.setxattr(self.target, self.name, os.getxattr(other, self.name))
        self.verify()

    def test_foreign(self):
        os.setxattr(self.target, "user.foreign", b"x")
        self.verify(notes=1)


class HeaderDamage(Case):
    """Sections 2 and 3."""

    def setUp(self):
        super().setUp()
        write(os.path.join(self.src, "file"), b"content")
        self.volume = self.make(deks=2)
        self.mac_key = reader.hkdf(KEK, b"cmekfs 1 header mac")

    def header(self, copy):
        return os.path.join(self.store, ".cmekfs", f"header.{copy}")

    def change(self, copy, edit, rehash=True, mac=False):
        """Rewrites a copy's parts: edit(fields, config) changes them; then the sums are made good where wanted."""
        with open(self.header(copy), "rb") as file:
            data = bytearray(file.read())
        config = json.loads(data[4096:4096 + reader.u64(data, 48)])
        edit(data, config)
        text = json.dumps(config).encode()
        data[48:56] = struct.pack("<Q", len(text))
        data[4096:] = text.ljust(len(data) - 4096, b"\0")
        covered = bytes(data[:56]) + bytes(64) + bytes(data[120:])
        if rehash:
            data[56:88] = hashlib.sha256(covered).digest()
        if mac:
            data[88:120] = hmac.digest(self.mac_key, covered, "sha256")
        write(self.header(copy), bytes(data))

    def test_one_copy_is_enough(self):
        for copy in (0, 1):
            for at in (0, 9, 13, 16, 24, 40, 48, 56, 200, 4096, 4100, 60000):
                with self.subTest(copy=copy, at=at):
                    with open(self.header(copy), "r+b") as file:
                        file.seek(at)
                        good = file.read(1)
                        file.seek(at)
                        file.write(bytes([good[0] ^ 1]))
                    self.assertEqual(self.cat("file"), b"content")
                    self.verify(damage=1)
                    with open(self.header(copy), "r+b") as file:
                        file.seek(at)
                        file.write(good)
            os.rename(self.header(copy), self.header(copy) + "~")
            self.assertEqual(self.cat("file"), b"content")
            os.rename(self.header(copy) + "~", self.header(copy))

    def test_both_bad(self):
        for copy in (0, 1):
            os.truncate(self.header(copy), 69631)
        self.assertIn("no good volume header", self.command("info", code=2)[1])

    def test_mac_alone_flipped(self):
        with open(self.header(0), "r+b") as file:
            file.seek(88)
            file.write(bytes(32))
        out = self.command("info")[0].decode()
        self.assertIn("header 0: sequence 1, HMAC FAILS\nheader 1: sequence 1, HMAC good", out)

    def test_higher_sequence_counts(self):
        def newer(data, config):
            data[16:24] = struct.pack("<Q", 2)
            config["label"] = "newer"
        self.change(1, newer, mac=True)
        self.assertIn(b"label: newer", self.command("info")[0])

    def test_tampered_copy_yields(self):
        def newer(data, config):
            data[16:24] = struct.pack("<Q", 2)
            config["label"] = "tampered"
        self.change(1, newer)
        self.assertNotIn(b"tampered", self.command("info")[0])
        self.change(0, newer)
        self.assertIn("HMAC", self.command("info", code=2)[1])

    def test_wrong_kek(self):
        with self.assertRaisesRegex(reader.Refused, "not the KEK"):
            reader.Volume(self.store, bytes(32))

    def test_features(self):
        for kind, code in (("compat", 0), ("ro_compat", 0), ("incompat", 2)):
            for copy in (0, 1):
                self.change(copy, lambda d, c, kind=kind: c["features"].update({kind: ["new"]}), mac=True)
            self.command("info", code=code)

    def test_bad_members(self):
        edits = [lambda d, c: c.update(format=2), lambda d, c: c.update(uuid="6b0c1f5e-2d3a-4b58-9697-88796a5b4c3d"),
                 lambda d, c: c.update(block_size=12288), lambda d, c: c.update(symlink_max=1022),
                 lambda d, c: c.update(label="x" * 65), lambda d, c: c.update(slots=[]),
                 lambda d, c: c["slots"].append(c["slots"][0]), lambda d, c: c["deks"].update(active=1),
                 lambda d, c: c["deks"].update(next=2), lambda d, c: c["deks"]["table"][0].update(state="active"),
                 lambda d, c: c["deks"]["table"][0].update(wrapped="AAAA"), lambda d, c: c.pop("features"),
                 lambda d, c: c["deks"]["table"].append(c["deks"]["table"][0])]
        for i, edit in enumerate(edits):
            with self.subTest(i):
                self.change(0, edit, mac=True)
                self.assertEqual(self.cat("file"), b"content")      # from the other copy
                self.verify(damage=1)
                shutil.copyfile(self.header(1), self.header(0))

    def test_unknown_members_are_no_trouble(self):
        for copy in (0, 1):
            self.change(copy, lambda d, c: (c.update(later=1), c["slots"][0].update(later=[{}])), mac=True)
        self.verify()

    def test_exchanged_deks(self):
        def exchange(_, config):
            one, two = config["deks"]["table"]
            one["wrapped"], two["wrapped"] = two["wrapped"], one["wrapped"]
        for copy in (0, 1):
            self.change(copy, exchange, mac=True)
        _, err = self.command("verify", code=1)
        self.assertIn("DEK 1 does not unwrap", err)
        self.assertIn("DEK 2 does not unwrap", err)

    def test_destroyed_dek(self):
        def destroy(_, config):
            config["deks"]["table"][0].update(state="destroyed")
            del config["deks"]["table"][0]["wrapped"]
        for copy in (0, 1):
            self.change(copy, destroy, mac=True)
        self.assertIn("DEK 1 is destroyed", self.command("cat", "file", code=1)[1])

    def test_exclusive_lock_refuses(self):
        code = ("import fcntl, os, struct, sys\n"
                "fd = os.open(sys.argv[1], os.O_RDWR)\n"
                "fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack('@hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))\n"
                "print('locked', flush=True)\n"
                "sys.stdin.read()\n")
        with subprocess.Popen([sys.executable, "-c", code, os.path.join(self.store, ".cmekfs/lock")],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            self.assertIn("mounted", self.command("tree", code=2)[1])
            self.command("info")
            holder.stdin.close()
        self.command("tree")


class Journals(Case):
    """Section 7."""
    LENGTH = 8192 + 16 * 4096

    def setUp(self):
        super().setUp()
        write(os.path.join(self.src, "file"), b"content")
        self.volume = self.make()
        self.path_of_journal = os.path.join(self.store, ".cmekfs", "journal.0")

    def journal(self, superblocks, ring=()):
        """superblocks: two arguments lists; ring: (offset, record) pairs."""
        write(self.path_of_journal, size=self.LENGTH)
        with open(self.path_of_journal, "r+b") as file:
            for block in superblocks:
                file.write(self.volume.superblock(*block) if block else bytes(4096))
            for offset, record in ring:
                file.seek(offset)
                file.write(record)

    def items(self):
        return [self.volume.file_item(b"stored/path", bytes(16), 5, 5, (1700000000, 5), b"handle"),
                (2, struct.pack("<QI", 0, 0)), (3, struct.pack("<QII", 0, 5, 1)), (4, struct.pack("<QQ", 7, 8)),
                (5, struct.pack("<QQ", 9, 10))]

    def list(self):
        return self.command("journal")[0].decode()

    def test_empty(self):
        self.journal([(1, 8192, 1, self.LENGTH, 1), (2, 8192, 1, self.LENGTH, 1)])
        self.assertEqual(self.cat("file"), b"content")
        self.assertIn("superblock 1 sequence 2,", self.list())

    def test_the_newer_superblock_counts(self):
        self.journal([(8, 8192, 1, self.LENGTH, 1), (7, 8192, 1, self.LENGTH, 0)])
        self.cat("file")
        self.journal([(6, 8192, 1, self.LENGTH, 1), (7, 8192, 1, self.LENGTH, 0)])
        self.assertIn("is not empty", self.command("cat", "file", code=2)[1])
        with open(self.path_of_journal, "r+b") as file:
            file.seek(4096 + 100)
            file.write(b"damaged")
        self.cat("file")

    def test_no_good_superblock(self):
        self.journal([None, None])
        self.assertIn("is not empty", self.command("cat", "file", code=2)[1])
        self.command("journal", code=1)

    def test_refused_unless_told(self):
        self.journal([(1, 8192, 1, self.LENGTH, 0), None])
        self.assertIn("is not empty", self.command("tree", code=2)[1])
        for command in (["tree"], ["cat", "file"], ["verify"], ["export", self.path("out")]):
            self.command(*command, code=2)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual(self.command("--ignore-journal", "cat", "file")[0], b"content")

    def test_records(self):
        images = pattern(8192)
        ring = [(8192, self.volume.record(5, self.items(), images)), (8192 + 12288, self.volume.record(6, []))]
        self.journal([(1, 8192, 5, self.LENGTH, 0), None], ring)
        out = self.list()
        self.assertIn("record 5 at 8192, 12288 bytes, 2 images", out)
        self.assertIn("FILE handle=1:68616e646c65 path=stored/path file_id=" + "\\x00" * 16 +
                      " flags=5 size=5 mtime_ns=1700000000000000005", out)
        self.assertIn("MAP group=0 image=0", out)
        self.assertIn("BLOCK block=0 length=5 image=1", out)
        self.assertIn("INPLACE first=7 count=8", out)
        self.assertIn("PUNCH first=9 count=10", out)
        self.assertIn("record 6 at 20480, 4096 bytes, 0 images", out)

    def test_the_ring_wraps(self):
        end = self.LENGTH - 4096
        ring = [(end - 4096, self.volume.record(3, [])), (8192, self.volume.record(4, [], bytes(8192))),
                (8192 + 12288, self.volume.record(5, [])), (end, self.volume.record(2, []))]
        self.journal([(1, end - 4096, 3, self.LENGTH, 0), None], ring)
        self.assertEqual(self.list().count(": record"), 3)

    def test_what_ends_the_log(self):
        """A flip anywhere in the second of three records, one of another mount, a number that is not the next."""
        good = self.volume.record(2, self.items(), pattern(4096))
        bad = [bytearray(good) for _ in range(9)]
        for data, at in zip(bad, (0, 8, 12, 16, 40, 56, 72, 130, 4096 + 100)):
            data[at] ^= 1
        bad += [self.volume.record(2, [], mount_id=b"another mount id"), self.volume.record(3, [])]
        for data in bad:
            ring = [(8192, self.volume.record(1, [])), (12288, bytes(data)),
                    (12288 + len(good), self.volume.record(3, []))]
            self.journal([(1, 8192, 1, self.LENGTH, 0), None], ring)
            self.assertEqual(self.list().count(": record"), 1)

    def replay_case(self, by_handle):
        """A journal that makes a file grow by a block, and change two in place; its records as far as given."""
        os.unlink(os.path.join(self.src, "file"))
        old = pattern(2 * 4096)
        write(os.path.join(self.src, "file"), old)
        self.store = self.path("store-replay")
        self.path_of_journal = os.path.join(self.store, ".cmekfs", "journal.0")
        self.volume = self.make()
        target = self.stored("file")
        path = os.path.relpath(target, self.store).encode()
        with open(target, "rb") as stored:
            page = reader.open_map_page(self.open().keys, stored.read(4096), 0, 4096)
        handle = reader.store_handle(self.open().fd, path) if by_handle else (0, b"")
        new = pattern(3 * 4096 + 5, 1)
        write(self.path("new"), new)
        with open(self.path("new"), "rb") as source, open(self.path("image"), "w+b") as image:
            entries = self.volume.group_blocks(source, image, 0, page.file_id)
            image.seek(0)
            image.write(self.volume.map_page(0, 1, len(new), entries, page.file_id, [], 2))
            image.seek(0)
            data = image.read()
        with open(target, "r+b") as stored:         # blocks 2 and 3 are fresh, written in place
            stored.seek(4096 + 2 * 4096)
            stored.write(data[3 * 4096:])
        item = self.volume.file_item

        def file(flags, size):
            kind, body = item(path, page.file_id, size, flags, (1700000000, 7))
            return kind, struct.pack("<II", handle[0], len(handle[1])) + handle[1] + body[8:]

        records = [self.volume.record(1, [file(1, len(old))]),
                   self.volume.record(2, [file(4, len(new)), (2, struct.pack("<QI", 0, 0)),
                                          (3, struct.pack("<QII", 0, 4096, 1)), (3, struct.pack("<QII", 1, 4096, 2)),
                                          (4, struct.pack("<QQ", 2, 2))], data[:3 * 4096]),
                   self.volume.record(3, [file(3, 0)])]
        return old, new, records

    def lay(self, records):
        """A journal with these records."""
        offset, ring = 8192, []
        for record in records:
            ring.append((offset, record))
            offset += len(record)
        self.journal([(1, 8192, 1, self.LENGTH, 0), None], ring)

    def test_replay(self):
        """By path; the superblock of the writer has a made-up handle, so that its journal is a copy."""
        old, new, records = self.replay_case(False)
        self.lay(records[:1])
        self.assertEqual(self.command("--replay", "cat", "file")[0], old)
        self.lay(records[:2])
        self.assertEqual(self.command("--replay", "cat", "file")[0], new)
        self.assertIn(b"\t1700000000.000000007\t1\t12293\tfile", self.command("--replay", "tree")[0])
        self.command("--replay", "verify")
        self.lay(records)
        self.assertEqual(self.command("--replay", "cat", "file")[0], b"")

    def test_replay_of_a_part(self):
        """Without the last part nothing behind the old size is there."""
        old, _, records = self.replay_case(False)
        path = os.path.relpath(self.stored("file"), self.store).encode()
        with open(self.stored("file"), "rb") as stored:
            file_id = stored.read(48)[32:]
        part = self.volume.record(2, [self.volume.file_item(path, file_id, len(old), 8),
                                      (2, struct.pack("<QI", 3, 0))], bytes(4096))
        self.lay([records[0], part])
        self.assertEqual(self.command("--replay", "cat", "file")[0], old)

    def test_replay_of_a_damaged_journal(self):
        _, new, records = self.replay_case(False)
        torn = bytearray(records[1])
        torn[4096] ^= 1
        self.lay([records[0], torn])
        self.command("--replay", "cat", "file")
        self.lay([records[0], torn, records[2]])
        self.assertIn("damaged", self.command("--replay", "cat", "file", code=2)[1])

    def test_replay_by_path_of_another_file(self):
        """What came to the path of a file after its records is left alone."""
        _, _, records = self.replay_case(False)
        self.lay(records[:2])
        write(os.path.join(self.src, "other"), b"other")
        other = maker.VolumeMaker(self.path("store-other"), KEK, volume_uuid=str(self.volume.uuid))
        other.deks = other.sealer.deks = self.volume.deks
        other.make(self.src)
        here, self.store = self.store, self.path("store-other")
        target = self.stored("other")
        self.store = here
        shutil.copyfile(target, self.stored("file"))
        self.assertEqual(self.command("--replay", "cat", "file")[0], b"other")

    def test_replay_by_handle(self):
        _, new, records = self.replay_case(True)
        self.lay(records[:2])
        handle = reader.store_handle(self.open(ignore_journal=True).fd, b".cmekfs/journal.0")
        with open(self.path_of_journal, "r+b") as file:
            file.write(self.volume.superblock(1, 8192, 1, self.LENGTH, 0, handle=handle))
        os.rename(self.stored("file"), self.path("elsewhere"))
        os.rename(self.path("elsewhere"), os.path.join(self.store, self.volume_name("renamed")))
        self.assertEqual(self.command("--replay", "cat", "renamed")[0], new)

    def volume_name(self, plain):
        """The stored name of an entry of the root."""
        fd = os.open(self.store, os.O_RDONLY)
        root = reader.read_dir_id(fd)
        stored = self.volume.stored_name(fd, root.id, plain.encode(), 1)
        os.close(fd)
        return stored


class KeyStores(Case):
    """doc/kms/local.md."""
    UUID = "6b0c1f5e-2d3a-4b58-9697-88796a5b4c3d"

    def setUp(self):
        super().setUp()
        self.keystore = self.path("keys.json")

    def store_with(self, **how):
        made = make_keystore.KeyStoreMaker(["a", "main", "main-2"], **how)
        made.write(self.keystore)
        return made

    def refused(self, text, **how):
        return self.assertRaisesRegex(local_unwrap.Refused, text, **how)

    def edit(self, made, change, sign=True):
        """Changes the written store, and makes its MAC good again where wanted."""
        with open(self.keystore, encoding="ascii") as file:
            store = json.load(file)
        change(store)
        if sign:
            store["mac"] = base64.b64encode(hmac.digest(made.mac_key, local_unwrap.canonical(store), "sha256")).decode()
        with open(self.keystore, "w", encoding="ascii") as file:
            json.dump(store, file)

    def test_round_trip(self):
        for i, how in enumerate(({}, {"versions": 3}, {"passphrase": b"open sesame"})):
            self.keystore = self.path(f"keys-{i}")
            made = self.store_with(**how)
            opened = local_unwrap.KeyStore(self.keystore, how.get("passphrase"))
            for version in range(1, how.get("versions", 1) + 1):
                blob = made.wrap("main", KEK, self.UUID, "data", version)
                self.assertEqual(len(blob), 84)
                self.assertEqual(opened.unwrap("main", blob, self.UUID, "data"), KEK)

    def test_bound_to_its_context(self):
        made = self.store_with(versions=2)
        blob = made.wrap("main", KEK, self.UUID, "data")
        opened = local_unwrap.KeyStore(self.keystore)
        other = "00000000-0000-4000-8000-000000000000"
        for name, data, volume, purpose in (
                ("a", blob, self.UUID, "data"), ("main-2", blob, self.UUID, "data"), ("main", blob, other, "data"),
                ("main", blob, self.UUID, "backup"), ("main", blob[:4] + b"\1" + blob[5:], self.UUID, "data"),
                ("main", blob[:-1] + bytes([blob[-1] ^ 1]), self.UUID, "data")):
            with self.refused("does not unwrap"):
                opened.unwrap(name, data, volume, purpose)
        with self.refused("no version"):
            opened.unwrap("main", blob[:4] + b"\3" + blob[5:], self.UUID, "data")
        with self.refused("not wrapped"):
            opened.unwrap("main", blob + b"x", self.UUID, "data")
        with self.refused("no key"):
            opened.unwrap("nobody", blob, self.UUID, "data")

    def test_states(self):
        made = self.store_with()
        blob = made.wrap("main", KEK, self.UUID, "data")

        def set_state(**members):
            self.edit(made, lambda store: store["keys"][1].update(members))

        def drop(*members):
            self.edit(made, lambda store: [store["keys"][1].pop(member) for member in members])

        for state, more in (("disabled", {}), ("pending-deletion", {"deletion_date": "2999-01-01T00:00:00Z"})):
            set_state(state=state, **more)
            with self.refused(f"is {state}"):
                local_unwrap.KeyStore(self.keystore).unwrap("main", blob, self.UUID, "data")
        set_state(deletion_date="2020-01-01T00:00:00Z")
        with self.refused("is destroyed"):
            local_unwrap.KeyStore(self.keystore).unwrap("main", blob, self.UUID, "data")
        drop("deletion_date")
        with self.refused("dates"):
            local_unwrap.KeyStore(self.keystore)
        set_state(state="enabled")
        local_unwrap.KeyStore(self.keystore).unwrap("main", blob, self.UUID, "data")

    def test_edited(self):
        made = self.store_with()
        edits = (lambda s: s.update(sequence=2), lambda s: s["keys"][0].update(created="2020-01-01T00:00:00Z"),
                 lambda s: s["keys"].pop(), lambda s: s["keys"][0]["versions"][0].pop("wrapped"))
        for edit in edits:
            self.edit(made, edit, sign=False)
            with self.refused("MAC"):
                local_unwrap.KeyStore(self.keystore)
            os.unlink(self.keystore)
            os.unlink(self.keystore + ".key")
            made = self.store_with()

    def test_malformed(self):
        edits = (lambda s: s.update(format="x"), lambda s: s.update(version=2), lambda s: s.update(more=1),
                 lambda s: s.pop("created"), lambda s: s.update(sequence=0), lambda s: s.update(uuid="x"),
                 lambda s: s["keys"].reverse(), lambda s: s["keys"].append(s["keys"][-1]),
                 lambda s: s["keys"][0].update(name=".a"), lambda s: s["keys"][0].update(state="x"),
                 lambda s: s["keys"][0].update(versions=[]), lambda s: s["keys"][0]["versions"][0].update(version=2),
                 lambda s: s["protection"].update(more=1), lambda s: s["protection"].update(type="x"))
        for i, edit in enumerate(edits):
            with self.subTest(i):
                self.edit(self.store_with(), edit)
                with self.assertRaises(local_unwrap.Refused):
                    local_unwrap.KeyStore(self.keystore)
            os.unlink(self.keystore)
            os.unlink(self.keystore + ".key")
        with self.refused("twice"):
            local_unwrap.parse_store(b'{"format": "cmekfs key store", "format": "cmekfs key store"}')

    def test_files(self):
        self.store_with()
        for path in (self.keystore, self.keystore + ".key"):
            os.chmod(path, 0o640)
            with self.refused("private"):
                local_unwrap.KeyStore(self.keystore)
            os.chmod(path, 0o600)
            os.rename(path, path + "~")
            os.symlink(path + "~", path)
            with self.assertRaises(local_unwrap.Refused):
                local_unwrap.KeyStore(self.keystore)
            os.unlink(path)
            os.rename(path + "~", path)
        write(self.keystore + ".key", bytes(32))
        with self.refused("another store's"):
            local_unwrap.KeyStore(self.keystore)

    def test_passphrases(self):
        self.store_with(passphrase=b"open sesame")
        for passphrase in (None, b"", b"open sesame "):
            with self.refused("passphrase"):
                local_unwrap.KeyStore(self.keystore, passphrase)

    def test_programs(self):
        """A volume of make_volume.py with slots of make_keystore.py, opened by the other two."""
        write(os.path.join(self.src, "file"), b"content")
        write(self.path("kek"), KEK)
        write(self.path("passphrase"), b"open sesame\n")
        os.chmod(self.path("passphrase"), 0o600)
        passphrase = ["--passphrase-file", self.path("passphrase")]
        code, slots, err = run("make_keystore.py", "--kek-file", self.path("kek"), "--uuid", self.UUID,
                               "--versions", "2", *passphrase, self.keystore, "main", "safe=recovery")
        self.assertEqual((code, err), (0, b""))
        write(self.path("slots"), slots)
        run("make_volume.py", "--kek-file", self.path("kek"), "--uuid", self.UUID, "--slots", self.path("slots"),
            self.src, self.store)
        for which in ([], ["--slot", "1"]):
            code, kek, err = run("local_unwrap.py", "--keystore", self.keystore, *passphrase, *which, self.store)
            self.assertEqual((code, kek, err), (0, KEK, b""))
        code, out, _ = run("cmekfs_reader.py", "--kek-file", "-", self.store, "cat", "file", stdin=kek)
        self.assertEqual((code, out), (0, b"content"))


class CommandLine(Case):
    def test_kek_forms(self):
        write(os.path.join(self.src, "file"), b"content")
        self.make()
        for kek in (KEK, KEK.hex().encode(), KEK.hex().upper().encode() + b"\n"):
            self.assertEqual(run("cmekfs_reader.py", "--kek-file", "-", self.store, "cat", "/file", stdin=kek)[:2],
                             (0, b"content"))
        for kek in (b"", KEK[:31], KEK + b"\n", KEK.hex()[:62].encode(), b"\xff" * 64):
            self.assertEqual(run("cmekfs_reader.py", "--kek-file", "-", self.store, "info", stdin=kek)[0], 2)

    def test_paths(self):
        os.mkdir(os.path.join(self.src, "dir"))
        write(os.path.join(self.src, "dir", "file"), b"content")
        self.make()
        self.assertEqual(self.cat("//dir/file"), b"content")
        for path in ("", "dir", "dir/", "file", "dir/file/x"):
            self.command("cat", path, code=2)

    def test_not_a_volume(self):
        self.store = self.src
        self.assertIn("no good volume header", self.command("info", code=2)[1])
        self.store = self.path("nowhere")
        self.command("info", code=2)

    def test_export_wants_an_empty_place(self):
        self.make()
        write(self.path("full"))
        self.command("export", self.path("full"), code=2)
        self.command("export", self.dir, code=2)

    def test_maker_command_line(self):
        write(os.path.join(self.src, "file"), b"content")
        write(self.path("kek"), KEK)
        uuid = "6b0c1f5e-2d3a-4b58-9697-88796a5b4c3d"
        slots = [maker.made_up_slot(), dict(maker.made_up_slot(), id=7, purpose="recovery")]
        write(self.path("slots"), json.dumps(slots).encode())
        code, _, err = run("make_volume.py", "--kek-file", self.path("kek"), "--block-size", "8192", "--uuid", uuid,
                           "--slots", self.path("slots"), "--deks", "2", self.src, self.store)
        self.assertEqual((code, err), (0, b""))
        out = self.command("info")[0].decode()
        self.assertIn(f"uuid: {uuid}\n", out)
        self.assertIn("block size: 8192\n", out)
        self.assertIn("slot 7: recovery", out)
        self.assertEqual(self.cat("file"), b"content")


if __name__ == "__main__":
    unittest.main()
