/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Lines of Prometheus text, and several texts made one. */
#include "config.h"

#include "base/promtext.h"
#include "tests/unit/unit.h"

#define HEAD(name, help) "# HELP " name " " help "\n# TYPE " name " gauge\n"

static const struct merge_row {
	const char *name;
	const char *texts[3];
	int rc; /* of the last one */
	const char *merged;
} merge_rows[] = {
	{ "nothing", { "" }, 0, "" },
	{ "one", { HEAD("a", "A.") "a{x=\"1\"} 1\na 2\n" }, 0, HEAD("a", "A.") "a{x=\"1\"} 1\na 2\n" },
	{ "a family without samples", { HEAD("a", "A.") HEAD("b", "B.") "b 1\n" }, 0, HEAD("a", "A.") HEAD("b", "B.") "b 1\n" },
	{ "the same families", { HEAD("a", "A.") "a 1\n" HEAD("b", "B.") "b 1\n", HEAD("a", "A.") "a 2\n" HEAD("b", "B.") "b 2\n" },
	  0, HEAD("a", "A.") "a 1\na 2\n" HEAD("b", "B.") "b 1\nb 2\n" },
	{ "other order", { HEAD("a", "A.") "a 1\n" HEAD("b", "B.") "b 1\n", HEAD("b", "B.") "b 2\n" HEAD("a", "A.") "a 2\n" },
	  0, HEAD("a", "A.") "a 1\na 2\n" HEAD("b", "B.") "b 1\nb 2\n" },
	{ "one more, one less", { HEAD("a", "A.") "a 1\n", HEAD("c", "C.") "c 2\n", HEAD("a", "A.") "a 3\n" },
	  0, HEAD("a", "A.") "a 1\na 3\n" HEAD("c", "C.") "c 2\n" },
	{ "the first help stays", { HEAD("a", "A.") "a 1\n", HEAD("a", "New words.") "a 2\n" }, 0, HEAD("a", "A.") "a 1\na 2\n" },
	{ "names that begin alike", { HEAD("a", "A.") "a 1\n" HEAD("a_b", "B.") "a_b 1\n", HEAD("a_b", "B.") "a_b 2\n" },
	  0, HEAD("a", "A.") "a 1\n" HEAD("a_b", "B.") "a_b 1\na_b 2\n" },
	{ "parts of a histogram", { HEAD("h", "H.") "h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n", HEAD("h", "H.") "h_sum 2\n" },
	  0, HEAD("h", "H.") "h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\nh_sum 2\n" },
	{ "a brace, a newline in a label", { HEAD("a", "A.") "a{x=\"}\\n# HELP\"} 1\n" }, 0, HEAD("a", "A.") "a{x=\"}\\n# HELP\"} 1\n" },
	{ "no text adds nothing", { HEAD("a", "A.") "a 1\n", HEAD("a", "A.") "a 2\nb 1\n" }, -EINVAL, HEAD("a", "A.") "a 1\n" },
	{ "a sample of no family", { "a 1\n" }, -EINVAL, "" },
	{ "an empty line", { HEAD("a", "A.") "\na 1\n" }, -EINVAL, "" },
	{ "a last line without an end", { HEAD("a", "A.") "a 1" }, -EINVAL, "" },
	{ "no type", { "# HELP a A.\na 1\n" }, -EINVAL, "" },
	{ "the type of another", { "# HELP a A.\n# TYPE b gauge\n" }, -EINVAL, "" },
	{ "another comment", { HEAD("a", "A.") "# EOF\n" }, -EINVAL, "" },
	{ "no name", { "# HELP  A.\n# TYPE  gauge\n" }, -EINVAL, "" },
	{ "cut in its head", { "# HELP a A.\n# TYPE a" }, -EINVAL, "" },
	{ "cut in its name", { "# HELP a" }, -EINVAL, "" },
};

START_TEST(test_merge)
{
	const struct merge_row *row = merge_rows + _i;
	struct cmek_promtext *merged = cmek_promtext_new();
	char *text = NULL;
	size_t len, i;
	FILE *out = open_memstream(&text, &len);
	int rc = 0;

	ck_assert(merged && out);
	for (i = 0; i < 3 && row->texts[i]; i++) {
		ck_assert_msg(rc == 0, "%s: %d before the last one", row->name, rc);
		rc = cmek_promtext_add(merged, row->texts[i]);
	}
	ck_assert_msg(rc == row->rc, "%s: %d", row->name, rc);
	cmek_promtext_write(merged, out);
	ck_assert_int_eq(fclose(out), 0);
	ck_assert_msg(strcmp(text, row->merged) == 0, "%s: %s", row->name, text);
	free(text);
	cmek_promtext_free(merged);
}
END_TEST

START_TEST(test_lines)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	ck_assert_ptr_nonnull(out);
	cmek_promtext_head(out, "a_total", "counter", "Things.");
	cmek_promtext_label(out, "x", "\"a\\b\nc\xc3\xa4\t");
	ck_assert_int_eq(fclose(out), 0);
	ck_assert_str_eq(text, "# HELP a_total Things.\n# TYPE a_total counter\nx=\"\\\"a\\\\b\\nc\xc3\xa4\t\"");
	free(text);
	cmek_promtext_free(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("promtext");
	TCase *tc = tcase_create("promtext");

	tcase_add_loop_test(tc, test_merge, 0, UNIT_ROWS(merge_rows));
	tcase_add_test(tc, test_lines);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
