/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_FUSE_H
#define CMEK_MOUNT_FUSE_H

/* libfuse with the version of its interface that we are written for. Nothing outside fs/mount/ includes this. */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#endif
