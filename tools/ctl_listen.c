/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl metrics --listen: an HTTP server for one page, in one thread that waits for nobody in particular. What comes in is
 * bounded in bytes, in time and in number. It must not know what the page says, nor how requests are written.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "tools/ctl.h"
#include "tools/ctl_scrape.h"
#include "tools/http_request.h"
#include "tools/loopback.h"

/* Connections at once. One more takes the place of the one that has been sending its request for the longest time. */
#define CLIENTS_MAX 32
#define BACKLOG 64
/* For a client to send its request, and to take the answer. */
#define READ_MS 10000
#define SEND_MS 10000
/* After the answer a client may still be sending; if it were hung up on at once, it might lose the answer. */
#define LINGER_MS 2000
/* For all mounts together: well below the 10 s after which Prometheus gives up. */
#define ROUND_MS 5000
/* When no connection can be accepted (no descriptors), the next try is this much later. */
#define RETRY_MS 200
#define TEXT_TYPE "text/plain; charset=utf-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum state { FREE, READING, WAITING, SENDING, LINGERING };

struct client {
	enum state state;
	int fd;
	uint64_t deadline_ms; /* but while it waits for a round */
	uint64_t round;       /* WAITING: the first one that began after its request */
	bool head_only;
	char head[CMEK_HTTP_HEAD_MAX];
	size_t head_len;
	char *answer;
	size_t answer_len, sent;
};

struct server {
	const struct cmek_tool *tool;
	struct cmek_scrape *scrape;
	int listener, signals;
	uint64_t accept_after_ms; /* 0: at once */
	uint64_t round;           /* the last one that has begun */
	bool round_runs;
	struct client clients[CLIENTS_MAX];
};

/* ---- answers ---- */

static const char *reason_of(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{ 200, "OK" }, { 400, "Bad Request" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
		{ 408, "Request Timeout" }, { 414, "URI Too Long" }, { 431, "Request Header Fields Too Large" },
		{ 503, "Service Unavailable" }, { 505, "HTTP Version Not Supported" },
	};
	size_t i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (reasons[i].status == status)
			return reasons[i].reason;
	}
	return "Error";
}

static void hang_up(struct client *client)
{
	close(client->fd);
	free(client->answer);
	client->answer = NULL;
	client->fd = -1;
	client->state = FREE;
}

/* What is not taken yet is tried again when there is room. */
static void send_some(struct client *client)
{
	ssize_t n;

	while (client->sent < client->answer_len) {
		n = send(client->fd, client->answer + client->sent, client->answer_len - client->sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n < 0) {
			hang_up(client);
			return;
		}
		client->sent += (size_t)n;
	}
	(void)shutdown(client->fd, SHUT_WR); /* it may be gone already */
	client->state = LINGERING;
	client->deadline_ms = cmek_now_ms() + LINGER_MS;
}

/* body NULL: the status in words. */
static void answer(struct client *client, int status, const char *type, const char *body)
{
	char date[40] = "", words[64];
	time_t now = time(NULL);
	struct tm tm;
	int n;

	if (gmtime_r(&now, &tm))
		(void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	(void)snprintf(words, sizeof(words), "%d %s\n", status, reason_of(status));
	if (!body)
		body = words;
	n = asprintf(&client->answer,
		     "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sCache-Control: no-store\r\n"
		     "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n%s",
		     status, reason_of(status), date, type, strlen(body), status == 405 ? "Allow: GET, HEAD\r\n" : "",
		     client->head_only ? "" : body);
	if (n < 0) {
		client->answer = NULL;
		hang_up(client);
		return;
	}
	client->answer_len = (size_t)n;
	client->sent = 0;
	client->state = SENDING;
	client->deadline_ms = cmek_now_ms() + SEND_MS;
	send_some(client);
}

static bool is_path(const struct cmek_http_request *request, const char *path)
{
	return request->path_len == strlen(path) && memcmp(request->path, path, request->path_len) == 0;
}

static void serve(struct server *server, struct client *client, const struct cmek_http_request *request)
{
	client->head_only = request->status == 200 && request->method == CMEK_HTTP_HEAD;
	if (request->status != 200) {
		answer(client, request->status, TEXT_TYPE, NULL);
	} else if (request->path_len > 0 && !is_path(request, "/") && !is_path(request, "/metrics")) {
		answer(client, 404, TEXT_TYPE, "404 Not Found: there is only /metrics here\n");
	} else if (request->method == CMEK_HTTP_OTHER) {
		answer(client, 405, TEXT_TYPE, NULL);
	} else if (is_path(request, "/")) {
		answer(client, 200, TEXT_TYPE, "Metrics of cmekfs mounts for Prometheus: /metrics\n");
	} else {
		/* What was asked for before a round began is older than the request. */
		client->round = server->round + 1;
		client->state = WAITING;
	}
}

/* ---- clients ---- */

static void read_request(struct server *server, struct client *client)
{
	struct cmek_http_request request;
	ssize_t n;

	while (client->state == READING) {
		n = recv(client->fd, client->head + client->head_len, sizeof(client->head) - client->head_len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0) {
			hang_up(client);
			return;
		}
		client->head_len += (size_t)n;
		/* Decided at CMEK_HTTP_HEAD_MAX bytes at the latest, so there is always room. */
		if (cmek_http_request_parse(client->head, client->head_len, &request) == 0)
			serve(server, client, &request);
	}
}

/* A bounded bite: who sends for ever is hung up on at the deadline, and has not kept others from being served. */
static void discard(struct client *client)
{
	ssize_t n = recv(client->fd, client->head, sizeof(client->head), 0);

	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
		hang_up(client);
}

static void go_on(struct server *server, struct client *client, short revents, uint64_t now_ms)
{
	if (client->state == READING && revents)
		read_request(server, client);
	else if (client->state == SENDING && revents)
		send_some(client);
	else if (client->state == LINGERING && revents)
		discard(client);
	else if (client->state == WAITING && revents) /* nothing was asked for: an error, or it has gone */
		hang_up(client);
	if (client->state == FREE || client->state == WAITING || now_ms < client->deadline_ms)
		return;
	if (client->state == READING && client->head_len > 0)
		answer(client, 408, TEXT_TYPE, NULL);
	else
		hang_up(client);
}

/* NULL: all are being answered. */
static struct client *make_place(struct server *server)
{
	struct client *client, *oldest = NULL;

	for (client = server->clients; client < server->clients + CLIENTS_MAX; client++) {
		if (client->state == FREE)
			return client;
		if ((client->state == READING || client->state == LINGERING) &&
		    (!oldest || client->deadline_ms < oldest->deadline_ms))
			oldest = client;
	}
	if (oldest)
		hang_up(oldest);
	return oldest;
}

/* As many as there is room for; if there are more, they are next. */
static void accept_some(struct server *server)
{
	struct client *client;
	int fd, n;

	server->accept_after_ms = 0;
	for (n = 0; n < CLIENTS_MAX; n++) {
		fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			break;
		client = make_place(server);
		if (!client) {
			close(fd);
			continue;
		}
		client->state = READING;
		client->fd = fd;
		client->head_only = false;
		client->head_len = 0;
		client->deadline_ms = cmek_now_ms() + READ_MS;
		read_request(server, client);
	}
	/* The connection stays in the queue when descriptors or memory are short. */
	if (n < CLIENTS_MAX && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
		server->accept_after_ms = cmek_now_ms() + RETRY_MS;
}

/* ---- rounds: one answers all who asked before it began ---- */

static void end_round(struct server *server, int status, const char *text)
{
	struct client *client;

	server->round_runs = false;
	for (client = server->clients; client < server->clients + CLIENTS_MAX; client++) {
		if (client->state == WAITING && client->round <= server->round)
			answer(client, status, status == 200 ? METRICS_TYPE : TEXT_TYPE, text);
	}
}

static void tell_trouble(const struct server *server)
{
	static struct cmek_log_limit limit;
	const struct cmek_error *trouble = cmek_scrape_trouble(server->scrape);

	if (cmek_error_is_set(trouble))
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "going on without a mount: %s", trouble->text);
}

static void begin_round(struct server *server)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	server->round++;
	server->round_runs = true;
	if (cmek_scrape_begin(server->scrape, ROUND_MS, &err) == 0)
		return;
	cmek_log(CMEK_LOG_ERROR, "%s", err.text);
	end_round(server, 503, NULL);
}

static bool somebody_waits(const struct server *server)
{
	const struct client *client;

	for (client = server->clients; client < server->clients + CLIENTS_MAX; client++) {
		if (client->state == WAITING)
			return true;
	}
	return false;
}

static void go_on_with_rounds(struct server *server)
{
	char *text;

	while (server->round_runs || somebody_waits(server)) {
		if (!server->round_runs)
			begin_round(server);
		if (!server->round_runs)
			continue;
		if (!cmek_scrape_go_on(server->scrape))
			return;
		tell_trouble(server);
		text = cmek_scrape_text(server->scrape);
		end_round(server, text ? 200 : 503, text);
		free(text);
	}
}

/* ---- the loop ---- */

/* Milliseconds until something is due, for poll(): -1 = nothing is. */
static int time_left(const struct server *server, uint64_t now_ms)
{
	uint64_t due_ms = UINT64_MAX;
	const struct client *client;

	for (client = server->clients; client < server->clients + CLIENTS_MAX; client++) {
		if (client->state != FREE && client->state != WAITING && client->deadline_ms < due_ms)
			due_ms = client->deadline_ms;
	}
	if (server->round_runs && cmek_scrape_deadline_ms(server->scrape) < due_ms)
		due_ms = cmek_scrape_deadline_ms(server->scrape);
	if (server->accept_after_ms != 0 && server->accept_after_ms < due_ms)
		due_ms = server->accept_after_ms;
	if (due_ms == UINT64_MAX)
		return -1;
	return due_ms <= now_ms ? 0 : (int)(due_ms - now_ms);
}

static short wanted(enum state state)
{
	return state == READING || state == LINGERING ? POLLIN : state == SENDING ? POLLOUT : 0;
}

/* Until a signal: 0. Kind system. */
static int loop(struct server *server, struct cmek_error *err)
{
	enum { SIGNALS, LISTENER, CLIENTS };
	struct pollfd fds[CLIENTS + CLIENTS_MAX + CMEK_SCRAPE_MAX];
	const struct client *client;
	uint64_t now_ms;
	size_t i, n;

	for (;;) {
		now_ms = cmek_now_ms();
		fds[SIGNALS] = (struct pollfd){ .fd = server->signals, .events = POLLIN };
		fds[LISTENER] = (struct pollfd){ .fd = server->listener, .events = POLLIN };
		if (server->accept_after_ms > now_ms)
			fds[LISTENER].fd = -1;
		for (i = 0; i < CLIENTS_MAX; i++) {
			client = server->clients + i;
			fds[CLIENTS + i] = (struct pollfd){ .fd = client->fd, .events = wanted(client->state) };
		}
		n = CLIENTS + CLIENTS_MAX;
		if (server->round_runs)
			n += cmek_scrape_fds(server->scrape, fds + n);
		if (poll(fds, n, time_left(server, now_ms)) < 0 && errno != EINTR)
			return cmek_error_sys(err, errno, "waiting for requests");
		if (fds[SIGNALS].revents)
			return 0;
		now_ms = cmek_now_ms();
		for (i = 0; i < CLIENTS_MAX; i++)
			go_on(server, server->clients + i, fds[CLIENTS + i].revents, now_ms);
		if (fds[LISTENER].revents || (server->accept_after_ms != 0 && server->accept_after_ms <= now_ms))
			accept_some(server);
		go_on_with_rounds(server);
	}
}

/* ---- begin and end ---- */

/* url: of the address that it has got in the end. */
static int listen_at(const char *listen_on, int *ret_fd, char url[CMEK_LOOPBACK_URL_MAX], struct cmek_error *err)
{
	struct sockaddr_storage addr;
	socklen_t len = 0;
	const int on = 1;
	int fd = -1, rc = cmek_loopback_parse(listen_on, &addr, &len, err);

	if (rc != 0)
		return rc;
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Connections of a server before this one may still be closing. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(fd, (const struct sockaddr *)&addr, len) != 0 || listen(fd, BACKLOG) != 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
		rc = errno == EADDRINUSE ?
			     cmek_error_set(err, CMEK_E_BUSY, EADDRINUSE, "somebody listens on %s already", listen_on) :
			     cmek_error_sys(err, errno, "listening on %s", listen_on);
	if (rc != 0) {
		if (fd >= 0)
			close(fd);
		return rc;
	}
	cmek_loopback_url(&addr, url);
	*ret_fd = fd;
	return 0;
}

/* SIGTERM and SIGINT come out of a descriptor from now on. */
static int catch_signals(int *ret_fd, struct cmek_error *err)
{
	sigset_t set;
	int fd;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 || (fd = signalfd(-1, &set, SFD_CLOEXEC)) < 0)
		return cmek_error_sys(err, errno, "catching signals");
	*ret_fd = fd;
	return 0;
}

/* Strangers talk to this process: it keeps none of root's rights but that to ask root's mounts. */
static int give_up_rights(struct cmek_error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return cmek_error_sys(err, errno, "giving up new privileges");
	return cmek_caps_keep(0, err);
}

static int start(struct server *server, const char *listen_on, char *const *volumes, size_t n, struct cmek_error *err)
{
	char url[CMEK_LOOPBACK_URL_MAX];
	json_t *result;
	int rc = listen_at(listen_on, &server->listener, url, err);

	if (rc == 0)
		rc = cmek_scrape_new(volumes, n, &server->scrape, err);
	if (rc == 0)
		rc = catch_signals(&server->signals, err);
	if (rc == 0)
		rc = give_up_rights(err);
	if (rc != 0)
		return rc;
	cmek_log_to_stderr(server->tool->program, CMEK_LOG_NOTICE);
	cmek_tool_say(server->tool, "listening on %s", url);
	result = json_pack("{s:s}", "url", url);
	cmek_tool_json(server->tool, &result);
	(void)fflush(stdout); /* cmek_tool_done() tells errors */
	cmek_notify("READY=1\nSTATUS=listening on %s", url);
	return 0;
}

int cmek_ctl_metrics_listen(struct cmek_tool *tool, const char *listen_on, char *const *volumes, size_t n)
{
	struct server *server = calloc(1, sizeof(*server));
	struct cmek_error err = CMEK_ERROR_INIT;
	size_t i;
	int rc;

	if (!server) {
		(void)cmek_error_sys(&err, ENOMEM, "serving metrics");
		return cmek_tool_fail(tool, &err);
	}
	server->tool = tool;
	server->listener = server->signals = -1;
	for (i = 0; i < CLIENTS_MAX; i++)
		server->clients[i].fd = -1;
	rc = start(server, listen_on, volumes, n, &err);
	if (rc == 0)
		rc = loop(server, &err);
	cmek_notify("STOPPING=1");
	for (i = 0; i < CLIENTS_MAX; i++) {
		if (server->clients[i].state != FREE)
			hang_up(server->clients + i);
	}
	cmek_scrape_free(server->scrape);
	if (server->listener >= 0)
		close(server->listener);
	if (server->signals >= 0)
		close(server->signals);
	free(server);
	return rc == 0 ? cmek_tool_done(tool) : cmek_tool_fail(tool, &err);
}
