#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A writer, a reader and a checker of one SQLite database.

sqlite_load.py write DB MODE ACK | read DB | check DB ACK
"""
import os
import random
import sqlite3
import sys
import time


def write(path, mode, ack_path):
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    if db.execute(f"pragma journal_mode={mode}").fetchone()[0] != mode:
        sys.exit(f"no journal mode {mode} here")
    db.execute("pragma synchronous=full")
    db.execute("create table if not exists t (id integer primary key, size integer, data blob)")
    db.execute("create index if not exists i on t (size, id)")
    rng = random.Random()
    n = db.execute("select coalesce(max(id), 0) from t").fetchone()[0]
    with open(ack_path, "a", encoding="ascii", buffering=1) as ack:
        while True:
            n += 1
            size = rng.choice((10, 100, 4000, 20_000))
            db.execute("begin immediate")
            db.execute("insert into t values (?, ?, ?)", (n, size, bytes([n % 256]) * size))
            db.execute("update t set data = data where id = ?", (rng.randint(1, n),))
            db.execute("commit")
            ack.write(f"{n}\n")


def read(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    db = sqlite3.connect(path, timeout=30)
    while True:
        try:
            for ident, size, data in db.execute("select id, size, data from t order by id desc limit 50"):
                if data != bytes([ident % 256]) * size:
                    sys.exit(f"row {ident} is wrong")
        except sqlite3.OperationalError as e:  # the table is not made yet
            if "no such table" not in str(e) and "locked" not in str(e):
                raise


def check(path, ack_path):
    db = sqlite3.connect(path, timeout=30)
    result = db.execute("pragma integrity_check").fetchall()
    if result != [("ok",)]:
        sys.exit(f"integrity_check: {result[:5]}")
    rows = {ident for (ident,) in db.execute("select id from t where data is not null and length(data) = size")}
    with open(ack_path, encoding="ascii") as f:
        acknowledged = {int(line) for line in f}
    if not acknowledged:
        sys.exit("the writer has not committed anything")
    if not acknowledged <= rows:
        sys.exit(f"acknowledged and lost: {sorted(acknowledged - rows)[:10]}")


{"write": write, "read": read, "check": check}[sys.argv[1]](*sys.argv[2:])
