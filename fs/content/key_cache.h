/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_KEY_CACHE_H
#define CMEK_CONTENT_KEY_CACHE_H

#include "fs/volume/keyring.h"

/*
 * Content keys of (DEK, session salt, file id), derived when missing; the least recently used go first. Thread-safe.
 */
struct cmek_key_cache;

/* capacity: keys kept (64 bytes of locked memory each). The ring is borrowed. 0 or -ENOMEM. */
int cmek_key_cache_new(struct cmek_keyring *ring, unsigned capacity, struct cmek_key_cache **ret_cache);
void cmek_key_cache_free(struct cmek_key_cache *cache);
/* Lets go of every key; those that others have just derived are not kept either. */
void cmek_key_cache_clear(struct cmek_key_cache *cache);

/* How often a key was there, and how often it had to be derived. */
void cmek_key_cache_counts(struct cmek_key_cache *cache, uint64_t *ret_hits, uint64_t *ret_misses);

/* The key, with a reference that the caller gives back by cmek_secret_free(). Errors of cmek_keyring_content_key(). */
int cmek_key_cache_get(struct cmek_key_cache *cache, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
		       const uint8_t file_id[CMEK_FILE_ID_LEN], struct cmek_secret **ret_key);

#endif
