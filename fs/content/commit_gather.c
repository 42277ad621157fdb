/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a commit is made of: takes what waits in memory off the file's account, makes section and images of it, and gives
 * it back when the commit did not happen. It must not know how a commit becomes durable; the one thing that it writes is
 * pages that nobody reads yet.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "fs/content/commit.h"

/* Room for len more bytes of images, in whole units; the new part is zeroed at its end. */
static uint8_t *add_image(struct cmek_commit *commit, size_t len)
{
	size_t bytes = (len + CMEK_JOURNAL_UNIT - 1) / CMEK_JOURNAL_UNIT * CMEK_JOURNAL_UNIT;
	size_t capacity = commit->images_capacity == 0 ? 16 * CMEK_JOURNAL_UNIT : commit->images_capacity;
	uint8_t *grown, *image;

	while (capacity - commit->images_bytes < bytes)
		capacity *= 2;
	if (capacity != commit->images_capacity) {
		grown = realloc(commit->images, capacity); /* sealed bytes: nothing to wipe */
		if (grown == NULL)
			return NULL;
		commit->images = grown;
		commit->images_capacity = capacity;
	}
	image = commit->images + commit->images_bytes;
	memset(image + len, 0, bytes - len);
	commit->images_bytes += bytes;
	return image;
}

static int seal_page(struct cmek_ofile *file, const uint8_t *entries, struct cmek_map_trailer *trailer, uint8_t *page,
		     uint16_t *ret_dek)
{
	struct cmek_seal_right right;
	struct cmek_secret *key = NULL;
	int r;

	trailer->plain_bytes = cmek_group_plain_len(file->content->params.block_size, file->size, trailer->group);
	memcpy(trailer->mount_id, file->content->mount_id, sizeof(trailer->mount_id));
	r = cmek_ofile_seal_key(file, 1, CMEK_MAP_BYTES, &right, &key);
	if (r == 0)
		r = cmek_map_seal(key, &right, file->file_id, entries, trailer, page);
	cmek_secret_free(key);
	if (r == 0)
		*ret_dek = right.dek;
	return r;
}

static int add_page(struct cmek_commit *commit, const uint8_t *entries, struct cmek_map_trailer *trailer,
		    uint16_t *ret_dek)
{
	uint64_t unit = commit->images_bytes / CMEK_JOURNAL_UNIT;
	uint8_t *page = add_image(commit, CMEK_MAP_BYTES);
	int r = page != NULL ? seal_page(commit->file, entries, trailer, page, ret_dek) : -ENOMEM;

	return r < 0 ? r : cmek_section_add(&commit->section, CMEK_ITEM_MAP, trailer->group, CMEK_MAP_BYTES, unit);
}

/* Held block i of the group, or the run of fresh blocks in the store that begins there; returns how many. */
static int add_blocks_locked(struct cmek_commit *commit, struct cmek_group *group, unsigned i)
{
	uint64_t unit = commit->images_bytes / CMEK_JOURNAL_UNIT, block = group->index * CMEK_GROUP_BLOCKS + i;
	const struct cmek_held *held = group->held[i];
	unsigned n = 0;
	uint8_t *image;
	int r;

	if (held != NULL) {
		image = add_image(commit, held->len);
		if (image == NULL)
			return -ENOMEM;
		memcpy(image, held->data, held->len);
		r = cmek_section_add(&commit->section, CMEK_ITEM_BLOCK, block, held->len, unit);
		return r < 0 ? r : 1;
	}
	while (i + n < CMEK_GROUP_BLOCKS && group->held[i + n] == NULL && !cmek_group_is_live(group, i + n) &&
	       !cmek_entry_is_hole(cmek_group_entry(group, i + n)))
		n++;
	if (n == 0)
		return 1;
	commit->in_place = true;
	r = cmek_section_add(&commit->section, CMEK_ITEM_INPLACE, block, n, 0);
	return r < 0 ? r : (int)n;
}

/*
 * Blocks that the page has no entry for any more: the images that older records have of them are outdated. It comes
 * before the page, because an item for all blocks of a group outdates the group's page as well. group.lock is held.
 */
static int add_punched_locked(struct cmek_commit *commit, const struct cmek_group *group, const uint64_t stored[2])
{
	uint32_t block_size = commit->file->content->params.block_size;
	uint64_t punched[2] = { group->live[0] & ~stored[0], group->live[1] & ~stored[1] };
	unsigned i, n, end = (cmek_group_plain_len(block_size, commit->file->size, group->index) + block_size - 1) / block_size;
	int r = 0;

	if ((punched[0] | punched[1]) == 0)
		return 0;
	for (i = 0; r == 0 && i < end; i += n + 1) {
		for (n = 0; i + n < end && punched[(i + n) / 64] >> ((i + n) % 64) & 1; n++)
			;
		if (n > 0)
			r = cmek_section_add(&commit->section, CMEK_ITEM_PUNCH, group->index * CMEK_GROUP_BLOCKS + i, n, 0);
	}
	return r;
}

/* The group with its reference belongs to the commit from now on; there is room for it. */
static struct cmek_taken_group *take_group(struct cmek_commit *commit, struct cmek_group *group, bool listed)
{
	struct cmek_taken_group *t = commit->groups + commit->n_groups++;

	memset(t, 0, sizeof(*t));
	t->group = group;
	t->was = listed ? CMEK_TAKEN_LISTED : CMEK_TAKEN_BORROWED;
	return t;
}

/* The group's page and blocks as they are now; it is clean from here on. */
static int add_group(struct cmek_commit *commit, struct cmek_taken_group *t, struct cmek_map_trailer *trailer)
{
	struct cmek_group *group = t->group;
	int n = 0, r;
	unsigned i;

	trailer->group = group->index;
	(void)pthread_rwlock_wrlock(&group->lock);
	for (i = 0; i < CMEK_GROUP_BLOCKS; i++)
		if (!cmek_entry_is_hole(cmek_group_entry(group, i)))
			t->stored[i / 64] |= UINT64_C(1) << (i % 64);
	r = add_punched_locked(commit, group, t->stored);
	if (r == 0)
		r = add_page(commit, group->entries, trailer, &group->page_dek);
	for (i = 0; r == 0 && i < CMEK_GROUP_BLOCKS; i += (unsigned)n) {
		n = add_blocks_locked(commit, group, i);
		if (n < 0)
			r = n;
	}
	/* From now on a record may name these blocks, so they are not to be overwritten in place. */
	for (i = 0; i < 2; i++) {
		t->fresh[i] = t->stored[i] & ~group->live[i];
		group->live[i] |= t->stored[i];
	}
	t->version = atomic_load(&commit->file->content->held_version);
	if (t->was == CMEK_TAKEN_LISTED) {
		group->dirty = false;
		t->was = CMEK_TAKEN_CLEANED;
	}
	(void)pthread_rwlock_unlock(&group->lock);
	return r;
}

/* The group has a page in the store from this commit on. */
static int no_longer_absent(struct cmek_ofile *file, uint64_t index)
{
	int r;

	(void)pthread_mutex_lock(&file->absent_lock);
	r = cmek_absent_reserve(&file->absent);
	if (r == 0)
		cmek_absent_remove(&file->absent, index);
	(void)pthread_mutex_unlock(&file->absent_lock);
	return r;
}

/*
 * A map page has room for ten absent ranges: the smallest ones are closed by real pages of holes. Those go in place at
 * once: as long as the first page calls the groups absent nobody looks at them.
 */
static int close_ranges(struct cmek_commit *commit)
{
	static const uint8_t holes[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_ofile *file = commit->file;
	struct cmek_map_trailer trailer = { 0 };
	uint8_t page[CMEK_MAP_BYTES];
	struct cmek_absent_range range;
	uint16_t dek;
	uint64_t i;
	int r = 0;

	while (r == 0 && file->absent.n > CMEK_MAP_RANGES) {
		range = cmek_absent_smallest(&file->absent);
		for (i = 0; r == 0 && i < range.count; i++) {
			trailer.group = range.first + i;
			r = seal_page(file, holes, &trailer, page, &dek);
			if (r == 0)
				r = cmek_pwrite_full(file->fd, page, sizeof(page),
						     cmek_map_stored_off(file->content->params.block_size, trailer.group));
			if (r == 0)
				r = no_longer_absent(file, trailer.group);
		}
		commit->in_place = true;
	}
	return r;
}

/*
 * The groups that have just become absent. Those that close_ranges() gave a page for all that are listed one by one: what
 * the store frees of an item with several groups are the pages between them, too.
 */
static int add_punched_groups(struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	uint64_t group = file->punched_first, next;
	int r = 0;

	for (; r == 0 && group < file->punched_end; group = next) {
		next = cmek_absent_skip(&file->absent, group);
		next = next == group ? group + 1 : next < file->punched_end ? next : file->punched_end;
		r = cmek_section_add(&commit->section, CMEK_ITEM_PUNCH, group * CMEK_GROUP_BLOCKS,
				     (next - group) * CMEK_GROUP_BLOCKS, 0);
	}
	return r;
}

/* Group 0 speaks for the whole file: its size and what is absent. */
static int add_first_group(struct cmek_commit *commit, struct cmek_taken_group *first)
{
	struct cmek_ofile *file = commit->file;
	struct cmek_map_trailer trailer = { 0 };
	struct cmek_group *group;
	unsigned i;
	int r;

	r = close_ranges(commit);
	if (r == 0)
		r = add_punched_groups(commit);
	if (r == 0 && first == NULL)
		r = cmek_group_get(file, 0, false, &group);
	if (r < 0)
		return r;
	trailer.plain_size = file->size;
	trailer.group_count = cmek_group_count(file->content->params.block_size, file->size);
	for (i = 0; i < file->absent.n; i++) {
		trailer.absent[i].first = file->absent.ranges[i].first;
		trailer.absent[i].count = (uint32_t)file->absent.ranges[i].count; /* bounded by the largest plain size */
	}
	trailer.n_absent = i;
	return add_group(commit, first != NULL ? first : take_group(commit, group, false), &trailer);
}

int cmek_commit_gather(struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	struct cmek_map_trailer trailer = { 0 };
	struct cmek_taken_group *t, *first = NULL;
	size_t i, n = commit->n_groups;
	int r = 0;

	for (i = 0; r == 0 && i < n; i++) {
		t = commit->groups + i;
		if (t->group->index == 0) {
			first = t;
			continue;
		}
		r = no_longer_absent(file, t->group->index);
		if (r == 0)
			r = add_group(commit, t, &trailer);
	}
	return r == 0 && commit->size && file->size > 0 ? add_first_group(commit, first) : r;
}

/* The most image bytes that a group can give. */
static uint64_t group_images_max(const struct cmek_ofile *file, const struct cmek_group *group)
{
	return CMEK_MAP_BYTES + (uint64_t)group->n_held * file->content->params.block_size;
}

/* It says the size, the old one or the new, so it belongs into the last part. */
static bool says_size(const struct cmek_ofile *file, const struct cmek_group *group)
{
	uint32_t block_size = file->content->params.block_size;

	return group->index == 0 || group->index + 1 >= cmek_group_count(block_size, file->size) ||
	       group->index + 1 == cmek_group_count(block_size, file->sealed_size);
}

int cmek_commit_take(struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	struct cmek_content *content = file->content;
	uint64_t bytes = 0, max = UINT64_MAX;
	struct cmek_group *group, **p = &file->dirty;
	int r = 0;

	if (content->journal != NULL)
		max = cmek_journal_append_max(content->journal);
	(void)pthread_mutex_lock(&file->dirty_lock);
	for (group = file->dirty; group != NULL; group = group->dirty_next)
		bytes += group_images_max(file, group);
	commit->partial = commit->again = bytes + CMEK_MAP_BYTES > max;
	file->in_place_since = file->in_place_writers > 0;
	commit->groups = calloc(file->n_dirty + 1, sizeof(*commit->groups)); /* one more: the first group */
	if (commit->groups == NULL) {
		r = -ENOMEM;
	} else {
		commit->size = !commit->partial && (file->size_dirty || file->dirty != NULL);
		commit->mtime = file->mtime_dirty;
		for (bytes = 0; (group = *p) != NULL;) {
			if (commit->partial && (says_size(file, group) ||
						(bytes > 0 && bytes + group_images_max(file, group) > max / 2))) {
				p = &group->dirty_next;
				continue;
			}
			bytes += group_images_max(file, group);
			*p = group->dirty_next;
			file->n_dirty--;
			take_group(commit, group, true);
		}
		file->size_dirty = commit->partial;
		file->mtime_dirty = false;
		commit->free_holes = file->free_holes;
		file->free_holes = commit->partial;
		commit->section.mtime = file->mtime;
		commit->section.flags = file->mtime_valid ? CMEK_FILE_MTIME : 0;
	}
	(void)pthread_mutex_unlock(&file->dirty_lock);
	return r;
}

void cmek_commit_free(struct cmek_commit *commit)
{
	cmek_section_done(&commit->section);
	free(commit->images);
	free(commit->groups);
	memset(commit, 0, sizeof(*commit));
}

static void give_back_group(struct cmek_taken_group *t, bool tried)
{
	struct cmek_group *group = t->group;
	struct cmek_ofile *file = group->file;
	bool listed;

	(void)pthread_rwlock_wrlock(&group->lock);
	/* Without a record the blocks that are in place are fresh as before: the next commit has to flush and list them. */
	if (!tried) {
		group->live[0] &= ~t->fresh[0];
		group->live[1] &= ~t->fresh[1];
	}
	/* one that a writer changed again is on the list already, with a reference of its own */
	listed = t->was == CMEK_TAKEN_BORROWED || (t->was == CMEK_TAKEN_CLEANED && group->dirty);
	if (!listed) {
		group->dirty = true;
		(void)pthread_mutex_lock(&file->dirty_lock);
		group->dirty_next = file->dirty;
		file->dirty = group;
		file->n_dirty++;
		(void)pthread_mutex_unlock(&file->dirty_lock);
	}
	(void)pthread_rwlock_unlock(&group->lock);
	if (listed)
		cmek_group_put(group);
}

void cmek_commit_give_back(struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	size_t i;

	for (i = 0; i < commit->n_groups; i++)
		give_back_group(commit->groups + i, commit->tried);
	(void)pthread_mutex_lock(&file->dirty_lock);
	file->size_dirty |= commit->size;
	file->mtime_dirty |= commit->mtime;
	file->free_holes |= commit->free_holes;
	(void)pthread_mutex_unlock(&file->dirty_lock);
	cmek_commit_free(commit);
}
