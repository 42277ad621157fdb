# SPDX-License-Identifier: GPL-3.0-or-later
"""
PostgreSQL with checksums on, under pgbench, and beside it two clients whose transactions are acknowledged. After a cut
the server must start, hold each acknowledged transaction as a whole, and its tables, indexes and checksums be sound.
"""

import os
import pathlib
import pwd
import signal
import subprocess
import tempfile
import time

from load import Writers
from stack import MissingProgram

USER = "postgres"
DATABASE = "postgres"
START_SECONDS = 60
STOP_SECONDS = 60
CONFIG = """
listen_addresses = ''
max_connections = 20
shared_buffers = 4MB
wal_level = replica
max_wal_senders = 0
max_wal_size = 8MB
min_wal_size = 4MB
checkpoint_timeout = 30s
autovacuum_naptime = 2s
log_min_messages = warning
"""
SCHEMA = """
CREATE EXTENSION amcheck;
CREATE TABLE acked(client int, id int, body text, PRIMARY KEY (client, id));
CREATE TABLE counter(client int PRIMARY KEY, last int);
INSERT INTO counter SELECT client, 0 FROM generate_series(0, 9) client;
"""


def binaries():
    """The directory of the server's programs, which Debian keeps off PATH; the newest."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise MissingProgram("postgres: not under /usr/lib/postgresql")
    return str(found[-1].parent)


class Server:
    """A server on a data directory, as a context; sockets and log lie elsewhere."""

    def __init__(self, data):
        self.data = data
        self.bin = binaries()
        self.process = None
        self.run_dir = None

    def program(self, name, *args, **kwargs):
        """Runs one of its programs to the end, as its user; the result says whether that went well."""
        return subprocess.run([os.path.join(self.bin, name), *args], user=USER, group=USER, extra_groups=[], cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, **kwargs)

    def __enter__(self):
        self.run_dir = tempfile.TemporaryDirectory(prefix="powercut-pg-")
        os.chown(self.run_dir.name, pwd.getpwnam(USER).pw_uid, -1)
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self):
        with open(os.path.join(self.run_dir.name, "log"), "wb") as log:
            self.process = subprocess.Popen([os.path.join(self.bin, "postgres"), "-D", self.data, "-k",
                                             self.run_dir.name], user=USER, group=USER, extra_groups=[], cwd="/",
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while self.program("pg_isready", "-q", "-h", self.run_dir.name).returncode:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self.log())
            time.sleep(0.02)

    def __exit__(self, kind, value, trace):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()
        self.run_dir.cleanup()

    def log(self):
        text = pathlib.Path(self.run_dir.name, "log").read_text(errors="replace")
        lines = [line for line in text.splitlines() if "FATAL" in line or "PANIC" in line or "ERROR" in line]
        return (lines or text.splitlines() or ["it did not answer"])[-1]

    def psql(self, sql):
        done = self.program("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", self.run_dir.name, "-d",
                            DATABASE, "-c", sql)
        if done.returncode:
            raise RuntimeError(done.stdout.strip())
        return [line.split("|") for line in done.stdout.splitlines()]


class Session:
    """A psql that stays, to which transactions are given; run() returns when the server has acknowledged."""

    def __init__(self, server):
        self.process = subprocess.Popen([os.path.join(server.bin, "psql"), "-X", "-q", "-t", "-A", "-v",
                                         "ON_ERROR_STOP=1", "-h", server.run_dir.name, "-d", DATABASE], user=USER,
                                        group=USER, extra_groups=[], cwd="/", stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, sql, number):
        self.process.stdin.write(f"BEGIN; {sql} COMMIT;\n\\echo done {number}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if answer != f"done {number}":
            raise RuntimeError(f"psql: {answer}")

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Postgres(Writers):
    name = "postgres"
    checks_read_only = False
    writers = 2

    def __init__(self, settings):
        super().__init__(settings)
        self.acks = {}
        self._server = None

    @staticmethod
    def _data(top):
        return os.path.join(top, "data")

    def setup(self, top):
        os.mkdir(self._data(top), 0o700)
        os.chown(self._data(top), pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid)
        server = Server(self._data(top))
        done = server.program("initdb", "--data-checksums", "--wal-segsize=1", "--no-locale", "-E", "UTF8", "-A",
                              "trust", "-D", self._data(top))
        if done.returncode:
            raise RuntimeError(done.stdout)
        with open(os.path.join(self._data(top), "postgresql.conf"), "a", encoding="ascii") as f:
            f.write(CONFIG)
        with server:
            server.psql(SCHEMA)
            done = server.program("pgbench", "-q", "-i", "-s", "1", "-h", server.run_dir.name, DATABASE)
            if done.returncode:
                raise RuntimeError(f"pgbench -i: {done.stdout}; the server says: {server.log()}")

    def run(self, top, mark):
        with Server(self._data(top)) as self._server:
            bench = subprocess.Popen([os.path.join(self._server.bin, "pgbench"), "-n", "-c", "2", "-T",
                                      str(int(self.settings.seconds)), "--random-seed", str(self.settings.seed), "-h",
                                      self._server.run_dir.name, DATABASE], user=USER, group=USER, extra_groups=[],
                                     cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            try:
                super().run(top, mark)
            finally:
                if bench.wait():
                    raise RuntimeError("pgbench failed")

    def writer(self, top, number, resources):
        rng = self.rng("steps", number)
        session = Session(self._server)
        resources.callback(session.close)

        def take_step(step):
            body = "x" * rng.choice((1, 10, 100, 1000))
            session.run(f"INSERT INTO acked VALUES({number}, {step}, '{body}'); "
                        f"UPDATE counter SET last = {step} WHERE client = {number};", step)

        return take_step

    def advance(self, acks):
        self.acks = dict(acks)

    def _forget_process(self, top):
        """The lock file of a server that was cut off names a process, and by now that may be someone else's."""
        lock = pathlib.Path(self._data(top), "postmaster.pid")
        try:
            if os.path.exists(f"/proc/{int(lock.read_text(encoding='ascii').split()[0])}"):
                lock.unlink()
        except (OSError, ValueError, IndexError):
            pass  # absent or unreadable: the server will say what it thinks of that

    def check(self, top, report):
        server = Server(self._data(top))
        self._forget_process(top)
        try:
            with server:
                self._check_rows(server, report)
                done = server.program("pg_amcheck", "--heapallindexed", "-h", server.run_dir.name, "-d", DATABASE)
                if done.returncode:
                    report.add("torn", f"pg_amcheck: {done.stdout.strip()[:300]}")
        except RuntimeError as e:
            report.add("not_started", str(e)[:300])
            return
        done = server.program("pg_checksums", "--check", "-D", self._data(top))
        if done.returncode:
            report.add("torn", f"pg_checksums: {done.stdout.strip()[:300]}")

    def _check_rows(self, server, report):
        for writer in range(self.writers):
            acked = self.acks.get(writer, 0)
            sql = (f"SELECT (SELECT last FROM counter WHERE client = {writer}), count(*), coalesce(max(id), 0) "
                   f"FROM acked WHERE client = {writer}")
            last, count, highest = (int(field) for field in server.psql(sql)[0])
            if not last == count == highest:
                report.add("torn", f"client {writer}: counter {last}, {count} rows, highest {highest}")
            if not acked <= highest <= acked + 1:
                report.add("lost", f"client {writer}: {highest} transactions, acknowledged {acked}")
