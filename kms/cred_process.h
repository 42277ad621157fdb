/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_CRED_PROCESS_H
#define CMEK_KMS_CRED_PROCESS_H

#include <stddef.h>

#include "base/err.h"
#include "base/secret.h"

/* Programs that print credentials. Thread-safe. */

/*
 * Splits a command line as a POSIX shell does for words and quotes, and nothing else of it: an array of malloced words,
 * ended by NULL. Kind usage: an open quote, no word, too many.
 */
int cmek_cred_split(const char *text, size_t len, char ***ret_argv, struct cmek_error *err);
void cmek_cred_split_free(char **argv);

/*
 * Runs argv[0] (found by PATH), without a shell, with this process's environment, and returns what it writes on
 * standard
 * output, at most 64 KiB, as CMEK_KEY_TEXT. Its standard error is read, too, and tells why it failed. Kinds:
 * expired: there is no such program (-ENOENT), or it ended with another exit code than 0; unreachable: not done
 * after timeout_ms, then it is killed; bad-format:
 * nothing, or too much; system.
 */
int cmek_cred_run(char *const *argv, unsigned timeout_ms, struct cmek_secret **ret_output, struct cmek_error *err);

#endif
