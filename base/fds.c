/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Which descriptors are for what. Knows nothing of what they are descriptors of.
 */
#include "config.h"

#include "base/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

#define RESERVE_MIN 128u
#define RESERVE_MAX 1024u

void cmek_fds_plan(struct cmek_fds *ret_fds)
{
	unsigned limit = 1024, reserve;
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0)
		limit = r.rlim_cur < INT_MAX ? (unsigned)r.rlim_cur : INT_MAX;
	reserve = limit / 8 < RESERVE_MIN ? RESERVE_MIN : limit / 8;
	if (reserve > RESERVE_MAX)
		reserve = RESERVE_MAX;
	if (reserve > limit / 2)
		reserve = limit / 2;
	ret_fds->limit = limit;
	ret_fds->user_end = (int)(limit - reserve);
	ret_fds->keep_end = (int)(limit - reserve / 2);
}

int cmek_fds_lower(int *fd, int end)
{
	int low;

	if (*fd < end)
		return 0;
	low = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
	if (low >= 0 && low < end) {
		(void)close(*fd); /* the other one is the same open file */
		*fd = low;
		return 0;
	}
	if (low >= 0)
		(void)close(low);
	return -EMFILE;
}
