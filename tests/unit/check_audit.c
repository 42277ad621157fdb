/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The audit log's chain: written by several, through rotation and crashes, and whatever is done to it later shows. */
#include "config.h"

#include <jansson.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "fs/volume/audit.h"
#include "kms/json.h"
#include "tests/unit/unit.h"

static char *dir, *path, *chain_path;
static struct cmek_error err;

static void setup(void)
{
	cmek_json_init();
	err = (struct cmek_error)CMEK_ERROR_INIT;
	dir = unit_tmpdir();
	ck_assert_int_gt(asprintf(&path, "%s/audit.log", dir), 0);
	ck_assert_int_gt(asprintf(&chain_path, "%s.chain", path), 0);
	ck_assert_int_eq(setenv("CMEKFS_AUDIT_LOG", path, 1), 0);
}

static void teardown(void)
{
	free(path);
	free(chain_path);
	unit_rmtree(dir);
}

static void write_one(const char *name)
{
	static const uint8_t uuid[16] = { 1, 2, 3 };
	struct cmek_audit_event event = { .name = name, .program = "check", .volume = uuid, .label = "db", .slot = 3,
					  .key = "local:one", .version = "1" };

	ck_assert_msg(cmek_audit_write(NULL, &event, &err) == 0, "%s", err.text);
}

static void write_some(int n)
{
	while (n-- > 0)
		write_one("slot.add");
}

static char *slurp(const char *from)
{
	static char text[65536];
	FILE *f = fopen(from, "r");
	size_t n;

	ck_assert_ptr_nonnull(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

static void put(const char *to, const char *text, size_t len)
{
	FILE *f = fopen(to, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, len, f), len);
	ck_assert_int_eq(fclose(f), 0);
}

static int verify(const char *file, struct cmek_audit_chain *chain)
{
	cmek_error_clear(&err);
	return cmek_audit_verify(file, chain, &err);
}

static void expect_whole(uint64_t first, uint64_t last)
{
	struct cmek_audit_chain chain = { .events = 0 };

	ck_assert_msg(verify(path, &chain) == 0, "%s", err.text);
	ck_assert_uint_eq(chain.first, first);
	ck_assert_uint_eq(chain.last, last);
}

static void expect_broken(unsigned line, const char *what)
{
	struct cmek_audit_chain chain = { .events = 0 };
	char place[64];

	ck_assert_int_eq(verify(path, &chain), -EBADMSG);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	snprintf(place, sizeof(place), "audit.log:%u: ", line);
	ck_assert_msg(strstr(err.text, place) && strstr(err.text, what), "\"%s\" has not \"%s\" and \"%s\"", err.text, place,
		      what);
}

/* What an event says, and what a failure adds. */
START_TEST(test_event)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	struct stat st;
	json_t *json;
	char *text;

	write_one("slot.add");
	event.name = "volume.open";
	event.store = "/srv/\xff\n";
	event.failure = &failure;
	(void)cmek_error_set(&failure, CMEK_E_DENIED, EACCES, "not to be told");
	ck_assert_int_eq(cmek_audit_write(NULL, &event, &err), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	text = slurp(path);
	json = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
	ck_assert_str_eq(json_string_value(json_object_get(json, "event")), "slot.add");
	ck_assert_str_eq(json_string_value(json_object_get(json, "outcome")), "success");
	ck_assert_str_eq(json_string_value(json_object_get(json, "volume")), "01020300-0000-0000-0000-000000000000");
	ck_assert_str_eq(json_string_value(json_object_get(json, "key")), "local:one");
	ck_assert_int_eq(json_integer_value(json_object_get(json, "slot")), 3);
	ck_assert_int_eq(json_integer_value(json_object_get(json, "seq")), 1);
	ck_assert_int_eq(json_integer_value(json_object_get(json, "uid")), (json_int_t)getuid());
	json_decref(json);
	json = json_loads(strchr(text, '\n') + 1, JSON_DISABLE_EOF_CHECK, NULL);
	ck_assert_str_eq(json_string_value(json_object_get(json, "outcome")), "failure");
	ck_assert_str_eq(json_string_value(json_object_get(json, "error")), "denied");
	ck_assert_str_eq(json_string_value(json_object_get(json, "store")), "/srv/?\n");
	ck_assert_ptr_null(json_object_get(json, "slot"));
	ck_assert_ptr_null(strstr(text, "not to be told"));
	json_decref(json);
	expect_whole(1, 2);
}
END_TEST

/* A call of a key service, with more requests than any has, whose ids are as long and odd as can be. */
START_TEST(test_kms_call)
{
	static struct cmek_kms_receipt requests[64];
	const struct cmek_kms_call call = { .operation = "describe", .provider = "aws", .key = "arn", .requests = requests,
					    .n_requests = UNIT_ROWS(requests), .n_left_out = 7, .took_ms = 5 };
	struct cmek_audit_event event;
	json_t *json, *list;
	size_t i;

	for (i = 0; i < UNIT_ROWS(requests); i++) {
		memset(requests[i].what, '"', sizeof(requests[i].what) - 1);
		memset(requests[i].request_id, i == 63 ? 'r' : 1, sizeof(requests[i].request_id) - 1);
		requests[i].status = 200;
	}
	cmek_audit_kms_call(&call, &event);
	event.program = "check";
	ck_assert_msg(cmek_audit_write(NULL, &event, &err) == 0, "%s", err.text);
	json = json_loads(slurp(path), JSON_DISABLE_EOF_CHECK, NULL);
	ck_assert_str_eq(json_string_value(json_object_get(json, "event")), "kms.call");
	ck_assert_str_eq(json_string_value(json_object_get(json, "outcome")), "success");
	ck_assert_str_eq(json_string_value(json_object_get(json, "operation")), "describe");
	ck_assert_str_eq(json_string_value(json_object_get(json, "provider")), "aws");
	ck_assert_str_eq(json_string_value(json_object_get(json, "request_id")), requests[63].request_id);
	ck_assert_int_eq(json_integer_value(json_object_get(json, "duration_ms")), 5);
	ck_assert_int_eq(json_integer_value(json_object_get(json, "requests_left_out")), 7);
	ck_assert_ptr_null(json_object_get(json, "slot"));
	list = json_object_get(json, "requests");
	ck_assert_uint_eq(json_array_size(list), 64);
	ck_assert_str_eq(json_string_value(json_object_get(json_array_get(list, 0), "what")), requests[0].what);
	json_decref(json);
	expect_whole(1, 1);
}
END_TEST

/* Who does not want to wait for others does not. */
START_TEST(test_at_once)
{
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	int fd;

	write_some(1);
	fd = open(chain_path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(flock(fd, LOCK_EX), 0);
	event.name = "kms.call";
	event.at_once = true;
	ck_assert_int_eq(cmek_audit_write(NULL, &event, &err), -EBUSY);
	ck_assert_int_eq(err.kind, CMEK_E_BUSY);
	close(fd);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_audit_write(NULL, &event, &err), 0);
	expect_whole(1, 2);
}
END_TEST

/* Rotated by name: the successor goes on where the old file ends, and both are followed as one. */
START_TEST(test_rotation)
{
	struct cmek_audit_chain chain = { .events = 0 };
	char *old;

	write_some(3);
	ck_assert_int_gt(asprintf(&old, "%s.1", path), 0);
	ck_assert_int_eq(rename(path, old), 0);
	write_some(2);
	expect_whole(4, 5);
	ck_assert_int_eq(verify(old, &chain), 0);
	ck_assert_int_eq(verify(path, &chain), 0);
	ck_assert_uint_eq(chain.first, 1);
	ck_assert_uint_eq(chain.last, 5);
	ck_assert_uint_eq(chain.events, 5);
	/* The other way round it is no chain. */
	chain = (struct cmek_audit_chain){ .events = 0 };
	ck_assert_int_eq(verify(path, &chain), 0);
	ck_assert_int_eq(verify(old, &chain), -EBADMSG);
	free(old);
}
END_TEST

/* A crash: half a line, or a line that FILE.chain does not know yet, or none of it at all. */
START_TEST(test_crash)
{
	char *text, *before;
	size_t len;

	write_some(2);
	before = strdup(slurp(chain_path));
	write_some(1);
	put(chain_path, before, strlen(before));
	write_some(1);
	expect_whole(1, 4);
	text = slurp(path);
	len = strlen(text);
	memcpy(text + len, "{\"time\":\"20", 11);
	put(path, text, len + 11);
	expect_broken(5, "cut off");
	write_some(1);
	expect_whole(1, 5);
	ck_assert_int_eq(unlink(chain_path), 0);
	write_some(1);
	expect_whole(1, 6);
	put(chain_path, "garbage", 7);
	write_some(1);
	expect_whole(1, 7);
	free(before);
}
END_TEST

/* What is done to four lines, and what is said of it; with `again` another event is written before. */
static const struct tamper_row {
	const char *name;
	int line;         /* that is changed, from 1 */
	enum { CHANGE, REMOVE, DOUBLE, CUT_AFTER, GARBAGE } how;
	bool again;
	unsigned found;
	const char *what;
} tamper_rows[] = {
	{ "a line changed", 2, CHANGE, false, 3, "was changed" },
	{ "the first line changed", 1, CHANGE, false, 2, "was changed" },
	{ "the last line changed", 4, CHANGE, false, 4, "not the line that was written" },
	{ "the last line changed, gone on", 4, CHANGE, true, 5, "was changed" },
	{ "a line removed", 2, REMOVE, false, 2, "missing" },
	{ "the last line removed", 4, REMOVE, false, 4, "the end is missing" },
	{ "the last line removed, gone on", 4, REMOVE, true, 4, "missing" },
	{ "a line twice", 3, DOUBLE, false, 4, "repeated" },
	{ "the end cut off", 2, CUT_AFTER, false, 3, "the end is missing" },
	{ "the end cut off, gone on", 2, CUT_AFTER, true, 3, "missing" },
	{ "no JSON", 2, GARBAGE, false, 2, "no event" },
};

START_TEST(test_tampering)
{
	const struct tamper_row *row = tamper_rows + _i;
	char *text, *line, *end, *p;
	FILE *f;
	int n;

	write_some(4);
	text = strdup(slurp(path));
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	for (n = 1, line = text; *line; n++, line = end + 1) {
		end = strchr(line, '\n');
		*end = '\0';
		if (n == row->line && row->how == CHANGE) {
			p = strstr(line, "local:one");
			ck_assert_ptr_nonnull(p);
			memcpy(p, "local:two", 9);
		}
		if (n == row->line && row->how == GARBAGE)
			fprintf(f, "garbage\n");
		else if (!(n == row->line && row->how == REMOVE) && !(n > row->line && row->how == CUT_AFTER))
			fprintf(f, "%s\n", line);
		if (n == row->line && row->how == DOUBLE)
			fprintf(f, "%s\n", line);
	}
	ck_assert_int_eq(fclose(f), 0);
	free(text);
	if (row->again)
		write_some(1);
	expect_broken(row->found, row->what);
}
END_TEST

static void *writer(void *arg)
{
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	struct cmek_error own = CMEK_ERROR_INIT;
	int *failed = arg;

	event.name = "slot.rewrap";
	for (int i = 0; i < 3; i++)
		*failed |= cmek_audit_write(NULL, &event, &own);
	return NULL;
}

START_TEST(test_threads)
{
	pthread_t threads[3];
	int failed[3] = { 0 };

	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, writer, &failed[i]), 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
		ck_assert_int_eq(failed[i], 0);
	}
	expect_whole(1, 9);
}
END_TEST

/* A file of something else stays as it is, and so does what a link leads to. */
START_TEST(test_refused)
{
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	char *other;

	event.name = "volume.open";
	put(path, "precious", 8);
	ck_assert_int_lt(cmek_audit_write(NULL, &event, &err), 0);
	ck_assert_str_eq(slurp(path), "precious");
	ck_assert_int_gt(asprintf(&other, "%s/other", dir), 0);
	ck_assert_int_eq(rename(path, other), 0);
	ck_assert_int_eq(symlink("other", path), 0);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_audit_write(NULL, &event, &err), -ELOOP);
	ck_assert_str_eq(slurp(other), "precious");
	free(other);
}
END_TEST

START_TEST(test_no_file)
{
	struct cmek_audit_chain chain = { .events = 0 };

	ck_assert_int_eq(verify(path, &chain), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
}
END_TEST

/* Where it is: the environment, then the configuration, then the user's own directory. */
START_TEST(test_place)
{
	char *conf, *found = NULL;
	const char *text = "[audit]\nfile = /from/conf\n";

	ck_assert_int_eq(cmek_audit_path(NULL, &found, &err), 0);
	ck_assert_str_eq(found, path);
	free(found);
	unsetenv("CMEKFS_AUDIT_LOG");
	ck_assert_int_gt(asprintf(&conf, "%s/cmekfs.conf", dir), 0);
	put(conf, text, strlen(text));
	ck_assert_int_eq(chmod(conf, 0600), 0);
	ck_assert_int_eq(cmek_audit_path(conf, &found, &err), 0);
	ck_assert_str_eq(found, "/from/conf");
	free(found);
	put(conf, "", 0);
	setenv("XDG_STATE_HOME", "/state", 1);
	ck_assert_int_eq(cmek_audit_path(conf, &found, &err), 0);
	ck_assert_str_eq(found, geteuid() == 0 ? "/var/log/cmekfs/audit.log" : "/state/cmekfs/audit.log");
	free(found);
	free(conf);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("audit");
	TCase *tc = tcase_create("audit");

	tcase_set_timeout(tc, 120); /* a slow disk, many fdatasync */
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_event);
	tcase_add_test(tc, test_kms_call);
	tcase_add_test(tc, test_at_once);
	tcase_add_test(tc, test_rotation);
	tcase_add_test(tc, test_crash);
	tcase_add_loop_test(tc, test_tampering, 0, UNIT_ROWS(tamper_rows));
	tcase_add_test(tc, test_threads);
	tcase_add_test(tc, test_refused);
	tcase_add_test(tc, test_no_file);
	tcase_add_test(tc, test_place);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return unit_run(suite());
}
