/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_IO_H
#define CMEK_BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"

/* Bytes read (short only at end of file) or -errno; restarted on EINTR. */
ssize_t cmek_pread_full(int fd, void *buf, size_t n, uint64_t off);
/* 0 when all n bytes were written, else -errno (a write of 0 bytes is -EIO). */
int cmek_pwrite_full(int fd, const void *buf, size_t n, uint64_t off);
/* As above for a vector; iov is consumed (its elements change). */
int cmek_pwritev_full(int fd, struct iovec *iov, int n, uint64_t off);
int cmek_write_full(int fd, const void *buf, size_t n);

/*
 * The whole of a file, at most max bytes (larger: -EFBIG). *ret_data is malloced, NUL follows the last byte.
 * dirfd may be AT_FDCWD. Symlinks at the last component are refused (-ELOOP). -ENOENT sets kind not-found.
 */
int cmek_read_file(int dirfd, const char *path, size_t max, uint8_t **ret_data, size_t *ret_len,
		   struct cmek_error *err);

/*
 * Replaces dirfd/name by data, all or nothing, durable on return: temporary in the same directory, fsync, rename,
 * fsync of the directory. mode is given to the new file (umask not applied). name has no slash.
 * A crash can leave the temporary, CMEK_TEMP_PREFIX | 16 hex digits | CMEK_TEMP_SUFFIX: who must not leave such copies
 * (of keys) behind looks for them by that name.
 */
#define CMEK_TEMP_PREFIX ".cmek-"
#define CMEK_TEMP_SUFFIX ".tmp"
int cmek_replace_file(int dirfd, const char *name, const void *data, size_t len, mode_t mode, struct cmek_error *err);

#endif
