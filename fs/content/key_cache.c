/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A bounded cache in front of the derivation of content keys: sets of a few keys each, least recently used out.
 * Salts and file ids are random, so their first bytes are the hash.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "fs/content/key_cache.h"

enum { WAYS = 4 };

struct slot {
	uint8_t salt[CMEK_SALT_LEN];
	uint8_t file_id[CMEK_FILE_ID_LEN];
	uint16_t dek;
	uint64_t used; /* value of the cache's clock when last used */
	struct cmek_secret *key; /* NULL: free */
};

struct cmek_key_cache {
	struct cmek_keyring *ring;
	pthread_mutex_t lock; /* guards all below */
	uint64_t clock;
	uint64_t clears; /* a key that was derived before the last one is not kept */
	uint64_t hits, misses;
	size_t n_sets;
	struct slot *slots; /* n_sets * WAYS */
};

int cmek_key_cache_new(struct cmek_keyring *ring, unsigned capacity, struct cmek_key_cache **ret_cache)
{
	struct cmek_key_cache *cache = calloc(1, sizeof(*cache));

	if (cache == NULL)
		return -ENOMEM;
	cache->ring = ring;
	cache->n_sets = capacity < WAYS ? 1 : capacity / WAYS;
	cache->slots = calloc(cache->n_sets * WAYS, sizeof(*cache->slots));
	if (cache->slots == NULL) {
		free(cache);
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&cache->lock, NULL); /* can't fail with default attributes */
	*ret_cache = cache;
	return 0;
}

void cmek_key_cache_clear(struct cmek_key_cache *cache)
{
	size_t i;

	(void)pthread_mutex_lock(&cache->lock);
	cache->clears++;
	for (i = 0; i < cache->n_sets * WAYS; i++) {
		cmek_secret_free(cache->slots[i].key);
		cache->slots[i].key = NULL;
	}
	(void)pthread_mutex_unlock(&cache->lock);
}

void cmek_key_cache_free(struct cmek_key_cache *cache)
{
	if (cache == NULL)
		return;
	cmek_key_cache_clear(cache);
	free(cache->slots);
	(void)pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct slot *set_of(struct cmek_key_cache *cache, const uint8_t *salt, const uint8_t *file_id)
{
	return cache->slots + (cmek_load64(salt) ^ cmek_load64(file_id)) % cache->n_sets * WAYS;
}

static struct cmek_secret *find_locked(struct cmek_key_cache *cache, uint16_t dek, const uint8_t *salt,
				       const uint8_t *file_id)
{
	struct slot *set = set_of(cache, salt, file_id);
	int i;

	for (i = 0; i < WAYS; i++) {
		if (set[i].key != NULL && set[i].dek == dek && memcmp(set[i].salt, salt, CMEK_SALT_LEN) == 0 &&
		    memcmp(set[i].file_id, file_id, CMEK_FILE_ID_LEN) == 0) {
			set[i].used = ++cache->clock;
			return cmek_secret_ref(set[i].key);
		}
	}
	return NULL;
}

int cmek_key_cache_get(struct cmek_key_cache *cache, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
		       const uint8_t file_id[CMEK_FILE_ID_LEN], struct cmek_secret **ret_key)
{
	struct cmek_secret *key, *old = NULL, *raced;
	struct slot *set, *victim;
	uint64_t clears;
	int i, r;

	(void)pthread_mutex_lock(&cache->lock);
	key = find_locked(cache, dek, salt, file_id);
	cache->hits += key != NULL;
	cache->misses += key == NULL;
	clears = cache->clears;
	(void)pthread_mutex_unlock(&cache->lock);
	if (key != NULL) {
		*ret_key = key;
		return 0;
	}

	r = cmek_keyring_content_key(cache->ring, dek, salt, file_id, &key);
	if (r < 0)
		return r;

	(void)pthread_mutex_lock(&cache->lock);
	/* Two threads may derive the same key at once: one copy stays, so that cipher contexts see one serial. */
	raced = find_locked(cache, dek, salt, file_id);
	if (raced != NULL) {
		old = key;
		key = raced;
	} else if (cache->clears == clears) {
		set = set_of(cache, salt, file_id);
		victim = set;
		for (i = 1; i < WAYS; i++)
			if (set[i].key == NULL || (victim->key != NULL && set[i].used < victim->used))
				victim = set + i;
		old = victim->key;
		memcpy(victim->salt, salt, CMEK_SALT_LEN);
		memcpy(victim->file_id, file_id, CMEK_FILE_ID_LEN);
		victim->dek = dek;
		victim->used = ++cache->clock;
		victim->key = cmek_secret_ref(key);
	}
	(void)pthread_mutex_unlock(&cache->lock);
	cmek_secret_free(old);
	*ret_key = key;
	return 0;
}

void cmek_key_cache_counts(struct cmek_key_cache *cache, uint64_t *ret_hits, uint64_t *ret_misses)
{
	(void)pthread_mutex_lock(&cache->lock);
	*ret_hits = cache->hits;
	*ret_misses = cache->misses;
	(void)pthread_mutex_unlock(&cache->lock);
}
