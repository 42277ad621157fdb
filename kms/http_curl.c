/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One attempt of a request by libcurl, of which nothing is known elsewhere. It must not know what requests mean, and
 * never tries anything twice.
 */
#include "config.h"

#include <curl/curl.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "kms/http.h"

#define CONNECT_TIMEOUT_DEFAULT_MS 5000
#define ANSWER_MAX_DEFAULT (256u << 10)
#define HEADERS_MAX (32u << 10)

struct transport {
	CURL *curl; /* keeps connections and their TLS sessions */
};

/* What arrives; grows up to its bound, what it leaves is wiped. */
struct sink {
	char *data;
	size_t len, room, max;
	bool too_large, no_memory;
};

static CURLcode global_result = CURLE_FAILED_INIT;

/* Requests and answers hold tokens and keys; libcurl itself frees its copies as they are. */
static void wiping_free(void *p)
{
	if (p)
		cmek_wipe(p, malloc_usable_size(p));
	free(p);
}

static void *wiping_realloc(void *p, size_t n)
{
	size_t old = p ? malloc_usable_size(p) : 0;
	void *q = malloc(n);

	if (!q)
		return NULL;
	if (p)
		memcpy(q, p, old < n ? old : n);
	wiping_free(p);
	return q;
}

static void global_init(void)
{
	global_result = curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc, strdup, calloc);
}

static bool sink_add(struct sink *s, const char *data, size_t n)
{
	if (n > s->max - s->len) {
		s->too_large = true;
		return false;
	}
	if (s->len + n + 1 > s->room) {
		size_t room = s->room ? s->room : 4096;
		char *grown;

		while (room < s->len + n + 1)
			room *= 2;
		grown = malloc(room);
		if (!grown) {
			s->no_memory = true;
			return false;
		}
		if (s->data) {
			memcpy(grown, s->data, s->len);
			cmek_wipe(s->data, s->len);
			free(s->data);
		}
		s->data = grown;
		s->room = room;
	}
	memcpy(s->data + s->len, data, n);
	s->len += n;
	s->data[s->len] = '\0';
	return true;
}

static void sink_free(struct sink *s)
{
	if (s->data)
		cmek_wipe(s->data, s->len);
	free(s->data);
}

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	return sink_add(arg, data, size * n) ? size * n : 0;
}

/* One line. A status line begins anew: what came before belonged to a proxy or to "100 Continue". */
static size_t take_header(char *data, size_t size, size_t n, void *arg)
{
	struct sink *s = arg;
	size_t len = size * n, kept = len, i;
	char line[2048];

	if (len > 5 && strncmp(data, "HTTP/", 5) == 0) {
		s->len = 0;
		return len;
	}
	while (kept > 0 && (data[kept - 1] == '\n' || data[kept - 1] == '\r'))
		kept--;
	if (kept == 0 || kept + 1 > sizeof(line))
		return len;
	memcpy(line, data, kept);
	for (i = 0; i < kept && line[i] != ':'; i++) {
		if (line[i] >= 'A' && line[i] <= 'Z')
			line[i] = (char)(line[i] - 'A' + 'a');
	}
	line[kept] = '\n';
	return sink_add(s, line, kept + 1) ? len : 0;
}

/* What libcurl says, as kind and errno. */
static int curl_failed(const struct cmek_http_request *req, CURLcode code, const char *detail, unsigned timeout_ms,
		       struct cmek_error *err)
{
	int errnum = ECONNRESET;

	switch (code) {
	case CURLE_OUT_OF_MEMORY:
		return cmek_error_sys(err, ENOMEM, "%s", req->what);
	case CURLE_OPERATION_TIMEDOUT:
		return cmek_error_set(err, CMEK_E_UNREACHABLE, ETIMEDOUT, "%s: no answer from %.200s in time (%u ms): %s",
				      req->what, req->url, timeout_ms, detail);
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		errnum = EHOSTUNREACH;
		break;
	case CURLE_COULDNT_CONNECT:
		errnum = ECONNREFUSED;
		break;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		errnum = EPROTO;
		break;
	default:
		break;
	}
	return cmek_error_set(err, CMEK_E_UNREACHABLE, errnum, "%s: can't reach %.200s: %s", req->what, req->url, detail);
}

/* A header line; the copies that libcurl takes are wiped with its list. */
static int add_header(struct curl_slist **list, const struct cmek_http_header *h)
{
	const char *prefix = h->secret && h->secret_prefix ? h->secret_prefix : "";
	const char *value = h->secret ? (const char *)cmek_secret_bytes(h->secret, CMEK_KEY_TEXT) : h->value;
	struct curl_slist *longer;
	char *line = NULL;
	int n;

	n = asprintf(&line, "%s: %s%s", h->name, prefix, value);
	if (n < 0)
		return -ENOMEM;
	longer = strpbrk(line, "\r\n") ? NULL : curl_slist_append(*list, line);
	cmek_wipe(line, (size_t)n);
	free(line);
	if (!longer)
		return -EINVAL;
	*list = longer;
	return 0;
}

static int build_headers(const struct cmek_http_request *req, struct curl_slist **list)
{
	struct curl_slist *first = curl_slist_append(NULL, "Expect:"); /* none: bodies are small */
	int rc = 0;

	if (!first)
		return -ENOMEM;
	*list = first;
	for (size_t i = 0; rc == 0 && i < CMEK_HTTP_HEADERS_MAX && req->headers[i].name; i++)
		rc = add_header(list, &req->headers[i]);
	return rc;
}

/* The options of one request, on a handle whose options were reset. */
static CURLcode set_options(CURL *curl, const struct cmek_http_request *req, unsigned timeout_ms)
{
	static const struct cmek_http_settings defaults;
	const struct cmek_http_settings *s = req->settings ? req->settings : &defaults;
	unsigned connect_ms = s->connect_timeout_ms ? s->connect_timeout_ms : CONNECT_TIMEOUT_DEFAULT_MS;
	CURLcode rc = CURLE_OK;

	if (connect_ms > timeout_ms)
		connect_ms = timeout_ms;
#define SET(option, value)                                          \
	do {                                                        \
		if (rc == CURLE_OK)                                 \
			rc = curl_easy_setopt(curl, option, value); \
	} while (0)
	SET(CURLOPT_URL, req->url);
	SET(CURLOPT_CUSTOMREQUEST, req->method);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
	SET(CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	SET(CURLOPT_USERAGENT, "cmekfs/" PACKAGE_VERSION);
	if (s->ca_file) {
		SET(CURLOPT_CAINFO, s->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (req->metadata)
		SET(CURLOPT_PROXY, "");
	else if (s->proxy)
		SET(CURLOPT_PROXY, s->proxy);
	if (req->body) {
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body_len);
		SET(CURLOPT_POSTFIELDS, req->body);
		SET(CURLOPT_CUSTOMREQUEST, req->method);
	}
#undef SET
	return rc;
}

static int transfer(struct transport *t, const struct cmek_http_request *req, unsigned timeout_ms,
		    struct curl_slist *headers, struct sink *body, struct sink *head, struct cmek_http_response *resp,
		    struct cmek_error *err)
{
	char detail[CURL_ERROR_SIZE] = "";
	char date[64];
	CURLcode code;

	curl_easy_reset(t->curl); /* connections stay */
	code = set_options(t->curl, req, timeout_ms);
	if (code == CURLE_OK &&
	    (curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers) || curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, detail) ||
	     curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, take_body) ||
	     curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, body) ||
	     curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, take_header) ||
	     curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, head)))
		code = CURLE_OUT_OF_MEMORY;
	if (code == CURLE_OK)
		code = curl_easy_perform(t->curl);
	if (body->no_memory || head->no_memory)
		return cmek_error_sys(err, ENOMEM, "%s", req->what);
	if (body->too_large || head->too_large)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EMSGSIZE, "%s: %.200s answers with more than %zu bytes",
				      req->what, req->url, body->too_large ? body->max : head->max);
	if (code != CURLE_OK)
		return curl_failed(req, code, detail[0] ? detail : curl_easy_strerror(code), timeout_ms, err);
	(void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &resp->status);
	resp->body = body->data;
	resp->body_len = body->len;
	resp->headers = head->data;
	body->data = head->data = NULL;
	if (cmek_http_header_of(resp, "date", date, sizeof(date))) {
		time_t when = curl_getdate(date, NULL);

		resp->date = when < 0 ? 0 : when;
	}
	return 0;
}

static int perform(void *state, const struct cmek_http_request *req, unsigned timeout_ms,
		   struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	struct sink body = { .max = req->answer_max ? req->answer_max : ANSWER_MAX_DEFAULT };
	struct sink head = { .max = HEADERS_MAX };
	struct curl_slist *headers = NULL;
	struct transport *t = state;
	int rc;

	rc = build_headers(req, &headers);
	if (rc < 0)
		rc = cmek_error_sys(err, -rc, "%s: the headers", req->what);
	else
		rc = transfer(t, req, timeout_ms, headers, &body, &head, ret_resp, err);
	/* An empty body is still a text. */
	if (rc == 0 && !ret_resp->body) {
		ret_resp->body = calloc(1, 1);
		if (!ret_resp->body)
			rc = cmek_error_sys(err, ENOMEM, "%s", req->what);
	}
	curl_slist_free_all(headers);
	sink_free(&body);
	sink_free(&head);
	return rc;
}

static uint64_t clock_ms(void *state)
{
	struct timespec t;

	(void)state;
	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* can't fail */
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int64_t wall_time(void *state)
{
	(void)state;
	return (int64_t)time(NULL);
}

static void sleep_ms(void *state, uint64_t ms)
{
	struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

	(void)state;
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

static void transport_close(void *state)
{
	struct transport *t = state;

	if (!t)
		return;
	if (t->curl)
		curl_easy_cleanup(t->curl);
	free(t);
}

static const struct cmek_http_ops curl_ops = {
	.perform = perform,
	.clock_ms = clock_ms,
	.time = wall_time,
	.sleep_ms = sleep_ms,
	.close = transport_close,
};

int cmek_http_new_curl(struct cmek_http **ret_http, struct cmek_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct transport *t;

	pthread_once(&once, global_init);
	if (global_result != CURLE_OK)
		return cmek_error_set(err, CMEK_E_SYSTEM, EIO, "libcurl: %s", curl_easy_strerror(global_result));
	t = calloc(1, sizeof(*t));
	if (t)
		t->curl = curl_easy_init();
	if (!t || !t->curl) {
		transport_close(t);
		return cmek_error_sys(err, ENOMEM, "preparing for HTTP");
	}
	return cmek_http_new(&curl_ops, t, ret_http, err);
}
