/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The order in which a volume's keys are taken out of its store. Knows files of the volume's own directory by name, not
 * what stands in them, and asks no KMS.
 */
#include "config.h"

#include "fs/volume/shred.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/io.h"

#define CHUNK (1u << 20)
#define LOST_DIR "lost"

static const char *const copy_names[2] = { "header.0", "header.1" };

/* Random bytes over all of a regular file, and a flush. */
static int overwrite(int fd, struct cmek_shred_count *count)
{
	uint8_t *noise;
	struct stat st;
	uint64_t off, n;
	int ret = 0;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	noise = malloc(CHUNK);
	if (!noise)
		return -ENOMEM;
	for (off = 0; !ret && off < (uint64_t)st.st_size; off += n) {
		n = (uint64_t)st.st_size - off < CHUNK ? (uint64_t)st.st_size - off : CHUNK;
		cmek_random(noise, n);
		ret = cmek_pwrite_full(fd, noise, n, off);
	}
	if (!ret && fsync(fd))
		ret = -errno;
	free(noise);
	if (!ret) {
		count->files++;
		count->bytes += (uint64_t)st.st_size;
	}
	return ret;
}

static int open_file(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int overwrite_name(int dir_fd, const char *name, struct cmek_shred_count *count)
{
	int fd = open_file(dir_fd, name), ret;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	ret = overwrite(fd, count);
	close(fd);
	return ret;
}

/* What holds sealed data under keys that the header has: journal.N, and lost/journal.N.M. */
static bool is_journal(const char *name)
{
	return !strncmp(name, "journal.", 8);
}

/* Calls visit() for each journal in a directory below the store. A directory that is not there has none. */
static int each_journal(int meta_fd, const char *dir_name,
			int (*visit)(int dir_fd, const char *name, struct cmek_shred_count *count),
			struct cmek_shred_count *count)
{
	int fd = openat(meta_fd, dir_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), ret = 0;
	struct dirent *entry;
	DIR *dir;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	dir = fdopendir(fd);
	if (!dir) {
		ret = -errno;
		close(fd);
		return ret;
	}
	while (!ret && (errno = 0, entry = readdir(dir)))
		if (is_journal(entry->d_name))
			ret = visit(dirfd(dir), entry->d_name, count);
	if (!ret && errno)
		ret = -errno;
	if (!ret && fsync(dirfd(dir)))
		ret = -errno;
	closedir(dir);
	return ret;
}

static int measure(int dir_fd, const char *name, struct cmek_shred_count *count)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	count->files++;
	count->bytes += (uint64_t)st.st_size;
	return 0;
}

static int destroy(int dir_fd, const char *name, struct cmek_shred_count *count)
{
	int ret = overwrite_name(dir_fd, name, count);

	if (!ret && unlinkat(dir_fd, name, 0))
		ret = -errno;
	return ret;
}

static int remains(int dir_fd, const char *name, struct cmek_shred_count *count)
{
	(void)dir_fd;
	(void)name;
	count->files++;
	return 0;
}

static int open_meta(int store_fd, int *ret_fd, struct cmek_error *err)
{
	*ret_fd = openat(store_fd, CMEK_META_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? cmek_error_sys(err, errno, "can't open " CMEK_META_DIR) : 0;
}

int cmek_shred_measure(int store_fd, struct cmek_shred_count *ret_count, struct cmek_error *err)
{
	struct cmek_shred_count count = { 0 };
	int meta_fd, ret = open_meta(store_fd, &meta_fd, err), i;

	if (ret)
		return ret;
	for (i = 0; !ret && i < 2; i++)
		ret = measure(meta_fd, copy_names[i], &count);
	if (!ret)
		ret = each_journal(meta_fd, ".", measure, &count);
	if (!ret)
		ret = each_journal(meta_fd, LOST_DIR, measure, &count);
	close(meta_fd);
	if (ret)
		return cmek_error_sys(err, -ret, CMEK_META_DIR);
	*ret_count = count;
	return 0;
}

int cmek_shred_volume(int store_fd, const struct cmek_volhdr_store *store, const uint8_t volume[16], int64_t when,
		      struct cmek_shred_count *ret_count, struct cmek_error *err)
{
	struct cmek_tombstone tombstone = { .sequence = cmek_volhdr_store_newest(store) + 1, .when = when };
	uint8_t bytes[CMEK_TOMBSTONE_LEN];
	int meta_fd, ret, i;

	*ret_count = (struct cmek_shred_count){ 0 };
	memcpy(tombstone.uuid, volume, 16);
	ret = cmek_tombstone_encode(&tombstone, bytes);
	if (ret)
		return cmek_error_set(err, CMEK_E_SYSTEM, -ret, "the tombstone's checksum can't be computed");
	ret = open_meta(store_fd, &meta_fd, err);
	if (ret)
		return ret;
	for (i = 0; !ret && i < 2; i++) {
		ret = overwrite_name(meta_fd, copy_names[i], ret_count);
		if (ret)
			ret = cmek_error_sys(err, -ret, "overwriting %s", copy_names[i]);
		else
			ret = cmek_replace_file(meta_fd, copy_names[i], bytes, sizeof(bytes), 0600, err);
	}
	if (!ret) {
		ret = each_journal(meta_fd, ".", destroy, ret_count);
		if (!ret)
			ret = each_journal(meta_fd, LOST_DIR, destroy, ret_count);
		if (ret)
			ret = cmek_error_sys(err, -ret, "overwriting the journals");
	}
	close(meta_fd);
	return ret;
}

int cmek_shred_old_open(int store_fd, struct cmek_shred_old *ret_old, struct cmek_error *err)
{
	struct cmek_shred_old old = { { -1, -1 } };
	int meta_fd, ret = open_meta(store_fd, &meta_fd, err), i;

	if (ret)
		return ret;
	/* A copy that is not there has nothing to overwrite. */
	for (i = 0; !ret && i < 2; i++) {
		old.fds[i] = open_file(meta_fd, copy_names[i]);
		if (old.fds[i] < 0 && old.fds[i] != -ENOENT)
			ret = cmek_error_sys(err, -old.fds[i], "%s", copy_names[i]);
	}
	close(meta_fd);
	if (ret)
		(void)cmek_shred_old_finish(&old, false, NULL); /* closes only */
	else
		*ret_old = old;
	return ret;
}

int cmek_shred_old_finish(struct cmek_shred_old *old, bool over, struct cmek_error *err)
{
	struct cmek_shred_count count = { 0 };
	int ret = 0, rc, i;

	for (i = 0; i < 2; i++) {
		if (old->fds[i] < 0)
			continue;
		rc = over ? overwrite(old->fds[i], &count) : 0;
		if (rc && !ret)
			ret = cmek_error_sys(err, -rc, "overwriting the old %s", copy_names[i]);
		close(old->fds[i]);
		old->fds[i] = -1;
	}
	return ret;
}

int cmek_shred_verify(int store_fd, struct cmek_error *err)
{
	struct cmek_shred_count left = { 0 };
	struct cmek_tombstone tombstone;
	uint8_t *bytes = NULL;
	int meta_fd, ret, i;
	size_t len = 0;

	ret = open_meta(store_fd, &meta_fd, err);
	if (ret)
		return ret;
	for (i = 0; !ret && i < 2; i++) {
		ret = cmek_read_file(meta_fd, copy_names[i], CMEK_VOLHDR_LEN_MAX, &bytes, &len, err);
		if (!ret && !cmek_tombstone_decode(bytes, len, &tombstone))
			ret = cmek_error_set(err, CMEK_E_EXISTS, EUCLEAN, "%s is not a tombstone", copy_names[i]);
		free(bytes);
		bytes = NULL;
	}
	if (!ret) {
		ret = each_journal(meta_fd, ".", remains, &left);
		if (!ret)
			ret = each_journal(meta_fd, LOST_DIR, remains, &left);
		if (ret)
			ret = cmek_error_sys(err, -ret, CMEK_META_DIR);
		else if (left.files)
			ret = cmek_error_set(err, CMEK_E_EXISTS, EUCLEAN, "%u journals are left", left.files);
	}
	close(meta_fd);
	return ret;
}
