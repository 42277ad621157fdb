/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the verbs on volumes share: from what a user calls a volume to its store. It reads the table of mounts, never a
 * header.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/volume/volhdr_store.h"
#include "tools/ctl.h"

#define MOUNT_TYPE "fuse.cmekfs"

/* A field of /proc/self/mountinfo in place: \ooo is a byte in octal (proc(5)). */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
		    text[3] >= '0' && text[3] <= '7') {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* One line: "36 35 98:0 /root /mount/point rw,... [optional]... - TYPE SOURCE options". */
static int parse_line(char *line, char **ret_point, char **ret_source)
{
	char *behind = strstr(line, " - "), *type, *save = NULL;
	int i;

	if (!behind)
		return -1;
	*behind = '\0';
	*ret_point = strtok_r(line, " ", &save);
	for (i = 0; i < 4 && *ret_point; i++)
		*ret_point = strtok_r(NULL, " ", &save);
	type = strtok_r(behind + 3, " ", &save);
	*ret_source = strtok_r(NULL, " ", &save);
	if (!*ret_point || !type || !*ret_source || strcmp(type, MOUNT_TYPE))
		return -1;
	unescape(*ret_point);
	unescape(*ret_source);
	return 0;
}

/* The other end of the last mount whose source (or, if by_point, whose mount point) is this; malloced or NULL. */
static char *other_end(const char *path, bool by_point)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *point, *source, *found = NULL;
	size_t size = 0;

	if (!f)
		return NULL;
	while (getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (parse_line(line, &point, &source) || strcmp(by_point ? point : source, path))
			continue;
		free(found);
		found = strdup(by_point ? source : point);
	}
	free(line);
	fclose(f);
	return found;
}

char *cmek_ctl_mount_point(const char *store)
{
	return other_end(store, false);
}

static bool has_volume(int fd)
{
	struct stat st;

	return fstatat(fd, CMEK_META_DIR, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int cmek_ctl_volume_open(const char *volume, int *ret_fd, char **ret_path, struct cmek_error *err)
{
	char *path = realpath(volume, NULL), *store = NULL;
	int fd = -1, ret = 0;

	if (!path) {
		ret = errno;
		if (ret == ENOENT)
			return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s does not exist", volume);
		return cmek_error_sys(err, ret, "%s", volume);
	}
	/* Asked of the table first: looking into a mount whose daemon is stuck would hang. */
	store = other_end(path, true);
	if (store) {
		free(path);
		path = store;
		store = NULL;
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOTDIR)
		ret = cmek_error_set(err, CMEK_E_USAGE, ENOTDIR, "%s is not a directory", path);
	else if (fd < 0)
		ret = cmek_error_sys(err, errno, "can't open %s", path);
	else if (!has_volume(fd))
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT,
				     "%s is neither a cmekfs volume's store nor its mount point", path);
	if (ret) {
		if (fd >= 0)
			close(fd);
		free(path);
		return ret;
	}
	*ret_fd = fd;
	*ret_path = path;
	return 0;
}

json_t *cmek_ctl_time_json(int64_t unix_seconds)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(unix_seconds, text);
	return json_string(text);
}
