# SPDX-License-Identifier: GPL-3.0-or-later
"""
SQLite databases, one for each journal mode, with synchronous=EXTRA. A transaction inserts, changes and deletes rows;
after a cut the database holds exactly what it held after the last acknowledged transaction, or after the next one.
"""

import os
import sqlite3

from load import Writers, noise

MODES = ("DELETE", "TRUNCATE", "PERSIST", "WAL")
MAX_ROWS = 400


class Step:
    """One transaction: rows to insert or replace {id: length of its text} and ids to delete."""

    def __init__(self, rng, ids):
        self.put = {}
        self.delete = []
        for _ in range(rng.randint(1, 4)):
            new = not ids or (rng.random() < 0.6 and len(ids) < MAX_ROWS)
            row = rng.randrange(1 << 40) if new else rng.choice(ids)
            if row not in self.put:
                self.put[row] = rng.choice((rng.randint(1, 100), rng.randint(1, 3000), rng.randint(1, 30000)))
            if new:
                ids.append(row)
        if len(ids) > 20 and rng.random() < 0.4:
            row = ids.pop(rng.randrange(len(ids)))
            self.put.pop(row, None)
            self.delete.append(row)


class Sqlite(Writers):
    name = "sqlite"
    checks_read_only = False
    writers = len(MODES)

    def __init__(self, settings):
        super().__init__(settings)
        self.rows = [{} for _ in MODES]  # id: (step, length)
        self.steps = [self._steps(writer) for writer in range(self.writers)]
        self.reached = [0] * self.writers
        self.next_step = [next(steps) for steps in self.steps]

    def _steps(self, writer):
        rng = self.rng("steps", writer)
        ids = []
        while True:
            yield Step(rng, ids)

    @staticmethod
    def _open(top, writer):
        db = sqlite3.connect(os.path.join(top, f"{MODES[writer].lower()}.db"), isolation_level=None,
                             check_same_thread=False)
        db.execute(f"PRAGMA journal_mode={MODES[writer]}").fetchall()
        db.execute("PRAGMA synchronous=EXTRA")
        db.execute("PRAGMA wal_autocheckpoint=100")
        db.execute("PRAGMA cache_size=20")  # pages spill in the middle of a transaction
        return db

    def setup(self, top):
        for writer in range(self.writers):
            db = self._open(top, writer)
            db.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, body BLOB NOT NULL)")
            db.execute("CREATE INDEX rows_step ON rows(step)")
            db.close()

    def _body(self, writer, row, step, length):
        return noise(length, self.settings.seed, writer, row, step)

    def writer(self, top, number, resources):
        steps = self._steps(number)
        db = self._open(top, number)
        resources.callback(db.close)

        def take_step(step_number):
            step = next(steps)
            db.execute("BEGIN IMMEDIATE")
            for row, length in step.put.items():
                db.execute("INSERT OR REPLACE INTO rows VALUES(?, ?, ?)",
                           (row, step_number, self._body(number, row, step_number, length)))
            for row in step.delete:
                db.execute("DELETE FROM rows WHERE id = ?", (row,))
            db.execute("COMMIT")

        return take_step

    def _apply(self, writer, rows):
        step = self.next_step[writer]
        for row, length in step.put.items():
            rows[row] = (self.reached[writer] + 1, length)
        for row in step.delete:
            rows.pop(row, None)

    def advance(self, acks):
        for writer in range(self.writers):
            while self.reached[writer] < acks.get(writer, 0):
                self._apply(writer, self.rows[writer])
                self.reached[writer] += 1
                self.next_step[writer] = next(self.steps[writer])

    def check(self, top, report):
        for writer, mode in enumerate(MODES):
            try:
                self._check_database(top, writer, report)
            except sqlite3.Error as e:
                report.add("not_started", f"{mode}: {e}")

    def _check_database(self, top, writer, report):
        mode = MODES[writer]
        if not os.path.exists(os.path.join(top, f"{mode.lower()}.db")):
            report.add("lost", f"{mode}: no database")
            return
        db = self._open(top, writer)
        found = db.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            report.add("torn", f"{mode}: integrity_check: {found[0][0]}")
        rows = {row: (step, body) for row, step, body in db.execute("SELECT id, step, body FROM rows")}
        db.close()
        before = self.rows[writer]
        after = dict(before)
        self._apply(writer, after)
        steps = {row: step for row, (step, _) in rows.items()}
        if steps not in ({row: step for row, (step, _) in state.items()} for state in (before, after)):
            last = max(steps.values(), default=0)
            report.add("lost", f"{mode}: rows of {last} steps, acknowledged {self.reached[writer]}")
            return
        for row, (step, body) in rows.items():
            if body != self._body(writer, row, step, len(body)):
                report.add("torn", f"{mode}: row {row} of step {step}")
                return
