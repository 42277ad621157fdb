/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Gets the master key of a local key store from its key file or from a passphrase, and turns it into the keys of that
 * store. It does not know what the store holds.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/local_file.h"
#include "kms/local_master.h"

#define KEY_FILE_SUFFIX ".key"

static int key_file_path(const char *path, char **ret_path, struct cmek_error *err)
{
	if (asprintf(ret_path, "%s" KEY_FILE_SUFFIX, path) < 0)
		return cmek_error_sys(err, ENOMEM, "opening the key store %s", path);
	return 0;
}

static int ask(const struct cmek_local_source *source, const char *what, struct cmek_secret **ret_passphrase,
	       struct cmek_error *err)
{
	char *prompt = NULL;
	int rc;

	if (asprintf(&prompt, "%s for the key store %s: ", what, source->path) < 0)
		return cmek_error_sys(err, ENOMEM, "asking for a passphrase");
	rc = source->ask(source->ask_arg, prompt, ret_passphrase, err);
	free(prompt);
	return rc;
}

static bool same_text(const struct cmek_secret *a, const struct cmek_secret *b)
{
	return cmek_secret_len(a) == cmek_secret_len(b) &&
	       cmek_equal(cmek_secret_bytes(a, CMEK_KEY_TEXT), cmek_secret_bytes(b, CMEK_KEY_TEXT), cmek_secret_len(a));
}

/* A new one is typed twice: nobody could read the store of someone who mistyped it. */
static int get_passphrase(const struct cmek_local_source *source, bool is_new, struct cmek_secret **ret_passphrase,
			  struct cmek_error *err)
{
	struct cmek_secret *first = NULL, *again = NULL;
	int rc;

	if (source->passphrase_file)
		return cmek_local_file_passphrase(source->passphrase_file, ret_passphrase, err);
	if (!source->ask)
		return cmek_error_set(err, CMEK_E_DENIED, ENOTTY,
				      "the key store %s needs its passphrase, and there is neither a passphrase file nor "
				      "anyone to ask",
				      source->path);
	rc = ask(source, is_new ? "New passphrase" : "Passphrase", &first, err);
	if (rc == 0 && is_new)
		rc = ask(source, "The same passphrase again", &again, err);
	if (rc == 0 && is_new && !same_text(first, again))
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the two passphrases differ");
	if (rc == 0) {
		*ret_passphrase = first;
		first = NULL;
	}
	cmek_secret_free(first);
	cmek_secret_free(again);
	return rc;
}

static int from_passphrase(const struct cmek_local_source *source, const struct cmek_local_store *store, bool is_new,
			   struct cmek_secret **ret_master, struct cmek_error *err)
{
	struct cmek_secret *passphrase = NULL;
	int rc;

	rc = get_passphrase(source, is_new, &passphrase, err);
	if (rc == 0)
		rc = cmek_scrypt(passphrase, store->salt, sizeof(store->salt), store->scrypt_n, store->scrypt_r,
				 store->scrypt_p, ret_master, err);
	cmek_secret_free(passphrase);
	return rc;
}

/* Makes the key file: complete and durable before any store that needs it is. */
static int make_key_file(const char *path, struct cmek_secret **ret_master, struct cmek_error *err)
{
	struct cmek_secret *master = NULL;
	int rc;

	rc = cmek_secret_new_random(CMEK_KEY_STORE, CMEK_LOCAL_KEY_LEN, &master, err);
	if (rc == 0)
		rc = cmek_local_file_replace(path, cmek_secret_bytes(master, CMEK_KEY_STORE), CMEK_LOCAL_KEY_LEN, err);
	if (rc < 0)
		cmek_secret_free(master);
	else
		*ret_master = master;
	return rc;
}

static int from_key_file(const char *path, bool may_make, struct cmek_secret **ret_master, struct cmek_error *err)
{
	struct cmek_error why = CMEK_ERROR_INIT;
	int rc;

	rc = cmek_local_file_read_secret("the key file", path, CMEK_KEY_STORE, CMEK_LOCAL_KEY_LEN, ret_master, &why);
	/* Left behind by a first use that a crash cut short, it is used; when it is missing beside a store, never made. */
	if (rc == -ENOENT && may_make)
		return make_key_file(path, ret_master, err);
	if (rc < 0)
		cmek_error_set(err, why.kind, why.err, "%s", why.text);
	return rc;
}

/* The master key, by the store's kind of protection, and the path of its key file. make: for a store that is new. */
static int get_master(const struct cmek_local_source *source, const struct cmek_local_store *store, bool make,
		      struct cmek_secret **ret_master, char **ret_key_file, struct cmek_error *err)
{
	int rc = key_file_path(source->path, ret_key_file, err);

	if (rc < 0)
		return rc;
	if (store->protection == CMEK_LOCAL_PASSPHRASE)
		return from_passphrase(source, store, make, ret_master, err);
	return from_key_file(*ret_key_file, make, ret_master, err);
}

int cmek_local_master_open(const struct cmek_local_source *source, const struct cmek_local_store *store,
			   struct cmek_local_keys *ret_keys, struct cmek_error *err)
{
	struct cmek_local_keys keys = { 0 };
	struct cmek_secret *master = NULL;
	char *key_file = NULL;
	int rc;

	rc = get_master(source, store, false, &master, &key_file, err);
	if (rc == 0)
		rc = cmek_local_keys_derive(master, store->uuid, &keys, err);
	if (rc == 0 && !cmek_equal(keys.check, store->check, sizeof(keys.check))) {
		if (store->protection == CMEK_LOCAL_PASSPHRASE)
			rc = cmek_error_set(err, CMEK_E_DENIED, EKEYREJECTED, "wrong passphrase for the key store %s",
					    source->path);
		else
			rc = cmek_error_set(err, CMEK_E_DENIED, EKEYREJECTED,
					    "the key file %s does not belong to the key store %s", key_file, source->path);
	}
	if (rc < 0)
		cmek_local_keys_done(&keys);
	else
		*ret_keys = keys;
	cmek_secret_free(master);
	free(key_file);
	return rc;
}

int cmek_local_master_make(const struct cmek_local_source *source, struct cmek_local_store *store,
			   struct cmek_local_keys *ret_keys, struct cmek_error *err)
{
	struct cmek_secret *master = NULL;
	char *key_file = NULL;
	int rc;

	rc = get_master(source, store, true, &master, &key_file, err);
	if (rc == 0)
		rc = cmek_local_keys_derive(master, store->uuid, ret_keys, err);
	if (rc == 0)
		memcpy(store->check, ret_keys->check, sizeof(store->check));
	cmek_secret_free(master);
	free(key_file);
	return rc;
}
