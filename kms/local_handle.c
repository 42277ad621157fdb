/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One opened local key: its store read and authenticated, changed under the lock, its state judged. It does not know
 * what keys are used for, nor the store's text form.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "kms/local_file.h"
#include "kms/local_handle.h"

#define DEADLINE_MS_DEFAULT 30000

int64_t cmek_local_now(void)
{
	return (int64_t)time(NULL);
}

void cmek_local_handle_free(struct cmek_local *l)
{
	if (!l)
		return;
	cmek_local_keys_done(&l->keys);
	free(l->path);
	free(l->uri);
	free(l->passphrase_file);
	free(l);
}

int cmek_local_handle_new(const char *uri, const struct cmek_kms_principal *principal,
			  const struct cmek_kms_options *opts, struct cmek_local **ret_local, struct cmek_error *err)
{
	struct cmek_local *l;
	int rc;

	if (principal->role || principal->external_id || principal->service_account || principal->profile)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "%s: a local key has no role, service account or profile to assume", uri);
	l = calloc(1, sizeof(*l));
	if (!l)
		return cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
	l->deadline_ms = opts->deadline_ms ? opts->deadline_ms : DEADLINE_MS_DEFAULT;
	l->ask = opts->ask_passphrase;
	l->ask_arg = opts->ask_arg;
	l->uri = strdup(uri);
	if (opts->passphrase_file)
		l->passphrase_file = strdup(opts->passphrase_file);
	if (!l->uri || (opts->passphrase_file && !l->passphrase_file)) {
		rc = cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
		goto out;
	}
	rc = cmek_kms_uri_local(l->uri, &l->name, err);
	if (rc == 0)
		rc = cmek_local_file_path(opts->keystore_path, &l->path, &l->path_is_default, err);
out:
	if (rc < 0)
		cmek_local_handle_free(l);
	else
		*ret_local = l;
	return rc;
}

/* The store */

struct cmek_local_source cmek_local_source_of(const struct cmek_local *l)
{
	return (struct cmek_local_source){ l->path, l->passphrase_file, l->ask, l->ask_arg };
}

static bool keys_fit(const struct cmek_local_keys *keys, const struct cmek_local_store *store)
{
	return keys->wrap && memcmp(keys->uuid, store->uuid, sizeof(keys->uuid)) == 0 &&
	       cmek_equal(keys->check, store->check, sizeof(keys->check));
}

int cmek_local_load(struct cmek_local *l, struct cmek_local_store *ret_store, bool *ret_found, struct cmek_error *err)
{
	struct cmek_local_source source = cmek_local_source_of(l);
	struct cmek_local_store store = { 0 };
	struct cmek_local_keys keys = { 0 };
	char *text = NULL, *what = NULL;
	size_t len = 0;
	int rc;

	if (asprintf(&what, "the key store %s", l->path) < 0)
		return cmek_error_sys(err, ENOMEM, "reading the key store %s", l->path);
	rc = cmek_local_file_read(l->path, CMEK_LOCAL_FILE_MAX, &text, &len, err);
	if (rc == 0 && text)
		rc = cmek_local_store_decode(text, len, what, &store, err);
	if (rc < 0 || !text)
		goto out;
	if (!keys_fit(&l->keys, &store)) {
		rc = cmek_local_master_open(&source, &store, &keys, err);
		if (rc < 0)
			goto out;
		cmek_local_keys_done(&l->keys);
		l->keys = keys;
	}
	rc = cmek_local_store_verify(&store, &l->keys, what, err);
out:
	if (rc < 0) {
		cmek_local_store_done(&store);
	} else {
		*ret_found = text != NULL;
		*ret_store = store;
	}
	free(text);
	free(what);
	return rc;
}

static int no_store(const struct cmek_local *l, struct cmek_error *err)
{
	if (l->name[0] == '\0')
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOKEY, "there is no key store %s", l->path);
	return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOKEY, "there is no key %s: the key store %s does not exist", l->uri,
			      l->path);
}

int cmek_local_load_existing(struct cmek_local *l, struct cmek_local_store *ret_store, struct cmek_error *err)
{
	bool found = false;
	int rc = cmek_local_load(l, ret_store, &found, err);

	if (rc == 0 && !found)
		rc = no_store(l, err);
	return rc;
}

void cmek_local_end(struct cmek_local_update *u)
{
	cmek_local_store_done(&u->store);
	if (u->lock_fd >= 0)
		close(u->lock_fd);
	u->lock_fd = -1;
}

/* Material whose date has passed goes with the next write, whatever that is for. */
static void purge_expired(struct cmek_local_store *store, int64_t now)
{
	for (size_t i = 0; i < store->n_keys; i++) {
		if (cmek_local_key_expired(&store->keys[i], now))
			cmek_local_key_destroy(&store->keys[i], store->keys[i].deletion_date);
	}
}

int cmek_local_commit(struct cmek_local *l, struct cmek_local_update *u, struct cmek_error *err)
{
	char *text = NULL;
	size_t len = 0;
	int rc;

	purge_expired(&u->store, u->now);
	u->store.sequence++;
	rc = cmek_local_store_encode(&u->store, &l->keys, &text, &len, err);
	/* A copy that a crash left behind would outlive the deletion of what is in it. */
	if (rc == 0)
		rc = cmek_local_file_sweep(l->path, text, cmek_local_store_head_len(text), err);
	if (rc == 0)
		rc = cmek_local_file_replace(l->path, text, len, err);
	free(text);
	return rc;
}

/* Whatever asks the user is done before the lock is taken, so that nobody waits for a human. */
int cmek_local_begin(struct cmek_local *l, struct cmek_local_update *u, struct cmek_error *err)
{
	int rc = 0;

	*u = (struct cmek_local_update){ .lock_fd = -1 };
	if (!l->keys.wrap)
		rc = cmek_local_load_existing(l, &u->store, err);
	cmek_local_store_done(&u->store);
	if (rc == 0)
		rc = cmek_local_file_lock(l->path, l->deadline_ms, &u->lock_fd, err);
	if (rc == 0)
		rc = cmek_local_load_existing(l, &u->store, err);
	if (rc < 0)
		cmek_local_end(u);
	else
		u->now = cmek_local_now();
	return rc;
}

/* Keys and their states */

bool cmek_local_is_destroyed(const struct cmek_local_key *key, int64_t now)
{
	return key->state == CMEK_KMS_DESTROYED || cmek_local_key_expired(key, now);
}

int cmek_local_find(const struct cmek_local *l, struct cmek_local_store *store, struct cmek_local_key **ret_key,
		struct cmek_error *err)
{
	if (l->name[0] == '\0')
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%s' names no key", l->uri);
	*ret_key = cmek_local_store_find(store, l->name);
	if (!*ret_key)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOKEY, "there is no key %s in the key store %s", l->uri,
				      l->path);
	return 0;
}

static int refuse_destroyed(const struct cmek_local *l, const struct cmek_local_key *key, struct cmek_error *err)
{
	char date[CMEK_TIME_TEXT];

	cmek_time_encode(key->deletion_date, date);
	return cmek_error_set(err, CMEK_E_KEY_DESTROYED, EKEYREVOKED, "the key %s was destroyed on %s (key store %s)",
			      l->uri, date, l->path);
}

static int refuse_pending(const struct cmek_local *l, const struct cmek_local_key *key, struct cmek_error *err)
{
	char date[CMEK_TIME_TEXT];

	cmek_time_encode(key->deletion_date, date);
	return cmek_error_set(err, CMEK_E_PENDING_DELETION, EKEYREVOKED,
			      "the key %s is pending deletion: it will be destroyed on %s (key store %s)", l->uri, date,
			      l->path);
}

int cmek_local_check_state(const struct cmek_local *l, const struct cmek_local_key *key, enum cmek_kms_state least,
			   int64_t now, struct cmek_error *err)
{
	if (cmek_local_is_destroyed(key, now))
		return refuse_destroyed(l, key, err);
	if (key->state == CMEK_KMS_PENDING_DELETION && least != CMEK_KMS_PENDING_DELETION)
		return refuse_pending(l, key, err);
	if (key->state == CMEK_KMS_DISABLED && least == CMEK_KMS_ENABLED)
		return cmek_error_set(err, CMEK_E_KEY_DISABLED, EKEYREVOKED, "the key %s is disabled (key store %s)", l->uri,
				      l->path);
	return 0;
}
