/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The policy of HTTP requests: which URLs may be asked, deadlines, what is tried again and when, and the sentence about
 * a request that failed. It must not know how bytes travel, nor what a body means.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/http.h"

#define DEADLINE_DEFAULT_MS 30000
#define ATTEMPTS_DEFAULT 5
#define BACKOFF_FIRST_MS 200
#define BACKOFF_MAX_MS 8000
#define RETRY_AFTER_MAX_S 3600

struct cmek_http {
	const struct cmek_http_ops *ops;
	void *state;
	uint64_t deadline; /* clock_ms() at which the call ends */
	unsigned deadline_ms;
	struct cmek_kms_receipt receipts[CMEK_HTTP_RECEIPTS_MAX];
	size_t n_receipts;
	uint64_t n_answered; /* since the first of them */
};

int cmek_http_new(const struct cmek_http_ops *ops, void *state, struct cmek_http **ret_http, struct cmek_error *err)
{
	struct cmek_http *http = calloc(1, sizeof(*http));

	if (!http) {
		if (ops->close)
			ops->close(state);
		return cmek_error_sys(err, ENOMEM, "preparing for HTTP");
	}
	http->ops = ops;
	http->state = state;
	cmek_http_begin(http, 0);
	*ret_http = http;
	return 0;
}

void cmek_http_free(struct cmek_http *http)
{
	if (!http)
		return;
	if (http->ops->close)
		http->ops->close(http->state);
	free(http);
}

void cmek_http_begin(struct cmek_http *http, unsigned deadline_ms)
{
	http->deadline_ms = deadline_ms ? deadline_ms : DEADLINE_DEFAULT_MS;
	http->deadline = http->ops->clock_ms(http->state) + http->deadline_ms;
	cmek_http_forget(http);
}

void cmek_http_forget(struct cmek_http *http)
{
	http->n_receipts = 0;
	http->n_answered = 0;
}

bool cmek_http_wait(struct cmek_http *http, unsigned ms)
{
	if (http->ops->clock_ms(http->state) + ms >= http->deadline)
		return false;
	http->ops->sleep_ms(http->state, ms);
	return true;
}

int64_t cmek_http_time(const struct cmek_http *http)
{
	return http->ops->time(http->state);
}

void cmek_http_response_done(struct cmek_http_response *resp)
{
	if (!resp)
		return;
	if (resp->body)
		cmek_wipe(resp->body, resp->body_len);
	free(resp->body);
	free(resp->headers);
	memset(resp, 0, sizeof(*resp));
}

bool cmek_http_header_of(const struct cmek_http_response *resp, const char *name, char *out, size_t max)
{
	size_t len = strlen(name);
	const char *line = resp->headers;

	while (line && *line) {
		const char *end = strchrnul(line, '\n');

		if (strncmp(line, name, len) == 0 && line[len] == ':') {
			line += len + 1;
			line += strspn(line, " \t");
			cmek_problem_text(out, max, line, (size_t)(end - line));
			return true;
		}
		line = *end ? end + 1 : end;
	}
	return false;
}

bool cmek_http_escape(char *out, size_t max, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	size_t n = strlen(out);

	for (; *text; text++) {
		if (strchr(plain, *text)) {
			if (n + 2 > max)
				return false;
			out[n++] = *text;
		} else {
			if (n + 4 > max)
				return false;
			snprintf(out + n, 4, "%%%02X", (unsigned char)*text);
			n += 3;
		}
	}
	out[n] = '\0';
	return true;
}

/* host[:port] of a URL's authority is this machine by its own address or name. */
static bool is_loopback(const char *host, size_t len)
{
	static const char *const names[] = { "localhost", "[::1]" };
	size_t name_len = 0, i;

	while (name_len < len && host[name_len] != ':')
		name_len++;
	if (len > 0 && host[0] == '[')
		name_len = (size_t)((const char *)memchr(host, ']', len) - host) + 1;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (name_len == strlen(names[i]) && strncasecmp(host, names[i], name_len) == 0)
			return true;
	}
	/* 127.0.0.0/8 in dotted form: digits and dots only, so that 127.example.com is not meant. */
	return name_len > 4 && strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= name_len;
}

static int check_url(const struct cmek_http_request *req, struct cmek_error *err)
{
	const char *host;
	size_t len;

	if (strncmp(req->url, "https://", 8) == 0)
		host = req->url + 8;
	else if (strncmp(req->url, "http://", 7) == 0)
		host = req->url + 7;
	else
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: '%.200s' is not an http(s) URL", req->what, req->url);
	len = strcspn(host, "/?#");
	if (len == 0 || memchr(host, '@', len) || (host[0] == '[' && !memchr(host, ']', len)))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: '%.200s' names no host", req->what, req->url);
	if (host == req->url + 7 && !req->metadata && !is_loopback(host, len))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "%s: '%.200s': http without TLS is only for this machine itself", req->what, req->url);
	return 0;
}

/* Seconds of a Retry-After header (RFC 9110 s10.2.3), whose other form, a date, no key service sends; 0 = none. */
static uint64_t retry_after_ms(const struct cmek_http_response *resp)
{
	char text[32];
	uint64_t s;

	if (!cmek_http_header_of(resp, "retry-after", text, sizeof(text)) ||
	    cmek_parse_u64(text, RETRY_AFTER_MAX_S, &s) != 0)
		return 0;
	return s * 1000;
}

/* Full jitter: anything up to a bound that doubles. */
static uint64_t backoff_ms(unsigned attempt)
{
	uint64_t bound = (uint64_t)BACKOFF_FIRST_MS << (attempt < 10 ? attempt : 10), r;

	if (bound > BACKOFF_MAX_MS)
		bound = BACKOFF_MAX_MS;
	cmek_random(&r, sizeof(r));
	return r % (bound + 1);
}

static void find_request_id(struct cmek_http_response *resp)
{
	static const char *const names[] = { "x-amzn-requestid", "x-amz-request-id", "correlation-id", "x-correlation-id",
					     "transaction-id", "x-goog-request-id", "x-request-id" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (cmek_http_header_of(resp, names[i], resp->request_id, sizeof(resp->request_id)))
			return;
	}
}

static void keep_receipt(struct cmek_http *http, const struct cmek_http_request *req, const struct cmek_http_response *resp)
{
	struct cmek_kms_receipt *receipt;

	if (req->metadata)
		return;
	if (http->n_receipts == CMEK_HTTP_RECEIPTS_MAX)
		memmove(http->receipts, http->receipts + 1, --http->n_receipts * sizeof(http->receipts[0]));
	receipt = &http->receipts[http->n_receipts++];
	http->n_answered++;
	snprintf(receipt->what, sizeof(receipt->what), "%s", req->what);
	snprintf(receipt->request_id, sizeof(receipt->request_id), "%s", resp->request_id);
	receipt->status = resp->status;
	receipt->date = resp->date;
}

const struct cmek_kms_receipt *cmek_http_receipts(const struct cmek_http *http, size_t *ret_n)
{
	*ret_n = http->n_receipts;
	return http->receipts;
}

uint64_t cmek_http_receipts_left_out(const struct cmek_http *http)
{
	return http->n_answered - http->n_receipts;
}

static int refused(const struct cmek_http_request *req, const struct cmek_http_response *resp, unsigned attempt,
		   const char *gave_up, struct cmek_error *err)
{
	const struct cmek_problem *p = &resp->problem;
	char tries[32] = "";

	if (attempt > 1)
		snprintf(tries, sizeof(tries), ", %u attempts", attempt);
	return cmek_error_set(err, resp->class.kind, resp->class.err, "%s: %s%s%s (HTTP %ld%s%s%s%s)", req->what,
			      p->code[0] ? p->code : p->message[0] ? "" : "refused", p->code[0] && p->message[0] ? ": " : "",
			      p->message, resp->status, resp->request_id[0] ? ", request id " : "", resp->request_id, tries,
			      gave_up);
}

static int timed_out(const struct cmek_http *http, const struct cmek_http_request *req, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_UNREACHABLE, ETIMEDOUT, "%s: no time left: %u ms are the limit for all of it",
			      req->what, http->deadline_ms);
}

/* One attempt, with what is said about its answer. 0: there is an answer. */
static int attempt_once(struct cmek_http *http, struct cmek_http_request *req, uint64_t left_ms,
			struct cmek_http_response *resp, struct cmek_error *err)
{
	unsigned timeout_ms = left_ms > UINT32_MAX / 2 ? UINT32_MAX / 2 : (unsigned)left_ms;
	int rc = 0;

	if (req->timeout_ms && req->timeout_ms < timeout_ms)
		timeout_ms = req->timeout_ms;
	if (req->prepare)
		rc = req->prepare(req->prepare_arg, req, err);
	if (rc == 0)
		rc = http->ops->perform(http->state, req, timeout_ms, resp, err);
	if (rc < 0)
		return rc;
	find_request_id(resp);
	keep_receipt(http, req, resp);
	if (resp->status >= 200 && resp->status <= 299)
		return 0;
	if (req->read_problem)
		req->read_problem(resp, &resp->problem);
	resp->class = cmek_problem_classify(req->service, resp->status, resp->problem.code);
	return 0;
}

int cmek_http_call(struct cmek_http *http, const struct cmek_http_request *req, struct cmek_http_response *ret_resp,
		   struct cmek_error *err)
{
	unsigned attempts = req->attempts, attempt;
	struct cmek_http_request mine = *req;
	int rc;

	memset(ret_resp, 0, sizeof(*ret_resp));
	rc = check_url(req, err);
	if (rc < 0)
		return rc;
	if (attempts == 0 && req->settings)
		attempts = req->settings->attempts;
	if (attempts == 0)
		attempts = ATTEMPTS_DEFAULT;
	for (attempt = 1;; attempt++) {
		uint64_t now = http->ops->clock_ms(http->state), wait_ms, asked_ms;

		if (now >= http->deadline)
			return timed_out(http, req, err);
		rc = attempt_once(http, &mine, http->deadline - now, ret_resp, err);
		if (rc < 0)
			return rc;
		if (ret_resp->status >= 200 && ret_resp->status <= 299)
			return 0;
		if (!ret_resp->class.retry || attempt >= attempts)
			return refused(req, ret_resp, attempt, "", err);
		wait_ms = backoff_ms(attempt - 1);
		asked_ms = retry_after_ms(ret_resp);
		if (wait_ms < asked_ms)
			wait_ms = asked_ms;
		now = http->ops->clock_ms(http->state);
		if (now + wait_ms >= http->deadline)
			return refused(req, ret_resp, attempt, ", no time left for another", err);
		cmek_http_response_done(ret_resp);
		http->ops->sleep_ms(http->state, wait_ms);
	}
}
