/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Command lines, and programs that print credentials or fail at it. */
#include "config.h"

#include "kms/cred_process.h"
#include "tests/unit/unit.h"

static struct cmek_error err;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
}

static const struct {
	const char *text;
	const char *words[6]; /* words[0] NULL: refused */
} split_rows[] = {
	{ "a", { "a" } },
	{ "  a  b\tc ", { "a", "b", "c" } },
	{ "a 'b c' \"d e\"", { "a", "b c", "d e" } },
	{ "a'b'\"c\"d", { "abcd" } },
	{ "a ''", { "a", "" } },
	{ "a b\\ c", { "a", "b c" } },
	{ "'a\\b' \"c\\\"d\\e\"", { "a\\b", "c\"d\\e" } },
	{ "a; b | c $d", { "a;", "b", "|", "c", "$d" } },
	{ "", { NULL } },
	{ "   ", { NULL } },
	{ "a 'b", { NULL } },
	{ "a \"b", { NULL } },
};

START_TEST(command_lines_are_split)
{
	char **argv = NULL;
	int rc = cmek_cred_split(split_rows[_i].text, strlen(split_rows[_i].text), &argv, &err);
	int n = 0;

	if (!split_rows[_i].words[0]) {
		ck_assert_int_eq(rc, -EINVAL);
		ck_assert_int_eq(err.kind, CMEK_E_USAGE);
		return;
	}
	ck_assert_msg(rc == 0, "%s", err.text);
	for (; split_rows[_i].words[n]; n++)
		ck_assert_str_eq(argv[n], split_rows[_i].words[n]);
	ck_assert_ptr_null(argv[n]);
	cmek_cred_split_free(argv);
}
END_TEST

static const struct {
	const char *script;
	unsigned timeout_ms;
	const char *output; /* NULL: fails */
	enum cmek_kind kind;
	const char *text;
} run_rows[] = {
	{ "echo fine", 60000, "fine\n", CMEK_E_NONE, NULL },
	{ "echo note >&2; printf %s \"$1\"", 60000, "one word", CMEK_E_NONE, NULL },
	{ "echo 'log in first' >&2; exit 4", 60000, NULL, CMEK_E_EXPIRED, "ended with exit code 4: log in first" },
	{ "exit 0", 60000, NULL, CMEK_E_BAD_FORMAT, "printed nothing" },
	{ "kill -9 $$", 60000, NULL, CMEK_E_EXPIRED, "killed by signal 9" },
	{ "head -c 70000 /dev/zero | tr '\\0' x", 60000, NULL, CMEK_E_BAD_FORMAT, "more than" },
	{ "exec sleep 600", 100, NULL, CMEK_E_UNREACHABLE, "was not done after 100 ms" },
};

START_TEST(programs_are_run)
{
	char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)run_rows[_i].script, (char *)"x", (char *)"one word", NULL };
	struct cmek_secret *output = NULL;
	int rc = cmek_cred_run(argv, run_rows[_i].timeout_ms, &output, &err);

	if (run_rows[_i].output) {
		ck_assert_msg(rc == 0, "%s", err.text);
		ck_assert_str_eq((const char *)cmek_secret_bytes(output, CMEK_KEY_TEXT), run_rows[_i].output);
		cmek_secret_free(output);
		return;
	}
	ck_assert_int_lt(rc, 0);
	ck_assert_int_eq(err.kind, run_rows[_i].kind);
	ck_assert_msg(strstr(err.text, run_rows[_i].text) != NULL, "%s", err.text);
	ck_assert_ptr_null(output);
}
END_TEST

START_TEST(a_program_that_is_not_there)
{
	char *argv[] = { (char *)"/nonexistent/program", NULL };
	struct cmek_secret *output = NULL;

	ck_assert_int_eq(cmek_cred_run(argv, 1000, &output, &err), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cred_process");
	TCase *t = tcase_create("cred_process");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_loop_test(t, command_lines_are_split, 0, UNIT_ROWS(split_rows));
	tcase_add_loop_test(t, programs_are_run, 0, UNIT_ROWS(run_rows));
	tcase_add_test(t, a_program_that_is_not_there);
	suite_add_tcase(s, t);
	return unit_run(s);
}
