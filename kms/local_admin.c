/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Administration of local keys: make, describe, rotate, and move between states. It wraps nothing and knows nothing of
 * blobs.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "kms/local_admin.h"
#include "kms/local_file.h"
#include "kms/local_handle.h"

#define DELETION_DAYS_DEFAULT 7
#define DELETION_DAYS_MAX 30
#define SECONDS_PER_DAY (24 * 60 * 60)

static int fill_info(const struct cmek_local_store *store, const struct cmek_local_key *key, int64_t now,
		     struct cmek_kms_info *info, struct cmek_error *err)
{
	info->state = cmek_local_is_destroyed(key, now) ? CMEK_KMS_DESTROYED : key->state;
	info->created = key->created;
	info->deletion_date = key->deletion_date;
	info->origin = strdup("local");
	info->protection_level = strdup("software");
	info->protected_by = strdup(store->protection == CMEK_LOCAL_PASSPHRASE ? "passphrase" : "key file");
	info->versions = calloc(key->n_versions, sizeof(*info->versions));
	if (asprintf(&info->resolved, "local:%s", key->name) < 0)
		info->resolved = NULL;
	if (asprintf(&info->primary_version, "%zu", key->n_versions) < 0)
		info->primary_version = NULL;
	if (!info->origin || !info->protection_level || !info->protected_by || !info->versions || !info->resolved ||
	    !info->primary_version)
		return cmek_error_sys(err, ENOMEM, "describing local:%s", key->name);
	for (size_t i = 0; i < key->n_versions; i++) {
		struct cmek_kms_version *v = &info->versions[info->n_versions];

		if (asprintf(&v->id, "%zu", i + 1) < 0) {
			v->id = NULL;
			return cmek_error_sys(err, ENOMEM, "describing local:%s", key->name);
		}
		info->n_versions++;
		/* Not info->state: material that has to go and is still there is not called destroyed. */
		v->state = key->versions[i].destroyed ? CMEK_KMS_DESTROYED : key->state;
		v->created = key->versions[i].created;
	}
	return 0;
}

/*
 * Removes the material of keys whose date has passed. Not being able to (a read-only file system, another user's
 * store) does not make a description fail: the versions then still show as pending.
 */
static void purge_now(struct cmek_local *l, struct cmek_local_store *store)
{
	struct cmek_error why = CMEK_ERROR_INIT;
	struct cmek_local_update u;
	int rc;

	rc = cmek_local_begin(l, &u, &why);
	if (rc < 0) {
		cmek_log(CMEK_LOG_DEBUG, "expired keys stay in the store: %s", why.text);
		return;
	}
	rc = cmek_local_commit(l, &u, &why);
	if (rc < 0) {
		cmek_log(CMEK_LOG_DEBUG, "expired keys stay in the store: %s", why.text);
	} else {
		cmek_local_store_done(store);
		*store = u.store;
		memset(&u.store, 0, sizeof(u.store));
	}
	cmek_local_end(&u);
}

static int load_purged(struct cmek_local *l, struct cmek_local_store *ret_store, struct cmek_error *err)
{
	int64_t now = cmek_local_now();
	bool expired = false;
	int rc = cmek_local_load_existing(l, ret_store, err);

	for (size_t i = 0; rc == 0 && i < ret_store->n_keys; i++)
		expired = expired || cmek_local_key_expired(&ret_store->keys[i], now);
	if (expired)
		purge_now(l, ret_store);
	return rc;
}

int cmek_local_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_store store = { 0 };
	struct cmek_local_key *key = NULL;
	int rc;

	rc = load_purged(l, &store, err);
	if (rc == 0)
		rc = cmek_local_find(l, &store, &key, err);
	if (rc == 0)
		rc = fill_info(&store, key, cmek_local_now(), ret_info, err);
	cmek_local_store_done(&store);
	return rc;
}

int cmek_local_list(void *state, struct cmek_kms_info **ret_infos, size_t *ret_n, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_store store = { 0 };
	struct cmek_kms_info *infos = NULL;
	size_t n = 0;
	int rc;

	rc = load_purged(l, &store, err);
	if (rc < 0)
		goto out;
	infos = calloc(store.n_keys + 1, sizeof(*infos));
	if (!infos) {
		rc = cmek_error_sys(err, ENOMEM, "listing the key store %s", l->path);
		goto out;
	}
	while (rc == 0 && n < store.n_keys) {
		rc = fill_info(&store, &store.keys[n], cmek_local_now(), &infos[n], err);
		n++;
	}
	if (rc == 0) {
		*ret_infos = infos;
		*ret_n = n;
		infos = NULL;
	}
out:
	for (size_t i = 0; infos && i < n; i++)
		cmek_kms_info_done(&infos[i]);
	free(infos);
	cmek_local_store_done(&store);
	return rc;
}

static int refuse_existing(const struct cmek_local *l, const struct cmek_local_key *key, int64_t now,
			   struct cmek_error *err)
{
	const char *state = cmek_kms_state_name(cmek_local_is_destroyed(key, now) ? CMEK_KMS_DESTROYED : key->state);

	return cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "the key store %s already has a key %s (%s)", l->path, l->uri,
			      state);
}

/* Adds the handle's key, with a first version, to the store of an update, and writes it. */
static int add_key(struct cmek_local *l, struct cmek_local_update *u, struct cmek_error *err)
{
	struct cmek_local_key *key = cmek_local_store_find(&u->store, l->name);
	int rc;

	if (key)
		return refuse_existing(l, key, u->now, err);
	rc = cmek_local_store_add(&u->store, l->name, u->now, &key, err);
	if (rc == 0)
		rc = cmek_local_key_rotate(&u->store, key, &l->keys, u->now, err);
	if (rc == 0)
		rc = cmek_local_commit(l, u, err);
	return rc;
}

static int create_in_store(struct cmek_local *l, const struct cmek_kms_create *how, struct cmek_error *err)
{
	struct cmek_local_update u;
	int rc;

	rc = cmek_local_begin(l, &u, err);
	if (rc < 0)
		return rc;
	if (how->passphrase && u.store.protection != CMEK_LOCAL_PASSPHRASE)
		rc = cmek_error_set(err, CMEK_E_USAGE, EEXIST,
				    "the key store %s is protected by a key file; a passphrase can only be chosen for a new "
				    "store",
				    l->path);
	else
		rc = add_key(l, &u, err);
	cmek_local_end(&u);
	return rc;
}

/* *ret_raced: someone else has made the store in the meantime, nothing was done. */
static int create_store(struct cmek_local *l, const struct cmek_kms_create *how, bool *ret_raced,
			struct cmek_error *err)
{
	struct cmek_local_update u = { .lock_fd = -1, .now = cmek_local_now() };
	struct cmek_local_source source = cmek_local_source_of(l);
	struct cmek_local_keys keys = { 0 };
	char *text = NULL;
	size_t len = 0;
	int rc = 0;

	cmek_local_store_init(&u.store, how->passphrase ? CMEK_LOCAL_PASSPHRASE : CMEK_LOCAL_KEY_FILE, u.now);
	if (l->path_is_default)
		rc = cmek_local_file_make_dir(l->path, err);
	/* The passphrase is asked for before the lock is taken, the key file is made under it. */
	if (rc == 0 && how->passphrase)
		rc = cmek_local_master_make(&source, &u.store, &keys, err);
	if (rc == 0)
		rc = cmek_local_file_lock(l->path, l->deadline_ms, &u.lock_fd, err);
	if (rc == 0)
		rc = cmek_local_file_read(l->path, CMEK_LOCAL_FILE_MAX, &text, &len, err);
	*ret_raced = text != NULL;
	if (rc < 0 || text)
		goto out;
	if (!how->passphrase)
		rc = cmek_local_master_make(&source, &u.store, &keys, err);
	if (rc < 0)
		goto out;
	cmek_local_keys_done(&l->keys);
	l->keys = keys;
	memset(&keys, 0, sizeof(keys));
	rc = add_key(l, &u, err);
out:
	cmek_local_keys_done(&keys);
	cmek_local_end(&u);
	free(text);
	return rc;
}

int cmek_local_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_store store = { 0 };
	bool found = false, raced = false;
	int rc;

	if (l->name[0] == '\0')
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%s' names no key", l->uri);
	do {
		rc = cmek_local_load(l, &store, &found, err);
		cmek_local_store_done(&store);
		if (rc < 0)
			return rc;
		raced = false;
		rc = found ? create_in_store(l, how, err) : create_store(l, how, &raced, err);
	} while (rc == 0 && raced);
	return rc;
}

/* Begins an update and finds the key, whose state must be `least` or better. */
static int begin_on_key(struct cmek_local *l, enum cmek_kms_state least, struct cmek_local_update *u,
			struct cmek_local_key **ret_key, struct cmek_error *err)
{
	int rc = cmek_local_begin(l, u, err);

	if (rc < 0)
		return rc;
	rc = cmek_local_find(l, &u->store, ret_key, err);
	if (rc == 0)
		rc = cmek_local_check_state(l, *ret_key, least, u->now, err);
	if (rc < 0)
		cmek_local_end(u);
	return rc;
}

int cmek_local_rotate(void *state, char **ret_version, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_key *key = NULL;
	struct cmek_local_update u;
	char *version = NULL;
	int rc;

	rc = begin_on_key(l, CMEK_KMS_ENABLED, &u, &key, err);
	if (rc < 0)
		return rc;
	/* The answer is made first: once the new version is written, nothing may fail any more. */
	if (asprintf(&version, "%zu", key->n_versions + 1) < 0) {
		version = NULL;
		rc = cmek_error_sys(err, ENOMEM, "rotating %s", l->uri);
	}
	if (rc == 0)
		rc = cmek_local_key_rotate(&u.store, key, &l->keys, u.now, err);
	if (rc == 0)
		rc = cmek_local_commit(l, &u, err);
	if (rc == 0) {
		*ret_version = version;
		version = NULL;
	}
	free(version);
	cmek_local_end(&u);
	return rc;
}

static int set_state(struct cmek_local *l, enum cmek_kms_state state, struct cmek_error *err)
{
	struct cmek_local_key *key = NULL;
	struct cmek_local_update u;
	int rc;

	rc = begin_on_key(l, CMEK_KMS_DISABLED, &u, &key, err);
	if (rc < 0)
		return rc;
	if (key->state != state) {
		key->state = state;
		rc = cmek_local_commit(l, &u, err);
	}
	cmek_local_end(&u);
	return rc;
}

int cmek_local_enable(void *state, struct cmek_error *err)
{
	return set_state(state, CMEK_KMS_ENABLED, err);
}

int cmek_local_disable(void *state, struct cmek_error *err)
{
	return set_state(state, CMEK_KMS_DISABLED, err);
}

int cmek_local_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_key *key = NULL;
	struct cmek_local_update u;
	int rc;

	if (days == CMEK_KMS_DAYS_DEFAULT)
		days = DELETION_DAYS_DEFAULT;
	if (days > DELETION_DAYS_MAX)
		return cmek_error_set(err, CMEK_E_USAGE, ERANGE, "a local key is deleted after 0 to %d days, not after %u",
				      DELETION_DAYS_MAX, days);
	rc = begin_on_key(l, CMEK_KMS_PENDING_DELETION, &u, &key, err);
	if (rc < 0)
		return rc;
	key->state = CMEK_KMS_PENDING_DELETION;
	key->deletion_date = u.now + (int64_t)days * SECONDS_PER_DAY;
	*ret_date = key->deletion_date;
	/* With 0 days the date has passed already, so that this very write removes the material. */
	rc = cmek_local_commit(l, &u, err);
	cmek_local_end(&u);
	return rc;
}

int cmek_local_cancel_deletion(void *state, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_key *key = NULL;
	struct cmek_local_update u;
	int rc;

	rc = begin_on_key(l, CMEK_KMS_PENDING_DELETION, &u, &key, err);
	if (rc < 0)
		return rc;
	if (key->state == CMEK_KMS_PENDING_DELETION) {
		key->state = CMEK_KMS_DISABLED; /* as the cloud services do: coming back into use is a decision of its own */
		key->deletion_date = 0;
		rc = cmek_local_commit(l, &u, err);
	} else {
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the key %s is %s, not pending deletion", l->uri,
				    cmek_kms_state_name(key->state));
	}
	cmek_local_end(&u);
	return rc;
}
