/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_UNIT_CRASH_DISK_H
#define CMEK_TESTS_UNIT_CRASH_DISK_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A disk that can lose power, for a few files: what is written to them is recorded in order, with the flushes, and any
 * state that a power cut may leave is made from it. Until its file is flushed a change may be there or not, whatever
 * became of the others, and a write may be there in part. One thread may write at a time.
 */
enum { CRASH_FILES = 3, CRASH_SECTOR = 512, CRASH_PENDING_MAX = 64, CRASH_UNIT = 4096 };

struct crash_op {
	enum { CRASH_WRITE, CRASH_TRUNCATE, CRASH_PUNCH, CRASH_FLUSH } type;
	unsigned file;
	uint64_t off, len;
	uint8_t *data;
};

/* Contents of a file; units that were never written are not copied around. */
struct crash_content {
	uint8_t *bytes;
	uint64_t size, capacity;
	uint8_t *used; /* one for each unit */
};

struct crash_disk {
	int fds[CRASH_FILES]; /* read-write */
	ino_t inos[CRASH_FILES];
	bool recording;
	struct crash_op *ops;
	size_t n_ops, capacity;
};

static inline void crash_content_init(struct crash_content *c, uint64_t capacity)
{
	c->capacity = capacity;
	c->size = 0;
	c->bytes = calloc(1, capacity);
	c->used = calloc(1, capacity / CRASH_UNIT + 1);
	ck_assert(c->bytes != NULL && c->used != NULL);
}

static inline void crash_content_done(struct crash_content *c)
{
	free(c->bytes);
	free(c->used);
}

static inline void crash_content_put(struct crash_content *c, const void *data, uint64_t off, uint64_t len)
{
	uint64_t unit;

	if (len == 0)
		return;
	ck_assert_uint_le(off + len, c->capacity);
	for (unit = off / CRASH_UNIT; unit <= (off + len - 1) / CRASH_UNIT; unit++)
		c->used[unit] = 1;
	if (data != NULL)
		memcpy(c->bytes + off, data, len);
	else
		memset(c->bytes + off, 0, len);
	if (off + len > c->size)
		c->size = off + len;
}

static inline void crash_content_cut(struct crash_content *c, uint64_t size)
{
	ck_assert_uint_le(size, c->capacity);
	if (size < c->size)
		memset(c->bytes + size, 0, c->size - size);
	c->size = size;
}

static inline void crash_content_copy(struct crash_content *to, const struct crash_content *from)
{
	uint64_t unit;

	for (unit = 0; unit < to->capacity / CRASH_UNIT; unit++) {
		if (from->used[unit])
			memcpy(to->bytes + unit * CRASH_UNIT, from->bytes + unit * CRASH_UNIT, CRASH_UNIT);
		else if (to->used[unit])
			memset(to->bytes + unit * CRASH_UNIT, 0, CRASH_UNIT);
		to->used[unit] = from->used[unit];
	}
	to->size = from->size;
}

/* keep: which sectors of a write get there, as a repeating pattern of 64; all ones = all. */
static inline void crash_apply(struct crash_content *files, const struct crash_op *op, uint64_t keep)
{
	struct crash_content *c = files + op->file;
	uint64_t at, len, sector = 0;

	switch (op->type) {
	case CRASH_WRITE:
		for (at = 0; at < op->len; at += len, sector++) {
			len = CRASH_SECTOR - (op->off + at) % CRASH_SECTOR;
			if (len > op->len - at)
				len = op->len - at;
			if (keep >> (sector % 64) & 1)
				crash_content_put(c, op->data + at, op->off + at, len);
		}
		break;
	case CRASH_TRUNCATE:
		crash_content_cut(c, op->off);
		break;
	case CRASH_PUNCH:
		at = op->off < c->size ? op->off : c->size;
		len = op->len < c->size - at ? op->len : c->size - at;
		crash_content_put(c, NULL, at, len);
		break;
	case CRASH_FLUSH:
		break;
	}
}

static inline void crash_write_out(const struct crash_disk *disk, const struct crash_content *files)
{
	unsigned i;

	for (i = 0; i < CRASH_FILES; i++) {
		uint64_t unit, run, units = (files[i].size + CRASH_UNIT - 1) / CRASH_UNIT;

		ck_assert_int_eq(ftruncate(disk->fds[i], 0), 0);
		ck_assert_int_eq(ftruncate(disk->fds[i], (off_t)files[i].size), 0);
		for (unit = 0; unit < units; unit += run) {
			uint64_t off = unit * CRASH_UNIT, len;

			for (run = 0; unit + run < units && files[i].used[unit + run]; run++)
				;
			len = run * CRASH_UNIT < files[i].size - off ? run * CRASH_UNIT : files[i].size - off;
			if (run > 0)
				ck_assert_int_eq(pwrite(disk->fds[i], files[i].bytes + off, len, (off_t)off), (ssize_t)len);
			else
				run = 1;
		}
	}
}

static inline int crash_file_of(const struct crash_disk *disk, int fd)
{
	struct stat st;
	int i;

	if (fstat(fd, &st) < 0)
		return -1;
	for (i = 0; i < CRASH_FILES; i++)
		if (disk->inos[i] == st.st_ino)
			return i;
	return -1;
}

static inline void crash_record(struct crash_disk *disk, int fd, int type, uint64_t off, uint64_t len, const void *data)
{
	int file = disk->recording ? crash_file_of(disk, fd) : -1;
	struct crash_op *op;

	if (file < 0)
		return;
	if (disk->n_ops == disk->capacity) {
		disk->capacity = disk->capacity == 0 ? 256 : disk->capacity * 2;
		disk->ops = realloc(disk->ops, disk->capacity * sizeof(*disk->ops));
		ck_assert_ptr_nonnull(disk->ops);
	}
	op = disk->ops + disk->n_ops++;
	*op = (struct crash_op){ .type = type, .file = (unsigned)file, .off = off, .len = len };
	if (data != NULL) {
		op->data = malloc(len + 1);
		ck_assert_ptr_nonnull(op->data);
		memcpy(op->data, data, len);
	}
}

static inline void crash_record_sync(struct crash_disk *disk)
{
	unsigned i;

	for (i = 0; i < CRASH_FILES; i++)
		crash_record(disk, disk->fds[i], CRASH_FLUSH, 0, 0, NULL);
}

static inline void crash_forget(struct crash_disk *disk)
{
	while (disk->n_ops > 0)
		free(disk->ops[--disk->n_ops].data);
}

#endif
