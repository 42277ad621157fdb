/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_CTLSOCK_H
#define CMEK_VOLUME_CTLSOCK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * The control socket of a mounted volume (doc/control.md): where it lies, what a line on it looks like, and its asking
 * end. The answering end is fs/mount/control.h. No state; thread-safe.
 *
 * One line is one JSON object, `{"v": 1, "cmd": "status", ...}` to the mount and `{"v": 1, "ok": true, "result": ...}` or
 * `{"v": 1, "ok": false, "error": {"kind", "errno", "text"}}` back, in turns.
 */
#define CMEK_CTLSOCK_VERSION 1
/* Longest request and longest answer, with the newline. */
#define CMEK_CTLSOCK_REQUEST_MAX 65536
#define CMEK_CTLSOCK_ANSWER_MAX (1u << 20)
/* Longest name of a command. */
#define CMEK_CTLSOCK_CMD_MAX 32

/*
 * The directory with the sockets of this user's mounts: $CMEKFS_RUNTIME_DIR, else /run/cmekfs for root, else
 * $XDG_RUNTIME_DIR/cmekfs. make: creates it (and not those above it). A directory that others may write is refused.
 * *ret_fd is the caller's. Kinds: not-found (-ENOENT: none, or, for others than root, no XDG_RUNTIME_DIR), denied, system.
 */
int cmek_ctlsock_dir(bool make, int *ret_fd, struct cmek_error *err);

/*
 * A listening socket in dir_fd: UUID.sock for the one mount that may write, UUID-PID.sock for a read-only one, in place of
 * what was left there. For its owner alone. ret_name gets its name. One thread at a time (umask).
 */
#define CMEK_CTLSOCK_NAME_MAX 64
int cmek_ctlsock_listen(int dir_fd, const uint8_t volume[16], bool read_only, int *ret_fd,
			char ret_name[CMEK_CTLSOCK_NAME_MAX], struct cmek_error *err);
/* Takes the name away, unless somebody else listens under it by now. fd: the listening socket. */
void cmek_ctlsock_remove(int dir_fd, const char *name, ino_t ino);
/* The inode of the name, to tell our socket from a later one; 0: there is none. */
ino_t cmek_ctlsock_ino(int dir_fd, const char *name);

/*
 * One line (without its newline) as the mount reads it: an object with a version it knows and a command of letters and
 * hyphens. Kinds: bad-format (-EINVAL), unsupported (-EPROTONOSUPPORT).
 */
int cmek_ctlsock_parse(const char *line, size_t len, json_t **ret_request, struct cmek_error *err);
/* The line of an answer, malloced, with its newline. Takes over *result (may be NULL). failure NULL: it went well. */
char *cmek_ctlsock_answer(json_t **result, const struct cmek_error *failure);

/*
 * Connects to a socket in dir_fd whose listener is this user or root, which takes 10 s at most. Kinds: not-found (nobody
 * listens), unreachable (-EAGAIN: too many wait there already, for a mount that does not answer), denied, system.
 */
int cmek_ctlsock_connect(int dir_fd, const char *name, int *ret_fd, struct cmek_error *err);
/* The same without any waiting, and *ret_fd never blocks either. */
int cmek_ctlsock_connect_now(int dir_fd, const char *name, int *ret_fd, struct cmek_error *err);
/* The line of a request, with the version added and its newline, malloced; NULL: no memory. request is taken over. */
char *cmek_ctlsock_request(json_t **request);
/* What the line of an answer (without its newline) tells: the errors of cmek_ctlsock_ask(). *ret_result is the caller's. */
int cmek_ctlsock_result(const char *line, size_t len, json_t **ret_result, struct cmek_error *err);
/*
 * Sends request (taken over) with the version added, waits for the answer, at most timeout_s (0 = as long as it takes).
 * *ret_result is the caller's. An error that the mount tells comes back as it is; kinds of our own: unreachable
 * (-ETIMEDOUT, -EPIPE), bad-format, limit, system.
 */
int cmek_ctlsock_ask(int fd, json_t **request, unsigned timeout_s, json_t **ret_result, struct cmek_error *err);

#endif
