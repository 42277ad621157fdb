# SPDX-License-Identifier: GPL-3.0-or-later
"""
Names: files, directories, hard links, symbolic links, long names, renames, replacements, attributes. Each step ends in
the fsyncs that make it durable, so after a cut a writer's tree is that of its last acknowledged step, or one that the
next step goes through.
"""

import errno
import os
import stat

from load import XATTR, Writers, fsync_dir, noise

PAGE = 4096
MAX_NAMES = 110
MAX_DEPTH = 4
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+ äö"

# What is known of a file's content: all of it, all of it by the grace of the file system, or nothing (any part of it).
EXACT, EXPECTED, ANY = range(3)


class Tree:
    """
    A writer's names, {path: ("dir",) or ("link", target) or ("file", id)}, and for each file id its version, size and
    what is known of it, and mode and attribute.
    """

    def __init__(self):
        self.names = {}
        self.files = {}
        self.attrs = {}

    def copy(self):
        new = Tree()
        new.names, new.files, new.attrs = dict(self.names), dict(self.files), dict(self.attrs)
        return new

    def put_file(self, path, file, version, size, known):
        new = self.copy()
        new.names[path] = ("file", file)
        new.files[file] = (version, size, known)
        new.attrs.setdefault(file, (0o600, None))
        return new

    def put(self, path, entry):
        new = self.copy()
        new.names[path] = entry
        return new

    def drop(self, path):
        new = self.copy()
        del new.names[path]
        return new

    def move(self, old, new_path):
        """The name and, for a directory, what is below it."""
        new = self.copy()
        new.names = {}
        for path, entry in self.names.items():
            if path == old or path.startswith(old + "/"):
                new.names[new_path + path[len(old):]] = entry
            elif path != new_path:
                new.names[path] = entry
        return new

    def both(self, old, new_path):
        """As after move(), but with what moved in its old place as well."""
        new = self.move(old, new_path)
        for path, entry in self.names.items():
            if path == old or path.startswith(old + "/"):
                new.names[path] = entry
        return new

    def of_kind(self, kind):
        return [path for path, entry in self.names.items() if entry[0] == kind]


class Chooser:
    """The steps of one writer: each is a tuple, the name of the change and its arguments."""

    def __init__(self, rng, writer, settings):
        self.rng = rng
        self.writer = writer
        self.max_symlink = settings.max_symlink
        self.has_xattr = settings.has_xattr
        self.tree = Tree()
        self.next_file = 0

    def steps(self):
        while True:
            step = self._choose()
            yield step
            self.tree = states_of(self.tree, step)[-1]

    def _choose(self):
        rng = self.rng
        while True:
            full = len(self.tree.names) > MAX_NAMES
            what = rng.choice(("unlink", "unlink", "rmdir", "rename", "rename_over", "rewrite") if full else CHANGES)
            step = getattr(self, "_" + what)()
            if step:
                return (what, *step)

    def _dir(self):
        own = [f"writer{self.writer}", *self.tree.of_kind("dir")]
        return "common" if self.rng.random() < 0.15 else self.rng.choice(own)

    def _new_path(self):
        rng = self.rng
        while True:
            length = rng.choice((rng.randint(1, 40), rng.randint(1, 40), rng.randint(41, 175), rng.randint(170, 255)))
            prefix = f"w{self.writer}-"
            name = prefix + "".join(rng.choices(LETTERS, k=length))
            while len(name.encode()) > 255:
                name = name[:-1]
            path = f"{self._dir()}/{name}"
            if path not in self.tree.names:
                return path

    def _pick(self, kind):
        paths = self.tree.of_kind(kind)
        return self.rng.choice(paths) if paths else None

    def _size(self):
        rng = self.rng
        return rng.choice((0, rng.randint(1, 300), rng.randint(1, 20000), PAGE, rng.randint(1, 300000)))

    def _file(self):
        self.next_file += 1
        return self.next_file

    def _create(self):
        return self._new_path(), self._file(), self._size(), self.rng.random() < 0.5

    def _batch(self):
        parent = self._dir()
        paths = {f"{parent}/w{self.writer}-batch-{self._file()}" for _ in range(self.rng.randint(2, 4))}
        return parent, tuple((path, self._file(), self._size()) for path in sorted(paths))

    def _replace(self):
        path = self._pick("file")
        return path and (path, f"{os.path.dirname(path)}/w{self.writer}-tmp", self._file(), self._size(),
                         self.rng.random() < 0.6)

    def _rewrite(self):
        path = self._pick("file")
        if not path:
            return None
        file = self.tree.names[path][1]
        return path, file, self.tree.files[file][0] + 1, self._size()

    def _link(self):
        path = self._pick("file")
        return path and (path, self._new_path())

    def _symlink(self):
        rng = self.rng
        length = rng.choice((rng.randint(1, 60), rng.randint(1, 60), rng.randint(60, self.max_symlink)))
        return self._new_path(), "".join(rng.choices(LETTERS[:60] + "/", k=length))

    def _unlink(self):
        path = self._pick(self.rng.choice(("file", "file", "link")))
        return path and (path,)

    def _mkdir(self):
        path = self._new_path()
        return (path,) if path.count("/") < MAX_DEPTH else None

    def _rmdir(self):
        empty = [d for d in self.tree.of_kind("dir") if not any(p.startswith(d + "/") for p in self.tree.names)]
        return (self.rng.choice(empty),) if empty else None

    def _rename(self):
        if not self.tree.names:
            return None
        old, new = self.rng.choice(list(self.tree.names)), self._new_path()
        # Not into itself, and no directory of ours into the common one, where others' names are.
        return None if new.startswith((old + "/", "common/")) else (old, new)

    def _rename_over(self):
        old, new = self._pick("file"), self._pick("file")
        # Two names of one file: rename does nothing.
        return (old, new) if old and self.tree.names[old] != self.tree.names[new] else None

    def _attributes(self):
        path = self._pick("file")
        value = noise(self.rng.randint(1, 200), self.rng.random()) if self.has_xattr else None
        return path and (path, self.tree.names[path][1], self.rng.choice((0o600, 0o640, 0o755)), value)


CHANGES = ("create", "create", "create", "create", "batch", "replace", "replace", "replace", "rewrite", "link",
           "symlink", "unlink", "mkdir", "mkdir", "rmdir", "rename", "rename", "rename_over", "attributes")


def states_of(tree, step):
    """The trees that a step goes through: what a cut during it may leave, and at last what it promises."""
    what, *args = step
    if what == "create":
        path, file, size, _ = args
        return [tree.put_file(path, file, 1, size, ANY), tree.put_file(path, file, 1, size, EXACT)]
    if what == "batch":
        states = [tree]
        for path, file, size in args[1]:
            states += [state.put_file(path, file, 1, size, ANY) for state in states]
        return states
    if what == "replace":
        path, temp, file, size, synced = args
        known = EXACT if synced else EXPECTED
        done = tree.put_file(temp, file, 1, size, known).move(temp, path)
        return [tree.put_file(temp, file, 1, size, ANY), done]
    if what == "rewrite":
        path, file, version, size = args
        return [tree.put_file(path, file, version, size, ANY), tree.put_file(path, file, version, size, EXACT)]
    if what == "link":
        return [tree.put(args[1], tree.names[args[0]])]
    if what == "symlink":
        return [tree.put(args[0], ("link", args[1]))]
    if what in ("unlink", "rmdir"):
        return [tree.drop(args[0])]
    if what == "mkdir":
        return [tree.put(args[0], ("dir",))]
    if what in ("rename", "rename_over"):
        return [tree.move(*args)]
    _, file, mode, value = args
    half, done = tree.copy(), tree.copy()
    half.attrs[file] = (mode, tree.attrs[file][1])
    done.attrs[file] = (mode, value)
    return [half, done]


class Actor:
    """Takes the steps on a mounted file system."""

    def __init__(self, top, content):
        self.top = top
        self.content = content

    def take(self, step):
        what, *args = step
        getattr(self, "_" + what)(*args)

    def _full(self, path):
        return os.path.join(self.top, path)

    def _sync_parent(self, path):
        fsync_dir(os.path.dirname(self._full(path)))

    def _write(self, path, flags, data, sync):
        fd = os.open(self._full(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        try:
            if data and os.write(fd, data) != len(data):
                raise OSError(errno.EIO, "short write")
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _create(self, path, file, size, sync_dir):
        # The fsync of a new file brings its name along on ext4, XFS and btrfs; programs rely on it.
        self._write(path, os.O_EXCL, self.content(file, 1, size), True)
        if sync_dir:
            self._sync_parent(path)

    def _batch(self, parent, files):
        for path, file, size in files:
            self._write(path, os.O_EXCL, self.content(file, 1, size), False)
        fsync_dir(self._full(parent))

    def _replace(self, path, temp, file, size, synced):
        self._write(temp, os.O_EXCL, self.content(file, 1, size), synced)
        os.rename(self._full(temp), self._full(path))
        self._sync_parent(path)

    def _rewrite(self, path, file, version, size):
        self._write(path, os.O_TRUNC, self.content(file, version, size), True)

    def _link(self, old, new):
        os.link(self._full(old), self._full(new))
        self._sync_parent(new)

    def _symlink(self, path, target):
        os.symlink(target, self._full(path))
        self._sync_parent(path)

    def _unlink(self, path):
        os.unlink(self._full(path))
        self._sync_parent(path)

    def _mkdir(self, path):
        os.mkdir(self._full(path), 0o700)
        self._sync_parent(path)

    def _rmdir(self, path):
        os.rmdir(self._full(path))
        self._sync_parent(path)

    def _rename(self, old, new):
        os.rename(self._full(old), self._full(new))
        self._sync_parent(new)
        self._sync_parent(old)

    _rename_over = _rename

    def _attributes(self, path, _file, mode, value):
        fd = os.open(self._full(path), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fchmod(fd, mode)
            if value is not None:
                os.setxattr(fd, XATTR, value)
            os.fsync(fd)
        finally:
            os.close(fd)


class Observed:
    """
    What is there: {path: ("dir",) or ("link", target) or ("file", content, links, mode, attribute)}. What can't be
    read is reported at once; blind holds the paths below which nothing can be said.
    """

    def __init__(self, top, writer, report):
        self.top = top
        self.report = report
        self.entries = {}
        self.blind = []
        self._walk(f"writer{writer}", "")
        self._walk("common", f"w{writer}-")

    def sees(self, path):
        return not any(path == b or path.startswith(b + "/") for b in self.blind)

    def _cannot(self, path, e):
        self.blind.append(path)
        self.report.add("unreadable", f"{path[:60]}: {errno.errorcode.get(e.errno, e.errno)}")

    def _walk(self, directory, prefix):
        try:
            names = os.listdir(os.path.join(self.top, directory))
        except OSError as e:
            self._cannot(directory, e)
            return
        for name in names:
            if name.startswith(prefix):
                self._look(f"{directory}/{name}")

    def _look(self, path):
        full = os.path.join(self.top, path)
        try:
            st = os.lstat(full)
            if stat.S_ISDIR(st.st_mode):
                self.entries[path] = ("dir",)
                self._walk(path, "")
            elif stat.S_ISLNK(st.st_mode):
                self.entries[path] = ("link", os.readlink(full))
            else:
                with open(full, "rb") as f:
                    content = f.read()
                self.entries[path] = ("file", content, st.st_nlink, stat.S_IMODE(st.st_mode), self._xattr(full))
        except OSError as e:
            self._cannot(path, e)

    @staticmethod
    def _xattr(full):
        try:
            return os.getxattr(full, XATTR)
        except OSError as e:
            if e.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
            return None


def part_of(data, full):
    """Whether data is a beginning of full, or that with pages of zeros."""
    if len(data) > len(full):
        return False
    return all(data[at:at + PAGE] == full[at:at + PAGE][:len(data) - at] or not any(data[at:at + PAGE])
               for at in range(0, len(data), PAGE))


class Files(Writers):
    name = "files"

    def __init__(self, settings):
        super().__init__(settings)
        self.choosers = [self._chooser(writer) for writer in range(self.writers)]
        self.steps = [chooser.steps() for chooser in self.choosers]
        self.trees = [Tree() for _ in range(self.writers)]
        self.reached = [0] * self.writers
        self.next_step = [next(steps) for steps in self.steps]

    def _chooser(self, writer):
        return Chooser(self.rng("steps", writer), writer, self.settings)

    def _content(self, writer):
        return lambda file, version, size: noise(size, self.settings.seed, writer, file, version)

    def setup(self, top):
        for name in ("common", *(f"writer{writer}" for writer in range(self.writers))):
            os.mkdir(os.path.join(top, name), 0o700)

    def writer(self, top, number, resources):
        steps = self._chooser(number).steps()
        actor = Actor(top, self._content(number))
        return lambda step_number: actor.take(next(steps))

    def advance(self, acks):
        for writer in range(self.writers):
            while self.reached[writer] < acks.get(writer, 0):
                self.trees[writer] = states_of(self.trees[writer], self.next_step[writer])[-1]
                self.reached[writer] += 1
                self.next_step[writer] = next(self.steps[writer])

    def check(self, top, report):
        for writer, tree in enumerate(self.trees):
            observed = Observed(top, writer, report)
            findings = []
            step = self.next_step[writer]
            states = [tree, *states_of(tree, step)]
            if self.settings.renames_twice and step[0] in ("rename", "rename_over"):
                states.append(tree.both(*step[1:]))
            for state in states:
                findings.append(self._compare(writer, state, observed))
                if not findings[-1]:
                    break
            best = min(findings, key=lambda found: (sum(kind != "weak" for kind, _ in found), len(found)))
            for kind, message in best:
                report.add(kind, f"writer {writer} in step {self.reached[writer] + 1} "
                                 f"({self.next_step[writer][0]}): {message}")

    def _compare(self, writer, tree, observed):
        """All that tells the observed tree from this one: (kind, message)."""
        found = []
        links = {}
        for entry in tree.names.values():
            links[entry] = links.get(entry, 0) + 1
        for path in observed.entries.keys() - tree.names.keys():
            found.append(("lost", f"{path[:60]} is there and should not"))
        for path, entry in tree.names.items():
            if not observed.sees(path):
                continue
            there = observed.entries.get(path)
            if not there:
                found.append(("lost", f"{path[:60]} is missing"))
            elif there[0] != entry[0] or (entry[0] == "link" and there != entry):
                found.append(("torn", f"{path[:60]} is another {entry[0]}"))
            elif entry[0] == "file":
                found += self._compare_file(writer, tree, path, there, links[entry])
        return found

    def _compare_file(self, writer, tree, path, there, links):
        file = tree.names[path][1]
        version, size, known = tree.files[file]
        _, content, there_links, mode, value = there
        full = self._content(writer)(file, version, size)
        found = []
        if content != full:
            part = part_of(content, full)
            if not part:
                older = any(content == self._content(writer)(file, v, len(content)) for v in range(1, version))
                found.append(("lost" if older else "torn", f"{path[:60]}: {len(content)} bytes for {size}"))
            elif known == EXACT:
                found.append(("lost", f"{path[:60]}: only part of {size} bytes ({len(content)})"))
            elif known == EXPECTED or full[:len(content)] != content:
                found.append(("weak", f"{path[:60]}: {len(content)} bytes for {size}, or zeros"))
        if there_links != links:
            found.append(("lost", f"{path[:60]}: {there_links} links for {links}"))
        if (mode, value) != tree.attrs[file]:
            found.append(("lost", f"{path[:60]}: mode {mode:o} or attribute, expected {tree.attrs[file][0]:o}"))
        return found
