# SPDX-License-Identifier: GPL-3.0-or-later
"""
The overwrites of load_overwrite.py, and a tree that nobody changes, while new data keys are made, everything is moved to
them, and the old ones are retired and destroyed, again and again. What is lost with a key shows as unreadable or lost.
"""

import os
import threading
import time

from load_overwrite import Overwrite
from load import noise

DIRECTORIES = 12
NAME = 200  # bytes, so that one of the names in each directory has a link of its own


class Rotate(Overwrite):
    name = "rotate"

    def _entries(self, number):
        """What is in a directory: names of files with their contents, of symlinks with their targets."""
        long_name = f"{number}-" + "n" * NAME
        return ({"file": noise(5000 + number * 3000, self.settings.seed, number), long_name: b"of a long name"},
                {"link": f"target of {number}", "long link": "t" * (50 if number % 2 else self.settings.max_symlink)})

    def setup(self, top):
        super().setup(top)
        for number in range(DIRECTORIES):
            directory = os.path.join(top, "tree", str(number))
            os.makedirs(directory)
            files, links = self._entries(number)
            for name, data in files.items():
                with open(os.path.join(directory, name), "xb") as f:
                    f.write(data)
            for name, target in links.items():
                os.symlink(target, os.path.join(directory, name))
            if self.settings.has_xattr:
                os.setxattr(directory, "user.powercut", b"of a directory")

    def run(self, top, mark):
        control = getattr(self.settings.target, "control", None)
        end = time.monotonic() + self.settings.seconds
        failures = []

        def turn_keys():
            number = 0
            try:
                while control and time.monotonic() < end and not failures:
                    number += 1
                    control(top, "rotate", top)
                    control(top, "reencrypt", "--now" if number % 2 else "--grace=1h", top)
            except RuntimeError as e:
                failures.append(e)

        thread = threading.Thread(target=turn_keys)
        thread.start()
        try:
            super().run(top, mark)
        finally:
            thread.join()
        if failures:
            raise failures[0]

    def check(self, top, report):
        super().check(top, report)
        for number in range(DIRECTORIES):
            directory = os.path.join(top, "tree", str(number))
            files, links = self._entries(number)
            try:
                if sorted(os.listdir(directory)) != sorted([*files, *links]):
                    report.add("lost", f"names of directory {number}: {[n[:12] for n in os.listdir(directory)]}")
                for name, data in files.items():
                    with open(os.path.join(directory, name), "rb") as f:
                        found = f.read()
                    if found != data:
                        report.add("torn", f"directory {number}: {name[:20]}: {len(found)} bytes of {len(data)}")
                for name, target in links.items():
                    if os.readlink(os.path.join(directory, name)) != target:
                        report.add("torn", f"directory {number}: {name}")
                if self.settings.has_xattr and os.getxattr(directory, "user.powercut") != b"of a directory":
                    report.add("torn", f"attribute of directory {number}")
            except OSError as e:
                report.error(e, f"directory {number}")
