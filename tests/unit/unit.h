/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_UNIT_UNIT_H
#define CMEK_TESTS_UNIT_UNIT_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"

/* What several unit tests need. Functions that a test may leave unused are static inline. */

/* A table's number of rows. */
#define UNIT_ROWS(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* Runs a suite: the exit code of main. */
static inline int unit_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Bytes of a hex literal of a table; the length of what it says. */
static inline size_t unit_hex(const char *hex, void *out, size_t max)
{
	long n = cmek_hex_decode(hex, strlen(hex), out, max);

	ck_assert_msg(n >= 0, "bad hex in a table: \"%s\"", hex);
	return (size_t)n;
}

/* A new directory under $TMPDIR; unit_rmtree() removes it and frees the path. */
static inline char *unit_tmpdir(void)
{
	const char *parent = getenv("TMPDIR");
	char *path;

	ck_assert_int_gt(asprintf(&path, "%s/cmek-unit-XXXXXX", parent ? parent : "/tmp"), 0);
	ck_assert_ptr_nonnull(mkdtemp(path));
	return path;
}

static inline int unit_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void unit_rmtree(char *path)
{
	ck_assert_int_eq(nftw(path, unit_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(path);
}

/* The wait status of a child that runs fn(arg) and exits 0, its stderr thrown away. Works with CK_FORK=no, too. */
static inline int unit_in_child(void (*fn)(void *arg), void *arg)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO);
		fn(arg);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		ck_assert_int_eq(errno, EINTR);
	return status;
}

static inline void unit_assert_aborts(void (*fn)(void *arg), void *arg)
{
	int status = unit_in_child(fn, arg);

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "it did not abort: status %#x", status);
}

#endif
