/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsck's look at contents: the first page and the size of a file, and with --data every page and every block, by several
 * threads. Knows doc/format.md section 5 and nothing of names; changes nothing but a stored file's length.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <search.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/io.h"
#include "fs/content/map_page.h"
#include "tools/fsck.h"

#define QUEUE_MAX 64
#define JOBS_MAX 64

/* One file in hand. */
struct body {
	struct cmek_fsck *fsck;
	const char *stored, *plain;
	int fd;
	uint64_t size; /* stored */
	uint32_t block_size;
	struct cmek_map_head head; /* of group 0 */
	struct cmek_map_trailer first;
	/* The last block key that was used. */
	struct cmek_secret *key;
	uint8_t key_entry[CMEK_ENTRY_BYTES];
	/* What was found, told once for each kind. */
	uint64_t bad_groups, first_bad_group, bad_blocks, first_bad_block;
	uint16_t unknown_dek, retired_dek;
	uint64_t blocks;
};

static void note_dek(struct body *body, int ret, uint16_t dek)
{
	if (ret == -ENOKEY)
		body->unknown_dek = dek;
	else if (ret == -EKEYREVOKED)
		body->retired_dek = dek;
}

/* A group's page: 0, -EBADMSG, or -ENOKEY/-EKEYREVOKED, which is noted; other errors are the store's. */
static int open_page(struct body *body, uint64_t group, uint8_t entries[CMEK_MAP_ENTRIES_BYTES],
		     struct cmek_map_head *ret_head, struct cmek_map_trailer *ret_trailer)
{
	uint8_t page[CMEK_MAP_BYTES];
	struct cmek_secret *key = NULL;
	ssize_t n = cmek_pread_full(body->fd, page, sizeof(page), cmek_map_stored_off(body->block_size, group));
	int ret;

	if (n < 0)
		return (int)n;
	if (n != (ssize_t)sizeof(page))
		return -EBADMSG;
	ret = cmek_map_head_decode(page, ret_head);
	if (!ret)
		ret = cmek_keyring_content_key(body->fsck->ring, ret_head->dek, ret_head->salt, ret_head->file_id, &key);
	note_dek(body, ret, ret_head->dek);
	if (!ret)
		ret = cmek_map_open(key, ret_head, body->block_size, group, page, entries, ret_trailer);
	cmek_secret_free(key);
	return ret;
}

static void tell_dek(struct body *body)
{
	if (body->unknown_dek)
		cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_DEK_UNKNOWN, body->stored, body->plain, false,
			       "data key %u", body->unknown_dek);
	if (body->retired_dek)
		cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_DEK_RETIRED, body->stored, body->plain, false,
			       "data key %u", body->retired_dek);
}

static void tell_unreadable(struct body *body, int error)
{
	cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_UNREADABLE, body->stored, body->plain, false, "%s",
		       strerror(-error));
}

/* A stored file that is longer than its contents is what a crash leaves without a journal: the sealed size is true. */
static void check_size(struct body *body, const struct cmek_fsck_file *file, uint64_t want)
{
	bool fixed = false;
	int fd;

	if (body->size > want) {
		if (cmek_fsck_may_fix(&body->fsck->findings, CMEK_FSCK_SIZE_LONG)) {
			fd = openat(file->dir_fd, file->name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
			fixed = fd >= 0 && !ftruncate(fd, (off_t)want) && !fsync(fd);
			if (fd >= 0)
				close(fd);
		}
		cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_SIZE_LONG, body->stored, body->plain, fixed,
			       "%" PRIu64 " bytes, not %" PRIu64, body->size, want);
	} else if (body->size < want) {
		cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_SIZE_SHORT, body->stored, body->plain, false,
			       "%" PRIu64 " bytes, not %" PRIu64, body->size, want);
	}
}

bool cmek_fsck_first_page(struct cmek_fsck *fsck, const struct cmek_fsck_file *file)
{
	struct body body = { .fsck = fsck, .stored = file->stored, .plain = file->plain, .size = file->size,
			     .block_size = fsck->hdr->block_size };
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	bool bad = false;
	int ret;

	if (!file->size)
		return false;
	body.fd = openat(file->dir_fd, file->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ret = body.fd < 0 ? -errno : open_page(&body, 0, entries, &body.head, &body.first);
	if (!ret)
		check_size(&body, file, cmek_stored_size(body.block_size, body.first.plain_size));
	else if (body.unknown_dek || body.retired_dek)
		tell_dek(&body);
	else if (ret != -EBADMSG)
		tell_unreadable(&body, ret);
	else if (file->size <= CMEK_MAP_BYTES)
		check_size(&body, file, 0); /* a crash while the first page was written: an empty file, by the format */
	else
		bad = true;
	if (body.fd >= 0)
		close(body.fd);
	return bad;
}

/* ---- every block ---- */

static bool is_absent(const struct body *body, uint64_t group)
{
	const struct cmek_map_range *range;
	uint32_t i;

	for (i = 0; i < body->first.n_absent; i++) {
		range = &body->first.absent[i];
		if (group >= range->first && group - range->first < range->count)
			return true;
	}
	return false;
}

static int block_key(struct body *body, const uint8_t *entry)
{
	int ret;

	if (body->key && cmek_entry_same_key(entry, body->key_entry))
		return 0;
	cmek_secret_free(body->key);
	body->key = NULL;
	ret = cmek_keyring_content_key(body->fsck->ring, cmek_entry_dek(entry), cmek_entry_salt(entry),
				       body->head.file_id, &body->key);
	note_dek(body, ret, cmek_entry_dek(entry));
	if (!ret)
		memcpy(body->key_entry, entry, CMEK_ENTRY_BYTES);
	return ret;
}

/* The blocks of a group; data: room for them. */
static void check_blocks(struct body *body, uint64_t group, const uint8_t *entries, uint8_t *data)
{
	uint64_t first = group * CMEK_GROUP_BLOCKS, off = cmek_block_stored_off(body->block_size, first);
	uint32_t len = cmek_group_plain_len(body->block_size, body->first.plain_size, group), at, n;
	ssize_t got = cmek_pread_full(body->fd, data, len, off);
	const uint8_t *entry;
	unsigned i;
	int ret;

	for (i = 0, at = 0; at < len; i++, at += n) {
		n = cmek_block_plain_len(body->block_size, body->first.plain_size, first + i);
		entry = entries + i * CMEK_ENTRY_BYTES;
		if (cmek_entry_is_hole(entry))
			continue;
		body->blocks++;
		ret = got < (ssize_t)(at + n) ? -EBADMSG : block_key(body, entry);
		if (!ret)
			ret = cmek_block_open(body->key, entry, first + i, data + at, n, data + at);
		if (ret && ret != -ENOKEY && ret != -EKEYREVOKED && !body->bad_blocks++)
			body->first_bad_block = first + i;
	}
}

static void check_group(struct body *body, uint64_t group, uint8_t *data)
{
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer;
	struct cmek_map_head head;
	int ret = open_page(body, group, entries, &head, &trailer);

	if (!ret && (memcmp(head.file_id, body->head.file_id, CMEK_FILE_ID_LEN) ||
		     trailer.plain_bytes != cmek_group_plain_len(body->block_size, body->first.plain_size, group)))
		ret = -EBADMSG;
	if (!ret)
		check_blocks(body, group, entries, data);
	else if (ret != -ENOKEY && ret != -EKEYREVOKED && !body->bad_groups++)
		body->first_bad_group = group;
}

static void tell_body(struct body *body)
{
	tell_dek(body);
	if (body->bad_groups)
		cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_GROUP_BAD, body->stored, body->plain, false,
			       "%" PRIu64 ", the first is that of byte %" PRIu64, body->bad_groups,
			       body->first_bad_group * cmek_group_plain_bytes(body->block_size));
	if (body->bad_blocks)
		cmek_fsck_tell(&body->fsck->findings, CMEK_FSCK_BLOCK_BAD, body->stored, body->plain, false,
			       "%" PRIu64 ", the first at byte %" PRIu64, body->bad_blocks,
			       body->first_bad_block * body->block_size);
}

/* ---- threads ---- */

struct job {
	int fd;
	char *stored, *plain;
	uint64_t size;
};

struct crew {
	struct cmek_fsck *fsck;
	struct cmek_error *err;
	pthread_mutex_t lock; /* guards the queue and what is below it */
	pthread_cond_t more, room;
	struct job queue[QUEUE_MAX];
	size_t first, n;
	bool ended, failed;
	uint64_t blocks;
	void *inodes; /* tsearch: files with several names that were seen; of the walking thread */
	_Atomic uint64_t done_bytes;
	struct timespec start;
	uint64_t told_ms;
};

static uint64_t elapsed_ms(const struct crew *crew)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)(now.tv_sec - crew->start.tv_sec) * 1000 + (uint64_t)(now.tv_nsec / 1000000) -
	       (uint64_t)(crew->start.tv_nsec / 1000000);
}

/* A line on the terminal, at most twice a second, once it takes longer than one. */
static void show_progress(struct crew *crew)
{
	struct cmek_fsck_findings *findings = &crew->fsck->findings;
	uint64_t done = atomic_load(&crew->done_bytes), total = crew->fsck->stored_bytes, ms = elapsed_ms(crew);
	double rate, left;

	if (ms < 1000 || ms < crew->told_ms + 500 || findings->tool->json || findings->tool->quiet || !isatty(STDERR_FILENO))
		return;
	crew->told_ms = ms;
	rate = (double)done / 1048.576 / (double)ms; /* MiB/s */
	left = total > done ? (double)(total - done) / 1048576.0 : 0;
	pthread_mutex_lock(&findings->lock);
	fprintf(stderr, "\r\033[Kdata: %.0f%% of %.1f GiB, %.0f MiB/s, %.0f s left",
		total ? 100.0 * (double)done / (double)total : 100.0, (double)total / 1073741824.0, rate,
		rate > 0 ? left / rate : 0.0);
	fflush(stderr);
	findings->progress = true;
	pthread_mutex_unlock(&findings->lock);
}

static void check_file(struct crew *crew, struct job *job, uint8_t *data)
{
	struct body body = { .fsck = crew->fsck, .stored = job->stored, .plain = job->plain, .fd = job->fd,
			     .size = job->size, .block_size = crew->fsck->hdr->block_size };
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES];
	uint64_t group, count;

	/* A first page that is bad was told by the pass over the tree. */
	if (job->size && !open_page(&body, 0, entries, &body.head, &body.first)) {
		count = cmek_group_count(body.block_size, body.first.plain_size);
		for (group = 0; group < count; group++) {
			if (!is_absent(&body, group))
				check_group(&body, group, data);
			atomic_fetch_add(&crew->done_bytes, CMEK_MAP_BYTES + cmek_group_plain_len(body.block_size,
									body.first.plain_size, group));
		}
		tell_body(&body);
	}
	cmek_secret_free(body.key);
	pthread_mutex_lock(&crew->lock);
	crew->blocks += body.blocks;
	pthread_mutex_unlock(&crew->lock);
}

static void job_done(struct job *job)
{
	close(job->fd);
	free(job->stored);
	free(job->plain);
}

static bool take_job(struct crew *crew, struct job *ret_job)
{
	bool got;

	pthread_mutex_lock(&crew->lock);
	while (!crew->n && !crew->ended)
		pthread_cond_wait(&crew->more, &crew->lock);
	got = crew->n > 0;
	if (got) {
		*ret_job = crew->queue[crew->first];
		crew->first = (crew->first + 1) % QUEUE_MAX;
		crew->n--;
		pthread_cond_signal(&crew->room);
	}
	pthread_mutex_unlock(&crew->lock);
	return got;
}

static void *work(void *arg)
{
	struct crew *crew = arg;
	uint8_t *data = malloc(cmek_group_plain_bytes(crew->fsck->hdr->block_size));
	struct job job;

	while (take_job(crew, &job)) {
		if (data) {
			check_file(crew, &job, data);
		} else {
			pthread_mutex_lock(&crew->lock);
			crew->failed = true;
			pthread_mutex_unlock(&crew->lock);
		}
		job_done(&job);
	}
	free(data);
	return NULL;
}

static int compare_inodes(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* True when a file with several names was seen under another one. */
static bool seen(struct crew *crew, const struct cmek_fsck_file *file)
{
	uint64_t *copy;
	void *node;

	if (file->links < 2)
		return false;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	*copy = file->ino;
	node = tsearch(copy, &crew->inodes, compare_inodes);
	if (node && *(void **)node == copy)
		return false;
	free(copy);
	return node != NULL;
}

static int add_job(void *arg, const struct cmek_fsck_file *file)
{
	struct crew *crew = arg;
	struct job job = { .size = file->size };

	show_progress(crew);
	if (!file->size || seen(crew, file))
		return 0;
	job.fd = openat(file->dir_fd, file->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (job.fd < 0)
		return 0; /* told by the pass over the tree */
	job.stored = strdup(file->stored);
	job.plain = file->plain ? strdup(file->plain) : NULL;
	if (!job.stored || (file->plain && !job.plain)) {
		job_done(&job);
		return -ENOMEM;
	}
	pthread_mutex_lock(&crew->lock);
	while (crew->n == QUEUE_MAX)
		pthread_cond_wait(&crew->room, &crew->lock);
	crew->queue[(crew->first + crew->n++) % QUEUE_MAX] = job;
	pthread_cond_signal(&crew->more);
	pthread_mutex_unlock(&crew->lock);
	return 0;
}

int cmek_fsck_data(struct cmek_fsck *fsck, struct cmek_error *err)
{
	struct crew crew = { .fsck = fsck, .err = err };
	pthread_t threads[JOBS_MAX];
	unsigned n = 0, i;
	int ret;

	if (!fsck->ring || fsck->stale)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &crew.start);
	pthread_mutex_init(&crew.lock, NULL);
	pthread_cond_init(&crew.more, NULL);
	pthread_cond_init(&crew.room, NULL);
	while (n < fsck->jobs && n < JOBS_MAX && !pthread_create(&threads[n], NULL, work, &crew))
		n++;
	if (n)
		ret = cmek_fsck_each_file(fsck, add_job, &crew, err);
	else
		ret = cmek_error_sys(err, EAGAIN, "starting a thread");
	pthread_mutex_lock(&crew.lock);
	crew.ended = true;
	pthread_cond_broadcast(&crew.more);
	pthread_mutex_unlock(&crew.lock);
	for (i = 0; i < n; i++)
		(void)pthread_join(threads[i], NULL); /* started above, so it can be joined */
	if (!ret && crew.failed)
		ret = cmek_error_sys(err, ENOMEM, "checking blocks");
	fsck->blocks = crew.blocks;
	if (fsck->findings.progress)
		fputs("\r\033[K", stderr);
	tdestroy(crew.inodes, free);
	pthread_cond_destroy(&crew.room);
	pthread_cond_destroy(&crew.more);
	pthread_mutex_destroy(&crew.lock);
	return ret;
}
