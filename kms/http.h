/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_HTTP_H
#define CMEK_KMS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/problem.h"
#include "kms/receipt.h"

/*
 * HTTP as key services need it: one request at a time, small bodies, deadlines, retries. The policy (what may be asked
 * where, what is tried again and when, what an error says) is in http.c; the transport is a table of operations, libcurl
 * (http_curl.c) or a test's. One thread at a time a struct cmek_http, which keeps its connections open for the next
 * request.
 */

/* How to reach a service. All borrowed, zero = default. */
struct cmek_http_settings {
	const char *ca_file;         /* PEM certificates to trust instead of the system's */
	const char *proxy;           /* URL, "" = none; NULL = as the environment says (https_proxy, no_proxy) */
	unsigned connect_timeout_ms; /* default 5,000 */
	unsigned attempts;           /* default 5: tries of one request, the first included */
};

struct cmek_http_header {
	const char *name;
	const char *value;                /* or: */
	const struct cmek_secret *secret; /* CMEK_KEY_TEXT */
	const char *secret_prefix;        /* before the secret: "Bearer "; NULL = nothing */
};
#define CMEK_HTTP_HEADERS_MAX 12

struct cmek_http_response {
	long status;
	char *body; /* a NUL follows; may hold secrets, wiped when freed */
	size_t body_len;
	char *headers; /* "name: value\n", names in lower case */
	struct cmek_problem problem;     /* of an answer that is no success */
	struct cmek_problem_class class; /* what it means */
	char request_id[96];             /* the service's, "" if it gave none */
	int64_t date;                    /* the service's clock, Unix seconds, 0 = not told */
};
void cmek_http_response_done(struct cmek_http_response *resp);
/* The value of a header (name in lower case) in out, cut to max: true if it is there. */
bool cmek_http_header_of(const struct cmek_http_response *resp, const char *name, char *out, size_t max);

/* A request. All borrowed. */
struct cmek_http_request {
	enum cmek_kms_service service;             /* whose codes the answer uses */
	const char *what;                          /* begins error texts: "AWS KMS, Decrypt" */
	const struct cmek_http_settings *settings; /* NULL = defaults */
	const char *method;
	const char *url; /* https, or http to a loopback address */
	struct cmek_http_header headers[CMEK_HTTP_HEADERS_MAX]; /* ends with one without a name */
	const void *body;                                       /* NULL = none */
	size_t body_len;
	/*
	 * For metadata services of a machine: plain http is fine, proxies are not, and one attempt takes timeout_ms.
	 */
	bool metadata;
	unsigned timeout_ms; /* of one attempt, 0 = what is left of the deadline */
	unsigned attempts;   /* 0 = as the settings say */
	size_t answer_max;   /* bytes of the body, default 256 KiB; more is an error */
	/* Fills code and message from the body of an answer that is no success; NULL = it has none. */
	void (*read_problem)(const struct cmek_http_response *resp, struct cmek_problem *ret_problem);
	/* Called before each attempt, when headers depend on the time (signatures). */
	int (*prepare)(void *arg, struct cmek_http_request *req, struct cmek_error *err);
	void *prepare_arg;
};

/* The transport. perform: one attempt, any status is a success. */
struct cmek_http_ops {
	/* -errno: unreachable (no answer in timeout_ms, refused, not verified), bad-format (too large), system. */
	int (*perform)(void *state, const struct cmek_http_request *req, unsigned timeout_ms,
		       struct cmek_http_response *ret_resp, struct cmek_error *err);
	uint64_t (*clock_ms)(void *state); /* monotonic */
	int64_t (*time)(void *state);      /* Unix seconds */
	void (*sleep_ms)(void *state, uint64_t ms);
	void (*close)(void *state); /* NULL allowed */
};

struct cmek_http;
/* state goes to ops->close(), also on failure. */
int cmek_http_new(const struct cmek_http_ops *ops, void *state, struct cmek_http **ret_http, struct cmek_error *err);
/* By libcurl: TLS 1.2 or later, peers verified, no redirects, HTTP/1.1. */
int cmek_http_new_curl(struct cmek_http **ret_http, struct cmek_error *err);
void cmek_http_free(struct cmek_http *http);

/* Begins a call of a user's: all requests from now on share deadline_ms (0 = 30,000), waits between them included. */
void cmek_http_begin(struct cmek_http *http, unsigned deadline_ms);
/* Waits, unless the deadline is nearer than that: then false, at once. */
bool cmek_http_wait(struct cmek_http *http, unsigned ms);
/*
 * What was answered since then, refusals included, the oldest first; of more than fit the last ones. Metadata services of
 * this machine are left out. Borrowed until the next request.
 */
#define CMEK_HTTP_RECEIPTS_MAX 64
const struct cmek_kms_receipt *cmek_http_receipts(const struct cmek_http *http, size_t *ret_n);
/* How many there were beyond those. */
uint64_t cmek_http_receipts_left_out(const struct cmek_http *http);
/* Forgets them, for a call that may not get as far as to begin. */
void cmek_http_forget(struct cmek_http *http);
/* The transport's idea of the time, Unix seconds. */
int64_t cmek_http_time(const struct cmek_http *http);

/*
 * Sends a request until it is answered by something else than "later" (throttled, or a server's fault: class.retry), as
 * often as is allowed and the deadline permits; full jitter between, and Retry-After is kept. 0: a 2xx answer is in
 * *ret_resp. Else -errno, with the kind that cmek_problem_classify() gives and a text with the service's words, HTTP
 * status and request id; *ret_resp then has the last answer's problem and class, status 0 if there was none.
 * The caller frees *ret_resp in any case. Other kinds: unreachable, bad-format, usage (a URL that may not be asked).
 */
int cmek_http_call(struct cmek_http *http, const struct cmek_http_request *req, struct cmek_http_response *ret_resp,
		   struct cmek_error *err);

/* Appends text to out (of max bytes, NUL-terminated), percent-encoded for a query or a form. False if it does not fit. */
bool cmek_http_escape(char *out, size_t max, const char *text);

#endif
