/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * When changes go to the store: because somebody syncs or closes, because too much waits, or because it has waited
 * long enough (the committer thread). How they go is commit.c's business.
 */
#include "config.h"

#include <errno.h>
#include <unistd.h>

#include "fs/content/commit.h"

/* After a commit that failed, the next try of the background is this much later. */
#define RETRY_MS 1000u

int cmek_commit_exclusive(struct cmek_ofile *file)
{
	struct cmek_commit commit;
	bool again;
	int r;

	if (!cmek_commit_needed(file))
		return 0;
	r = cmek_commit_prepare(file, &commit);
	if (r < 0)
		return r;
	cmek_commit_log(&commit, 1, &r);
	if (r < 0)
		return r;
	r = cmek_commit_apply(&commit);
	again = commit.again;
	cmek_commit_finish(&commit, r);
	return r == 0 && again ? cmek_commit_exclusive(file) : r;
}

/*
 * Prepares a commit; commit_lock stays held when there is one. False: nothing to do, or *ret_r says what failed, or is 1
 * when somebody else has the lock and it is not to be waited for.
 */
static bool begin(struct cmek_ofile *file, bool wait, struct cmek_commit *commit, int *ret_r)
{
	bool needed;

	*ret_r = 1;
	if (!wait && pthread_mutex_trylock(&file->commit_lock) != 0)
		return false;
	if (wait)
		(void)pthread_mutex_lock(&file->commit_lock);
	*ret_r = 0;
	needed = cmek_commit_needed(file);
	if (needed) {
		(void)pthread_rwlock_rdlock(&file->lock);
		*ret_r = cmek_commit_prepare(file, commit);
		(void)pthread_rwlock_unlock(&file->lock);
	}
	if (needed && *ret_r == 0)
		return true;
	(void)pthread_mutex_unlock(&file->commit_lock);
	return false;
}

/* After the log, whose result is r. 1: another has to follow, or it has grown too large while it was prepared: again. */
static int end(struct cmek_ofile *file, struct cmek_commit *commit, int r)
{
	bool again = false;

	if (r == 0) {
		(void)pthread_rwlock_rdlock(&file->lock);
		r = cmek_commit_apply(commit);
		(void)pthread_rwlock_unlock(&file->lock);
		again = commit->again;
		cmek_commit_finish(commit, r);
	}
	(void)pthread_mutex_unlock(&file->commit_lock);
	return (r == 0 && again) || r == -E2BIG ? 1 : r;
}

/* Commits that are prepared and go to the journal together. */
struct batch {
	struct cmek_commit commits[CMEK_COMMITS_MAX];
	struct cmek_ofile *files[CMEK_COMMITS_MAX];
	int *results[CMEK_COMMITS_MAX]; /* where each file's result goes */
	size_t n;
	uint64_t images_bytes;
};

static void end_batch(struct batch *batch)
{
	int logged[CMEK_COMMITS_MAX];
	size_t i;

	if (batch->n > 0)
		cmek_commit_log(batch->commits, batch->n, logged);
	for (i = 0; i < batch->n; i++)
		*batch->results[i] = end(batch->files[i], batch->commits + i, logged[i]);
	batch->n = 0;
	batch->images_bytes = 0;
}

/* Commits up to CMEK_COMMITS_MAX files together, as far as they fit; results[i] is recorded with file i. */
static void commit_files(struct cmek_ofile **files, size_t n, int *results)
{
	uint64_t max = n > 1 && files[0]->content->journal ? cmek_journal_batch_max(files[0]->content->journal) : UINT64_MAX;
	struct cmek_commit commit;
	struct batch batch;
	size_t i;

	batch.n = 0;
	batch.images_bytes = 0;
	for (i = 0; i < n; i++) {
		/*
		 * With one lock held no other is waited for: another thread can have the same files in another order, and a
		 * file that was queued again meanwhile can be here twice. Those follow alone.
		 */
		if (!begin(files[i], batch.n == 0, &commit, results + i))
			continue;
		if (batch.images_bytes + commit.images_bytes > max)
			end_batch(&batch);
		batch.commits[batch.n] = commit;
		batch.files[batch.n] = files[i];
		batch.results[batch.n++] = results + i;
		batch.images_bytes += commit.images_bytes;
	}
	end_batch(&batch);
	for (i = 0; i < n; i++) {
		while (results[i] == 1)
			commit_files(files + i, 1, results + i);
		if (results[i] < 0)
			cmek_ofile_fail(files[i], results[i], "changes could not be written to the store");
	}
}

bool cmek_ofile_is_dirty(struct cmek_ofile *file)
{
	return cmek_commit_needed(file);
}

int cmek_content_commit(struct cmek_ofile *file)
{
	int r;

	if (file->content->params.read_only)
		return 0;
	/* Not recorded with the file: nothing has been lost yet. */
	if (atomic_load(&file->content->suspended))
		return cmek_commit_needed(file) ? -EKEYREVOKED : 0;
	commit_files(&file, 1, &r);
	return r;
}

/* Flushes the store file. Covered by it are the changes that were counted before; another thread may have more. */
static int flush_file(struct cmek_ofile *file, unsigned changes, bool datasync)
{
	unsigned flushed = atomic_load(&file->metadata_flushed);

	if ((datasync ? fdatasync(file->fd) : fsync(file->fd)) < 0)
		return -errno;
	while (!datasync && (int)(changes - flushed) > 0 &&
	       !atomic_compare_exchange_weak(&file->metadata_flushed, &flushed, changes))
		;
	return 0;
}

int cmek_content_sync(struct cmek_ofile *file, bool datasync)
{
	/* Taken before the work: a change that comes meanwhile asks for another flush. */
	unsigned changes = atomic_load(&file->metadata_changes);
	bool journal = file->content->journal != NULL;
	int r = cmek_content_commit(file);

	/*
	 * The journal answers for contents, size and time. Without one: always, because an earlier commit may have been
	 * written and not flushed, by this opening or one before it. With one: all of the metadata whoever asks, so that
	 * a later fsync need not ask what this one left out.
	 */
	if (r == 0 && (!journal || atomic_load(&file->metadata_flushed) != changes)) {
		r = flush_file(file, changes, datasync && !journal);
		if (r < 0)
			cmek_ofile_fail(file, r, "the store could not flush the file");
	}
	return r < 0 ? r : cmek_ofile_flush(file);
}

void cmek_ofile_metadata_changed(struct cmek_ofile *file)
{
	(void)atomic_fetch_add(&file->metadata_changes, 1);
}

void cmek_ofile_privs_gone(struct cmek_ofile *file)
{
	atomic_store(&file->privs_gone, true);
	cmek_ofile_metadata_changed(file);
}

void cmek_content_names_changed(struct cmek_content *content)
{
	(void)atomic_fetch_add(&content->name_changes, 1);
}

/* Takes up to CMEK_COMMITS_MAX files that have waited min_age_ms off the queue and commits them. How many, or -errno. */
static int commit_queued(struct cmek_content *content, uint64_t min_age_ms, size_t max, uint64_t *ret_wait_ms)
{
	struct cmek_ofile *files[CMEK_COMMITS_MAX];
	int results[CMEK_COMMITS_MAX], first_error = 0;
	size_t i, n = 0;

	while (n < max && (files[n] = cmek_ofile_dequeue(content, min_age_ms, ret_wait_ms)) != NULL)
		n++;
	commit_files(files, n, results);
	for (i = 0; i < n; i++) {
		if (results[i] < 0) {
			/* What is lost with a file that nobody can reach any more is no loss. */
			if (!cmek_ofile_abandon(files[i])) {
				first_error = first_error < 0 ? first_error : results[i];
				cmek_ofile_queue(files[i]);
			}
		}
		cmek_ofile_unref(files[i]);
	}
	return first_error < 0 ? first_error : (int)n;
}

int cmek_content_commit_all(struct cmek_content *content)
{
	int r, first_error = 0;
	uint64_t wait_ms;
	size_t left, n;

	(void)pthread_mutex_lock(&content->files_lock);
	left = content->n_queued;
	(void)pthread_mutex_unlock(&content->files_lock);
	if (atomic_load(&content->suspended))
		return left > 0 ? -EKEYREVOKED : 0;
	/* Those that fail go to the end of the queue again, behind the ones that are meant. */
	for (; left > 0; left -= n) {
		n = left < CMEK_COMMITS_MAX ? left : CMEK_COMMITS_MAX;
		r = commit_queued(content, 0, n, &wait_ms);
		if (r == 0)
			break;
		if (r < 0 && first_error == 0)
			first_error = r;
	}
	return first_error;
}

bool cmek_content_commit_closed(struct cmek_content *content)
{
	return cmek_ofile_any_closed(content) && cmek_content_commit_all(content) == 0;
}

int cmek_content_suspend(struct cmek_content *content)
{
	int r = 0, flush_r, journal_r = 0;

	if (!content->params.read_only) {
		r = cmek_content_commit_all(content);
		atomic_store(&content->suspended, true);
		/* Nobody changes anything any more, so when the committer has ended what it was at, that was the last. */
		(void)pthread_mutex_lock(&content->files_lock);
		while (content->committing)
			(void)pthread_cond_wait(&content->idle_cond, &content->files_lock);
		if (r == 0 && content->n_queued > 0)
			r = -EIO; /* and that is what it ended with: recorded with the file, and reported */
		(void)pthread_mutex_unlock(&content->files_lock);
		flush_r = content->host.flush_store(content->host.arg);
		if (content->journal != NULL)
			journal_r = cmek_journal_suspend(content->journal);
		r = r < 0 ? r : flush_r < 0 ? flush_r : journal_r;
	}
	cmek_key_cache_clear(content->keys);
	return r;
}

int cmek_content_resume(struct cmek_content *content)
{
	int r = content->journal != NULL ? cmek_journal_resume(content->journal) : 0;

	atomic_store(&content->suspended, false);
	return r;
}

int cmek_content_renew_journal(struct cmek_content *content, uint64_t *seq)
{
	int r;

	if (*seq == 0) {
		r = cmek_content_commit_all(content);
		if (r == 0 && content->journal != NULL)
			*seq = cmek_journal_next_seq(content->journal);
		if (r == 0)
			r = content->host.flush_store(content->host.arg);
		if (r < 0)
			return r;
	}
	r = cmek_content_failed(content);
	return r == 0 && content->journal != NULL ? cmek_journal_renew(content->journal, *seq) : r;
}

void cmek_content_forget_keys(struct cmek_content *content)
{
	cmek_key_cache_clear(content->keys);
}

/* Marks whether the committer is at work; false: it has to leave it. */
static bool set_committing(struct cmek_content *content, bool at_work)
{
	bool may;

	(void)pthread_mutex_lock(&content->files_lock);
	may = !atomic_load(&content->suspended);
	content->committing = at_work && may;
	(void)pthread_cond_broadcast(&content->idle_cond);
	(void)pthread_mutex_unlock(&content->files_lock);
	return may;
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
	if (!content->stopping && (!cmek_content_is_pressed(content) || atomic_load(&content->suspended)))
		(void)pthread_cond_timedwait(&content->files_cond, &content->files_lock, &until);
	stop = content->stopping;
	(void)pthread_mutex_unlock(&content->files_lock);
	return stop;
}

bool cmek_content_is_pressed(struct cmek_content *content)
{
	return content->held_bytes > content->params.held_max_bytes / 2 || content->n_queued > content->max_queued;
}

void *cmek_committer_main(void *arg)
{
	struct cmek_content *content = arg;
	uint64_t wait_ms = content->params.commit_ms;
	int r = 0;

	while (!wait_or_stop(content, wait_ms)) {
		wait_ms = RETRY_MS;
		if (!set_committing(content, true))
			continue;
		do
			r = commit_queued(content, cmek_content_is_pressed(content) ? 0 : content->params.commit_ms,
					  CMEK_COMMITS_MAX, &wait_ms);
		while (r > 0);
		if (r < 0)
			wait_ms = RETRY_MS;
		(void)set_committing(content, false);
		/* Room may come back, and a reserve that was used be made again, though nobody asks. */
		if (cmek_room_level(content->params.room) >= CMEK_ROOM_FULL && wait_ms > RETRY_MS)
			wait_ms = RETRY_MS;
	}
	return NULL;
}
