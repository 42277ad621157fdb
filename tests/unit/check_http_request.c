/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Heads of HTTP requests, whole and in pieces, and the addresses that they may come to. */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/unit/unit.h"
#include "tools/http_request.h"
#include "tools/loopback.h"

#define MORE (-EAGAIN)
#define HOST "Host: x\r\n"

static const struct request_row {
	const char *name, *text;
	int status; /* or MORE */
	enum cmek_http_method method;
	const char *path;
} request_rows[] = {
	{ "get", "GET /metrics HTTP/1.1\r\n" HOST "\r\n", 200, CMEK_HTTP_GET, "/metrics" },
	{ "head", "HEAD / HTTP/1.1\r\n" HOST "\r\n", 200, CMEK_HTTP_HEAD, "/" },
	{ "post with a body", "POST /metrics HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", 200, CMEK_HTTP_OTHER, "/metrics" },
	{ "methods are case-sensitive", "get / HTTP/1.1\r\n" HOST "\r\n", 200, CMEK_HTTP_OTHER, "/" },
	{ "1.0 needs no host", "GET / HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "1.0 with a host", "GET / HTTP/1.0\r\n" HOST "\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "a later 1.x", "GET / HTTP/1.7\r\n" HOST "\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "bare newlines", "GET / HTTP/1.1\nHost: x\n\n", 200, CMEK_HTTP_GET, "/" },
	{ "empty lines before it", "\r\n\nGET / HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "query", "GET /metrics?name[]=up&x=? HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_GET, "/metrics" },
	{ "absolute form", "GET http://127.0.0.1:1/metrics?x HTTP/1.1\r\n" HOST "\r\n", 200, CMEK_HTTP_GET, "/metrics" },
	{ "absolute form without path", "GET HTTP://h HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "absolute form with query only", "GET http://h?/a HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "of no path", "OPTIONS * HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_OTHER, "" },
	{ "authority form", "CONNECT h:80 HTTP/1.0\r\n\r\n", 200, CMEK_HTTP_OTHER, "" },
	{ "fields of all kinds", "GET / HTTP/1.1\r\nX-a:\r\nhOsT:\tx y \r\nB: \xc3\xa4:\"\r\n\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "another one behind it", "GET / HTTP/1.0\r\n\r\nGET /b HTTP/9.9\r\n\r\n", 200, CMEK_HTTP_GET, "/" },
	{ "nothing", "", MORE, 0, NULL },
	{ "half a line", "GET / HT", MORE, 0, NULL },
	{ "without the empty line", "GET / HTTP/1.1\r\n" HOST, MORE, 0, NULL },
	{ "half an empty line", "GET / HTTP/1.1\r\n" HOST "\r", MORE, 0, NULL },
	{ "TLS", "\x16\x03\x01\x02", 400, 0, NULL },
	{ "a blank first", " GET / HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "a CR first", "\rG", 400, 0, NULL },
	{ "0.9", "GET /\r\n", 400, 0, NULL },
	{ "no version", "GET / \r\n", 400, 0, NULL },
	{ "two blanks", "GET  / HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "a blank in the target", "GET /a b HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "a blank at the end", "GET / HTTP/1.0 \r\n\r\n", 400, 0, NULL },
	{ "bytes above ASCII in the target", "GET /\xc3\xa4 HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "a fragment", "GET /#a HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "relative", "GET metrics HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "no authority", "GET http:///a HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "star for GET", "GET * HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "no method", "(GET) / HTTP/1.0\r\n\r\n", 400, 0, NULL },
	{ "no number", "GET / HTTP/1.x\r\n\r\n", 400, 0, NULL },
	{ "small letters", "GET / http/1.0\r\n\r\n", 400, 0, NULL },
	{ "2.0", "GET / HTTP/2.0\r\n", 505, 0, NULL },
	{ "1.1 without a host", "GET / HTTP/1.1\r\n\r\n", 400, 0, NULL },
	{ "two hosts", "GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400, 0, NULL },
	{ "two hosts in 1.0", "GET / HTTP/1.0\r\n" HOST HOST "\r\n", 400, 0, NULL },
	{ "no colon", "GET / HTTP/1.0\r\nabc\r\n", 400, 0, NULL },
	{ "no name", "GET / HTTP/1.0\r\n: a\r\n", 400, 0, NULL },
	{ "a blank before the colon", "GET / HTTP/1.0\r\nHost : x\r\n", 400, 0, NULL },
	{ "a folded field", "GET / HTTP/1.0\r\nA: b\r\n c\r\n", 400, 0, NULL },
	{ "a CR in a value", "GET / HTTP/1.0\r\nA: b\rc\r\n", 400, 0, NULL },
	{ "another control character", "GET / HTTP/1.0\r\nA: \x01\r\n", 400, 0, NULL },
};

START_TEST(test_requests)
{
	const struct request_row *row = request_rows + _i;
	struct cmek_http_request whole = { .status = MORE }, piece;
	size_t len = strlen(row->text), n;
	char *copy;
	int rc = cmek_http_request_parse(row->text, len, &whole);

	ck_assert_msg(rc == (row->status == MORE ? MORE : 0) && whole.status == row->status, "%s: %d, %d", row->name, rc,
		      whole.status);
	if (whole.status == 200)
		ck_assert_msg(whole.method == row->method && whole.path_len == strlen(row->path) &&
			      (whole.path_len == 0 || memcmp(whole.path, row->path, whole.path_len) == 0), "%s", row->name);
	/* However little has come of it, it is not taken for something else; copies, so that a look too far is seen. */
	for (n = 0; n < len; n++) {
		copy = malloc(n + 1);
		ck_assert_ptr_nonnull(copy);
		memcpy(copy, row->text, n);
		rc = cmek_http_request_parse(copy, n, &piece);
		ck_assert_msg(rc == MORE || (rc == 0 && piece.status == row->status), "%s: %zu bytes: %d", row->name, n, rc);
		free(copy);
	}
}
END_TEST

/* GET /aaa... with a request line of so many bytes, a field that fills it up to all, and its end. */
static char *long_request(size_t line, size_t all)
{
	char *text = malloc(all + 1);
	size_t n;

	ck_assert_ptr_nonnull(text);
	memset(text, 'a', all + 1);
	memcpy(text, "GET /", 5);
	memcpy(text + line - 9, " HTTP/1.0", 9);
	memcpy(text + line, "\r\nA: ", 5);
	n = all - 4;
	memcpy(text + n, "\r\n\r\n", 4);
	return text;
}

static const struct limit_row {
	size_t line, all;
	int status;
} limit_rows[] = {
	{ CMEK_HTTP_LINE_MAX, CMEK_HTTP_LINE_MAX + 20, 200 },
	{ CMEK_HTTP_LINE_MAX + 1, CMEK_HTTP_LINE_MAX + 20, 414 },
	{ CMEK_HTTP_HEAD_MAX - 10, CMEK_HTTP_HEAD_MAX, 414 },
	{ 100, CMEK_HTTP_HEAD_MAX, 200 },
	{ 100, CMEK_HTTP_HEAD_MAX + 1, 431 },
	{ 100, 2 * CMEK_HTTP_HEAD_MAX, 431 },
};

START_TEST(test_limits)
{
	const struct limit_row *row = limit_rows + _i;
	char *text = long_request(row->line, row->all);
	struct cmek_http_request request = { 0 };
	size_t n = 0;

	/* As it comes in; no one waits for more than the longest head. */
	while (cmek_http_request_parse(text, n, &request) == MORE)
		n++;
	ck_assert_int_eq(request.status, row->status);
	ck_assert_uint_le(n, CMEK_HTTP_HEAD_MAX);
	ck_assert_int_eq(cmek_http_request_parse(text, row->all, &request), 0);
	ck_assert_int_eq(request.status, row->status);
	free(text);
}
END_TEST

static const struct address_row {
	const char *text;
	const char *url; /* NULL: refused */
} address_rows[] = {
	{ "127.0.0.1:9787", "http://127.0.0.1:9787/metrics" },
	{ "127.255.0.9:0", "http://127.255.0.9:0/metrics" },
	{ "[::1]:65535", "http://[::1]:65535/metrics" },
	{ "[0:0:0:0:0:0:0:1]:1", "http://[::1]:1/metrics" },
	{ "", NULL }, { ":", NULL }, { "1", NULL }, { ":1", NULL }, { "127.0.0.1", NULL }, { "127.0.0.1:", NULL },
	{ "127.0.0.1:65536", NULL }, { "127.0.0.1:-1", NULL }, { "127.0.0.1:http", NULL }, { "127.0.0.1: 1", NULL },
	{ "127.1:1", NULL }, { "0177.0.0.1:1", NULL }, { " 127.0.0.1:1", NULL }, { "0.0.0.0:1", NULL }, { "128.0.0.1:1", NULL },
	{ "10.0.0.1:1", NULL }, { "localhost:1", NULL }, { "::1:1", NULL }, { "[::1]", NULL }, { "[::1:1", NULL }, { "[", NULL },
	{ "[:1", NULL }, { "[]:1", NULL }, { "[::]:1", NULL }, { "[::ffff:127.0.0.1]:1", NULL }, { "[::1%lo]:1", NULL },
	{ "[127.0.0.1]:1", NULL }, { "[fe80::1]:1", NULL }, { "[::1]x:1", NULL }, { "127.0.0.1.example.org:1", NULL },
	{ "[0000:0000:0000:0000:0000:0000:0000:0001aaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:1", NULL },
};

START_TEST(test_addresses)
{
	const struct address_row *row = address_rows + _i;
	struct cmek_error err = CMEK_ERROR_INIT;
	char url[CMEK_LOOPBACK_URL_MAX];
	struct sockaddr_storage addr;
	socklen_t len = 0;
	int rc = cmek_loopback_parse(row->text, &addr, &len, &err);

	if (!row->url) {
		ck_assert_msg(rc == -EINVAL && err.kind == CMEK_E_USAGE, "%s: %d", row->text, rc);
		return;
	}
	ck_assert_msg(rc == 0, "%s: %s", row->text, err.text);
	ck_assert_uint_eq(len, addr.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
	cmek_loopback_url(&addr, url);
	ck_assert_str_eq(url, row->url);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http_request");
	TCase *tc = tcase_create("http_request");

	tcase_add_loop_test(tc, test_requests, 0, UNIT_ROWS(request_rows));
	tcase_add_loop_test(tc, test_limits, 0, UNIT_ROWS(limit_rows));
	tcase_add_loop_test(tc, test_addresses, 0, UNIT_ROWS(address_rows));
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
