/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl metrics --listen: serves one page over HTTP, by libmicrohttpd. It must not know what the page says.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/caps.h"
#include "base/log.h"
#include "base/notify.h"
#include "tools/ctl.h"
#include "tools/ctl_scrape.h"
#include "tools/loopback.h"

/* Connections at once, each with a thread; more are hung up on, until one ends or has been silent for so long. */
#define CLIENTS_MAX 64
#define SILENCE_S 5u
#define BACKLOG 64
/* What a connection may take: its request, above all, and what libmicrohttpd notes of it. */
#define CLIENT_BYTES ((size_t)16 << 10)
/* For all mounts together. Who asks may wait for two rounds: less than the 10 s after which Prometheus gives up. */
#define ROUND_MS 4000
#define TEXT_TYPE "text/plain; charset=utf-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct server {
	const struct cmek_tool *tool;
	int listener;
	struct MHD_Daemon *http;
	pthread_mutex_t lock; /* the scrape and its text; held while a round runs */
	struct cmek_scrape *scrape;
	char *text;                  /* of the last round; NULL: there is none, or it failed */
	_Atomic uint64_t begun;      /* rounds */
	uint64_t ended;
};

/* ---- rounds: one answers all who asked before it began ---- */

static void run_round(struct server *server)
{
	static struct cmek_log_limit limit;
	struct cmek_error err = CMEK_ERROR_INIT;
	const struct cmek_error *trouble;

	server->begun++;
	free(server->text);
	server->text = NULL;
	if (cmek_scrape_run(server->scrape, ROUND_MS, &err) == 0) {
		trouble = cmek_scrape_trouble(server->scrape);
		if (cmek_error_is_set(trouble))
			cmek_log_limited(&limit, CMEK_LOG_WARNING, "going on without a mount: %s", trouble->text);
		server->text = cmek_scrape_text(server->scrape);
	} else {
		cmek_log(CMEK_LOG_ERROR, "%s", err.text);
	}
	server->ended = server->begun;
}

/* ---- answers ---- */

/* body is copied. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type, const char *body)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	/* Not const, though it is only read. */
	response = MHD_create_response_from_buffer(strlen(body), (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO; /* hangs up */
	/* That a header could not be added is no memory: better without it than no answer. */
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer_metrics(struct server *server, struct MHD_Connection *connection)
{
	/* What a round found that runs already may be older than the request. */
	uint64_t wanted = server->begun + 1;
	enum MHD_Result result;

	(void)pthread_mutex_lock(&server->lock);
	if (server->ended < wanted)
		run_round(server);
	result = server->text ? answer(connection, MHD_HTTP_OK, METRICS_TYPE, server->text) :
				answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, TEXT_TYPE, "503: see the log of this server\n");
	(void)pthread_mutex_unlock(&server->lock);
	return result;
}

/* Of libmicrohttpd (MHD_AccessHandlerCallback), in the connection's thread: with the headers, with what follows, at the end. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
				  const char *version, const char *body, size_t *body_len, void **ret_begun)
{
	static char begun;
	struct server *server = arg;

	(void)version;
	(void)body;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, TEXT_TYPE, "405: there is only GET and HEAD here\n");
	if (!*ret_begun || *body_len > 0) {
		*ret_begun = &begun;
		*body_len = 0;
		return MHD_YES;
	}
	if (strcmp(path, "/metrics") == 0)
		return answer_metrics(server, connection);
	if (strcmp(path, "/") == 0)
		return answer(connection, MHD_HTTP_OK, TEXT_TYPE, "Metrics of cmekfs mounts for Prometheus: /metrics\n");
	return answer(connection, MHD_HTTP_NOT_FOUND, TEXT_TYPE, "404: there is only /metrics here\n");
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

/* Strangers talk to this process: it keeps none of root's rights but that to ask root's mounts. */
static int give_up_rights(struct cmek_error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return cmek_error_sys(err, errno, "giving up new privileges");
	return cmek_caps_keep(0, err);
}

static int start_http(struct server *server, struct cmek_error *err)
{
	const unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL;

	errno = 0;
	server->http = MHD_start_daemon(flags, 0, NULL, NULL, on_request, server,
					MHD_OPTION_LISTEN_SOCKET, (MHD_socket)server->listener,
					MHD_OPTION_CONNECTION_LIMIT, CLIENTS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, SILENCE_S,
					MHD_OPTION_CONNECTION_MEMORY_LIMIT, CLIENT_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
					MHD_OPTION_END);
	if (!server->http)
		return cmek_error_sys(err, errno ? errno : ENOMEM, "serving HTTP");
	server->listener = -1; /* the library's */
	return 0;
}

static int start(struct server *server, const char *listen_on, char *const *volumes, size_t n, struct cmek_error *err)
{
	char url[CMEK_LOOPBACK_URL_MAX];
	json_t *result;
	int rc = listen_at(listen_on, &server->listener, url, err);

	if (rc == 0)
		rc = cmek_scrape_new(volumes, n, &server->scrape, err);
	if (rc == 0)
		rc = give_up_rights(err);
	cmek_log_to_stderr(server->tool->program, CMEK_LOG_NOTICE);
	if (rc == 0)
		rc = start_http(server, err);
	if (rc != 0)
		return rc;
	cmek_tool_say(server->tool, "listening on %s", url);
	result = json_pack("{s:s}", "url", url);
	cmek_tool_json(server->tool, &result);
	(void)fflush(stdout); /* cmek_tool_done() tells errors */
	cmek_notify("READY=1\nSTATUS=listening on %s", url);
	return 0;
}

int cmek_ctl_metrics_listen(struct cmek_tool *tool, const char *listen_on, char *const *volumes, size_t n)
{
	struct server server = { .tool = tool, .listener = -1, .lock = PTHREAD_MUTEX_INITIALIZER };
	struct cmek_error err = CMEK_ERROR_INIT;
	sigset_t signals;
	int rc, which;

	/* For all threads to come: they are waited for, here. */
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	rc = start(&server, listen_on, volumes, n, &err);
	if (rc == 0)
		(void)sigwait(&signals, &which);
	cmek_notify("STOPPING=1");
	if (server.http)
		MHD_stop_daemon(server.http); /* lets its threads end */
	cmek_scrape_free(server.scrape);
	free(server.text);
	if (server.listener >= 0)
		close(server.listener);
	return rc == 0 ? cmek_tool_done(tool) : cmek_tool_fail(tool, &err);
}
