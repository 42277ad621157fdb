#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers that never pause, while the volume is locked and unlocked: lock_load.py MOUNT CMEKCTL SECONDS

Each writer appends numbered records to a file of its own and overwrites pages of another, with and without fsync. What it was
told is written (a write that returned, before a lock; an fsync that returned, always) is checked at the end of each round.
An error must be EKEYREVOKED, and must come only while the volume is locked.
"""
import errno
import mmap
import os
import subprocess
import sys
import threading
import time

PAGE = 4096


class Writer(threading.Thread):
    def __init__(self, mnt, number):
        super().__init__()
        self.path = f"{mnt}/load-{number}"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.pages = {}         # page: the versions it may have
        self.number = number
        self.stop = False
        self.failures = 0
        self.trouble = None

    def run(self):
        try:
            self.work()
        except Exception as error:   # pylint: disable=broad-except
            self.trouble = error

    def work(self):
        version = 0
        while not self.stop:
            version += 1
            page = version * 7 % 61
            data = (b"%08d:%08d:%08d " % (self.number, page, version)).ljust(64, b".") * (PAGE // 64)
            try:
                # Whole pages: the kernel needs no read for them.
                os.pwrite(self.fd, data, page * PAGE)
                self.pages.setdefault(page, []).append(version)
                if version % 16 == 0:
                    os.fsync(self.fd)
                    self.pages = {p: versions[-1:] for p, versions in self.pages.items()}
            except OSError as error:
                if error.errno != errno.EKEYREVOKED:
                    raise
                self.failures += 1
                # A write that failed may have happened.
                self.pages.setdefault(page, []).append(version)
                time.sleep(0.001)

    def check(self):
        for page, versions in self.pages.items():
            data = os.pread(self.fd, PAGE, page * PAGE)
            fields = data[:26].split(b":")
            assert data == data[:64] * (PAGE // 64), f"{self.path}: page {page} is of two versions"
            assert int(fields[0]) == self.number and int(fields[1]) == page, f"{self.path}: page {page}: {data[:64]}"
            version = int(fields[2])
            # One that was written and not synced may be missing only if nothing but the failed ones came after it.
            assert version >= versions[0], f"{self.path}: page {page} has version {version}, not one of {versions}"


def main():
    mnt, ctl, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    until = time.monotonic() + seconds
    rounds = failures = 0
    # A mapping that is written all the time by a process of its own: SIGBUS may end it.
    while time.monotonic() < until or rounds == 0:
        child = os.fork()
        if child == 0:
            fd = os.open(f"{mnt}/load-map", os.O_RDWR | os.O_CREAT)
            os.ftruncate(fd, 64 * PAGE)
            view = mmap.mmap(fd, 64 * PAGE)
            count = 0
            while True:
                count += 1
                view[count % 64 * PAGE:count % 64 * PAGE + 8] = b"%08d" % (count % 10**8)
        writers = [Writer(mnt, i) for i in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(0.3)
        subprocess.run([ctl, "lock", mnt], check=True, timeout=200)
        time.sleep(0.1)
        subprocess.run([ctl, "unlock", mnt], check=True, timeout=200)
        time.sleep(0.1)
        for writer in writers:
            writer.stop = True
        os.kill(child, 9)
        os.waitpid(child, 0)
        for writer in writers:
            writer.join()
            if writer.trouble:
                raise writer.trouble
            failures += writer.failures
            writer.check()
            os.fsync(writer.fd)
            os.close(writer.fd)
        rounds += 1
    assert failures > 0, "no writer noticed"
    print(f"{rounds} rounds, {failures} refused")


main()
