/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_LOCAL_MASTER_H
#define CMEK_KMS_LOCAL_MASTER_H

#include "base/err.h"
#include "kms/kms.h"
#include "kms/local_store.h"

/*
 * Where a local key store's master key comes from: the key file PATH.key, or a passphrase. The master key lives only
 * as long as the call; callers keep what is derived from it. Thread-safe.
 */
struct cmek_local_source {
	const char *path; /* of the store; all borrowed */
	const char *passphrase_file;
	int (*ask)(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err);
	void *ask_arg;
};

/*
 * The keys of a store that exists (decoded, not verified yet). Kinds: not-found -ENOENT (the key file is missing),
 * denied -EKEYREJECTED (it belongs to another store; wrong passphrase), denied -ENOTTY (a passphrase
 * is needed and there is no way to get one), bad-format.
 */
int cmek_local_master_open(const struct cmek_local_source *source, const struct cmek_local_store *store,
			   struct cmek_local_keys *ret_keys, struct cmek_error *err);

/*
 * The keys of a new store, whose check is filled in. With a passphrase it is asked for twice; else the key file is
 * used when it is there and made when it is not: the caller holds the lock of the store then, and has seen that there
 * is no store.
 */
int cmek_local_master_make(const struct cmek_local_source *source, struct cmek_local_store *store,
			   struct cmek_local_keys *ret_keys, struct cmek_error *err);

#endif
