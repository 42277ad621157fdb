/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Makes the journal's file, in the length that suits the store, and writes its superblocks. It must not know what
 * stands between them and the end.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/content/block_map.h"
#include "fs/content/journal_file.h"

#define JOURNAL_NAME "journal.0"

int cmek_handle_of(int fd, struct cmek_file_handle *ret_handle)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + CMEK_HANDLE_MAX];
	} u;
	int mount_id;

	memset(ret_handle, 0, sizeof(*ret_handle));
	u.h.handle_bytes = CMEK_HANDLE_MAX;
	if (name_to_handle_at(fd, "", &u.h, &mount_id, AT_EMPTY_PATH) < 0)
		return errno == EOPNOTSUPP || errno == EPERM || errno == ENOSYS ? 0 : -errno;
	ret_handle->type = (uint32_t)u.h.handle_type;
	ret_handle->len = u.h.handle_bytes;
	memcpy(ret_handle->bytes, u.h.f_handle, ret_handle->len);
	return 0;
}

/* Written through, not only allocated: an unwritten extent would cost a second flush at its first use. */
static int fill(int fd, uint64_t from, uint64_t to)
{
	static const uint8_t zeros[1 << 16];
	int r = 0;

	for (; r == 0 && from < to; from += sizeof(zeros))
		r = cmek_pwrite_full(fd, zeros, to - from < sizeof(zeros) ? to - from : sizeof(zeros), from);
	return r == 0 && fsync(fd) < 0 ? -errno : r;
}

/* Where files are copied on write (btrfs), each record would need new space; this one is overwritten in place. */
static void forbid_copy_on_write(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return;
	flags |= FS_NOCOW_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags); /* other file systems refuse, and need it not */
}

int cmek_journal_file_write_super(struct cmek_journal_file *file, bool empty, uint64_t tail_off, uint64_t tail_seq)
{
	struct cmek_journal_super super = { .sequence = ++file->super_seq,
					    .length_bytes = file->params.length_bytes,
					    .tail_off = tail_off,
					    .tail_seq = tail_seq,
					    .dek_next = file->params.dek_next,
					    .empty = empty,
					    .handle = file->handle };
	uint8_t buf[CMEK_JOURNAL_UNIT];
	int r;

	memcpy(super.mount_id, file->params.mount_id, sizeof(super.mount_id));
	r = cmek_journal_super_encode(file->ring, file->params.volume, &super, buf);
	if (r == 0)
		r = cmek_pwrite_full(file->fd, buf, sizeof(buf), super.sequence % 2 * CMEK_JOURNAL_UNIT);
	return r == 0 && fdatasync(file->fd) < 0 ? -errno : r;
}

/* The sequence of the superblocks that are there, so that ours count as newer. Both are overwritten before they matter. */
static void read_super_sequence(struct cmek_journal_file *file)
{
	struct cmek_journal_super super;
	uint8_t buf[CMEK_JOURNAL_UNIT];
	unsigned i;

	for (i = 0; i < 2; i++)
		if (cmek_pread_full(file->fd, buf, sizeof(buf), i * CMEK_JOURNAL_UNIT) == (ssize_t)sizeof(buf) &&
		    cmek_journal_super_decode(file->ring, file->params.volume, buf, &super) == 0 &&
		    super.sequence > file->super_seq)
			file->super_seq = super.sequence;
}

uint64_t cmek_journal_length_min(uint32_t block_size)
{
	uint64_t length = UINT64_C(8) << 20;

	while ((length - CMEK_JOURNAL_RECORDS_AT) / 2 < 2 * cmek_group_stored_bytes(block_size) + CMEK_JOURNAL_META_ROOM)
		length *= 2;
	return length;
}

/* The length that is asked for, or that it has, or that suits the store. */
static int choose_length(struct cmek_journal_file *file, uint64_t has_bytes, struct cmek_error *err)
{
	uint64_t min = cmek_journal_length_min(file->params.block_size), length = file->params.length_bytes;
	struct statvfs store;

	if (length != 0 && length < min)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "a journal of %llu bytes is too small for this block size, the least is %llu",
				      (unsigned long long)length, (unsigned long long)min);
	if (length == 0 && has_bytes >= min)
		length = has_bytes;
	if (length == 0) {
		if (fstatvfs(file->fd, &store) < 0)
			return cmek_error_sys(err, errno, "size of the store");
		length = (uint64_t)store.f_blocks * store.f_frsize / 16;
		length = length > CMEK_JOURNAL_LENGTH_MAX_DEFAULT ? CMEK_JOURNAL_LENGTH_MAX_DEFAULT : length;
		length = length < min ? min : length;
	}
	if (length < has_bytes)
		length = has_bytes; /* it grows, it does not shrink */
	file->params.length_bytes = length - length % CMEK_JOURNAL_UNIT;
	return 0;
}

static int open_file(struct cmek_journal_file *file, int dirfd, struct cmek_error *err)
{
	struct stat st;
	int r;

	file->fd = openat(dirfd, JOURNAL_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file->fd < 0 || fstat(file->fd, &st) < 0)
		return cmek_error_sys(err, errno, ".cmekfs/" JOURNAL_NAME);
	r = choose_length(file, (uint64_t)st.st_size, err);
	if (r < 0)
		return r;
	if (st.st_size == 0)
		forbid_copy_on_write(file->fd);
	read_super_sequence(file);
	if ((uint64_t)st.st_size < file->params.length_bytes)
		r = fill(file->fd, (uint64_t)st.st_size, file->params.length_bytes);
	if (r == 0)
		r = cmek_handle_of(file->fd, &file->handle);
	if (r == 0)
		r = cmek_journal_file_write_super(file, true, CMEK_JOURNAL_RECORDS_AT, 1);
	if (r == 0 && fsync(dirfd) < 0)
		r = -errno;
	return r < 0 ? cmek_error_sys(err, -r, "making the journal, %llu bytes",
				      (unsigned long long)file->params.length_bytes) : 0;
}

int cmek_journal_file_open(struct cmek_keyring *ring, int dirfd, const struct cmek_journal_params *params,
			   struct cmek_journal_file *ret_file, struct cmek_error *err)
{
	*ret_file = (struct cmek_journal_file){ .ring = ring, .params = *params, .fd = -1 };
	return open_file(ret_file, dirfd, err);
}

void cmek_journal_file_close(struct cmek_journal_file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd); /* whatever matters was flushed */
	file->fd = -1;
}

int cmek_journal_make(struct cmek_keyring *ring, int dirfd, const struct cmek_journal_params *params,
		      struct cmek_error *err)
{
	struct cmek_journal_file file;
	int r = cmek_journal_file_open(ring, dirfd, params, &file, err);

	cmek_journal_file_close(&file);
	return r;
}
