#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
Changes a key slot in a volume's header as who can write the store, but has no key, could: checksums are put right, the HMAC
is not.

    edit_slot.py STORE SLOT MEMBER          prints a member of the slot
    edit_slot.py STORE SLOT MEMBER=TEXT...  sets members, in both copies
"""
import hashlib
import json
import struct
import sys

HEAD = 4096
LENGTH = slice(48, 56)
DIGEST = slice(56, 88)


def edit(path, slot_id, changes):
    """Returns the slot as it was."""
    with open(path, "r+b") as f:
        data = bytearray(f.read())
        header = json.loads(data[HEAD:HEAD + struct.unpack("<Q", data[LENGTH])[0]])
        slot = next(s for s in header["slots"] if s["id"] == slot_id)
        before = dict(slot)
        slot.update(changes)
        text = json.dumps(header).encode()
        area = len(data) - HEAD
        assert len(text) <= area, "the text does not fit any more"
        data[HEAD:] = text + bytes(area - len(text))
        data[LENGTH] = struct.pack("<Q", len(text))
        data[DIGEST] = hashlib.sha256(data[:56] + bytes(64) + data[120:]).digest()
        if changes:
            f.seek(0)
            f.write(data)
    return before


def main():
    store, slot_id, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    changes = dict(word.split("=", 1) for word in words if "=" in word)
    for copy in (0, 1):
        before = edit(f"{store}/.cmekfs/header.{copy}", slot_id, changes)
    for word in words:
        if "=" not in word:
            print(before[word])


main()
