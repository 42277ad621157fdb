#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users have as many files open as the mount can: open_limit.py MOUNT CMEKCTL PID_OF_STORAGE_DAEMON."""
import errno
import os
import subprocess
import sys

TOP, CTL, PID = sys.argv[1:4]
N = 250


def p(*names):
    return os.path.join(TOP, "open-limit", *map(str, names))


def refused(*args):
    try:
        os.close(os.open(*args))
    except OSError as e:
        return e.errno == errno.ENFILE
    return False


def descriptors():
    return len(os.listdir(f"/proc/{PID}/fd"))


def ctl(*args):
    subprocess.run([CTL, *args], check=True, stdout=subprocess.DEVNULL, timeout=120)


def open_all():
    """Opens the files until it is refused."""
    fds = {}
    for i in range(N):
        try:
            fds[i] = os.open(p("files", i), os.O_RDWR)
        except OSError as e:
            assert e.errno == errno.ENFILE, e
            return fds
    sys.exit(f"{N} files are open with {descriptors()} descriptors")


def everything_else(fds):
    """With all those open."""
    inside, outside = max(fds), max(fds) + 5
    assert refused(p("files", outside), os.O_RDONLY)
    assert refused(p("files", outside), os.O_RDWR | os.O_TRUNC)
    assert refused(p("new"), os.O_RDWR | os.O_CREAT)
    assert not os.path.lexists(p("new"))
    os.close(os.open(p("files", inside), os.O_RDONLY))  # somebody has it open
    for i, fd in fds.items():
        assert os.fstat(fd).st_size == len(f"content {i}")
        assert os.pread(fd, 100, 0) == b"content %d" % i
        os.pwrite(fd, b"c", 0)
        os.fsync(fd)
    assert os.stat(p("files", outside)).st_size == len(f"content {outside}")
    # Nothing of these is in a cache.
    for i in range(50):
        assert os.listdir(p("dirs", i)) == ["entry"]
        assert os.lstat(p("dirs", i, "entry")).st_nlink == 1
        os.mkdir(p("dirs", i, "more"))
        os.symlink("target", p("dirs", i, "link"))
        assert os.readlink(p("dirs", i, "link")) == "target"
        os.rename(p("dirs", i, "entry"), p("dirs", i, "more", "entry"))
        os.rename(p("dirs", i, "more", "entry"), p("dirs", i, "entry"))
        os.unlink(p("dirs", i, "link"))
        os.rmdir(p("dirs", i, "more"))
        fd = os.open(p("dirs", i), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    for i in range(outside, N):  # their descriptors are not kept until these changes are in the store
        os.truncate(p("files", i), len("content"))
        os.setxattr(p("files", i), "user.x", b"value")
        os.link(p("files", i), p("linked"))
        os.unlink(p("linked"))
        os.chmod(p("files", i), 0o600)
        os.truncate(p("files", i), len(f"content {i}"))
        os.removexattr(p("files", i), "user.x")
    os.statvfs(TOP)
    ctl("sync", TOP)
    ctl("status", TOP)
    # All but one of those that are open lose their names, and are read after that.
    for i in list(fds)[:-1]:
        os.unlink(p("files", i))
    for i, fd in list(fds.items())[:-1]:
        assert os.fstat(fd).st_nlink == 0, i
        assert os.pread(fd, 100, 0) == b"content %d" % i


os.mkdir(p())
os.mkdir(p("files"))
os.mkdir(p("dirs"))
for i in range(50):
    os.mkdir(p("dirs", i))
    os.mknod(p("dirs", i, "entry"))
for turn in range(2):
    # More than there is room for, closed and not yet in the store.
    for i in range(N):
        with open(p("files", i), "wb") as file:
            file.write(b"content %d" % i)
    fds = open_all()
    print(f"{len(fds)} files are open, {descriptors()} descriptors")
    assert len(fds) >= 60
    everything_else(fds)
    assert descriptors() < 256
    for fd in fds.values():
        os.close(fd)
    # A close is told to the mount behind our back.
    with open(p("files", "after"), "wb") as file:
        file.write(b"after")
        os.fsync(file.fileno())
    if turn == 0:
        again = len(fds)
assert len(fds) >= again - 2, "some were not given back"
