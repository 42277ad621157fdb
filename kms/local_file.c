/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where a local key store lies, who may touch it, how it is locked and replaced. It does not know what is in the
 * files; key bytes go from the file straight into a secret.
 */
#include "config.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "kms/local_file.h"

#define ROOT_PATH "/var/lib/cmekfs/keys.json"
#define USER_PATH "cmekfs/keys.json"
#define LOCK_SUFFIX ".lock"
#define LOCK_RETRY_MS 10
#define PASSPHRASE_MAX 4096
#define SWEEP_HEAD_MAX 512
#define OTHERS (S_IRWXG | S_IRWXO)

static int no_memory(struct cmek_error *err)
{
	return cmek_error_sys(err, ENOMEM, "opening the key store");
}

/* XDG Base Directory Specification: a relative XDG_DATA_HOME counts as unset. */
static int user_path(char **ret_path, struct cmek_error *err)
{
	const char *data = secure_getenv("XDG_DATA_HOME"), *home = secure_getenv("HOME");
	int n;

	if (data && data[0] == '/')
		n = asprintf(ret_path, "%s/" USER_PATH, data);
	else if (home && home[0] == '/')
		n = asprintf(ret_path, "%s/.local/share/" USER_PATH, home);
	else
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "where the key store is can't be told: neither CMEKFS_LOCAL_KEYSTORE nor XDG_DATA_HOME "
				      "nor HOME is set to a path");
	return n < 0 ? no_memory(err) : 0;
}

int cmek_local_file_path(const char *given, char **ret_path, bool *ret_is_default, struct cmek_error *err)
{
	char *path = NULL, *cwd = NULL;
	int rc = 0;

	if (!given)
		given = secure_getenv("CMEKFS_LOCAL_KEYSTORE");
	if (given && given[0] == '\0')
		given = NULL;
	if (!given && geteuid() != 0) {
		rc = user_path(&path, err);
	} else if (!given) {
		path = strdup(ROOT_PATH);
		rc = path ? 0 : no_memory(err);
	} else if (given[0] == '/') {
		path = strdup(given);
		rc = path ? 0 : no_memory(err);
	} else {
		/* Kept absolute: a daemon changes its directory while it holds the handle. */
		cwd = getcwd(NULL, 0);
		if (!cwd)
			rc = cmek_error_sys(err, errno, "the current directory");
		else if (asprintf(&path, "%s/%s", cwd, given) < 0)
			rc = no_memory(err);
	}
	free(cwd);
	if (rc < 0)
		return rc;
	if (path[strlen(path) - 1] == '/') {
		rc = cmek_error_set(err, CMEK_E_USAGE, EISDIR, "%s is not the path of a key store file", path);
		free(path);
		return rc;
	}
	*ret_path = path;
	*ret_is_default = !given;
	return 0;
}

/* Opens the directory path[0..dir_len), "/" when dir_len is 0. Descriptor or -errno. */
static int open_dir(const char *path, size_t dir_len)
{
	char *dir = strndup(path, dir_len ? dir_len : 1);
	int fd;

	if (!dir)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	free(dir);
	return fd;
}

static const char *base_name(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* Makes the directory path[0..len) unless it is there, and makes its name durable. */
static int make_one_dir(const char *path, size_t len, struct cmek_error *err)
{
	char *dir = strndup(path, len);
	int fd, rc;

	if (!dir)
		return no_memory(err);
	rc = mkdir(dir, 0700) < 0 ? -errno : 0;
	free(dir);
	if (rc == -EEXIST)
		return 0;
	if (rc < 0)
		return cmek_error_sys(err, -rc, "making the directory %.*s", (int)len, path);
	/* A key that a volume depends on must not vanish with its directory in a power cut. */
	fd = open_dir(path, (size_t)((const char *)memrchr(path, '/', len) - path));
	if (fd < 0)
		rc = fd;
	else if (fsync(fd) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (rc < 0)
		return cmek_error_sys(err, -rc, "writing the directory above %.*s", (int)len, path);
	return 0;
}

int cmek_local_file_make_dir(const char *path, struct cmek_error *err)
{
	const char *slash = path;
	int rc = 0;

	while (rc == 0 && (slash = strchr(slash + 1, '/')) != NULL)
		rc = make_one_dir(path, (size_t)(slash - path), err);
	return rc;
}

/* Who may touch a file that holds keys. what: "the key file", ... */
static int check_access(const char *what, const char *path, const struct stat *st, struct cmek_error *err)
{
	if (!S_ISREG(st->st_mode))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s %s is not a regular file", what, path);
	if (st->st_mode & OTHERS)
		return cmek_error_set(err, CMEK_E_DENIED, EPERM,
				      "%s %s has mode %04o: group and others must have no access to it (0600)", what, path,
				      (unsigned)(st->st_mode & 07777));
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return cmek_error_set(err, CMEK_E_DENIED, EPERM,
				      "%s %s belongs to user id %u, neither to this user nor to root", what, path,
				      (unsigned)st->st_uid);
	return 0;
}

/* An open descriptor that has passed check_access(), or -errno; -ENOENT without a message. */
static int open_checked(const char *what, const char *path, struct stat *st, struct cmek_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	int rc;

	if (fd < 0) {
		if (errno == ENOENT)
			return -ENOENT;
		return cmek_error_sys(err, errno, "opening %s %s", what, path);
	}
	rc = fstat(fd, st) < 0 ? cmek_error_sys(err, errno, "%s %s", what, path) : check_access(what, path, st, err);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

int cmek_local_file_read(const char *path, size_t max, char **ret_text, size_t *ret_len, struct cmek_error *err)
{
	struct stat st;
	char *text = NULL;
	ssize_t n;
	int fd, rc = 0;

	fd = open_checked("the key store", path, &st, err);
	if (fd == -ENOENT) {
		*ret_text = NULL;
		*ret_len = 0;
		return 0;
	}
	if (fd < 0)
		return fd;
	if (st.st_size < 0 || (uint64_t)st.st_size > max) {
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EFBIG, "the key store %s has more than %zu bytes", path, max);
		goto out;
	}
	/* Files are replaced, never grown in place: the size is what there is. */
	text = malloc((size_t)st.st_size + 1);
	if (!text) {
		rc = no_memory(err);
		goto out;
	}
	n = cmek_pread_full(fd, text, (size_t)st.st_size, 0);
	if (n < 0) {
		rc = cmek_error_sys(err, (int)-n, "reading the key store %s", path);
		goto out;
	}
	text[n] = '\0';
	*ret_text = text;
	*ret_len = (size_t)n;
	text = NULL;
out:
	free(text);
	close(fd);
	return rc;
}

int cmek_local_file_read_secret(const char *what, const char *path, enum cmek_purpose purpose, size_t len,
				struct cmek_secret **ret_secret, struct cmek_error *err)
{
	struct cmek_secret *s = NULL;
	struct stat st;
	ssize_t n;
	int fd, rc;

	fd = open_checked(what, path, &st, err);
	if (fd == -ENOENT)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s %s is missing", what, path);
	if (fd < 0)
		return fd;
	if ((uint64_t)st.st_size != len) {
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s %s has %lld bytes, not %zu", what, path,
				    (long long)st.st_size, len);
		goto out;
	}
	rc = cmek_secret_new(purpose, len, &s, err);
	if (rc < 0)
		goto out;
	n = cmek_pread_full(fd, cmek_secret_fill(s, purpose), len, 0);
	if (n != (ssize_t)len) {
		rc = cmek_error_sys(err, n < 0 ? (int)-n : EIO, "reading %s %s", what, path);
		goto out;
	}
	*ret_secret = s;
	s = NULL;
out:
	cmek_secret_free(s);
	close(fd);
	return rc;
}

int cmek_local_file_replace(const char *path, const void *data, size_t len, struct cmek_error *err)
{
	const char *name = base_name(path);
	int dir = open_dir(path, (size_t)(name - 1 - path));
	int rc;

	if (dir < 0)
		return cmek_error_sys(err, -dir, "opening the directory of %s", path);
	rc = cmek_replace_file(dir, name, data, len, 0600, err);
	if (rc < 0)
		cmek_error_prefix(err, "writing %s", path);
	close(dir);
	return rc;
}

static bool is_temporary(const char *name)
{
	size_t len = strlen(name), prefix = strlen(CMEK_TEMP_PREFIX), suffix = strlen(CMEK_TEMP_SUFFIX);

	return len > prefix + suffix && strncmp(name, CMEK_TEMP_PREFIX, prefix) == 0 &&
	       strcmp(name + len - suffix, CMEK_TEMP_SUFFIX) == 0;
}

/* 1 when the file begins so, 0 when not or when it can't be told (it is then not ours), or -errno. */
static int begins_with(int dir, const char *name, const void *head, size_t head_len)
{
	uint8_t buf[SWEEP_HEAD_MAX];
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return 0;
	n = cmek_pread_full(fd, buf, head_len, 0);
	close(fd);
	if (n < 0)
		return (int)n;
	return (size_t)n == head_len && memcmp(buf, head, head_len) == 0;
}

int cmek_local_file_sweep(const char *path, const void *head, size_t head_len, struct cmek_error *err)
{
	const char *name = base_name(path);
	int dir = open_dir(path, (size_t)(name - 1 - path)), rc = 0;
	struct dirent *entry;
	DIR *list = NULL;

	assert(head_len <= SWEEP_HEAD_MAX);
	if (dir < 0)
		return cmek_error_sys(err, -dir, "opening the directory of %s", path);
	list = fdopendir(dir);
	if (!list) {
		rc = cmek_error_sys(err, errno, "reading the directory of %s", path);
		close(dir);
		return rc;
	}
	while (rc == 0 && (errno = 0, entry = readdir(list)) != NULL) {
		if (!is_temporary(entry->d_name))
			continue;
		rc = begins_with(dir, entry->d_name, head, head_len);
		if (rc == 1)
			rc = unlinkat(dir, entry->d_name, 0) < 0 && errno != ENOENT ? -errno : 0;
		if (rc < 0)
			cmek_error_sys(err, -rc, "removing the left-over %s beside %s", entry->d_name, path);
	}
	if (rc == 0 && errno != 0)
		rc = cmek_error_sys(err, errno, "reading the directory of %s", path);
	closedir(list);
	return rc;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int cmek_local_file_lock(const char *path, unsigned deadline_ms, int *ret_fd, struct cmek_error *err)
{
	int64_t deadline = now_ms() + deadline_ms;
	char *lock = NULL;
	int fd, rc = 0;

	if (asprintf(&lock, "%s" LOCK_SUFFIX, path) < 0)
		return no_memory(err);
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	if (fd < 0) {
		rc = cmek_error_sys(err, errno, "opening %s", lock);
		goto out;
	}
	/* Polled: a blocking flock() could not be given a deadline without a signal. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		struct timespec pause = { 0, LOCK_RETRY_MS * 1000000L };

		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			rc = cmek_error_sys(err, errno, "locking %s", lock);
		else if (now_ms() >= deadline)
			rc = cmek_error_set(err, CMEK_E_BUSY, EBUSY, "%s is being written by another process", path);
		if (rc < 0)
			goto out;
		nanosleep(&pause, NULL);
	}
	*ret_fd = fd;
	fd = -1;
out:
	if (fd >= 0)
		close(fd);
	free(lock);
	return rc;
}

/* Someone else answers for these: whoever opened the descriptor, or systemd. */
static bool access_is_vouched_for(const char *path)
{
	const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");
	size_t len = dir ? strlen(dir) : 0;

	if (strcmp(path, "/dev/stdin") == 0 || strncmp(path, "/dev/fd/", 8) == 0 ||
	    strncmp(path, "/proc/self/fd/", 14) == 0)
		return true;
	return len > 1 && dir[0] == '/' && strncmp(path, dir, len) == 0 && path[len] == '/' && !strstr(path + len, "/../");
}

/* Bytes up to a newline, end of file or max; a pipe gives them piecemeal. Number of them, or -errno. */
static ssize_t read_line(int fd, uint8_t *buf, size_t max)
{
	size_t n = 0;

	while (n < max) {
		ssize_t got = read(fd, buf + n, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0 || buf[n] == '\n')
			break;
		n++;
	}
	return (ssize_t)n;
}

int cmek_local_file_passphrase(const char *path, struct cmek_secret **ret_passphrase, struct cmek_error *err)
{
	struct cmek_secret *line = NULL;
	struct stat st;
	uint8_t *bytes;
	ssize_t n;
	int fd, rc;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 && errno == ENOENT)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "the passphrase file %s is missing", path);
	if (fd < 0)
		return cmek_error_sys(err, errno, "opening the passphrase file %s", path);
	rc = fstat(fd, &st) < 0 ? cmek_error_sys(err, errno, "the passphrase file %s", path) : 0;
	if (rc == 0 && S_ISREG(st.st_mode) && !access_is_vouched_for(path))
		rc = check_access("the passphrase file", path, &st, err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_TEXT, PASSPHRASE_MAX + 1, &line, err);
	if (rc < 0)
		goto out;
	bytes = cmek_secret_fill(line, CMEK_KEY_TEXT);
	n = read_line(fd, bytes, PASSPHRASE_MAX + 1);
	if (n < 0)
		rc = cmek_error_sys(err, (int)-n, "reading the passphrase file %s", path);
	else if (n == 0)
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the first line of the passphrase file %s is empty", path);
	else if (n > PASSPHRASE_MAX)
		rc = cmek_error_set(err, CMEK_E_USAGE, E2BIG, "the passphrase in %s is longer than %d bytes", path,
				    PASSPHRASE_MAX);
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, bytes, (size_t)n, ret_passphrase, err);
out:
	cmek_secret_free(line);
	close(fd);
	return rc;
}
