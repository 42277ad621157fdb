/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_LAUNCH_H
#define CMEK_MOUNT_LAUNCH_H

#include "base/err.h"
#include "fs/mount/opts.h"
#include "kms/kms.h"

/*
 * Mounts as opts say. In the foreground (opts->foreground) it returns when the mount has ended. Otherwise it forks, and
 * returns in the caller's process when the mount answers, or with what kept it from that; and it returns in the
 * supervisor's process, which has no terminal any more, when the mount has ended. 0 or -errno.
 */
int cmek_launch(const struct cmek_mount_opts *opts, const struct cmek_kms_options *kms, struct cmek_error *err);

#endif
