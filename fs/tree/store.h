/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_STORE_H
#define CMEK_TREE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

/*
 * Every system call that the tree makes on the store. Names are single components relative to a directory descriptor,
 * or "" for what the descriptor itself refers to (O_PATH is enough). Symlinks are never followed, new descriptors are
 * close-on-exec. Results are 0, a descriptor or a length, or -errno. Thread-safe.
 */

/* A store file handle (name_to_handle_at(2)). len 0: the store has none for this inode, or one that is too long. */
#define CMEK_HANDLE_MAX 64

struct cmek_handle {
	int32_t type;
	uint16_t len;
	uint8_t bytes[CMEK_HANDLE_MAX];
};

bool cmek_handle_equal(const struct cmek_handle *a, const struct cmek_handle *b);

struct cmek_store_stat {
	struct stat st;
	bool has_mount_id;
	uint64_t mount_id;
};

int cmek_store_stat(int dirfd, const char *name, struct cmek_store_stat *ret_stat);
/*
 * Without the times, which are left zero. Since Linux 6.13 a look at them makes the next change of the file draw a
 * fine-grained one, and every clock of the kernel moves with it (Documentation/filesystems/multigrain-ts.rst).
 */
int cmek_store_stat_timeless(int dirfd, const char *name, struct cmek_store_stat *ret_stat);
/* 0 with len 0 where the store has no handles. */
int cmek_store_handle(int dirfd, const char *name, struct cmek_handle *ret_handle);
/* mount_fd: any descriptor but an O_PATH one on the handle's file system. */
int cmek_store_open_handle(int mount_fd, const struct cmek_handle *handle, int flags);

/* O_NOATIME is added where it is permitted and makes sense. flags without O_CREAT. */
int cmek_store_open(int dirfd, const char *name, int flags);
/* Makes a regular file: O_RDWR | O_CREAT | O_EXCL. */
int cmek_store_create(int dirfd, const char *name, mode_t mode);
/* Another description of an O_PATH descriptor's file (not of a symlink's). Needs /proc. */
int cmek_store_reopen(int fd, int flags);

int cmek_store_mkdir(int dirfd, const char *name, mode_t mode);
int cmek_store_mknod(int dirfd, const char *name, mode_t mode, dev_t rdev);
int cmek_store_symlink(int dirfd, const char *name, const char *text);
/* Length of the text, which gets a NUL; -ENAMETOOLONG when it has size bytes or more; -EINVAL: not a symlink. */
ssize_t cmek_store_readlink(int dirfd, const char *name, char *text, size_t size);
/* Another name for fd's inode (O_PATH is enough, symlinks too). */
int cmek_store_link(int fd, int dirfd, const char *name);
int cmek_store_unlink(int dirfd, const char *name);
int cmek_store_rmdir(int dirfd, const char *name);
int cmek_store_rename(int dirfd, const char *name, int new_dirfd, const char *new_name, unsigned flags);

/* Attributes of what fd refers to (O_PATH is enough); for chmod that must be no symlink. */
int cmek_store_chmod(int fd, mode_t mode);
int cmek_store_chown(int fd, uid_t uid, gid_t gid);
int cmek_store_utimens(int fd, const struct timespec ts[2]);

/*
 * Extended attributes of what fd refers to (O_PATH is enough, symlinks too). A length or -errno; size 0 asks for the
 * length. flags: XATTR_CREATE, XATTR_REPLACE. Need /proc.
 */
ssize_t cmek_store_getxattr(int fd, const char *name, void *value, size_t size);
ssize_t cmek_store_listxattr(int fd, char *list, size_t size);
int cmek_store_setxattr(int fd, const char *name, const void *value, size_t size, int flags);
int cmek_store_removexattr(int fd, const char *name);

/* Raw struct dirent64 records from fd's position on: bytes, 0 at the end. */
ssize_t cmek_store_getdents(int fd, void *buf, size_t size);
int cmek_store_seek(int fd, uint64_t off);

int cmek_store_fsync(int fd, bool datasync);
int cmek_store_syncfs(int fd);
int cmek_store_statfs(int fd, struct statvfs *ret_st);
/* True when a flush of a file also carries the names, made before, that lead to it (a journal with one order). */
bool cmek_store_orders_names(int fd);

#endif
