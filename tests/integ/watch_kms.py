#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
What the key watch makes of what happens to keys: watch_kms.py DIR MEMORY CMEKFS MKFS CMEKCTL, by watch_kms.sh.

A table says which change of which service is tried under which policy. A case makes its change and looks what users see: how long
after the change they were refused is bounded below by what is configured, and told. (Above it is bounded by patience only: a
machine may be slow.) Then the change is taken back, and the volume has to go on by itself, with files that stayed open.
"""
import errno
import os
import queue
import sys
import threading
import time
import urllib.parse

from kms_volumes import IMPATIENT_S, PATIENT_S, STATES, Aws, Gcp, Ibm, Local, Site, Trouble, Volume, wait_until

LONG = os.environ.get("CMEK_LONG") == "1"
INTERVAL_S = RETRY_S = 0.2  # as SETTINGS of volumes
GRACE_S = 1.0
JITTER = 0.9
TRIAL_EVERY = 10    # of watcher.c: how rarely a key that is described as good is tried


# ---- cases ----

# change: (the state that it is, how much later than any other it may be noticed)
CHANGES = {
    "disable": ("disabled", 0),
    "schedule": ("pending-deletion", 0),
    "destroy": ("destroyed", 0),
    "deny": ("denied", 0),
    "deny_unwrap": ("denied", TRIAL_EVERY * INTERVAL_S),
    "expire": ("expired", 0),
    "throttle": ("throttled", 0),
    "fail": ("unreachable", 0),
    "garble": ("unreachable", 0),
    "refuse": ("unreachable", 0),
    "hole": ("unreachable", 3 * IMPATIENT_S),
    "slow": ("unreachable", 3 * IMPATIENT_S),
    "away": ("denied", 0),  # of a local key store: nothing says that it will be back
}
# These leave a key as good as before.
HARMLESS = ("deny_describe", "delay", "rotate")
IMPATIENT = ("hole", "slow")
FINAL = ("destroy",)


def say(volume, text):
    print(f"{volume.name:8} {text}", flush=True)


def stays(volume, state, seconds):
    """Served for so long, and the state is told."""
    wait_until(f"{volume.name} is {state}: {volume.watch()}", lambda: volume.watch()["state"] == state)
    time.sleep(seconds)
    if volume.sees() != 0:
        raise Trouble(f"{volume.name}: locked while {state}, against its policy")
    volume.write()


def refused(volume, change, policy, begin, see):
    """Waits for what users are to see; the time that it took must be what is configured, at least."""
    state, late = CHANGES[change]
    # Two answers may come at once, as the policy has just been set; destroyed needs no second one.
    least = GRACE_S
    most = GRACE_S + INTERVAL_S * 1.1 + (0 if state == "destroyed" else RETRY_S * 1.1) + late
    wait_until(f"{volume.name}: {policy} after {change}", see)
    took = time.monotonic() - begin
    say(volume, f"{change:12} {policy:10} after {took:.2f} s (configured: {least:.2f} to {most:.2f} s, and what asking takes)")
    if took < least - 0.01:
        raise Trouble(f"{volume.name}: {policy} {took:.2f} s after {change}, before the {least:.2f} s that are configured")


def back(volume, change):
    begin = time.monotonic()
    getattr(volume.kms, "un" + change)(volume)
    wait_until(f"{volume.name} is back after {change}", lambda: volume.sees() == 0)
    say(volume, f"{change:12} back       after {time.monotonic() - begin:.2f} s")


def set_and_see(volume, state, policy, want):
    """An operator changes what has become of it."""
    volume.set_policy(**{"on_" + state.replace("-", "_"): policy})
    wait_until(f"{volume.name} is as {policy} wants it", lambda: volume.errno_of(os.pwrite, volume.file, b"0", 0) == want)


def try_policy(volume, change, policy):
    state, _ = CHANGES[change]
    volume.set_policy(**{"on_" + state.replace("-", "_"): policy})
    volume.write()
    begin = time.monotonic()
    getattr(volume.kms, change)(volume)
    if policy == "ignore":
        stays(volume, state, GRACE_S + 2 * RETRY_S)
    elif policy == "read-only":
        refused(volume, change, policy, begin, lambda: volume.errno_of(os.mkdir, volume.mnt + "/dir") == errno.EROFS or
                volume.errno_of(os.rmdir, volume.mnt + "/dir") == errno.EROFS)
        volume.check()
        if volume.errno_of(os.pwrite, volume.file, b"x", 0) != errno.EROFS:
            raise Trouble(f"{volume.name}: it can be written while it is read-only")
        set_and_see(volume, state, "ignore", 0)
        set_and_see(volume, state, "read-only", errno.EROFS)
    elif policy == "lock":
        refused(volume, change, policy, begin, lambda: volume.sees() == errno.EKEYREVOKED)
    else:
        refused(volume, change, policy, begin, lambda: not volume.is_mounted())
    if policy in ("lock", "unmount"):
        if volume.errno_of(os.pread, volume.file, 1, 0) != errno.EKEYREVOKED:
            raise Trouble(f"{volume.name}: an open file is served while {state}")
    if policy == "lock":
        wait_until(f"{volume.name} is locked", lambda: volume.ask("status")["state"] == "locked")
        if volume.watch()["state"] != state:
            raise Trouble(f"{volume.name}: locked as {volume.watch()}, not as {state}")
    if policy == "unmount":
        if volume.process.poll() is not None:
            raise Trouble(f"{volume.name}: it ended under an open file")
        volume.errno_of(os.close, volume.file)  # what a locked volume answers is no matter
        volume.ended()
    if change in FINAL:
        return
    if policy == "unmount":
        getattr(volume.kms, "un" + change)(volume)
        volume.mount()
    elif policy == "read-only":
        back(volume, change)
        wait_until(f"{volume.name} can be written", lambda: volume.errno_of(os.pwrite, volume.file, b"0", 0) == 0)
    else:
        back(volume, change)
    wait_until(f"{volume.name} is healthy", lambda: volume.watch()["state"] == "healthy")
    volume.check()
    volume.write()


def try_harmless(volume, change):
    # Answers that are late, as may be on any machine, count for nothing.
    volume.set_policy(grace="0s", **{f"on_{s.replace('-', '_')}": "lock" for s in STATES if s != "unreachable"})
    getattr(volume.kms, change)(volume)
    if volume.kms.name != "local":
        # From now on nobody but the mount asks.
        volume.site.emulator.order("asked?key=" + urllib.parse.quote(volume.key_id), method="DELETE")
    if change == "rotate":
        def is_seen():
            with open(volume.env["CMEKFS_AUDIT_LOG"]) as f:
                text = f.read()
            return "key.new-version" in text or "slot.rewrap" in text
        wait_until(f"{volume.name}: the new version is seen", is_seen)

    def asked():
        return volume.site.emulator.order("asked", method="GET").get(volume.key_id, {"asked": 0, "most": 0})
    if volume.kms.name != "local":
        enough = asked()["asked"] + 8
        wait_until(f"{volume.name} is asked about", lambda: asked()["asked"] >= enough)
        if asked()["most"] != 1:
            raise Trouble(f"{volume.name}: {asked()['most']} questions at once")
    stays(volume, "healthy", 2 * RETRY_S)
    if change != "rotate":
        getattr(volume.kms, "un" + change)(volume)
    volume.check()
    say(volume, f"{change:12} no reason to lock")


def try_backoff(volume, _):
    """A service that asks to slow down is asked more rarely each time."""
    volume.set_policy(on_throttled="ignore")
    volume.kms.throttle(volume)

    def asked():
        return volume.site.emulator.order("asked", method="GET")[volume.key_id]["asked"]
    wait_until(f"{volume.name} is throttled", lambda: volume.watch()["state"] == "throttled")
    before, begin = asked(), time.monotonic()
    time.sleep(4)
    times, seconds = asked() - before, time.monotonic() - begin
    # Answers n seconds apart are doubled at least from the second one on, which there was.
    most, wait, length = 1, 2 * JITTER * RETRY_S, 0
    while length <= seconds:
        most, wait, length = most + 1, wait * 2, length + wait
    say(volume, f"throttled    asked {times} times in {seconds:.2f} s (at most {most})")
    if times > most:
        raise Trouble(f"{volume.name}: asked {times} times in {seconds:.2f} s while throttled, at most {most} are right")
    volume.kms.unthrottle(volume)
    volume.set_policy()
    wait_until(f"{volume.name} is healthy", lambda: volume.watch()["state"] == "healthy")


def try_silence(volume, change):
    """What was told of a key counts on while nothing more is heard of it."""
    volume.set_policy(on_disabled="lock")
    begin = time.monotonic()
    volume.kms.disable(volume)
    wait_until(f"{volume.name} is disabled", lambda: volume.watch()["state"] == "disabled")
    getattr(volume.kms, change)(volume)
    refused(volume, "disable", "lock", begin, lambda: volume.sees() == errno.EKEYREVOKED)
    wait_until(f"{volume.name} is unreachable", lambda: volume.watch()["state"] == "unreachable")
    getattr(volume.kms, "un" + change)(volume)
    wait_until(f"{volume.name} is disabled", lambda: volume.watch()["state"] == "disabled")
    back(volume, "disable")
    volume.check()


def try_two_slots(volume, _):
    """One key of two that goes is shown, and is no reason to lock."""
    ctl = [volume.site.ctl, "key"]
    volume.set_policy(grace="0s", on_denied="lock", on_disabled="lock")
    volume.kms.deny(volume)
    wait_until(f"{volume.name}: a slot is denied", lambda: volume.slot_states() == ["denied", "healthy"])
    stays(volume, "healthy", 3 * RETRY_S)
    told = volume.site.run([volume.site.ctl, "status", volume.mnt], volume.env)
    if "healthy, degraded (1 of 2 slots would not open it)" not in told:
        raise Trouble(f"{volume.name}: not told that it is degraded: {told}")
    volume.site.run([*ctl, "disable", "local:beside"], volume.admin)
    wait_until(f"{volume.name} is locked", lambda: volume.sees() == errno.EKEYREVOKED)
    back(volume, "deny")
    wait_until(f"{volume.name}: a slot is disabled", lambda: volume.slot_states() == ["healthy", "disabled"])
    stays(volume, "healthy", 0)
    volume.site.run([*ctl, "enable", "local:beside"], volume.admin)
    wait_until(f"{volume.name}: all is well", lambda: volume.slot_states() == ["healthy", "healthy"])
    volume.check()
    say(volume, "two slots    one is enough")


def run_case(volume, change, policy):
    if policy == "silence":
        try_silence(volume, change)
    elif policy == "two slots":
        try_two_slots(volume, change)
    elif policy == "harmless":
        try_harmless(volume, change)
    elif policy == "backoff":
        try_backoff(volume, change)
    else:
        try_policy(volume, change, policy)


POLICIES = ("ignore", "read-only", "lock", "unmount")
OUTAGES = [("throttle", "backoff"), ("fail", "lock"), ("garble", "ignore"),
           ("delay", "harmless"), ("refuse", "silence")]
TWO = ("deny", "two slots")
# What differs between the clouds, and once what does not.
OF_EACH_CLOUD = [("deny_unwrap", "lock"), ("disable", "lock"), ("schedule", "lock"), ("deny", "lock"), ("expire", "lock"),
                 ("throttle", "lock"), ("refuse", "lock"), TWO, ("deny_describe", "harmless"), ("rotate", "harmless")]
# kind, how long a question may take, volumes at a time, cases
SHORT = [
    ("local", PATIENT_S, 2, [("disable", policy) for policy in POLICIES] +
     [("schedule", "lock"), ("away", "lock"), ("rotate", "harmless"), ("destroy", "lock")]),
    ("aws", PATIENT_S, 2, OF_EACH_CLOUD + OUTAGES + [("destroy", "unmount")]),
    ("aws", IMPATIENT_S, 1, [("hole", "read-only"), ("slow", "ignore"), ("hole", "lock")]),
    ("gcp", PATIENT_S, 2, OF_EACH_CLOUD + [("expire", "read-only"), ("destroy", "lock")]),
    ("ibm", PATIENT_S, 2, OF_EACH_CLOUD + [("deny", "unmount"), ("destroy", "lock")]),
]


def whole_matrix():
    matrix = []
    for kind, cls in (("local", Local), ("aws", Aws), ("gcp", Gcp), ("ibm", Ibm)):
        cases = [(change, policy) for change in CHANGES for policy in POLICIES if hasattr(cls, change)]
        cases += [(change, "harmless") for change in HARMLESS if hasattr(cls, change) and
                  (kind != "local" or change == "rotate")]
        if kind != "local":
            cases = [case for case in cases if case[0] != "away"] + [("throttle", "backoff"), ("refuse", "silence"), TWO]
        else:
            cases = [case for case in cases if case[0] in ("disable", "schedule", "destroy", "away", "rotate")]
        cases.sort(key=lambda case: case[0] in FINAL)
        matrix.append((kind, PATIENT_S, 2, [case for case in cases if case[0] not in IMPATIENT]))
        matrix.append((kind, IMPATIENT_S, 1, [case for case in cases if case[0] in IMPATIENT]))
    return matrix


class Worker(threading.Thread):
    """Takes cases of a kind, for a volume of its own."""

    def __init__(self, site, kind, deadline_s, cases):
        super().__init__()
        self.site, self.kind, self.deadline_s, self.cases = site, kind, deadline_s, cases
        self.done = 0
        self.failed = None

    def run(self):
        volume = case = None
        try:
            while True:
                try:
                    case = self.cases.get_nowait()
                except queue.Empty:
                    break
                if volume and case == TWO:
                    volume.unmount()
                    volume = None
                if volume is None:
                    volume = Volume(self.site, self.kind, self.deadline_s, "local:beside" if case == TWO else None)
                    volume.mount()
                run_case(volume, *case)
                self.done += 1
                if case[0] in FINAL or case == TWO:
                    if volume.process:
                        volume.unmount()
                    volume = None
            if volume:
                volume.unmount()
        except Exception as error:  # pylint: disable=broad-except
            self.failed = f"{case}: {error!r}"
            if volume and volume.process:
                self.failed += "\n    " + volume.trouble()
            print(self.failed, file=sys.stderr, flush=True)


# ---- many changes ----

SOAK = 10000 if LONG else 120
SOAK_CHANGES = {"local": ("disable", "away"), "aws": ("deny", "disable", "throttle", "refuse"),
                "gcp": ("deny", "throttle", "refuse"), "ibm": ("deny", "disable", "throttle", "refuse")}
FILES = 6
# What a process may have more of in the end than after the first changes: connections, threads that serve requests (ten at most)
# with their buffers, and what the allocator keeps. Few changes do not show a leak of memory, nor may a sanitizer's own be one.
MORE = {"descriptors": 4, "threads": 10, "KiB": 2048 if LONG else 1 << 20}
OF_THREAD_KIB = 2560


class Soak(threading.Thread):
    """Changes the state of a volume's key again and again, under files that stay open; what the processes have must not grow."""

    def __init__(self, site, kind, changes):
        super().__init__()
        self.volume = Volume(site, kind)
        self.changes = changes
        self.failed = None

    def become(self, state):
        """The watch asks when its policy is set, and so need not be waited for."""
        def is_so():
            self.volume.ask("watch", settings={"grace": "0s"})
            return self.volume.watch()["state"] == state
        wait_until(f"{self.volume.name} is {state}", is_so)

    def processes(self):
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", "rb") as f:
                    parents.setdefault(int(f.read().rsplit(b")", 1)[1].split()[1]), []).append(int(pid))
            except OSError:
                pass  # it has ended
        found = [self.volume.process.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found

    def measure(self):
        """For each process what it has, and the names in the directory of sockets."""
        have = []
        for pid in self.processes():
            with open(f"/proc/{pid}/status") as f:
                status = dict(line.split(":", 1) for line in f)
            have.append({"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(status["Threads"]),
                         "KiB": int(status["VmRSS"].split()[0])})
        return have, sorted(os.listdir(self.volume.env["CMEKFS_RUNTIME_DIR"]))

    @staticmethod
    def grown(before, after):
        if len(after[0]) != len(before[0]) or before[1] != after[1]:
            return True
        for then, now in zip(before[0], after[0]):
            buffers = {"KiB": OF_THREAD_KIB * max(0, now["threads"] - then["threads"])}
            if any(now[what] > then[what] + more + buffers.get(what, 0) for what, more in MORE.items()):
                return True
        return False

    def cycle(self, n, files):
        """Two changes: away and back."""
        volume = self.volume
        changes = SOAK_CHANGES[volume.kms.name]
        change = changes[n % len(changes)]
        os.pwrite(files[n % FILES], b"%08d" % n, 0)
        getattr(volume.kms, change)(volume)
        self.become(CHANGES[change][0])
        locks = change not in ("throttle", "refuse")
        if locks:
            wait_until(f"{volume.name} is locked", lambda: volume.sees() == errno.EKEYREVOKED)
        getattr(volume.kms, "un" + change)(volume)
        self.become("healthy")
        wait_until(f"{volume.name} is unlocked", lambda: volume.sees() == 0)
        if os.pread(files[n % FILES], 8, 0) != b"%08d" % n:
            raise Trouble(f"{volume.name}: a file is not as it was written")
        name = f"{volume.mnt}/name"
        os.close(os.open(name, os.O_RDWR | os.O_CREAT))
        os.unlink(name)

    def soak(self):
        volume = self.volume
        volume.mount()
        volume.set_policy(grace="0s", interval="1h", retry="1h", on_denied="lock", on_disabled="lock")
        files = [os.open(f"{volume.mnt}/{n}", os.O_RDWR | os.O_CREAT) for n in range(FILES)]
        os.unlink(f"{volume.mnt}/0")  # goes on all the same
        cycles = self.changes // 2
        begin, before = time.monotonic(), None
        for n in range(cycles):
            if n == max(cycles // 5, FILES):
                wait_until(f"{volume.name} consists of four processes", lambda: len(self.processes()) == 4)
                before = self.measure()
            self.cycle(n, files)
        after = before
        # A connection to the control socket may not have ended yet, nor a process that was let go.
        for _ in range(100):
            after = self.measure()
            if not self.grown(before, after):
                break
            time.sleep(0.1)
        say(volume, f"{2 * cycles} changes in {time.monotonic() - begin:.0f} s")
        for then, now in zip(before[0], after[0]):
            say(volume, "    " + ", ".join(f"{then[what]} -> {now[what]} {what}" for what in MORE))
        if self.grown(before, after):
            raise Trouble(f"{volume.name}: {before}, and then {after}")
        for fd in files:
            os.close(fd)
        volume.check()
        volume.unmount()
        if os.listdir(volume.env["CMEKFS_RUNTIME_DIR"]):
            raise Trouble(f"{volume.name}: it has left {os.listdir(volume.env['CMEKFS_RUNTIME_DIR'])}")

    def run(self):
        try:
            self.soak()
        except Exception as error:  # pylint: disable=broad-except
            self.failed = f"soak: {error!r}\n    {self.volume.trouble()}"
            print(self.failed, file=sys.stderr, flush=True)


def run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(thread.failed is not None for thread in threads)


def main():
    site = Site(*sys.argv[1:])
    workers = []
    for kind, deadline_s, n, cases in whole_matrix() if LONG else SHORT:
        todo = queue.Queue()
        for case in cases:
            todo.put(case)
        workers += [Worker(site, kind, deadline_s, todo) for _ in range(n)]
    failed = run_all(workers)
    print(f"{sum(worker.done for worker in workers)} cases, {failed} failed", flush=True)
    failed += run_all([Soak(site, kind, SOAK // len(SOAK_CHANGES)) for kind in SOAK_CHANGES])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
