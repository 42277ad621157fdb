/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files moved to a new data key: whole, in steps, between writers, and with damage in them. What was moved opens without
 * the old key.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>

#include "tests/unit/content_fixture.h"

#define BLOCK 4096u
#define GROUP (96u * BLOCK)

static const uint8_t kek_bytes[32] = { 7, 7, 7 };
static uint8_t wrapped[3][CMEK_DEK_WRAPPED_LEN]; /* by data key; [0] is not used */

static struct cmek_keyring *new_ring(void)
{
	struct cmek_secret *kek = NULL;
	struct cmek_keyring *ring = NULL;

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, kek_bytes, sizeof(kek_bytes), &kek, NULL), 0);
	ck_assert_int_eq(cmek_keyring_new(volume_uuid, &kek, &ring, NULL), 0);
	return ring;
}

/* A volume whose data key 1 is known in its wrapped form, too. */
static void start(struct volume *v, bool journal)
{
	struct cmek_keyring *ring = new_ring();

	volume_start(v, BLOCK, journal);
	ck_assert_int_eq(cmek_content_free(v->content), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped[1], NULL), 0);
	cmek_keyring_free(v->ring);
	v->ring = ring;
	/* Its journal is under another key. */
	ck_assert_int_eq(unlinkat(v->meta_fd, "journal.0", 0), journal ? 0 : -1);
	content_start(v, false);
}

/* Data key 2 is the active one from now on. */
static void rotate(struct volume *v)
{
	struct cmek_keyring *ring = new_ring();

	ck_assert_int_eq(cmek_keyring_make_dek(ring, 2, 0, CMEK_DEK_ACTIVE, wrapped[2], NULL), 0);
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_DECRYPT_ONLY, wrapped[1], NULL), 0);
	ck_assert_int_eq(cmek_keyring_adopt(v->ring, &ring, NULL), 0);
}

/* Mounts the volume anew, with data key 2 alone. */
static void forget_old(struct volume *v)
{
	ck_assert_int_eq(cmek_content_free(v->content), 0);
	cmek_keyring_free(v->ring);
	v->ring = new_ring();
	ck_assert_int_eq(cmek_keyring_add_dek(v->ring, 2, 0, CMEK_DEK_ACTIVE, wrapped[2], NULL), 0);
	content_start(v, false);
}

static void pattern(uint8_t *buf, size_t len, uint64_t off, unsigned seed)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)((off + i) * 31 + ((off + i) >> 12) * 7 + seed);
}

static void put(struct cmek_ofile *file, uint64_t off, size_t len, unsigned seed)
{
	uint8_t *buf = malloc(len);

	ck_assert_ptr_nonnull(buf);
	pattern(buf, len, off, seed);
	ck_assert_int_eq(cmek_content_write(file, buf, len, off), 0);
	free(buf);
}

static void expect(struct cmek_ofile *file, uint64_t off, size_t len, unsigned seed)
{
	uint8_t *buf = malloc(len), *want = malloc(len);

	ck_assert(buf != NULL && want != NULL);
	pattern(want, len, off, seed);
	ck_assert_int_eq(cmek_content_read(file, buf, len, off), (ssize_t)len);
	ck_assert_msg(memcmp(buf, want, len) == 0, "%zu bytes at %llu", len, (unsigned long long)off);
	free(buf);
	free(want);
}

/* To the end, in steps of max bytes. What was moved and what does not open is added up in *ret_sum. */
static void move_all(struct cmek_ofile *file, uint64_t max, struct cmek_reencrypt_step *ret_sum)
{
	struct cmek_reencrypt_step step = { .group = 0 };

	memset(ret_sum, 0, sizeof(*ret_sum));
	do {
		ck_assert_int_eq(cmek_content_reencrypt(file, max, &step), 0);
		ret_sum->moved_bytes += step.moved_bytes;
		ret_sum->moved_pages += step.moved_pages;
		ret_sum->bad += step.bad;
	} while (!step.done);
	ret_sum->dek = step.dek;
}

static const struct {
	const char *name;
	uint64_t off, len, off2, len2; /* written; len2 0: nothing */
	uint64_t moved;
} shapes[] = {
	{ "empty", 0, 0, 0, 0, 0 },
	{ "one byte", 0, 1, 0, 0, 1 },
	{ "a short tail", 0, BLOCK + 1, 0, 0, BLOCK + 1 },
	{ "a group", 0, GROUP, 0, 0, GROUP },
	{ "groups and a tail", 0, 5 * GROUP + 77, 0, 0, 5 * GROUP + 77 },
	{ "a hole inside", 0, BLOCK, 10 * BLOCK, BLOCK, 2 * BLOCK },
	{ "absent groups", 0, 100, 300 * (uint64_t)GROUP, 10, BLOCK + 10 },
};

START_TEST(shaped)
{
	size_t n = sizeof(shapes) / sizeof(*shapes), i = (size_t)_i % n;
	struct cmek_reencrypt_step sum;
	struct timespec before, after;
	struct cmek_ofile *file;
	struct volume v;

	start(&v, (size_t)_i < n);
	file = file_open(&v, 5);
	if (shapes[i].len > 0)
		put(file, shapes[i].off, shapes[i].len, 1);
	if (shapes[i].len2 > 0)
		put(file, shapes[i].off2, shapes[i].len2, 1);
	cmek_ofile_set_mtime(file, (struct timespec){ 1000, 2000 });
	/* some of it in the store, or all of it waiting */
	if (i % 2 == 0)
		ck_assert_int_eq(cmek_content_commit(file), 0);
	rotate(&v);
	ck_assert(cmek_ofile_mtime(file, &before));
	move_all(file, GROUP, &sum);
	ck_assert(cmek_ofile_mtime(file, &after));
	ck_assert_int_eq(before.tv_nsec, after.tv_nsec);
	ck_assert_int_eq(before.tv_sec, after.tv_sec);
	ck_assert_uint_eq(sum.dek, 2);
	ck_assert_uint_eq(sum.bad, 0);
	ck_assert_msg(sum.moved_bytes == shapes[i].moved, "%s: %llu", shapes[i].name, (unsigned long long)sum.moved_bytes);
	ck_assert_int_eq(cmek_content_commit(file), 0);
	move_all(file, GROUP, &sum);
	ck_assert_uint_eq(sum.moved_bytes + sum.moved_pages, 0);
	cmek_ofile_close(file);
	forget_old(&v);
	file = file_open(&v, 5);
	if (shapes[i].len > 0)
		expect(file, shapes[i].off, shapes[i].len, 1);
	if (shapes[i].len2 > 0)
		expect(file, shapes[i].off2, shapes[i].len2, 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* Both of the journal's superblocks are under this data key. */
static void check_superblocks(struct volume *v, uint8_t dek)
{
	uint8_t head[16];
	int fd = openat(v->meta_fd, "journal.0", O_RDONLY), i;

	for (i = 0; i < 2; i++) {
		ck_assert_int_eq(pread(fd, head, sizeof(head), i * 4096), (ssize_t)sizeof(head));
		ck_assert_uint_eq(head[12], dek);
	}
	close(fd);
}

/* What the store has of the file, all of it. */
static struct cmek_verify_step verify_all(struct cmek_ofile *file)
{
	struct cmek_verify_step step = { .group = 0 }, sum = { .group = 0 };

	do {
		ck_assert_int_eq(cmek_content_verify(file, &step), 0);
		sum.pages += step.pages;
		sum.blocks += step.blocks;
		sum.old += step.old;
		sum.bad += step.bad;
	} while (!step.done);
	return sum;
}

/* Told by what the store has, before, half-way and after; then nothing needs the old key any more. */
START_TEST(verified)
{
	struct cmek_reencrypt_step sum, step = { .group = 0 };
	uint64_t size = shapes[_i].len2 > 0 ? shapes[_i].off2 + shapes[_i].len2 : shapes[_i].len, seq = 0;
	struct cmek_verify_step seen, before;
	struct cmek_ofile *file;
	struct volume v;

	start(&v, true);
	file = file_open(&v, 5);
	if (shapes[_i].len > 0)
		put(file, shapes[_i].off, shapes[_i].len, 1);
	if (shapes[_i].len2 > 0)
		put(file, shapes[_i].off2, shapes[_i].len2, 1);
	/* What waits is committed first. */
	seen = verify_all(file);
	ck_assert_uint_eq(seen.old + seen.bad, 0);
	rotate(&v);
	before = verify_all(file);
	ck_assert_uint_eq(before.old, before.pages + before.blocks);
	ck_assert_uint_eq(before.pages > 0, size > 0);
	ck_assert_int_eq(cmek_content_reencrypt(file, BLOCK, &step), 0);
	ck_assert_int_eq(cmek_content_commit(file), 0);
	seen = verify_all(file);
	ck_assert(size == 0 || seen.old < before.old);
	move_all(file, UINT64_MAX, &sum);
	seen = verify_all(file);
	ck_assert_uint_eq(seen.old + seen.bad, 0);
	ck_assert_uint_eq(seen.pages, before.pages);
	ck_assert_uint_eq(seen.blocks, before.blocks);
	/* Longer, shorter, emptied and written again. */
	put(file, size, 3 * GROUP, 1);
	ck_assert_int_eq(cmek_content_truncate(file, size + GROUP), 0);
	seen = verify_all(file);
	ck_assert_uint_eq(seen.old + seen.bad, 0);
	ck_assert_int_eq(cmek_content_renew_journal(v.content, &seq), 0);
	check_superblocks(&v, 2);
	cmek_keyring_retire_dek(v.ring, 1);
	cmek_content_forget_keys(v.content);
	if (shapes[_i].len > 0)
		expect(file, shapes[_i].off, shapes[_i].len, 1);
	cmek_ofile_close(file);
	forget_old(&v);
	file = file_open(&v, 5);
	if (shapes[_i].len > 0)
		expect(file, shapes[_i].off, shapes[_i].len, 1);
	expect(file, size, GROUP, 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* Found by what the store says, not by what is in memory; a page whose blocks are all new is sealed anew, too. */
START_TEST(found_in_the_store)
{
	struct cmek_reencrypt_step sum;
	struct cmek_ofile *file;
	struct volume v;

	start(&v, true);
	file = file_open(&v, 5);
	put(file, 0, 2 * GROUP, 1);
	close_and_settle(&v, file);
	rotate(&v);
	file = file_open(&v, 5);
	put(file, 0, GROUP, 2);
	put(file, GROUP + BLOCK, BLOCK, 2);
	close_and_settle(&v, file);
	file = file_open(&v, 5);
	move_all(file, UINT64_MAX, &sum);
	ck_assert_uint_eq(sum.moved_bytes, GROUP - BLOCK);
	cmek_ofile_close(file);
	forget_old(&v);
	file = file_open(&v, 5);
	expect(file, 0, GROUP, 2);
	expect(file, GROUP, BLOCK, 1);
	expect(file, GROUP + BLOCK, BLOCK, 2);
	expect(file, GROUP + 2 * BLOCK, GROUP - 2 * BLOCK, 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* A block that does not open stays, and is counted; all else moves. So does a map page. */
START_TEST(damaged)
{
	struct cmek_reencrypt_step sum;
	struct cmek_ofile *file;
	uint8_t byte, other;
	struct volume v;
	char path[128];
	int fd;

	start(&v, true);
	file = file_open(&v, 5);
	put(file, 0, 3 * GROUP, 1);
	close_and_settle(&v, file);
	snprintf(path, sizeof(path), "%s/5", v.dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &byte, 1, 4096 + 2 * BLOCK + 9), 1);
	other = byte ^ 1;
	ck_assert_int_eq(pwrite(fd, &other, 1, 4096 + 2 * BLOCK + 9), 1);
	ck_assert_int_eq(pwrite(fd, "no map page", 11, 2 * (4096 + GROUP)), 11);
	rotate(&v);
	file = file_open(&v, 5);
	move_all(file, UINT64_MAX, &sum);
	ck_assert_uint_eq(sum.bad, 2);
	ck_assert_uint_eq(sum.moved_bytes, 2 * GROUP - BLOCK);
	/* It is as good as before under its key. */
	ck_assert_int_eq(pwrite(fd, &byte, 1, 4096 + 2 * BLOCK + 9), 1);
	expect(file, 0, 2 * GROUP, 1);
	close(fd);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* Put back into the store when its key was retired: it is told, and does not stop the whole. */
START_TEST(retired)
{
	struct cmek_reencrypt_step sum;
	struct cmek_ofile *file;
	struct volume v;

	start(&v, true);
	file = file_open(&v, 5);
	put(file, 0, 3 * GROUP, 1);
	close_and_settle(&v, file);
	rotate(&v);
	cmek_keyring_retire_dek(v.ring, 1);
	file = file_open(&v, 5);
	move_all(file, UINT64_MAX, &sum);
	ck_assert_uint_eq(sum.bad, 1);
	ck_assert_uint_eq(sum.moved_bytes, 0);
	ck_assert_uint_eq(verify_all(file).bad, 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* Who can open a file without a name again (by a descriptor that is none for reading) finds all of it. */
START_TEST(nameless)
{
	struct cmek_reencrypt_step sum;
	struct cmek_verify_step seen;
	struct cmek_ofile *file;
	struct volume v;
	char path[128];

	start(&v, _i);
	file = file_open(&v, 5);
	put(file, 0, GROUP, 1);
	ck_assert_int_eq(cmek_content_commit(file), 0);
	put(file, 0, BLOCK, 2);
	snprintf(path, sizeof(path), "%s/5", v.dir);
	ck_assert_int_eq(unlink(path), 0);
	rotate(&v);
	move_all(file, UINT64_MAX, &sum);
	ck_assert_uint_eq(sum.moved_bytes, GROUP);
	seen = verify_all(file);
	ck_assert_uint_eq(seen.old + seen.bad, 0);
	ck_assert_uint_eq(seen.blocks, GROUP / BLOCK);
	cmek_keyring_retire_dek(v.ring, 1);
	cmek_content_forget_keys(v.content);
	expect(file, 0, BLOCK, 2);
	expect(file, BLOCK, GROUP - BLOCK, 1);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

struct writers {
	struct cmek_ofile *file;
	atomic_bool enough;
	unsigned rounds[2];
};

static void *write_on(void *arg)
{
	struct writers *w = arg;
	unsigned i;

	/* Each round is one value over the whole of a range; the last one that was finished is what must be there. */
	for (i = 0; i < 3 || !atomic_load(&w->enough); i++) {
		put(w->file, GROUP - 3 * BLOCK - 5, 6 * BLOCK, i);
		put(w->file, 3 * GROUP + 10, 100, i);
		if (i % 8 == 0)
			ck_assert_int_eq(cmek_content_sync(w->file, true), 0);
		w->rounds[0] = i;
	}
	return NULL;
}

START_TEST(beside_writers)
{
	struct cmek_reencrypt_step sum;
	struct writers w = { .file = NULL };
	pthread_t thread;
	struct volume v;
	int i;

	start(&v, true);
	w.file = file_open(&v, 5);
	put(w.file, 0, 4 * GROUP, 1);
	ck_assert_int_eq(pthread_create(&thread, NULL, write_on, &w), 0);
	usleep(1000);
	rotate(&v);
	for (i = 0; i < 3; i++)
		move_all(w.file, 5 * BLOCK, &sum);
	ck_assert_uint_eq(sum.moved_bytes, 0);
	atomic_store(&w.enough, true);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	cmek_ofile_close(w.file);
	forget_old(&v);
	w.file = file_open(&v, 5);
	expect(w.file, 0, GROUP - 3 * BLOCK - 5, 1);
	expect(w.file, GROUP - 3 * BLOCK - 5, 6 * BLOCK, w.rounds[0]);
	expect(w.file, GROUP + 3 * BLOCK - 5, 2 * GROUP - 3 * BLOCK + 15, 1);
	expect(w.file, 3 * GROUP + 10, 100, w.rounds[0]);
	cmek_ofile_close(w.file);
	volume_stop(&v);
}
END_TEST

/* What may only be read is told, unless there is nothing to do. */
START_TEST(refused)
{
	struct cmek_reencrypt_step step = { .group = 0 };
	struct cmek_ofile *file;
	struct volume v;

	start(&v, true);
	file = file_open(&v, 5);
	put(file, 0, BLOCK, 1);
	close_and_settle(&v, file);
	file = file_open(&v, 6);
	close_and_settle(&v, file);
	rotate(&v);
	/* As root, too, a descriptor for reading is one. */
	ck_assert_int_eq(cmek_content_free(v.content), 0);
	content_start(&v, true);
	ck_assert_int_eq(cmek_ofile_open(v.content, 5, -1, false, &file), 0);
	ck_assert_int_eq(cmek_content_reencrypt(file, GROUP, &step), -EROFS);
	expect(file, 0, BLOCK, 1);
	cmek_ofile_close(file);
	ck_assert_int_eq(cmek_ofile_open(v.content, 6, -1, false, &file), 0);
	step.group = 0;
	ck_assert_int_eq(cmek_content_reencrypt(file, GROUP, &step), 0);
	ck_assert(step.done);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("reencrypt");
	TCase *tc = tcase_create("reencrypt");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, shaped, 0, 2 * (int)(sizeof(shapes) / sizeof(*shapes)));
	tcase_add_loop_test(tc, verified, 0, (int)(sizeof(shapes) / sizeof(*shapes)));
	tcase_add_test(tc, found_in_the_store);
	tcase_add_test(tc, damaged);
	tcase_add_test(tc, retired);
	tcase_add_loop_test(tc, nameless, 0, 2);
	tcase_add_test(tc, beside_writers);
	tcase_add_test(tc, refused);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
