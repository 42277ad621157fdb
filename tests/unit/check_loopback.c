/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Addresses that cmekctl metrics --listen takes, and refuses. */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/unit/unit.h"
#include "tools/loopback.h"

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
	Suite *suite = suite_create("loopback");
	TCase *tc = tcase_create("loopback");

	tcase_add_loop_test(tc, test_addresses, 0, UNIT_ROWS(address_rows));
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
