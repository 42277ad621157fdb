# SPDX-License-Identifier: GPL-3.0-or-later
"""
Appends to files, truncates and lengthens them. After a cut a file has a size that it had since its last sync, or that
an append was on its way to, and each page is as it was at some moment since; what no step touched is as it was.
"""

import os

from load import Writers, noise, open_for, pread_full, punch, pwrite_full

FILES = 3  # of each writer
PAGE = 4096
MAX_BYTES = 1024 * 1024
MAX_STATES = 12


class Step:
    """Changes of one file, as (what, argument), and whether a sync follows."""

    def __init__(self, rng, sizes, pending, can_punch):
        self.file = rng.randrange(FILES)
        size = sizes[self.file]
        self.changes = []
        for _ in range(rng.randint(1, 4)):
            change, size = self._change(rng, size, can_punch)
            self.changes.append(change)
        sizes[self.file] = size
        pending[self.file] += len(self.changes)
        self.sync = None
        if rng.random() < 0.75 or pending[self.file] > MAX_STATES:
            self.sync = rng.choice(("fsync", "fdatasync"))
            pending[self.file] = 0

    @staticmethod
    def _change(rng, size, can_punch):
        what = rng.random()
        if size > MAX_BYTES or (what < 0.12 and size):
            to = rng.choice((0, rng.randrange(size), max(0, size - rng.randint(1, 5000))))
            return ("truncate", to), to
        if what < 0.18:
            to = size + rng.choice((rng.randint(1, 3000), rng.randint(1, 600000)))
            return ("truncate", to), to
        if what < 0.24 and size and can_punch:
            start = rng.randrange(size)
            return ("punch", (start, rng.randint(1, size - start))), size
        length = rng.choice((rng.randint(1, 200), rng.randint(1, 200), rng.randint(1, 20000), PAGE,
                             rng.randint(1, 400000)))
        return ("append", length), size + length


def apply(content, change, key):
    what, argument = change
    if what == "append":
        content += noise(argument, *key)
    elif what == "punch":
        start, length = argument
        content[start:start + length] = bytes(length)
    elif argument <= len(content):
        del content[argument:]
    else:
        content += bytes(argument - len(content))


class File:
    """The states that a file had since its last sync, the synced one first, and what of it no change touched."""

    def __init__(self):
        self.states = [b""]
        self.untouched = 0  # bytes from the start

    def change(self, change, key):
        content = bytearray(self.states[-1])
        apply(content, change, key)
        self.states.append(bytes(content))
        border = change[1][0] if change[0] == "punch" else min(len(self.states[-2]), len(content))
        self.untouched = min(self.untouched, border)

    def synced(self):
        del self.states[:-1]
        self.untouched = len(self.states[0])


class Append(Writers):
    name = "append"

    def __init__(self, settings):
        super().__init__(settings)
        self.files = [[File() for _ in range(FILES)] for _ in range(self.writers)]
        self.steps = [self._steps(writer) for writer in range(self.writers)]
        self.reached = [0] * self.writers
        self.next_step = [next(steps) for steps in self.steps]

    def _steps(self, writer):
        rng = self.rng("steps", writer)
        sizes, pending = [0] * FILES, [0] * FILES
        while True:
            yield Step(rng, sizes, pending, self.settings.can_punch)

    @staticmethod
    def _path(top, writer, file):
        return os.path.join(top, f"append-{writer}-{file}")

    def _key(self, writer, step_number, i):
        return self.settings.seed, writer, step_number, i

    def setup(self, top):
        for writer in range(self.writers):
            for file in range(FILES):
                with open(self._path(top, writer, file), "xb"):
                    pass

    def writer(self, top, number, resources):
        steps = self._steps(number)
        fds = [open_for(resources, self._path(top, number, file)) for file in range(FILES)]

        def take_step(step_number):
            step = next(steps)
            fd = fds[step.file]
            for i, (what, argument) in enumerate(step.changes):
                if what == "append":
                    pwrite_full(fd, noise(argument, *self._key(number, step_number, i)), os.fstat(fd).st_size)
                elif what == "punch":
                    punch(fd, *argument)
                else:
                    os.ftruncate(fd, argument)
            if step.sync == "fsync":
                os.fsync(fd)
            elif step.sync:
                os.fdatasync(fd)

        return take_step

    def _begin(self, writer):
        step = self.next_step[writer]
        for i, change in enumerate(step.changes):
            self.files[writer][step.file].change(change, self._key(writer, self.reached[writer] + 1, i))

    def advance(self, acks):
        for writer in range(self.writers):
            while self.reached[writer] < acks.get(writer, 0):
                step = self.next_step[writer]
                self._begin(writer)
                if step.sync:
                    self.files[writer][step.file].synced()
                self.reached[writer] += 1
                self.next_step[writer] = next(self.steps[writer])

    def check(self, top, report):
        for writer in range(self.writers):
            self._begin(writer)
            for number, file in enumerate(self.files[writer]):
                try:
                    self._check_file(self._path(top, writer, number), file, f"file {writer}-{number}", report)
                except OSError as e:
                    report.error(e, f"file {writer}-{number}")

    @staticmethod
    def _check_file(path, file, where, report):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            sizes = [len(state) for state in file.states]
            if not min(sizes) <= size <= max(sizes):
                report.add("lost", f"{where} has {size} bytes, may have {sizes}")
            for start in range(0, size, PAGE):
                check_page(fd, file, start, min(PAGE, size - start), where, report)
        finally:
            os.close(fd)


def check_page(fd, file, start, length, where, report):
    where = f"{where} at {start}"
    try:
        data = pread_full(fd, length, start)
    except OSError as e:
        report.error(e, where)
        return
    for state in file.states:
        if data == state[start:start + length].ljust(length, b"\0"):
            return
    old = file.states[0][start:file.untouched]
    if data[:len(old)] != old[:length]:
        report.add("lost", f"{where}: synced bytes changed")
    elif not any(data[len(old):]):
        report.add("weak", f"{where}: zeros for data that was not synced")
    else:
        report.add("torn", f"{where}: {length} bytes that never were")
