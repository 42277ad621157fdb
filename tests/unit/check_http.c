/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The policy of requests, over a transport that the test writes: URLs, retries, waits, deadlines, sentences. */
#include "config.h"

#include "tests/unit/fake_http.h"

static struct fake_http fake;
static struct cmek_http *http;
static struct cmek_http_response resp;
static struct cmek_error err;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	ck_assert_int_eq(cmek_http_new(&fake_ops, &fake, &http, &err), 0);
}

static void teardown(void)
{
	cmek_http_response_done(&resp);
	cmek_http_free(http);
	fake_reset(&fake);
}

/* A code is the whole body. */
static void read_problem(const struct cmek_http_response *r, struct cmek_problem *p)
{
	cmek_problem_text(p->code, sizeof(p->code), r->body, r->body_len);
}

static struct cmek_http_request request(void)
{
	return (struct cmek_http_request){ .service = CMEK_KMS_SERVICE_AWS, .what = "AWS KMS, Decrypt", .method = "POST",
					   .url = "https://kms.test/", .read_problem = read_problem };
}

static const struct {
	const char *url;
	bool metadata, ok;
} url_rows[] = {
	{ "https://kms.eu-central-1.amazonaws.com/", false, true },
	{ "https://h", false, true },
	{ "http://kms.test/", false, false },
	{ "http://127.0.0.1:8080/", false, true },
	{ "http://127.255.0.9/x", false, true },
	{ "http://127.0.0.1.example.com/", false, false },
	{ "http://127.example.com/", false, false },
	{ "http://localhost:1/", false, true },
	{ "http://localhost.example.com/", false, false },
	{ "http://[::1]:1/", false, true },
	{ "http://[::1", false, false },
	{ "http://[::1@evil]/", false, false },
	{ "http://169.254.169.254/latest", true, true },
	{ "http://169.254.169.254/latest", false, false },
	{ "http://localhost@example.com/", false, false },
	{ "https://user:password@example.com/", false, false },
	{ "https:///path", false, false },
	{ "ftp://h/", false, false },
	{ "file:///etc/passwd", true, false },
	{ "", false, false },
};

START_TEST(urls_are_checked)
{
	struct cmek_http_request req = request();

	req.url = url_rows[_i].url;
	req.metadata = url_rows[_i].metadata;
	fake_says(&fake, 200, NULL, "ok");
	ck_assert_msg((cmek_http_call(http, &req, &resp, &err) == 0) == url_rows[_i].ok, "%s", req.url);
	ck_assert_uint_eq(fake.n_asked, url_rows[_i].ok);
	if (!url_rows[_i].ok)
		ck_assert_int_eq(err.kind, CMEK_E_USAGE);
}
END_TEST

static const struct {
	long status;
	const char *code;
	unsigned asked; /* with 3 attempts allowed */
	enum cmek_kind kind;
	int err;
} answer_rows[] = {
	{ 400, "ThrottlingException", 3, CMEK_E_THROTTLED, EAGAIN },
	{ 500, "KMSInternalException", 3, CMEK_E_UNREACHABLE, ETIMEDOUT },
	{ 503, "", 3, CMEK_E_UNREACHABLE, ETIMEDOUT },
	{ 502, "<html>", 3, CMEK_E_UNREACHABLE, ETIMEDOUT },
	{ 429, "", 3, CMEK_E_THROTTLED, EAGAIN },
	{ 400, "AccessDeniedException", 1, CMEK_E_DENIED, EACCES },
	{ 400, "DisabledException", 1, CMEK_E_KEY_DISABLED, EKEYREVOKED },
	{ 400, "NotFoundException", 1, CMEK_E_NOT_FOUND, ENOKEY },
	{ 400, "ExpiredTokenException", 1, CMEK_E_EXPIRED, EKEYEXPIRED },
	{ 400, "InvalidCiphertextException", 1, CMEK_E_TAMPERED, EBADMSG },
	{ 400, "", 1, CMEK_E_BAD_FORMAT, EPROTO },
	{ 301, "", 1, CMEK_E_BAD_FORMAT, EPROTO }, /* redirects are not followed */
	{ 418, "IAmATeapot", 1, CMEK_E_BAD_FORMAT, EPROTO },
};

START_TEST(answers_have_kinds)
{
	const struct cmek_http_settings settings = { .attempts = 3 };
	struct cmek_http_request req = request();

	req.settings = &settings;
	for (int i = 0; i < 3; i++)
		fake_says(&fake, answer_rows[_i].status, "x-amzn-requestid: id-7\n", answer_rows[_i].code);
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -answer_rows[_i].err);
	ck_assert_uint_eq(fake.n_asked, answer_rows[_i].asked);
	ck_assert_int_eq(err.kind, answer_rows[_i].kind);
	ck_assert_ptr_nonnull(strstr(err.text, "AWS KMS, Decrypt"));
	ck_assert_ptr_nonnull(strstr(err.text, "request id id-7"));
	ck_assert_int_eq(resp.status, answer_rows[_i].status);
	ck_assert_str_eq(resp.problem.code, answer_rows[_i].code);
}
END_TEST

START_TEST(later_is_tried_again)
{
	struct cmek_http_request req = request();

	fake_says(&fake, 400, NULL, "ThrottlingException");
	fake_says(&fake, 503, NULL, "");
	fake_says(&fake, 200, "x-amzn-requestid: a\n", "fine");
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
	ck_assert_uint_eq(fake.n_asked, 3);
	ck_assert_str_eq(resp.body, "fine");
	ck_assert_str_eq(resp.request_id, "a");
	ck_assert_uint_le(fake.slept_ms, 200 + 400); /* full jitter: from nothing to the bound */
}
END_TEST

START_TEST(no_answer_is_not_tried_again)
{
	struct cmek_http_request req = request();

	fake_says(&fake, 0, NULL, NULL);
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -ETIMEDOUT);
	ck_assert_uint_eq(fake.n_asked, 1);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	ck_assert_int_eq(resp.status, 0);
}
END_TEST

START_TEST(retry_after_is_kept)
{
	struct cmek_http_request req = request();

	fake_says(&fake, 429, "retry-after: 3\n", "");
	fake_says(&fake, 200, NULL, "");
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
	ck_assert_uint_ge(fake.slept_ms, 3000);
	ck_assert_uint_lt(fake.slept_ms, 3200);
}
END_TEST

START_TEST(a_wait_beyond_the_deadline_is_not_begun)
{
	struct cmek_http_request req = request();

	fake_says(&fake, 429, "retry-after: 60\n", "");
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -EAGAIN);
	ck_assert_int_eq(err.kind, CMEK_E_THROTTLED);
	ck_assert_uint_eq(fake.slept_ms, 0);
	ck_assert_ptr_nonnull(strstr(err.text, "no time left"));
}
END_TEST

START_TEST(requests_share_a_deadline)
{
	struct cmek_http_request req = request();

	cmek_http_begin(http, 10000);
	fake_says(&fake, 200, NULL, "");
	fake.answers[0].takes_ms = 9000;
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
	cmek_http_response_done(&resp);
	fake_says(&fake, 200, NULL, "");
	fake.answers[1].takes_ms = 5000;
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -ETIMEDOUT);
	ck_assert_uint_eq(fake.timeouts[1], 1000);
	ck_assert_uint_eq(fake.clock_ms, 10000);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -ETIMEDOUT); /* without asking */
	ck_assert_uint_eq(fake.n_asked, 2);
	ck_assert_ptr_nonnull(strstr(err.text, "10000 ms"));
}
END_TEST

START_TEST(one_attempt_may_be_shorter)
{
	struct cmek_http_request req = request();

	req.timeout_ms = 1000;
	req.attempts = 1;
	fake_says(&fake, 503, NULL, "");
	ck_assert_int_lt(cmek_http_call(http, &req, &resp, &err), 0);
	ck_assert_uint_eq(fake.timeouts[0], 1000);
	ck_assert_uint_eq(fake.n_asked, 1);
}
END_TEST

static int prepare(void *arg, struct cmek_http_request *req, struct cmek_error *e)
{
	static const char *const words[] = { "first", "second" };
	unsigned *n = arg;

	(void)e;
	req->headers[0] = (struct cmek_http_header){ .name = "Attempt", .value = words[(*n)++] };
	return 0;
}

START_TEST(each_attempt_is_prepared)
{
	struct cmek_http_request req = request();
	unsigned n = 0;

	req.prepare = prepare;
	req.prepare_arg = &n;
	fake_says(&fake, 500, NULL, "");
	fake_says(&fake, 200, NULL, "");
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
	ck_assert_str_eq(fake.headers[0], "Attempt: first\n");
	ck_assert_str_eq(fake.headers[1], "Attempt: second\n");
}
END_TEST

START_TEST(texts_of_services_are_made_printable)
{
	struct cmek_http_request req = request();

	fake_says(&fake, 400, "x-amzn-requestid: a\x1b[2Jb\n", "Bad\x1b[31m\nThing\xff");
	ck_assert_int_lt(cmek_http_call(http, &req, &resp, &err), 0);
	for (const char *p = err.text; *p; p++)
		ck_assert_msg(*p >= ' ' && *p <= '~', "%s", err.text);
}
END_TEST

/* Of each answer since the call began, and of the last ones when there are many. */
START_TEST(receipts_are_kept)
{
	const struct cmek_kms_receipt *receipts;
	struct cmek_http_request req = request();
	size_t n;

	fake_says(&fake, 503, "x-request-id: first\n", "");
	fake_says(&fake, 200, "x-amzn-requestid: second\n", "ok");
	fake.answers[1].date = 1700000000;
	fake_says(&fake, 200, NULL, "ok");
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
	cmek_http_response_done(&resp);
	receipts = cmek_http_receipts(http, &n);
	ck_assert_uint_eq(n, 2);
	ck_assert_str_eq(receipts[0].request_id, "first");
	ck_assert_int_eq(receipts[0].status, 503);
	ck_assert_int_eq(receipts[0].date, 0);
	ck_assert_str_eq(receipts[1].what, "AWS KMS, Decrypt");
	ck_assert_str_eq(receipts[1].request_id, "second");
	ck_assert_int_eq(receipts[1].date, 1700000000);
	req.metadata = true;
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
	(void)cmek_http_receipts(http, &n);
	ck_assert_uint_eq(n, 2);
	cmek_http_begin(http, 0);
	(void)cmek_http_receipts(http, &n);
	ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(only_the_last_receipts_are_kept)
{
	const struct cmek_kms_receipt *receipts;
	struct cmek_http_request req = request();
	char text[32];
	size_t n;
	int i;

	for (i = 0; i < CMEK_HTTP_RECEIPTS_MAX + 3; i++) {
		fake.n_asked = fake.n_answers = 0; /* the same place again */
		snprintf(text, sizeof(text), "x-request-id: %d\n", i);
		fake_says(&fake, 200, text, "ok");
		ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), 0);
		cmek_http_response_done(&resp);
		fake_reset(&fake);
	}
	receipts = cmek_http_receipts(http, &n);
	ck_assert_uint_eq(n, CMEK_HTTP_RECEIPTS_MAX);
	ck_assert_str_eq(receipts[0].request_id, "3");
	snprintf(text, sizeof(text), "%d", CMEK_HTTP_RECEIPTS_MAX + 2);
	ck_assert_str_eq(receipts[n - 1].request_id, text);
	ck_assert_uint_eq(cmek_http_receipts_left_out(http), 3);
	cmek_http_forget(http);
	(void)cmek_http_receipts(http, &n);
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(cmek_http_receipts_left_out(http), 0);
}
END_TEST

START_TEST(headers_are_found_by_name)
{
	struct cmek_http_response r = { .headers = (char *)"date: x\nretry-after:  5\nempty:\nlast: end" };
	char text[8];

	ck_assert(cmek_http_header_of(&r, "retry-after", text, sizeof(text)));
	ck_assert_str_eq(text, "5");
	ck_assert(cmek_http_header_of(&r, "empty", text, sizeof(text)));
	ck_assert_str_eq(text, "");
	ck_assert(cmek_http_header_of(&r, "last", text, sizeof(text)));
	ck_assert_str_eq(text, "end");
	ck_assert(!cmek_http_header_of(&r, "retry", text, sizeof(text)));
	ck_assert(!cmek_http_header_of(&r, "after", text, sizeof(text)));
}
END_TEST

START_TEST(forms_are_escaped)
{
	char out[32] = "a=";

	ck_assert(cmek_http_escape(out, sizeof(out), "x y/\xc3\xa4~-_."));
	ck_assert_str_eq(out, "a=x%20y%2F%C3%A4~-_.");
	ck_assert(!cmek_http_escape(out, sizeof(out), "more than fits"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http");
	TCase *t = tcase_create("http");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, urls_are_checked, 0, UNIT_ROWS(url_rows));
	tcase_add_loop_test(t, answers_have_kinds, 0, UNIT_ROWS(answer_rows));
	tcase_add_test(t, later_is_tried_again);
	tcase_add_test(t, no_answer_is_not_tried_again);
	tcase_add_test(t, retry_after_is_kept);
	tcase_add_test(t, a_wait_beyond_the_deadline_is_not_begun);
	tcase_add_test(t, requests_share_a_deadline);
	tcase_add_test(t, one_attempt_may_be_shorter);
	tcase_add_test(t, each_attempt_is_prepared);
	tcase_add_test(t, texts_of_services_are_made_printable);
	tcase_add_test(t, receipts_are_kept);
	tcase_add_test(t, only_the_last_receipts_are_kept);
	tcase_add_test(t, headers_are_found_by_name);
	tcase_add_test(t, forms_are_escaped);
	suite_add_tcase(s, t);
	return unit_run(s);
}
