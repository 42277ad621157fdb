/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Connections to the control socket: each has a thread, which reads a line, has it answered, and writes the answer. It
 * must not know what any command does.
 */
#include "config.h"

#include "fs/mount/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/volume/ctlsock.h"

/* A client that has not sent a whole line, or not taken an answer, after this time is let go. */
#define PATIENCE_S 30
/* When no connection can be accepted (no descriptors), the next try is this much later. */
#define RETRY_MS 200

struct client {
	struct cmek_control *control;
	int sock; /* -1: the place is free */
};

struct cmek_control {
	int listener;
	int wake; /* eventfd: the acceptor shall end */
	const struct cmek_control_verb *verbs;
	void *arg;
	pthread_t acceptor;
	/* lock: the rest */
	pthread_mutex_t lock;
	pthread_cond_t gone; /* a client has gone */
	struct client clients[CMEK_CONTROL_CLIENTS_MAX];
	unsigned n_clients;
	bool stopping;
};

static int send_line(int sock, const char *line)
{
	size_t len = strlen(line), done = 0;
	ssize_t n;

	while (done < len) {
		n = send(sock, line + done, len - done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

/* False: it could not be told. result is taken over. */
static bool answer(int sock, json_t *result, const struct cmek_error *failure)
{
	char *line = cmek_ctlsock_answer(&result, failure);
	bool sent = line && send_line(sock, line) == 0;

	free(line);
	return sent;
}

static int run_verb(const struct cmek_control *control, const json_t *request, json_t **ret_result,
		    struct cmek_error *err)
{
	struct cmek_json_at at = cmek_json_root(request, "the request");
	const struct cmek_control_verb *verb;
	const char *cmd;
	int rc = cmek_json_string(&at, "cmd", &cmd, err);

	if (rc != 0)
		return rc;
	for (verb = control->verbs; verb->name; verb++) {
		if (!strcmp(verb->name, cmd))
			return verb->run(control->arg, &at, ret_result, err);
	}
	return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP, "this mount does not know the command \"%s\"", cmd);
}

/* One line; false: the connection shall end. After a line that is none, nobody knows where the next one begins. */
static bool serve_line(struct client *client, const char *line, size_t len)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *request = NULL, *result = NULL;
	int rc = cmek_ctlsock_parse(line, len, &request, &err);
	bool sent;

	if (rc != 0) {
		(void)answer(client->sock, NULL, &err); /* it ends in any case */
		return false;
	}
	rc = run_verb(client->control, request, &result, &err);
	if (rc != 0 && !cmek_error_is_set(&err))
		(void)cmek_error_sys(&err, -rc, "the command failed");
	json_decref(request);
	if (rc != 0) {
		json_decref(result);
		result = NULL;
	}
	sent = answer(client->sock, result, rc != 0 ? &err : NULL);
	return sent;
}

static void refuse(int sock, enum cmek_kind kind, int errnum, const char *text)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	(void)cmek_error_set(&err, kind, errnum, "%s", text);
	(void)answer(sock, NULL, &err); /* it ends in any case */
}

static void serve_lines(struct client *client)
{
	char *buf = malloc(CMEK_CTLSOCK_REQUEST_MAX), *end;
	size_t used = 0, line_len;
	ssize_t n;
	bool go_on = buf != NULL;

	while (go_on) {
		end = memchr(buf, '\n', used);
		if (end) {
			line_len = (size_t)(end - buf);
			go_on = serve_line(client, buf, line_len);
			used -= line_len + 1;
			memmove(buf, end + 1, used);
			continue;
		}
		if (used == CMEK_CTLSOCK_REQUEST_MAX) {
			refuse(client->sock, CMEK_E_LIMIT, EMSGSIZE, "the request is too long");
			break;
		}
		n = recv(client->sock, buf + used, CMEK_CTLSOCK_REQUEST_MAX - used, 0);
		if (n > 0)
			used += (size_t)n;
		else if (n == 0 || errno != EINTR)
			go_on = false;
	}
	free(buf);
}

static void *client_main(void *arg)
{
	struct client *client = arg;
	struct cmek_control *control = client->control;

	serve_lines(client);
	(void)pthread_mutex_lock(&control->lock);
	(void)close(client->sock);
	client->sock = -1;
	control->n_clients--;
	(void)pthread_cond_broadcast(&control->gone);
	(void)pthread_mutex_unlock(&control->lock);
	return NULL;
}

static bool may_ask(int sock)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

static struct client *free_place_locked(struct cmek_control *control)
{
	size_t i;

	for (i = 0; i < CMEK_CONTROL_CLIENTS_MAX; i++) {
		if (control->clients[i].sock < 0)
			return control->clients + i;
	}
	return NULL;
}

/* Gives the connection a place and a thread; true: it has both, and the thread owns sock. */
static bool admit(struct cmek_control *control, int sock)
{
	struct client *client;
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	(void)pthread_mutex_lock(&control->lock);
	client = control->stopping ? NULL : free_place_locked(control);
	if (client) {
		client->sock = sock;
		control->n_clients++;
	}
	(void)pthread_mutex_unlock(&control->lock);
	if (!client) {
		refuse(sock, CMEK_E_BUSY, EBUSY, "too many connections to this mount");
		return false;
	}
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attr, client_main, client);
	(void)pthread_attr_destroy(&attr);
	if (rc == 0)
		return true;
	refuse(sock, CMEK_E_SYSTEM, rc, "the mount could not start a thread");
	(void)pthread_mutex_lock(&control->lock);
	client->sock = -1;
	control->n_clients--;
	(void)pthread_mutex_unlock(&control->lock);
	return false;
}

static void accept_one(struct cmek_control *control)
{
	static struct cmek_log_limit limit;
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	int sock = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC);

	if (sock < 0) {
		/* The connection stays in the queue when descriptors or memory are short. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			(void)poll(NULL, 0, RETRY_MS);
		return;
	}
	(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (!may_ask(sock)) {
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "control socket: refused somebody who is neither root nor the owner");
		refuse(sock, CMEK_E_DENIED, EACCES, "only root and the owner of the mount may ask it");
	} else if (admit(control, sock)) {
		return;
	}
	(void)close(sock);
}

static void *acceptor_main(void *arg)
{
	struct cmek_control *control = arg;
	struct pollfd fds[2] = { { .fd = control->wake, .events = POLLIN }, { .fd = control->listener, .events = POLLIN } };

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents & POLLIN)
			accept_one(control);
		else if (fds[1].revents)
			return NULL;
	}
}

int cmek_control_new(int listener, const struct cmek_control_verb *verbs, void *arg, struct cmek_control **ret_control,
		     struct cmek_error *err)
{
	struct cmek_control *control = calloc(1, sizeof(*control));
	int rc = ENOMEM;
	size_t i;

	if (control) {
		control->listener = listener;
		control->verbs = verbs;
		control->arg = arg;
		for (i = 0; i < CMEK_CONTROL_CLIENTS_MAX; i++)
			control->clients[i] = (struct client){ control, -1 };
		(void)pthread_mutex_init(&control->lock, NULL);
		(void)pthread_cond_init(&control->gone, NULL);
		control->wake = eventfd(0, EFD_CLOEXEC);
		rc = control->wake < 0 ? errno : pthread_create(&control->acceptor, NULL, acceptor_main, control);
	}
	if (rc == 0) {
		*ret_control = control;
		return 0;
	}
	if (control && control->wake >= 0)
		(void)close(control->wake);
	free(control);
	(void)close(listener); /* nobody is served */
	return cmek_error_sys(err, rc, "serving the control socket");
}

void cmek_control_free(struct cmek_control *control)
{
	size_t i;

	if (!control)
		return;
	(void)eventfd_write(control->wake, 1); /* the counter is far from full */
	(void)pthread_join(control->acceptor, NULL);
	(void)pthread_mutex_lock(&control->lock);
	control->stopping = true;
	for (i = 0; i < CMEK_CONTROL_CLIENTS_MAX; i++) {
		if (control->clients[i].sock >= 0)
			(void)shutdown(control->clients[i].sock, SHUT_RD); /* an answer can still be sent */
	}
	while (control->n_clients > 0)
		(void)pthread_cond_wait(&control->gone, &control->lock);
	(void)pthread_mutex_unlock(&control->lock);
	(void)close(control->listener);
	(void)close(control->wake);
	(void)pthread_mutex_destroy(&control->lock);
	(void)pthread_cond_destroy(&control->gone);
	free(control);
}
