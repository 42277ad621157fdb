/* SPDX-License-Identifier: GPL-3.0-or-later */
/* When a token is fetched, and when the one in hand serves. */
#include "config.h"

#include "kms/token_cache.h"
#include "tests/unit/unit.h"

static struct cmek_token_cache *cache;
static struct cmek_error err;
static unsigned fetched;
static bool refuse;
static int64_t expires;

static int fetch(void *arg, struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *e)
{
	char text[32];
	int n;

	(void)arg;
	if (refuse)
		return cmek_error_set(e, CMEK_E_UNREACHABLE, ETIMEDOUT, "no answer");
	n = snprintf(text, sizeof(text), "token %u", ++fetched);
	*ret_expires = expires;
	return cmek_secret_new_copy(CMEK_KEY_TEXT, text, (size_t)n, ret_token, e);
}

static const struct cmek_token_source source = { .fetch = fetch };

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	fetched = 0;
	refuse = false;
	expires = 3600;
	ck_assert_int_eq(cmek_token_cache_new(&cache, &err), 0);
}

static void teardown(void)
{
	cmek_token_cache_free(cache);
}

static void expect(const char *name, int64_t now, const char *text)
{
	struct cmek_secret *s = NULL;

	ck_assert_int_eq(cmek_token_get(cache, name, now, &source, &s, &err), 0);
	ck_assert_str_eq((const char *)cmek_secret_bytes(s, CMEK_KEY_TEXT), text);
	cmek_secret_free(s);
}

START_TEST(a_token_serves_until_it_is_old)
{
	expect("a", 0, "token 1");
	expect("a", 3299, "token 1");
	expires = 7200;
	expect("a", 3300, "token 2");
	expect("b", 3300, "token 3");
	expect("a", 3301, "token 2");
}
END_TEST

START_TEST(an_old_token_serves_while_no_new_one_comes)
{
	struct cmek_secret *s = NULL;

	expect("a", 0, "token 1");
	refuse = true;
	expect("a", 3400, "token 1");
	expect("a", 3539, "token 1");
	ck_assert_int_eq(cmek_token_get(cache, "a", 3540, &source, &s, &err), -ETIMEDOUT);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	ck_assert_ptr_null(s);
}
END_TEST

START_TEST(a_refused_token_is_forgotten)
{
	expect("a", 0, "token 1");
	expect("b", 0, "token 2");
	cmek_token_forget(cache, "a");
	cmek_token_forget(cache, "unknown");
	expect("a", 0, "token 3");
	expect("b", 0, "token 2");
}
END_TEST

START_TEST(all_of_a_kind_are_forgotten)
{
	expect("aws a", 0, "token 1");
	expect("gcp a", 0, "token 2");
	expect("aws b", 0, "token 3");
	cmek_token_forget_all(cache, "aws ");
	expect("gcp a", 0, "token 2");
	expect("aws a", 0, "token 4");
	expect("aws b", 0, "token 5");
}
END_TEST

START_TEST(some_never_expire)
{
	expires = INT64_MAX;
	expect("a", 0, "token 1");
	expect("a", INT64_MAX - 10, "token 1");
}
END_TEST

START_TEST(a_short_life_still_serves_once)
{
	expires = 30;
	expect("a", 0, "token 1");
	expect("a", 0, "token 2");
}
END_TEST

START_TEST(many_names_do_not_pile_up)
{
	char name[16];

	for (int i = 0; i < 200; i++) {
		struct cmek_secret *s = NULL;

		snprintf(name, sizeof(name), "n%d", i);
		ck_assert_int_eq(cmek_token_get(cache, name, 0, &source, &s, &err), 0);
		cmek_secret_free(s);
	}
	ck_assert_uint_eq(fetched, 200);
	expect("n199", 0, "token 200");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("token_cache");
	TCase *t = tcase_create("token_cache");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_token_serves_until_it_is_old);
	tcase_add_test(t, an_old_token_serves_while_no_new_one_comes);
	tcase_add_test(t, a_refused_token_is_forgotten);
	tcase_add_test(t, all_of_a_kind_are_forgotten);
	tcase_add_test(t, some_never_expire);
	tcase_add_test(t, a_short_life_still_serves_once);
	tcase_add_test(t, many_names_do_not_pile_up);
	suite_add_tcase(s, t);
	return unit_run(s);
}
