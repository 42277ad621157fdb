/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_FDS_H
#define CMEK_BASE_FDS_H

/*
 * The descriptors of this process, by number. The kernel gives out the lowest one that is free, so a descriptor has a high
 * number only while all below it are taken: whoever has to leave some to others need not count, but look at the number.
 */
struct cmek_fds {
	unsigned limit; /* that this process may have (RLIMIT_NOFILE) */
	int user_end;   /* what others keep open for as long as they like has a number below this */
	int keep_end;   /* what is kept at all has one below this; the rest is for what ends with a request */
};
/* As the limit is now. */
void cmek_fds_plan(struct cmek_fds *ret_fds);

/* Moves *fd to the lowest number there is, if it is not below `end`. 0, or -EMFILE: *fd stays as it was. */
int cmek_fds_lower(int *fd, int end);

#endif
