#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extended attributes, ACLs and modes, step by step beside a plain directory: xattrs.py PLAIN MOUNT"""
import errno
import os
import socket
import stat
import struct
import subprocess
import sys

PLAIN, MOUNT = sys.argv[1:]
NOBODY = 65534
# user 1000 may read and write, the mask is rwx
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in (
    (1, 7, 0xffffffff), (2, 6, 1000), (4, 5, 0xffffffff), (0x10, 7, 0xffffffff), (0x20, 0, 0xffffffff)))


def as_user(uid, gid, groups, act):
    """Runs act in a child as this user: its result as text."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        os.write(w, str(outcome(act)).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return text


def outcome(act):
    try:
        return act()
    except OSError as e:
        return errno.errorcode[e.errno]


def make_all(base):
    os.mkdir(base + "/dir")
    open(base + "/file", "w").close()
    os.symlink("nowhere", base + "/link")
    os.mkfifo(base + "/fifo")
    os.mknod(base + "/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    socket.socket(socket.AF_UNIX).bind(base + "/sock")


def attributes(base):
    """user.*, trusted.* and what goes past: of everything, for everybody."""
    kinds = ("dir", "file", "link", "fifo", "null", "sock")
    for kind in kinds:
        path = f"{base}/{kind}"
        for name in ("user.a", "user.", "user." + "n" * 250, "security.capability", "system.foo", "foo.bar", "os2.a"):
            where = {"follow_symlinks": False}
            value = bytes.fromhex("010000020004000000000000000000000000000000") [:20] if name.startswith("sec") else b"v"
            yield kind, name, "get", outcome(lambda: os.getxattr(path, name, **where))
            yield kind, name, "replace", outcome(lambda: os.setxattr(path, name, value, os.XATTR_REPLACE, **where))
            yield kind, name, "create", outcome(lambda: os.setxattr(path, name, value, os.XATTR_CREATE, **where))
            yield kind, name, "again", outcome(lambda: os.setxattr(path, name, value, os.XATTR_CREATE, **where))
            yield kind, name, "set", outcome(lambda: os.setxattr(path, name, value, **where))
            yield kind, name, "value", outcome(lambda: os.getxattr(path, name, **where))
            yield kind, "list", outcome(lambda: sorted(os.listxattr(path, **where)))
            yield kind, name, "remove", outcome(lambda: os.removexattr(path, name, **where))
            yield kind, name, "removed", outcome(lambda: os.getxattr(path, name, **where))
            yield kind, name, "remove again", outcome(lambda: os.removexattr(path, name, **where))
    for kind in ("dir", "file"):
        path = f"{base}/{kind}"
        os.setxattr(path, "trusted.t", b"secret")
        os.setxattr(path, "user.u", b"")
        yield kind, "trusted", os.getxattr(path, "trusted.t"), sorted(os.listxattr(path))
        yield kind, "empty", os.getxattr(path, "user.u")
        os.chmod(path, 0o755)
        for what in (lambda: os.getxattr(path, "trusted.t"), lambda: sorted(os.listxattr(path)),
                     lambda: os.getxattr(path, "user.u"), lambda: os.setxattr(path, "user.u", b"x"),
                     lambda: os.setxattr(path, "trusted.t", b"x")):
            text = as_user(NOBODY, NOBODY, [], what)
            # btrfs names trusted attributes to everybody; a mount on it does not
            yield kind, "as nobody", text.replace("'trusted.t', ", "") if base == PLAIN or os.environ.get("CMEK_FS") == "bind" else text
    path = base + "/file"
    for size in (1, 100, 1000, 2000):
        os.setxattr(path, "user.big", (bytes(range(256)) * 8)[:size])
        yield "value of", size, os.getxattr(path, "user.big")
        os.removexattr(path, "user.big")
    yield "too big", outcome(lambda: os.setxattr(path, "user.big", bytes(65537)))
    for n in range(30):
        os.setxattr(path, f"user.n{n}", str(n).encode())
    yield "many", sorted(os.listxattr(path))
    os.link(path, base + "/hard")
    os.rename(path, base + "/moved")
    yield "moved", os.getxattr(base + "/moved", "user.n7"), os.getxattr(base + "/hard", "user.n8")


def mode_of(path):
    st = os.lstat(path)
    return oct(st.st_mode), st.st_uid, st.st_gid


def creation(base, mask):
    """Files of every kind made here with this umask: their modes, owners and ACLs."""
    os.umask(mask)
    tag = f"{mask:o}"
    os.mkdir(f"{base}/d{tag}")
    os.close(os.open(f"{base}/f{tag}", os.O_CREAT | os.O_WRONLY, 0o777))
    os.mknod(f"{base}/n{tag}", stat.S_IFREG | 0o666)
    os.mkfifo(f"{base}/p{tag}", 0o666)
    os.symlink("x", f"{base}/l{tag}")
    for kind in "dfnpl":
        path = f"{base}/{kind}{tag}"
        acls = [outcome(lambda: os.getxattr(path, f"system.posix_acl_{a}")) for a in ("access", "default")]
        yield tag, kind, mode_of(path), acls if kind != "l" else None
    os.umask(0o022)


def owners(base):
    """umask, default ACLs, setgid and sticky directories, supplementary groups."""
    for mask in (0, 0o022, 0o077, 0o777):
        os.mkdir(f"{base}/plain{mask:o}")
        yield from creation(f"{base}/plain{mask:o}", mask)
        acl_dir = f"{base}/acl{mask:o}"
        os.mkdir(acl_dir)
        yield from creation(acl_dir, mask)      # before it has one
        os.setxattr(acl_dir, "system.posix_acl_default", ACL)
        os.mkdir(acl_dir + "/sub")
        yield from creation(acl_dir + "/sub", mask)
        os.removexattr(acl_dir + "/sub", "system.posix_acl_default")
        os.mkdir(acl_dir + "/sub/sub")
        yield from creation(acl_dir + "/sub/sub", mask)
    path = base + "/guarded"
    with open(path, "w") as f:
        f.write("text")
    os.chmod(path, 0o640)
    for uid in (1000, 1001):
        yield "before", uid, as_user(uid, uid, [], lambda: open(path).read())
    os.setxattr(path, "system.posix_acl_access", ACL)
    for uid in (1000, 1001):
        yield "acl", uid, as_user(uid, uid, [], lambda: open(path).read())
    os.chmod(path, 0o600)
    yield "masked", as_user(1000, 1000, [], lambda: open(path).read()), mode_of(path)
    yield "acl of nobody", as_user(NOBODY, NOBODY, [], lambda: os.setxattr(path, "system.posix_acl_access", ACL))
    yield "bad acl", outcome(lambda: os.setxattr(path, "system.posix_acl_access", b"xx"))
    # setting an ACL takes sgid from who is not in the group
    for groups in ([], [3000]):
        os.chown(path, 1000, 3000)
        os.chmod(path, 0o2770)
        yield "sgid", as_user(1000, 1000, groups, lambda: os.setxattr(path, "system.posix_acl_access", ACL)), mode_of(path)
    shared = base + "/shared"
    os.mkdir(shared)
    os.chown(shared, 0, 3000)
    os.chmod(shared, 0o3770)
    for uid, groups in ((1000, [3000]), (1001, [3000]), (1002, [])):
        yield "shared", uid, as_user(uid, uid, groups, lambda: os.close(os.open(f"{shared}/f{uid}", os.O_CREAT, 0o2664)))
        yield "shared", uid, as_user(uid, uid, groups, lambda: os.mkdir(f"{shared}/d{uid}", 0o775))
        yield "sticky", uid, as_user(uid, uid, groups, lambda: os.unlink(f"{shared}/f1000")) if uid != 1000 else None
    for name in sorted(os.listdir(shared)):
        yield name, mode_of(f"{shared}/{name}")


def main():
    different, steps = 0, 0
    make_all(PLAIN)
    make_all(MOUNT)
    for script in (attributes, owners):
        for want, got in zip(script(PLAIN), script(MOUNT), strict=True):
            steps += 1
            if want != got:
                different += 1
                print(f"{got}, not {want}")
    print(f"{steps} steps, {different} differences")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
