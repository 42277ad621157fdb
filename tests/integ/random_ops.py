#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random data operations on files, compared with a model: random_ops.py MOUNT MODEL SEED OPERATIONS BLOCK_SIZE.

MODEL is a directory that has each file's content as it must be; it is made when missing, checked at the start and
brought up to date at the end. Several threads work on a file each. A failure names the file and the operation.
"""
import mmap
import os
import random
import sys
import threading

mount, model_dir, seed, operations, block = sys.argv[1:4] + [int(a) for a in sys.argv[4:6]]
GROUP = 96 * block
MAX = 3 * GROUP
FILES = 4
failures = []


class File:
    def __init__(self, number):
        self.path, self.model_path = os.path.join(mount, f"f{number}"), os.path.join(model_dir, f"f{number}")
        self.rng = random.Random(f"{seed}-{number}")
        self.model = bytearray()
        if os.path.exists(self.model_path):
            with open(self.model_path, "rb") as f:
                self.model = bytearray(f.read())
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        self.append = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.buffer = mmap.mmap(-1, 1 << 20)

    def offset(self):
        """An offset, with a liking for edges and for what exists."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.3:
            return max(0, rng.randrange(0, MAX // block) * block + rng.choice((-1, 0, 1)))
        if kind < 0.4:
            return max(0, rng.randrange(0, 4) * GROUP + rng.choice((-block, -1, 0, 1, block)))
        if kind < 0.5:
            return max(0, len(self.model) + rng.choice((-block, -1, 0, 1, block)))
        return rng.randrange(0, MAX)

    def length(self):
        return self.rng.choice((1, 10, 511, 512, 4095, 4096, 4097, 8192, block, block + 1, 3 * block, 70_000, 200_000))

    def put(self, off, data):
        if off > len(self.model):
            self.model.extend(bytes(off - len(self.model)))
        self.model[off : off + len(data)] = data

    def op_write(self):
        off, data = self.offset(), self.rng.randbytes(self.length())
        assert os.pwrite(self.fd, data, off) == len(data)
        self.put(off, data)
        return off, len(data)

    def op_append(self):
        if len(self.model) > MAX:
            return None
        data = self.rng.randbytes(self.rng.choice((1, 100, 4096, 5000)))
        assert os.write(self.append, data) == len(data)
        self.put(len(self.model), data)
        return len(data)

    def op_direct(self):
        off, n = self.offset() & ~4095, self.rng.choice((4096, 8192, 65536, 131072))
        self.buffer[:n] = self.rng.randbytes(n)
        assert os.pwritev(self.direct, [memoryview(self.buffer)[:n]], off) == n
        self.put(off, self.buffer[:n])
        return off, n

    def op_direct_read(self):
        off, n = self.offset() & ~4095, self.rng.choice((4096, 65536, 1 << 20))
        got = os.preadv(self.direct, [memoryview(self.buffer)[:n]], off)
        assert self.buffer[:got] == bytes(self.model[off : off + n]), f"direct read at {off}"
        return off, n

    def op_read(self):
        off, n = self.offset(), self.length()
        assert os.pread(self.fd, n, off) == self.model[off : off + n], f"read at {off}, {n}"
        return off, n

    def op_truncate(self):
        size = self.offset() if self.rng.random() < 0.9 else 0
        os.ftruncate(self.fd, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))
        return size

    def op_map(self):
        size = len(self.model)
        if not size:
            return None
        off, data = self.rng.randrange(size), self.rng.randbytes(self.length())
        data = data[: size - off]
        with mmap.mmap(self.fd, size) as m:
            assert m[off : off + len(data)] == self.model[off : off + len(data)], f"mapped at {off}"
            m[off : off + len(data)] = data
            if self.rng.random() < 0.3:
                m.flush()
        self.put(off, data)
        return off, len(data)

    def op_sync(self):
        self.rng.choice((os.fsync, os.fdatasync))(self.fd)

    def op_reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def check(self, when):
        assert os.fstat(self.fd).st_size == len(self.model), f"{when}: size"
        data = os.pread(self.fd, len(self.model) + 1, 0)
        if data != self.model:
            at = next(i for i in range(len(self.model)) if data[i : i + 1] != self.model[i : i + 1])
            raise AssertionError(f"{when}: content differs at {at} of {len(self.model)}")

    def run(self):
        history = []
        try:
            self.check("at the start")
            for _ in range(operations):
                name = self.rng.choices(
                    ("write", "append", "direct", "direct_read", "read", "truncate", "map", "sync", "reopen"),
                    (30, 8, 10, 8, 20, 5, 10, 3, 2),
                )[0]
                history.append(name)
                history[-1] = (name, getattr(self, "op_" + name)())
            self.check("at the end")
            for fd in (self.fd, self.direct, self.append):
                os.close(fd)
            with open(self.model_path, "wb") as f:
                f.write(self.model)
        except (AssertionError, OSError) as e:
            failures.append(f"{self.path}: {type(e).__name__} {e}; the last operations: {history[-12:]}")


os.makedirs(model_dir, exist_ok=True)
threads = [threading.Thread(target=File(i).run) for i in range(FILES)]
for t in threads:
    t.start()
for t in threads:
    t.join()
for line in failures:
    print(line, file=sys.stderr)
sys.exit(bool(failures))
