/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Changes plaintext ranges: writes, growth, truncation. A block that the store's map page already has is never
 * overwritten in place here: its new ciphertext is held until a commit. A fresh one may go in place at once.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/io.h"
#include "fs/content/ofile.h"

/* Fresh data in requests below this waits for the commit, so that a small file is one write to the store. */
#define HOLD_FRESH_BELOW (32u << 10)
/* With a journal: a file with less than this held writes fresh data through it, with more in place. */
#define JOURNAL_FRESH_BELOW (1u << 20)
/* A file with this much held, or this many changed groups, is committed by its writer. */
#define FILE_HELD_MAX (16u << 20)
#define FILE_GROUPS_MAX 1024u
/* A store file up to this size is never too large. */
#define STORE_SIZE_SURE INT32_MAX

/* One write (or zero-extension) inside the file's size, on its way through the groups. */
struct span {
	struct cmek_ofile *file;
	const uint8_t *data; /* plaintext; NULL = zeros, in parts of blocks only */
	uint64_t off, end;
	bool bulk; /* fresh blocks may go in place */
};

static int hold_copy(struct cmek_group *group, unsigned i, const uint8_t *stored, uint32_t len)
{
	struct cmek_held *held = malloc(sizeof(*held) + len);

	if (held == NULL)
		return -ENOMEM;
	held->len = len;
	memcpy(held->data, stored, len);
	cmek_group_hold_locked(group, i, held);
	return 0;
}

static int write_in_place(struct cmek_ofile *file, const uint8_t *stored, size_t len, uint64_t off)
{
	int r = cmek_pwrite_full(file->fd, stored, len, off);

	if (r == -ENOSPC && cmek_room_use_reserve(file->content->params.room))
		r = cmek_pwrite_full(file->fd, stored, len, off);
	return r;
}

/*
 * Places n sealed blocks, `bytes` of ciphertext with their entries, from index i of the group on.
 * group.lock is held exclusively.
 */
static int place_locked(struct cmek_group *group, unsigned i, unsigned n, const uint8_t *stored, size_t bytes,
			const uint8_t *entries, bool bulk)
{
	uint32_t block_size = group->file->content->params.block_size;
	uint64_t block = group->index * CMEK_GROUP_BLOCKS + i;
	int r = 0;

	while (n > 0 && r == 0) {
		unsigned run = 0, k;
		size_t len;

		while (bulk && run < n && !cmek_group_is_live(group, i + run))
			run++;
		if (run > 0) {
			len = (size_t)run * block_size < bytes ? (size_t)run * block_size : bytes;
			r = write_in_place(group->file, stored, len, cmek_block_stored_off(block_size, block));
			for (k = 0; r == 0 && k < run; k++)
				cmek_group_hold_locked(group, i + k, NULL);
		} else {
			run = 1;
			len = block_size < bytes ? block_size : bytes;
			r = hold_copy(group, i, stored, (uint32_t)len);
		}
		if (r < 0)
			break;
		memcpy(cmek_group_entry(group, i), entries, run * CMEK_ENTRY_BYTES);
		cmek_group_dirty_locked(group);
		entries += run * CMEK_ENTRY_BYTES;
		stored += len;
		bytes -= len;
		i += run;
		block += run;
		n -= run;
	}
	return r;
}

/* Seals n whole blocks (the last may be the file's short tail) from `block` on and places them. */
static int write_whole(struct span *span, struct cmek_group *group, uint64_t block, unsigned n, const uint8_t *plain,
		       size_t bytes)
{
	struct cmek_ofile *file = span->file;
	uint32_t block_size = file->content->params.block_size;
	struct cmek_scratch *scratch = cmek_scratch_get(file->content);
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_seal_right right;
	struct cmek_secret *key = NULL;
	size_t done = 0;
	unsigned k;
	int r;

	if (scratch == NULL)
		return -ENOMEM;
	r = cmek_ofile_seal_key(file, n, bytes, &right, &key);
	for (k = 0; r == 0 && k < n; k++) {
		uint32_t len = bytes - done < block_size ? (uint32_t)(bytes - done) : block_size;

		r = cmek_block_seal(key, &right, k, block + k, plain + done, len, scratch->stored + done,
				    entries + k * CMEK_ENTRY_BYTES);
		done += len;
	}
	if (r == 0) {
		(void)pthread_rwlock_wrlock(&group->lock);
		r = place_locked(group, block % CMEK_GROUP_BLOCKS, n, scratch->stored, bytes, entries,
				 span->bulk && !file->cut_waits);
		(void)pthread_rwlock_unlock(&group->lock);
	}
	cmek_secret_free(key);
	return r;
}

/* Part of one block: its old plaintext is read, changed, and sealed anew, all under the group's lock. */
static int write_part(struct span *span, struct cmek_group *group, uint64_t block, uint32_t from, uint32_t len)
{
	struct cmek_ofile *file = span->file;
	uint32_t block_len = cmek_block_plain_len(file->content->params.block_size, file->size, block);
	struct cmek_scratch *scratch = cmek_scratch_get(file->content);
	uint8_t entry[CMEK_ENTRY_BYTES];
	struct cmek_seal_right right;
	struct cmek_secret *key = NULL;
	int r;

	if (scratch == NULL)
		return -ENOMEM;
	(void)pthread_rwlock_wrlock(&group->lock);
	r = cmek_block_read_locked(group, block, block_len, scratch->plain);
	if (r == 0)
		r = cmek_ofile_seal_key(file, 1, block_len, &right, &key);
	if (r == 0) {
		if (span->data != NULL)
			memcpy(scratch->plain + from, span->data, len);
		else
			memset(scratch->plain + from, 0, len);
		r = cmek_block_seal(key, &right, 0, block, scratch->plain, block_len, scratch->stored, entry);
	}
	if (r == 0)
		r = place_locked(group, block % CMEK_GROUP_BLOCKS, 1, scratch->stored, block_len, entry, false);
	(void)pthread_rwlock_unlock(&group->lock);
	cmek_wipe(scratch->plain, block_len);
	cmek_secret_free(key);
	return r;
}

int cmek_block_zero(struct cmek_group *group, uint64_t block, uint32_t from, uint32_t len)
{
	struct span span = { group->file, NULL, 0, 0, false };

	return write_part(&span, group, block, from, len);
}

/* The part of the span that lies in one group. */
static int write_group(struct span *span, struct cmek_group *group, uint64_t group_end)
{
	uint32_t block_size = span->file->content->params.block_size;
	int r = 0;

	while (r == 0 && span->off < group_end) {
		uint64_t block = span->off / block_size;
		uint32_t block_len = cmek_block_plain_len(block_size, span->file->size, block);
		uint32_t from = (uint32_t)(span->off % block_size);
		uint64_t len = group_end - span->off;
		uint64_t whole = 0;

		if (from == 0 && len >= block_len) {
			/* up to the last whole block; the file's short tail counts as whole when all of it is written */
			whole = group_end == span->file->size ? len : len / block_size * block_size;
			if (whole > CMEK_RUN_MAX)
				whole = CMEK_RUN_MAX / block_size * block_size;
		}
		if (whole > 0) {
			len = whole;
			r = write_whole(span, group, block, (unsigned)((len + block_size - 1) / block_size), span->data,
					len);
		} else {
			if (len > block_len - from)
				len = block_len - from;
			r = write_part(span, group, block, from, (uint32_t)len);
		}
		span->off += len;
		if (span->data != NULL)
			span->data += len;
	}
	return r;
}

/*
 * Fresh data goes in place only while a touch covers it, and the commit that ends the touch has to know of it: a commit
 * can end between the writer's look and its write, or while it writes.
 */
static void begin_in_place(struct span *span)
{
	struct cmek_ofile *file = span->file;

	if (!span->bulk || file->content->journal == NULL)
		return;
	(void)pthread_mutex_lock(&file->dirty_lock);
	span->bulk = file->touched;
	if (span->bulk) {
		file->in_place_writers++;
		file->in_place_since = true;
	}
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

static void end_in_place(const struct span *span)
{
	struct cmek_ofile *file = span->file;

	if (!span->bulk || file->content->journal == NULL)
		return;
	(void)pthread_mutex_lock(&file->dirty_lock);
	file->in_place_writers--;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

/* Writes a span inside the file's size; file.lock is held, either way. */
static int write_span(struct span *span)
{
	struct cmek_ofile *file = span->file;
	uint32_t block_size = file->content->params.block_size;
	uint64_t group_plain = cmek_group_plain_bytes(block_size);
	struct cmek_group *group;
	int r = 0;

	begin_in_place(span);
	while (r == 0 && span->off < span->end) {
		uint64_t index = span->off / group_plain;
		uint64_t group_end = (index + 1) * group_plain;
		bool fresh;

		if (group_end > span->end)
			group_end = span->end;
		fresh = span->data != NULL && span->off == index * group_plain &&
			group_end - span->off == cmek_group_plain_len(block_size, file->size, index);
		r = cmek_group_get(file, index, fresh, &group);
		if (r < 0)
			break;
		r = write_group(span, group, group_end);
		cmek_group_put(group);
	}
	end_in_place(span);
	return r;
}

/* The group's page has to be sealed anew. fresh: it has none in the store yet. */
static int dirty_group(struct cmek_ofile *file, uint64_t index, bool fresh)
{
	struct cmek_group *group;
	int r = cmek_group_get(file, index, fresh, &group);

	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&group->lock);
	cmek_group_dirty_locked(group);
	(void)pthread_rwlock_unlock(&group->lock);
	cmek_group_put(group);
	return 0;
}

/* For a larger size: the group of the old end, whose sealed length changes, and the new groups, which are absent. */
static int grow_groups_locked(struct cmek_ofile *file, uint64_t old_size, uint64_t new_size)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t old_groups = cmek_group_count(block_size, old_size);
	uint64_t new_groups = cmek_group_count(block_size, new_size);
	uint64_t first_absent = old_groups > 0 ? old_groups : 1; /* the first group never is */
	int r;

	(void)pthread_mutex_lock(&file->absent_lock);
	r = cmek_absent_add(&file->absent, first_absent, new_groups - first_absent);
	(void)pthread_mutex_unlock(&file->absent_lock);
	if (r == 0 && old_groups == 0)
		r = dirty_group(file, 0, true);
	else if (r == 0 && old_size % cmek_group_plain_bytes(block_size) != 0 &&
		 !cmek_absent_has(&file->absent, old_groups - 1))
		r = dirty_group(file, old_groups - 1, false);
	return r;
}

/*
 * Sets a larger size; file.lock held exclusively. The block that was the short tail is sealed anew in its new length
 * with zeros behind, unless the caller overwrites all its old bytes (tail_covered).
 */
static int grow_locked(struct cmek_ofile *file, uint64_t new_size, bool tail_covered)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t old_size = file->size, tail_block = old_size / block_size;
	uint32_t tail_len = (uint32_t)(old_size % block_size);
	struct cmek_group *group = NULL;
	struct cmek_scratch *scratch;
	uint8_t *tail = NULL;
	bool hole = true;
	int r = 0;

	if (!file->has_id) {
		assert(old_size == 0);
		cmek_random(file->file_id, sizeof(file->file_id));
		file->has_id = true;
		file->id_logged = false;
	}
	if (tail_len > 0 && !tail_covered) {
		r = cmek_group_get(file, tail_block / CMEK_GROUP_BLOCKS, false, &group);
		if (r < 0)
			return r;
		hole = cmek_entry_is_hole(cmek_group_entry(group, tail_block % CMEK_GROUP_BLOCKS));
		if (!hole) {
			scratch = cmek_scratch_get(file->content);
			tail = malloc(block_size);
			r = tail != NULL && scratch != NULL ? 0 : -ENOMEM;
			/* file.lock is ours, but a commit that ends now lets go of held blocks under the group's lock only */
			(void)pthread_rwlock_rdlock(&group->lock);
			if (r == 0)
				r = cmek_block_read_locked(group, tail_block, tail_len, tail);
			(void)pthread_rwlock_unlock(&group->lock);
		}
	}
	if (r == 0)
		r = grow_groups_locked(file, old_size, new_size);
	if (r == 0)
		cmek_ofile_set_size_locked(file, new_size);
	if (r == 0 && !hole) {
		uint32_t new_len = cmek_block_plain_len(block_size, new_size, tail_block);
		struct span span = { file, tail, tail_block * block_size, tail_block * block_size + new_len, false };

		memset(tail + tail_len, 0, new_len - tail_len);
		r = write_whole(&span, group, tail_block, 1, tail, new_len);
		if (r < 0)
			cmek_ofile_set_size_locked(file, old_size);
	}
	if (tail != NULL)
		cmek_wipe(tail, block_size);
	free(tail);
	cmek_group_put(group);
	return r;
}

int cmek_content_make_room(struct cmek_ofile *file)
{
	struct cmek_content *content = file->content;
	uint64_t held_max = FILE_HELD_MAX;
	unsigned groups_max = FILE_GROUPS_MAX;

	if (content->journal != NULL) { /* one commit should fit one record */
		held_max = cmek_journal_append_max(content->journal) / 8;
		groups_max = (unsigned)(held_max / 4 / CMEK_MAP_BYTES);
	}
	if (content->held_bytes > content->params.held_max_bytes / 2)
		(void)pthread_cond_signal(&content->files_cond);
	if (file->held_bytes < held_max && file->n_dirty < groups_max &&
	    (file->held_bytes == 0 || content->held_bytes < content->params.held_max_bytes))
		return 0;
	return cmek_content_commit(file);
}

/*
 * Whether the store can have a file of this size; it must be known before a record promises it. A seek says so, and
 * nobody uses the position. Every file system can do what is below the limit.
 */
static bool fits_store(const struct cmek_ofile *file, uint64_t size)
{
	uint64_t stored = cmek_stored_size(file->content->params.block_size, size);

	return stored <= STORE_SIZE_SURE || size <= file->size || lseek(file->fd, (off_t)stored, SEEK_SET) >= 0;
}

int cmek_content_check_write(const struct cmek_ofile *file, uint64_t size)
{
	uint32_t block_size = file->content->params.block_size;

	if (file->content->params.read_only || cmek_content_failed(file->content) < 0)
		return -EROFS;
	if (!file->writable)
		return -EACCES;
	return size > cmek_plain_size_max(block_size) || !fits_store(file, size) ? -EFBIG : 0;
}

/* A write behind a short tail, which changes its length; file.lock held exclusively. */
static int write_behind_tail_locked(struct span *span)
{
	struct cmek_ofile *file = span->file;
	bool tail_covered = span->off <= file->size / file->content->params.block_size * file->content->params.block_size;
	int r = grow_locked(file, span->end, tail_covered);

	if (r < 0)
		return r;
	r = write_span(span);
	/* A covered tail that was not written would be left with a length that is not its own. */
	if (r < 0 && tail_covered)
		cmek_ofile_fail(file, r, "a write that extends the file failed, the end it had is lost");
	return r;
}

/* Takes file.lock as the write needs it: shared inside the size, exclusive to change it. */
static int write_unlocked(struct span *span)
{
	struct cmek_ofile *file = span->file;
	uint32_t block_size = file->content->params.block_size;
	bool done = false;
	int r = 0;

	while (r == 0 && !done) {
		(void)pthread_rwlock_rdlock(&file->lock);
		done = span->end <= file->size;
		if (done)
			r = write_span(span);
		(void)pthread_rwlock_unlock(&file->lock);
		if (done)
			break;
		(void)pthread_rwlock_wrlock(&file->lock);
		if (span->end > file->size) {
			done = file->size % block_size != 0;
			/* Behind whole blocks the new range is a hole first, and then written beside other writers. */
			r = done ? write_behind_tail_locked(span) : grow_locked(file, span->end, true);
		}
		(void)pthread_rwlock_unlock(&file->lock);
	}
	return r;
}

/* Whether the fresh blocks of a write of len bytes go to the store at once. */
static bool goes_in_place(struct cmek_ofile *file, size_t len)
{
	if (len < HOLD_FRESH_BELOW)
		return false;
	return file->content->journal == NULL || file->touched || file->held_bytes + len >= JOURNAL_FRESH_BELOW;
}

static int write_data(struct cmek_ofile *file, const void *buf, size_t len, uint64_t off, bool touch)
{
	struct span span = { file, buf, off, off + len, goes_in_place(file, len) };
	uint64_t old_size;
	int r;

	if (len == 0)
		return 0;
	r = off > UINT64_MAX - len ? -EFBIG : cmek_content_check_write(file, off + len);
	if (r == 0)
		r = cmek_ofile_load(file);
	if (r == 0)
		r = cmek_content_make_room(file);
	if (r == 0 && span.bulk && file->content->journal != NULL)
		r = cmek_commit_touch(file);
	if (r == -EAGAIN) {
		span.bulk = false; /* through the journal, as what is live */
		r = 0;
	}
	if (r < 0)
		return r;

	old_size = file->size;
	r = write_unlocked(&span);
	if (r == 0)
		atomic_fetch_add_explicit(&file->content->written_bytes, len, memory_order_relaxed);
	if (r == 0 && touch)
		cmek_ofile_touch(file);
	else if (r < 0 && old_size < off + len && file->size == off + len)
		(void)cmek_content_truncate(file, old_size); /* what could not be written is not there; r says why */
	cmek_ofile_queue(file);
	return r;
}

int cmek_content_write(struct cmek_ofile *file, const void *buf, size_t len, uint64_t off)
{
	return write_data(file, buf, len, off, true);
}

int cmek_content_write_back(struct cmek_ofile *file, const void *buf, size_t len, uint64_t off)
{
	return write_data(file, buf, len, off, false);
}

/* Cuts to new_size > 0: the new tail block is sealed in its new length, what lies behind is forgotten. */
static int shrink_locked(struct cmek_ofile *file, uint64_t new_size)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t tail_block = new_size / block_size, index = (new_size - 1) / cmek_group_plain_bytes(block_size);
	uint32_t tail_len = (uint32_t)(new_size % block_size);
	uint32_t old_len = cmek_block_plain_len(block_size, file->size, tail_block);
	unsigned keep = (unsigned)((new_size - index * cmek_group_plain_bytes(block_size) + block_size - 1) / block_size);
	struct cmek_scratch *scratch = cmek_scratch_get(file->content);
	struct cmek_group *group = NULL;
	bool has_tail = false;
	uint8_t *tail = NULL;
	unsigned i;
	int r;

	if (scratch == NULL)
		return -ENOMEM;
	r = cmek_group_get(file, index, false, &group);
	if (r < 0)
		return r;
	if (tail_len > 0 && !cmek_entry_is_hole(cmek_group_entry(group, tail_block % CMEK_GROUP_BLOCKS))) {
		tail = malloc(block_size);
		r = tail != NULL ? cmek_block_read_locked(group, tail_block, old_len, tail) : -ENOMEM;
		has_tail = true;
	}
	if (r == 0) {
		cmek_group_drop_range(file, index + 1, UINT64_MAX);
		cmek_absent_truncate(&file->absent, index + 1);
		cmek_ofile_set_size_locked(file, new_size);
		for (i = keep; i < CMEK_GROUP_BLOCKS; i++)
			cmek_group_hold_locked(group, i, NULL);
		memset(group->entries + keep * CMEK_ENTRY_BYTES, 0, (CMEK_GROUP_BLOCKS - keep) * CMEK_ENTRY_BYTES);
		if (!cmek_absent_has(&file->absent, index))
			cmek_group_dirty_locked(group);
	}
	if (r == 0 && has_tail) {
		struct span span = { file, tail, 0, 0, false };

		r = write_whole(&span, group, tail_block, 1, tail, tail_len);
	}
	if (tail != NULL)
		cmek_wipe(tail, block_size);
	free(tail);
	cmek_group_put(group);
	return r;
}

/*
 * What was cut off goes from the store when a record says so, and that has to be before anything new is written there. The
 * cut itself has been made, so a failure is none of it: fsync tells it. Without a record the commit is tried again, and
 * new data waits for that.
 */
static void commit_cut_locked(struct cmek_ofile *file)
{
	int r;

	file->cut_waits = true;
	r = cmek_commit_exclusive(file);
	if (r == 0)
		file->cut_waits = false;
	else if (cmek_content_failed(file->content) < 0)
		cmek_ofile_fail(file, r, "changes could not be written to the store");
}

/* The id of a file that was never loaded, for the record that ends it. What is not there, or not a page, has none. */
static void find_id_locked(struct cmek_ofile *file)
{
	uint8_t page[CMEK_MAP_BYTES];
	struct cmek_map_head head;

	if (!file->loaded && cmek_pread_full(file->fd, page, sizeof(page), 0) == (ssize_t)sizeof(page) &&
	    cmek_map_head_decode(page, &head) == 0)
		memcpy(file->file_id, head.file_id, CMEK_FILE_ID_LEN);
}

/* Empties the file: the next content gets a new file id. */
static int empty_locked(struct cmek_ofile *file)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	find_id_locked(file);
	cmek_group_drop_range(file, 0, UINT64_MAX);
	cmek_absent_truncate(&file->absent, 0);
	cmek_ofile_set_size_locked(file, 0);
	file->has_id = file->id_logged = false;
	atomic_store(&file->loaded, true);
	if (st.st_size > 0) {
		commit_cut_locked(file);
		file->rewritten = true;
	}
	return 0;
}

int cmek_content_extend(struct cmek_ofile *file, uint64_t size)
{
	int r = 0;

	(void)pthread_rwlock_wrlock(&file->lock);
	if (size > file->size)
		r = grow_locked(file, size, false);
	(void)pthread_rwlock_unlock(&file->lock);
	return r;
}

int cmek_content_truncate(struct cmek_ofile *file, uint64_t size)
{
	int r = cmek_content_check_write(file, size);

	/* Emptying needs nothing of what is there, so it also mends a file whose first page is bad. */
	if (r == 0 && size > 0)
		r = cmek_ofile_load(file);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_wrlock(&file->lock);
	if (cmek_content_failed(file->content) < 0) {
		r = -EROFS; /* what is only in memory must not be dropped; a commit that failed held the lock */
	} else if (size == 0) {
		r = empty_locked(file);
	} else if (size > file->size) {
		r = grow_locked(file, size, false);
	} else if (size < file->size) {
		r = shrink_locked(file, size);
		/* The pages must say the new size before the store file has it. */
		if (r == 0)
			commit_cut_locked(file);
	}
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
	if (r == 0)
		cmek_ofile_touch(file);
	cmek_ofile_queue(file);
	return r;
}
