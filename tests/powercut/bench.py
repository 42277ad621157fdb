# SPDX-License-Identifier: GPL-3.0-or-later
"""
One target on one file system under one workload: records it, makes the crash images (or kills the target), has each
checked, and counts. Which combinations there are and how results are shown is not known here.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import cuts
import load
import stack

CHECK_SECONDS = 300


def say(text):
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Result:
    """What became of the images of one combination."""

    def __init__(self, target, fs, workload, tear):
        self.row = {"target": target, "fs": fs, "workload": workload, "tear": tear}
        self.images = self.second_images = self.bad_images = self.repaired = 0
        self.counts = dict.fromkeys(load.KINDS, 0)
        self.failures = []

    def add(self, name, report, repaired):
        second = "." in name
        self.second_images += second
        self.images += not second
        self.repaired += repaired
        for kind, count in report.counts.items():
            self.counts[kind] += count
        if any(report.counts[kind] for kind in load.FAILURES):
            self.bad_images += 1
            self.failures.append({"image": name, "messages": report.messages})
            return True
        return False

    def as_dict(self):
        return {**self.row, "images": self.images, "second_images": self.second_images,
                "bad_images": self.bad_images, **self.counts, "store_repaired": self.repaired,
                "failures": self.failures}


def check_writable(top, report):
    """What recovered must be of use: a mount that fell back to read-only isn't."""
    path = os.path.join(top, "powercut-probe")
    try:
        with open(path, "w+b") as f:
            f.write(load.noise(10000, "probe"))
            f.flush()
            os.fsync(f.fileno())
            f.seek(0)
            if f.read() != load.noise(10000, "probe"):
                report.add("torn", "a file written after the recovery")
        os.unlink(path)
    except OSError as e:
        report.add("not_mounted", f"can't be written to: {e.strerror}")


def check_in_child(workload, tower, report, writable=True):
    """Runs the check in a process of its own: it may hang with the target, or be caught in its death."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_fd)
            workload.check(tower.top, report)
            if writable:
                check_writable(tower.top, report)
            with os.fdopen(write_fd, "w") as out:
                json.dump({"counts": report.counts, "messages": report.messages}, out)
            status = 0
        except BaseException:  # pylint: disable=broad-except
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_fd)
    end = time.monotonic() + CHECK_SECONDS
    hung = False
    with os.fdopen(read_fd) as answer:
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None and not hung:
            time.sleep(0.005)
            hung = time.monotonic() > end
        if hung:
            os.kill(child, 9)
            tower.kill_target()
        _, status = os.waitpid(child, 0)
        if hung:
            report.add("unreadable", f"the check did not end within {CHECK_SECONDS} s")
            return
        if status:
            raise RuntimeError("the checker failed")
        found = json.load(answer)
    report.counts, report.messages = found["counts"], found["messages"]
    death = tower.target_death()
    if death:
        report.add("died", death)


def start_load(workload, tower, marks):
    """Runs the workload in a process of its own and returns its pid; it fails when the target is killed."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(silent, fd)
        mark_fd = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        workload.run(tower.top, lambda text: os.write(mark_fd, text.encode()))
        status = 0
    finally:
        os._exit(status)


def end_load(child):
    """Ends a load whose target is dead: a database server may remove its shared memory, if it can."""
    members = stack.descendants(child)
    stack.send(members, signal.SIGQUIT)
    try:
        stack.wait_for_end(members, 5)
    except TimeoutError:
        stack.send(members, signal.SIGKILL)
    os.waitpid(child, 0)
    stack.wait_for_end(members)


class Bench:
    """One target on one file system under one workload: records and checks."""

    def __init__(self, options, target, fs, workload_class):
        self.options = options
        self.fs = fs
        self.workload_class = workload_class
        self.target = target
        self.features = []
        build = os.environ.get("CMEK_BUILD", "")
        self.mkimage = stack.program(os.path.join(build, "tests/powercut"), "mkimage")
        recorder = stack.program(os.path.join(build, "tests/powercut"), "recorder")
        self.scratch = os.path.realpath(tempfile.mkdtemp(prefix="powercut-", dir=options.scratch))
        self.disk = stack.Disk(self.scratch, recorder, fs, options.store_opts, target)
        self.results = {tear: Result(target.name, fs, workload_class.name, tear) for tear in options.tears}
        self.statistics = {"recordings": 0, "requests": 0, "flushes": 0, "written_mib": 0, "acks": 0}

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        shutil.rmtree(self.scratch, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.scratch, name)

    def workload(self, seed):
        return self.workload_class(load.Settings(seed, self.options.seconds, self.target, self.fs, self.features))

    def run_kills(self):
        """No power fails here: the target's processes are killed under the workload, and again in their recovery."""
        base = self.path("base")
        for image in self.options.only or range(self.options.images):
            workload = self.set_up(base, self.options.seed + image)
            self.kill_once(workload, image, base)
            os.unlink(base)

    def kill_once(self, workload, image, base):
        rng = random.Random(f"kill {self.options.seed} {image}")
        report = load.Report(self.target.strict)
        marks = self.path("marks")
        with stack.Stack(self.disk, base) as tower:
            child = start_load(workload, tower, marks)
            time.sleep(rng.uniform(0.02, self.options.seconds))
            tower.kill_target()
            end_load(child)
            for _ in range(rng.choice((0, 1, 2))):
                tower.mount_briefly(rng.uniform(0.0, 0.2))
            with open(marks, encoding="ascii") as f:
                acks = {int(words[1]): int(words[2]) for words in map(str.split, f)}
            workload.advance(acks)
            self.statistics["acks"] += sum(acks.values())
            try:
                tower.remount(self.options.check_opts or self.target.opts)
                check_in_child(workload, tower, report)
            except stack.TargetFailed as e:
                report.add("not_mounted", str(e))
        os.unlink(marks)
        if self.results["kill"].add(str(image), report, False) and not self.options.quiet:
            self.tell(str(image), "kill", report)

    def run(self):
        """All images, one recording for each so many of them."""
        images = [self.options.only[0]] if self.options.only else range(self.options.images)
        rounds = {}
        for image in images:
            rounds.setdefault(image // self.options.per_recording, []).append(image)
        for number, members in rounds.items():
            seed = self.options.seed + number
            if self.options.replay:
                recording = self.kept_recording(self.options.replay)
            else:
                recording = self.record(seed)
            self.count(recording)
            failed = [self.check_all(recording, seed, tear, members) for tear in self.options.tears]
            if any(failed) and self.options.keep:
                self.keep(recording, seed)
            if not self.options.replay:
                os.unlink(recording.base)
                os.unlink(recording.log)

    def set_up(self, base, seed):
        """A new image on which the workload can begin; returns that."""
        self.disk.create(base, self.workload_class.image_mib)
        with stack.Stack(self.disk, base) as tower:
            self.features = load.features(tower.top)
            workload = self.workload(seed)
            workload.setup(tower.top)
        return workload

    def record(self, seed):
        base, image, log = self.path("base"), self.path("recorded"), self.path("log")
        workload = self.set_up(base, seed)
        self.disk.compact(base)
        subprocess.run(["cp", "--sparse=always", base, image], check=True)
        with stack.Stack(self.disk, image, log) as tower:
            tower.mark("start\n")
            workload.run(tower.top, tower.mark)
        os.unlink(image)
        return cuts.Recording(base, log)

    def kept_recording(self, directory):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if os.path.isdir(path):
                shutil.copytree(path, self.path(name), dirs_exist_ok=True)
        with open(os.path.join(directory, "workload.json"), encoding="ascii") as f:
            self.features = json.load(f)["features"]
        return cuts.Recording(os.path.join(directory, "base"), os.path.join(directory, "log"))

    def keep(self, recording, seed):
        """The recording and what lies beside it (keys), so that --replay sees the very same images."""
        name = f"{self.target.name}-{self.fs}-{self.workload_class.name}-{seed}"
        kept = os.path.join(self.options.keep, name)
        os.makedirs(kept, exist_ok=True)
        for path in (recording.base, recording.log):
            subprocess.run(["cp", "--sparse=always", path, kept], check=True)
        with open(os.path.join(kept, "workload.json"), "w", encoding="ascii") as f:
            json.dump({"features": self.features}, f)
        if os.path.isdir(self.path("keys")):
            shutil.copytree(self.path("keys"), os.path.join(kept, "keys"), dirs_exist_ok=True)
        print(f"kept: --replay {kept}", file=sys.stderr)

    def count(self, recording):
        writers = recording.acks(len(recording))
        statistics = self.statistics
        statistics["recordings"] += 1
        statistics["requests"] += len(recording)
        statistics["flushes"] += recording.count(cuts.FLUSH)
        statistics["written_mib"] += recording.written_bytes >> 20
        statistics["acks"] += sum(writers.values())
        say(f"recorded {len(recording)} requests, {recording.count(cuts.FLUSH)} flushes, "
            f"{recording.written_bytes >> 20} MiB, {sum(writers.values())} acknowledgements")

    def check_all(self, recording, seed, tear, images):
        workload = self.workload(seed)
        bad = False
        with cuts.ImageMaker(self.mkimage, recording, tear, self.path("first")) as maker:
            for done, cut in enumerate(cuts.plan(recording, f"{seed} {tear}", images)):
                workload.advance(recording.acks(cut.index))
                bad |= self.check_first(workload, maker, seed, cut)
                if done % 50 == 49:
                    say(f"{tear}: {done + 1} of {len(images)} images, {self.results[tear].bad_images} bad")
        return bad

    def check_first(self, workload, maker, seed, cut):
        image, log = self.path("crash"), None
        maker.make(cut, image)
        if self.options.second:
            log = self.path("log2")
            subprocess.run(["cp", "--sparse=always", image, self.path("crash-base")], check=True)
        bad = self.check(workload, image, str(cut.image), maker.tear, log)
        os.unlink(image)
        if self.options.second:
            bad |= self.check_second(workload, seed, maker.tear, cut)
        return bad

    def check_second(self, workload, seed, tear, cut):
        """The power fails again, while the first failure is recovered from."""
        recording = cuts.Recording(self.path("crash-base"), self.path("log2"))
        bad = False
        if recording.count(cuts.WRITE):
            wanted = self.options.only[1:] or range(self.options.second)
            with cuts.ImageMaker(self.mkimage, recording, tear, self.path("second")) as maker:
                for second in cuts.plan(recording, f"{seed} {tear} {cut.image}", wanted):
                    image = self.path("crash")
                    maker.make(second, image)
                    bad |= self.check(workload, image, f"{cut.image}.{second.image}", tear, None)
                    os.unlink(image)
        os.unlink(recording.base)
        os.unlink(recording.log)
        return bad

    def check(self, workload, image, name, tear, log):
        report = load.Report(self.target.strict)
        repaired = False
        try:
            usual = self.options.check_opts or self.target.opts
            read_only = self.options.read_only and workload.checks_read_only
            first = [*usual, self.target.read_only] if read_only else usual
            with stack.Stack(self.disk, image, log, opts=first) as tower:
                repaired = tower.repaired
                if read_only:
                    # All must be there before anything is replayed to its place.
                    check_in_child(workload, tower, report, writable=False)
                    tower.remount(usual)
                check_in_child(workload, tower, report)
            if tower.bad_end and not report.counts["died"]:
                report.add("died", tower.bad_end)
        except stack.StoreFailed as e:
            report.add("store", str(e))
        except stack.TargetFailed as e:
            report.add("not_mounted", str(e))
        bad = self.results[tear].add(name, report, repaired)
        if bad and not self.options.quiet:
            self.tell(name, tear, report)
        return bad

    def tell(self, name, tear, report):
        """The failure, and the options that repeat it."""
        options, row = self.options, self.results[tear].row
        repeat = ["--target", row["target"], "--fs", row["fs"], "--workload", row["workload"],
                  *(["--kill"] if tear == "kill" else ["--tear", tear]), "--seed", str(options.seed), "--seconds",
                  str(options.seconds), "--per-recording", str(options.per_recording), "--second", str(options.second)]
        for name_of, values in (("opts", options.opts), ("mkfs-opts", options.mkfs_opts),
                                ("check-opts", options.check_opts)):
            repeat += [f"--{name_of}={value}" for value in values]
        if options.store_opts:
            repeat.append(f"--store-opts={options.store_opts}")
        if options.read_only:
            repeat.append("--read-only")
        print(f"FAILED image {name}: repeat with {' '.join(repeat)} --only {name}", file=sys.stderr)
        for message in report.messages:
            print(f"    {message}", file=sys.stderr)
