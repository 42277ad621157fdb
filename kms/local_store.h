/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_LOCAL_STORE_H
#define CMEK_KMS_LOCAL_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/secret.h"
#include "kms/kms.h"
#include "kms/kms_uri.h"

/*
 * The local key store as a value: its text form, its keys, and the cryptography of its parts. doc/kms/local.md is the
 * normative description of all bytes here. No I/O. One thread at a time per object.
 */
#define CMEK_LOCAL_KEY_LEN 32     /* master key, material, all derived keys */
#define CMEK_LOCAL_WRAPPED_LEN 60 /* nonce 12 | ciphertext 32 | tag 16 */
#define CMEK_LOCAL_SALT_LEN 32    /* scrypt */
#define CMEK_LOCAL_FILE_MAX (8u << 20)

enum cmek_local_protection { CMEK_LOCAL_KEY_FILE, CMEK_LOCAL_PASSPHRASE };

struct cmek_local_version {
	int64_t created; /* Unix seconds */
	bool destroyed;  /* wrapped is then zero */
	uint8_t wrapped[CMEK_LOCAL_WRAPPED_LEN];
};

/* Version n is versions[n - 1]; the last one is the primary; there is always one. */
struct cmek_local_key {
	char name[CMEK_KMS_LOCAL_NAME_MAX + 1];
	enum cmek_kms_state state; /* enabled, disabled, pending-deletion or destroyed */
	int64_t created;
	int64_t deletion_date; /* pending: when it goes; destroyed: when it went; else 0 */
	struct cmek_local_version *versions;
	size_t n_versions;
};

struct cmek_local_store {
	uint8_t uuid[16];
	int64_t created;
	uint64_t sequence; /* +1 at each write */
	enum cmek_local_protection protection;
	uint64_t scrypt_n; /* passphrase only, as the two below and the salt */
	uint32_t scrypt_r, scrypt_p;
	uint8_t salt[CMEK_LOCAL_SALT_LEN];
	uint8_t check[CMEK_LOCAL_KEY_LEN]; /* proves a master key right; says nothing of the rest */
	uint8_t mac[CMEK_SHA256_LEN];      /* as read; see cmek_local_store_verify() */
	struct cmek_local_key *keys;       /* sorted by name */
	size_t n_keys;
};

/* What the master key becomes for one store; filled by cmek_local_keys_derive(). A zeroed struct is empty. */
struct cmek_local_keys {
	struct cmek_secret *wrap; /* CMEK_KEY_STORE: wraps material */
	struct cmek_secret *mac;  /* CMEK_KEY_STORE: authenticates the text */
	uint8_t uuid[16];
	uint8_t check[CMEK_LOCAL_KEY_LEN];
};
/* master: CMEK_KEY_STORE, 32 bytes. */
int cmek_local_keys_derive(const struct cmek_secret *master, const uint8_t uuid[16], struct cmek_local_keys *ret_keys,
			   struct cmek_error *err);
void cmek_local_keys_done(struct cmek_local_keys *keys);

/* An empty store with a new UUID (and salt and parameters, for a passphrase). check is still to be filled. */
void cmek_local_store_init(struct cmek_local_store *store, enum cmek_local_protection protection, int64_t now);
void cmek_local_store_done(struct cmek_local_store *store);

/*
 * Text -> store. Every field is checked, nothing is authenticated: until cmek_local_store_verify() only uuid,
 * protection, the scrypt parameters and check may be used. what: "the key store PATH", for messages.
 * Kinds: bad-format; unsupported (a later format).
 */
int cmek_local_store_decode(const void *text, size_t len, const char *what, struct cmek_local_store *ret_store,
			    struct cmek_error *err);
/* Kind tampered, -EBADMSG, when the MAC does not fit what was read. */
int cmek_local_store_verify(const struct cmek_local_store *store, const struct cmek_local_keys *keys, const char *what,
			    struct cmek_error *err);
/* Store -> text with its MAC, malloced. Kind limit, -EFBIG, when it would exceed CMEK_LOCAL_FILE_MAX. */
int cmek_local_store_encode(const struct cmek_local_store *store, const struct cmek_local_keys *keys, char **ret_text,
			    size_t *ret_len, struct cmek_error *err);
/* How many bytes at the beginning of an encoded text are the same in all texts of that store, and in no other's. */
size_t cmek_local_store_head_len(const char *text);

/* The key, or NULL. */
struct cmek_local_key *cmek_local_store_find(struct cmek_local_store *store, const char *name);
/* Adds an enabled key without versions; name must not be there. *ret_key is valid until the next one is added. */
int cmek_local_store_add(struct cmek_local_store *store, const char *name, int64_t now,
			 struct cmek_local_key **ret_key, struct cmek_error *err);
/* Adds a version with new random material. */
int cmek_local_key_rotate(const struct cmek_local_store *store, struct cmek_local_key *key,
			  const struct cmek_local_keys *keys, int64_t now, struct cmek_error *err);
/* Forgets all material of the key; it stays as a tombstone. */
void cmek_local_key_destroy(struct cmek_local_key *key, int64_t date);
/* Pending, and the date has passed. */
bool cmek_local_key_expired(const struct cmek_local_key *key, int64_t now);
/* Material of version number n (1..n_versions, not destroyed): CMEK_KEY_STORE, 32 bytes. Kind tampered. */
int cmek_local_key_material(const struct cmek_local_store *store, const struct cmek_local_key *key, uint32_t n,
			    const struct cmek_local_keys *keys, struct cmek_secret **ret_material,
			    struct cmek_error *err);

#endif
