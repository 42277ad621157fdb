/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The content layer as a whole: made, freed, told of, and the buffers its threads work in.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "fs/content/ofile.h"

#define HELD_MAX_DEFAULT (UINT64_C(64) << 20)
#define MAP_CACHE_DEFAULT (UINT64_C(64) << 20)
#define COMMIT_MS_DEFAULT 5000u
#define MAX_KEYS_DEFAULT 4096u
#define QUEUED_MIN 16u
#define QUEUED_MAX 1024u

static void scratch_free(void *arg)
{
	struct cmek_scratch *scratch = arg;

	if (scratch == NULL)
		return;
	free(scratch->stored);
	if (scratch->plain != NULL)
		cmek_wipe(scratch->plain, CMEK_BLOCK_MAX);
	free(scratch->plain);
	free(scratch);
}

struct cmek_scratch *cmek_scratch_get(struct cmek_content *content)
{
	struct cmek_scratch *scratch = pthread_getspecific(content->scratch);

	if (scratch != NULL)
		return scratch;
	scratch = calloc(1, sizeof(*scratch));
	if (scratch == NULL)
		return NULL;
	scratch->stored = malloc(CMEK_RUN_MAX + CMEK_BLOCK_MAX);
	scratch->plain = malloc(CMEK_BLOCK_MAX);
	if (scratch->stored == NULL || scratch->plain == NULL ||
	    pthread_setspecific(content->scratch, scratch) != 0) {
		scratch_free(scratch);
		return NULL;
	}
	return scratch;
}

/* Files with changes have a descriptor each: a part of those that we may have. */
static size_t queued_max(const struct cmek_fds *fds)
{
	if (fds->limit / 4 > QUEUED_MAX)
		return QUEUED_MAX;
	return fds->limit / 4 < QUEUED_MIN ? QUEUED_MIN : fds->limit / 4;
}

static void set_params(struct cmek_content *content, const struct cmek_content_params *params)
{
	content->params = *params;
	if (content->params.held_max_bytes == 0)
		content->params.held_max_bytes = HELD_MAX_DEFAULT;
	if (content->params.map_cache_bytes == 0)
		content->params.map_cache_bytes = MAP_CACHE_DEFAULT;
	if (content->params.max_keys == 0)
		content->params.max_keys = MAX_KEYS_DEFAULT;
	if (content->params.commit_ms == 0)
		content->params.commit_ms = COMMIT_MS_DEFAULT;
	content->max_groups = content->params.map_cache_bytes / sizeof(struct cmek_group) + 1;
	content->n_buckets = content->max_groups * 2 | 1;
	cmek_fds_plan(&content->fds);
	content->max_queued = queued_max(&content->fds);
}

static int start_committer(struct cmek_content *content)
{
	pthread_condattr_t attr;
	int r;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&content->files_cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	r = pthread_create(&content->committer, NULL, cmek_committer_main, content);
	if (r != 0)
		(void)pthread_cond_destroy(&content->files_cond);
	return -r;
}

static int flush_store(void *arg)
{
	struct cmek_content *content = arg;

	return content->host.flush_store(content->host.arg);
}

void cmek_content_fail(struct cmek_content *content, int error, const char *why)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&content->failed, &none, error))
		return;
	content->host.report(content->host.arg, 0, error, why);
	if (content->host.failed != NULL)
		content->host.failed(content->host.arg);
}

int cmek_content_failed(const struct cmek_content *content)
{
	return atomic_load(&content->failed);
}

static void report_journal(void *arg, int error, const char *what)
{
	struct cmek_content *content = arg;

	cmek_content_fail(content, error, what);
}

static int open_journal(struct cmek_content *content, struct cmek_error *err)
{
	struct cmek_journal_host host = { content, flush_store, report_journal };
	struct cmek_journal_params params = { .length_bytes = content->params.journal_bytes,
					      .block_size = content->params.block_size,
					      .dek_next = content->params.dek_next };

	if (content->params.no_journal || content->params.read_only)
		return 0;
	memcpy(params.volume, content->params.volume, sizeof(params.volume));
	memcpy(params.mount_id, content->mount_id, sizeof(params.mount_id));
	return cmek_journal_open(content->ring, content->params.meta_fd, &host, &params, &content->journal, err);
}

static void free_tables(struct cmek_content *content)
{
	cmek_key_cache_free(content->keys);
	free(content->files);
	free(content->groups);
	free(content);
}

int cmek_content_new(struct cmek_keyring *ring, const struct cmek_content_host *host,
		     const struct cmek_content_params *params, struct cmek_content **ret_content,
		     struct cmek_error *err)
{
	struct cmek_content *content = calloc(1, sizeof(*content));
	int r;

	if (content == NULL)
		return cmek_error_sys(err, ENOMEM, "content layer");
	content->ring = ring;
	content->host = *host;
	set_params(content, params);
	cmek_random(content->mount_id, sizeof(content->mount_id));
	(void)pthread_mutex_init(&content->files_lock, NULL);
	(void)pthread_cond_init(&content->idle_cond, NULL);
	(void)pthread_mutex_init(&content->groups_lock, NULL);
	content->groups = calloc(content->n_buckets, sizeof(struct cmek_group *));
	r = content->groups != NULL ? cmek_ofile_table_new(content) : -ENOMEM;
	if (r == 0)
		r = cmek_key_cache_new(ring, content->params.max_keys, &content->keys);
	if (r == 0)
		r = -pthread_key_create(&content->scratch, scratch_free);
	if (r < 0) {
		free_tables(content);
		return cmek_error_sys(err, -r, "content layer");
	}
	r = open_journal(content, err);
	if (r == 0) {
		r = start_committer(content);
		if (r < 0) {
			(void)cmek_error_sys(err, -r, "committer thread");
			(void)cmek_journal_close(content->journal); /* it is empty */
		}
	}
	if (r < 0) {
		(void)pthread_key_delete(content->scratch);
		free_tables(content);
		return r;
	}
	*ret_content = content;
	return 0;
}

void cmek_content_stat(const struct cmek_content *content, struct stat *st)
{
	const struct cmek_last_state *over = cmek_overlay_find(content->params.overlay, st->st_dev, st->st_ino);

	if (over == NULL)
		return;
	st->st_size = (off_t)over->plain_size;
	if (over->has_mtime)
		st->st_mtim = over->mtime;
}

int cmek_content_free(struct cmek_content *content)
{
	int r, journal_r;

	if (content == NULL)
		return 0;
	(void)pthread_mutex_lock(&content->files_lock);
	content->stopping = true;
	(void)pthread_cond_signal(&content->files_cond);
	(void)pthread_mutex_unlock(&content->files_lock);
	(void)pthread_join(content->committer, NULL);
	r = cmek_content_commit_all(content);
	if (r == 0)
		r = cmek_content_failed(content);
	cmek_ofile_table_drop(content);
	journal_r = cmek_journal_close(content->journal);
	/* Threads that already ended freed theirs; this thread's own is freed here. */
	scratch_free(pthread_getspecific(content->scratch));
	(void)pthread_key_delete(content->scratch);
	(void)pthread_cond_destroy(&content->files_cond);
	(void)pthread_cond_destroy(&content->idle_cond);
	(void)pthread_mutex_destroy(&content->files_lock);
	(void)pthread_mutex_destroy(&content->groups_lock);
	free_tables(content);
	return r < 0 ? r : journal_r;
}

void cmek_content_status(struct cmek_content *content, struct cmek_content_status *ret_status)
{
	struct cmek_content_status status = { .waiting_bytes = content->held_bytes,
					      .oldest_ms = cmek_ofile_oldest_ms(content),
					      .has_journal = content->journal != NULL };
	struct cmek_journal_status journal;

	status.read_bytes = content->read_bytes;
	status.written_bytes = content->written_bytes;
	status.map_hits = content->group_hits;
	status.map_misses = content->group_misses;
	cmek_key_cache_counts(content->keys, &status.key_hits, &status.key_misses);
	(void)pthread_mutex_lock(&content->files_lock);
	status.files = content->n_files;
	status.waiting_files = content->n_queued;
	(void)pthread_mutex_unlock(&content->files_lock);
	(void)pthread_mutex_lock(&content->groups_lock);
	status.map_pages = content->n_groups;
	(void)pthread_mutex_unlock(&content->groups_lock);
	if (content->journal != NULL) {
		cmek_journal_status(content->journal, &journal);
		status.journal_length_bytes = journal.length_bytes;
		status.journal_used_bytes = journal.used_bytes;
		status.journal_records = journal.records;
		status.journal_oldest_ms = journal.oldest_ms;
		status.journal_appends = journal.appends;
		status.journal_flushes = journal.flushes;
		status.journal_checkpoints = journal.checkpoints;
		status.journal_appended_bytes = journal.appended_bytes;
		status.journal_error = journal.error;
	}
	*ret_status = status;
}
