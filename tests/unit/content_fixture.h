/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_UNIT_CONTENT_FIXTURE_H
#define CMEK_TESTS_UNIT_CONTENT_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/content/block_map.h"
#include "fs/content/content.h"
#include "fs/content/journal.h"
#include "fs/content/replay.h"

/* The content layer over a store directory of its own, without a tree: node numbers are file names. */

/* One volume: a directory whose files are named by their node numbers, and the layer over it. */
struct volume {
	char dir[64];
	uint32_t block_size;
	bool journal;
	bool refuse_writes; /* store files are opened so that writes to them fail */
	int meta_fd, store_fd;
	struct cmek_keyring *ring;
	struct cmek_content *content;
	atomic_int reports;
	atomic_bool data[64]; /* what was said of the nodes below 64 */
};

static const uint8_t volume_uuid[16] = { 1, 2, 3 };

static inline int host_open(void *arg, uint64_t node, bool write)
{
	struct volume *v = arg;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%llu", v->dir, (unsigned long long)node);
	fd = open(path, (write && !v->refuse_writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static inline void host_report(void *arg, uint64_t node, int error, const char *what)
{
	struct volume *v = arg;

	(void)node;
	(void)error;
	(void)what;
	v->reports++;
}

static inline void host_set_data(void *arg, uint64_t node, bool data)
{
	struct volume *v = arg;

	if (node < 64)
		v->data[node] = data;
}

static inline bool host_has_data(void *arg, uint64_t node)
{
	struct volume *v = arg;

	return node < 64 && v->data[node];
}

static inline int host_flush(void *arg)
{
	struct volume *v = arg;

	return syncfs(v->store_fd) < 0 ? -errno : 0;
}

static inline void content_start(struct volume *v, bool read_only)
{
	struct cmek_replay_params replay = { .store_fd = v->store_fd,
					     .meta_fd = v->meta_fd,
					     .block_size = v->block_size };
	struct cmek_content_host host = { v, host_open, NULL, NULL, host_report, host_set_data, host_has_data, host_flush, NULL };
	struct cmek_replay_result result;
	struct cmek_content_params params = { .block_size = v->block_size,
					      .read_only = read_only,
					      .map_cache_bytes = 64 << 10, /* small, so that groups are evicted */
					      .held_max_bytes = 1 << 20,
					      .commit_ms = 20,
					      .no_journal = !v->journal,
					      .meta_fd = v->meta_fd,
					      .journal_bytes = cmek_journal_length_min(v->block_size) };
	struct cmek_error err = CMEK_ERROR_INIT;

	memcpy(replay.volume, volume_uuid, 16);
	memcpy(params.volume, volume_uuid, 16);
	if (!read_only)
		ck_assert_msg(cmek_replay(v->ring, &replay, &result, &err) == 0, "%s", err.text);
	ck_assert_msg(cmek_content_new(v->ring, &host, &params, &v->content, &err) == 0, "%s", err.text);
}

static inline void volume_start(struct volume *v, uint32_t block_size, bool journal)
{
	char path[128];

	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN];
	struct cmek_secret *kek = NULL;

	memset(v, 0, sizeof(*v));
	/* in memory where there is such a place: thousands of flushes */
	strcpy(v->dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/check_content.XXXXXX" : "/tmp/check_content.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(v->dir));
	v->block_size = block_size;
	v->journal = journal;
	snprintf(path, sizeof(path), "%s/.cmekfs", v->dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	v->store_fd = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	v->meta_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, NULL), 0);
	ck_assert_int_eq(cmek_keyring_new(volume_uuid, &kek, &v->ring, NULL), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(v->ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), 0);
	content_start(v, false);
}

static inline void volume_stop(struct volume *v)
{
	char command[128];

	ck_assert_int_eq(cmek_content_free(v->content), 0);
	cmek_keyring_free(v->ring);
	close(v->meta_fd);
	close(v->store_fd);
	snprintf(command, sizeof(command), "rm -rf %s", v->dir);
	ck_assert_int_eq(system(command), 0);
}

static inline struct cmek_ofile *file_open(struct volume *v, uint64_t node)
{
	struct cmek_ofile *file;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%llu", v->dir, (unsigned long long)node);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(cmek_ofile_open(v->content, node, -1, false, &file), 0);
	return file;
}

static inline uint64_t stored_size(struct volume *v, uint64_t node)
{
	struct stat st;
	char path[128];

	snprintf(path, sizeof(path), "%s/%llu", v->dir, (unsigned long long)node);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

/* Closes a file and waits until the store has all of it, as another program sees it. */
static inline void close_and_settle(struct volume *v, struct cmek_ofile *file)
{
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(v->content), 0);
	content_start(v, false);
}

/* After a close the store file gets its size at once, or in a moment when the committer has the file in its hands. */
static inline void await_stored_size(struct volume *v, uint64_t node, uint64_t want)
{
	int tries = 0;

	while (stored_size(v, node) != want && ++tries < 500)
		usleep(10000);
	ck_assert_uint_eq(stored_size(v, node), want);
}

#endif
