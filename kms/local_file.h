/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_LOCAL_FILE_H
#define CMEK_KMS_LOCAL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * The files of a local key store: PATH (the store), PATH.key (the key file), PATH.lock (who may write). What is in
 * them is not known here. Thread-safe.
 */

/*
 * Where the store is: `given`, else $CMEKFS_LOCAL_KEYSTORE, else the default of this user; made absolute.
 * *ret_is_default: its directory may be made by cmek_local_file_make_dir(). Kind usage without a HOME.
 */
int cmek_local_file_path(const char *given, char **ret_path, bool *ret_is_default, struct cmek_error *err);
/* Makes the missing directories above path, mode 0700, durably. */
int cmek_local_file_make_dir(const char *path, struct cmek_error *err);

/*
 * The whole store, malloced, NUL behind the last byte; *ret_text = NULL when there is none. At most max bytes.
 * Refuses (kind denied, -EPERM) a file that group or others may touch, or that belongs to neither this user nor root.
 */
int cmek_local_file_read(const char *path, size_t max, char **ret_text, size_t *ret_len, struct cmek_error *err);
/*
 * The same for a file of exactly len secret bytes: kind not-found, -ENOENT, when there is none. what: names the file in
 * messages, "the key file".
 */
int cmek_local_file_read_secret(const char *what, const char *path, enum cmek_purpose purpose, size_t len,
				struct cmek_secret **ret_secret, struct cmek_error *err);
/* cmek_replace_file() with mode 0600 in path's directory. */
int cmek_local_file_replace(const char *path, const void *data, size_t len, struct cmek_error *err);
/*
 * Removes temporaries that a crash of cmek_local_file_replace() left in path's directory: those that begin with
 * head[0..head_len), at most 512 bytes. The caller holds the lock, so none of them is being written.
 */
int cmek_local_file_sweep(const char *path, const void *head, size_t head_len, struct cmek_error *err);

/*
 * The right to write, held until the descriptor is closed (flock on PATH.lock, which stays). Waits deadline_ms at
 * most: kind busy, -EBUSY.
 */
int cmek_local_file_lock(const char *path, unsigned deadline_ms, int *ret_fd, struct cmek_error *err);

/*
 * The first line of a passphrase file without its newline, 1..4096 bytes, as CMEK_KEY_TEXT. The file is refused (kind
 * denied, -EPERM) when it is a regular file that group or others may touch, unless it came as a descriptor (/dev/fd/N,
 * /dev/stdin) or lies in $CREDENTIALS_DIRECTORY, where systemd answers for it.
 */
int cmek_local_file_passphrase(const char *path, struct cmek_secret **ret_passphrase, struct cmek_error *err);

#endif
