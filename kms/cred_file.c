/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads a file into locked memory. It must not know what is in it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "kms/cred_file.h"

static struct cmek_log_limit open_to_others;

static int read_fd(int fd, const char *path, size_t max, struct cmek_secret **ret_text, struct cmek_error *err)
{
	struct cmek_secret *room = NULL;
	const char *text;
	struct stat st;
	ssize_t n;
	int rc;

	if (fstat(fd, &st) != 0)
		return cmek_error_sys(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: not a file", path);
	if (st.st_size < 0 || (uint64_t)st.st_size > max)
		return cmek_error_set(err, CMEK_E_LIMIT, EFBIG, "%s: larger than %zu bytes", path, max);
	if (st.st_mode & 077)
		cmek_log_limited(&open_to_others, CMEK_LOG_WARNING,
				 "%s: holds credentials, and others than its owner may read or change it (mode %o)", path,
				 (unsigned)(st.st_mode & 0777));
	rc = cmek_secret_new(CMEK_KEY_TEXT, (size_t)st.st_size + 1, &room, err);
	if (rc < 0)
		return rc;
	text = (const char *)cmek_secret_fill(room, CMEK_KEY_TEXT);
	n = cmek_pread_full(fd, cmek_secret_fill(room, CMEK_KEY_TEXT), (size_t)st.st_size, 0);
	if (n < 0)
		rc = cmek_error_sys(err, (int)-n, "%s", path);
	else if (n == 0 || strlen(text) != (size_t)n)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: %s", path, n ? "not a text" : "empty");
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, text, (size_t)n, ret_text, err);
	cmek_secret_free(room);
	return rc;
}

int cmek_cred_file_read(const char *path, size_t max, struct cmek_secret **ret_text, struct cmek_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int rc;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return cmek_error_set(err, CMEK_E_EXPIRED, ENOENT, "%s: no such file", path);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return cmek_error_set(err, CMEK_E_EXPIRED, EACCES, "%s: can't be read: %s", path, strerror(errno));
	if (fd < 0)
		return cmek_error_sys(err, errno, "%s", path);
	rc = read_fd(fd, path, max, ret_text, err);
	(void)close(fd); /* only read */
	return rc;
}

char *cmek_cred_systemd(const char *name)
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	char *path = NULL;

	if (!directory || directory[0] != '/' || asprintf(&path, "%s/%s", directory, name) < 0)
		return NULL;
	if (access(path, F_OK) != 0) {
		free(path);
		return NULL;
	}
	return path;
}
