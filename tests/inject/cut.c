/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A library to preload: the process is killed (SIGKILL) before its n-th call that changes something in a volume's own
 * directory, n as CMEK_CUT says. Counted are writes, flushes, renames, removals and new files, by one thread or many.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_ulong calls;

/* The descriptor's path is, or is below, a directory of that name. */
static bool is_volume(int fd)
{
	char link[32], path[4096];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof(path) - 2);
	if (n < 0)
		return false;
	memcpy(path + n, "/", 2);
	return strstr(path, "/.cmekfs/") != NULL;
}

static void count(int fd)
{
	const char *at = getenv("CMEK_CUT");
	int err = errno;

	if (at && is_volume(fd) && atomic_fetch_add(&calls, 1) + 1 == strtoul(at, NULL, 10))
		(void)raise(SIGKILL);
	errno = err;
}

/* In the place of the C library's. */
ssize_t write(int fd, const void *data, size_t len)
{
	count(fd);
	return syscall(SYS_write, fd, data, len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t off)
{
	count(fd);
	return syscall(SYS_pwrite64, fd, data, len, off);
}

int fsync(int fd)
{
	count(fd);
	return (int)syscall(SYS_fsync, fd);
}

int renameat(int old_dir, const char *old_name, int dir, const char *name)
{
	count(dir);
	return (int)syscall(SYS_renameat2, old_dir, old_name, dir, name, 0);
}

int unlinkat(int dir, const char *name, int flags)
{
	count(dir);
	return (int)syscall(SYS_unlinkat, dir, name, flags);
}

int openat(int dir, const char *name, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	if (flags & O_CREAT) {
		va_start(args, flags);
		mode = va_arg(args, mode_t);
		va_end(args);
		count(dir);
	}
	return (int)syscall(SYS_openat, dir, name, flags, mode);
}
