/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fallocate: space set aside in the store, ranges that become holes or zeros, and the search for data and holes. What
 * is punched is zeros from here on, but the store gives its space back only behind the commit that says so (commit.c).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/content/ofile.h"

/* So many whole groups are emptied one by one, with the next commit; more of them become absent in a commit of their own. */
#define GROUPS_EMPTIED_MAX 16u

static bool is_absent(struct cmek_ofile *file, uint64_t index)
{
	bool absent;

	(void)pthread_mutex_lock(&file->absent_lock);
	absent = cmek_absent_has(&file->absent, index);
	(void)pthread_mutex_unlock(&file->absent_lock);
	return absent;
}

/* The group if it may have data: NULL when it is a hole as a whole. An absent one can have fresh data in memory. */
static int get_unless_hole(struct cmek_ofile *file, uint64_t index, bool fresh, struct cmek_group **ret_group)
{
	*ret_group = cmek_group_peek(file, index);
	if (*ret_group == NULL && is_absent(file, index))
		return 0;
	cmek_group_put(*ret_group); /* cmek_group_get() sees to it that it is loaded */
	return cmek_group_get(file, index, fresh, ret_group);
}

/* ---- holes; file.lock is held, either way, where nothing else is said ---- */

/* Bytes from..end-1 of one block. */
static int zero_part(struct cmek_ofile *file, uint64_t from, uint64_t end)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t block = from / block_size;
	struct cmek_group *group;
	bool hole;
	int r = get_unless_hole(file, block / CMEK_GROUP_BLOCKS, false, &group);

	if (r < 0 || group == NULL)
		return r;
	(void)pthread_rwlock_rdlock(&group->lock);
	hole = cmek_entry_is_hole(cmek_group_entry(group, block % CMEK_GROUP_BLOCKS));
	(void)pthread_rwlock_unlock(&group->lock);
	if (!hole)
		r = cmek_block_zero(group, block, (uint32_t)(from % block_size), (uint32_t)(end - from));
	cmek_group_put(group);
	return r;
}

/*
 * Blocks i..i+n-1 of the group become holes. They count as live from now on, whatever they were: until the commit is
 * done the store may be made to free them, so nothing new goes there in place.
 */
static void clear_entries(struct cmek_group *group, unsigned i, unsigned n)
{
	bool changed = false;

	(void)pthread_rwlock_wrlock(&group->lock);
	for (; n > 0; i++, n--) {
		if (cmek_entry_is_hole(cmek_group_entry(group, i)))
			continue;
		group->live[i / 64] |= UINT64_C(1) << (i % 64);
		cmek_group_hold_locked(group, i, NULL);
		memset(cmek_group_entry(group, i), 0, CMEK_ENTRY_BYTES);
		changed = true;
	}
	if (changed)
		cmek_group_dirty_locked(group);
	(void)pthread_rwlock_unlock(&group->lock);
}

/* Whole blocks first..end-1. */
static int clear_blocks(struct cmek_ofile *file, uint64_t first, uint64_t end)
{
	uint32_t block_size = file->content->params.block_size;
	struct cmek_group *group;
	int r = 0;

	while (r == 0 && first < end) {
		uint64_t index = first / CMEK_GROUP_BLOCKS, next = (index + 1) * CMEK_GROUP_BLOCKS;
		unsigned i = first % CMEK_GROUP_BLOCKS;
		bool whole;

		if (next > end)
			next = end;
		whole = i == 0 && (next - first) * block_size >= cmek_group_plain_len(block_size, file->size, index);
		r = get_unless_hole(file, index, whole, &group);
		if (r == 0 && group != NULL) {
			clear_entries(group, i, (unsigned)(next - first));
			cmek_group_put(group);
		}
		first = next;
	}
	return r;
}

/* The next commit gives the space of what it makes holes back. */
static void free_with_next(struct cmek_ofile *file)
{
	(void)pthread_mutex_lock(&file->dirty_lock);
	file->free_holes = true;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

/* Groups first..end-1 become absent, durably; file.commit_lock and file.lock are held exclusively. */
static int drop_groups_locked(struct cmek_ofile *file, uint64_t first, uint64_t end, bool free_space)
{
	uint64_t groups = cmek_group_count(file->content->params.block_size, file->size);
	struct cmek_absent before = { 0 };
	const struct cmek_stuck *stuck;
	int r;

	if (cmek_content_failed(file->content) < 0)
		return -EROFS;
	end = end < groups ? end : groups;
	if (first >= end)
		return 0;
	/* Nothing but the absence shall be new: if that fails, the store has all there was. */
	r = cmek_commit_exclusive(file);
	if (r == 0)
		r = cmek_absent_copy(&file->absent, &before);
	if (r < 0)
		return r;
	stuck = file->stuck;
	r = cmek_absent_add(&file->absent, first, end - first);
	if (r == 0) {
		cmek_group_drop_range(file, first, end);
		cmek_ofile_set_size_locked(file, file->size);
		if (free_space)
			free_with_next(file);
		file->punched_first = first;
		file->punched_end = end;
		r = cmek_commit_exclusive(file);
		file->punched_first = file->punched_end = 0;
	}
	/* With a durable record that could not be written in place the groups are absent, and stay it. */
	if (r < 0 && file->stuck == stuck) {
		cmek_absent_done(&file->absent);
		file->absent = before;
		memset(&before, 0, sizeof(before));
	}
	cmek_absent_done(&before);
	return r;
}

static int drop_groups(struct cmek_ofile *file, uint64_t first, uint64_t end, bool free_space)
{
	int r;

	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_wrlock(&file->lock);
	r = drop_groups_locked(file, first, end, free_space);
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
	return r;
}

/* Bytes off..end-1, as far as the file has them, read as zeros; with free_space the store need not keep room for them. */
static int zero_range(struct cmek_ofile *file, uint64_t off, uint64_t end, bool free_space)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t first, last, head_end, group_first = 0, group_end = 0;
	int r = 0;

	(void)pthread_rwlock_rdlock(&file->lock);
	end = end < file->size ? end : file->size;
	first = (off + block_size - 1) / block_size;
	/* the file's short tail is a whole block when all of it is meant */
	last = end == file->size ? (end + block_size - 1) / block_size : end / block_size;
	head_end = first * block_size < end ? first * block_size : end;
	if (off < head_end)
		r = zero_part(file, off, head_end);
	if (r == 0 && first <= last && off < end && last * block_size < end)
		r = zero_part(file, last * block_size, end);
	if (r == 0 && off < end && first < last) {
		/* The first group is never absent. */
		group_first = (first + CMEK_GROUP_BLOCKS - 1) / CMEK_GROUP_BLOCKS;
		group_first = group_first > 0 ? group_first : 1;
		group_end = end == file->size ? cmek_group_count(block_size, end) : last / CMEK_GROUP_BLOCKS;
		if (group_end <= group_first + GROUPS_EMPTIED_MAX)
			group_end = group_first = 0;
		if (free_space)
			free_with_next(file);
		r = clear_blocks(file, first, group_end > 0 ? group_first * CMEK_GROUP_BLOCKS : last);
		if (r == 0 && group_end > 0)
			r = clear_blocks(file, group_end * CMEK_GROUP_BLOCKS, last);
	}
	(void)pthread_rwlock_unlock(&file->lock);
	return r == 0 && group_end > 0 ? drop_groups(file, group_first, group_end, free_space) : r;
}

/* ---- space ---- */

static int set_aside(struct cmek_ofile *file, uint64_t stored_off, uint64_t stored_end)
{
	int r;

	do
		r = fallocate(file->fd, FALLOC_FL_KEEP_SIZE, (off_t)stored_off, (off_t)(stored_end - stored_off));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* Room in the store for the blocks of a plain range and for their map pages. The store file keeps its length. */
static int set_aside_range(struct cmek_ofile *file, uint64_t off, uint64_t end)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t first = off / block_size, last = (end - 1) / block_size;
	uint64_t page = cmek_map_stored_off(block_size, first / CMEK_GROUP_BLOCKS);
	uint64_t from = page, stored_end = cmek_block_stored_off(block_size, last) + block_size;
	int r = 0;

	if (first % CMEK_GROUP_BLOCKS != 0) {
		r = set_aside(file, page, page + CMEK_MAP_BYTES);
		from = cmek_block_stored_off(block_size, first);
	}
	return r == 0 ? set_aside(file, from, stored_end) : r;
}

/* ---- for everybody ---- */

uint64_t cmek_content_set_aside(struct cmek_ofile *file)
{
	uint64_t stored = cmek_stored_size(file->content->params.block_size, file->size);
	struct stat st;

	if (fstat(file->fd, &st) < 0 || (uint64_t)st.st_blocks * 512 < stored)
		return 0;
	return (uint64_t)st.st_blocks * 512 - stored;
}

static int allocate(struct cmek_ofile *file, bool keep_size, uint64_t off, uint64_t end)
{
	int r = set_aside_range(file, off, end);

	return r == 0 && !keep_size ? cmek_content_extend(file, end) : r;
}

static int zero(struct cmek_ofile *file, bool keep_size, uint64_t off, uint64_t end)
{
	int r = set_aside_range(file, off, end);

	/* To be zeros is what was asked for; where the store can't promise space the zeros do without. */
	if (r == 0 || r == -EOPNOTSUPP || r == -ENOSYS)
		r = keep_size ? 0 : cmek_content_extend(file, end);
	return r == 0 ? zero_range(file, off, end, false) : r;
}

int cmek_content_fallocate(struct cmek_ofile *file, int mode, uint64_t off, uint64_t len)
{
	bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
	int what = mode & ~FALLOC_FL_KEEP_SIZE, r;

	if (len == 0)
		return -EINVAL;
	if ((what != 0 && what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE) ||
	    (what == FALLOC_FL_PUNCH_HOLE && !keep_size))
		return -EOPNOTSUPP;
	r = off > UINT64_MAX - len ? -EFBIG : cmek_content_check_write(file, off + len);
	if (r == 0)
		r = cmek_ofile_load(file);
	if (r == 0)
		r = cmek_content_make_room(file);
	if (r < 0)
		return r;
	if (what == 0)
		r = allocate(file, keep_size, off, off + len);
	else if (what == FALLOC_FL_PUNCH_HOLE)
		r = zero_range(file, off, off + len, true);
	else
		r = zero(file, keep_size, off, off + len);
	cmek_ofile_queue(file);
	return r;
}

/* The first group from `index` on that is in memory or not absent. */
static uint64_t skip_absent(struct cmek_ofile *file, uint64_t index)
{
	uint64_t in_memory, next;

	(void)pthread_mutex_lock(&file->absent_lock);
	next = cmek_absent_skip(&file->absent, index);
	(void)pthread_mutex_unlock(&file->absent_lock);
	if (next == index)
		return index;
	in_memory = cmek_group_next_in_memory(file, index);
	return in_memory < next ? in_memory : next;
}

/* First block from `block` on, before end, that is (or is not) a hole; end when there is none. file.lock is held. */
static int find_block(struct cmek_ofile *file, uint64_t block, uint64_t end, bool hole, uint64_t *ret_block)
{
	bool found = false;

	while (!found && block < end) {
		uint64_t index = block / CMEK_GROUP_BLOCKS, next = skip_absent(file, index);
		struct cmek_group *group;
		int r;

		if (next > index) {
			found = hole;
			block = found ? block : next * CMEK_GROUP_BLOCKS;
			continue;
		}
		r = cmek_group_get(file, index, false, &group);
		if (r < 0)
			return r;
		next = (index + 1) * CMEK_GROUP_BLOCKS;
		(void)pthread_rwlock_rdlock(&group->lock);
		for (; !found && block < next; block += !found)
			found = cmek_entry_is_hole(cmek_group_entry(group, block % CMEK_GROUP_BLOCKS)) == hole;
		(void)pthread_rwlock_unlock(&group->lock);
		cmek_group_put(group);
	}
	*ret_block = block < end ? block : end;
	return 0;
}

int cmek_content_seek(struct cmek_ofile *file, int whence, uint64_t off, uint64_t *ret_off)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t block, end, pos;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	r = cmek_ofile_load(file);
	if (r < 0)
		return r;
	(void)pthread_rwlock_rdlock(&file->lock);
	end = (file->size + block_size - 1) / block_size;
	r = off >= file->size ? -ENXIO : find_block(file, off / block_size, end, whence == SEEK_HOLE, &block);
	if (r == 0 && block == end && whence == SEEK_DATA)
		r = -ENXIO;
	if (r == 0) {
		pos = block * block_size > off ? block * block_size : off;
		*ret_off = pos < file->size ? pos : file->size; /* behind the end everything is a hole */
	}
	(void)pthread_rwlock_unlock(&file->lock);
	return r;
}
