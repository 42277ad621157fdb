/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Every system call on the store, with the flags that keep us inside it: relative to a descriptor, symlinks never
 * followed. Knows nothing of plain names, nodes or keys.
 */
#include "config.h"

#include "fs/tree/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PROC_FD_MAX 40

static int ret_errno(int r)
{
	return r < 0 ? -errno : r;
}

static void proc_path(int fd, char path[PROC_FD_MAX])
{
	snprintf(path, PROC_FD_MAX, "/proc/self/fd/%d", fd);
}

bool cmek_handle_equal(const struct cmek_handle *a, const struct cmek_handle *b)
{
	return a->len == b->len && (a->len == 0 || (a->type == b->type && memcmp(a->bytes, b->bytes, a->len) == 0));
}

static struct timespec from_statx_time(struct statx_timestamp t)
{
	struct timespec ts = { .tv_sec = t.tv_sec, .tv_nsec = t.tv_nsec };

	return ts;
}

static int stat_fields(int dirfd, const char *name, unsigned mask, struct cmek_store_stat *ret_stat)
{
	struct statx x;
	struct stat *st = &ret_stat->st;

#ifdef STATX_MNT_ID
	mask |= STATX_MNT_ID;
#endif
	if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH), mask, &x))
		return -errno;
	memset(ret_stat, 0, sizeof *ret_stat);
	st->st_dev = makedev(x.stx_dev_major, x.stx_dev_minor);
	st->st_ino = x.stx_ino;
	st->st_mode = x.stx_mode;
	st->st_nlink = x.stx_nlink;
	st->st_uid = x.stx_uid;
	st->st_gid = x.stx_gid;
	st->st_rdev = makedev(x.stx_rdev_major, x.stx_rdev_minor);
	st->st_size = (off_t)x.stx_size;
	st->st_blksize = (blksize_t)x.stx_blksize;
	st->st_blocks = (blkcnt_t)x.stx_blocks;
	st->st_atim = from_statx_time(x.stx_atime);
	st->st_mtim = from_statx_time(x.stx_mtime);
	st->st_ctim = from_statx_time(x.stx_ctime);
#ifdef STATX_MNT_ID
	ret_stat->has_mount_id = (x.stx_mask & STATX_MNT_ID) != 0;
	ret_stat->mount_id = x.stx_mnt_id;
#endif
	return 0;
}

int cmek_store_stat(int dirfd, const char *name, struct cmek_store_stat *ret_stat)
{
	return stat_fields(dirfd, name, STATX_BASIC_STATS, ret_stat);
}

int cmek_store_stat_timeless(int dirfd, const char *name, struct cmek_store_stat *ret_stat)
{
	const unsigned times = STATX_ATIME | STATX_MTIME | STATX_CTIME;

	return stat_fields(dirfd, name, STATX_BASIC_STATS & ~times, ret_stat);
}

int cmek_store_handle(int dirfd, const char *name, struct cmek_handle *ret_handle)
{
	union {
		struct file_handle handle;
		char space[sizeof(struct file_handle) + CMEK_HANDLE_MAX];
	} u;
	int mount_id;

	ret_handle->len = 0;
	ret_handle->type = 0;
	u.handle.handle_bytes = CMEK_HANDLE_MAX;
	if (name_to_handle_at(dirfd, name, &u.handle, &mount_id, *name ? 0 : AT_EMPTY_PATH))
		return errno == EOPNOTSUPP || errno == EOVERFLOW || errno == ENOSYS ? 0 : -errno;
	ret_handle->type = u.handle.handle_type;
	ret_handle->len = (uint16_t)u.handle.handle_bytes;
	memcpy(ret_handle->bytes, u.handle.f_handle, u.handle.handle_bytes);
	return 0;
}

/* One more attempt without O_NOATIME where that flag is not ours to use. */
static bool without_noatime(int *flags)
{
	if (errno != EPERM || !(*flags & O_NOATIME))
		return false;
	*flags &= ~O_NOATIME;
	return true;
}

static int full_flags(int flags)
{
	flags |= O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;
	return flags & O_PATH ? flags : flags | O_NOATIME;
}

int cmek_store_open_handle(int mount_fd, const struct cmek_handle *handle, int flags)
{
	union {
		struct file_handle handle;
		char space[sizeof(struct file_handle) + CMEK_HANDLE_MAX];
	} u;
	int fd;

	u.handle.handle_bytes = handle->len;
	u.handle.handle_type = handle->type;
	memcpy(u.handle.f_handle, handle->bytes, handle->len);
	flags = full_flags(flags);
	do
		fd = open_by_handle_at(mount_fd, &u.handle, flags);
	while (fd < 0 && (errno == EINTR || without_noatime(&flags)));
	return ret_errno(fd);
}

int cmek_store_open(int dirfd, const char *name, int flags)
{
	int fd;

	flags = full_flags(flags);
	do
		fd = openat(dirfd, name, flags);
	while (fd < 0 && (errno == EINTR || without_noatime(&flags)));
	return ret_errno(fd);
}

int cmek_store_create(int dirfd, const char *name, mode_t mode)
{
	int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	/* Not as a flag of the open: where it is refused, the file would have been made all the same. */
	if (fd >= 0)
		(void)fcntl(fd, F_SETFL, O_NOATIME);
	return ret_errno(fd);
}

int cmek_store_reopen(int fd, int flags)
{
	char path[PROC_FD_MAX];
	int new_fd;

	proc_path(fd, path);
	/* The link in /proc is the one that must be followed; it leads to the inode itself, never further. */
	flags = full_flags(flags) & ~O_NOFOLLOW;
	do
		new_fd = open(path, flags);
	while (new_fd < 0 && (errno == EINTR || without_noatime(&flags)));
	return ret_errno(new_fd);
}

int cmek_store_mkdir(int dirfd, const char *name, mode_t mode)
{
	return ret_errno(mkdirat(dirfd, name, mode));
}

int cmek_store_mknod(int dirfd, const char *name, mode_t mode, dev_t rdev)
{
	return ret_errno(mknodat(dirfd, name, mode, rdev));
}

int cmek_store_symlink(int dirfd, const char *name, const char *text)
{
	return ret_errno(symlinkat(text, dirfd, name));
}

ssize_t cmek_store_readlink(int dirfd, const char *name, char *text, size_t size)
{
	ssize_t n = readlinkat(dirfd, name, text, size);

	/* An empty name on something that is no symlink is ENOENT. */
	if (n < 0)
		return errno == ENOENT && !*name ? -EINVAL : -errno;
	if ((size_t)n >= size)
		return -ENAMETOOLONG;
	text[n] = 0;
	return n;
}

int cmek_store_link(int fd, int dirfd, const char *name)
{
	char path[PROC_FD_MAX];

	if (linkat(fd, "", dirfd, name, AT_EMPTY_PATH) == 0)
		return 0;
	/* Without CAP_DAC_READ_SEARCH the answer is ENOENT, whatever the reason. */
	if (errno != ENOENT)
		return -errno;
	proc_path(fd, path);
	return ret_errno(linkat(AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW));
}

int cmek_store_unlink(int dirfd, const char *name)
{
	return ret_errno(unlinkat(dirfd, name, 0));
}

int cmek_store_rmdir(int dirfd, const char *name)
{
	return ret_errno(unlinkat(dirfd, name, AT_REMOVEDIR));
}

int cmek_store_rename(int dirfd, const char *name, int new_dirfd, const char *new_name, unsigned flags)
{
	return ret_errno(renameat2(dirfd, name, new_dirfd, new_name, flags));
}

int cmek_store_chmod(int fd, mode_t mode)
{
	char path[PROC_FD_MAX];

	proc_path(fd, path);
	return ret_errno(fchmodat(AT_FDCWD, path, mode, 0));
}

int cmek_store_chown(int fd, uid_t uid, gid_t gid)
{
	return ret_errno(fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

int cmek_store_utimens(int fd, const struct timespec ts[2])
{
	char path[PROC_FD_MAX];

	if (utimensat(fd, "", ts, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	/* Kernels before 5.8 don't know AT_EMPTY_PATH here. */
	proc_path(fd, path);
	return ret_errno(utimensat(AT_FDCWD, path, ts, 0));
}

/* The link in /proc leads to the inode itself, so these follow it and nothing else. */
ssize_t cmek_store_getxattr(int fd, const char *name, void *value, size_t size)
{
	char path[PROC_FD_MAX];
	ssize_t n;

	proc_path(fd, path);
	n = getxattr(path, name, value, size);
	return n < 0 ? -errno : n;
}

ssize_t cmek_store_listxattr(int fd, char *list, size_t size)
{
	char path[PROC_FD_MAX];
	ssize_t n;

	proc_path(fd, path);
	n = listxattr(path, list, size);
	return n < 0 ? -errno : n;
}

int cmek_store_setxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	char path[PROC_FD_MAX];

	proc_path(fd, path);
	return ret_errno(setxattr(path, name, value, size, flags));
}

int cmek_store_removexattr(int fd, const char *name)
{
	char path[PROC_FD_MAX];

	proc_path(fd, path);
	return ret_errno(removexattr(path, name));
}

ssize_t cmek_store_getdents(int fd, void *buf, size_t size)
{
	ssize_t n;

	do
		n = getdents64(fd, buf, size);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int cmek_store_seek(int fd, uint64_t off)
{
	return lseek(fd, (off_t)off, SEEK_SET) < 0 ? -errno : 0;
}

int cmek_store_fsync(int fd, bool datasync)
{
	int r;

	do
		r = datasync ? fdatasync(fd) : fsync(fd);
	while (r < 0 && errno == EINTR);
	return ret_errno(r);
}

int cmek_store_syncfs(int fd)
{
	return ret_errno(syncfs(fd));
}

int cmek_store_statfs(int fd, struct statvfs *ret_st)
{
	return ret_errno(fstatvfs(fd, ret_st));
}

bool cmek_store_orders_names(int fd)
{
	struct statfs st;

	if (fstatfs(fd, &st))
		return false;
	/* tmpfs loses everything together. Others may well be safe; to flush once more costs little. */
	return st.f_type == EXT4_SUPER_MAGIC || st.f_type == XFS_SUPER_MAGIC || st.f_type == TMPFS_MAGIC;
}
