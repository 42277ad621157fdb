/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Directory ids: the vectors and forms of doc/format.md section 4.1, and threads that make one at once. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/dir_id.h"
#include "tests/unit/unit.h"
#include "tests/unit/vectors.h"

static char *path;
static int fd;

static void setup(void)
{
	path = unit_tmpdir();
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
}

static void teardown(void)
{
	close(fd);
	unit_rmtree(path);
}

START_TEST(vectors)
{
	uint8_t *bytes = vector_get("dir_id", NULL);
	struct cmek_dir_id id = { .dek = 1 }, back;
	char text[CMEK_DIR_ID_TEXT];

	memcpy(id.id, bytes, sizeof id.id);
	cmek_dir_id_format(&id, text);
	vector_check("dir_link", text, strlen(text));
	ck_assert_int_eq(cmek_dir_id_parse(text, strlen(text), &back), 0);
	ck_assert_int_eq(memcmp(&id, &back, sizeof id), 0);
	id.dek = 2;
	id.old_dek = 1;
	cmek_dir_id_format(&id, text);
	vector_check("dir_link_moving", text, strlen(text));
	ck_assert_int_eq(cmek_dir_id_parse(text, strlen(text), &back), 0);
	ck_assert_int_eq(memcmp(&id, &back, sizeof id), 0);
	free(bytes);
}
END_TEST

#define ID "4OHi4-Tl5ufo6err7O3u7w"

static const char *const bad_texts[] = {
	"",
	"v",
	"v1:0001:",
	"v1:0001:" ID "A",
	"v1:0001:4OHi4-Tl5ufo6err7O3u7",
	"v2:0001:" ID,
	"v1:000A:" ID,
	"v1:00fF:" ID,
	"v1:0000:" ID,
	"v1: 001:" ID,
	"v1:0001;" ID,
	"v1:0001:" ID "\n",
	"v1:0001:4OHi4-Tl5ufo6err7O3u7x", /* left-over bits */
	"v1:0001:4OHi4+Tl5ufo6err7O3u7w",
	"v1:0002,0002:" ID,
	"v1:0002,0000:" ID,
	"v1:0002:0001:" ID,
	"v1:0002,0001," ID,
};

START_TEST(bad_text)
{
	struct cmek_dir_id id;

	ck_assert_int_eq(cmek_dir_id_parse(bad_texts[_i], strlen(bad_texts[_i]), &id), -EBADMSG);
	if (bad_texts[_i][0]) {
		ck_assert_int_eq(symlinkat(bad_texts[_i], fd, CMEK_DIR_ID_NAME), 0);
		ck_assert_int_eq(cmek_dir_id_read(fd, &id), -EBADMSG);
	}
}
END_TEST

START_TEST(life)
{
	struct cmek_dir_id id, other;
	bool made;

	ck_assert_int_eq(cmek_dir_id_read(fd, &id), -ENOENT);
	ck_assert_int_eq(cmek_dir_id_make(fd, 0xbeef, &id, &made), 0);
	ck_assert(made);
	ck_assert_uint_eq(id.dek, 0xbeef);
	ck_assert_uint_eq(id.old_dek, 0);
	ck_assert_int_eq(cmek_dir_id_read(fd, &other), 0);
	ck_assert_int_eq(memcmp(&id, &other, sizeof id), 0);
	ck_assert_int_eq(cmek_dir_id_make(fd, 1, &other, &made), 0);
	ck_assert(!made);
	ck_assert_int_eq(memcmp(&id, &other, sizeof id), 0);
	ck_assert_int_eq(cmek_dir_id_remove(fd), 0);
	ck_assert_int_eq(cmek_dir_id_remove(fd), 0);
	ck_assert_int_eq(cmek_dir_id_read(fd, &other), -ENOENT);
	ck_assert_int_eq(cmek_dir_id_restore(fd, &id), 0);
	ck_assert_int_eq(cmek_dir_id_read(fd, &other), 0);
	ck_assert_int_eq(memcmp(&id, &other, sizeof id), 0);
	ck_assert_int_eq(cmek_dir_id_restore(fd, &id), -EEXIST);
}
END_TEST

/* What is in the symlink's place is not followed and not read. */
START_TEST(wrong_type)
{
	struct cmek_dir_id id;
	bool made;

	if (_i == 0)
		ck_assert_int_eq(close(openat(fd, CMEK_DIR_ID_NAME, O_CREAT | O_WRONLY, 0600)), 0);
	else if (_i == 1)
		ck_assert_int_eq(mkdirat(fd, CMEK_DIR_ID_NAME, 0700), 0);
	else
		ck_assert_int_eq(symlinkat("/etc/passwd", fd, CMEK_DIR_ID_NAME), 0);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), -EBADMSG);
	ck_assert_int_eq(cmek_dir_id_make(fd, 1, &id, &made), -EBADMSG);
}
END_TEST

#define THREADS 4
#define ROUNDS 200

struct racer {
	pthread_barrier_t *barrier;
	struct cmek_dir_id ids[ROUNDS];
	unsigned n_made;
};

static void *race(void *arg)
{
	struct racer *racer = arg;
	char name[16];
	int i;

	for (i = 0; i < ROUNDS; i++) {
		bool made = false;
		int dir;

		snprintf(name, sizeof name, "%d", i);
		dir = openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		pthread_barrier_wait(racer->barrier);
		if (cmek_dir_id_make(dir, 1, &racer->ids[i], &made))
			return racer;
		racer->n_made += made;
		close(dir);
	}
	return NULL;
}

START_TEST(threads_agree)
{
	static struct racer racers[THREADS];
	pthread_barrier_t barrier;
	pthread_t threads[THREADS];
	unsigned n_made = 0;
	void *failed;
	char name[16];
	int i, k;

	for (i = 0; i < ROUNDS; i++) {
		snprintf(name, sizeof name, "%d", i);
		ck_assert_int_eq(mkdirat(fd, name, 0700), 0);
	}
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (i = 0; i < THREADS; i++) {
		racers[i].barrier = &barrier;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
		ck_assert_ptr_null(failed);
		n_made += racers[i].n_made;
	}
	ck_assert_uint_eq(n_made, ROUNDS);
	for (i = 1; i < THREADS; i++) {
		for (k = 0; k < ROUNDS; k++)
			ck_assert_int_eq(memcmp(&racers[0].ids[k], &racers[i].ids[k], sizeof racers[0].ids[k]), 0);
	}
	pthread_barrier_destroy(&barrier);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dir_id");
	TCase *tcase = tcase_create("dir_id");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, vectors);
	tcase_add_loop_test(tcase, bad_text, 0, UNIT_ROWS(bad_texts));
	tcase_add_test(tcase, life);
	tcase_add_loop_test(tcase, wrong_type, 0, 3);
	tcase_add_test(tcase, threads_agree);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
