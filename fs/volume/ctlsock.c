/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names, lines and the asking end of control sockets. It must not know what any command does, nor what a mount consists
 * of.
 */
#include "config.h"

#include "fs/volume/ctlsock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "kms/json.h"

#define RUN_DIR "/run/cmekfs"
/* Those who ask a mount something at once wait here; more are refused by the kernel, which is an answer, too. */
#define BACKLOG 16
/* How long somebody who asks waits for a place there. */
#define CONNECT_S 10

/* ---- where it lies ---- */

static int dir_path(char *path, size_t max, struct cmek_error *err)
{
	const char *own = getenv("CMEKFS_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (own && *own)
		n = snprintf(path, max, "%s", own);
	else if (geteuid() == 0)
		n = snprintf(path, max, RUN_DIR);
	else if (xdg && *xdg == '/')
		n = snprintf(path, max, "%s/cmekfs", xdg);
	else
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT,
				      "there is no directory for control sockets: XDG_RUNTIME_DIR is not set");
	if (n < 0 || (size_t)n >= max)
		return cmek_error_set(err, CMEK_E_USAGE, ENAMETOOLONG, "the path of the control sockets is too long");
	return 0;
}

int cmek_ctlsock_dir(bool make, int *ret_fd, struct cmek_error *err)
{
	char path[4096];
	struct stat st;
	int fd, rc = dir_path(path, sizeof(path), err);

	if (rc != 0)
		return rc;
	/* 0755: the names in it are those of volumes, which the table of mounts shows as well. */
	if (make && mkdir(path, 0755) != 0 && errno != EEXIST)
		return cmek_error_sys(err, errno, "making %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s: there is no mount of this user", path);
	if (fd < 0 || fstat(fd, &st) != 0) {
		rc = cmek_error_sys(err, errno, "%s", path);
	} else if ((st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0) || (st.st_mode & 022)) {
		rc = cmek_error_set(err, CMEK_E_DENIED, EPERM, "%s: others may put sockets there", path);
	} else {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		(void)close(fd); /* a directory */
	return rc;
}

/* By way of the descriptor, since the address has room for 107 bytes only, and directories can lie deeper. */
static socklen_t fill_address(struct sockaddr_un *addr, int dir_fd, const char *name)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	(void)snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
	return (socklen_t)sizeof(*addr);
}

ino_t cmek_ctlsock_ino(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

int cmek_ctlsock_listen(int dir_fd, const uint8_t volume[16], bool read_only, int *ret_fd,
			char ret_name[CMEK_CTLSOCK_NAME_MAX], struct cmek_error *err)
{
	char uuid[CMEK_UUID_TEXT], name[CMEK_CTLSOCK_NAME_MAX];
	struct sockaddr_un addr;
	socklen_t len;
	mode_t mask;
	int fd, rc = 0;

	cmek_uuid_encode(volume, uuid);
	if (read_only)
		(void)snprintf(name, sizeof(name), "%s-%ld.sock", uuid, (long)getpid());
	else
		(void)snprintf(name, sizeof(name), "%s.sock", uuid);
	len = fill_address(&addr, dir_fd, name);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return cmek_error_sys(err, errno, "making the control socket");
	/* Between taking away the old name and the new one nobody shall take away ours (cmek_ctlsock_remove()). */
	if (flock(dir_fd, LOCK_EX) != 0)
		rc = -errno;
	/* What is there is of a mount that has ended: the store's lock is ours. */
	if (rc == 0 && unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT)
		rc = -errno;
	mask = umask(0177);
	if (rc == 0 && bind(fd, (struct sockaddr *)&addr, len) != 0)
		rc = -errno;
	(void)umask(mask);
	if (rc == 0 && listen(fd, BACKLOG) != 0)
		rc = -errno;
	(void)flock(dir_fd, LOCK_UN);
	if (rc != 0) {
		(void)close(fd); /* nobody was told of it */
		return cmek_error_sys(err, -rc, "control socket %s", name);
	}
	(void)snprintf(ret_name, CMEK_CTLSOCK_NAME_MAX, "%s", name);
	*ret_fd = fd;
	return 0;
}

void cmek_ctlsock_remove(int dir_fd, const char *name, ino_t ino)
{
	if (flock(dir_fd, LOCK_EX) != 0)
		return;
	if (ino != 0 && cmek_ctlsock_ino(dir_fd, name) == ino)
		(void)unlinkat(dir_fd, name, 0); /* a name left behind is in nobody's way */
	(void)flock(dir_fd, LOCK_UN);
}

/* ---- lines ---- */

static bool is_command(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz-");

	return n > 0 && n <= CMEK_CTLSOCK_CMD_MAX && text[n] == '\0';
}

int cmek_ctlsock_parse(const char *line, size_t len, json_t **ret_request, struct cmek_error *err)
{
	struct cmek_json_at at;
	json_t *json = NULL;
	uint64_t version;
	const char *cmd;
	int rc;

	rc = cmek_json_parse(line, len, "the request", &json, err);
	if (rc != 0)
		return rc;
	at = cmek_json_root(json, "the request");
	rc = cmek_json_uint(&at, "v", 0, UINT32_MAX, &version, err);
	if (rc == 0 && version != CMEK_CTLSOCK_VERSION)
		rc = cmek_error_set(err, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT,
				    "the request has version %lu of the protocol, this mount speaks version %d",
				    (unsigned long)version, CMEK_CTLSOCK_VERSION);
	if (rc == 0)
		rc = cmek_json_string(&at, "cmd", &cmd, err);
	if (rc == 0 && !is_command(cmd))
		rc = cmek_json_bad(&at, "cmd", "is no name of a command", err);
	if (rc != 0) {
		json_decref(json);
		return rc;
	}
	*ret_request = json;
	return 0;
}

char *cmek_ctlsock_answer(json_t **result, const struct cmek_error *failure)
{
	char *text = NULL, *line = NULL;
	json_t *json;
	size_t n;

	if (failure)
		json = json_pack("{s:i, s:b, s:{s:s, s:i, s:s}}", "v", CMEK_CTLSOCK_VERSION, "ok", 0, "error", "kind",
				 cmek_kind_name(failure->kind), "errno", failure->err, "text", failure->text);
	else
		json = json_pack("{s:i, s:b, s:O?}", "v", CMEK_CTLSOCK_VERSION, "ok", 1, "result", *result);
	if (json)
		text = json_dumps(json, JSON_COMPACT);
	n = text ? strlen(text) : 0;
	if (n > 0)
		line = realloc(text, n + 2);
	if (line) {
		text = NULL;
		line[n] = '\n';
		line[n + 1] = '\0';
	}
	free(text);
	json_decref(json);
	json_decref(*result);
	*result = NULL;
	return line;
}

/* ---- the asking end ---- */

/* flags: of the socket. */
static int connect_to(int dir_fd, const char *name, int flags, int *ret_fd, struct cmek_error *err)
{
	const struct timeval patience = { .tv_sec = CONNECT_S };
	struct ucred peer = { 0 };
	socklen_t peer_len = sizeof(peer);
	struct sockaddr_un addr;
	socklen_t len = fill_address(&addr, dir_fd, name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), rc = 0;

	if (fd < 0)
		return cmek_error_sys(err, errno, "control socket");
	/* The queue of a mount that is stopped is full one day: who waits in it for a place does not wait for ever. */
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&addr, len) != 0) {
		rc = errno;
		if (rc == ENOENT || rc == ECONNREFUSED)
			rc = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "nobody listens on the control socket %s", name);
		else if (rc == EAGAIN)
			rc = cmek_error_set(err, CMEK_E_UNREACHABLE, EAGAIN, "the mount does not answer, and others wait for it");
		else
			rc = cmek_error_sys(err, rc, "control socket %s", name);
	} else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) != 0) {
		rc = cmek_error_sys(err, errno, "control socket %s", name);
	} else if (peer.uid != 0 && peer.uid != geteuid() && geteuid() != 0) {
		rc = cmek_error_set(err, CMEK_E_DENIED, EPERM, "control socket %s: its listener is user %lu", name,
				    (unsigned long)peer.uid);
	}
	if (rc != 0) {
		(void)close(fd); /* nothing was sent */
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int cmek_ctlsock_connect(int dir_fd, const char *name, int *ret_fd, struct cmek_error *err)
{
	return connect_to(dir_fd, name, 0, ret_fd, err);
}

int cmek_ctlsock_connect_now(int dir_fd, const char *name, int *ret_fd, struct cmek_error *err)
{
	return connect_to(dir_fd, name, SOCK_NONBLOCK, ret_fd, err);
}

static int send_line(int fd, const char *line, struct cmek_error *err)
{
	size_t len = strlen(line), done = 0;
	ssize_t n;

	while (done < len) {
		n = send(fd, line + done, len - done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		/* Refused before it was read: there is an answer all the same. */
		if (n < 0 && errno == EPIPE)
			return 0;
		if (n < 0)
			return cmek_error_set(err, CMEK_E_UNREACHABLE, errno, "the mount does not listen: %s", strerror(errno));
		done += (size_t)n;
	}
	return 0;
}

/* A malloced line without its newline. */
static int receive_line(int fd, char **ret_line, size_t *ret_len, struct cmek_error *err)
{
	size_t len = 0, room = 4096;
	char *line = malloc(room), *end = NULL, *grown;
	ssize_t n;
	int rc = 0;

	while (line && rc == 0 && !end) {
		n = recv(fd, line + len, room - len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			rc = cmek_error_set(err, CMEK_E_UNREACHABLE, ETIMEDOUT, "the mount did not answer in time");
		else if (n <= 0)
			rc = cmek_error_set(err, CMEK_E_UNREACHABLE, EPIPE, "the mount ended without an answer");
		if (rc != 0)
			break;
		end = memchr(line + len, '\n', (size_t)n);
		len += (size_t)n;
		if (end || len < room)
			continue;
		if (room >= CMEK_CTLSOCK_ANSWER_MAX) {
			rc = cmek_error_set(err, CMEK_E_LIMIT, EMSGSIZE, "the mount's answer is too long");
			break;
		}
		room *= 2;
		grown = realloc(line, room);
		if (!grown)
			free(line);
		line = grown;
	}
	if (!line)
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	if (rc != 0) {
		free(line);
		return rc;
	}
	*ret_line = line;
	*ret_len = (size_t)(end - line);
	return 0;
}

/* What the mount said went wrong, as it said it; kinds are named as in JSON output. */
static int take_error(const struct cmek_json_at *answer, struct cmek_error *err)
{
	enum cmek_kind kind = CMEK_E_SYSTEM;
	struct cmek_json_at at;
	const char *name, *text;
	uint64_t errnum;
	int i, rc;

	rc = cmek_json_object(answer, "error", &at, err);
	if (rc == 0)
		rc = cmek_json_string(&at, "kind", &name, err);
	if (rc == 0)
		rc = cmek_json_string(&at, "text", &text, err);
	if (rc == 0)
		rc = cmek_json_uint(&at, "errno", 1, 4095, &errnum, err);
	if (rc != 0)
		return rc;
	for (i = CMEK_E_NONE + 1; i < CMEK_E_KIND_MAX; i++) {
		if (!strcmp(cmek_kind_name((enum cmek_kind)i), name))
			kind = (enum cmek_kind)i;
	}
	return cmek_error_set(err, kind, (int)errnum, "%s", text);
}

int cmek_ctlsock_result(const char *line, size_t len, json_t **ret_result, struct cmek_error *err)
{
	struct cmek_json_at at;
	json_t *json = NULL;
	uint64_t version;
	bool ok = false;
	int rc = cmek_json_parse(line, len, "the mount's answer", &json, err);

	if (rc != 0)
		return rc;
	at = cmek_json_root(json, "the mount's answer");
	rc = cmek_json_uint(&at, "v", CMEK_CTLSOCK_VERSION, CMEK_CTLSOCK_VERSION, &version, err);
	if (rc == 0)
		rc = cmek_json_bool(&at, "ok", &ok, err);
	if (rc == 0 && !ok)
		rc = take_error(&at, err);
	else if (rc == 0)
		*ret_result = json_incref(json_object_get(json, "result"));
	json_decref(json);
	return rc;
}

char *cmek_ctlsock_request(json_t **request)
{
	char *text = NULL, *line = NULL;

	if (json_object_set_new(*request, "v", json_integer(CMEK_CTLSOCK_VERSION)) == 0)
		text = json_dumps(*request, JSON_COMPACT);
	json_decref(*request);
	*request = NULL;
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

int cmek_ctlsock_ask(int fd, json_t **request, unsigned timeout_s, json_t **ret_result, struct cmek_error *err)
{
	struct timeval timeout = { .tv_sec = (time_t)timeout_s };
	char *line = cmek_ctlsock_request(request), *answer = NULL;
	size_t len = 0;
	int rc;

	if (!line)
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)); /* then it waits longer */
	rc = send_line(fd, line, err);
	if (rc == 0)
		rc = receive_line(fd, &answer, &len, err);
	if (rc == 0)
		rc = cmek_ctlsock_result(answer, len, ret_result, err);
	free(answer);
	free(line);
	return rc;
}
