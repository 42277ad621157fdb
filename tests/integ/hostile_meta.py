#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage to what a volume keeps about itself (.cmekfs: header, journal, lock, links), and what must come of it.

hostile_meta.py cases [all]                 a line for each: name, state (clean or killed), what must come of it
hostile_meta.py damage CASE STORE BAIT      to a copy of a store in that state, made by replay.py
hostile_meta.py check WHAT MOUNT BAIT       after the mount: "good" is version 2 of replay.py, "mixed" each byte of some version
hostile_meta.py outside BAIT                nothing was written where the planted links lead to

What must come of it: "good", "mixed", "refused" (exit code and a sentence), "eio" (nothing can be read).
"""
import hashlib
import json
import os
import socket
import stat
import struct
import sys

import replay

UNIT = 4096
HEADERS = ("header.0", "header.1")
CASES = {}
# Where there are many of a kind, some of them stand for all, unless all are asked for.
SOME = {f"{what}_{at}" for what in ("header_flip", "headers_flip") for at in (0, 88)} \
    | {f"{what}_cut_{size}" for what in ("header", "headers") for size in (4097,)} \
    | {"headers_much_longer", "headers_link_outside", "header_fifo", "headers_fifo", "headers_directory"} \
    | {f"json_{name}" for name in ("empty", "deep", "largest", "nul", "no_uuid", "slots_huge", "block_size_0", "slot_key_up",
                                   "slot_wrapped_long", "slots_33", "feature_unknown", "dek_wrapped_other", "label", "one_copy")} \
    | {"headers_device", "journal_device", "lock_device", "header_other_volume", "headers_other_volume"} \
    | {"journal_cut_0", "journal_cut_8193", "journal_link_outside", "journal_fifo", "journal_absent", "lock_link_to_nothing",
       "lock_fifo", "lock_absent", "root_id_absent", "root_id_link"} \
    | {f"journal_{what}_flip_{at}" for what in ("super", "first", "middle", "last") for at in (8, 40, 140)}
MANY = ("header", "json_", "journal_super_flip", "journal_old_super_flip", "journal_first_flip", "journal_middle_flip",
        "journal_last_flip", "journal_cut", "lock_", "root_id", *(f"journal_{shape}" for shape in (
            "absent", "link_", "directory", "fifo", "socket", "device")))


def case(name, state, outcome, damage):
    assert name not in CASES, name
    CASES[name] = (state, outcome, damage)


# ---- what is done to one file; never through a link ----

def read(path):
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def write(path, at, data):
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "r+b", buffering=0) as file:
        file.seek(at)
        file.write(data)


def flip(at):
    return lambda path, bait: write(path, at, bytes([read(path)[at] ^ 0x40]))


def zero(at, size):
    return lambda path, bait: write(path, at, bytes(size))


def cut(size):
    def damage(path, _):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        os.ftruncate(fd, size)
        os.close(fd)
    return damage


def lengthen(size):
    return lambda path, bait: write(path, os.lstat(path).st_size, b"\xa5" * size)


def garbage(size):
    def damage(path, _):
        cut(0)(path, None)
        write(path, 0, hashlib.shake_128(b"garbage").digest(size))
    return damage


def absent(path, _):
    os.unlink(path)


def link_to(text):
    """text(path, bait): where the planted link leads to."""
    def damage(path, bait):
        os.unlink(path)
        os.symlink(text(path, bait), path)
    return damage


def link_to_moved(path, bait):
    """The right file, but behind a link."""
    os.rename(path, os.path.join(os.path.dirname(path), "moved"))
    os.symlink("moved", path)


def as_directory(path, _):
    os.unlink(path)
    os.mkdir(path)


def as_fifo(path, _):
    os.unlink(path)
    os.mkfifo(path)


def as_socket(path, _):
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(os.path.dirname(path))    # a path of a socket has 107 bytes at most
        sock.bind(os.path.basename(path))
        os.chdir(here)


def as_device(path, _):
    """One that gives zeros without an end."""
    os.unlink(path)
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def of_another(which):
    """The file of the same name in the other volume or copy that stands beside the store."""
    def damage(path, _):
        store = os.path.dirname(os.path.dirname(path))
        data = read(os.path.join(os.path.dirname(store), which, ".cmekfs", os.path.basename(path)))
        cut(0)(path, None)
        write(path, 0, data)
    return damage


SHAPES = {
    "absent": absent,
    "link_outside": link_to(lambda path, bait: os.path.join(bait, "file")),
    "link_to_nothing": link_to(lambda path, bait: os.path.join(bait, "new")),
    "link_to_itself": link_to(lambda path, bait: os.path.basename(path)),
    "link_to_zeros": link_to(lambda path, bait: "/dev/zero"),
    "link_moved": link_to_moved,
    "directory": as_directory,
    "fifo": as_fifo,
    "socket": as_socket,
    "device": as_device,
}


def meta(name, damage):
    return lambda store, bait: damage(os.path.join(store, ".cmekfs", name), bait)


def both(damage):
    def damage_both(store, bait):
        for name in HEADERS:
            meta(name, damage)(store, bait)
    return damage_both


# ---- the header ----

def header_cases():
    damages = {f"flip_{at}": flip(at) for at in (0, 8, 12, 16, 24, 40, 48, 56, 88, 120, 4095, 4096, 4200, 4096 + 65535)}
    damages |= {f"cut_{size}": cut(size) for size in (0, 1, 119, 4095, 4096, 4097)}
    damages |= {"longer": lengthen(1), "much_longer": lengthen(2 << 20), "zero": zero(0, 69632), "garbage": garbage(69632)}
    damages |= SHAPES
    for name, damage in damages.items():
        case(f"header_{name}", "clean", "good", meta("header.0", damage))
        case(f"headers_{name}", "clean", "refused", both(damage))
    # Under the same key, and of a higher sequence number. Which of two volumes it is nobody decides.
    case("header_other_volume", "clean", "refused", meta("header.0", of_another("other")))
    case("headers_other_volume", "clean", "refused", both(of_another("other")))


def forged(change):
    """Both copies with another JSON text under a right SHA-256 and a sequence number that wins. Who changes the store can
    do that; the HMAC needs a key."""
    def damage(path, _):
        data = bytearray(read(path))
        length, = struct.unpack_from("<Q", data, 48)
        text = change(json.loads(data[4096:4096 + length]))
        if not isinstance(text, bytes):
            text = json.dumps(text).encode()
        area = max(65536, (len(text) + UNIT - 1) // UNIT * UNIT)
        data = data[:4096] + text + bytes(area - len(text))
        struct.pack_into("<Q", data, 16, struct.unpack_from("<Q", data, 16)[0] + 10)
        struct.pack_into("<QQ", data, 40, area, len(text))
        data[56:120] = bytes(64)
        data[56:88] = hashlib.sha256(data).digest()
        cut(0)(path, None)
        write(path, 0, data)
    return damage


def with_member(*path_and_value):
    *path, last, value = path_and_value

    def change(header):
        at = header
        for step in path:
            at = at[step]
        at[last] = value
        return header
    return change


def without(*path):
    def change(header):
        at = header
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]
        return header
    return change


def many_slots(n):
    def change(header):
        header["slots"] = [dict(header["slots"][0], id=i % 32) for i in range(n)]
        return header
    return change


def json_cases():
    texts = {
        "empty": b"", "object": b"{}", "array": b"[]", "number": b"1", "null": b"null", "garbage": b"\xff\xfe{}" * 100,
        "deep": b"[" * 60_000, "deep_object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nul": b'{"format\x00": 1}',
        "unended": b'{"format": 1', "largest": b'{"format": 1, "x": "' + b"x" * 1_000_000 + b'"}',
    }
    changes = {name: (lambda text: lambda header: text)(text) for name, text in texts.items()}
    for member in ("format", "features", "uuid", "block_size", "symlink_max", "slots", "deks"):
        changes[f"no_{member}"] = without(member)
        for kind, value in (("null", None), ("text", "x" * 5000), ("negative", -1), ("huge", 1 << 62), ("list", [[]] * 50)):
            changes[f"{member}_{kind}"] = with_member(member, value)
    for value in (0, 1, 2048, 12288, 131072):
        changes[f"block_size_{value}"] = with_member("block_size", value)
    for value in (0, 1022, 4096):
        changes[f"symlink_max_{value}"] = with_member("symlink_max", value)
    for member in ("id", "purpose", "provider", "key", "resolved", "wrapped"):
        changes[f"slot_no_{member}"] = without("slots", 0, member)
        for kind, value in (("empty", ""), ("number", 7.5), ("long", "A" * 60_000), ("control", "local:\x1b[31m\n\u0000x")):
            changes[f"slot_{member}_{kind}"] = with_member("slots", 0, member, value)
    changes["slot_key_up"] = with_member("slots", 0, "key", "local:../../../etc/passwd")
    changes["slots_none"] = with_member("slots", [])
    changes["slots_same_id"] = many_slots(2)
    changes["slots_33"] = many_slots(33)
    changes["feature_unknown"] = with_member("features", "incompat", ["\x1b]0;x\x07" + "y" * 300])
    for member in ("next", "active", "table"):
        changes[f"deks_no_{member}"] = without("deks", member)
        changes[f"deks_{member}_huge"] = with_member("deks", member, 1 << 40)
    changes["deks_none"] = with_member("deks", "table", [])
    changes["dek_wrapped_cut"] = with_member("deks", "table", 0, "wrapped", "AAAA")
    changes["dek_wrapped_other"] = with_member("deks", "table", 0, "wrapped", "A" * 80)
    changes["dek_id_0"] = with_member("deks", "table", 0, "id", 0)
    changes["dek_state"] = with_member("deks", "table", 0, "state", "sleeping")
    for name, change in changes.items():
        case(f"json_{name}", "clean", "refused", both(forged(change)))
    # Not harmful, but the HMAC is over it, too.
    case("json_label", "clean", "refused", both(forged(with_member("label", "another"))))
    case("json_one_copy", "clean", "good", meta("header.1", forged(with_member("label", "another"))))


# ---- the journal ----

def records(path):
    """Offset, length and number of each whole record of the newest mount, in order. The head is not encrypted."""
    data, found = read(path), []
    for at in range(2 * UNIT, len(data), UNIT):
        if data[at:at + 8] == b"CMEKREC\n":
            number, length = struct.unpack_from("<QQ", data, at + 40)
            found.append((number, at, length, data[at + 56:at + 72]))
    mount = min(found, key=lambda record: record[1])[3]
    return sorted((number, at, length) for number, at, length, whose in found if whose == mount)


def on_record(which, damage):
    def on(path, bait):
        _, at, length = records(path)[which]
        damage(at, length)(path, bait)
    return on


def swapped_records(path, _):
    (_, one, size), (_, two, other_size) = records(path)[1:3]
    data = read(path)
    write(path, one, data[two:two + other_size] + data[one:one + size])


def newest_super(path):
    """Both are sealed: the one that the mount wrote last is told by its counter."""
    data = read(path)
    return max((0, UNIT), key=lambda at: struct.unpack_from("<Q", data, at + 32)[0])


def on_newest_super(damage):
    return lambda path, bait: damage(newest_super(path))(path, bait)


def second_journal(number, damage=None):
    def on(path, bait):
        other = path[:-1] + number
        fd = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        os.write(fd, read(path))
        os.close(fd)
        if damage:
            damage(other, bait)
    return on


def many_journals(path, _):
    for i in range(1, 200):
        os.close(os.open(path[:-1] + str(i), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def journal_cases():
    def journal(name, outcome, damage, state="killed"):
        case(f"journal_{name}", state, outcome, meta("journal.0", damage))

    for at in (0, 8, 12, 16, 32, 40, 56, 100, 300, 4095):
        journal(f"super_flip_{at}", "good", on_newest_super(lambda super_at, at=at: flip(super_at + at)))
        journal(f"old_super_flip_{at}", "good", on_newest_super(lambda super_at, at=at: flip((UNIT - super_at) + at)))
    journal("super_zero", "good", on_newest_super(lambda at: zero(at, UNIT)))
    journal("supers_flip", "refused", lambda path, bait: (flip(200)(path, bait), flip(UNIT + 200)(path, bait)))
    journal("supers_zero", "refused", zero(0, 2 * UNIT))
    # This is one that was being made (doc/format.md 7.5): a journal can be taken away, as a file can.
    journal("zero", "mixed", lambda path, bait: zero(0, os.lstat(path).st_size)(path, bait))
    journal("zero_endless", "mixed", lambda path, bait: (cut(0)(path, bait), cut(1 << 40)(path, bait)))
    journal("garbage", "refused", garbage(1 << 20))
    for at in (0, 8, 12, 16, 32, 40, 48, 56, 72, 128, 140):
        journal(f"first_flip_{at}", "refused", on_record(0, lambda start, _, at=at: flip(start + at)))
        journal(f"middle_flip_{at}", "refused", on_record(3, lambda start, _, at=at: flip(start + at)))
        # The newest one can't be told from one that was torn by a crash; the one of replay.py changes nothing.
        journal(f"last_flip_{at}", "refused" if at == 8 else "good", on_record(-1, lambda start, _, at=at: flip(start + at)))
    journal("image_flip", "refused", on_record(0, lambda start, length: flip(start + length - 10)))
    journal("record_zero", "refused", on_record(2, zero))
    journal("records_swapped", "good", swapped_records)    # each is found, and its number says when it is its turn
    journal("last_cut", "refused", on_record(-1, lambda start, length: cut(start + length - UNIT)))
    journal("middle_cut", "refused", on_record(3, lambda start, length: cut(start + 1)))
    for size in (0, 1, UNIT - 1, UNIT, 2 * UNIT - 1, 2 * UNIT, 2 * UNIT + 1):
        journal(f"cut_{size}", "refused" if size else "mixed", cut(size))
    journal("longer", "good", lengthen(5000))
    journal("endless", "good", cut(1 << 40))
    for name, damage in SHAPES.items():
        journal(name, "mixed" if name == "absent" else "refused", damage)
    journal("twice", "good", second_journal("1"))
    journal("second_garbage", "refused", second_journal("1", garbage(1 << 20)))
    journal("second_damaged", "refused", second_journal("1", on_record(0, lambda start, _: flip(start + 130))))
    journal("other_names", "good", lambda path, bait: [second_journal(n, garbage(9000))(path, bait) for n in ("00", "x", "-1")])
    journal("hundreds", "refused", many_journals)
    journal("other_volume", "refused", of_another("other"))
    journal("clean_other_volume", "refused", of_another("other"), "clean")
    journal("earlier", "good", of_another("killed"), "clean")    # what it has is in place already
    journal("later", "mixed", of_another("clean"))    # an empty one: as if the journal was taken away
    journal("clean_garbage", "refused", garbage(1 << 20), "clean")
    journal("clean_fifo", "refused", as_fifo, "clean")
    journal("clean_link_outside", "refused", link_to(lambda path, bait: os.path.join(bait, "file")), "clean")
    journal("clean_link_to_nothing", "refused", link_to(lambda path, bait: os.path.join(bait, "new")), "clean")


# ---- the rest ----

def moved_outside(store, bait, name, as_link=True):
    path = os.path.join(store, name)
    os.rename(path, path + ".away")
    if as_link:
        os.symlink(bait, path)


def rest_cases():
    for name, damage in SHAPES.items():
        case(f"lock_{name}", "clean", "good" if name == "absent" else "refused", meta("lock", damage))
    case("lock_garbage", "clean", "good", meta("lock", garbage(70_000)))
    case("meta_link", "clean", "refused", lambda store, bait: link_to_moved(os.path.join(store, ".cmekfs"), bait))
    case("meta_link_outside", "clean", "refused", lambda store, bait: moved_outside(store, bait, ".cmekfs"))
    case("meta_absent", "clean", "refused", lambda store, bait: moved_outside(store, bait, ".cmekfs", False))
    case("meta_file", "clean", "refused", lambda store, bait: (
        moved_outside(store, bait, ".cmekfs", False), os.close(os.open(store + "/.cmekfs", os.O_CREAT | os.O_EXCL))))
    # Nothing of it is needed for the files: what is made later fails, or makes it anew, and never outside.
    for name in ("links", "lost"):
        case(f"{name}_link_outside", "clean", "good", lambda store, bait, name=name: moved_outside(store, bait, f".cmekfs/{name}"))
        case(f"{name}_absent", "clean", "good", lambda store, bait, name=name: moved_outside(store, bait, f".cmekfs/{name}", False))
    case("root_id_absent", "clean", "eio", lambda store, bait: absent(store + "/.cmekfs.dir", bait))
    case("root_id_link", "clean", "eio", lambda store, bait: link_to(lambda *_: bait)(store + "/.cmekfs.dir", bait))
    case("root_id_long", "clean", "eio", lambda store, bait: link_to(lambda *_: "v1:0001:" + "A" * 4000)(store + "/.cmekfs.dir", bait))
    case("root_id_directory", "clean", "eio", lambda store, bait: as_directory(store + "/.cmekfs.dir", bait))
    case("root_id_fifo", "clean", "eio", lambda store, bait: as_fifo(store + "/.cmekfs.dir", bait))


# ---- what must be true ----

def versions(name):
    """What the file held, one after the other, as replay.py wrote it."""
    sizes = {"overwritten": 900_000, "grown": 10_001, "cut": 400_000, "emptied": 300_000, "empty": 5000}
    out = [replay.pattern(name, 1, size) for known, size in sizes.items() if known == name]
    if name == "overwritten":
        out.append(bytearray(out[0]))
        out[-1][:5000] = replay.pattern("at 0", 2, 5000)
    return out + [replay.version_two()[name]]


def check_mixed(top):
    """Blocks of any version, zeros where no version had written, or EIO: never anything else."""
    for name in replay.version_two():
        known = versions(name)
        try:
            with open(f"{top}/{name}", "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                assert size in {0, 3_000_000} | {len(version) for version in known}, f"{name}: {size} bytes"
                for at in range(0, size, UNIT):
                    try:
                        got = os.pread(file.fileno(), UNIT, at)
                    except OSError as e:
                        assert e.errno == 5, e
                        continue
                    assert not any(got) or any(version[at:at + UNIT] == got for version in known) \
                        or any(version[at:at + len(got)] == got for version in known), f"{name} at {at}"
        except FileNotFoundError:
            raise SystemExit(f"{name} is not there") from None
        except OSError as e:
            assert e.errno == 5, f"{name}: {e}"


def errno_of(function, *args):
    try:
        function(*args)
        return 0
    except OSError as e:
        return e.errno


def check_eio(top):
    """The root has lost its id: none of its names can be known, and no new id may come over the old entries."""
    assert errno_of(os.stat, f"{top}/cut") in (2, 5)
    listed = []
    if not errno_of(lambda: listed.extend(os.listdir(top))):
        assert not listed, listed
    errno_of(os.mkdir, f"{top}/directory")


def check(what, top, bait):
    {"good": replay.check, "mixed": check_mixed, "eio": check_eio}[what](top)
    # Whatever there is to be made in .cmekfs is made in the store, or not at all.
    for i in range(3):
        errno_of(os.symlink, "t" * 4095, f"{top}/link{i}")
        errno_of(os.mkdir, f"{top}/{'d' * 250}{i}")
        errno_of(replay.put, f"{top}/more{i}", b"more")
    outside(bait)


def outside(bait):
    assert sorted(os.listdir(bait)) == ["file"], f"outside of the store: {os.listdir(bait)}"
    assert read(f"{bait}/file") == b"bait", "written outside of the store"


def main():
    header_cases()
    json_cases()
    journal_cases()
    rest_cases()
    command = sys.argv[1]
    if command == "cases":
        for name, (state, outcome, _) in CASES.items():
            if sys.argv[2:] == ["all"] or not name.startswith(MANY) or name in SOME:
                print(name, state, outcome)
    elif command == "damage":
        CASES[sys.argv[2]][2](sys.argv[3], sys.argv[4])
    elif command == "check":
        check(*sys.argv[2:])
    else:
        outside(sys.argv[2])


main()
