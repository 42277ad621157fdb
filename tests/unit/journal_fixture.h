/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_UNIT_JOURNAL_FIXTURE_H
#define CMEK_TESTS_UNIT_JOURNAL_FIXTURE_H

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/io.h"
#include "fs/content/journal.h"
#include "fs/content/journal_record.h"
#include "fs/content/replay.h"
#include "tests/unit/unit.h"

/* Keys, a store in memory, and records sealed by hand; for tests of the journal and of replay. */

#define JF_UNIT CMEK_JOURNAL_UNIT

static const uint8_t jf_volume[16] = { 1, 2, 3 };
static const uint8_t jf_mount[16] = { 7, 7, 7 };

static inline struct cmek_keyring *jf_ring(void)
{
	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN];
	struct cmek_keyring *ring = NULL;
	struct cmek_secret *kek = NULL;

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, NULL), 0);
	ck_assert_int_eq(cmek_keyring_new(jf_volume, &kek, &ring, NULL), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), 0);
	return ring;
}

/* A store: a directory with .cmekfs in it. */
struct jf_store {
	char *dir;
	int store_fd, meta_fd;
	struct cmek_keyring *ring;
};

static inline void jf_store_init(struct jf_store *s)
{
	/* in memory where there is such a place: many flushes, and large files */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
	s->dir = unit_tmpdir();
	s->store_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(s->store_fd, 0);
	ck_assert_int_eq(mkdirat(s->store_fd, ".cmekfs", 0700), 0);
	s->meta_fd = openat(s->store_fd, ".cmekfs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(s->meta_fd, 0);
	s->ring = jf_ring();
}

static inline void jf_store_done(struct jf_store *s)
{
	cmek_keyring_free(s->ring);
	close(s->meta_fd);
	close(s->store_fd);
	unit_rmtree(s->dir);
}

/* A pattern that tells blocks and versions apart. */
static inline void jf_fill(uint8_t *buf, size_t len, uint64_t what)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)(what * 31 + i * 7 + i / 256);
}

/* Adds an item to a section, and its image of len bytes to *images. Frees nothing. */
static inline void jf_add(struct cmek_section *section, enum cmek_item_type type, uint64_t first, const void *data,
			  size_t len, uint8_t **images, size_t *images_bytes)
{
	size_t bytes = (len + JF_UNIT - 1) / JF_UNIT * JF_UNIT;

	ck_assert_int_eq(cmek_section_add(section, type, first, len, *images_bytes / JF_UNIT), 0);
	*images = realloc(*images, *images_bytes + bytes);
	ck_assert_ptr_nonnull(*images);
	memset(*images + *images_bytes, 0, bytes);
	memcpy(*images + *images_bytes, data, len);
	*images_bytes += bytes;
}

/* The bytes of one record (malloced) that has this section alone. */
static inline uint8_t *jf_record(struct cmek_keyring *ring, const struct cmek_record_id *id,
				 const struct cmek_section *section, const uint8_t *images, size_t images_bytes,
				 size_t *ret_bytes)
{
	struct iovec piece = { (void *)(uintptr_t)images, images_bytes };
	size_t meta = cmek_record_meta_bytes(&section, 1);
	uint8_t *buf = malloc(meta + images_bytes);

	ck_assert_ptr_nonnull(buf);
	ck_assert_int_eq(cmek_record_encode(ring, id, &section, 1, &piece, images_bytes > 0, buf), 0);
	if (images_bytes > 0)
		memcpy(buf + meta, images, images_bytes);
	*ret_bytes = meta + images_bytes;
	return buf;
}

static inline int jf_replay(struct jf_store *s, uint32_t block_size, bool dry_run, struct cmek_replay_result *result,
			    struct cmek_error *err)
{
	struct cmek_replay_params params = { .store_fd = s->store_fd,
					     .meta_fd = s->meta_fd,
					     .block_size = block_size,
					     .dry_run = dry_run };

	memcpy(params.volume, jf_volume, sizeof(params.volume));
	return cmek_replay(s->ring, &params, result, err);
}

#endif
