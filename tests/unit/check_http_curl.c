/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libcurl as the transport, against a server on loopback that is a thread of the test: one answer a connection. */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/io.h"
#include "kms/http.h"
#include "tests/unit/unit.h"

static struct cmek_http *http;
static struct cmek_http_response resp;
static struct cmek_error err;
static char url[64];
static pthread_t thread;

/* Filled before the thread starts, read after it was joined. */
static struct {
	int listener;
	const char *answer; /* NULL: closes without a word */
	size_t filler;      /* bytes sent behind it */
	bool hang;          /* waits for the other side to go */
	char asked[8192];
} server;

static void *serve(void *arg)
{
	int fd = accept(server.listener, NULL, NULL);
	char chunk[1024];
	size_t used = 0, left = server.filler;
	ssize_t n;

	(void)arg;
	memset(chunk, 'x', sizeof(chunk));
	/* The end of the requests that are sent here; 0x16 begins one of TLS. */
	while (used + 1 < sizeof(server.asked) && !strstr(server.asked, "END") && !strstr(server.asked, "GET /bare") &&
	       server.asked[0] != 0x16) {
		n = read(fd, server.asked + used, sizeof(server.asked) - used - 1);
		if (n <= 0)
			break;
		used += (size_t)n;
		server.asked[used] = '\0';
	}
	if (server.answer)
		(void)!write(fd, server.answer, strlen(server.answer));
	while (left > 0 && (n = send(fd, chunk, left < sizeof(chunk) ? left : sizeof(chunk), MSG_NOSIGNAL)) > 0)
		left -= (size_t)n;
	while (server.hang && read(fd, chunk, sizeof(chunk)) > 0)
		;
	close(fd);
	return NULL;
}

static void setup(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(addr);

	memset(&err, 0, sizeof(err));
	memset(&server, 0, sizeof(server));
	server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(server.listener, 0);
	ck_assert_int_eq(bind(server.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(server.listener, 4), 0);
	ck_assert_int_eq(getsockname(server.listener, (struct sockaddr *)&addr, &len), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", ntohs(addr.sin_port));
	ck_assert_int_eq(unsetenv("http_proxy") | unsetenv("HTTP_PROXY") | unsetenv("all_proxy") | unsetenv("ALL_PROXY"), 0);
	ck_assert_int_eq(cmek_http_new_curl(&http, &err), 0);
}

static void teardown(void)
{
	cmek_http_response_done(&resp);
	cmek_http_free(http);
	close(server.listener);
}

static void start(const char *answer)
{
	server.answer = answer;
	ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
}

/* The server's thread may still wait for a connection, if the client gave up before it made one. */
static void stop(void)
{
	(void)shutdown(server.listener, SHUT_RDWR);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

static struct cmek_http_request request(void)
{
	return (struct cmek_http_request){ .service = CMEK_KMS_SERVICE_AWS, .what = "test", .method = "POST", .url = url,
					   .body = "bodyEND", .body_len = 7 };
}

START_TEST(a_request_and_its_answer)
{
	struct cmek_http_request req = request();
	struct cmek_secret *token = NULL;
	char text[64];

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_TEXT, "secret-token", 12, &token, &err), 0);
	req.headers[0] = (struct cmek_http_header){ .name = "Authorization", .secret = token, .secret_prefix = "Bearer " };
	req.headers[1] = (struct cmek_http_header){ .name = "X-Amz-Target", .value = "TrentService.Decrypt" };
	start("HTTP/1.1 100 Continue\r\nX-Old: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-Amzn-RequestId: abc\r\n"
	      "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok");
	ck_assert_msg(cmek_http_call(http, &req, &resp, &err) == 0, "%s", err.text);
	stop();
	ck_assert_int_eq(resp.status, 200);
	ck_assert_str_eq(resp.body, "ok");
	ck_assert_str_eq(resp.request_id, "abc");
	ck_assert_int_eq(resp.date, 784111777);
	ck_assert(!cmek_http_header_of(&resp, "x-old", text, sizeof(text)));
	ck_assert_ptr_nonnull(strstr(server.asked, "POST / HTTP/1.1\r\n"));
	ck_assert_ptr_nonnull(strstr(server.asked, "\r\nAuthorization: Bearer secret-token\r\n"));
	ck_assert_ptr_nonnull(strstr(server.asked, "\r\nX-Amz-Target: TrentService.Decrypt\r\n"));
	ck_assert_ptr_nonnull(strstr(server.asked, "\r\nUser-Agent: cmekfs/"));
	ck_assert_ptr_null(strstr(server.asked, "Expect:"));
	cmek_secret_free(token);
}
END_TEST

START_TEST(other_methods_and_no_body)
{
	struct cmek_http_request req = request();
	char bare[96];

	snprintf(bare, sizeof(bare), "%sbare", url);
	req.url = bare;
	req.method = "GET";
	req.body = NULL;
	start("HTTP/1.1 204 No Content\r\n\r\n");
	ck_assert_msg(cmek_http_call(http, &req, &resp, &err) == 0, "%s", err.text);
	stop();
	ck_assert_str_eq(resp.body, "");
	ck_assert_int_eq(resp.date, 0);
}
END_TEST

START_TEST(redirects_are_not_followed)
{
	struct cmek_http_request req = request();

	start("HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
	ck_assert_int_lt(cmek_http_call(http, &req, &resp, &err), 0);
	stop();
	ck_assert_int_eq(resp.status, 307);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
}
END_TEST

START_TEST(a_huge_body_is_cut_off)
{
	struct cmek_http_request req = request();

	req.answer_max = 4096;
	server.filler = 1 << 20;
	start("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -EMSGSIZE);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
	cmek_http_free(http); /* closes the connection on the server */
	http = NULL;
	stop();
}
END_TEST

START_TEST(silence_ends_with_the_deadline)
{
	struct cmek_http_request req = request();

	server.hang = true;
	start("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nslow");
	cmek_http_begin(http, 1500);
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -ETIMEDOUT);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	cmek_http_free(http);
	http = NULL;
	stop();
}
END_TEST

START_TEST(a_closed_connection_is_told)
{
	struct cmek_http_request req = request();

	start(NULL);
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -ECONNRESET);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	stop();
}
END_TEST

START_TEST(nobody_listens)
{
	struct cmek_http_request req = request();

	close(server.listener);
	server.listener = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -ECONNREFUSED);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
}
END_TEST

START_TEST(headers_hold_one_line)
{
	struct cmek_http_request req = request();

	req.headers[0] = (struct cmek_http_header){ .name = "X", .value = "a\r\nEvil: 1" };
	ck_assert_int_eq(cmek_http_call(http, &req, &resp, &err), -EINVAL);
}
END_TEST

START_TEST(plain_words_are_no_tls)
{
	struct cmek_http_request req = request();
	char https[64];

	snprintf(https, sizeof(https), "https%s", strchr(url, ':'));
	req.url = https;
	start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	ck_assert_int_lt(cmek_http_call(http, &req, &resp, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	cmek_http_free(http);
	http = NULL;
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http_curl");
	TCase *t = tcase_create("http_curl");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_request_and_its_answer);
	tcase_add_test(t, other_methods_and_no_body);
	tcase_add_test(t, redirects_are_not_followed);
	tcase_add_test(t, a_huge_body_is_cut_off);
	tcase_add_test(t, silence_ends_with_the_deadline);
	tcase_add_test(t, a_closed_connection_is_told);
	tcase_add_test(t, nobody_listens);
	tcase_add_test(t, headers_hold_one_line);
	tcase_add_test(t, plain_words_are_no_tls);
	suite_add_tcase(s, t);
	return unit_run(s);
}
