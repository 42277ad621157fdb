/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_CRED_FILE_H
#define CMEK_KMS_CRED_FILE_H

#include "base/err.h"
#include "base/secret.h"

/*
 * Files with credentials. Symbolic links are followed (Kubernetes and systemd present tokens through them). Thread-safe as
 * far as the environment is left alone.
 */

/*
 * The whole of a regular file of 1..max bytes as CMEK_KEY_TEXT; the caller owns it. A file that others can read is taken,
 * with a warning in the log.
 * Kinds: expired (-ENOENT: there is none, -EACCES: not readable), bad-format (empty, or holds a NUL), limit
 * (-EFBIG), system.
 */
int cmek_cred_file_read(const char *path, size_t max, struct cmek_secret **ret_text, struct cmek_error *err);

/*
 * The path of a credential that systemd has given this service (LoadCredential=NAME:...), malloced; NULL if it has given
 * none of this name (or there is no memory).
 */
char *cmek_cred_systemd(const char *name);

#endif
