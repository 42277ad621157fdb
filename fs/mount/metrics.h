/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_METRICS_H
#define CMEK_MOUNT_METRICS_H

#include <jansson.h>
#include <stdint.h>

#include "fs/mount/agent.h"
#include "fs/mount/gate.h"

/*
 * What a mount tells of itself as Prometheus text (exposition format 0.0.4); doc/operations.md lists the metrics. Every
 * sample has the labels "volume" (the UUID) and "mountpoint", so that the texts of several mounts can stand side by side.
 */

/*
 * status: the result of the command "status" (doc/control.md); a member that is absent or null leaves its metrics out. gate and
 * counts are read as they are, while others count on. now: Unix seconds. *ret_text is malloced. 0 or -ENOMEM.
 */
int cmek_metrics_text(const json_t *status, const struct cmek_gate *gate, const struct cmek_agent_counts *counts,
		      int64_t now, char **ret_text);

#endif
