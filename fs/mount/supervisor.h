/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_SUPERVISOR_H
#define CMEK_MOUNT_SUPERVISOR_H

#include "base/err.h"
#include "fs/mount/opts.h"
#include "kms/kms.h"

/*
 * The supervisor: the process of a mount that holds the connection to the kernel, mounts and unmounts, and watches over
 * the storage daemon and the KMS agent, both forked from it before any key exists. It never has a key, and never asks
 * the mounted file system anything itself, so that a daemon that hangs can't keep it from ending the mount.
 *
 * SIGTERM, SIGINT, SIGHUP: write everything back, unmount, end. SIGQUIT: end at once, what was not committed is lost.
 */

/*
 * Runs a whole mount. kms: options for the agent, with the function that asks for a passphrase.
 * ready: a socket (cmek_message_pair()) that gets UP or FAILED once, after which the process has become a daemon with
 * the system log as its voice; -1: stay in the foreground. Returns 0 after an orderly end, else -errno with the error
 * that ended the mount. One call a process; to be called with one thread.
 */
int cmek_supervisor_run(const struct cmek_mount_opts *opts, const struct cmek_kms_options *kms, int ready,
			struct cmek_error *err);

#endif
