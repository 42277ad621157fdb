/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Brings what waits in memory into the store: held blocks, map pages, the sealed size, the modification time. A commit
 * is prepared (one section with its images), made durable in the journal if there is one, applied in place, and
 * finished. The one place that overwrites live blocks and pages.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "fs/content/commit.h"

/* With less free space than this, space for a record's images is allocated before the record is written. */
#define SPACE_LOW (UINT64_C(512) << 20)
/* That there is more holds for this long: less than it takes to write that much. */
#define SPACE_KNOWN_MS 50

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

/* Where the store file is, as far as that can be told: only used when handles can't be. */
static char *ask_for_path(struct cmek_ofile *file)
{
	char link[64], path[PATH_MAX];
	const char *root = file->content->params.store_path;
	size_t root_len = root != NULL ? strlen(root) : 0;
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", file->fd);
	n = root_len > 0 ? readlink(link, path, sizeof(path) - 1) : -1;
	if (n <= (ssize_t)root_len || n >= (ssize_t)sizeof(path) - 1)
		return strdup("");
	path[n] = 0;
	return strdup(strncmp(path, root, root_len) == 0 && path[root_len] == '/' ? path + root_len + 1 : "");
}

/* Asked for again when any name has changed: it could be one on the way to this file. */
static const char *stored_path(struct cmek_ofile *file)
{
	unsigned names = atomic_load(&file->content->name_changes);

	if (file->path == NULL || file->path_names != names) {
		free(file->path);
		file->path = ask_for_path(file);
		file->path_names = names;
	}
	return file->path;
}

/*
 * A file without a name any more has a record like all others: whether its end is durable is not known, and if it is,
 * the handle says so. Where there are no handles, its path would name another one.
 */
static int describe_file(struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	const char *path = stored_path(file);
	struct stat st;
	int r;

	if (path == NULL)
		return -ENOMEM;
	if (!file->has_handle) {
		r = cmek_handle_of(file->fd, &file->handle);
		if (r < 0)
			return r;
		file->has_handle = true;
	}
	/* A file that was never loaded has no changes but its times, and its id is not known. */
	commit->unlogged = !file->loaded;
	if (file->handle.len == 0) {
		if (fstat(file->fd, &st) < 0)
			return -errno;
		commit->unlogged |= st.st_nlink == 0;
	}
	commit->section.handle = file->handle;
	commit->section.path = strdup(path);
	if (commit->section.path == NULL)
		return -ENOMEM;
	memcpy(commit->section.file_id, file->file_id, CMEK_FILE_ID_LEN);
	/* Until the last part comes the size is what it was. */
	commit->section.plain_size = commit->partial ? file->sealed_size : file->size;
	if (commit->partial)
		commit->section.flags |= CMEK_FILE_PART;
	if (!file->id_logged)
		commit->section.flags |= CMEK_FILE_NEW_ID;
	return 0;
}

/*
 * commit_lock and file.lock (either way) are held. seq: a record of the file that is not in place yet and stands for the
 * touch until its space is wanted; 0: none.
 */
static int touch_locked(struct cmek_ofile *file, bool needed, uint64_t seq)
{
	struct cmek_journal *journal = file->content->journal;
	struct cmek_commit commit = { .file = file };
	int r;

	if (file->touched)
		return 0;
	r = describe_file(&commit);
	commit.section.plain_size = file->id_logged ? file->sealed_size : 0;
	commit.section.flags |= CMEK_FILE_TOUCH;
	if (r == 0 && !commit.unlogged)
		r = seq > 0 ? cmek_journal_touch_with(journal, &commit.section, seq, &file->touch) :
			      cmek_journal_touch(journal, &commit.section, needed, &file->touch);
	file->touched = r == 0;
	cmek_commit_free(&commit);
	return r;
}

int cmek_commit_prepare(struct cmek_ofile *file, struct cmek_commit *commit)
{
	int r;

	memset(commit, 0, sizeof(*commit));
	commit->file = file;
	commit->section.plain_size = file->size;
	r = cmek_commit_take(commit);
	if (r < 0)
		return r;
	/* The first page comes last: without it a file that had none is empty again, if its parts are all that there is. */
	if (commit->partial && file->sealed_size == 0)
		r = touch_locked(file, true, 0);
	if (r == 0)
		r = cmek_commit_gather(commit);
	if (r == 0 && file->content->journal != NULL)
		r = describe_file(commit);
	if (r < 0)
		cmek_commit_give_back(commit);
	return r;
}

static uint64_t item_off(const struct cmek_commit *commit, const struct cmek_item *item)
{
	uint32_t block_size = commit->file->content->params.block_size;

	return item->type == CMEK_ITEM_MAP ? cmek_map_stored_off(block_size, item->first) :
					     cmek_block_stored_off(block_size, item->first);
}

/* What is done with a run of images: len bytes that belong at off of the store file. 0 or -errno. */
typedef int (*run_fn)(int fd, const uint8_t *images, uint64_t len, uint64_t off);

static bool has_image(const struct cmek_item *item)
{
	return item->type == CMEK_ITEM_MAP || item->type == CMEK_ITEM_BLOCK;
}

/* Images that follow each other here and in the store are one run. */
static int for_each_run(struct cmek_commit *commit, run_fn fn)
{
	const struct cmek_section *section = &commit->section;
	size_t i = 0, next;
	int r = 0;

	while (r == 0 && i < section->n_items) {
		const struct cmek_item *item = section->items + i;
		uint64_t off = item_off(commit, item), len = item->count;

		if (!has_image(item)) {
			i++;
			continue;
		}
		for (next = i + 1; next < section->n_items && has_image(section->items + next); next++) {
			const struct cmek_item *more = section->items + next;

			if (len % CMEK_JOURNAL_UNIT != 0 || item_off(commit, more) != off + len ||
			    more->image * CMEK_JOURNAL_UNIT != item->image * CMEK_JOURNAL_UNIT + len)
				break;
			len += more->count;
		}
		r = fn(commit->file->fd, commit->images + item->image * CMEK_JOURNAL_UNIT, len, off);
		i = next;
	}
	return r;
}

static int write_run(int fd, const uint8_t *images, uint64_t len, uint64_t off)
{
	return cmek_pwrite_full(fd, images, len, off);
}

/* Where the store can't promise space, what it can't do shows when the run is written. */
static int allocate_run(int fd, const uint8_t *images, uint64_t len, uint64_t off)
{
	(void)images;
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return 0;
}

static int for_each_run_with_reserve(struct cmek_commit *commit, run_fn fn)
{
	int r = for_each_run(commit, fn);

	if (r == -ENOSPC && cmek_room_use_reserve(commit->file->content->params.room))
		r = for_each_run(commit, fn);
	return r;
}

/* A held block has its room in the store now; group.lock is held exclusively. */
static void redeem(struct cmek_group *group, unsigned i)
{
	cmek_room_promise(group->file->content->params.room, -(int64_t)group->held[i]->room);
	group->held[i]->room = 0;
}

/* All that the commit takes has. */
static void redeem_promises(struct cmek_commit *commit)
{
	size_t i;
	unsigned k;

	for (i = 0; i < commit->n_groups; i++) {
		struct cmek_group *group = commit->groups[i].group;

		(void)pthread_rwlock_wrlock(&group->lock);
		for (k = 0; group->n_held > 0 && k < CMEK_GROUP_BLOCKS; k++)
			if (group->held[k] != NULL && group->held[k]->version <= commit->groups[i].version)
				redeem(group, k);
		(void)pthread_rwlock_unlock(&group->lock);
	}
}

/*
 * A record promises that its images will be in place some day, so there must be room for them before it is written.
 * While the store is far from full there is, and nobody has to ask.
 */
static int secure_space(struct cmek_commit *commit)
{
	struct cmek_content *content = commit->file->content;
	uint64_t now = cmek_now_ms(), until = atomic_load(&content->space_until_ms);
	struct statvfs store;
	int r;

	if (now < until)
		return 0;
	if (fstatvfs(commit->file->fd, &store) < 0)
		return -errno;
	if ((uint64_t)store.f_bavail * store.f_frsize <= SPACE_LOW + commit->images_bytes) {
		r = for_each_run_with_reserve(commit, allocate_run);
		if (r == 0)
			redeem_promises(commit);
		return r;
	}
	atomic_store(&content->space_until_ms, now + SPACE_KNOWN_MS);
	return 0;
}

/* The flush, and the room, that a record needs before it is written. */
static int ready_for_record(struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	int r;

	/* Else replay could bring new contents to a file that has still the privileges of the old ones. */
	if (atomic_exchange(&file->privs_gone, false)) {
		r = fsync(file->fd) < 0 ? -errno : 0;
		if (r < 0) {
			atomic_store(&file->privs_gone, true);
			return r;
		}
	}
	/* Fresh data that the record speaks of must be in the store before the record is. */
	if (commit->in_place && fdatasync(file->fd) < 0)
		return -errno;
	return secure_space(commit);
}

/* From here on nothing goes in place. True: since the commit was prepared something has. */
static bool untouch(struct cmek_ofile *file)
{
	bool since;

	(void)pthread_mutex_lock(&file->dirty_lock);
	file->touched = false;
	since = file->in_place_since;
	(void)pthread_mutex_unlock(&file->dirty_lock);
	cmek_journal_untouch(file->content->journal, file->touch);
	file->touch = NULL;
	return since;
}

/* A journal that takes no records any more is a volume that takes no changes: nobody could sync them. */
static void append(struct cmek_content *content, struct cmek_journal_request *requests, size_t n)
{
	struct cmek_journal_status status;

	cmek_journal_append(content->journal, requests, n);
	if (requests[n - 1].result == 0 || requests[n - 1].result == -E2BIG)
		return;
	cmek_journal_status(content->journal, &status);
	if (status.error < 0)
		cmek_content_fail(content, status.error, "the journal failed: nothing more can be made durable, and the volume "
							 "is read-only until it is mounted anew");
}

void cmek_commit_log(struct cmek_commit *commits, size_t n, int *results)
{
	struct cmek_content *content = commits[0].file->content;
	struct cmek_journal_request requests[CMEK_COMMITS_MAX];
	size_t i, n_requests = 0;

	for (i = 0; i < n; i++) {
		results[i] = 0;
		commits[i].tried = true;
		if (content->journal == NULL || commits[i].unlogged)
			continue;
		results[i] = ready_for_record(commits + i);
		commits[i].tried = results[i] == 0;
		if (commits[i].tried)
			requests[n_requests++] = (struct cmek_journal_request){
				.section = &commits[i].section,
				.images = commits[i].images,
				.images_bytes = commits[i].images_bytes,
				.ends = commits[i].size ? commits[i].file->touch : NULL,
			};
	}
	if (n_requests > 0)
		append(content, requests, n_requests);
	for (i = 0, n_requests = 0; i < n; i++) {
		if (content->journal != NULL && !commits[i].unlogged && results[i] == 0) {
			results[i] = requests[n_requests].result;
			commits[i].seq = requests[n_requests++].seq;
			commits[i].logged = results[i] == 0;
		}
		if (commits[i].logged) {
			/* an empty file has no id; the one it gets may be drawn just now */
			if (commits[i].section.plain_size > 0 || commits[i].partial)
				commits[i].file->id_logged = true;
			if (commits[i].size) {
				commits[i].retouch = untouch(commits[i].file);
				commits[i].file->cut_waits = commits[i].file->rewritten = false;
				commits[i].file->sealed_size = commits[i].section.plain_size;
			}
		}
		if (results[i] < 0)
			cmek_commit_give_back(commits + i);
	}
}

/*
 * The store file ends where the plain size says. The file may have grown since the commit was prepared, and what is new can
 * be in place already; but that it has grown is for the next commit to say, so the store file is made no longer for it.
 */
static int fit_store_size(const struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	uint32_t block_size = file->content->params.block_size;
	off_t least = (off_t)cmek_stored_size(block_size, commit->section.plain_size);
	off_t most = (off_t)cmek_stored_size(block_size, file->size);
	struct stat st;

	if (file->fitted)
		return 0;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	if ((st.st_size < least || st.st_size > most) && ftruncate(file->fd, st.st_size < least ? least : most) < 0)
		return -errno;
	file->fitted = least == most;
	return 0;
}

/* The store file is what the commit says: the host is told when there was nothing in it before, or is nothing now. */
static void tell_data(const struct cmek_commit *commit)
{
	struct cmek_ofile *file = commit->file;
	const struct cmek_content_host *host = &file->content->host;
	int data = commit->section.plain_size > 0;

	if (host->set_data == NULL || file->has_data == data)
		return;
	file->has_data = data;
	host->set_data(host->arg, file->node, data);
}

/* What the durable record calls holes the store may forget. That it can't, or not now, changes nothing but the space. */
static void free_punched(const struct cmek_commit *commit)
{
	uint32_t block_size = commit->file->content->params.block_size;
	size_t i;

	for (i = 0; i < commit->section.n_items; i++) {
		const struct cmek_item *item = commit->section.items + i;
		uint64_t off = cmek_block_stored_off(block_size, item->first);

		if (item->type == CMEK_ITEM_PUNCH)
			(void)fallocate(commit->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
					(off_t)(cmek_block_stored_off(block_size, item->first + item->count - 1) +
						block_size - off));
	}
}

int cmek_commit_apply(struct cmek_commit *commit)
{
	struct timespec ts[2] = { { 0, UTIME_OMIT }, commit->section.mtime };
	int r = commit->retouch ? touch_locked(commit->file, true, commit->seq) : 0;

	/*
	 * Before this record is let go of: it is the one that speaks of the file as long as there is no touch. It is also
	 * in the way of others in the ring, so nothing is appended here, which could wait for room.
	 */
	commit->again |= r == -EAGAIN;
	if (r == 0 || r == -EAGAIN)
		r = for_each_run_with_reserve(commit, write_run);
	if (r == 0 && commit->free_holes)
		free_punched(commit);
	if (r == 0 && commit->size)
		r = fit_store_size(commit);
	if (r == 0 && commit->size)
		tell_data(commit);
	/* EPERM: another user's file, whose time only they may set; the writes have set it to about the same */
	if (r == 0 && commit->section.flags & CMEK_FILE_MTIME && (commit->size || commit->mtime) &&
	    futimens(commit->file->fd, ts) < 0 && errno != EPERM)
		r = -errno;
	return r;
}

/* Commits of a file whose records are durable and not in place, the newest first. */
struct cmek_stuck {
	struct cmek_stuck *next;
	struct cmek_taken_group *groups; /* each with its reference, so that they stay in memory with what they hold */
	size_t n;
};

/* What the commit brought into the store need not be held any more, unless it is newer by now. */
static void let_go(struct cmek_taken_group *t)
{
	struct cmek_group *group = t->group;
	unsigned i;

	(void)pthread_rwlock_wrlock(&group->lock);
	for (i = 0; group->n_held > 0 && i < CMEK_GROUP_BLOCKS; i++) {
		if (group->held[i] != NULL && group->held[i]->version <= t->version)
			cmek_group_hold_locked(group, i, NULL);
		else if (group->held[i] != NULL && (t->stored[i / 64] >> (i % 64) & 1))
			redeem(group, i); /* newer, and for the same place */
	}
	group->live[0] = t->stored[0];
	group->live[1] = t->stored[1];
	(void)pthread_rwlock_unlock(&group->lock);
	cmek_group_put(group);
}

/*
 * The record is durable and its images can't be written in place: it stays for the next mount, and what it brought is
 * served from memory until this one ends. False: no memory for the note.
 */
static bool keep_in_memory(struct cmek_commit *commit)
{
	struct cmek_stuck *stuck = malloc(sizeof(*stuck));

	if (stuck == NULL)
		return false;
	stuck->groups = commit->groups;
	stuck->n = commit->n_groups;
	commit->groups = NULL;
	commit->n_groups = 0;
	stuck->next = commit->file->stuck;
	commit->file->stuck = stuck;
	return true;
}

void cmek_commit_drop_records(struct cmek_ofile *file)
{
	struct cmek_stuck *stuck;
	size_t i;

	/*
	 * With changes that never became a record, what was written in place means nothing: the touch stays in the journal,
	 * and the next mount takes the file back to its last size.
	 */
	if (file->touch != NULL && !cmek_commit_needed(file))
		(void)untouch(file);
	while ((stuck = file->stuck) != NULL) {
		file->stuck = stuck->next;
		for (i = 0; i < stuck->n; i++)
			cmek_group_put(stuck->groups[i].group);
		free(stuck->groups);
		free(stuck);
	}
}

int cmek_commit_touch(struct cmek_ofile *file)
{
	int r;

	if (file->touched)
		return 0;
	(void)pthread_mutex_lock(&file->commit_lock);
	(void)pthread_rwlock_rdlock(&file->lock);
	r = touch_locked(file, false, 0);
	(void)pthread_rwlock_unlock(&file->lock);
	(void)pthread_mutex_unlock(&file->commit_lock);
	return r;
}

static void finish_failed(struct cmek_commit *commit, int r)
{
	struct cmek_content *content = commit->file->content;
	struct stat st;

	/* Nobody will look for a file without a name after a crash: its record is not needed. */
	if (commit->logged && fstat(commit->file->fd, &st) == 0 && st.st_nlink == 0) {
		cmek_journal_applied(content->journal, commit->seq);
		commit->logged = false;
	}
	if (commit->logged) {
		cmek_journal_not_applied(content->journal, commit->seq);
		cmek_content_fail(content, r, "a durable change could not be written in place: it stays in the journal, and "
					      "the volume is read-only until it is mounted anew");
	}
	if (commit->logged && keep_in_memory(commit))
		cmek_commit_free(commit);
	else
		cmek_commit_give_back(commit);
}

void cmek_commit_finish(struct cmek_commit *commit, int r)
{
	size_t i;

	if (r < 0) {
		finish_failed(commit, r);
		return;
	}
	if (commit->logged)
		cmek_journal_applied(commit->file->content->journal, commit->seq);
	for (i = 0; i < commit->n_groups; i++)
		let_go(commit->groups + i);
	cmek_commit_free(commit);
}
