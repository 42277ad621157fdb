/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The cache of decoded map pages, shared by all files of a volume, and the loading of a page. Knows where pages lie and
 * how they are checked; the plain data of blocks is not its business, except for a tail that a crash left longer.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fs/content/ofile.h"

static struct cmek_group **bucket_of(struct cmek_content *content, const struct cmek_ofile *file, uint64_t index)
{
	uint64_t h = ((uint64_t)(uintptr_t)file >> 6) * UINT64_C(0x9e3779b97f4a7c15) + index * UINT64_C(0xff51afd7ed558ccd);

	return content->groups + (h ^ h >> 32) % content->n_buckets;
}

static void lru_unlink_locked(struct cmek_content *content, struct cmek_group *group)
{
	*(group->lru_prev ? &group->lru_prev->lru_next : &content->lru_head) = group->lru_next;
	*(group->lru_next ? &group->lru_next->lru_prev : &content->lru_tail) = group->lru_prev;
	group->lru_prev = group->lru_next = NULL;
}

static void lru_append_locked(struct cmek_content *content, struct cmek_group *group)
{
	group->lru_prev = content->lru_tail;
	group->lru_next = NULL;
	*(content->lru_tail ? &content->lru_tail->lru_next : &content->lru_head) = group;
	content->lru_tail = group;
}

/* Out of the hash and off the file; the caller frees it after the lock. */
static void unhash_locked(struct cmek_content *content, struct cmek_group *group)
{
	struct cmek_group **p = bucket_of(content, group->file, group->index);

	while (*p != group)
		p = &(*p)->hash_next;
	*p = group->hash_next;
	*(group->file_prev ? &group->file_prev->file_next : &group->file->groups) = group->file_next;
	if (group->file_next)
		group->file_next->file_prev = group->file_prev;
	content->n_groups--;
}

static void group_free(struct cmek_group *group)
{
	unsigned i;

	if (group == NULL)
		return;
	for (i = 0; i < CMEK_GROUP_BLOCKS; i++)
		cmek_group_hold_locked(group, i, NULL);
	(void)pthread_rwlock_destroy(&group->lock);
	free(group);
}

static struct cmek_group *find_locked(struct cmek_content *content, struct cmek_ofile *file, uint64_t index)
{
	struct cmek_group *group = *bucket_of(content, file, index);

	while (group != NULL && (group->file != file || group->index != index))
		group = group->hash_next;
	if (group != NULL && group->refs++ == 0)
		lru_unlink_locked(content, group);
	return group;
}

struct cmek_group *cmek_group_peek(struct cmek_ofile *file, uint64_t index)
{
	struct cmek_content *content = file->content;
	struct cmek_group *group;

	(void)pthread_mutex_lock(&content->groups_lock);
	group = find_locked(content, file, index);
	(void)pthread_mutex_unlock(&content->groups_lock);
	return group;
}

uint64_t cmek_group_next_in_memory(struct cmek_ofile *file, uint64_t first)
{
	struct cmek_content *content = file->content;
	uint64_t next = UINT64_MAX;
	struct cmek_group *group;

	(void)pthread_mutex_lock(&content->groups_lock);
	for (group = file->groups; group != NULL; group = group->file_next)
		if (group->index >= first && group->index < next)
			next = group->index;
	(void)pthread_mutex_unlock(&content->groups_lock);
	return next;
}

static void insert_locked(struct cmek_content *content, struct cmek_group *group)
{
	struct cmek_group **p = bucket_of(content, group->file, group->index);

	group->hash_next = *p;
	*p = group;
	group->file_next = group->file->groups;
	if (group->file_next)
		group->file_next->file_prev = group;
	group->file->groups = group;
	content->n_groups++;
}

/* Finds or inserts in one critical section; evicts an old one to make room. */
static struct cmek_group *find_or_insert(struct cmek_ofile *file, uint64_t index)
{
	struct cmek_content *content = file->content;
	struct cmek_group *evicted = NULL, *group, *made;

	group = cmek_group_peek(file, index);
	atomic_fetch_add_explicit(group != NULL ? &content->group_hits : &content->group_misses, 1, memory_order_relaxed);
	if (group != NULL)
		return group;
	made = calloc(1, sizeof(*made));
	if (made == NULL)
		return NULL;
	made->file = file;
	made->index = index;
	made->refs = 1;
	(void)pthread_rwlock_init(&made->lock, NULL);

	(void)pthread_mutex_lock(&content->groups_lock);
	group = find_locked(content, file, index);
	if (group == NULL) {
		if (content->n_groups >= content->max_groups && content->lru_head != NULL) {
			evicted = content->lru_head;
			lru_unlink_locked(content, evicted);
			unhash_locked(content, evicted);
		}
		insert_locked(content, made);
		group = made;
		made = NULL;
	}
	(void)pthread_mutex_unlock(&content->groups_lock);
	group_free(made);
	group_free(evicted);
	return group;
}

void cmek_group_put(struct cmek_group *group)
{
	struct cmek_content *content;
	bool drop = false;

	if (group == NULL)
		return;
	content = group->file->content;
	(void)pthread_mutex_lock(&content->groups_lock);
	assert(group->refs > 0);
	if (--group->refs == 0) {
		/* One whose page could not be read is not kept: the next reader tries again. */
		drop = !atomic_load(&group->loaded) || content->n_groups > content->max_groups;
		if (drop)
			unhash_locked(content, group);
		else
			lru_append_locked(content, group);
	}
	(void)pthread_mutex_unlock(&content->groups_lock);
	if (drop)
		group_free(group);
}

/*
 * The page was sealed when the file was longer (a crash without a journal): its tail block is longer than the file's
 * size says. It is cut to size in memory; with the next commit in the store, too.
 */
static int shorten_tail(struct cmek_group *group, uint32_t sealed_bytes, uint32_t true_bytes)
{
	struct cmek_ofile *file = group->file;
	uint32_t block_size = file->content->params.block_size;
	unsigned i = true_bytes / block_size;
	uint32_t len = true_bytes % block_size;
	uint32_t sealed_len = sealed_bytes - i * block_size < block_size ? sealed_bytes - i * block_size : block_size;
	uint64_t block = group->index * CMEK_GROUP_BLOCKS + i;
	struct cmek_scratch *scratch = cmek_scratch_get(file->content);
	struct cmek_seal_right right;
	struct cmek_secret *key = NULL;
	struct cmek_held *held;
	int r;

	memset(group->entries + (i + (len > 0)) * CMEK_ENTRY_BYTES, 0,
	       CMEK_MAP_ENTRIES_BYTES - (i + (len > 0)) * CMEK_ENTRY_BYTES);
	if (len == 0 || len == sealed_len || cmek_entry_is_hole(cmek_group_entry(group, i)))
		return 0;
	held = malloc(sizeof(*held) + len);
	if (held == NULL || scratch == NULL) {
		free(held);
		return -ENOMEM;
	}
	held->len = len;
	r = cmek_block_read_locked(group, block, sealed_len, scratch->plain);
	if (r == 0)
		r = cmek_ofile_seal_key(file, 1, len, &right, &key);
	if (r == 0)
		r = cmek_block_seal(key, &right, 0, block, scratch->plain, len, held->data, cmek_group_entry(group, i));
	cmek_wipe(scratch->plain, sealed_len);
	cmek_secret_free(key);
	if (r < 0) {
		free(held);
		return r;
	}
	cmek_group_hold_locked(group, i, held);
	cmek_group_dirty_locked(group);
	return 0;
}

static int load_locked(struct cmek_group *group)
{
	struct cmek_ofile *file = group->file;
	uint32_t block_size = file->content->params.block_size, true_bytes;
	struct cmek_map_trailer trailer;
	struct cmek_map_head head;
	bool absent;
	unsigned i;
	int r;

	(void)pthread_mutex_lock(&file->absent_lock);
	absent = cmek_absent_has(&file->absent, group->index);
	(void)pthread_mutex_unlock(&file->absent_lock);
	if (absent)
		return 0;
	r = cmek_ofile_read_page(file, group->index, &head, group->entries, &trailer);
	if (r < 0)
		return r;
	group->page_dek = head.dek;
	for (i = 0; i < CMEK_GROUP_BLOCKS; i++)
		if (!cmek_entry_is_hole(cmek_group_entry(group, i)))
			group->live[i / 64] |= UINT64_C(1) << (i % 64);
	true_bytes = cmek_group_plain_len(block_size, file->size, group->index);
	if (trailer.plain_bytes < true_bytes)
		return -EBADMSG;
	return trailer.plain_bytes == true_bytes ? 0 : shorten_tail(group, trailer.plain_bytes, true_bytes);
}

int cmek_group_get(struct cmek_ofile *file, uint64_t index, bool fresh, struct cmek_group **ret_group)
{
	struct cmek_group *group = find_or_insert(file, index);
	int r = 0;

	if (group == NULL)
		return -ENOMEM;
	if (!atomic_load_explicit(&group->loaded, memory_order_acquire)) {
		(void)pthread_rwlock_wrlock(&group->lock);
		if (!atomic_load(&group->loaded)) {
			r = load_locked(group);
			if (r == -EBADMSG && fresh) {
				memset(group->entries, 0, sizeof(group->entries));
				memset(group->live, 0, sizeof(group->live));
				r = 0;
			}
			if (r == 0)
				atomic_store_explicit(&group->loaded, true, memory_order_release);
		}
		(void)pthread_rwlock_unlock(&group->lock);
	}
	if (r < 0) {
		cmek_group_put(group);
		return r;
	}
	*ret_group = group;
	return 0;
}

void cmek_group_dirty_locked(struct cmek_group *group)
{
	struct cmek_ofile *file = group->file;
	struct cmek_content *content = file->content;

	if (group->dirty)
		return;
	group->dirty = true;
	(void)pthread_mutex_lock(&content->groups_lock);
	group->refs++; /* the caller has one, so it is not on the LRU list */
	(void)pthread_mutex_unlock(&content->groups_lock);
	(void)pthread_mutex_lock(&file->dirty_lock);
	group->dirty_next = file->dirty;
	file->dirty = group;
	file->n_dirty++;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

/* What the store has to find for a block that it does not have: its pages, and with the first of a group the map page. */
static uint32_t room_for(const struct cmek_group *group, unsigned i, uint32_t len)
{
	if (cmek_group_is_live(group, i))
		return 0;
	return (len + CMEK_MAP_BYTES - 1) / CMEK_MAP_BYTES * CMEK_MAP_BYTES + (i == 0 ? CMEK_MAP_BYTES : 0);
}

void cmek_group_hold_locked(struct cmek_group *group, unsigned i, struct cmek_held *held)
{
	struct cmek_held *old = group->held[i];
	struct cmek_ofile *file = group->file;

	if (old != NULL) {
		cmek_room_promise(file->content->params.room, -(int64_t)old->room);
		file->held_bytes -= old->len;
		file->content->held_bytes -= old->len;
		group->n_held--;
		free(old);
	}
	if (held != NULL) {
		held->room = room_for(group, i, held->len);
		cmek_room_promise(file->content->params.room, held->room);
		file->held_bytes += held->len;
		file->content->held_bytes += held->len;
		group->n_held++;
		held->version = ++file->content->held_version;
	}
	group->held[i] = held;
}

/* Takes dirty groups first..end-1 off the file's list and gives their references back. */
static void undirty_range(struct cmek_ofile *file, uint64_t first, uint64_t end)
{
	struct cmek_group **p = &file->dirty, *group, *gone = NULL;

	(void)pthread_mutex_lock(&file->dirty_lock);
	while ((group = *p) != NULL) {
		if (group->index < first || group->index >= end) {
			p = &group->dirty_next;
			continue;
		}
		*p = group->dirty_next;
		file->n_dirty--;
		group->dirty = false;
		group->dirty_next = gone;
		gone = group;
	}
	(void)pthread_mutex_unlock(&file->dirty_lock);
	while ((group = gone) != NULL) {
		gone = group->dirty_next;
		cmek_group_put(group);
	}
}

void cmek_group_drop_range(struct cmek_ofile *file, uint64_t first, uint64_t end)
{
	struct cmek_content *content = file->content;
	struct cmek_group *group, *next, *gone = NULL;

	undirty_range(file, first, end);
	(void)pthread_mutex_lock(&content->groups_lock);
	for (group = file->groups; group != NULL; group = next) {
		next = group->file_next;
		if (group->index < first || group->index >= end)
			continue;
		assert(group->refs == 0); /* file.lock is exclusive and nothing is dirty: nobody has one */
		lru_unlink_locked(content, group);
		unhash_locked(content, group);
		group->hash_next = gone;
		gone = group;
	}
	(void)pthread_mutex_unlock(&content->groups_lock);
	while ((group = gone) != NULL) {
		gone = group->hash_next;
		group_free(group);
	}
}
