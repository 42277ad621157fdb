/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/fds.h: how many descriptors are left to whom, and that one moves down as soon as there is room below.
 */
#include "config.h"

#include <sys/resource.h>

#include "base/fds.h"
#include "tests/unit/unit.h"

static const struct {
	rlim_t limit;
	int user_end, keep_end;
} plans[] = {
	{ 64, 32, 48 }, { 256, 128, 192 }, { 1024, 896, 960 }, { 4096, 3584, 3840 }, { 20000, 18976, 19488 },
};

START_TEST(plan)
{
	struct rlimit limit;
	struct cmek_fds fds;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (plans[_i].limit > limit.rlim_max)
		return;
	limit.rlim_cur = plans[_i].limit;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cmek_fds_plan(&fds);
	ck_assert_uint_eq(fds.limit, plans[_i].limit);
	ck_assert_int_eq(fds.user_end, plans[_i].user_end);
	ck_assert_int_eq(fds.keep_end, plans[_i].keep_end);
}
END_TEST

START_TEST(lower)
{
	int low = open("/dev/null", O_RDONLY | O_CLOEXEC), fd, was;

	ck_assert_int_ge(low, 0);
	fd = was = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	ck_assert_int_gt(fd, low);
	ck_assert_int_eq(cmek_fds_lower(&fd, fd + 1), 0);
	ck_assert_int_eq(fd, was);
	ck_assert_int_eq(cmek_fds_lower(&fd, low + 1), -EMFILE);
	ck_assert_int_eq(fd, was);
	close(low);
	ck_assert_int_eq(cmek_fds_lower(&fd, low + 1), 0);
	ck_assert_int_eq(fd, low);
	ck_assert_int_eq(fcntl(was, F_GETFD), -1);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fds");
	TCase *tc = tcase_create("fds");

	tcase_add_test(tc, lower);
	tcase_add_loop_test(tc, plan, 0, UNIT_ROWS(plans));
	suite_add_tcase(s, tc);
	return unit_run(s);
}
