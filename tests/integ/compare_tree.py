#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares two trees: names, types, contents, owners, modes, mtimes to the ns, devices, link structure and targets.

compare_tree.py [--no-content] [--seconds] A B: exit 1 and up to 30 lines of differences. --seconds: mtimes so only.
"""
import os
import stat
import sys

differences = []


def differ(path, what, a, b):
    differences.append(f"{os.fsdecode(path)!r}: {what}: {a!r} and {b!r}")


def same_content(a, b):
    with open(a, "rb", buffering=0) as fa, open(b, "rb", buffering=0) as fb:
        while True:
            da, db = fa.read(1 << 20), fb.read(1 << 20)
            if da != db:
                return False
            if not da:
                return True


def walk(top):
    """Relative path -> lstat of everything below top, and top itself."""
    found = {b".": os.lstat(top)}
    queue = [b"."]
    while queue:
        directory = queue.pop()
        for name in os.listdir(os.path.join(top, directory)):
            path = os.path.join(directory, name)
            if path in found:
                differ(path, "listed twice in", top, top)
                continue
            found[path] = os.lstat(os.path.join(top, path))
            if stat.S_ISDIR(found[path].st_mode):
                queue.append(path)
    return found


def link_groups(found):
    """Path -> the paths of the same inode, sorted; directories have none."""
    groups = {}
    for path in sorted(found):
        st = found[path]
        if not stat.S_ISDIR(st.st_mode):
            groups.setdefault((st.st_dev, st.st_ino), []).append(path)
    return {path: group for group in groups.values() for path in group}


def main():
    args = [a for a in sys.argv[1:] if not a.startswith("--")]
    content, unit_ns = "--no-content" not in sys.argv, 1_000_000_000 if "--seconds" in sys.argv else 1
    top_a, top_b = (os.fsencode(a) for a in args)
    a, b = walk(top_a), walk(top_b)
    groups_a, groups_b = link_groups(a), link_groups(b)
    for path in sorted(a.keys() ^ b.keys()):
        differ(path, "is in", path in a, path in b)
    for path in sorted(a.keys() & b.keys()):
        sa, sb = a[path], b[path]
        if stat.S_IFMT(sa.st_mode) != stat.S_IFMT(sb.st_mode):
            differ(path, "type", stat.S_IFMT(sa.st_mode), stat.S_IFMT(sb.st_mode))
            continue
        if path != b".":
            for field in ("st_mode", "st_uid", "st_gid", "st_rdev"):
                if getattr(sa, field) != getattr(sb, field):
                    differ(path, field, getattr(sa, field), getattr(sb, field))
            if sa.st_mtime_ns // unit_ns != sb.st_mtime_ns // unit_ns:
                differ(path, "mtime", sa.st_mtime_ns, sb.st_mtime_ns)
        if stat.S_ISDIR(sa.st_mode):
            continue
        if sa.st_size != sb.st_size:
            differ(path, "size", sa.st_size, sb.st_size)
        # A name outside of the tree counts as a link, too, and is not part of what is compared.
        if sa.st_nlink != sb.st_nlink and sa.st_nlink == len(groups_a[path]):
            differ(path, "links", sa.st_nlink, sb.st_nlink)
        if stat.S_ISLNK(sa.st_mode):
            ta, tb = os.readlink(os.path.join(top_a, path)), os.readlink(os.path.join(top_b, path))
            if ta != tb:
                differ(path, "target", ta, tb)
        elif stat.S_ISREG(sa.st_mode) and content and sa.st_size == sb.st_size:
            if not same_content(os.path.join(top_a, path), os.path.join(top_b, path)):
                differ(path, "content", "", "")
    for path in sorted(groups_a.keys() & groups_b.keys()):
        if groups_a[path] != groups_b[path]:
            differ(path, "is one file with", groups_a[path], groups_b[path])
    for line in differences[:30]:
        print(line)
    print(f"{len(a)} entries compared, {len(differences)} differences")
    sys.exit(1 if differences else 0)


main()
