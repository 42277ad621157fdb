/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_DAEMON_H
#define CMEK_MOUNT_DAEMON_H

#include "fs/mount/opts.h"

/*
 * The storage daemon: the process with the store and the keys. Its whole life: it confines itself, opens and locks the
 * store, has the KEK unwrapped by the agent, tells the supervisor, takes the connection from it, starts threads and
 * serves until the unmount or a STOP; then everything is in the store and the keys are wiped.
 *
 * supervisor: the socket to the supervisor; agent: to the KMS agent; audit: to the auditor. All are taken over. 0, or
 * -errno after the supervisor has been sent CMEK_MSG_FAILED. To be called in a process of its own, right after fork.
 */
int cmek_daemon_main(const struct cmek_mount_opts *opts, int supervisor, int agent, int audit);

#endif
