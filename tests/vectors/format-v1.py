#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the test vectors of doc/format.md section 8, from that document alone and with another library than ours.

    format-v1.py > format-v1.txt     the vectors, lines of "name = hex"
    format-v1.py --markdown          the table of doc/format.md section 8
    format-v1.py --check             exit 1 when format-v1.txt is not what this script makes

Needs Debian's python3-cryptography. All inputs are fixed; nothing here is random.
"""
import base64
import hashlib
import hmac as hmac_module
import json
import os
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = []  # (name, bytes) or (None, comment)
TEXTS = set()  # names whose bytes are text


def note(text):
    VECTORS.append((None, text))


def put(name, value):
    VECTORS.append((name, value))
    return value


def text(name, value):
    TEXTS.add(name)
    return put(name, value.encode("ascii")).decode("ascii")


def le(n, size):
    return n.to_bytes(size, "little")


def run(first, n):
    return bytes((first + i) & 255 for i in range(n))


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def hkdf(key, salt, info, size=32):
    return HKDF(algorithm=hashes.SHA256(), length=size, salt=salt or None, info=info).derive(key)


def gcm(key, nonce, aad, plain):
    """Ciphertext, tag."""
    out = AESGCM(key).encrypt(nonce, plain, aad)
    return out[:-16], out[-16:]


def siv(key, strings, plain):
    return AESSIV(key).encrypt(plain, list(strings))


def nonce_of(domain, counter):
    return bytes([domain]) + bytes(5) + le(counter, 6)


def sha256(data):
    return hashlib.sha256(data).digest()


def keys():
    note("Keys (section 3)")
    kek = put("kek", run(0x00, 32))
    uuid = put("uuid", bytes.fromhex("6b0c1f5e2d3a4b58969788796a5b4c3d"))
    wrap = put("wrap_key", hkdf(kek, b"", b"cmekfs 1 wrap"))
    put("header_mac_key", hkdf(kek, b"", b"cmekfs 1 header mac"))
    dek = put("dek", run(0x20, 32))
    dek_id = put("dek_id", le(1, 2))
    domain = put("dek_domain", le(0, 4))
    nonce = put("dek_wrap_nonce", run(0xA0, 12))
    cipher, tag = gcm(wrap, nonce, uuid + dek_id + domain, dek)
    put("dek_wrapped", nonce + cipher + tag)
    salt = put("salt", run(0xC0, 16))
    file_id = put("file_id", run(0xD0, 16))
    put("content_key", hkdf(dek, salt, b"cmekfs 1 content" + file_id))
    put("journal_key", hkdf(dek, salt, b"cmekfs 1 journal"))
    put("xattr_key", hkdf(dek, salt, b"cmekfs 1 xattr"))
    put("name_key", hkdf(dek, b"", b"cmekfs 1 name", 64))
    put("symlink_key", hkdf(dek, b"", b"cmekfs 1 symlink", 64))
    put("xattr_name_key", hkdf(dek, b"", b"cmekfs 1 xattr name"))


def names():
    note("Names (section 4.2)")
    dir_id = put("dir_id", run(0xE0, 16))
    text("dir_link", "v1:0001:" + b64url(dir_id))
    text("dir_link_moving", "v1:0002,0001:" + b64url(dir_id))
    odd = run(0x80, 255).replace(b"/", b"_").replace(b"\0", b"_")
    for label, plain in (("name", b"hello.txt"), ("name_175", b"n" * 175), ("name_176", b"n" * 176), ("name_255", odd)):
        put(label, plain)
        if plain.isascii():
            TEXTS.add(label)
        stored = text(label + "_stored", b64url(siv(get("name_key"), [dir_id], plain)))
        if len(stored) > 255:
            text(label + "_h", b64url(sha256(stored.encode("ascii"))))

    note("Symlink targets (section 4.3)")
    nonce = put("symlink_nonce", run(0x70, 16))
    target = text("symlink_target", "../lib/x86_64-linux-gnu/libc.so.6").encode("ascii")
    e = b64url(nonce + siv(get("symlink_key"), [b"symlink", nonce], target))
    text("symlink_text", "10001-" + e)
    target = put("symlink_long_target", b"/".join([b"part"] * 147)[:731])
    e = b64url(nonce + siv(get("symlink_key"), [b"symlink", nonce], target))
    link_id = put("symlink_long_id", run(0x50, 16))
    assert len(target) == 731 and len(e) == 1018
    text("symlink_long_text_1023", "10001+%s%04x" % (b64url(link_id), len(e)) + e[:1023 - 32])
    text("symlink_long_rest_1023", e[1023 - 32:])

    note("Extended attributes (section 4.4)")
    name = text("xattr_name", "user.comment").encode("ascii")
    value = text("xattr_value", "quarterly figures").encode("ascii")
    counter = put("xattr_counter", le(9, 6))
    digest = hmac_module.new(get("xattr_name_key"), name, "sha256").digest()
    stored = text("xattr_stored_name", "user.cmekfs." + b64url(digest[:16]) + ".0001")
    cipher, tag = gcm(get("xattr_key"), nonce_of(4, 9), stored.encode("ascii"), le(len(name), 2) + name + value)
    put("xattr_stored_value", get("salt") + counter + tag + cipher)


def get(name):
    return next(value for key, value in VECTORS if key == name)


def map_page(group, counter, entries, trailer):
    head = b"CMK\x01" + le(1, 4) + le(counter, 8) + get("salt") + get("file_id")
    body = b"".join(entries).ljust(3840, b"\0") + trailer.ljust(192, b"\0")
    cipher, tag = gcm(get("content_key"), nonce_of(2, counter), head + le(group, 8), body)
    return head + tag + cipher


def content():
    note("Data blocks (section 5.3): block 0 is whole, block 1 is the tail of a file of 4096 + 100 bytes, B = 4096")
    entries = []
    for i, length in ((0, 4096), (1, 100)):
        counter = 1000 + i
        plain = bytes((i + j * 7 + j // 256) & 255 for j in range(length))
        cipher, tag = gcm(get("content_key"), nonce_of(1, counter), le(i, 8), plain)
        put("block%d_nonce" % i, nonce_of(1, counter))
        put("block%d_plain" % i, plain)
        put("block%d_cipher" % i, cipher)
        put("block%d_tag" % i, tag)
        entries.append(put("block%d_entry" % i, get("salt") + le(counter, 6) + le(1, 2) + tag))

    note("Map pages (section 5.2): group 0 of that file; group 5 of another one of the same id, all holes but block 481")
    mount_id = put("mount_id", run(0x30, 16))
    trailer = le(0, 8) + le(0, 4) + mount_id + le(0, 8) + le(4196, 4) + le(4196, 8) + le(1, 8)
    put("map0_page", map_page(0, 1002, entries, trailer))
    put("map0_tag", get("map0_page")[48:64])
    entry = get("salt") + le(1003, 6) + le(1, 2) + run(0x11, 16)
    trailer = le(5, 8) + le(0, 4) + mount_id + le(77, 8) + le(393216, 4)
    put("map5_page", map_page(5, 1004, [bytes(40), entry], trailer))
    put("map5_tag", get("map5_page")[48:64])


def journal():
    note("Journal (section 7): superblock of an empty journal of 64 MiB; a record that carries map page 0 and block 1")
    handle = put("journal_handle", run(0x40, 8))
    head = b"CMEKJNL\n" + le(1, 4) + le(1, 4) + get("salt") + le(2000, 8)
    body = get("mount_id") + le(3, 8) + le(64 << 20, 8) + le(8192, 8) + le(1, 8) + le(2, 4) + le(1, 4)
    body += le(1, 4) + le(len(handle), 4) + handle.ljust(128, b"\0")
    cipher, tag = gcm(get("journal_key"), nonce_of(3, 2000), head + get("uuid"), body.ljust(4040, b"\0"))
    put("journal_superblock", head + tag + cipher)

    path = b64url(b"any stored path")
    file_item = le(1, 4) + le(len(handle), 4) + handle + le(len(path), 4) + path.encode("ascii") + get("file_id")
    file_item += le(0, 4) + le(4196, 8) + le(1700000000, 8) + le(123456789, 4)
    items = [(1, file_item), (2, le(0, 8) + le(0, 4)), (3, le(1, 8) + le(100, 4) + le(1, 4))]
    meta = put("journal_meta", b"".join(le(t, 2) + le(0, 2) + le(len(b), 4) + b for t, b in items))
    images = get("map0_page") + get("block1_cipher").ljust(4096, b"\0")
    head = b"CMEKREC\n" + le(1, 4) + le(len(meta), 4) + get("salt") + le(2001, 8) + le(1, 8)
    head += le(4096 + len(images), 8) + get("mount_id")
    cipher, tag = gcm(get("journal_key"), nonce_of(3, 2001), head[:72] + get("uuid") + images, meta)
    put("journal_record", (head + tag + bytes(40) + cipher).ljust(4096, b"\0") + images)


def header():
    note("Volume header (section 2): sequence 7, area of 4096 bytes")
    table = [{"id": 1, "state": "active", "domain": 0, "created": "2026-01-02T03:04:05Z",
              "wrapped": base64.b64encode(get("dek_wrapped")).decode("ascii")},
             {"id": 2, "state": "destroyed", "domain": 0, "created": "2026-01-02T03:04:06Z"}]
    slot = {"id": 0, "purpose": "data", "provider": "local", "key": "local:test", "resolved": "local:test",
            "version": "1", "region": "", "principal": {}, "wrapped": base64.b64encode(run(0, 48)).decode("ascii"),
            "created": "2026-01-02T03:04:05Z", "rewrapped": "2026-01-02T03:04:05Z", "x-unknown": [1, {"deep": None}]}
    area = {"format": 1, "features": {"compat": ["x-some"], "ro_compat": [], "incompat": []},
            "uuid": "6b0c1f5e-2d3a-4b58-9697-88796a5b4c3d", "label": "vectors", "block_size": 4096,
            "symlink_max": 4095, "created": "2026-01-02T03:04:05Z", "slots": [slot],
            "deks": {"next": 3, "active": 1, "table": table}, "x-later": {"kept": True}}
    body = json.dumps(area).encode("ascii")
    head = b"CMEKFS\r\n" + le(1, 4) + le(4096, 4) + le(7, 8) + get("uuid") + le(4096, 8) + le(len(body), 8)
    whole = head.ljust(4096, b"\0") + body.ljust(4096, b"\0")
    mac = hmac_module.new(get("header_mac_key"), whole, "sha256").digest()
    put("header", whole[:56] + sha256(whole) + mac + whole[120:])


def as_lines():
    lines = ["# Test vectors of the cmekfs volume format, version 1. Made by format-v1.py; see doc/format.md section 8.",
             "# name = hex. Integers are little-endian, texts are their ASCII bytes."]
    for name, value in VECTORS:
        lines += ["", "# " + value] if name is None else ["%s = %s" % (name, value.hex())]
    return "\n".join(lines) + "\n"


def as_markdown():
    lines = ["| name | value |", "|---|---|"]
    for name, value in VECTORS:
        if name is None:
            continue
        if len(value) > 70:
            shown = "%d bytes, SHA-256 `%s`" % (len(value), sha256(value).hex())
        elif name in TEXTS:
            shown = "`\"%s\"`" % value.decode("ascii")
        else:
            shown = "`%s`" % value.hex()
        lines.append("| `%s` | %s |" % (name, shown))
    return "\n".join(lines) + "\n"


def main():
    keys()
    names()
    content()
    journal()
    header()
    if sys.argv[1:] == ["--markdown"]:
        sys.stdout.write(as_markdown())
    elif sys.argv[1:] == ["--check"]:
        with open(os.path.join(HERE, "format-v1.txt"), encoding="ascii") as f:
            if f.read() != as_lines():
                sys.exit("format-v1.txt differs from what format-v1.py makes")
    elif not sys.argv[1:]:
        sys.stdout.write(as_lines())
    else:
        sys.exit(__doc__)


main()
