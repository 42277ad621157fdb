#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers that never pause, while the volume turns read-only and back: read_only.py MOUNT CMEKCTL KEY MAPPED

The policy has to be read-only for a disabled key. A write that returned is there, one that was refused (EROFS) never
happened, and no fsync fails: at the end of each round each page has the version that was acknowledged last. MAPPED 1:
pages of another file are changed through a mapping all the time, which is not refused.
"""
import errno
import json
import mmap
import os
import subprocess
import sys
import threading
import time

PAGE = 4096
PAGES = 61
DEADLINE = 120


class Writer(threading.Thread):
    def __init__(self, mnt, number):
        super().__init__()
        self.path = f"{mnt}/writer-{number}"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.pages = {}
        self.number = number
        self.size = 0
        self.done = self.refused = 0
        self.stop = False
        self.trouble = None

    def run(self):
        try:
            while not self.stop:
                self.write_one()
        except Exception as error:   # pylint: disable=broad-except
            self.trouble = error

    def write_one(self):
        version = self.done + self.refused + 1
        page = version * 7 % PAGES
        data = (b"%08d:%08d:%08d " % (self.number, page, version)).ljust(64, b".") * (PAGE // 64)
        try:
            # Whole pages and pieces, so that the kernel reads before some and not before others.
            os.pwrite(self.fd, data if version % 3 else data[:64], page * PAGE)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self.refused += 1
            time.sleep(0.001)
        else:
            old = self.pages.get(page, b"\0" * PAGE)
            self.pages[page] = data if version % 3 else data[:64] + old[64:]
            self.size = max(self.size, page * PAGE + (PAGE if version % 3 else 64))
            self.done += 1
        if version % 16 == 0:
            os.fsync(self.fd)

    def check(self):
        assert os.lseek(self.fd, 0, os.SEEK_END) == self.size == os.fstat(self.fd).st_size, self.path
        for page, data in self.pages.items():
            got = os.pread(self.fd, PAGE, page * PAGE)
            assert got == data[:len(got)] and len(got) in (64, PAGE), f"{self.path}: page {page}: {got[:64]}, not {data[:64]}"
        assert os.pread(self.fd, PAGE, self.size) == b""


def map_for_ever(mnt):
    fd = os.open(f"{mnt}/mapped", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 64 * PAGE)
    view = mmap.mmap(fd, 64 * PAGE)
    count = 0
    while True:
        count += 1
        view[count % 64 * PAGE:count % 64 * PAGE + 8] = b"%08d" % (count % 10**8)


def ctl(*arguments):
    return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, timeout=DEADLINE).stdout


def wait_until(what, condition):
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, f"waited {DEADLINE} s until {what}"
        time.sleep(0.02)


def one_round(mnt, program, key, mapped):
    child = os.fork() if mapped else 0
    if mapped and child == 0:
        map_for_ever(mnt)

    def refuses():
        mount = json.loads(ctl(program, "status", "--json", mnt))["mount"]
        assert mount["state"] == "unlocked"
        return mount["read_only"]

    writers = [Writer(mnt, i) for i in range(4)]
    for writer in writers:
        writer.start()
    wait_until("all write", lambda: all(writer.done > 50 or writer.trouble for writer in writers))
    ctl(program, "key", "disable", key)
    wait_until("it is read-only", refuses)
    wait_until("all are refused", lambda: all(writer.refused > 0 or writer.trouble for writer in writers))
    before = [writer.done for writer in writers]
    time.sleep(0.1)
    assert before == [writer.done for writer in writers], "a write succeeded on a read-only volume"
    ctl(program, "key", "enable", key)
    wait_until("it can be written", lambda: not refuses())
    wait_until("all write again",
               lambda: all(writer.done > n or writer.trouble for writer, n in zip(writers, before)))
    for writer in writers:
        writer.stop = True
    if mapped:
        os.kill(child, 9)
        os.waitpid(child, 0)
    for writer in writers:
        writer.join()
        if writer.trouble:
            raise writer.trouble
        writer.check()
        os.fsync(writer.fd)
        os.close(writer.fd)
    print("writes and refusals:", [(writer.done, writer.refused) for writer in writers])


one_round(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "1")
