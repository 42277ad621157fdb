/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_LOCAL_HANDLE_H
#define CMEK_KMS_LOCAL_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kms/kms.h"
#include "kms/local_master.h"
#include "kms/local_store.h"

/*
 * One opened local key: reading its store, changing it under the lock, and what a key's state allows.
 * One thread at a time per handle; handles, in one process or several, may share a store.
 */
struct cmek_local {
	char *path;            /* of the store file, absolute */
	char *uri;             /* "local:NAME", also what blobs call the key */
	const char *name;      /* of the key, inside uri; "" = the whole store */
	char *passphrase_file; /* or NULL */
	bool path_is_default;  /* its directory may be made */
	unsigned deadline_ms;
	int (*ask)(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err);
	void *ask_arg;
	struct cmek_local_keys keys; /* of the store last read; empty before */
};

int cmek_local_handle_new(const char *uri, const struct cmek_kms_principal *principal,
			  const struct cmek_kms_options *opts, struct cmek_local **ret_local, struct cmek_error *err);
void cmek_local_handle_free(struct cmek_local *l);
struct cmek_local_source cmek_local_source_of(const struct cmek_local *l); /* borrows from the handle */

/* Unix seconds. */
int64_t cmek_local_now(void);

/*
 * Reads and authenticates the store. No lock is needed, as the file is only ever replaced. *ret_found = false and an
 * empty store when there is none. The passphrase is asked for once a handle, unless the store became another one.
 */
int cmek_local_load(struct cmek_local *l, struct cmek_local_store *ret_store, bool *ret_found, struct cmek_error *err);
/* The same; a store that is not there is kind not-found, -ENOKEY. */
int cmek_local_load_existing(struct cmek_local *l, struct cmek_local_store *ret_store, struct cmek_error *err);

/*
 * One update: begin() locks and reads, commit() writes durably, end() unlocks (and drops what was not committed).
 * After a failed begin() there is nothing to end.
 */
struct cmek_local_update {
	struct cmek_local_store store;
	int lock_fd;
	int64_t now;
};
int cmek_local_begin(struct cmek_local *l, struct cmek_local_update *u, struct cmek_error *err);
int cmek_local_commit(struct cmek_local *l, struct cmek_local_update *u, struct cmek_error *err);
void cmek_local_end(struct cmek_local_update *u);

/* The handle's key in a store: kind not-found, -ENOKEY; kind usage when the handle names none. */
int cmek_local_find(const struct cmek_local *l, struct cmek_local_store *store, struct cmek_local_key **ret_key,
		    struct cmek_error *err);
/* Destroyed, or pending with its date passed. */
bool cmek_local_is_destroyed(const struct cmek_local_key *key, int64_t now);
/*
 * 0 when the key's state is `least` or better, else the state as an error (-EKEYREVOKED). least: ENABLED = may wrap,
 * unwrap, rotate; DISABLED = may be enabled or disabled; PENDING_DELETION = not destroyed.
 */
int cmek_local_check_state(const struct cmek_local *l, const struct cmek_local_key *key, enum cmek_kms_state least,
			   int64_t now, struct cmek_error *err);

#endif
