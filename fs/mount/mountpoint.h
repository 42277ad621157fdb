/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_MOUNTPOINT_H
#define CMEK_MOUNT_MOUNTPOINT_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "fs/mount/opts.h"

/*
 * What the kernel knows of a mount: making it, tuning it, taking it away. Nothing here waits for an answer of the file
 * system itself, except the unmounting process, which is one of its own for that reason.
 */
struct cmek_mountpoint {
	const char *path; /* borrowed */
	int device_fd;    /* the FUSE connection, -1 = none */
	unsigned minor;   /* of the anonymous device: names the connection in /sys */
	bool is_mounted;  /* was mounted by us, and we have not seen it go */
};

/* Mounts through libfuse (as root itself, else through fusermount3). Kind system, with libfuse's reason. */
int cmek_mountpoint_mount(struct cmek_mountpoint *mp, const struct cmek_mount_opts *opts, bool read_only,
			  struct cmek_error *err);

/*
 * As root: readahead and writeback limits that suit a mount of this kind; near_full: few dirty pages, because there may be
 * no room for many. Fails in silence.
 */
void cmek_mountpoint_tune(const struct cmek_mountpoint *mp, bool near_full);

enum cmek_unmount_how {
	CMEK_UNMOUNT_ORDERLY, /* write back first; if it is in use, detach it: who has files open keeps them */
	CMEK_UNMOUNT_LAZY,    /* detach, whatever the state of the connection */
};
/* Exit codes of the unmounting process. */
enum { CMEK_UNMOUNT_GONE = 0, CMEK_UNMOUNT_DETACHED = 1, CMEK_UNMOUNT_FAILED = 2 };

/*
 * Starts a process that unmounts what is mounted at the path, if that is still ours, and leaves with one of these codes.
 * It may hang as long as the file system does. Its pid or -errno.
 */
pid_t cmek_mountpoint_unmount(const struct cmek_mountpoint *mp, enum cmek_unmount_how how);

/* Closes our descriptor of the connection. When the daemon is dead it is the last one: all who wait get ENOTCONN. */
void cmek_mountpoint_close(struct cmek_mountpoint *mp);
/* The same while the daemon may live: aborts the connection through fusectl, where that and our mount are there. */
void cmek_mountpoint_abort(struct cmek_mountpoint *mp);

#endif
