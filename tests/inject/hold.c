/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A library to preload: a process stops at its very end, so that a test can look at what it leaves in memory. SIGCONT
 * lets it go.
 */
#include "config.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In the place of the C library's, for those that end without the handlers of exit(). */
void _exit(int status)
{
	(void)raise(SIGSTOP);
	for (;;)
		(void)syscall(SYS_exit_group, status);
}

__attribute__((destructor)) static void hold(void)
{
	(void)raise(SIGSTOP);
}
