/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/log.h: threshold, form of a line, the rate limit, and that no text can forge a second line.
 */
#include "config.h"

#include <pthread.h>

#include "base/log.h"
#include "tests/unit/unit.h"

static int saved_stderr, file_fd;

/* stderr goes to a file of the test. */
static void set_up(void)
{
	char path[] = "/tmp/cmek-log-XXXXXX";

	file_fd = mkstemp(path);
	ck_assert_int_ge(file_fd, 0);
	unlink(path);
	saved_stderr = dup(STDERR_FILENO);
	ck_assert_int_ge(dup2(file_fd, STDERR_FILENO), 0);
}

static void tear_down(void)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(file_fd);
}

/* What was written since the last call, as a string. */
static const char *written(void)
{
	static char buf[1u << 20];
	ssize_t n = pread(file_fd, buf, sizeof(buf) - 1, 0);

	ck_assert_int_ge(n, 0);
	buf[n] = '\0';
	ck_assert_int_eq(ftruncate(file_fd, 0), 0);
	lseek(file_fd, 0, SEEK_SET);
	return buf;
}

static int count(const char *text, const char *what)
{
	int n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

START_TEST(lines)
{
	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	cmek_log(CMEK_LOG_NOTICE, "block %d of inode %u", 3, 5u);
	ck_assert_str_eq(written(), "prog: block 3 of inode 5\n");
	cmek_log(CMEK_LOG_INFO, "not this");
	ck_assert_str_eq(written(), "");
	cmek_log_to_stderr("other", CMEK_LOG_DEBUG);
	cmek_log(CMEK_LOG_DEBUG, "this");
	ck_assert_str_eq(written(), "other: this\n");
	cmek_log_to_stderr("other", CMEK_LOG_ERROR);
	cmek_log(CMEK_LOG_WARNING, "not this");
	cmek_log(CMEK_LOG_ERROR, "this");
	ck_assert_str_eq(written(), "other: this\n");
}
END_TEST

START_TEST(relay)
{
	cmek_log_to_relay(CMEK_LOG_NOTICE);
	cmek_log(CMEK_LOG_ERROR, "block %d\n<7>", 3);
	ck_assert_str_eq(written(), "<3>block 3?<7>\n");
	cmek_log(CMEK_LOG_NOTICE, "this");
	cmek_log(CMEK_LOG_DEBUG, "not this");
	ck_assert_str_eq(written(), "<5>this\n");
}
END_TEST

START_TEST(control_characters)
{
	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	cmek_log(CMEK_LOG_NOTICE, "a\nb\x1b[2J\x7f\tc\xc3\xa9");
	ck_assert_str_eq(written(), "prog: a?b?[2J??c\xc3\xa9\n");
}
END_TEST

START_TEST(long_line)
{
	const char *text;
	char x[5000];

	memset(x, 'x', sizeof(x) - 1);
	x[sizeof(x) - 1] = '\0';
	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	cmek_log(CMEK_LOG_NOTICE, "%s", x);
	text = written();
	ck_assert_int_eq(count(text, "\n"), 1);
	ck_assert_int_eq(text[strlen(text) - 1], '\n');
	cmek_log_to_stderr(x, CMEK_LOG_NOTICE);
	cmek_log(CMEK_LOG_NOTICE, "y");
	text = written();
	ck_assert_ptr_nonnull(strstr(text, "xxx: y\n"));
}
END_TEST

START_TEST(keeps_errno)
{
	struct cmek_log_limit limit = { 0 };

	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	errno = ENOSPC;
	cmek_log(CMEK_LOG_NOTICE, "%m");
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_str_eq(written(), "prog: No space left on device\n");
	errno = EDQUOT;
	cmek_log_limited(&limit, CMEK_LOG_NOTICE, "%m");
	ck_assert_int_eq(errno, EDQUOT);
	ck_assert_str_eq(written(), "prog: Disk quota exceeded\n");
}
END_TEST

START_TEST(relayed)
{
	struct cmek_log_limit limit = { 0, 0, 5 };

	cmek_log_to_relay(CMEK_LOG_INFO);
	cmek_log(CMEK_LOG_ERROR, "block %d\n<0>forged", 3);
	cmek_log(CMEK_LOG_DEBUG, "not this");
	cmek_log_limited(&limit, CMEK_LOG_INFO, "line");
	ck_assert_str_eq(written(), "<3>block 3?<0>forged\n<6>line (5 more like this not shown)\n");
	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	cmek_log(CMEK_LOG_NOTICE, "back");
	ck_assert_str_eq(written(), "prog: back\n");
}
END_TEST

START_TEST(limited)
{
	struct cmek_log_limit limit = { 0 };
	const char *text;
	char want[64];
	int i, passed, dropped;

	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	for (i = 0; i < 1000; i++)
		cmek_log_limited(&limit, CMEK_LOG_NOTICE, "line");
	/* The second may have turned meanwhile, once. */
	text = written();
	passed = count(text, "prog: line");
	ck_assert(passed == 10 || passed == 20);
	dropped = (int)limit.dropped;
	ck_assert_int_gt(dropped, 0);
	limit.second--; /* the next second */
	cmek_log_limited(&limit, CMEK_LOG_NOTICE, "next");
	snprintf(want, sizeof(want), "prog: next (%d more like this not shown)\n", dropped);
	ck_assert_str_eq(written(), want);
	cmek_log_limited(&limit, CMEK_LOG_NOTICE, "after");
	ck_assert_str_eq(written(), "prog: after\n");
	/* What the threshold drops is not counted. */
	cmek_log_limited(&limit, CMEK_LOG_DEBUG, "quiet");
	ck_assert_uint_eq(limit.dropped, 0);
	ck_assert_str_eq(written(), "");
}
END_TEST

static void *log_much(void *arg)
{
	int i;

	for (i = 0; i < 500; i++) {
		cmek_log(CMEK_LOG_NOTICE, "a line of some length, all of it or nothing");
		cmek_log_limited(arg, CMEK_LOG_NOTICE, "limited");
	}
	return NULL;
}

START_TEST(threads)
{
	struct cmek_log_limit limit = { 0 };
	pthread_t thread[4];
	const char *text;
	int i;

	cmek_log_to_stderr("prog", CMEK_LOG_NOTICE);
	ck_assert_int_eq(fcntl(STDERR_FILENO, F_SETFL, O_APPEND), 0);
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, log_much, &limit), 0);
	for (i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	text = written();
	ck_assert_int_eq(count(text, "prog: a line of some length, all of it or nothing\n"), 2000);
	ck_assert_int_eq(count(text, "\n") - 2000, count(text, "prog: limited"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");
	TCase *tc = tcase_create("log");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, lines);
	tcase_add_test(tc, relay);
	tcase_add_test(tc, control_characters);
	tcase_add_test(tc, long_line);
	tcase_add_test(tc, keeps_errno);
	tcase_add_test(tc, relayed);
	tcase_add_test(tc, limited);
	tcase_add_test(tc, threads);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
