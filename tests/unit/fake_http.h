/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_FAKE_HTTP_H
#define CMEK_TESTS_FAKE_HTTP_H

/*
 * A transport whose answers a test writes down in advance, and whose time passes only by sleeping. What was asked is kept
 * for the test to look at.
 */
#include "kms/http.h"
#include "tests/unit/unit.h"

#define FAKE_MAX 32

struct fake_answer {
	long status; /* 0: no answer, the attempt is cut off as unreachable */
	const char *headers;
	const char *body;
	unsigned takes_ms;
	int64_t date; /* the service's clock */
};

struct fake_http {
	struct fake_answer answers[FAKE_MAX]; /* the n-th for the n-th request */
	unsigned n_answers;
	unsigned n_asked;
	char *urls[FAKE_MAX], *headers[FAKE_MAX], *bodies[FAKE_MAX];
	unsigned timeouts[FAKE_MAX];
	uint64_t clock_ms, slept_ms;
	int64_t time;
};

static inline char *fake_join_headers(const struct cmek_http_request *req)
{
	char *all = strdup("");

	for (unsigned i = 0; i < CMEK_HTTP_HEADERS_MAX && req->headers[i].name; i++) {
		const struct cmek_http_header *h = &req->headers[i];
		char *longer;

		ck_assert_int_gt(asprintf(&longer, "%s%s: %s%s\n", all, h->name, h->secret_prefix ? h->secret_prefix : "",
					  h->secret ? (const char *)cmek_secret_bytes(h->secret, CMEK_KEY_TEXT) : h->value),
				 0);
		free(all);
		all = longer;
	}
	return all;
}

static inline int fake_perform(void *state, const struct cmek_http_request *req, unsigned timeout_ms,
			       struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	struct fake_http *f = state;
	unsigned i = f->n_asked;
	const struct fake_answer *a = &f->answers[i];

	ck_assert_msg(i < f->n_answers, "request %u was not expected: %s", i, req->url);
	f->n_asked++;
	f->urls[i] = strdup(req->url);
	f->headers[i] = fake_join_headers(req);
	f->bodies[i] = strndup(req->body ? req->body : "", req->body_len);
	f->timeouts[i] = timeout_ms;
	if (a->takes_ms > timeout_ms || a->status == 0) {
		f->clock_ms += a->takes_ms > timeout_ms ? timeout_ms : a->takes_ms;
		return cmek_error_set(err, CMEK_E_UNREACHABLE, ETIMEDOUT, "%s: no answer", req->what);
	}
	f->clock_ms += a->takes_ms;
	ret_resp->status = a->status;
	ret_resp->date = a->date;
	ret_resp->headers = strdup(a->headers ? a->headers : "");
	ret_resp->body = strdup(a->body ? a->body : "");
	ret_resp->body_len = strlen(ret_resp->body);
	return 0;
}

static inline uint64_t fake_clock_ms(void *state)
{
	return ((struct fake_http *)state)->clock_ms;
}

static inline int64_t fake_time(void *state)
{
	return ((struct fake_http *)state)->time;
}

static inline void fake_sleep_ms(void *state, uint64_t ms)
{
	struct fake_http *f = state;

	f->clock_ms += ms;
	f->slept_ms += ms;
}

static const struct cmek_http_ops fake_ops = {
	.perform = fake_perform,
	.clock_ms = fake_clock_ms,
	.time = fake_time,
	.sleep_ms = fake_sleep_ms,
};

/* Forgets what was asked and answered. */
static inline void fake_reset(struct fake_http *f)
{
	for (unsigned i = 0; i < f->n_asked; i++) {
		free(f->urls[i]);
		free(f->headers[i]);
		free(f->bodies[i]);
	}
	memset(f, 0, sizeof(*f));
}

static inline void fake_says(struct fake_http *f, long status, const char *headers, const char *body)
{
	ck_assert_uint_lt(f->n_answers, FAKE_MAX);
	f->answers[f->n_answers++] = (struct fake_answer){ status, headers, body, 0, 0 };
}

#endif
