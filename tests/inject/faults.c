/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A library to preload: makes chosen system calls on the store fail, as a disk or a full file system would. It stands in
 * for the C library's functions and knows of the program only which device its store is on.
 */
#include "config.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/inject/faults.h"

static struct faults *faults;

__attribute__((constructor)) static void attach(void)
{
	const char *path = getenv("CMEK_FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd >= 0 ? mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (p == MAP_FAILED) {
		fprintf(stderr, "faults: no CMEK_FAULTS: %s\n", path ? path : "not set");
		_exit(1);
	}
	(void)close(fd);
	faults = p;
}

/* The C library's own. */
static void *real(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (f == NULL)
		abort();
	return f;
}

static bool on_store(int dirfd, const char *path)
{
	struct statx st;
	int fd = dirfd;

	if (path && path[0] == '/' && sscanf(path, "/proc/self/fd/%d", &fd) != 1)
		return false;
	/* The raw call, for this library has its own statx(). */
	if (fd < 0 || syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0, &st) != 0)
		return false;
	return makedev(st.stx_dev_major, st.stx_dev_minor) == faults->dev;
}

/* Whether this call is to fail: then errno is set. */
static bool fails(int dirfd, const char *path, enum fault_kind kind, const char *what)
{
	int saved = errno;
	uint64_t n;

	if (!faults || !faults->armed || !(faults->kinds & kind) || !on_store(dirfd, path)) {
		errno = saved;
		return false;
	}
	n = ++faults->calls;
	errno = saved;
	if (n < faults->fail_at || n - faults->fail_at >= faults->fail_count)
		return false;
	faults->failed++;
	(void)snprintf(faults->what, sizeof(faults->what), "%s", what);
	errno = (int)faults->error;
	return true;
}

/* ---- data ---- */

ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
	ssize_t (*next)(int, void *, size_t, off_t) = real("pread64");

	return fails(fd, NULL, FAULT_READ, "pread") ? -1 : next(fd, buf, n, off);
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t (*next)(int, const struct iovec *, int, off_t) = real("preadv64");

	return fails(fd, NULL, FAULT_READ, "preadv") ? -1 : next(fd, iov, n, off);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
	ssize_t (*next)(int, const void *, size_t, off_t) = real("pwrite64");
	int saved;

	if (!fails(fd, NULL, FAULT_WRITE, "pwrite"))
		return next(fd, buf, n, off);
	saved = errno;
	if (faults->half)
		(void)!next(fd, buf, n / 2, off);
	errno = saved;
	return -1;
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t (*next)(int, const struct iovec *, int, off_t) = real("pwritev64");
	int saved;

	if (!fails(fd, NULL, FAULT_WRITE, "pwritev"))
		return next(fd, iov, n, off);
	saved = errno;
	if (faults->half && n > 1)
		(void)!next(fd, iov, n / 2, off);
	errno = saved;
	return -1;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	ssize_t (*next)(int, const void *, size_t) = real("write");

	return fails(fd, NULL, FAULT_WRITE, "write") ? -1 : next(fd, buf, n);
}

int ftruncate(int fd, off_t size)
{
	int (*next)(int, off_t) = real("ftruncate64");

	return fails(fd, NULL, FAULT_MAKE, "ftruncate") ? -1 : next(fd, size);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	int (*next)(int, int, off_t, off_t) = real("fallocate64");

	return fails(fd, NULL, FAULT_MAKE, "fallocate") ? -1 : next(fd, mode, off, len);
}

int fsync(int fd)
{
	int (*next)(int) = real("fsync");

	return fails(fd, NULL, FAULT_FLUSH, "fsync") ? -1 : next(fd);
}

int fdatasync(int fd)
{
	int (*next)(int) = real("fdatasync");

	return fails(fd, NULL, FAULT_FLUSH, "fdatasync") ? -1 : next(fd);
}

int syncfs(int fd)
{
	int (*next)(int) = real("syncfs");

	return fails(fd, NULL, FAULT_FLUSH, "syncfs") ? -1 : next(fd);
}

/* ---- opening and looking ---- */

static mode_t mode_of(int flags, va_list *args)
{
	return flags & O_CREAT ? va_arg(*args, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	int (*next)(const char *, int, ...) = real("open64");
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, &args);
	va_end(args);
	return fails(AT_FDCWD, path, FAULT_READ, "open") ? -1 : next(path, flags, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
	int (*next)(int, const char *, int, ...) = real("openat64");
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, &args);
	va_end(args);
	if (fails(dirfd, path, flags & O_CREAT ? FAULT_MAKE : FAULT_READ, "openat"))
		return -1;
	return next(dirfd, path, flags, mode);
}

/* What the two become with _FORTIFY_SOURCE where no mode is given. */
int __open_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);

int __open_2(const char *path, int flags)
{
	return open(path, flags);
}

int __openat_2(int dirfd, const char *path, int flags)
{
	return openat(dirfd, path, flags);
}

int open_by_handle_at(int mount_fd, struct file_handle *handle, int flags)
{
	int (*next)(int, struct file_handle *, int) = real("open_by_handle_at");

	return fails(mount_fd, NULL, FAULT_READ, "open_by_handle_at") ? -1 : next(mount_fd, handle, flags);
}

int name_to_handle_at(int dirfd, const char *path, struct file_handle *handle, int *mount_id, int flags)
{
	int (*next)(int, const char *, struct file_handle *, int *, int) = real("name_to_handle_at");

	return fails(dirfd, path, FAULT_READ, "name_to_handle_at") ? -1 : next(dirfd, path, handle, mount_id, flags);
}

int fstat(int fd, struct stat *st)
{
	int (*next)(int, struct stat *) = real("fstat64");

	return fails(fd, NULL, FAULT_READ, "fstat") ? -1 : next(fd, st);
}

int fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
	int (*next)(int, const char *, struct stat *, int) = real("fstatat64");

	return fails(dirfd, path, FAULT_READ, "fstatat") ? -1 : next(dirfd, path, st, flags);
}

int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *st)
{
	int (*next)(int, const char *, int, unsigned, struct statx *) = real("statx");

	return fails(dirfd, path, FAULT_READ, "statx") ? -1 : next(dirfd, path, flags, mask, st);
}

int fstatvfs(int fd, struct statvfs *st)
{
	int (*next)(int, struct statvfs *) = real("fstatvfs64");

	return fails(fd, NULL, FAULT_READ, "fstatvfs") ? -1 : next(fd, st);
}

int fstatfs(int fd, struct statfs *st)
{
	int (*next)(int, struct statfs *) = real("fstatfs64");

	return fails(fd, NULL, FAULT_READ, "fstatfs") ? -1 : next(fd, st);
}

off_t lseek(int fd, off_t off, int whence)
{
	off_t (*next)(int, off_t, int) = real("lseek64");

	return fails(fd, NULL, FAULT_READ, "lseek") ? -1 : next(fd, off, whence);
}

ssize_t readlinkat(int dirfd, const char *path, char *buf, size_t size)
{
	ssize_t (*next)(int, const char *, char *, size_t) = real("readlinkat");

	return fails(dirfd, path, FAULT_READ, "readlinkat") ? -1 : next(dirfd, path, buf, size);
}

ssize_t getdents64(int fd, void *buf, size_t size)
{
	ssize_t (*next)(int, void *, size_t) = real("getdents64");

	return fails(fd, NULL, FAULT_READ, "getdents64") ? -1 : next(fd, buf, size);
}

struct dirent64 *readdir64(DIR *dir)
{
	struct dirent64 *(*next)(DIR *) = real("readdir64");

	return fails(dirfd(dir), NULL, FAULT_READ, "readdir64") ? NULL : next(dir);
}

struct dirent *readdir(DIR *dir)
{
	struct dirent *(*next)(DIR *) = real("readdir");

	return fails(dirfd(dir), NULL, FAULT_READ, "readdir") ? NULL : next(dir);
}

/* ---- names and attributes ---- */

int mkdirat(int dirfd, const char *path, mode_t mode)
{
	int (*next)(int, const char *, mode_t) = real("mkdirat");

	return fails(dirfd, path, FAULT_MAKE, "mkdirat") ? -1 : next(dirfd, path, mode);
}

int mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)
{
	int (*next)(int, const char *, mode_t, dev_t) = real("mknodat");

	return fails(dirfd, path, FAULT_MAKE, "mknodat") ? -1 : next(dirfd, path, mode, dev);
}

int symlinkat(const char *text, int dirfd, const char *path)
{
	int (*next)(const char *, int, const char *) = real("symlinkat");

	return fails(dirfd, path, FAULT_MAKE, "symlinkat") ? -1 : next(text, dirfd, path);
}

int linkat(int dirfd, const char *path, int new_dirfd, const char *new_path, int flags)
{
	int (*next)(int, const char *, int, const char *, int) = real("linkat");

	return fails(new_dirfd, new_path, FAULT_MAKE, "linkat") ? -1 : next(dirfd, path, new_dirfd, new_path, flags);
}

int renameat(int dirfd, const char *path, int new_dirfd, const char *new_path)
{
	int (*next)(int, const char *, int, const char *) = real("renameat");

	return fails(dirfd, path, FAULT_MAKE, "renameat") ? -1 : next(dirfd, path, new_dirfd, new_path);
}

int renameat2(int dirfd, const char *path, int new_dirfd, const char *new_path, unsigned flags)
{
	int (*next)(int, const char *, int, const char *, unsigned) = real("renameat2");

	return fails(dirfd, path, FAULT_MAKE, "renameat2") ? -1 : next(dirfd, path, new_dirfd, new_path, flags);
}

int unlinkat(int dirfd, const char *path, int flags)
{
	int (*next)(int, const char *, int) = real("unlinkat");

	return fails(dirfd, path, FAULT_CHANGE, "unlinkat") ? -1 : next(dirfd, path, flags);
}

int fchmod(int fd, mode_t mode)
{
	int (*next)(int, mode_t) = real("fchmod");

	return fails(fd, NULL, FAULT_CHANGE, "fchmod") ? -1 : next(fd, mode);
}

int fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
	int (*next)(int, const char *, mode_t, int) = real("fchmodat");

	return fails(dirfd, path, FAULT_CHANGE, "fchmodat") ? -1 : next(dirfd, path, mode, flags);
}

int fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
	int (*next)(int, const char *, uid_t, gid_t, int) = real("fchownat");

	return fails(dirfd, path, FAULT_CHANGE, "fchownat") ? -1 : next(dirfd, path, uid, gid, flags);
}

int futimens(int fd, const struct timespec ts[2])
{
	int (*next)(int, const struct timespec *) = real("futimens");

	return fails(fd, NULL, FAULT_CHANGE, "futimens") ? -1 : next(fd, ts);
}

int utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags)
{
	int (*next)(int, const char *, const struct timespec *, int) = real("utimensat");

	return fails(dirfd, path, FAULT_CHANGE, "utimensat") ? -1 : next(dirfd, path, ts, flags);
}

ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
	ssize_t (*next)(const char *, const char *, void *, size_t) = real("getxattr");

	return fails(AT_FDCWD, path, FAULT_READ, "getxattr") ? -1 : next(path, name, value, size);
}

ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
	ssize_t (*next)(int, const char *, void *, size_t) = real("fgetxattr");

	return fails(fd, NULL, FAULT_READ, "fgetxattr") ? -1 : next(fd, name, value, size);
}

ssize_t listxattr(const char *path, char *list, size_t size)
{
	ssize_t (*next)(const char *, char *, size_t) = real("listxattr");

	return fails(AT_FDCWD, path, FAULT_READ, "listxattr") ? -1 : next(path, list, size);
}

int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	int (*next)(const char *, const char *, const void *, size_t, int) = real("setxattr");

	return fails(AT_FDCWD, path, FAULT_MAKE, "setxattr") ? -1 : next(path, name, value, size, flags);
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	int (*next)(int, const char *, const void *, size_t, int) = real("fsetxattr");

	return fails(fd, NULL, FAULT_MAKE, "fsetxattr") ? -1 : next(fd, name, value, size, flags);
}

int removexattr(const char *path, const char *name)
{
	int (*next)(const char *, const char *) = real("removexattr");

	return fails(AT_FDCWD, path, FAULT_CHANGE, "removexattr") ? -1 : next(path, name);
}
