/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Commits and syncs of the content layer together with its journal: that threads and files do not stand in each
 * other's way, what an answered sync has flushed, and what a store that fails leaves for the next mount.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/content/commit.h"
#include "fs/content/content.h"
#include "tests/unit/journal_fixture.h"

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fstatvfs(int fd, struct statvfs *st);
int __wrap_fstatvfs(int fd, struct statvfs *st);
int __real_cmek_pwrite_full(int fd, const void *buf, size_t n, uint64_t off);
int __wrap_cmek_pwrite_full(int fd, const void *buf, size_t n, uint64_t off);

static atomic_int fsyncs, hold_fsync, held_fsyncs, fail_writes, fail_flush, fail_commits, failures, kept, looked, found;
static atomic_int full_until_used; /* so often writes find no room as long as there is a reserve */

static struct jf_store store;
static struct cmek_content *content;
static struct cmek_room *room; /* mostly none */
static atomic_bool note_appends;
static uint64_t appends_at_fsync; /* records that the journal had when a store file was flushed last */

static bool is_journal(int fd)
{
	struct stat st, journal;

	return fstat(fd, &st) == 0 && fstatat(store.meta_fd, "journal.0", &journal, 0) == 0 && st.st_ino == journal.st_ino;
}

/* Store files are flushed by this; the journal by fdatasync. */
int __wrap_fsync(int fd)
{
	struct cmek_journal_status status;

	fsyncs++;
	if (note_appends) {
		cmek_journal_status(content->journal, &status);
		appends_at_fsync = status.appends;
	}
	if (hold_fsync) {
		held_fsyncs++;
		while (hold_fsync)
			usleep(1000);
	}
	return __real_fsync(fd);
}

/* What goes in place, and superblocks, which don't fail here. A write that fails may have written a part. */
int __wrap_cmek_pwrite_full(int fd, const void *buf, size_t n, uint64_t off)
{
	struct stat reserve;

	if (full_until_used && !is_journal(fd) && fstatat(store.meta_fd, "reserve", &reserve, 0) == 0 && reserve.st_size > 0) {
		full_until_used--;
		return -ENOSPC;
	}
	if (!fail_writes || is_journal(fd))
		return __real_cmek_pwrite_full(fd, buf, n, off);
	(void)__real_cmek_pwrite_full(fd, buf, n / 2, off);
	return -EIO;
}

/* Asked before a record is written: how much room there is. */
int __wrap_fstatvfs(int fd, struct statvfs *st)
{
	if (!fail_commits)
		return __real_fstatvfs(fd, st);
	errno = EIO;
	return -1;
}

static int host_open(void *arg, uint64_t node, bool write)
{
	struct cmek_ofile *file = cmek_ofile_find(content, node);
	char name[32];
	int fd;

	(void)arg;
	looked++;
	found += file != NULL;
	cmek_ofile_close(file);
	snprintf(name, sizeof(name), "%llu", (unsigned long long)node);
	fd = openat(store.store_fd, name, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int host_keep(void *arg, uint64_t node)
{
	(void)arg;
	(void)node;
	kept++;
	return 0;
}

static void host_let_go(void *arg, uint64_t node)
{
	(void)arg;
	(void)node;
	kept--;
}

static void host_report(void *arg, uint64_t node, int error, const char *what)
{
	(void)arg;
	(void)node;
	(void)error;
	(void)what;
}

static void host_failed(void *arg)
{
	(void)arg;
	failures++;
}

static int host_flush(void *arg)
{
	(void)arg;
	return fail_flush ? -EIO : syncfs(store.store_fd) < 0 ? -errno : 0;
}

static void content_start(unsigned commit_ms)
{
	struct cmek_content_host host = { NULL, host_open, host_keep, host_let_go, host_report,
					  NULL, NULL, host_flush, host_failed };
	struct cmek_content_params params = { .block_size = 4096,
					      .commit_ms = commit_ms,
					      .held_max_bytes = 256 << 20,
					      .meta_fd = store.meta_fd,
					      .room = room,
					      .journal_bytes = 8 << 20 };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	memcpy(params.volume, jf_volume, sizeof(params.volume));
	ck_assert_msg(jf_replay(&store, 4096, false, &result, &err) == 0, "%s", err.text);
	ck_assert_msg(cmek_content_new(store.ring, &host, &params, &content, &err) == 0, "%s", err.text);
}

static void setup(void)
{
	jf_store_init(&store);
	fsyncs = hold_fsync = held_fsyncs = fail_writes = fail_flush = fail_commits = failures = full_until_used = 0;
	room = NULL;
	note_appends = false;
}

static void teardown(void)
{
	ck_assert_int_eq(kept, 0);
	jf_store_done(&store);
}

static struct cmek_ofile *file_open(uint64_t node)
{
	struct cmek_ofile *file = NULL;
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%llu", (unsigned long long)node);
	fd = openat(store.store_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cmek_ofile_open(content, node, fd, false, &file), 0);
	return file;
}

static void write_version(struct cmek_ofile *file, size_t len, uint64_t off, uint64_t version)
{
	uint8_t *buf = malloc(len);

	jf_fill(buf, len, version);
	ck_assert_int_eq(cmek_content_write(file, buf, len, off), 0);
	free(buf);
}

static void check_version(struct cmek_ofile *file, size_t len, uint64_t off, uint64_t version)
{
	uint8_t *buf = malloc(len), *want = malloc(len);

	jf_fill(want, len, version);
	ck_assert_int_eq(cmek_content_read(file, buf, len, off), len);
	ck_assert_mem_eq(buf, want, len);
	free(buf);
	free(want);
}

/* ---- room in the ring ---- */

/* More waits, in many files, than the ring can take in one go. */
START_TEST(more_than_the_ring)
{
	enum { FILES = 24, BYTES = 1792 << 10 };
	struct cmek_ofile *files[FILES];
	unsigned i, at;

	content_start(60000);
	for (i = 0; i < FILES; i++) {
		files[i] = file_open(i + 1);
		for (at = 0; at < BYTES; at += 16 << 10) /* in small pieces, so that they are held */
			write_version(files[i], 16 << 10, at, i);
	}
	ck_assert_int_eq(cmek_content_commit_all(content), 0);
	for (i = 0; i < FILES; i++) {
		check_version(files[i], 16 << 10, BYTES - (16 << 10), i);
		cmek_ofile_close(files[i]);
	}
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* Bulk data of one file is on its way, under a record that stays until its commit, and another file fills the ring. */
START_TEST(ring_filled_behind_bulk_data)
{
	struct cmek_ofile *bulk, *other;
	unsigned i;

	content_start(60000);
	bulk = file_open(1);
	other = file_open(2);
	for (i = 0; i < 4; i++)
		write_version(bulk, 1 << 20, (uint64_t)i << 20, i);
	for (i = 0; i < 48; i++) {
		write_version(other, 1 << 20, 0, i);
		ck_assert_int_eq(cmek_content_sync(other, true), 0);
	}
	for (i = 0; i < 4; i++)
		check_version(bulk, 1 << 20, (uint64_t)i << 20, i);
	check_version(other, 1 << 20, 0, 47);
	cmek_ofile_close(bulk);
	cmek_ofile_close(other);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* ---- threads ---- */

static atomic_bool stop;

static void *commit_all_main(void *arg)
{
	(void)arg;
	while (!stop)
		ck_assert_int_eq(cmek_content_commit_all(content), 0);
	return NULL;
}

static void *write_main(void *arg)
{
	struct cmek_ofile **files = arg;
	unsigned i;

	for (i = 0; !stop; i++)
		write_version(files[(i * 7 + i / 16) % 4], 4096, i % 8 * 4096, i);
	return NULL;
}

/* Files are queued in every order, and again while they are being committed. */
START_TEST(committers_do_not_meet)
{
	struct cmek_ofile *files[4];
	pthread_t threads[5];
	unsigned i;

	content_start(1);
	stop = false;
	for (i = 0; i < 4; i++)
		files[i] = file_open(i + 1);
	for (i = 0; i < 5; i++)
		ck_assert_int_eq(pthread_create(threads + i, NULL, i < 3 ? commit_all_main : write_main, files), 0);
	usleep(700000);
	stop = true;
	for (i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < 4; i++)
		cmek_ofile_close(files[i]);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* ---- what a sync flushes ---- */

START_TEST(metadata_is_flushed_once)
{
	struct cmek_ofile *file;
	int before;

	content_start(60000);
	file = file_open(1);
	before = fsyncs;
	write_version(file, 4096, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	ck_assert_int_eq(fsyncs - before, 1); /* it may be new */
	write_version(file, 4096, 0, 2);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	ck_assert_int_eq(cmek_content_sync(file, true), 0);
	ck_assert_int_eq(fsyncs - before, 1);
	cmek_ofile_metadata_changed(file);
	/* if fdatasync did less than all, the fsync behind it would have to know */
	ck_assert_int_eq(cmek_content_sync(file, true), 0);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	ck_assert_int_eq(fsyncs - before, 2);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* A capability that a write took is gone in the store before a record has what was written. */
START_TEST(privileges_go_before_the_record)
{
	struct cmek_journal_status status;
	struct cmek_ofile *file;
	int before;

	content_start(60000);
	file = file_open(1);
	write_version(file, 4096, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	before = fsyncs;
	cmek_ofile_privs_gone(file);
	write_version(file, 4096, 0, 2);
	cmek_journal_status(content->journal, &status);
	note_appends = true;
	ck_assert_int_eq(cmek_content_commit_all(content), 0);
	note_appends = false;
	ck_assert_int_eq(fsyncs - before, 1);
	ck_assert_uint_eq(appends_at_fsync, status.appends);
	write_version(file, 4096, 0, 3);
	ck_assert_int_eq(cmek_content_commit_all(content), 0);
	ck_assert_int_eq(fsyncs - before, 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

struct syncer {
	struct cmek_ofile *file;
	atomic_int done;
};

static void *sync_main(void *arg)
{
	struct syncer *s = arg;

	ck_assert_int_eq(cmek_content_sync(s->file, false), 0);
	s->done = 1;
	return NULL;
}

/* No sync is answered before the flush that it counts on. */
START_TEST(syncs_wait_for_the_flush)
{
	struct syncer s[2];
	pthread_t threads[2];
	int i, tries;

	content_start(60000);
	s[0] = s[1] = (struct syncer){ .file = file_open(1) };
	write_version(s[0].file, 4096, 0, 1);
	hold_fsync = 1;
	ck_assert_int_eq(pthread_create(threads, NULL, sync_main, s), 0);
	for (tries = 0; held_fsyncs == 0 && tries < 5000; tries++)
		usleep(1000);
	ck_assert_int_eq(held_fsyncs, 1);
	ck_assert_int_eq(pthread_create(threads + 1, NULL, sync_main, s + 1), 0);
	usleep(100000);
	ck_assert_int_eq(s[0].done, 0);
	ck_assert_int_eq(s[1].done, 0);
	hold_fsync = 0;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	cmek_ofile_close(s[0].file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* ---- a store that fails ---- */

static void check_after_mount(size_t len, uint64_t version)
{
	uint8_t buf[8192];
	struct cmek_ofile *file;

	fail_writes = fail_flush = 0;
	content_start(60000);
	file = file_open(1);
	ck_assert_int_eq(cmek_content_read(file, buf, sizeof(buf), 0), len);
	check_version(file, len, 0, version);
	write_version(file, 100, 0, version + 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}

/*
 * A durable change can't be written in place: it is read from memory, by those who open the file later, too, nothing
 * more is taken, and the next mount has it, neither torn nor lost. Also when the store works again meanwhile.
 */
START_TEST(failed_in_place)
{
	uint8_t byte = 1;
	struct cmek_ofile *file, *other;

	content_start(60000);
	file = file_open(1);
	other = file_open(2);
	write_version(file, 8192, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	write_version(file, 8192, 0, 2);
	write_version(other, 5000, 0, 7);
	ck_assert_int_eq(failures, 0);
	fail_writes = 1;
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	ck_assert_int_eq(failures, 1);
	ck_assert_int_eq(cmek_content_failed(content), -EIO);
	ck_assert_int_eq(cmek_ofile_flush(file), -EIO);
	check_version(file, 8192, 0, 2);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), -EROFS);
	ck_assert_int_eq(cmek_content_truncate(file, 0), -EROFS);
	ck_assert_int_eq(cmek_content_write(other, &byte, 1, 0), -EROFS);
	check_version(file, 8192, 0, 2);
	if (_i == 0)
		fail_writes = 0;
	/* what had been taken of other files still gets its record */
	ck_assert_int_eq(cmek_content_sync(other, false), _i == 0 ? 0 : -EIO);
	cmek_ofile_close(file);
	file = file_open(1);
	check_version(file, 8192, 0, 2);
	cmek_ofile_close(file);
	cmek_ofile_close(other);
	ck_assert_int_eq(failures, 1);
	ck_assert_int_eq(cmek_content_free(content), -EIO);
	check_after_mount(8192, 2);
	content_start(60000);
	other = file_open(2);
	check_version(other, 5000, 0, 7);
	cmek_ofile_close(other);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* The same for a truncation and for a file that is emptied, which drop what is in memory. */
START_TEST(failed_truncation)
{
	static const uint64_t sizes[] = { 5000, 0, 300000 };
	struct cmek_ofile *file;

	content_start(60000);
	file = file_open(1);
	write_version(file, 8192, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	fail_writes = 1;
	if (sizes[_i] != 0) /* there is nothing to be written of an empty file */
		ck_assert_int_eq(cmek_content_truncate(file, sizes[_i]) == 0 ? cmek_content_sync(file, false) : -EIO, -EIO);
	else
		ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
	ck_assert_int_eq(cmek_content_truncate(file, 10), sizes[_i] == 0 ? 0 : -EROFS);
	if (sizes[_i] != 0)
		check_version(file, sizes[_i] < 8192 ? sizes[_i] : 8192, 0, 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), -EIO);
	fail_writes = 0;
	content_start(60000);
	file = file_open(1);
	ck_assert_uint_eq(cmek_ofile_size(file), sizes[_i] == 0 ? 10 : sizes[_i]);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/*
 * Changes that could not be written are told to all who have the file open, until the last of them has closed it. They wait,
 * and whoever opens it then is told what becomes of them from there on.
 */
START_TEST(error_until_the_last_close)
{
	struct cmek_ofile *file, *other;

	content_start(60000);
	file = file_open(1);
	write_version(file, 8192, 0, 1);
	fail_commits = 1;
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	other = file_open(1);
	fail_commits = 0;
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	ck_assert_int_eq(cmek_content_sync(other, false), -EIO);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_ofile_flush(other), -EIO);
	write_version(other, 8192, 0, 2);
	fail_commits = 1;
	atomic_store(&content->space_until_ms, 0); /* it asks again */
	cmek_ofile_close(other);
	file = file_open(1);
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	cmek_ofile_close(file);
	fail_commits = 0;
	file = file_open(1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	check_version(file, 8192, 0, 2);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
	check_after_mount(8192, 2);
}
END_TEST

/* While a file is being opened its size is not known: whoever looks meanwhile has to ask the store. */
START_TEST(not_found_while_it_is_opened)
{
	struct cmek_ofile *file;

	content_start(60000);
	file = file_open(1);
	write_version(file, 8192, 0, 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
	content_start(60000);
	looked = found = 0;
	ck_assert_int_eq(cmek_ofile_open(content, 1, -1, false, &file), 0);
	ck_assert_int_eq(looked, 1);
	ck_assert_int_eq(found, 0);
	ck_assert_uint_eq(cmek_ofile_size(file), 8192);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/*
 * Its number means the file while it has changes, whether they can be written or not, and however often it is forgotten. What
 * can't be written of one without a name is dropped at once.
 */
START_TEST(forgotten_with_changes)
{
	struct cmek_ofile *file;

	content_start(60000);
	file = file_open(1);
	write_version(file, 8192, 0, 1);
	fail_commits = 1;
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	cmek_ofile_close(file);
	cmek_content_forgotten(content, 1);
	ck_assert_int_eq(kept, 1);
	fail_commits = 0;
	if (_i == 0)
		ck_assert_int_eq(cmek_content_commit_all(content), 0);
	else
		ck_assert_int_eq(unlinkat(store.store_fd, "1", 0), 0);
	cmek_content_forgotten(content, 1);
	ck_assert_int_eq(kept, 0);
	ck_assert_ptr_null(cmek_ofile_find(content, 1));
	ck_assert_int_eq(cmek_content_free(content), 0);
	if (_i == 0)
		check_after_mount(8192, 1);
}
END_TEST

/* However often it is tried, the ring does not fill up, and nobody waits for room that can't come. */
START_TEST(failed_does_not_fill_the_ring)
{
	struct cmek_content_status before, after;
	struct cmek_ofile *file;
	int i;

	content_start(1); /* the committer tries all the time */
	file = file_open(1);
	fail_writes = 1;
	write_version(file, 8192, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	cmek_content_status(content, &before);
	for (i = 0; i < 50; i++) {
		ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
		usleep(1000);
	}
	cmek_content_status(content, &after);
	ck_assert_uint_eq(after.journal_records, before.journal_records);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), -EIO);
	check_after_mount(8192, 1);
}
END_TEST

/* A checkpoint that can't flush: what the store has is not known any more, so nothing is freed, and nothing taken. */
START_TEST(failed_checkpoint)
{
	uint8_t byte = 1, buf[8192];
	struct cmek_ofile *file;
	int r;

	content_start(60000);
	file = file_open(1);
	write_version(file, 8192, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	fail_flush = 1;
	jf_fill(buf, sizeof(buf), 2);
	/* Until the ring is half full; the checkpoint that fails then may come between a sync and the next write. */
	for (int i = 0; cmek_content_failed(content) == 0 && i < 100000; i++) {
		r = cmek_content_write(file, buf, sizeof(buf), 0);
		ck_assert(r == 0 || r == -EROFS);
		(void)cmek_content_sync(file, false);
	}
	ck_assert_int_eq(cmek_content_failed(content), -EIO);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), -EROFS);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), -EIO);
	check_after_mount(8192, 2);
}
END_TEST

static uint64_t waiting_bytes(void)
{
	struct cmek_content_status status;

	cmek_content_status(content, &status);
	return status.waiting_bytes;
}

/* A new file waits for the committer. One that was emptied and written anew has nothing to go back to, and does not. */
START_TEST(rewritten_is_committed_at_close)
{
	struct cmek_ofile *file;

	content_start(60000);
	file = file_open(1);
	write_version(file, 8192, 0, 1);
	cmek_ofile_close(file);
	ck_assert_uint_eq(waiting_bytes(), 8192);
	ck_assert_int_eq(cmek_content_commit_all(content), 0);
	ck_assert_uint_eq(waiting_bytes(), 0);

	file = file_open(1);
	ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
	write_version(file, 8192, 0, 2);
	ck_assert_uint_eq(waiting_bytes(), 8192);
	cmek_ofile_close(file);
	ck_assert_uint_eq(waiting_bytes(), 0);

	file = file_open(1);
	write_version(file, 8192, 0, 3);
	cmek_ofile_close(file);
	ck_assert_uint_eq(waiting_bytes(), 8192); /* and that was that */
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* What a cut took away is there after a crash as long as no record says so, and must not be overwritten until then. */
START_TEST(bulk_behind_a_cut_that_failed)
{
	static const uint64_t cuts[] = { 0, 10 * 4096 };
	struct cmek_ofile *file;

	content_start(60000);
	file = file_open(1);
	write_version(file, 1 << 20, 0, 1);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	usleep(100000); /* what was known of the store's room is forgotten */
	fail_commits = 1;
	ck_assert_int_eq(cmek_content_truncate(file, cuts[_i]), 0); /* it is made; only that it is not in the store yet */
	ck_assert_uint_eq(cmek_ofile_size(file), cuts[_i]);
	write_version(file, 1 << 20, cuts[_i], 2);
	check_version(file, 1 << 20, cuts[_i], 2);
	ck_assert_int_eq(cmek_content_sync(file, false), -EIO);
	if (_i == 0)
		fail_commits = 0; /* the store heals */
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), _i == 0 ? 0 : -EIO);
	fail_commits = 0;

	content_start(60000);
	file = file_open(1);
	check_version(file, 1 << 20, 0, _i == 0 ? 2 : 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* Fresh data that was written in place and got no record before the end is not there, and nothing is unreadable. */
START_TEST(bulk_that_got_no_record)
{
	uint64_t old = _i == 0 ? 4096 : 0;
	struct cmek_ofile *file;

	content_start(60000);
	file = file_open(1);
	if (_i == 0) {
		write_version(file, 4096, 0, 1);
		ck_assert_int_eq(cmek_content_sync(file, false), 0);
	}
	usleep(100000); /* what was known of the store's room is forgotten */
	fail_commits = 1;
	write_version(file, 1 << 20, old, 2);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), -EIO);
	fail_commits = 0;

	content_start(60000);
	file = file_open(1);
	(void)cmek_ofile_check_size(file); /* reads the first page */
	ck_assert_uint_eq(cmek_ofile_size(file), old);
	if (_i == 0)
		check_version(file, old, 0, 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* The same while a commit is on its way, whose record takes the place of the touch that was there when it began. */
START_TEST(bulk_beside_a_commit)
{
	struct cmek_commit commit;
	struct cmek_ofile *file;
	struct stat st;
	int r;

	content_start(60000);
	file = file_open(1);
	write_version(file, 1 << 20, 0, 1);
	(void)pthread_mutex_lock(&file->commit_lock);
	ck_assert_int_eq(cmek_commit_prepare(file, &commit), 0);
	write_version(file, 1 << 20, 1 << 20, 2);
	cmek_commit_log(&commit, 1, &r);
	ck_assert_int_eq(r, 0);
	r = cmek_commit_apply(&commit);
	ck_assert_int_eq(r, 0);
	cmek_commit_finish(&commit, r);
	(void)pthread_mutex_unlock(&file->commit_lock);
	usleep(100000); /* what was known of the store's room is forgotten */
	fail_commits = 1;
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), -EIO);
	fail_commits = 0;

	content_start(60000);
	file = file_open(1);
	ck_assert_int_eq(fstatat(store.store_fd, "1", &st, 0), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, cmek_stored_size(4096, 1 << 20));
	(void)cmek_ofile_check_size(file); /* reads the first page */
	ck_assert_uint_eq(cmek_ofile_size(file), 1 << 20);
	check_version(file, 1 << 20, 0, 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/*
 * And with no room left in the ring but what is kept for touches: the record of the commit is in the way of all others
 * until it is in place, so nothing may wait for room before that.
 */
START_TEST(bulk_beside_a_commit_in_a_full_ring)
{
	enum { KEPT = 1 << 20, RECORD = 3 * CMEK_JOURNAL_UNIT, SMALL_FILES = 4 };
	struct cmek_ofile *file, *other, *small[SMALL_FILES];
	struct cmek_journal_status status;
	struct cmek_commit commit;
	uint64_t begin, n = 0;
	int r, i;

	content_start(60000);
	file = file_open(1);
	other = file_open(2);
	write_version(other, 4096, 0, 1);
	ck_assert_int_eq(cmek_content_sync(other, true), 0);
	write_version(file, 1 << 20, 0, 1);
	(void)pthread_mutex_lock(&file->commit_lock);
	ck_assert_int_eq(cmek_commit_prepare(file, &commit), 0);
	write_version(file, 1 << 20, 1 << 20, 2);
	cmek_commit_log(&commit, 1, &r);
	ck_assert_int_eq(r, 0);
	/* That leaves its record alone, behind those of the other file and of the touch. */
	ck_assert_int_eq(cmek_journal_checkpoint(content->journal), 0);
	begin = CMEK_JOURNAL_RECORDS_AT + RECORD + CMEK_JOURNAL_UNIT;
	for (;;) {
		cmek_journal_status(content->journal, &status);
		if (status.length_bytes - begin - status.used_bytes < KEPT + RECORD)
			break;
		write_version(other, 4096, 0, n++);
		ck_assert_int_eq(cmek_content_sync(other, true), 0);
	}
	for (i = 0; i < SMALL_FILES; i++) {
		small[i] = file_open(3 + (uint64_t)i);
		cmek_journal_status(content->journal, &status);
		if (status.length_bytes - begin - status.used_bytes >= KEPT + CMEK_JOURNAL_UNIT)
			ck_assert_int_eq(cmek_commit_touch(small[i]), 0);
	}
	cmek_journal_status(content->journal, &status);
	ck_assert_uint_lt(status.length_bytes - begin - status.used_bytes, KEPT + CMEK_JOURNAL_UNIT);
	r = cmek_commit_apply(&commit);
	ck_assert_int_eq(r, 0);
	cmek_commit_finish(&commit, r);
	(void)pthread_mutex_unlock(&file->commit_lock);
	ck_assert_int_eq(cmek_content_sync(file, true), 0);
	check_version(file, 1 << 20, 0, 1);
	check_version(file, 1 << 20, 1 << 20, 2);
	check_version(other, 4096, 0, n - 1);
	for (i = 0; i < SMALL_FILES; i++)
		cmek_ofile_close(small[i]);
	cmek_ofile_close(other);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
}
END_TEST

/* ---- room that is kept ---- */

static void room_start(void)
{
	const struct cmek_room_marks marks = { 0, 0 };
	const struct cmek_room_host host = { NULL, NULL, NULL };
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_msg(cmek_room_new(store.meta_fd, 1 << 20, &marks, &host, &room, &err) == 0, "%s", err.text);
}

/* Fresh data on its way in place (0), and a durable change (1), find no room: the reserve has it, and nobody is told. */
START_TEST(the_reserve_is_used)
{
	struct cmek_room_status status;
	struct cmek_ofile *file;

	room_start();
	content_start(60000);
	file = file_open(1);
	if (_i == 0)
		full_until_used = 2;
	write_version(file, 2 << 20, 0, 1); /* in place, behind a touch */
	ck_assert_int_eq(full_until_used, _i == 0 ? 1 : 0);
	full_until_used = 2;
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	if (_i == 1)
		ck_assert_int_eq(full_until_used, 1); /* once, and then it was there */
	ck_assert_int_eq(failures, 0);
	ck_assert_int_eq(cmek_content_failed(content), 0);
	check_version(file, 2 << 20, 0, 1);
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.held_bytes, 0);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
	cmek_room_free(room);
	room = NULL;
	full_until_used = 0;
	check_after_mount(8192, 1);
}
END_TEST

static uint64_t promised_bytes(void)
{
	struct cmek_room_status status;

	cmek_room_status(room, &status);
	return status.kept_bytes - (1 << 20);
}

/* What waits for a place in the store counts, what has one does not. */
START_TEST(promises_are_kept)
{
	struct cmek_ofile *file;

	room_start();
	content_start(60000);
	file = file_open(1);
	write_version(file, 5000, 0, 1);
	ck_assert_uint_eq(promised_bytes(), 3 * 4096); /* two blocks and a map page */
	write_version(file, 5000, 0, 2);
	ck_assert_uint_eq(promised_bytes(), 3 * 4096);
	ck_assert_int_eq(cmek_content_sync(file, true), 0);
	ck_assert_uint_eq(promised_bytes(), 0);
	write_version(file, 5000, 0, 3); /* an overwrite has its place */
	ck_assert_uint_eq(promised_bytes(), 0);
	write_version(file, 4096, 8192, 4);
	ck_assert_uint_eq(promised_bytes(), 4096);
	ck_assert_int_eq(cmek_content_truncate(file, 4096), 0);
	ck_assert_uint_eq(promised_bytes(), 0);
	write_version(file, 4096, 4096, 5);
	ck_assert(promised_bytes() > 0);
	ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
	ck_assert_uint_eq(promised_bytes(), 0);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(content), 0);
	ck_assert_uint_eq(promised_bytes(), 0);
	cmek_room_free(room);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sync");
	TCase *tcase = tcase_create("sync");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, more_than_the_ring);
	tcase_add_test(tcase, ring_filled_behind_bulk_data);
	tcase_add_test(tcase, committers_do_not_meet);
	tcase_add_test(tcase, metadata_is_flushed_once);
	tcase_add_test(tcase, privileges_go_before_the_record);
	tcase_add_test(tcase, syncs_wait_for_the_flush);
	tcase_add_loop_test(tcase, failed_in_place, 0, 2);
	tcase_add_loop_test(tcase, failed_truncation, 0, 3);
	tcase_add_test(tcase, error_until_the_last_close);
	tcase_add_loop_test(tcase, forgotten_with_changes, 0, 2);
	tcase_add_test(tcase, not_found_while_it_is_opened);
	tcase_add_test(tcase, rewritten_is_committed_at_close);
	tcase_add_test(tcase, failed_does_not_fill_the_ring);
	tcase_add_test(tcase, failed_checkpoint);
	tcase_add_loop_test(tcase, bulk_behind_a_cut_that_failed, 0, 2);
	tcase_add_loop_test(tcase, bulk_that_got_no_record, 0, 2);
	tcase_add_test(tcase, bulk_beside_a_commit);
	tcase_add_test(tcase, bulk_beside_a_commit_in_a_full_ring);
	tcase_add_loop_test(tcase, the_reserve_is_used, 0, 2);
	tcase_add_test(tcase, promises_are_kept);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
