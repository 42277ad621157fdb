/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_NAME_CRYPT_H
#define CMEK_TREE_NAME_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/secret.h"
#include "fs/volume/keyring.h"

/*
 * Plain names <-> names in the store (doc/format.md section 4.2). Pure: no I/O. Thread-safe.
 * SIV (RFC 5297) with the directory id as associated data, base64url (RFC 4648 section 5) without padding.
 */
#define CMEK_PLAIN_NAME_MAX 255
#define CMEK_STORED_FORM_MAX 362 /* of 255 plain bytes */
#define CMEK_STORED_FORM_MIN 23  /* of 1 plain byte */
#define CMEK_LONG_HASH_LEN 43    /* b64url of SHA-256 */

struct cmek_stored_name {
	char form[CMEK_STORED_FORM_MAX + 1]; /* the stored form */
	char entry[256];                     /* the entry's name in the store: the stored form, or H.n */
	char link[CMEK_LONG_HASH_LEN + 3];   /* H.l of a long name, else empty */
};

/* What a name found in a store directory is. */
enum cmek_store_name_kind {
	CMEK_STORE_NAME_FOREIGN, /* not ours: not listed */
	CMEK_STORE_NAME_OWN,     /* .cmekfs, .cmekfs.dir and the like */
	CMEK_STORE_NAME_SHORT,   /* an entry; the name is its stored form */
	CMEK_STORE_NAME_LONG,    /* an entry, H.n */
	CMEK_STORE_NAME_LINK     /* H.l */
};
enum cmek_store_name_kind cmek_name_kind(const char *name);

/* 0; -ENAMETOOLONG above 255 bytes; -EINVAL for an empty name, ".", "..", or one with a slash. */
int cmek_name_check(const char *plain);

/* plain must have passed cmek_name_check(). */
int cmek_name_encrypt(const struct cmek_secret *name_key, const uint8_t dir_id[CMEK_DIR_ID_LEN], const char *plain,
		      struct cmek_stored_name *ret_name);
/* -EBADMSG when the form does not authenticate, or what it holds is no name. */
int cmek_name_decrypt(const struct cmek_secret *name_key, const uint8_t dir_id[CMEK_DIR_ID_LEN], const char *form,
		      size_t len, char ret_plain[CMEK_PLAIN_NAME_MAX + 1]);

/* H.l of H.n (a CMEK_STORE_NAME_LONG). */
void cmek_name_link_of(const char *entry, char ret_link[CMEK_LONG_HASH_LEN + 3]);
/* 0 when `form` is the stored form that the long entry's hash belongs to, else -EBADMSG. */
int cmek_name_long_check(const char *entry, const char *form, size_t len);

#endif
