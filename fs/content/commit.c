/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Brings what waits in memory into the store: held blocks, map pages, the sealed size, the modification time. The one
 * place that overwrites live blocks and pages, so the one place that a journal comes in front of. Also the thread that
 * does it for files nobody syncs.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/content/ofile.h"

/* After a commit that failed, the next try of the background is this much later. */
#define RETRY_MS 1000u

bool cmek_commit_needed(struct cmek_ofile *file)
{
	bool needed;

	if (file->content->params.read_only)
		return false;
	(void)pthread_mutex_lock(&file->dirty_lock);
	needed = file->dirty != NULL || file->size_dirty || file->mtime_dirty;
	(void)pthread_mutex_unlock(&file->dirty_lock);
	return needed;
}

static int seal_page(struct cmek_ofile *file, const uint8_t *entries, struct cmek_map_trailer *trailer, uint8_t *page)
{
	struct cmek_seal_right right;
	struct cmek_secret *key = NULL;
	int r;

	trailer->plain_bytes = cmek_group_plain_len(file->content->params.block_size, file->size, trailer->group);
	memcpy(trailer->mount_id, file->content->mount_id, sizeof(trailer->mount_id));
	r = cmek_keyring_seal_right(file->content->ring, 1, &right);
	if (r == 0)
		r = cmek_key_cache_get(file->content->keys, right.dek, right.salt, file->file_id, &key);
	if (r == 0)
		r = cmek_map_seal(key, &right, file->file_id, entries, trailer, page);
	cmek_secret_free(key);
	return r;
}

/* Held blocks from index i on that follow each other, as pieces of iov; returns how many. */
static unsigned held_run(struct cmek_group *group, unsigned i, struct iovec *iov)
{
	unsigned n = 0;

	for (; i + n < CMEK_GROUP_BLOCKS && group->held[i + n] != NULL; n++) {
		iov[n].iov_base = group->held[i + n]->data;
		iov[n].iov_len = group->held[i + n]->len;
	}
	return n;
}

/* Blocks first, the page last; the run that follows the page goes with it. group.lock is held exclusively. */
static int write_pieces_locked(struct cmek_group *group, uint8_t *page)
{
	struct cmek_ofile *file = group->file;
	uint32_t block_size = file->content->params.block_size;
	struct iovec iov[CMEK_GROUP_BLOCKS + 1];
	uint64_t first_block = group->index * CMEK_GROUP_BLOCKS;
	unsigned i, n, with_page = held_run(group, 0, iov + 1);
	int r = 0;

	for (i = with_page; r == 0 && i < CMEK_GROUP_BLOCKS && group->n_held > 0; i += n > 0 ? n : 1) {
		n = held_run(group, i, iov);
		if (n > 0)
			r = cmek_pwritev_full(file->fd, iov, (int)n, cmek_block_stored_off(block_size, first_block + i));
	}
	if (r < 0)
		return r;
	iov[0].iov_base = page;
	iov[0].iov_len = CMEK_MAP_BYTES;
	with_page = held_run(group, 0, iov + 1);
	return cmek_pwritev_full(file->fd, iov, (int)with_page + 1, cmek_map_stored_off(block_size, group->index));
}

/* taken: the group is in the batch, so it is clean afterwards; else a writer may just have put it on the file's list. */
static int write_group(struct cmek_group *group, struct cmek_map_trailer *trailer, bool taken)
{
	uint8_t page[CMEK_MAP_BYTES];
	unsigned i;
	int r;

	(void)pthread_rwlock_wrlock(&group->lock);
	trailer->group = group->index;
	r = seal_page(group->file, group->entries, trailer, page);
	if (r == 0)
		r = write_pieces_locked(group, page);
	if (r == 0) {
		group->live[0] = group->live[1] = 0;
		for (i = 0; i < CMEK_GROUP_BLOCKS; i++) {
			cmek_group_hold_locked(group, i, NULL);
			if (!cmek_entry_is_hole(cmek_group_entry(group, i)))
				group->live[i / 64] |= UINT64_C(1) << (i % 64);
		}
		if (taken)
			group->dirty = false;
	}
	(void)pthread_rwlock_unlock(&group->lock);
	return r;
}

/* The group has a page in the store now. */
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

/* A map page has room for ten absent ranges: the smallest ones are closed by real pages of holes. */
static int close_ranges(struct cmek_ofile *file)
{
	static const uint8_t holes[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer = { 0 };
	uint8_t page[CMEK_MAP_BYTES];
	struct cmek_absent_range range;
	uint64_t i;
	int r = 0;

	while (r == 0 && file->absent.n > CMEK_MAP_RANGES) {
		range = cmek_absent_smallest(&file->absent);
		for (i = 0; r == 0 && i < range.count; i++) {
			trailer.group = range.first + i;
			r = seal_page(file, holes, &trailer, page);
			if (r == 0)
				r = cmek_pwrite_full(file->fd, page, sizeof(page),
						     cmek_map_stored_off(file->content->params.block_size, trailer.group));
			if (r == 0)
				r = no_longer_absent(file, trailer.group);
		}
	}
	return r;
}

/* Group 0 speaks for the whole file, so it comes last. */
static int write_first_group(struct cmek_ofile *file, bool taken)
{
	struct cmek_map_trailer trailer = { 0 };
	struct cmek_group *group;
	unsigned i;
	int r;

	r = close_ranges(file);
	if (r == 0)
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
	r = write_group(group, &trailer, taken);
	cmek_group_put(group);
	return r;
}

/* The store file ends where the plain size says. */
static int fit_store_size(struct cmek_ofile *file)
{
	off_t want = (off_t)cmek_stored_size(file->content->params.block_size, file->size);
	struct stat st;

	if (fstat(file->fd, &st) < 0 || (st.st_size != want && ftruncate(file->fd, want) < 0))
		return -errno;
	return 0;
}

static int keep_mtime(struct cmek_ofile *file, struct timespec mtime)
{
	struct timespec ts[2] = { { 0, UTIME_OMIT }, mtime };

	return futimens(file->fd, ts) < 0 ? -errno : 0;
}

/* What one commit took off the file's account, to be put back if it fails. */
struct batch {
	struct cmek_group *groups;
	bool size, mtime, mtime_valid;
	struct timespec mtime_value;
};

static void take_batch(struct cmek_ofile *file, struct batch *batch)
{
	(void)pthread_mutex_lock(&file->dirty_lock);
	batch->groups = file->dirty;
	file->dirty = NULL;
	file->n_dirty = 0;
	batch->size = file->size_dirty;
	batch->mtime = file->mtime_dirty;
	batch->mtime_valid = file->mtime_valid;
	batch->mtime_value = file->mtime;
	file->size_dirty = file->mtime_dirty = false;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

static void give_back_batch(struct cmek_ofile *file, struct batch *batch)
{
	struct cmek_group *group;

	(void)pthread_mutex_lock(&file->dirty_lock);
	while ((group = batch->groups) != NULL) {
		batch->groups = group->dirty_next;
		group->dirty_next = file->dirty;
		file->dirty = group;
		file->n_dirty++;
	}
	file->size_dirty |= batch->size;
	file->mtime_dirty |= batch->mtime;
	(void)pthread_mutex_unlock(&file->dirty_lock);
}

/* All groups but the first. Those that are written go off the batch; *ret_first is taken off it as well. */
static int write_other_groups(struct cmek_ofile *file, struct batch *batch, struct cmek_group **ret_first)
{
	struct cmek_map_trailer trailer = { 0 };
	struct cmek_group *group, *next;
	int r;

	while ((group = batch->groups) != NULL) {
		next = group->dirty_next; /* once it is written, a writer may put it on the file's list again */
		if (group->index == 0) {
			*ret_first = group;
			batch->groups = next;
			continue;
		}
		r = no_longer_absent(file, group->index);
		if (r == 0)
			r = write_group(group, &trailer, true);
		if (r < 0)
			return r;
		batch->groups = next;
		cmek_group_put(group);
	}
	return 0;
}

static int write_batch(struct cmek_ofile *file, struct batch *batch)
{
	bool any = batch->size || batch->groups != NULL;
	struct cmek_group *first = NULL;
	int r;

	r = write_other_groups(file, batch, &first);
	if (r == 0 && any && file->size > 0)
		r = write_first_group(file, first != NULL);
	if (first != NULL && r < 0) {
		first->dirty_next = batch->groups;
		batch->groups = first;
	} else {
		cmek_group_put(first);
	}
	if (r == 0 && batch->size)
		r = fit_store_size(file);
	if (r == 0 && batch->mtime_valid && (any || batch->mtime))
		r = keep_mtime(file, batch->mtime_value);
	if (r < 0)
		batch->size = batch->size || any; /* then the first group is written again, too */
	return r;
}

int cmek_commit_locked(struct cmek_ofile *file)
{
	struct batch batch;
	int r;

	if (!cmek_commit_needed(file))
		return 0;
	take_batch(file, &batch);
	r = write_batch(file, &batch);
	if (r < 0)
		give_back_batch(file, &batch);
	return r;
}

int cmek_content_commit(struct cmek_ofile *file)
{
	int r;

	if (!cmek_commit_needed(file))
		return 0;
	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_rdlock(&file->lock);
	r = cmek_commit_locked(file);
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
	if (r < 0)
		cmek_ofile_fail(file, r, "changes could not be written to the store");
	return r;
}

int cmek_content_sync(struct cmek_ofile *file, bool datasync)
{
	int r = cmek_content_commit(file);

	if (r < 0)
		return r;
	/* Always: an earlier commit may have been written and not flushed, by this opening or one before it. */
	if ((datasync ? fdatasync(file->fd) : fsync(file->fd)) < 0) {
		r = -errno;
		cmek_ofile_fail(file, r, "the store could not flush the file");
		return r;
	}
	return cmek_ofile_flush(file);
}

int cmek_content_commit_all(struct cmek_content *content)
{
	struct cmek_ofile *file;
	uint64_t wait_ms;
	size_t left;
	int r, first_error = 0;

	(void)pthread_mutex_lock(&content->files_lock);
	left = content->n_queued;
	(void)pthread_mutex_unlock(&content->files_lock);
	/* Those that fail go to the end of the queue again, behind the ones that are meant. */
	while (left-- > 0 && (file = cmek_ofile_dequeue(content, 0, &wait_ms)) != NULL) {
		r = cmek_content_commit(file);
		if (r < 0) {
			first_error = first_error < 0 ? first_error : r;
			cmek_ofile_queue(file);
		}
		cmek_ofile_unref(file);
	}
	return first_error;
}

/* Waits, at most wait_ms; true when the content is being freed. */
static bool wait_or_stop(struct cmek_content *content, uint64_t wait_ms)
{
	struct timespec until;
	bool stop;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(wait_ms / 1000);
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_mutex_lock(&content->files_lock);
	if (!content->stopping)
		(void)pthread_cond_timedwait(&content->files_cond, &content->files_lock, &until);
	stop = content->stopping;
	(void)pthread_mutex_unlock(&content->files_lock);
	return stop;
}

void *cmek_committer_main(void *arg)
{
	struct cmek_content *content = arg;
	struct cmek_ofile *file;
	uint64_t wait_ms = content->params.commit_ms;

	while (!wait_or_stop(content, wait_ms)) {
		for (;;) {
			bool pressed = content->held_bytes > content->params.held_max_bytes / 2;

			file = cmek_ofile_dequeue(content, pressed ? 0 : content->params.commit_ms, &wait_ms);
			if (file == NULL)
				break;
			if (cmek_content_commit(file) < 0) {
				cmek_ofile_queue(file);
				cmek_ofile_unref(file);
				wait_ms = RETRY_MS;
				break;
			}
			cmek_ofile_unref(file);
		}
	}
	return NULL;
}
