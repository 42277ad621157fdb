/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The bounded cache of descriptors and directory ids. Knows no names and makes no system call but close(2), which it
 * calls without a lock.
 */
#include "config.h"

#include "fs/tree/fd_cache.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#define N_SHARDS 16

struct cmek_fd_ref {
	uint64_t node;
	int fd;
	struct cmek_dir_id id;
	enum cmek_dir_state state;
	enum cmek_acl_state acl;
	unsigned refs;
	bool dead; /* not in the cache any more, freed by the last put */
	struct cmek_fd_ref *hash_next;
	struct cmek_fd_ref *newer, *older; /* in the list of entries not in use */
};

struct shard {
	pthread_mutex_t lock; /* guards all entries of the shard, but node and fd, which never change */
	struct cmek_fd_ref **buckets;
	struct cmek_fd_ref *newest, *oldest;
	unsigned n, n_idle;
} __attribute__((aligned(64)));

struct cmek_fd_cache {
	unsigned max_each; /* entries of one shard */
	int fd_end;
	unsigned n_buckets;
	struct shard shards[N_SHARDS];
};

static uint64_t hash_of(uint64_t node)
{
	uint64_t h = node * UINT64_C(0x9e3779b97f4a7c15);

	return h ^ h >> 29;
}

static struct shard *shard_of(struct cmek_fd_cache *cache, uint64_t node)
{
	return &cache->shards[hash_of(node) >> 60];
}

static struct cmek_fd_ref **bucket_of(struct cmek_fd_cache *cache, struct shard *shard, uint64_t node)
{
	return &shard->buckets[hash_of(node) & (cache->n_buckets - 1)];
}

int cmek_fd_cache_new(unsigned max, int fd_end, struct cmek_fd_cache **ret_cache, struct cmek_error *err)
{
	struct cmek_fd_cache *cache = calloc(1, sizeof *cache);
	unsigned i;
	int r = 0;

	if (!cache)
		return cmek_error_sys(err, ENOMEM, "descriptor cache");
	cache->max_each = max / N_SHARDS ? max / N_SHARDS : 1;
	cache->fd_end = fd_end;
	cache->n_buckets = 16;
	while (cache->n_buckets < cache->max_each)
		cache->n_buckets *= 2;
	for (i = 0; i < N_SHARDS; i++) {
		pthread_mutex_init(&cache->shards[i].lock, NULL);
		cache->shards[i].buckets = calloc(cache->n_buckets, sizeof *cache->shards[i].buckets);
		if (!cache->shards[i].buckets)
			r = -ENOMEM;
	}
	if (r) {
		cmek_fd_cache_free(cache);
		return cmek_error_sys(err, -r, "descriptor cache");
	}
	*ret_cache = cache;
	return 0;
}

static void entry_free(struct cmek_fd_ref *ref)
{
	close(ref->fd);
	free(ref);
}

/* All below with the shard's lock */

static void idle_add_locked(struct shard *shard, struct cmek_fd_ref *ref)
{
	ref->newer = NULL;
	ref->older = shard->newest;
	if (shard->newest)
		shard->newest->newer = ref;
	else
		shard->oldest = ref;
	shard->newest = ref;
	shard->n_idle++;
}

static void idle_remove_locked(struct shard *shard, struct cmek_fd_ref *ref)
{
	*(ref->newer ? &ref->newer->older : &shard->newest) = ref->older;
	*(ref->older ? &ref->older->newer : &shard->oldest) = ref->newer;
	ref->newer = ref->older = NULL;
	shard->n_idle--;
}

static struct cmek_fd_ref *find_locked(struct cmek_fd_cache *cache, struct shard *shard, uint64_t node)
{
	struct cmek_fd_ref *ref = *bucket_of(cache, shard, node);

	while (ref && ref->node != node)
		ref = ref->hash_next;
	return ref;
}

static void unhash_locked(struct cmek_fd_cache *cache, struct shard *shard, struct cmek_fd_ref *ref)
{
	struct cmek_fd_ref **link = bucket_of(cache, shard, ref->node);

	while (*link != ref)
		link = &(*link)->hash_next;
	*link = ref->hash_next;
	ref->hash_next = NULL;
	ref->dead = true;
	shard->n--;
}

/* Takes the oldest idle entry with a descriptor below fd_end out, if any; the caller frees it without the lock. */
static struct cmek_fd_ref *evict_locked(struct cmek_fd_cache *cache, struct shard *shard, int fd_end)
{
	struct cmek_fd_ref *ref = shard->oldest;

	while (ref && ref->fd >= fd_end)
		ref = ref->newer;
	if (ref) {
		idle_remove_locked(shard, ref);
		unhash_locked(cache, shard, ref);
	}
	return ref;
}

static void hold_locked(struct shard *shard, struct cmek_fd_ref *ref)
{
	if (ref->refs++ == 0)
		idle_remove_locked(shard, ref);
}

void cmek_fd_cache_free(struct cmek_fd_cache *cache)
{
	struct cmek_fd_ref *ref;
	unsigned i;

	if (!cache)
		return;
	for (i = 0; i < N_SHARDS; i++) {
		struct shard *shard = &cache->shards[i];

		while (shard->buckets && (ref = evict_locked(cache, shard, INT_MAX)))
			entry_free(ref);
		assert(shard->n == 0);
		free(shard->buckets);
		pthread_mutex_destroy(&shard->lock);
	}
	free(cache);
}

struct cmek_fd_ref *cmek_fd_cache_get(struct cmek_fd_cache *cache, uint64_t node)
{
	struct shard *shard = shard_of(cache, node);
	struct cmek_fd_ref *ref;

	pthread_mutex_lock(&shard->lock);
	ref = find_locked(cache, shard, node);
	if (ref)
		hold_locked(shard, ref);
	pthread_mutex_unlock(&shard->lock);
	return ref;
}

struct cmek_fd_ref *cmek_fd_cache_add(struct cmek_fd_cache *cache, uint64_t node, int *fd)
{
	struct shard *shard = shard_of(cache, node);
	struct cmek_fd_ref *new_ref = calloc(1, sizeof *new_ref), *ref, *victim = NULL;

	if (!new_ref)
		return NULL;
	new_ref->node = node;
	new_ref->fd = *fd;
	new_ref->refs = 1;
	*fd = -1;
	pthread_mutex_lock(&shard->lock);
	ref = find_locked(cache, shard, node);
	if (ref) {
		hold_locked(shard, ref);
		victim = new_ref;
	} else {
		ref = new_ref;
		if (shard->n >= cache->max_each)
			victim = evict_locked(cache, shard, INT_MAX);
		ref->hash_next = *bucket_of(cache, shard, node);
		*bucket_of(cache, shard, node) = ref;
		shard->n++;
	}
	pthread_mutex_unlock(&shard->lock);
	if (victim)
		entry_free(victim);
	return ref;
}

void cmek_fd_cache_put(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref)
{
	struct cmek_fd_ref *victim = NULL;
	struct shard *shard;

	if (!ref)
		return;
	shard = shard_of(cache, ref->node);
	pthread_mutex_lock(&shard->lock);
	assert(ref->refs);
	if (--ref->refs == 0) {
		if (!ref->dead && ref->fd >= cache->fd_end)
			unhash_locked(cache, shard, ref);
		if (ref->dead) {
			victim = ref;
		} else {
			idle_add_locked(shard, ref);
			if (shard->n > cache->max_each)
				victim = evict_locked(cache, shard, INT_MAX);
		}
	}
	pthread_mutex_unlock(&shard->lock);
	if (victim)
		entry_free(victim);
}

void cmek_fd_cache_drop(struct cmek_fd_cache *cache, uint64_t node)
{
	struct shard *shard = shard_of(cache, node);
	struct cmek_fd_ref *ref;

	pthread_mutex_lock(&shard->lock);
	ref = find_locked(cache, shard, node);
	if (ref) {
		unhash_locked(cache, shard, ref);
		if (ref->refs)
			ref = NULL;
		else
			idle_remove_locked(shard, ref);
	}
	pthread_mutex_unlock(&shard->lock);
	if (ref)
		entry_free(ref);
}

unsigned cmek_fd_cache_shrink(struct cmek_fd_cache *cache, int fd_end)
{
	struct cmek_fd_ref *victims, *ref;
	unsigned i, n = 0, half;

	for (i = 0; i < N_SHARDS; i++) {
		struct shard *shard = &cache->shards[i];

		victims = NULL;
		pthread_mutex_lock(&shard->lock);
		for (half = (shard->n_idle + 1) / 2; half; half--) {
			ref = evict_locked(cache, shard, fd_end);
			if (!ref)
				break;
			ref->hash_next = victims;
			victims = ref;
			n++;
		}
		pthread_mutex_unlock(&shard->lock);
		while ((ref = victims)) {
			victims = ref->hash_next;
			entry_free(ref);
		}
	}
	return n;
}

int cmek_fd_ref_fd(const struct cmek_fd_ref *ref)
{
	return ref->fd;
}

enum cmek_dir_state cmek_fd_ref_id(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref, struct cmek_dir_id *ret_id)
{
	struct shard *shard = shard_of(cache, ref->node);
	enum cmek_dir_state state;

	pthread_mutex_lock(&shard->lock);
	state = ref->state;
	if (state == CMEK_DIR_HAS_ID)
		*ret_id = ref->id;
	pthread_mutex_unlock(&shard->lock);
	return state;
}

void cmek_fd_ref_set_id(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref, const struct cmek_dir_id *id)
{
	struct shard *shard = shard_of(cache, ref->node);

	pthread_mutex_lock(&shard->lock);
	ref->state = CMEK_DIR_HAS_ID;
	ref->id = *id;
	pthread_mutex_unlock(&shard->lock);
}

void cmek_fd_ref_set_empty(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref)
{
	struct shard *shard = shard_of(cache, ref->node);

	pthread_mutex_lock(&shard->lock);
	if (ref->state == CMEK_DIR_UNKNOWN)
		ref->state = CMEK_DIR_EMPTY;
	pthread_mutex_unlock(&shard->lock);
}

enum cmek_acl_state cmek_fd_ref_acl(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref)
{
	struct shard *shard = shard_of(cache, ref->node);
	enum cmek_acl_state state;

	pthread_mutex_lock(&shard->lock);
	state = ref->acl;
	pthread_mutex_unlock(&shard->lock);
	return state;
}

void cmek_fd_ref_set_acl(struct cmek_fd_cache *cache, struct cmek_fd_ref *ref, enum cmek_acl_state state)
{
	struct shard *shard = shard_of(cache, ref->node);

	pthread_mutex_lock(&shard->lock);
	ref->acl = state;
	pthread_mutex_unlock(&shard->lock);
}

void cmek_fd_cache_forget_id(struct cmek_fd_cache *cache, uint64_t node)
{
	struct shard *shard = shard_of(cache, node);
	struct cmek_fd_ref *ref;

	pthread_mutex_lock(&shard->lock);
	ref = find_locked(cache, shard, node);
	if (ref)
		ref->state = CMEK_DIR_UNKNOWN;
	pthread_mutex_unlock(&shard->lock);
}
