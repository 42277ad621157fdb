/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The keyring: derivations against the vectors of doc/format.md; no (salt, counter) pair is given out twice. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/volume/keyring.h"
#include "tests/unit/unit.h"
#include "tests/unit/vectors.h"

static struct cmek_keyring *ring;
static uint8_t *uuid, *salt, *file_id, *wrapped;

static struct cmek_keyring *ring_of_vectors(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_keyring *r = NULL;
	struct cmek_secret *kek = NULL;
	uint8_t *bytes = vector_get("kek", NULL);

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, bytes, 32, &kek, &err), 0);
	ck_assert_msg(cmek_keyring_new(uuid, &kek, &r, &err) == 0, "%s", err.text);
	ck_assert_ptr_null(kek);
	free(bytes);
	return r;
}

static void setup(void)
{
	cmek_secret_allow_unlocked();
	uuid = vector_get("uuid", NULL);
	salt = vector_get("salt", NULL);
	file_id = vector_get("file_id", NULL);
	wrapped = vector_get("dek_wrapped", NULL);
	ring = ring_of_vectors();
}

static void teardown(void)
{
	cmek_keyring_free(ring);
	free(uuid);
	free(salt);
	free(file_id);
	free(wrapped);
}

static void check_key(const char *name, const struct cmek_secret *key, enum cmek_purpose purpose)
{
	vector_check(name, cmek_secret_bytes(key, purpose), cmek_secret_len(key));
}

START_TEST(vectors)
{
	struct cmek_secret *key = NULL;

	check_key("kek", cmek_keyring_kek(ring), CMEK_KEY_KEK);
	check_key("header_mac_key", cmek_keyring_header_mac(ring), CMEK_KEY_HEADER_MAC);
	/* That the wrapped DEK opens proves the wrap key, the AAD and the form. */
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), 0);
	ck_assert_uint_eq(cmek_keyring_active_dek(ring), 1);

	ck_assert_int_eq(cmek_keyring_content_key(ring, 1, salt, file_id, &key), 0);
	check_key("content_key", key, CMEK_KEY_CONTENT);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_journal_key(ring, 1, salt, &key), 0);
	check_key("journal_key", key, CMEK_KEY_JOURNAL);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_xattr_key(ring, 1, salt, &key), 0);
	check_key("xattr_key", key, CMEK_KEY_XATTR);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_name_key(ring, 1, &key), 0);
	check_key("name_key", key, CMEK_KEY_NAME);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_symlink_key(ring, 1, &key), 0);
	check_key("symlink_key", key, CMEK_KEY_SYMLINK);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_xattr_name_key(ring, 1, &key), 0);
	check_key("xattr_name_key", key, CMEK_KEY_XATTR_NAME);
	cmek_secret_free(key);
}
END_TEST

START_TEST(vector_block)
{
	struct cmek_secret *key = NULL;
	uint8_t nonce[12], tag[16], out[100], index[8] = { 1 };
	struct iovec aad = { index, 8 };
	uint8_t *plain = vector_get("block1_plain", NULL);

	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), 0);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 1, salt, file_id, &key), 0);
	cmek_keyring_nonce(CMEK_DOMAIN_BLOCK, 1001, nonce);
	vector_check("block1_nonce", nonce, sizeof(nonce));
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_CONTENT, nonce, &aad, 1, plain, sizeof(out), out, tag), 0);
	vector_check("block1_cipher", out, sizeof(out));
	vector_check("block1_tag", tag, sizeof(tag));
	cmek_secret_free(key);
	free(plain);
}
END_TEST

START_TEST(nonce_form)
{
	static const uint8_t want[12] = { 3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t nonce[12];

	cmek_keyring_nonce(CMEK_DOMAIN_JOURNAL, CMEK_COUNTER_MAX, nonce);
	ck_assert_mem_eq(nonce, want, 12);
}
END_TEST

START_TEST(made_dek_opens_in_another_ring)
{
	struct cmek_keyring *other = ring_of_vectors();
	struct cmek_secret *a = NULL, *b = NULL;
	uint8_t form[CMEK_DEK_WRAPPED_LEN];

	ck_assert_int_eq(cmek_keyring_make_dek(ring, 513, 0, CMEK_DEK_ACTIVE, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_add_dek(other, 513, 0, CMEK_DEK_DECRYPT_ONLY, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 513, salt, file_id, &a), 0);
	ck_assert_int_eq(cmek_keyring_content_key(other, 513, salt, file_id, &b), 0);
	ck_assert(cmek_equal(cmek_secret_bytes(a, CMEK_KEY_CONTENT), cmek_secret_bytes(b, CMEK_KEY_CONTENT), 32));
	cmek_secret_free(a);
	cmek_secret_free(b);
	cmek_keyring_free(other);
}
END_TEST

/* A volume that is locked has no key, and has the same ones when it is unlocked; nonces go on. */
START_TEST(wiped_and_refilled)
{
	uint8_t form[CMEK_DEK_WRAPPED_LEN], before[32];
	struct cmek_keyring *fresh = ring_of_vectors();
	struct cmek_seal_right first, second;
	struct cmek_secret *borrowed;
	struct cmek_secret *key = NULL;

	ck_assert_int_eq(cmek_keyring_make_dek(ring, 513, 0, CMEK_DEK_ACTIVE, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_add_dek(fresh, 513, 0, CMEK_DEK_ACTIVE, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 513, salt, file_id, &key), 0);
	memcpy(before, cmek_secret_bytes(key, CMEK_KEY_CONTENT), 32);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_seal_right(ring, 5, &first), 0);

	cmek_keyring_wipe(ring);
	ck_assert_int_eq(cmek_keyring_seal_right(ring, 1, &second), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 513, salt, file_id, &key), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_name_key(ring, 513, &borrowed), -EKEYREVOKED);
	ck_assert_uint_eq(cmek_keyring_active_dek(ring), 0);
	ck_assert_ptr_null(cmek_keyring_kek(ring));
	ck_assert_ptr_null(cmek_keyring_header_mac(ring));
	cmek_keyring_wipe(ring);

	cmek_keyring_refill(ring, &fresh);
	ck_assert_ptr_null(fresh);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 513, salt, file_id, &key), 0);
	ck_assert(cmek_equal(cmek_secret_bytes(key, CMEK_KEY_CONTENT), before, 32));
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_seal_right(ring, 1, &second), 0);
	ck_assert_uint_gt(second.first, first.first + 4);
	ck_assert_uint_gt(second.epoch, first.epoch);
	ck_assert_int_ne(memcmp(second.salt, first.salt, CMEK_SALT_LEN), 0);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 514, salt, file_id, &key), -ENOKEY);
}
END_TEST

/* The id, the domain, the volume and each byte of the form are bound. */
START_TEST(dek_is_bound)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_keyring *other;
	size_t i;

	ck_assert_int_eq(cmek_keyring_add_dek(ring, 2, 0, CMEK_DEK_ACTIVE, wrapped, &err), -EBADMSG);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 1, CMEK_DEK_ACTIVE, wrapped, NULL), -EBADMSG);
	uuid[15] ^= 1;
	other = ring_of_vectors();
	ck_assert_int_eq(cmek_keyring_add_dek(other, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), -EBADMSG);
	cmek_keyring_free(other);
	for (i = 0; i < CMEK_DEK_WRAPPED_LEN; i++) {
		wrapped[i] ^= 0x80;
		ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), -EBADMSG);
		wrapped[i] ^= 0x80;
	}
	/* A retired one is proved too, though it is not kept. */
	wrapped[0] ^= 1;
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_RETIRED, wrapped, NULL), -EBADMSG);
	ck_assert_uint_eq(cmek_keyring_active_dek(ring), 0);
}
END_TEST

START_TEST(states)
{
	static const uint8_t zero[16];
	struct cmek_secret *key = NULL;
	struct cmek_secret *kept = NULL;
	struct cmek_seal_right right;
	uint8_t form[CMEK_DEK_WRAPPED_LEN];

	ck_assert_int_eq(cmek_keyring_seal_right(ring, 1, &right), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_RETIRED, wrapped, NULL), 0);
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), -EEXIST);
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 2, 0, CMEK_DEK_DESTROYED, NULL, NULL), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 3, 0, CMEK_DEK_DECRYPT_ONLY, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_seal_right(ring, 1, &right), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 4, 0, CMEK_DEK_ACTIVE, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 5, 0, CMEK_DEK_ACTIVE, form, NULL), -EEXIST);
	ck_assert_uint_eq(cmek_keyring_active_dek(ring), 4);
	ck_assert_int_eq(cmek_keyring_seal_right(ring, 0, &right), -EINVAL);
	ck_assert_int_eq(cmek_keyring_seal_right(ring, 1, &right), 0);
	ck_assert_uint_eq(right.dek, 4);

	ck_assert_int_eq(cmek_keyring_content_key(ring, 1, salt, file_id, &key), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_name_key(ring, 2, &kept), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_symlink_key(ring, 9, &kept), -ENOKEY);
	ck_assert_int_eq(cmek_keyring_xattr_key(ring, 0, salt, &key), -ENOKEY);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 4, zero, file_id, &key), -EBADMSG);
	ck_assert_int_eq(cmek_keyring_journal_key(ring, 3, salt, &key), 0);
	cmek_secret_free(key);
}
END_TEST

/* Nothing is given out any more that a retired key is needed for; what somebody has of it stays good until it is given back. */
START_TEST(retired)
{
	struct cmek_secret *borrowed = NULL, *kept = NULL, *key = NULL;
	uint8_t form[CMEK_DEK_WRAPPED_LEN], before[64];
	const uint8_t *bytes;
	uint16_t ids[2] = { 0 };

	ck_assert_int_eq(cmek_keyring_make_dek(ring, 3, 0, CMEK_DEK_DECRYPT_ONLY, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 4, 0, CMEK_DEK_ACTIVE, form, NULL), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 5, 0, CMEK_DEK_DECRYPT_ONLY, form, NULL), 0);
	ck_assert_uint_eq(cmek_keyring_old_deks(ring, ids, 1), 2);
	ck_assert_uint_eq(ids[0], 3);
	ck_assert_uint_eq(ids[1], 0);
	ck_assert_uint_eq(cmek_keyring_old_deks(ring, ids, 2), 2);
	ck_assert_uint_eq(ids[1], 5);
	ck_assert_int_eq(cmek_keyring_name_key(ring, 3, &borrowed), 0);
	memcpy(before, cmek_secret_bytes(borrowed, CMEK_KEY_NAME), 64);
	cmek_keyring_retire_dek(ring, 3);
	cmek_keyring_retire_dek(ring, 9); /* not there */
	ck_assert_uint_eq(cmek_keyring_old_deks(ring, ids, 2), 1);
	ck_assert_uint_eq(ids[0], 5);
	ck_assert_int_eq(cmek_keyring_name_key(ring, 3, &kept), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_symlink_key(ring, 3, &kept), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_xattr_name_key(ring, 3, &kept), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 3, salt, file_id, &key), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_journal_key(ring, 3, salt, &key), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_name_key(ring, 5, &kept), 0);
	ck_assert_uint_eq(cmek_secret_len(borrowed), 64);
	ck_assert_mem_eq(cmek_secret_bytes(borrowed, CMEK_KEY_NAME), before, 64);
	cmek_secret_free(kept);
	/* The bytes of a secret that is freed are zeros where it was. */
	bytes = cmek_secret_bytes(borrowed, CMEK_KEY_NAME);
	cmek_secret_free(borrowed);
	ck_assert(cmek_is_zero(bytes, 64));
}
END_TEST

static struct cmek_seal_right take(uint32_t n)
{
	struct cmek_seal_right right;

	ck_assert_int_eq(cmek_keyring_seal_right(ring, n, &right), 0);
	ck_assert(right.epoch != 0);
	ck_assert(right.first + n - 1 <= CMEK_COUNTER_MAX);
	return right;
}

static void add_dek(void)
{
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), 0);
}

START_TEST(rights_follow_each_other)
{
	struct cmek_seal_right a, b;

	add_dek();
	a = take(7);
	b = take(1);
	ck_assert_uint_eq(b.first, a.first + 7);
	ck_assert_uint_eq(b.epoch, a.epoch);
	ck_assert_mem_eq(a.salt, b.salt, CMEK_SALT_LEN);
	b = take(UINT32_MAX);
	ck_assert_uint_ne(b.epoch, a.epoch);
}
END_TEST

/* What draws a new salt, and what is just short of it. */
static const struct {
	const char *name;
	uint64_t seconds, seals;
	int new_session, changes;
} redraws[] = {
	{ "nothing", 0, 0, 0, 0 },
	{ "almost an hour", 3500, 0, 0, 0 },
	{ "an hour", 3600, 0, 0, 1 },
	{ "2^32 seals at the end of the test", 0, (UINT64_C(1) << 32) - 3, 0, 0 },
	{ "more than 2^32 seals", 0, (UINT64_C(1) << 32) - 1, 0, 1 },
	{ "a new session", 0, 0, 1, 1 },
	{ "the end of the counter", 0, (UINT64_C(1) << 48) - 2, 0, 1 },
};

START_TEST(redraw)
{
	struct cmek_seal_right a, b;

	add_dek();
	a = take(1);
	cmek_keyring_age_session(ring, redraws[_i].seconds, redraws[_i].seals);
	if (redraws[_i].new_session)
		cmek_keyring_new_session(ring);
	b = take(1);
	ck_assert_msg((memcmp(a.salt, b.salt, CMEK_SALT_LEN) != 0) == redraws[_i].changes, "%s", redraws[_i].name);
	ck_assert_msg((a.epoch != b.epoch) == redraws[_i].changes, "%s", redraws[_i].name);
	if (_i == 6)
		ck_assert_uint_eq(b.first, 1);
	else
		ck_assert_uint_gt(b.first, a.first);
	a = take(1);
	ck_assert_mem_eq(b.salt, a.salt, CMEK_SALT_LEN);
}
END_TEST

#define FORKS 4
#define SHARED_RIGHTS (FORKS + 1)

/* Children and their child, sealing from the same state, all have salts and epochs of their own. */
START_TEST(fork_draws_its_own_salt)
{
	struct cmek_seal_right *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct cmek_seal_right before, after;
	int i, j, status;
	pid_t pid;

	ck_assert_ptr_ne(seen, MAP_FAILED);
	add_dek();
	before = take(5);
	for (i = 0; i < FORKS; i++) {
		pid = fork();
		ck_assert_int_ge(pid, 0);
		if (!pid) {
			if (i == 0 && (pid = fork()) == 0) { /* a grandchild before the child's first seal */
				seen[FORKS] = take(1);
				_exit(0);
			}
			seen[i] = take(1);
			if (i == 0 && waitpid(pid, NULL, 0) != pid)
				_exit(1);
			_exit(0);
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
	}
	for (i = 0; i < SHARED_RIGHTS; i++) {
		ck_assert(memcmp(seen[i].salt, before.salt, CMEK_SALT_LEN) != 0);
		ck_assert_uint_ne(seen[i].epoch, before.epoch);
		for (j = 0; j < i; j++)
			ck_assert(memcmp(seen[i].salt, seen[j].salt, CMEK_SALT_LEN) != 0);
	}
	/* The parent is not disturbed. */
	after = take(1);
	ck_assert_mem_eq(after.salt, before.salt, CMEK_SALT_LEN);
	ck_assert_uint_eq(after.first, before.first + 5);
	munmap(seen, 4096);
}
END_TEST

#define THREADS 4
#define RIGHTS 20000

struct taken {
	struct cmek_seal_right right;
	uint32_t n;
};

static void *take_many(void *arg)
{
	struct taken *out = arg;
	int i;

	for (i = 0; i < RIGHTS; i++) {
		out[i].n = (uint32_t)i % 3 + 1;
		if (cmek_keyring_seal_right(ring, out[i].n, &out[i].right))
			return arg;
		if (i % 5000 == 4999)
			cmek_keyring_new_session(ring);
	}
	return NULL;
}

static int by_first(const void *a, const void *b)
{
	const struct taken *x = a, *y = b;

	return x->right.first < y->right.first ? -1 : x->right.first > y->right.first;
}

/* The counter goes on across salts, so it alone has to be unique; a salt belongs to one epoch. */
START_TEST(threads_never_share_a_counter)
{
	struct taken *all = calloc(THREADS * RIGHTS, sizeof(*all));
	const struct cmek_seal_right *a, *b;
	pthread_t threads[THREADS];
	void *failed;
	uint64_t next = 1;
	int i;

	ck_assert_ptr_nonnull(all);
	add_dek();
	for (i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, take_many, all + i * RIGHTS), 0);
	for (i = 0; i < THREADS; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
		ck_assert_ptr_null(failed);
	}
	qsort(all, THREADS * RIGHTS, sizeof(*all), by_first);
	for (i = 0; i < THREADS * RIGHTS; i++) {
		ck_assert_uint_eq(all[i].right.first, next);
		next += all[i].n;
		if (i == 0)
			continue;
		a = &all[i - 1].right;
		b = &all[i].right;
		ck_assert_uint_ge(b->epoch, a->epoch);
		ck_assert((a->epoch == b->epoch) == !memcmp(a->salt, b->salt, CMEK_SALT_LEN));
	}
	free(all);
}
END_TEST

static void *count_sealed(void *arg)
{
	int i;

	for (i = 0; i < 1000; i++)
		cmek_keyring_count_sealed(ring, *(uint16_t *)arg, 3);
	return NULL;
}

START_TEST(sealed_bytes)
{
	uint16_t deks[] = { 7, 7, 65535, 9 };
	pthread_t threads[UNIT_ROWS(deks)];
	size_t i;

	for (i = 0; i < UNIT_ROWS(deks); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, count_sealed, &deks[i]), 0);
	for (i = 0; i < UNIT_ROWS(deks); i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 7), 6000);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 65535), 3000);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 9), 3000);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 1), 0);
	cmek_keyring_wipe(ring);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 9), 3000);
	/* More than there is room for: the first go on. */
	for (i = 100; i < 100 + CMEK_DEK_USES_MAX; i++)
		cmek_keyring_count_sealed(ring, (uint16_t)i, 1);
	cmek_keyring_count_sealed(ring, 7, 1);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 7), 6001);
	ck_assert_uint_eq(cmek_keyring_sealed_bytes(ring, 99 + CMEK_DEK_USES_MAX), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("keyring");
	TCase *tcase = tcase_create("keyring");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, vectors);
	tcase_add_test(tcase, vector_block);
	tcase_add_test(tcase, nonce_form);
	tcase_add_test(tcase, made_dek_opens_in_another_ring);
	tcase_add_test(tcase, wiped_and_refilled);
	tcase_add_test(tcase, dek_is_bound);
	tcase_add_test(tcase, states);
	tcase_add_test(tcase, retired);
	tcase_add_test(tcase, rights_follow_each_other);
	tcase_add_loop_test(tcase, redraw, 0, UNIT_ROWS(redraws));
	tcase_add_test(tcase, fork_draws_its_own_salt);
	tcase_add_test(tcase, threads_never_share_a_counter);
	tcase_add_test(tcase, sealed_bytes);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
