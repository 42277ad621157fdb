#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks for a volume's secrets in the memory of processes.

    memory_scan.py STORE TEXT PID...      the KEK comes on standard input, as local_unwrap.py prints it

Prints a line for each kind (kek, dek, content, other, text) with the number of secrets of that kind that were found in any of the
processes, and how many there are. The keys are derived from the store by the independent reader: they are those of every
map page and block there, and of the journal's superblock. The KEK is looked for as key services send it, too, TEXT as it is.
"""
import base64
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))
import cmekfs_reader as reader  # noqa: E402


def content_keys(volume):
    """Of every page and every entry; the store is not looked at through the journal."""
    block = volume.header.block_size
    found = set()
    for node in volume.walk():
        if node.kind != 0o100000:
            continue
        with open(node.open(), "rb") as file:
            group = 0
            while True:
                page = os.pread(file.fileno(), reader.PAGE_BYTES, group * (reader.PAGE_BYTES + 96 * block))
                if len(page) < reader.PAGE_BYTES:
                    break
                if not reader.is_zero(page):
                    opened = reader.open_map_page(volume.keys, page, group, block)
                    found.add(volume.keys.content(opened.dek_id, page[16:32], opened.file_id))
                    for entry in opened.entries:
                        if not reader.is_zero(entry):
                            found.add(volume.keys.content(reader.u16(entry, 22), entry[:16], opened.file_id))
                group += 1
    return found


def secrets(store, kek):
    volume = reader.Volume(store, kek, ignore_journal=True)
    ids = [dek["id"] for dek in volume.header.config["deks"]["table"]]
    other = {volume.keys.wrap_key, reader.hkdf(kek, b"cmekfs 1 header mac")}
    for dek_id in ids:
        other.add(volume.keys.derive(dek_id, b"cmekfs 1 name", length=64))
        other.add(volume.keys.derive(dek_id, b"cmekfs 1 symlink", length=64))
    for journal in volume.journals:
        with open(volume.control_path(journal.name), "rb") as file:
            for copy in range(2):
                data = file.read(reader.PAGE_BYTES)
                reader.open_superblock(volume, data, copy)
                other.add(volume.keys.journal(reader.u32(data, 12), data[16:32]))
    # In base64 the last letters depend on what follows.
    sent = [code(kek)[:len(kek) * 4 // 3] for code in (base64.b64encode, base64.urlsafe_b64encode)]
    return {"kek": {kek, *sent}, "dek": {volume.keys.dek(dek_id) for dek_id in ids}, "content": content_keys(volume), "other": other}


def regions(pid):
    """The readable memory of a process, piece by piece (name, address, bytes), with what a secret may straddle."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            where, modes = line.split()[:2]
            if modes[0] != "r" or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(text, 16) for text in where.split("-"))
            at = start
            while at < end:
                try:
                    memory.seek(at)
                    data = memory.read(min(end - at, 64 << 20))
                except (OSError, OverflowError):
                    break
                if not data:
                    break
                yield line.split()[0] + " " + (line.split()[5] if len(line.split()) > 5 else ""), at, data
                if at + len(data) >= end:
                    break
                at += max(len(data) - 256, 1)


def main():
    store, text, pids = sys.argv[1], sys.argv[2].encode(), sys.argv[3:]
    kek = sys.stdin.buffer.read()
    kinds = secrets(store, kek)
    kinds["text"] = {text}
    found = {kind: set() for kind in kinds}
    for pid in pids:
        for name, at, data in regions(pid):
            for kind, wanted in kinds.items():
                for secret in wanted - found[kind]:
                    where = data.find(secret)
                    if where >= 0:
                        found[kind].add(secret)
                        print(f"{kind}: process {pid}, {at + where:#x} in {name}", file=sys.stderr)
    for kind, wanted in kinds.items():
        print(kind, len(found[kind]), len(wanted))


main()
