/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The content layer on real store files in a temporary directory: against a plain model in memory, from several
 * threads, over re-openings, and over damage.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/content/block_map.h"
#include "fs/content/content.h"
#include "fs/content/journal.h"
#include "fs/content/replay.h"
#include "tests/unit/content_fixture.h"

static const uint32_t block_sizes[] = { 4096, 8192, 16384, 65536 };

/* ---- random operations against a model ---- */

struct model {
	uint8_t *data;
	uint64_t size, max;
};

static void model_write(struct model *m, const uint8_t *data, uint64_t off, uint64_t len)
{
	memcpy(m->data + off, data, len);
	if (off + len > m->size)
		m->size = off + len;
}

static void model_truncate(struct model *m, uint64_t size)
{
	if (size < m->size)
		memset(m->data + size, 0, m->size - size);
	m->size = size;
}

static void model_zero(struct model *m, uint64_t off, uint64_t len)
{
	if (off < m->size)
		memset(m->data + off, 0, len < m->size - off ? len : m->size - off);
}

/* fallocate of any kind. */
static void reshape(struct cmek_ofile *file, struct model *m, uint64_t off, uint64_t len)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	int mode = modes[(uint64_t)random() % (sizeof(modes) / sizeof(modes[0]))];

	ck_assert_int_eq(cmek_content_fallocate(file, mode, off, len), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		model_zero(m, off, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > m->size)
		m->size = off + len;
}

static uint64_t pick_offset(const struct model *m, uint32_t block_size)
{
	static const int near[] = { -1, 0, 1 };
	uint64_t off = (uint64_t)random() % m->max;

	if (random() % 3 == 0) /* at the edges of blocks */
		off = off / block_size * block_size + (uint64_t)near[random() % 3];
	if (random() % 4 == 0) /* at the edges of groups */
		off = off / cmek_group_plain_bytes(block_size) * cmek_group_plain_bytes(block_size) +
		      (uint64_t)near[random() % 3];
	if (random() % 4 == 0) /* at the end */
		off = m->size + (uint64_t)near[random() % 3];
	return off < m->max ? off : m->max - 1;
}

static void compare(struct cmek_ofile *file, const struct model *m, uint64_t off, uint64_t len, uint8_t *buf)
{
	uint64_t want = off >= m->size ? 0 : m->size - off < len ? m->size - off : len;
	ssize_t n = cmek_content_read(file, buf, len, off);

	ck_assert_msg(n == (ssize_t)want, "read of %llu at %llu gave %zd, want %llu", (unsigned long long)len,
		      (unsigned long long)off, n, (unsigned long long)want);
	ck_assert_msg(memcmp(buf, m->data + off, want) == 0, "read of %llu at %llu differs", (unsigned long long)len,
		      (unsigned long long)off);
}

START_TEST(random_operations)
{
	uint32_t block_size = block_sizes[_i % 4];
	struct model m = { NULL, 0, cmek_group_plain_bytes(block_size) * 3 + 12345 };
	uint8_t *buf = malloc(m.max + 1), *data = malloc(m.max + 1);
	struct cmek_ofile *file;
	struct volume v;
	uint64_t off, len, i;
	int step;

	srandom((unsigned)_i + 100);
	m.data = calloc(1, m.max + 1);
	for (i = 0; i < m.max; i++)
		data[i] = (uint8_t)random();
	volume_start(&v, block_size, _i % 8 >= 4);
	file = file_open(&v, 5);
	for (step = 0; step < 1500; step++) {
		off = pick_offset(&m, block_size);
		len = (uint64_t)random() % (random() % 4 ? 3 * block_size : m.max) + 1;
		if (len > m.max - off)
			len = m.max - off;
		switch (random() % 16) {
		case 0:
			ck_assert_int_eq(cmek_content_truncate(file, off), 0);
			model_truncate(&m, off);
			break;
		case 1:
			ck_assert_int_eq(cmek_content_sync(file, random() % 2), 0);
			break;
		case 2:
			cmek_ofile_close(file);
			await_stored_size(&v, 5, cmek_stored_size(block_size, m.size));
			file = file_open(&v, 5);
			break;
		case 3:
			cmek_ofile_close(file);
			ck_assert_int_eq(cmek_content_free(v.content), 0);
			content_start(&v, false);
			file = file_open(&v, 5);
			break;
		case 4:
			if (random() % 8 == 0) {
				ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
				model_truncate(&m, 0);
			}
			break;
		case 5:
			reshape(file, &m, off, len);
			break;
		case 6:
		case 7:
		case 8:
			compare(file, &m, off, len, buf);
			break;
		default:
			ck_assert_int_eq(cmek_content_write(file, data + off, len, off), 0);
			model_write(&m, data + off, off, len);
			for (i = 0; i < 64; i++)
				data[(uint64_t)random() % m.max] ^= (uint8_t)random();
		}
		ck_assert_uint_eq(cmek_ofile_size(file), m.size);
	}
	compare(file, &m, 0, m.max, buf);
	cmek_ofile_close(file);
	ck_assert_int_eq(v.reports, 0);
	volume_stop(&v);
	free(m.data);
	free(buf);
	free(data);
}
END_TEST

/* ---- far apart writes: absent groups, more ranges than a page can name ---- */

START_TEST(sparse)
{
	uint32_t block_size = block_sizes[_i % 4];
	uint64_t group = cmek_group_plain_bytes(block_size), off;
	uint8_t data[512], buf[512], zeros[512] = { 0 };
	struct cmek_ofile *file;
	struct stat st;
	struct volume v;
	char path[128];
	int i;

	volume_start(&v, block_size, _i % 8 >= 4);
	file = file_open(&v, 5);
	for (i = 0; i < 40; i++) {
		memset(data, i + 1, sizeof(data));
		off = (uint64_t)(i * 7 % 40) * 5 * group + group / 2;
		ck_assert_int_eq(cmek_content_write(file, data, sizeof(data), off), 0);
		if (i % 5 == 0)
			ck_assert_int_eq(cmek_content_sync(file, false), 0);
	}
	cmek_ofile_close(file);
	file = file_open(&v, 5);
	for (i = 0; i < 40; i++) {
		memset(data, i + 1, sizeof(data));
		off = (uint64_t)(i * 7 % 40) * 5 * group + group / 2;
		ck_assert_int_eq(cmek_content_read(file, buf, sizeof(buf), off), sizeof(buf));
		ck_assert(memcmp(buf, data, sizeof(buf)) == 0);
		if (off + 3 * group > cmek_ofile_size(file))
			continue;
		ck_assert_int_eq(cmek_content_read(file, buf, sizeof(buf), off + 2 * group), sizeof(buf));
		ck_assert(memcmp(buf, zeros, sizeof(buf)) == 0);
	}
	/* far beyond: one more range, almost no space */
	memset(data, 0xee, sizeof(data));
	off = UINT64_C(1) << 40;
	ck_assert_int_eq(cmek_content_write(file, data, sizeof(data), off), 0);
	cmek_ofile_close(file);
	file = file_open(&v, 5);
	ck_assert_int_eq(cmek_content_read(file, buf, sizeof(buf), off), sizeof(buf));
	ck_assert(memcmp(buf, data, sizeof(buf)) == 0);
	ck_assert_int_eq(cmek_content_read(file, buf, sizeof(buf), off / 2), sizeof(buf));
	ck_assert(memcmp(buf, zeros, sizeof(buf)) == 0);
	ck_assert_int_eq(cmek_content_write(file, data, 1, cmek_plain_size_max(block_size)), -EFBIG);
	snprintf(path, sizeof(path), "%s/5", v.dir);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_msg(st.st_blocks < 100 << 10, "%lld blocks", (long long)st.st_blocks);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* ---- threads ---- */

enum { WORKERS = 4, AREA = 600 << 10 };

struct worker {
	struct volume *v;
	struct cmek_ofile *file;
	unsigned id;
	bool failed;
};

/* Each worker owns the stripes whose number leaves its id, and checks only those. */
static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned seed = w->id + 1, step, stripe_bytes = 3000, stripes = AREA / stripe_bytes;
	uint8_t *version = calloc(stripes, 1), buf[3000];
	unsigned stripe, i;

	for (step = 0; step < 1500 && !w->failed; step++) {
		stripe = (unsigned)rand_r(&seed) % (stripes / WORKERS) * WORKERS + w->id;
		if (rand_r(&seed) % 2) {
			memset(buf, ++version[stripe], sizeof(buf));
			w->failed |= cmek_content_write(w->file, buf, sizeof(buf), stripe * stripe_bytes) != 0;
		} else if (version[stripe]) {
			w->failed |= cmek_content_read(w->file, buf, sizeof(buf), stripe * stripe_bytes) != sizeof(buf);
			for (i = 0; i < sizeof(buf); i++)
				w->failed |= buf[i] != version[stripe];
		}
		if (rand_r(&seed) % 64 == 0)
			w->failed |= cmek_content_sync(w->file, true) != 0;
	}
	free(version);
	return NULL;
}

START_TEST(threads_in_one_file)
{
	struct worker workers[WORKERS];
	pthread_t threads[WORKERS];
	struct volume v;
	unsigned i;

	volume_start(&v, block_sizes[_i % 4], _i >= 4);
	for (i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ &v, file_open(&v, 9), i, false };
		ck_assert_int_eq(pthread_create(threads + i, NULL, work, workers + i), 0);
	}
	for (i = 0; i < WORKERS; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_msg(!workers[i].failed, "worker %u", i);
		cmek_ofile_close(workers[i].file);
	}
	volume_stop(&v);
}
END_TEST

/* Open, append, truncate, close, find from many threads on few files: nothing leaks, nothing hangs. */
static void *churn(void *arg)
{
	struct worker *w = arg;
	unsigned seed = w->id + 77, step;
	uint8_t buf[5000] = { 1 };
	struct cmek_ofile *file;

	for (step = 0; step < 400; step++) {
		uint64_t node = (unsigned)rand_r(&seed) % 3 + 20;

		file = cmek_ofile_find(w->v->content, node);
		if (file != NULL)
			cmek_ofile_close(file);
		if (cmek_ofile_open(w->v->content, node, -1, rand_r(&seed) % 16 == 0, &file) != 0) {
			w->failed = true;
			break;
		}
		w->failed |= cmek_content_write(file, buf, sizeof(buf), cmek_ofile_size(file)) != 0;
		if (rand_r(&seed) % 8 == 0)
			w->failed |= cmek_content_truncate(file, (unsigned)rand_r(&seed) % 100000) != 0;
		w->failed |= cmek_content_read(file, buf, 100, (unsigned)rand_r(&seed) % 1000) < 0;
		buf[0] = 1;
		cmek_ofile_close(file);
	}
	return NULL;
}

START_TEST(threads_open_and_close)
{
	struct worker workers[WORKERS];
	pthread_t threads[WORKERS];
	struct volume v;
	unsigned i;

	volume_start(&v, 4096, _i % 2);
	for (i = 0; i < 3; i++)
		cmek_ofile_close(file_open(&v, 20 + i));
	for (i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ &v, NULL, i, false };
		ck_assert_int_eq(pthread_create(threads + i, NULL, churn, workers + i), 0);
	}
	for (i = 0; i < WORKERS; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_msg(!workers[i].failed, "worker %u", i);
	}
	ck_assert_int_eq(v.reports, 0);
	volume_stop(&v);
}
END_TEST

/* ---- damage ---- */

/* What happens to the stored file of 3 groups, and what a read of plain byte `at` then gives. */
static const struct {
	const char *what;
	uint64_t flip_off;   /* stored offset of a flipped byte, or UINT64_MAX */
	uint64_t zero_off;   /* of a zeroed page, or UINT64_MAX */
	int64_t truncate_by; /* bytes cut off the end */
	uint64_t bad_at;     /* plain offset that must be an error */
	uint64_t good_at;    /* plain offset that must still read; UINT64_MAX = none */
} damages[] = {
	{ "data byte", 4096 + 10, UINT64_MAX, 0, 100, 4096 },
	{ "data byte in group 1", 397312 + 4096 + 5, UINT64_MAX, 0, 393216, 0 },
	{ "map magic", 0, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map DEK id", 4, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map counter", 8, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map salt", 16, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map file id", 32, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map tag", 48, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map entries", 100, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map trailer", 4095, UINT64_MAX, 0, 0, UINT64_MAX },
	{ "map of group 1", 397312 + 2000, UINT64_MAX, 0, 393216, 0 },
	{ "file id of group 1", 397312 + 33, UINT64_MAX, 0, 400000, 0 },
	{ "zeroed map of group 0", UINT64_MAX, 0, 0, 0, UINT64_MAX },
	{ "zeroed map of group 1", UINT64_MAX, 397312, 0, 393216, 0 },
	{ "zeroed data", UINT64_MAX, 4096, 0, 0, 4096 },
	{ "cut tail", UINT64_MAX, UINT64_MAX, 1, 2 * 393216 + 8190, 0 },
	{ "cut group", UINT64_MAX, UINT64_MAX, 4096 + 8192, 2 * 393216, 0 },
};

START_TEST(damage_is_an_error)
{
	uint64_t size = 2 * 393216 + 8191;
	uint8_t *data = malloc(size), page[4096] = { 0 }, byte, buf[4096];
	struct cmek_ofile *file;
	struct volume v;
	ssize_t r;
	int fd;

	volume_start(&v, 4096, _i % 2);
	memset(data, 0x5a, size);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, data, size, 0), 0);
	close_and_settle(&v, file);
	fd = host_open(&v, 1, true);
	if (damages[_i].flip_off != UINT64_MAX) {
		ck_assert_int_eq(cmek_pread_full(fd, &byte, 1, damages[_i].flip_off), 1);
		byte ^= 0x10;
		ck_assert_int_eq(cmek_pwrite_full(fd, &byte, 1, damages[_i].flip_off), 0);
	}
	if (damages[_i].zero_off != UINT64_MAX)
		ck_assert_int_eq(cmek_pwrite_full(fd, page, sizeof(page), damages[_i].zero_off), 0);
	if (damages[_i].truncate_by)
		ck_assert_int_eq(ftruncate(fd, (off_t)stored_size(&v, 1) - damages[_i].truncate_by), 0);
	close(fd);
	file = file_open(&v, 1);
	r = cmek_content_read(file, buf, 1, damages[_i].bad_at);
	/* a DEK that the header does not have is told apart: the header may be an old one */
	ck_assert_msg(r == (damages[_i].flip_off == 4 ? -ENOKEY : -EBADMSG), "%s: %zd", damages[_i].what, r);
	if (damages[_i].good_at != UINT64_MAX) {
		ck_assert_int_eq(cmek_content_read(file, buf, 1, damages[_i].good_at), 1);
		ck_assert_uint_eq(buf[0], 0x5a);
	}
	cmek_ofile_close(file);
	volume_stop(&v);
	free(data);
}
END_TEST

START_TEST(swaps_are_errors)
{
	uint8_t data[3 * 4096], a[4096], b[4096];
	struct cmek_ofile *file;
	struct volume v;
	int fd, other;

	volume_start(&v, 4096, _i % 2);
	memset(data, 1, sizeof(data));
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, data, sizeof(data), 0), 0);
	close_and_settle(&v, file);
	file = file_open(&v, 2);
	ck_assert_int_eq(cmek_content_write(file, data, sizeof(data), 0), 0);
	close_and_settle(&v, file);
	/* two blocks of one file */
	fd = host_open(&v, 1, true);
	ck_assert_int_eq(cmek_pread_full(fd, a, 4096, 4096), 4096);
	ck_assert_int_eq(cmek_pread_full(fd, b, 4096, 8192), 4096);
	ck_assert_int_eq(cmek_pwrite_full(fd, b, 4096, 4096), 0);
	ck_assert_int_eq(cmek_pwrite_full(fd, a, 4096, 8192), 0);
	/* a block of another file at its own place */
	other = host_open(&v, 2, true);
	ck_assert_int_eq(cmek_pread_full(other, a, 4096, 12288), 4096);
	ck_assert_int_eq(cmek_pwrite_full(fd, a, 4096, 12288), 0);
	close(fd);
	close(other);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_read(file, a, 4096, 0), -EBADMSG);
	ck_assert_int_eq(cmek_content_read(file, a, 4096, 4096), -EBADMSG);
	ck_assert_int_eq(cmek_content_read(file, a, 4096, 8192), -EBADMSG);
	/* part of a bad block can't be written, a whole one heals it */
	ck_assert_int_eq(cmek_content_write(file, data, 100, 0), -EBADMSG);
	ck_assert_int_eq(cmek_content_write(file, data, 4096, 0), 0);
	ck_assert_int_eq(cmek_content_read(file, a, 4096, 0), 4096);
	close_and_settle(&v, file);
	/* emptying heals a bad first page */
	fd = host_open(&v, 1, true);
	ck_assert_int_eq(cmek_pwrite_full(fd, a, 4096, 0), 0);
	close(fd);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_read(file, a, 4096, 0), -EBADMSG);
	ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
	ck_assert_int_eq(cmek_content_write(file, data, sizeof(data), 0), 0);
	ck_assert_int_eq(cmek_content_read(file, a, 4096, 4096), 4096);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* ---- the process dies ---- */

enum { CRASH_BLOCKS = 400 };

/* Shared with the child: what it wrote last, and what a sync had answered for, by block; and the file's size. */
struct crash_model {
	uint32_t written[CRASH_BLOCKS], synced[CRASH_BLOCKS];
};

static void crash_fill(uint8_t *buf, uint32_t block, uint32_t version)
{
	size_t i;

	for (i = 0; i < 4096; i += 8) {
		memcpy(buf + i, &block, 4);
		memcpy(buf + i + 4, &version, 4);
	}
}

/* Overwrites runs of blocks for ever, sometimes syncing; block versions only go up. */
static void crash_child(struct volume *v, struct crash_model *m, unsigned seed)
{
	struct cmek_ofile *file = file_open(v, 1);
	uint8_t *buf = malloc(64 * 4096);
	uint32_t i, first, n;

	for (;;) {
		n = (uint32_t)rand_r(&seed) % (rand_r(&seed) % 8 ? 4 : 64) + 1;
		first = (uint32_t)rand_r(&seed) % (CRASH_BLOCKS - n);
		for (i = 0; i < n; i++)
			crash_fill(buf + i * 4096, first + i, ++m->written[first + i]);
		if (cmek_content_write(file, buf, n * 4096, (uint64_t)first * 4096) != 0)
			_exit(1);
		if (rand_r(&seed) % 8 == 0) {
			if (cmek_content_sync(file, rand_r(&seed) % 2) != 0)
				_exit(2);
			memcpy(m->synced, m->written, sizeof(m->synced));
		}
		if (rand_r(&seed) % 64 == 0) {
			cmek_ofile_close(file);
			file = file_open(v, 1);
		}
	}
}

START_TEST(killed_at_any_time)
{
	struct crash_model *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t buf[4096], want[4096];
	struct cmek_ofile *file;
	struct volume v;
	int round, status;
	uint32_t i, version;
	ssize_t n;
	pid_t pid;

	volume_start(&v, block_sizes[_i % 4], true);
	for (round = 0; round < 12; round++) {
		/* the child makes its own layer: threads do not survive a fork */
		ck_assert_int_eq(cmek_content_free(v.content), 0);
		pid = fork();
		ck_assert_int_ge(pid, 0);
		if (pid == 0) {
			content_start(&v, false);
			crash_child(&v, m, (unsigned)(_i * 100 + round));
		}
		usleep((useconds_t)(20000 + random() % 150000));
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(WIFSIGNALED(status));
		content_start(&v, false);
		file = file_open(&v, 1);
		for (i = 0; i < CRASH_BLOCKS; i++) {
			memset(buf, 0, sizeof(buf));
			n = cmek_content_read(file, buf, sizeof(buf), (uint64_t)i * 4096);
			ck_assert_msg(n >= 0, "round %d block %u: %zd", round, i, n);
			memcpy(&version, buf + 4, 4);
			ck_assert_msg(version >= m->synced[i] && version <= m->written[i],
				      "round %d block %u: version %u, synced %u, written %u", round, i, version,
				      m->synced[i], m->written[i]);
			crash_fill(want, version ? i : 0, version);
			ck_assert_msg(memcmp(buf, want, sizeof(buf)) == 0, "round %d block %u is torn", round, i);
			m->written[i] = m->synced[i] = version;
		}
		cmek_ofile_close(file);
	}
	volume_stop(&v);
	munmap(m, sizeof(*m));
}
END_TEST

/* ---- the rest ---- */

START_TEST(times_stay)
{
	struct timespec set = { 1000000000, 123456789 }, got;
	struct cmek_ofile *file;
	struct stat st;
	struct volume v;
	char path[128];
	uint8_t byte = 1;

	volume_start(&v, 4096, _i % 2);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	cmek_ofile_set_mtime(file, set);
	ck_assert(cmek_ofile_mtime(file, &got));
	ck_assert_int_eq(got.tv_nsec, set.tv_nsec);
	close_and_settle(&v, file);
	snprintf(path, sizeof(path), "%s/1", v.dir);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, set.tv_sec);
	ck_assert_int_eq(st.st_mtim.tv_nsec, set.tv_nsec);
	volume_stop(&v);
}
END_TEST

/* The kernel's times are finer than ours: one that is just ahead is not taken back by a change, one of the future is. */
START_TEST(times_make_no_step_back)
{
	struct timespec set, got;
	struct cmek_ofile *file;
	struct volume v;
	uint8_t byte = 1;

	volume_start(&v, 4096, _i % 2);
	file = file_open(&v, 1);
	(void)clock_gettime(CLOCK_REALTIME, &set);
	cmek_ofile_set_mtime(file, set);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	ck_assert(cmek_ofile_mtime(file, &got));
	ck_assert(got.tv_sec > set.tv_sec || (got.tv_sec == set.tv_sec && got.tv_nsec >= set.tv_nsec));
	set.tv_sec += 86400;
	cmek_ofile_set_mtime(file, set);
	ck_assert_int_eq(cmek_content_truncate(file, 10), 0);
	ck_assert(cmek_ofile_mtime(file, &got));
	ck_assert_int_lt(got.tv_sec, set.tv_sec);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* What the kernel writes back was written by the user earlier. */
START_TEST(write_backs_keep_times)
{
	struct timespec set = { 1000000000, 123456789 };
	struct cmek_ofile *file;
	uint8_t data[8192] = { 1 };
	struct stat before, after;
	struct volume v;
	char path[128];

	volume_start(&v, 4096, _i % 2);
	snprintf(path, sizeof(path), "%s/1", v.dir);
	file = file_open(&v, 1);
	ck_assert_int_eq(stat(path, &before), 0);
	usleep(20000);
	ck_assert_int_eq(cmek_content_write_back(file, data, sizeof(data), 0), 0);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_int_eq(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
	ck_assert_int_eq(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	/* The time may be told before the data. */
	cmek_ofile_set_mtime(file, set);
	ck_assert_int_eq(cmek_content_write_back(file, data, sizeof(data), 8192), 0);
	close_and_settle(&v, file);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_int_eq(after.st_mtim.tv_sec, set.tv_sec);
	ck_assert_int_eq(after.st_mtim.tv_nsec, set.tv_nsec);
	volume_stop(&v);
}
END_TEST

/* Bytes put behind (or cut from, negative) the stored file of 20000 plain bytes, and what is found. */
static const struct {
	int change;
	enum cmek_size_check first, again;
} size_rows[] = {
	{ 0, CMEK_SIZE_TRUE, CMEK_SIZE_TRUE },
	{ 1, CMEK_SIZE_MENDED, CMEK_SIZE_TRUE },
	{ 7000, CMEK_SIZE_MENDED, CMEK_SIZE_TRUE },
	{ -1, CMEK_SIZE_WRONG, CMEK_SIZE_WRONG },
	{ -19000, CMEK_SIZE_WRONG, CMEK_SIZE_WRONG },
	{ -20000, CMEK_SIZE_WRONG, CMEK_SIZE_WRONG }, /* just its first page */
};

START_TEST(size_checked)
{
	static uint8_t data[20000];
	struct cmek_ofile *file;
	struct volume v;
	int fd;

	volume_start(&v, 4096, false);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_ofile_check_size(file), CMEK_SIZE_TRUE);
	ck_assert_int_eq(cmek_content_write(file, data, sizeof(data), 0), 0);
	ck_assert_int_eq(cmek_ofile_check_size(file), CMEK_SIZE_TRUE);
	cmek_ofile_close(file);
	fd = host_open(&v, 1, true);
	ck_assert_int_eq(ftruncate(fd, 4096 + (int)sizeof(data) + size_rows[_i].change), 0);
	close(fd);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_ofile_check_size(file), size_rows[_i].first);
	ck_assert_int_eq(cmek_ofile_check_size(file), size_rows[_i].first); /* as long as it is open */
	ck_assert_uint_eq(cmek_ofile_size(file), sizeof(data));
	cmek_ofile_close(file);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_ofile_check_size(file), size_rows[_i].again);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* The store file is cut to nothing, or to less than a page, which reads as nothing: not when it is known to have had data. */
START_TEST(emptied_by_others)
{
	int cut_to = _i / 2 % 3 == 0 ? 0 : _i / 2 % 3 == 1 ? 1 : 4096;
	bool anew = _i / 6;
	uint8_t byte = 1, got = 0;
	struct cmek_ofile *file;
	struct volume v;
	int fd;

	volume_start(&v, 4096, _i % 2);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	close_and_settle(&v, file);
	ck_assert(v.data[1]);
	fd = host_open(&v, 1, true);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(ftruncate(fd, cut_to), 0);
	close(fd);
	if (!anew) {
		file = file_open(&v, 1);
		ck_assert_int_eq(cmek_content_read(file, &got, 1, 0), -EBADMSG);
		ck_assert_int_eq(cmek_content_write(file, &byte, 1, 5), -EBADMSG);
		ck_assert_int_eq(cmek_content_truncate(file, 5), -EBADMSG);
		ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
	} else {
		ck_assert_int_eq(cmek_ofile_open(v.content, 1, -1, true, &file), 0);
	}
	/* emptied by its owner, it is empty, and goes on to be */
	ck_assert_int_eq(cmek_content_read(file, &got, 1, 0), 0);
	close_and_settle(&v, file);
	ck_assert(!v.data[1]);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_read(file, &got, 1, 0), 0);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	close_and_settle(&v, file);
	ck_assert(v.data[1]);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_read(file, &got, 1, 0), 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

START_TEST(changes_reach_the_store_by_themselves)
{
	struct cmek_ofile *file;
	struct volume v;
	uint8_t byte = 1;

	volume_start(&v, 4096, _i % 2);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	await_stored_size(&v, 1, 4097);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* What can't be written of a file that is gone is forgotten, and what can't be written of another is told. */
START_TEST(removed_and_unwritable)
{
	bool removed = _i / 2;
	struct cmek_ofile *file;
	uint8_t byte = 1;
	struct volume v;
	char path[128];

	volume_start(&v, 4096, _i % 2);
	cmek_ofile_close(file_open(&v, 1));
	v.refuse_writes = true;
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	snprintf(path, sizeof(path), "%s/1", v.dir);
	if (removed)
		ck_assert_int_eq(unlink(path), 0);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_commit_all(v.content) < 0, !removed);
	ck_assert_int_gt(v.reports, 0);
	if (!removed) {
		ck_assert_int_lt(cmek_content_free(v.content), 0);
		v.refuse_writes = false;
		content_start(&v, false);
	}
	volume_stop(&v);
}
END_TEST

START_TEST(read_only_changes_nothing)
{
	struct cmek_ofile *file;
	struct volume v;
	uint8_t byte = 1, got = 0;

	volume_start(&v, 4096, _i % 2);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_content_free(v.content), 0);
	content_start(&v, true);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), -EROFS);
	ck_assert_int_eq(cmek_content_truncate(file, 0), -EROFS);
	ck_assert_int_eq(cmek_content_read(file, &got, 1, 0), 1);
	ck_assert_uint_eq(got, 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* After a crash without a journal the store file may be longer than its sealed size. */
START_TEST(longer_store_file_is_cut)
{
	struct cmek_ofile *file;
	struct volume v;
	uint8_t byte = 1, page[4096] = { 9 };
	int fd;

	volume_start(&v, 4096, _i % 2);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_write(file, &byte, 1, 0), 0);
	close_and_settle(&v, file);
	fd = host_open(&v, 1, true);
	ck_assert_int_eq(cmek_pwrite_full(fd, page, sizeof(page), 20000), 0);
	close(fd);
	file = file_open(&v, 1);
	ck_assert_int_eq(cmek_content_read(file, page, sizeof(page), 0), 1);
	ck_assert_uint_eq(cmek_ofile_size(file), 1);
	close_and_settle(&v, file);
	ck_assert_uint_eq(stored_size(&v, 1), 4097);
	volume_stop(&v);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("content");
	TCase *tc = tcase_create("content");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, random_operations, 0, 16);
	tcase_add_loop_test(tc, sparse, 0, 8);
	tcase_add_loop_test(tc, threads_in_one_file, 0, 8);
	tcase_add_loop_test(tc, threads_open_and_close, 0, 2);
	tcase_add_loop_test(tc, damage_is_an_error, 0, sizeof(damages) / sizeof(*damages));
	tcase_add_loop_test(tc, swaps_are_errors, 0, 2);
	tcase_add_loop_test(tc, killed_at_any_time, 0, 4);
	tcase_add_loop_test(tc, times_stay, 0, 2);
	tcase_add_loop_test(tc, times_make_no_step_back, 0, 2);
	tcase_add_loop_test(tc, write_backs_keep_times, 0, 2);
	tcase_add_loop_test(tc, size_checked, 0, sizeof(size_rows) / sizeof(*size_rows));
	tcase_add_loop_test(tc, emptied_by_others, 0, 12);
	tcase_add_loop_test(tc, changes_reach_the_store_by_themselves, 0, 2);
	tcase_add_loop_test(tc, removed_and_unwritable, 0, 4);
	tcase_add_loop_test(tc, read_only_changes_nothing, 0, 2);
	tcase_add_loop_test(tc, longer_store_file_is_cut, 0, 2);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
