/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_XATTR_CRYPT_H
#define CMEK_TREE_XATTR_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/volume/keyring.h"

/*
 * Names and values of user.* and trusted.* attributes <-> those in the store (doc/format.md section 4.4). Pure: no I/O.
 * Thread-safe.
 */
#define CMEK_XATTR_NAME_MAX 255
#define CMEK_XATTR_STORED_NAME_LEN 39                       /* "user.cmekfs.", 22 characters, ".DDDD" */
#define CMEK_XATTR_HEAD_LEN (CMEK_SALT_LEN + 6 + 16)        /* salt, counter, tag */
#define CMEK_XATTR_OVERHEAD(name_len) (CMEK_XATTR_HEAD_LEN + 2 + (name_len))

/* The stored name of a full plain name under this DEK. 0 or -errno of the HMAC. */
int cmek_xattr_name(const struct cmek_secret *name_key, uint16_t dek, const char *name,
		    char ret_stored[CMEK_XATTR_STORED_NAME_LEN + 1]);
/* Whether this is a stored name of ours, and its DEK. */
bool cmek_xattr_name_parse(const char *stored, uint16_t *ret_dek);

/* out: CMEK_XATTR_OVERHEAD(strlen(name)) + len bytes. right: for one seal, key derived from it. */
int cmek_xattr_seal(const struct cmek_secret *key, const struct cmek_seal_right *right, const char *stored,
		    const char *name, const void *value, size_t len, uint8_t *out);
/*
 * Opens data (len bytes) in place. *ret_value: where in it the value begins. -EBADMSG: it does not authenticate, or its
 * name is not the one of `stored`. key: from the salt, which is the first CMEK_SALT_LEN bytes of data.
 */
int cmek_xattr_open(const struct cmek_secret *key, const struct cmek_secret *name_key, const char *stored, uint8_t *data,
		    size_t len, char ret_name[CMEK_XATTR_NAME_MAX + 1], const uint8_t **ret_value, size_t *ret_len);

#endif
