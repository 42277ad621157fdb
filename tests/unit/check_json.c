/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The JSON readers: types, ranges, the place that an error names, and that freed memory is wiped. */
#include "config.h"

#include <sys/resource.h>

#include "kms/json.h"
#include "tests/unit/unit.h"

/* Two tests want the C library's own allocator: one reads what a freed block holds, one makes it run out. */
#ifdef __has_feature
#define CLANG_HAS(x) __has_feature(x)
#else
#define CLANG_HAS(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || CLANG_HAS(address_sanitizer) || \
	CLANG_HAS(thread_sanitizer) || CLANG_HAS(memory_sanitizer)
#define PLAIN_MALLOC 0
#else
#define PLAIN_MALLOC 1
#endif

static struct cmek_error err;

static void setup(void)
{
	cmek_json_init();
	memset(&err, 0, sizeof(err));
}

static const char doc[] =
	"{\"text\": \"abc\", \"empty\": \"\", \"n\": 7, \"big\": 9223372036854775807, \"neg\": -1, \"real\": 1.0, "
	"\"yes\": true, \"no\": false, \"null\": null, \"time\": \"2026-11-22T10:11:12Z\", "
	"\"uuid\": \"01020304-0506-0708-090A-0b0c0d0e0f10\", \"b64\": \"AQID\", "
	"\"obj\": {\"list\": [{\"x\": 1}, 5]}}";

static const struct {
	const char *text, *want; /* NULL = parses */
} parse_rows[] = {
	{ "{}", NULL },
	{ " {\"a\": 1}\n", NULL },
	{ "", "the reply is not JSON (line 1, column 0)" },
	{ "{", "the reply is not JSON" },
	{ "{\"a\": 1,}", "the reply is not JSON" },
	{ "{} {}", "the reply is not JSON" },
	{ "{}\0x", NULL }, /* the length is strlen() here; see below for NULs */
	{ "[]", "the reply is not a JSON object" },
	{ "\"secret\"", "the reply is not JSON" },
	{ "{\"a\": 1, \"a\": 2}", "the reply has a member twice" },
	{ "{\"o\": {\"a\": 1, \"a\": 2}}", "the reply has a member twice" },
	{ "{\"a\": \"\\u0000\"}", "the reply is not JSON" },
	{ "{\"a\": \"\xff\"}", "the reply is not JSON" },
	{ "{\"a\": 123456789012345678901234567890}", "the reply is not JSON" },
};

START_TEST(parse)
{
	json_t *json = NULL;
	int rc = cmek_json_parse(parse_rows[_i].text, strlen(parse_rows[_i].text), "the reply", &json, &err);

	if (!parse_rows[_i].want) {
		ck_assert_int_eq(rc, 0);
		json_decref(json);
		return;
	}
	ck_assert_int_eq(rc, -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
	ck_assert_msg(strncmp(err.text, parse_rows[_i].want, strlen(parse_rows[_i].want)) == 0, "%s", err.text);
	ck_assert_ptr_null(json);
}
END_TEST

START_TEST(parse_hostile)
{
	char *deep = malloc(100001);
	json_t *json = NULL;

	ck_assert_int_eq(cmek_json_parse("{}\0", 3, "it", &json, &err), -EINVAL);
	cmek_error_clear(&err);
	memset(deep, '[', 100000);
	ck_assert_int_eq(cmek_json_parse(deep, 100000, "it", &json, &err), -EINVAL);
	cmek_error_clear(&err);
	for (size_t i = 0; i < 100000; i += 5)
		memcpy(deep + i, "{\"a\":", 5);
	ck_assert_int_eq(cmek_json_parse(deep, 100000, "it", &json, &err), -EINVAL);
	/* What was read is not repeated: it may be secret. */
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_json_parse("{\"pw\": hunter2}", 15, "it", &json, &err), -EINVAL);
	ck_assert_ptr_null(strstr(err.text, "hunter2"));
	free(deep);
}
END_TEST

enum reader { STRING, UINT, BOOL, TIME, UUID, B64, OBJECT, ARRAY, SECRET, SECRET_B64 };

static const struct {
	enum reader reader;
	const char *name, *want; /* NULL = fine */
} reader_rows[] = {
	{ STRING, "text", NULL },
	{ STRING, "empty", NULL },
	{ STRING, "none", "the file: none is missing" },
	{ STRING, "n", "the file: n is not a string" },
	{ STRING, "null", "the file: null is not a string" },
	{ UINT, "n", NULL },
	{ UINT, "big", "the file: big is out of range" },
	{ UINT, "neg", "the file: neg is out of range" },
	{ UINT, "real", "the file: real is not an integer" },
	{ UINT, "text", "the file: text is not an integer" },
	{ UINT, "none", "the file: none is missing" },
	{ BOOL, "yes", NULL },
	{ BOOL, "no", NULL },
	{ BOOL, "n", "the file: n is neither true nor false" },
	{ BOOL, "none", "the file: none is missing" },
	{ TIME, "time", NULL },
	{ TIME, "text", "the file: text is not a time (YYYY-MM-DDTHH:MM:SSZ)" },
	{ UUID, "uuid", NULL },
	{ UUID, "text", "the file: text is not a UUID" },
	{ B64, "b64", NULL },
	{ B64, "text", "the file: text is not base64 of the expected length" },
	{ B64, "empty", "the file: empty is not base64 of the expected length" },
	{ B64, "n", "the file: n is not a string" },
	{ OBJECT, "obj", NULL },
	{ OBJECT, "text", "the file: text is not an object" },
	{ OBJECT, "none", "the file: none is missing" },
	{ ARRAY, "obj", "the file: obj is not an array" },
	{ SECRET, "text", NULL },
	{ SECRET, "empty", "the file: empty is empty" },
	{ SECRET, "n", "the file: n is not a string" },
	{ SECRET_B64, "b64", NULL },
	{ SECRET_B64, "text", "the file: text is not base64 of the expected length" },
};

static int read_one(const struct cmek_json_at *root, enum reader reader, const char *name)
{
	struct cmek_secret *secret = NULL;
	struct cmek_json_at at;
	const char *text = NULL;
	uint8_t bytes[16];
	uint64_t n = 0;
	int64_t t = 0;
	bool b = false;
	size_t len;
	int rc = -EINVAL;

	switch (reader) {
	case STRING:
		rc = cmek_json_string(root, name, &text, &err);
		break;
	case UINT:
		rc = cmek_json_uint(root, name, 0, 100, &n, &err);
		ck_assert(rc < 0 || n == 7);
		break;
	case BOOL:
		rc = cmek_json_bool(root, name, &b, &err);
		ck_assert(rc < 0 || b == (name[0] == 'y'));
		break;
	case TIME:
		rc = cmek_json_time(root, name, &t, &err);
		ck_assert(rc < 0 || t == 1795342272);
		break;
	case UUID:
		rc = cmek_json_uuid(root, name, bytes, &err);
		ck_assert(rc < 0 || bytes[9] == 10);
		break;
	case B64:
		rc = cmek_json_b64(root, name, bytes, 3, &err);
		ck_assert(rc < 0 || memcmp(bytes, "\1\2\3", 3) == 0);
		break;
	case OBJECT:
		rc = cmek_json_object(root, name, &at, &err);
		break;
	case ARRAY:
		rc = cmek_json_array(root, name, &at, &len, &err);
		break;
	case SECRET:
		rc = cmek_json_secret(root, name, &secret, &err);
		ck_assert(rc < 0 || memcmp(cmek_secret_bytes(secret, CMEK_KEY_TEXT), "abc", 4) == 0);
		break;
	case SECRET_B64:
		/* "abc" has the length of 2 bytes, less their padding. */
		rc = cmek_json_secret_b64(root, name, CMEK_KEY_KEK, 3, &secret, &err);
		ck_assert(rc < 0 || memcmp(cmek_secret_bytes(secret, CMEK_KEY_KEK), "\1\2\3", 3) == 0);
		break;
	}
	cmek_secret_free(secret);
	return rc;
}

START_TEST(readers)
{
	struct cmek_json_at root;
	json_t *json = NULL;
	int rc;

	ck_assert_int_eq(cmek_json_parse(doc, strlen(doc), "the file", &json, &err), 0);
	root = cmek_json_root(json, "the file");
	rc = read_one(&root, reader_rows[_i].reader, reader_rows[_i].name);
	if (reader_rows[_i].want) {
		ck_assert_int_eq(rc, -EINVAL);
		ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
		ck_assert_str_eq(err.text, reader_rows[_i].want);
	} else {
		ck_assert_msg(rc == 0, "%s", err.text);
	}
	json_decref(json);
}
END_TEST

START_TEST(paths_are_named)
{
	static const char *const two[] = { "list", "other", NULL }, *const one[] = { "other", NULL };
	struct cmek_json_at root, obj, list, el;
	json_t *json = NULL;
	const char *text = NULL;
	size_t n = 0;

	ck_assert_int_eq(cmek_json_parse(doc, strlen(doc), "the file", &json, &err), 0);
	root = cmek_json_root(json, "the file");
	ck_assert_int_eq(cmek_json_object(&root, "obj", &obj, &err), 0);
	ck_assert_int_eq(cmek_json_array(&obj, "list", &list, &n, &err), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert_int_eq(cmek_json_element(&list, 0, &el, &err), 0);
	ck_assert_int_lt(cmek_json_string(&el, "x", &text, &err), 0);
	ck_assert_str_eq(err.text, "the file: obj.list[0].x is not a string");
	cmek_error_clear(&err);
	ck_assert_int_lt(cmek_json_element(&list, 1, &el, &err), 0);
	ck_assert_str_eq(err.text, "the file: obj.list[1] is not an object");
	cmek_error_clear(&err);
	ck_assert_int_lt(cmek_json_element(&list, 2, &el, &err), 0);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_json_only(&obj, two, &err), 0);
	ck_assert_int_lt(cmek_json_only(&obj, one, &err), 0);
	ck_assert_str_eq(err.text, "the file: obj has a member that this version does not know");
	cmek_error_clear(&err);
	ck_assert_int_lt(cmek_json_bad(&root, NULL, "is odd", &err), 0);
	ck_assert_str_eq(err.text, "the file: is odd");
	ck_assert(cmek_json_has(&root, "text"));
	ck_assert(!cmek_json_has(&root, "null"));
	ck_assert(!cmek_json_has(&root, "none"));
	json_decref(json);
}
END_TEST

/* Very long names and deep nesting must not overflow the buffer of the path. */
START_TEST(long_paths_are_cut)
{
	struct cmek_json_at at[40];
	char name[201];
	json_t *json = json_object();

	memset(name, 'n', 200);
	name[200] = '\0';
	at[0] = cmek_json_root(json, "it");
	for (int i = 1; i < 40; i++)
		at[i] = (struct cmek_json_at){ .value = json, .up = &at[i - 1], .name = name };
	ck_assert_int_eq(cmek_json_bad(&at[39], name, "is odd", &err), -EINVAL);
	ck_assert_uint_lt(strlen(err.text), CMEK_ERROR_TEXT_MAX);
	json_decref(json);
}
END_TEST

START_TEST(freed_memory_is_wiped)
{
	json_malloc_t get = NULL;
	json_free_t put = NULL;
	volatile char *p;

	json_get_alloc_funcs(&get, &put);
	ck_assert_ptr_nonnull(get);
	put(NULL);
	p = get(200);
	memset((char *)p, 'S', 200);
	put((char *)p);
	/* malloc keeps its links in the first bytes of a free block. */
	for (int i = 64; PLAIN_MALLOC && i < 200; i++)
		ck_assert_msg(p[i] != 'S', "byte %d survived", i);
}
END_TEST

/* Bytes of address space beyond what is there: for nothing, for the reserve only, and for the reserve and half. */
static const size_t room_rows[] = { 1 << 20, 34 << 20, 38 << 20, 46 << 20, 54 << 20, 62 << 20 };

/*
 * jansson's lexer drops what it has no memory for and goes on: that must neither pass for what was written nor crash.
 * Its buffer doubles; with this text it has 8 MiB and wants 16.
 */
static void parse_without_memory(void *arg)
{
	const size_t len = (8 << 20) + 200, *room = arg;
	struct rlimit limit = { 0, 0 };
	char *text = malloc(len);
	long pages = 0;
	json_t *json = NULL;
	FILE *f;
	int rc;

	memset(text, 'x', len);
	memcpy(text, "{\"a\":\"", 6);
	memcpy(text + len - 2, "\"}", 2);
	f = fopen("/proc/self/statm", "r");
	if (!f || fscanf(f, "%ld", &pages) != 1)
		_exit(1);
	fclose(f);
	limit.rlim_cur = limit.rlim_max = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + *room;
	if (setrlimit(RLIMIT_AS, &limit) < 0)
		_exit(2);
	rc = cmek_json_parse(text, len, "it", &json, &err);
	if (rc == -ENOMEM && !json)
		_exit(0);
	/* Or there was enough, and then it is whole. */
	_exit(rc == 0 && json_string_length(json_object_get(json, "a")) == len - 8 ? 0 : 3);
}

START_TEST(shortage_of_memory_is_told)
{
	if (PLAIN_MALLOC)
		ck_assert_int_eq(unit_in_child(parse_without_memory, (void *)&room_rows[_i]), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("json");
	TCase *tc = tcase_create("json");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_loop_test(tc, parse, 0, UNIT_ROWS(parse_rows));
	tcase_add_test(tc, parse_hostile);
	tcase_add_loop_test(tc, readers, 0, UNIT_ROWS(reader_rows));
	tcase_add_test(tc, paths_are_named);
	tcase_add_test(tc, long_paths_are_cut);
	tcase_add_test(tc, freed_memory_is_wiped);
	tcase_add_loop_test(tc, shortage_of_memory_is_told, 0, UNIT_ROWS(room_rows));
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
