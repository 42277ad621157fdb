/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The table from internal errors to those of users, against its description in doc/operations.md. */
#include "config.h"

#include "fs/mount/reply.h"
#include "tests/unit/unit.h"

/* The words of doc/operations.md for numbers; a name that isn't here can't be documented by mistake. */
static const struct {
	const char *name;
	int number;
} names[] = {
#define NAME(e) { #e, e }
	NAME(E2BIG), NAME(EACCES), NAME(EBADMSG), NAME(EBUSY), NAME(EDQUOT), NAME(EEXIST), NAME(EFBIG), NAME(EINVAL),
	NAME(EIO), NAME(EISDIR), NAME(EKEYREVOKED), NAME(EMFILE), NAME(EMLINK), NAME(ENAMETOOLONG), NAME(ENFILE),
	NAME(ENODATA), NAME(ENOENT), NAME(ENOKEY), NAME(ENOLINK), NAME(ENOMEM), NAME(ENOSPC), NAME(ENOTDIR), NAME(ENOTEMPTY),
	NAME(ENXIO), NAME(EOPNOTSUPP), NAME(EOVERFLOW), NAME(EPERM), NAME(ERANGE), NAME(EROFS), NAME(ESTALE),
	NAME(ETXTBSY), NAME(EXDEV),
};

static int number_of(const char *name)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i].name, name) == 0)
			return names[i].number;
	}
	ck_abort_msg("%s: not known to this test", name);
	return 0;
}

/* The rows "| `EXXX` | `EYYY` |" between the markers of the table. */
static int documented[256];

static void read_document(void)
{
	const char *top = getenv("CMEK_SRCDIR");
	char path[4096], line[512], internal[32], user[32];
	int inside = 0, rows = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/doc/operations.md", top ? top : ".");
	f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "| inside |", 10) == 0)
			inside = 1;
		else if (line[0] != '|')
			inside = 0;
		else if (inside && sscanf(line, "| `%31[A-Z0-9]` | `%31[A-Z0-9]` |", internal, user) == 2) {
			documented[number_of(internal)] = number_of(user);
			rows++;
		}
	}
	fclose(f);
	ck_assert_int_gt(rows, 20);
}

START_TEST(table_is_as_documented)
{
	int e;

	read_document();
	ck_assert_int_eq(cmek_reply_user_errno(0), 0);
	for (e = 1; e < 256; e++) {
		int want = documented[e] ? documented[e] : EIO;

		ck_assert_msg(cmek_reply_user_errno(-e) == want, "%s becomes %s, not %s", strerror(e),
			      strerror(cmek_reply_user_errno(-e)), strerror(want));
	}
}
END_TEST

START_TEST(nothing_else_gets_out)
{
	static const int odd[] = { -ENOSYS, -EINTR, -ELOOP, -512, -100000, 1, 5, 4096 };

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		ck_assert_int_eq(cmek_reply_user_errno(odd[i]), EIO);
}
END_TEST

START_TEST(entries_are_filled)
{
	static const struct cmek_reply_timeouts timeouts = { 1.5, 2.5, 3.5 };
	struct cmek_entry entry = { .node = UINT64_C(7) << 32 | 9 };
	struct fuse_entry_param param;

	entry.st.st_size = 77;
	cmek_reply_fill_entry(&param, &entry, &timeouts);
	ck_assert_uint_eq(param.ino, entry.node);
	ck_assert_int_eq(param.attr.st_size, 77);
	ck_assert(param.entry_timeout == 1.5 && param.attr_timeout == 2.5);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("reply");
	TCase *tc = tcase_create("reply");

	tcase_add_test(tc, table_is_as_documented);
	tcase_add_test(tc, nothing_else_gets_out);
	tcase_add_test(tc, entries_are_filled);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
