/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Whole reads and writes over descriptors, whole small files, and atomic replacement of one. Knows nothing of what the
 * bytes mean; treats every buffer it makes as if it could hold a secret.
 */
#include "config.h"

#include "base/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/secret.h"
#include "base/text.h"

#define READ_CHUNK_BYTES 4096

ssize_t cmek_pread_full(int fd, void *buf, size_t n, uint64_t off)
{
	uint8_t *p = buf;
	size_t done = 0;
	ssize_t got;

	assert(n <= SSIZE_MAX);
	while (done < n) {
		got = pread(fd, p + done, n - done, (off_t)(off + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

int cmek_pwrite_full(int fd, const void *buf, size_t n, uint64_t off)
{
	const uint8_t *p = buf;
	ssize_t put;

	while (n > 0) {
		put = pwrite(fd, p, n, (off_t)off);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		p += put;
		off += (uint64_t)put;
		n -= (size_t)put;
	}
	return 0;
}

int cmek_pwritev_full(int fd, struct iovec *iov, int n, uint64_t off)
{
	ssize_t put;

	for (;;) {
		while (n > 0 && iov->iov_len == 0) {
			iov++;
			n--;
		}
		if (n == 0)
			return 0;
		put = pwritev(fd, iov, n < IOV_MAX ? n : IOV_MAX, (off_t)off);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		off += (uint64_t)put;
		while (n > 0 && (size_t)put >= iov->iov_len) {
			put -= (ssize_t)iov->iov_len;
			iov->iov_len = 0;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + put;
			iov->iov_len -= (size_t)put;
		}
	}
}

int cmek_write_full(int fd, const void *buf, size_t n)
{
	const uint8_t *p = buf;
	ssize_t put;

	while (n > 0) {
		put = write(fd, p, n);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

/* Moves *buf into room for `room` bytes; the old bytes are wiped. */
static int grow(uint8_t **buf, size_t used, size_t old_room, size_t room)
{
	uint8_t *larger = malloc(room);

	if (!larger)
		return -ENOMEM;
	if (*buf) {
		memcpy(larger, *buf, used);
		cmek_wipe(*buf, old_room);
		free(*buf);
	}
	*buf = larger;
	return 0;
}

/* The rest of fd up to max bytes, with a NUL behind. The size that fstat told is a hint: files grow. */
static int read_all(int fd, size_t hint, size_t max, uint8_t **ret_data, size_t *ret_len)
{
	size_t room = 0, used = 0, want;
	uint8_t *buf = NULL;
	ssize_t got;
	int ret;

	want = (hint < max ? hint : max) + 2; /* the NUL, and a byte that tells of more than was expected */
	for (;;) {
		if (used + 1 >= room) {
			ret = grow(&buf, used, room, room ? room * 2 : want);
			if (ret)
				goto out;
			room = room ? room * 2 : want;
		}
		got = read(fd, buf + used, room - used - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			ret = -errno;
			goto out;
		}
		if (got == 0)
			break;
		used += (size_t)got;
		if (used > max) {
			ret = -EFBIG;
			goto out;
		}
	}
	buf[used] = '\0';
	*ret_data = buf;
	*ret_len = used;
	buf = NULL;
	ret = 0;
out:
	if (buf)
		cmek_wipe(buf, room);
	free(buf);
	return ret;
}

int cmek_read_file(int dirfd, const char *path, size_t max, uint8_t **ret_data, size_t *ret_len,
		   struct cmek_error *err)
{
	struct stat st;
	int fd, ret;

	assert(max < SSIZE_MAX / 2);
	/* O_NONBLOCK: opening a FIFO that somebody put there must not hang; it is refused below. */
	fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0) {
		ret = errno;
		if (ret == ENOENT)
			return cmek_error_set(err, CMEK_E_NOT_FOUND, ret, "\"%s\" does not exist", path);
		return cmek_error_sys(err, ret, "can't open \"%s\"", path);
	}
	if (fstat(fd, &st)) {
		ret = cmek_error_sys(err, errno, "can't examine \"%s\"", path);
		goto out;
	}
	if (S_ISDIR(st.st_mode)) {
		ret = cmek_error_sys(err, EISDIR, "can't read \"%s\"", path);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		ret = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "\"%s\" is not a regular file", path);
		goto out;
	}
	ret = read_all(fd, st.st_size < READ_CHUNK_BYTES ? READ_CHUNK_BYTES : (size_t)st.st_size, max, ret_data,
		       ret_len);
	if (ret == -EFBIG)
		ret = cmek_error_set(err, CMEK_E_LIMIT, EFBIG, "\"%s\" is larger than %zu bytes", path, max);
	else if (ret)
		ret = cmek_error_sys(err, -ret, "can't read \"%s\"", path);
out:
	close(fd);
	return ret;
}

/* fsync of the directory itself; dirfd may be AT_FDCWD or an O_PATH descriptor. */
static int sync_dir(int dirfd)
{
	int fd, ret = 0;

	fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd))
		ret = -errno;
	close(fd);
	return ret;
}

static void temp_name(char *out, size_t size)
{
	char hex[CMEK_HEX_LEN(8) + 1];
	uint8_t random[8];

	cmek_random(random, sizeof(random));
	cmek_hex_encode(random, sizeof(random), hex);
	snprintf(out, size, CMEK_TEMP_PREFIX "%s" CMEK_TEMP_SUFFIX, hex);
}

int cmek_replace_file(int dirfd, const char *name, const void *data, size_t len, mode_t mode, struct cmek_error *err)
{
	bool named = false;
	char temp[32];
	int fd, ret;

	assert(!strchr(name, '/'));
	temp_name(temp, sizeof(temp));
	fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return cmek_error_sys(err, errno, "can't make a temporary file beside \"%s\"", name);
	named = true;
	ret = cmek_write_full(fd, data, len);
	if (!ret && fchmod(fd, mode))
		ret = -errno;
	if (!ret && fsync(fd))
		ret = -errno;
	if (close(fd) && !ret)
		ret = -errno;
	if (ret) {
		cmek_error_sys(err, -ret, "can't write \"%s\"", name);
		goto out;
	}
	if (renameat(dirfd, temp, dirfd, name)) {
		ret = cmek_error_sys(err, errno, "can't put \"%s\" in place", name);
		goto out;
	}
	named = false;
	ret = sync_dir(dirfd);
	if (ret)
		cmek_error_sys(err, -ret, "can't flush the directory of \"%s\"", name);
out:
	if (named && unlinkat(dirfd, temp, 0)) {
		/* A left-over of this name harms nobody, and the first error is the one to tell. */
	}
	return ret;
}
