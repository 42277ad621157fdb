/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_CONFINE_H
#define CMEK_MOUNT_CONFINE_H

#include "base/err.h"

/*
 * Takes away from a process what it does not need, for good: before it gets keys, and before it has threads (what is
 * taken away binds later threads only).
 */

/*
 * For the storage daemon, which parses what whoever owns the store may have written: no new privileges, no capabilities
 * but those for files, and a seccomp filter without new sockets, programs, mounts, traces and kernel modules. What it may
 * raise with a capability it loses here (limit of open files) is raised first. Kind system.
 */
int cmek_confine_daemon(struct cmek_error *err);

/* For the KMS agent, which talks to the network: no capabilities but to read credentials and to lock memory. */
int cmek_confine_agent(struct cmek_error *err);

/* For the auditor: no new privileges, no capabilities but to write a log wherever it is. */
int cmek_confine_auditor(struct cmek_error *err);

#endif
