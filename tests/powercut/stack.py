# SPDX-License-Identifier: GPL-3.0-or-later
"""
What stands on an image: the recorder or a plain file, a loop device, the file system of the store, and the target on
it (cmekfs, gocryptfs, or nothing: a bind mount). Puts it up, takes it down, whatever fails. Knows no workloads.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import time

MOUNT_SECONDS = 60
UNMOUNT_SECONDS = 120  # a machine that does other things, too, must not look like a daemon that hangs
MAX_REQUEST_KIB = 1024  # what FUSE takes at once, so that the recorder sees the requests of the loop device unsplit

# The store's file systems: how they are made on a file, mount options, and the repair that an operator would try when
# the mount fails (a torn superblock, which is checked before any journal: the store's weakness, not the target's).
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"], "data=ordered",
             ["e2fsck", "-fy"]),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K"], "nouuid", None),
    "btrfs": (["mkfs.btrfs", "-q", "-f", "-K", "-m", "single"], "", ["btrfs", "rescue", "super-recover", "-y"]),
}


class StoreFailed(Exception):
    """The store's own file system can't be mounted."""


class TargetFailed(Exception):
    """The target can't be mounted on a store that can."""


class MissingProgram(Exception):
    """Something isn't installed or built."""


def command(argv, **kwargs):
    """Runs argv and returns what it printed; its message becomes the exception's."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **kwargs)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def wait_for(what, condition, seconds):
    end = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def descendants(pid):
    """pid and all that descend from it, as far as they are alive."""
    children = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_tree(pid):
    """kill -9 of pid, which is alive, and of all that descends from it; returns who they were."""
    members = descendants(pid)
    send(members, signal.SIGKILL)
    return members


def is_alive(pid):
    try:
        stat = pathlib.Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_for_end(pids, seconds=UNMOUNT_SECONDS):
    wait_for("the end of what was killed", lambda: not any(map(is_alive, pids)), seconds)


def mount_device(path):
    """MAJOR:MINOR of what is mounted there, or None; without a look into it, which would ask the file system."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[4] == path:
            return fields[2]
    return None


def unmount(path):
    """Unmounts path; something may still be letting go of it."""
    end = time.monotonic() + UNMOUNT_SECONDS
    while mount_device(path):
        done = subprocess.run(["umount", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            subprocess.run(["umount", "-l", path], check=False)
            raise RuntimeError(f"umount {path}: {done.stderr.strip()}")
        time.sleep(0.05)


class Daemon:
    """A file system program that we run in the foreground until its mount is gone."""

    def __init__(self, argv, mount, output, env=None, ready="", limit=MOUNT_SECONDS):
        """Returns when the mount is there and the program has printed ready; kills it after so many seconds."""
        self.mount = mount
        self.output = output
        with open(output, "wb") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)

        def is_up():
            return self.process.poll() is not None or (mount_device(mount) and ready in self._printed())

        try:
            wait_for(argv[0], is_up, limit)
            if self.process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with status {self.process.returncode}: {self.last_output()}")
        except BaseException:
            self.kill()
            raise

    def _printed(self):
        return pathlib.Path(self.output).read_text(encoding="utf-8", errors="replace")

    def last_output(self):
        return " | ".join(self._printed().strip().splitlines()[-3:])

    def kill(self):
        """kill -9 of all its processes; then the connection goes too, should one of them wait for itself in there."""
        device = mount_device(self.mount)
        members = kill_tree(self.process.pid) if self.process.poll() is None else []
        if device:
            abort = pathlib.Path("/sys/fs/fuse/connections", device.split(":")[1], "abort")
            try:
                abort.write_text("1", encoding="ascii")
            except OSError:
                pass  # no fusectl file system here: the kill is all we have
        self.process.wait()
        wait_for_end(members)
        if device:
            subprocess.run(["umount", "-l", self.mount], check=False)

    def _threads(self):
        """What the threads of its processes are at, by the kernel's account; for the message about one that hangs."""
        lines = []
        for pid in descendants(self.process.pid):
            for task in pathlib.Path("/proc", str(pid), "task").glob("*"):
                try:
                    stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
                    calls = (task / "stack").read_text(encoding="utf-8").split()[1::2]
                except OSError:
                    continue  # ended meanwhile
                fields = stat.rpartition(")")[2].split()
                lines.append(f"{task.name} {fields[0]} cpu {fields[11]}+{fields[12]}: {' '.join(calls[:6])}")
        return "\n".join(lines)

    def stop(self):
        """Status of the program after a clean unmount."""
        try:
            unmount(self.mount)
            return self.process.wait(UNMOUNT_SECONDS)
        except subprocess.TimeoutExpired as e:
            threads = self._threads()
            self.kill()
            raise RuntimeError(f"{self.process.args[0]}: still there {UNMOUNT_SECONDS} s after its unmount:\n{threads}") from e
        except BaseException:
            self.kill()
            raise


# Targets. create() makes a volume in an empty directory; mount() puts it up with these options and returns a Daemon or
# None. opts are those of a usual mount.

class Plain:
    name = "plain"
    read_only = "ro"
    strict = False

    def __init__(self, opts, mkfs_opts=()):
        if opts or mkfs_opts:
            raise ValueError("the plain target has no options; --store-opts are those of the store")
        self.opts = []

    def create(self, store, scratch):
        pass

    def mount(self, store, mount, scratch, opts, limit=MOUNT_SECONDS):
        command(["mount", "-o", ",".join(["bind", *opts]), store, mount])


class Gocryptfs:
    name = "gocryptfs"
    read_only = "-ro"
    strict = False

    def __init__(self, opts, mkfs_opts=()):
        self.opts = opts
        self.mkfs_opts = mkfs_opts

    def _password(self, scratch):
        path = os.path.join(scratch, "password")
        pathlib.Path(path).write_text("powercut\n", encoding="ascii")
        return path

    def create(self, store, scratch):
        # The cheapest scrypt: the volume is opened a thousand times.
        command(["gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", self._password(scratch),
                 *self.mkfs_opts, store])

    def mount(self, store, mount, scratch, opts, limit=MOUNT_SECONDS):
        # Before that line it opens a file of its own mount, and a mkdir there meanwhile makes a deadlock.
        return Daemon(["gocryptfs", "-fg", "-nosyslog", "-allow_other", "-passfile", self._password(scratch),
                       *opts, store, mount], mount, os.path.join(scratch, "target.log"), ready="mounted and ready",
                      limit=limit)


class Cmekfs:
    """With a key of the local provider, which lives outside of the image."""

    name = "cmekfs"
    read_only = "ro"
    strict = True

    def __init__(self, opts, mkfs_opts=()):
        self.opts = opts
        self.mkfs_opts = mkfs_opts
        build = os.environ.get("CMEK_BUILD", "")
        self.mkfs = program(build, "mkfs.cmekfs")
        self.cmekfs = program(build, "cmekfs")
        self.cmekctl = program(build, "cmekctl")

    @staticmethod
    def _env(scratch):
        keys = os.path.join(scratch, "keys")
        return dict(os.environ, CMEKFS_LOCAL_KEYSTORE=os.path.join(keys, "keys.json"),
                    CMEKFS_VOLUMES=os.path.join(keys, "volumes.json"),
                    CMEKFS_AUDIT_LOG=os.path.join(keys, "audit.log"))

    def create(self, store, scratch):
        env = self._env(scratch)
        keys = os.path.join(scratch, "keys")
        if not os.path.isdir(keys):
            os.mkdir(keys, 0o700)
            command([self.cmekctl, "key", "create", "local:powercut"], env=env)
        command([self.mkfs, "--key", "local:powercut", *self.mkfs_opts, store], env=env)

    def control(self, top, *argv):
        """cmekctl with a volume that is mounted on top (of a Disk)."""
        command([self.cmekctl, *argv], env=self._env(os.path.dirname(top)))

    def mount(self, store, mount, scratch, opts, limit=MOUNT_SECONDS):
        return Daemon([self.cmekfs, "-f", "-o", ",".join(["allow_other", *opts]), store, mount], mount,
                      os.path.join(scratch, "target.log"), self._env(scratch), limit=limit)


TARGETS = {target.name: target for target in (Plain, Gocryptfs, Cmekfs)}


def program(build, name):
    """A program from the build directory, or else of the system."""
    path = os.path.join(build, name)
    if build and os.access(path, os.X_OK):
        return path
    found = shutil.which(name)
    if not found:
        raise MissingProgram(f"{name}: neither in CMEK_BUILD nor on PATH")
    return found


class Disk:
    """How to stand on an image: the same for the recording and for all its crash images."""

    def __init__(self, scratch, recorder, fs, store_opts, target):
        self.scratch = scratch
        self.recorder = recorder
        self.fs = fs
        self.store_opts = store_opts
        self.target = target
        self.mkfs, self.fs_opts, self.repair = FILE_SYSTEMS[fs]
        self.disk_mount, self.store_mount, self.top = (os.path.join(scratch, name) for name in ("disk", "fs", "mnt"))
        for path in (self.disk_mount, self.store_mount, self.top):
            os.mkdir(path)
        os.chmod(scratch, 0o711)

    def create(self, image, mib):
        """A new image of that size with a store and a volume on it."""
        with open(image, "xb") as f:
            f.truncate(mib << 20)
        command([*self.mkfs, image])
        with Stack(self, image, create=True):
            pass

    def compact(self, image):
        command(["fallocate", "--dig-holes", image])


class Stack:
    """
    An image with all that stands on it, as a context: its mounts are there inside of "with". With a log, requests are
    recorded, and mark() writes lines between them. opts are those of the target if not its usual ones.
    """

    def __init__(self, disk, image, log=None, create=False, opts=None):
        self.disk = disk
        self.image = image
        self.log = log
        self.create = create
        self.opts = disk.target.opts if opts is None else opts
        self.top = disk.top
        self.repaired = False
        self.bad_end = None  # how a target ended that did not end well
        self._recorder = self._loop = self._target = None
        self._mark_fd = -1

    def __enter__(self):
        try:
            self._up()
        except BaseException:
            self._down(quiet=True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        self._down(quiet=kind is not None)

    def mark(self, text):
        os.write(self._mark_fd, text.encode())

    def target_death(self):
        """What a target said that ended before its unmount; None while it lives."""
        target = self._target
        if not target or target.process.poll() is None:
            return None
        return f"status {target.process.returncode}: {target.last_output()}"

    def remount(self, opts):
        """The target again, with other options."""
        self._unmount_target()
        self._mount_target(opts)

    def kill_target(self):
        """Frees also everything that waits for a target that hangs."""
        if self._target:
            self._target.kill()
            self._target = None

    def mount_briefly(self, seconds):
        """The target is killed so many seconds after the start of its mount."""
        try:
            self._mount_target(self.opts, seconds)
        except TargetFailed:
            pass
        self.kill_target()

    def _up(self):
        disk, path = self.disk, self.image
        if self.log:
            self._recorder = Daemon([disk.recorder, self.image, self.log, disk.disk_mount], disk.disk_mount,
                                    os.path.join(disk.scratch, "recorder.log"))
            path = os.path.join(disk.disk_mount, "image")
            self._mark_fd = os.open(os.path.join(disk.disk_mount, "mark"), os.O_WRONLY | os.O_CLOEXEC)
        self._loop = command(["losetup", "--find", "--show", "--direct-io=on", path]).strip()
        self._loop_settings()
        self._mount_store()
        if self.create:
            os.mkdir(self._store())
            disk.target.create(self._store(), disk.scratch)
        self._mount_target(self.opts)

    def _store(self):
        return os.path.join(self.disk.store_mount, "store")

    def _mount_target(self, opts, limit=MOUNT_SECONDS):
        try:
            self._target = self.disk.target.mount(self._store(), self.disk.top, self.disk.scratch, opts, limit)
        except (RuntimeError, TimeoutError) as e:
            raise TargetFailed(str(e)) from e

    def _unmount_target(self):
        if self._target:
            target, self._target = self._target, None
            status = target.stop()
            if status:
                self.bad_end = f"status {status} after the unmount: {target.last_output()}"
        else:
            unmount(self.disk.top)

    def _loop_settings(self):
        block = pathlib.Path("/sys/block", os.path.basename(self._loop))
        if (block / "loop/dio").read_text(encoding="ascii").strip() != "1":
            raise RuntimeError(f"{self._loop} is not in direct I/O mode: the recorder would not see all")
        limit = block / "queue/max_sectors_kb"
        if int(limit.read_text(encoding="ascii")) > MAX_REQUEST_KIB:
            limit.write_text(str(MAX_REQUEST_KIB), encoding="ascii")

    def _mount_store(self):
        disk = self.disk
        opts = ",".join(o for o in (disk.fs_opts, disk.store_opts) if o)
        argv = ["mount", "-t", disk.fs, *(["-o", opts] if opts else []), self._loop, disk.store_mount]
        try:
            command(argv)
            return
        except RuntimeError as e:
            if self._recorder and self._recorder.process.poll() is not None:
                raise RuntimeError(f"the recorder ended with status {self._recorder.process.returncode}: "
                                   f"{self._recorder.last_output()}") from e
            if not disk.repair:
                raise StoreFailed(str(e)) from e
        subprocess.run([*disk.repair, self._loop], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
        try:
            command(argv)
            self.repaired = True
        except RuntimeError as e:
            raise StoreFailed(str(e)) from e

    def _steps_down(self):
        disk = self.disk
        yield self._unmount_target
        yield lambda: unmount(disk.store_mount)
        if self._loop:
            yield lambda: command(["losetup", "--detach", self._loop])
        if self._mark_fd >= 0:
            yield lambda: os.close(self._mark_fd)
        if self._recorder:
            yield self._stop_recorder

    def _stop_recorder(self):
        status = self._recorder.stop()
        if status:
            raise RuntimeError(f"the recorder ended with status {status}: {self._recorder.last_output()}")

    def _down(self, quiet):
        """All steps, whatever fails, and also when a signal ends one of them."""
        first = None
        for step in self._steps_down():
            try:
                step()
            except BaseException as e:  # pylint: disable=broad-except
                first = first or e
                quiet = quiet and isinstance(e, Exception)
        if first and not quiet:
            raise first
