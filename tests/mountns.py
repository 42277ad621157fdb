# SPDX-License-Identifier: GPL-3.0-or-later
"""
A mount namespace of one's own. What is mounted there nobody else's namespace copies, and so nobody keeps it alive beyond
its unmount (a container that starts meanwhile would); and none of it outlives the last process in there.
"""
import ctypes

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def enter():
    """For the calling process and all it starts. Without the right to do so, or in a chroot that is no mount, less is apart."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) == 0:
        libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
