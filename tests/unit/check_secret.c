/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/secret.h: where keys lie, that they are gone when freed (from the whole memory of the process, cipher contexts
 * included), what a missing right to lock memory means, and fork.
 */
#include "config.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/crypto.h"
#include "base/secret.h"
#include "tests/unit/unit.h"

static struct cmek_secret *new_secret(enum cmek_purpose purpose, size_t len)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *s = NULL;

	ck_assert_msg(cmek_secret_new(purpose, len, &s, &err) == 0, "%s", err.text);
	return s;
}

/* ---- finding a key in memory ---- */

/*
 * Byte i of the key that is looked for. The key as a whole exists only where the code under test puts it: this file has
 * no copy that a search could find.
 */
static uint8_t needle(size_t i)
{
	return (uint8_t)((i * i * 37 + i * 101 + (i >> 9) * 73 + 0xc5) ^ (i >> 1));
}

static void fill_needle(struct cmek_secret *s, enum cmek_purpose purpose)
{
	volatile uint8_t *p = cmek_secret_fill(s, purpose);
	size_t i;

	for (i = 0; i < cmek_secret_len(s); i++)
		p[i] = needle(i);
}

/* The memory is read as it is, whatever a sanitizer thinks of it. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static int count_in(const volatile uint8_t *from,
										     const volatile uint8_t *to,
										     size_t len)
{
	int found = 0;
	size_t i;

	for (; (size_t)(to - from) >= len; from++) {
		for (i = 0; i < len && from[i] == needle(i); i++)
			;
		found += i == len;
	}
	return found;
}

/* How often the first `len` bytes of the key are in this process's memory. */
static int count_in_memory(size_t len)
{
	char line[512], mode[8], *rest;
	uintptr_t from, to;
	int found = 0;
	FILE *maps = fopen("/proc/self/maps", "re");

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps)) {
		ck_assert_int_eq(sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, mode), 3);
		rest = strchr(line, '[');
		/* Not readable; the kernel's own; a sanitizer's shadow (terabytes of nothing). */
		if (mode[0] != 'r' || mode[1] != 'w' || (rest && strncmp(rest, "[v", 2) == 0) || to - from > 1u << 30)
			continue;
		found += count_in((const uint8_t *)from, (const uint8_t *)to, len);
	}
	fclose(maps);
	return found;
}

static const size_t key_lens[] = { 32, 64, 200, 5000 };

START_TEST(freed_key_is_gone)
{
	size_t len = key_lens[_i];
	struct cmek_secret *s = new_secret(CMEK_KEY_STORE, len), *copy = NULL;

	fill_needle(s, CMEK_KEY_STORE);
	ck_assert_int_eq(count_in_memory(32), 1);
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_STORE, cmek_secret_bytes(s, CMEK_KEY_STORE), len, &copy, NULL),
			 0);
	ck_assert_int_eq(count_in_memory(32), 2);
	cmek_secret_free(copy);
	cmek_secret_ref(s);
	cmek_secret_free(s);
	ck_assert_int_eq(count_in_memory(32), 1);
	cmek_secret_free(s);
	ck_assert_int_eq(count_in_memory(16), 0);
}
END_TEST

static void use_gcm(struct cmek_secret *key)
{
	uint8_t nonce[12] = { 1 }, text[32] = { 2 }, tag[16];

	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_STORE, nonce, NULL, 0, text, sizeof(text), text, tag), 0);
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_STORE, nonce, NULL, 0, text, sizeof(text), text, tag), 0);
}

static void use_siv(struct cmek_secret *key)
{
	uint8_t text[32] = { 2 }, sealed[48];
	struct iovec ad = { text, 16 };

	ck_assert_int_eq(cmek_siv_seal(key, CMEK_KEY_STORE, &ad, 1, text, sizeof(text), sealed), 0);
	ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_STORE, &ad, 1, sealed, sizeof(sealed), text), 0);
	sealed[0] ^= 1;
	ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_STORE, &ad, 1, sealed, sizeof(sealed), text), -EBADMSG);
}

static void use_hkdf(struct cmek_secret *key)
{
	struct cmek_secret *out = NULL;

	ck_assert_int_eq(cmek_hkdf(key, CMEK_KEY_STORE, "salt", 4, "info", 4, CMEK_KEY_CONTENT, 32, &out, NULL), 0);
	use_gcm(key);
	cmek_secret_free(out);
}

static void use_hmac(struct cmek_secret *key)
{
	struct iovec in = { (void *)"text", 4 };
	uint8_t mac[32];

	ck_assert_int_eq(cmek_hmac(key, CMEK_KEY_STORE, &in, 1, mac), 0);
}

static const struct {
	const char *name;
	void (*use)(struct cmek_secret *key);
	size_t len;
} uses[] = {
	{ "gcm", use_gcm, 32 },
	{ "siv", use_siv, 64 },
	{ "hkdf", use_hkdf, 32 },
	{ "hmac", use_hmac, 32 },
};

/* What OpenSSL was given leaves with the key. 16 bytes, because a key schedule may hold the halves apart. */
START_TEST(used_key_is_gone)
{
	struct cmek_secret *key = new_secret(CMEK_KEY_STORE, uses[_i].len);

	fill_needle(key, CMEK_KEY_STORE);
	uses[_i].use(key);
	ck_assert_int_ge(count_in_memory(16), 1);
	cmek_secret_free(key);
	ck_assert_msg(count_in_memory(16) == 0, "%s: the key is still in memory", uses[_i].name);
}
END_TEST

static pthread_barrier_t barrier;

static void *use_and_wait(void *key)
{
	use_gcm(key);
	pthread_barrier_wait(&barrier);
	/* The key is freed, the contexts of this idle thread are searched. */
	pthread_barrier_wait(&barrier);
	return NULL;
}

START_TEST(key_used_by_idle_threads_is_gone)
{
	struct cmek_secret *key = new_secret(CMEK_KEY_STORE, 32);
	pthread_t thread[3];
	int i;

	fill_needle(key, CMEK_KEY_STORE);
	pthread_barrier_init(&barrier, NULL, 4);
	for (i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, use_and_wait, key), 0);
	pthread_barrier_wait(&barrier);
	ck_assert_int_ge(count_in_memory(16), 1);
	cmek_secret_free(key);
	ck_assert_int_eq(count_in_memory(16), 0);
	pthread_barrier_wait(&barrier);
	for (i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&barrier);
}
END_TEST

static void *use_once(void *key)
{
	use_gcm(key);
	return NULL;
}

/* The contexts of a thread end with it, also while the key lives on. */
START_TEST(ended_thread_leaves_nothing)
{
	struct cmek_secret *key = new_secret(CMEK_KEY_STORE, 32);
	pthread_t thread;

	fill_needle(key, CMEK_KEY_STORE);
	ck_assert_int_eq(pthread_create(&thread, NULL, use_once, key), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(count_in_memory(16), 1);
	cmek_secret_free(key);
}
END_TEST

/* ---- allocation ---- */

START_TEST(lengths_and_texts)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	static const size_t lens[] = { 1, 31, 32, 33, 63, 64, 65, 4095, 4096, 4097, CMEK_SECRET_MAX };
	struct cmek_secret *s = NULL;
	size_t i, k;

	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		s = new_secret(CMEK_KEY_TEXT, lens[i]);
		ck_assert_uint_eq(cmek_secret_len(s), lens[i]);
		for (k = 0; k <= lens[i]; k++)
			ck_assert_uint_eq(cmek_secret_bytes(s, CMEK_KEY_TEXT)[k], 0);
		memset(cmek_secret_fill(s, CMEK_KEY_TEXT), 'x', lens[i]);
		ck_assert_uint_eq(strlen((const char *)cmek_secret_bytes(s, CMEK_KEY_TEXT)), lens[i]);
		cmek_secret_free(s);
	}
	s = NULL;
	ck_assert_int_eq(cmek_secret_new(CMEK_KEY_TEXT, 0, &s, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_LIMIT);
	ck_assert_int_eq(cmek_secret_new(CMEK_KEY_TEXT, CMEK_SECRET_MAX + 1, &s, NULL), -EINVAL);
	ck_assert_ptr_null(s);
	cmek_secret_free(NULL);
	ck_assert_ptr_null(cmek_secret_ref(NULL));
	cmek_wipe(NULL, 0);
}
END_TEST

/* Thousands of keys in a seeded random order: no two share bytes, none is stale, and the pages are given back. */
START_TEST(slots)
{
	enum { N = 5000 };
	struct cmek_secret **s = calloc(N, sizeof(*s));
	uint64_t last_serial = 0;
	unsigned seed = 42;
	int i, k, round;
	size_t len;

	for (round = 0; round < 4 * N; round++) {
		i = (int)(rand_r(&seed) >> 3) % N;
		if (s[i]) {
			len = cmek_secret_len(s[i]);
			for (k = 0; k < (int)len; k++)
				ck_assert_uint_eq(cmek_secret_bytes(s[i], CMEK_KEY_DEK)[k], (uint8_t)i);
			cmek_secret_free(s[i]);
			s[i] = NULL;
			continue;
		}
		s[i] = new_secret(CMEK_KEY_DEK, i % 3 ? 32 : 64);
		len = cmek_secret_len(s[i]);
		ck_assert(cmek_secret_bytes(s[i], CMEK_KEY_DEK)[0] == 0 &&
			  !memcmp(cmek_secret_bytes(s[i], CMEK_KEY_DEK), cmek_secret_bytes(s[i], CMEK_KEY_DEK) + 1,
				  len - 1));
		memset(cmek_secret_fill(s[i], CMEK_KEY_DEK), i, len);
		ck_assert_uint_gt(cmek_secret_serial(s[i]), last_serial);
		last_serial = cmek_secret_serial(s[i]);
	}
	for (i = 0; i < N; i++)
		cmek_secret_free(s[i]);
	free(s);
}
END_TEST

static long locked_kib(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];
	long kib = -1;

	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "VmLck: %ld kB", &kib) == 1)
			break;
	fclose(status);
	return kib;
}

/* 32-byte keys cost 32 locked bytes each, and next to nothing stays locked when they are gone, in whatever order. */
START_TEST(frugal)
{
	enum { N = 10000 };
	struct cmek_secret **s = calloc(N, sizeof(*s));
	long before = locked_kib(), with, after;
	int i;

	for (i = 0; i < N; i++)
		s[i] = new_secret(CMEK_KEY_CONTENT, 32);
	with = locked_kib() - before;
	if (_i == 0)
		for (i = 0; i < N; i++)
			cmek_secret_free(s[i]);
	else if (_i == 1)
		for (i = N - 1; i >= 0; i--)
			cmek_secret_free(s[i]);
	else
		for (i = 0; i < N; i++)
			cmek_secret_free(s[(i * 7919) % N]);
	after = locked_kib() - before;
	free(s);
	/* A sanitizer's runtime ignores mlock. */
	if (with == 0)
		return;
	ck_assert_int_ge(with, N * 32 / 1024);
	ck_assert_int_le(with, N * 32 / 1024 + 32);
	ck_assert_int_le(after, 16);
}
END_TEST

/* The VmFlags of the mapping that holds p. */
static void flags_of(const void *p, char flags[512])
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	uintptr_t from, to;
	bool here = false;
	char line[512];

	flags[0] = '\0';
	ck_assert_ptr_nonnull(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
			here = (uintptr_t)p >= from && (uintptr_t)p < to;
		if (here && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, 512, "%s", line + 8);
	}
	fclose(smaps);
}

/* Locked and left out of dumps; a sanitizer's runtime makes mlock do nothing. */
static bool well_kept(const struct cmek_secret *s)
{
	char flags[512];

	flags_of(cmek_secret_bytes(s, CMEK_KEY_STORE), flags);
	return strstr(flags, " dd") && (strstr(flags, " lo") || locked_kib() == 0);
}

static void look_in_child(void *arg)
{
	struct cmek_secret **s = arg, *fresh = NULL;

	if (!well_kept(s[0]) || !well_kept(s[1]) || cmek_secret_bytes(s[0], CMEK_KEY_STORE)[0] != 0x77 ||
	    cmek_secret_bytes(s[1], CMEK_KEY_STORE)[0] != 0x77 ||
	    cmek_secret_new(CMEK_KEY_STORE, 32, &fresh, NULL) || !well_kept(fresh))
		_exit(1);
	cmek_secret_free(fresh);
	cmek_secret_free(s[0]);
	cmek_secret_free(s[1]);
}

START_TEST(locked_also_after_fork)
{
	struct cmek_secret *s[2] = { new_secret(CMEK_KEY_STORE, 32), new_secret(CMEK_KEY_STORE, 5000) };

	memset(cmek_secret_fill(s[0], CMEK_KEY_STORE), 0x77, 32);
	memset(cmek_secret_fill(s[1], CMEK_KEY_STORE), 0x77, 5000);
	ck_assert(well_kept(s[0]));
	ck_assert(well_kept(s[1]));
	ck_assert_int_eq(unit_in_child(look_in_child, s), 0);
	ck_assert_uint_eq(cmek_secret_bytes(s[0], CMEK_KEY_STORE)[0], 0x77);
	cmek_secret_free(s[0]);
	cmek_secret_free(s[1]);
}
END_TEST

/* An ordinary user's process whose limit of locked memory is used up. Exit 2: mlock does nothing here. */
static void without_lock(void *arg)
{
	struct rlimit none = { 0, 0 };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *s = NULL;
	int ret;

	(void)arg;
	if (setrlimit(RLIMIT_MEMLOCK, &none) || (geteuid() == 0 && setresuid(65534, 65534, 65534)))
		_exit(3);
	ret = cmek_secret_new(CMEK_KEY_STORE, 100000, &s, &err);
	if (ret == 0)
		_exit(2);
	if ((ret != -EPERM && ret != -ENOMEM) || err.kind != CMEK_E_LIMIT || s || !strstr(err.text, "RLIMIT_MEMLOCK"))
		_exit(1);
	cmek_secret_allow_unlocked();
	if (cmek_secret_new(CMEK_KEY_STORE, 100000, &s, NULL))
		_exit(4);
	cmek_secret_free(s);
}

START_TEST(lock_refused)
{
	int status = unit_in_child(without_lock, NULL);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 2)
		ck_assert_int_eq(status, 0);
}
END_TEST

/* A child of fork that may not lock what it inherited gets no new secrets, small ones included; the old ones work. */
static void fork_without_lock(void *arg)
{
	struct rlimit none = { 0, 0 };
	int status;
	pid_t pid;

	if (setrlimit(RLIMIT_MEMLOCK, &none) || (geteuid() == 0 && setresuid(65534, 65534, 65534)))
		_exit(3);
	pid = fork();
	if (pid == 0) {
		struct cmek_error err = CMEK_ERROR_INIT;
		struct cmek_secret *s = NULL;
		int ret = cmek_secret_new(CMEK_KEY_STORE, 16, &s, &err);

		use_gcm(arg);
		if (ret == 0)
			_exit(2);
		_exit(err.kind == CMEK_E_LIMIT && !s ? 0 : 1);
	}
	while (waitpid(pid, &status, 0) < 0)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 5);
}

START_TEST(lock_refused_after_fork)
{
	struct cmek_secret *s = new_secret(CMEK_KEY_STORE, 32);
	int status = unit_in_child(fork_without_lock, s);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 2)
		ck_assert_int_eq(status, 0);
	cmek_secret_free(s);
}
END_TEST

/* ---- purposes, sharing ---- */

static void read_with_wrong_purpose(void *arg)
{
	(void)cmek_secret_bytes(arg, CMEK_KEY_CONTENT); /* aborts */
}

static void fill_with_wrong_purpose(void *arg)
{
	(void)cmek_secret_fill(arg, CMEK_KEY_CONTENT); /* aborts */
}

static void read_before_keys(void *arg)
{
	(void)*(volatile const uint8_t *)((uintptr_t)cmek_secret_bytes(arg, CMEK_KEY_NAME) / 4096 * 4096 - 1);
}

START_TEST(wrong_purpose_aborts)
{
	struct cmek_secret *s = new_secret(CMEK_KEY_NAME, 64);

	unit_assert_aborts(read_with_wrong_purpose, s);
	unit_assert_aborts(fill_with_wrong_purpose, s);
	ck_assert_ptr_eq(cmek_secret_fill(s, CMEK_KEY_NAME), cmek_secret_bytes(s, CMEK_KEY_NAME));
	cmek_secret_free(s);
}
END_TEST

START_TEST(guarded)
{
	struct cmek_secret *s = new_secret(CMEK_KEY_NAME, 5000);

	ck_assert_int_ne(unit_in_child(read_before_keys, s), 0);
	cmek_secret_free(s);
}
END_TEST

START_TEST(random_keys_differ)
{
	struct cmek_secret *a = NULL, *b = NULL;

	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_DEK, 32, &a, NULL), 0);
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_DEK, 32, &b, NULL), 0);
	ck_assert_mem_ne(cmek_secret_bytes(a, CMEK_KEY_DEK), cmek_secret_bytes(b, CMEK_KEY_DEK), 32);
	ck_assert_uint_ne(cmek_secret_serial(a), cmek_secret_serial(b));
	cmek_secret_free(a);
	cmek_secret_free(b);
}
END_TEST

static void *allocate_much(void *shared)
{
	struct cmek_secret *s[50];
	int i, round;
	long bad = 0;

	for (round = 0; round < 40; round++) {
		for (i = 0; i < 50; i++) {
			if (cmek_secret_new(CMEK_KEY_DEK, i % 2 ? 32 : 64, &s[i], NULL))
				return (void *)1L;
			bad += cmek_secret_bytes(s[i], CMEK_KEY_DEK)[0] != 0;
			memset(cmek_secret_fill(s[i], CMEK_KEY_DEK), 0xaa, 32);
			cmek_secret_ref(shared);
		}
		for (i = 0; i < 50; i++) {
			cmek_secret_free(s[i]);
			cmek_secret_free(shared);
		}
	}
	return (void *)bad;
}

START_TEST(threads)
{
	struct cmek_secret *shared = new_secret(CMEK_KEY_DEK, 32);
	pthread_t thread[4];
	void *bad;
	int i;

	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, allocate_much, shared), 0);
	for (i = 0; i < 4; i++) {
		pthread_join(thread[i], &bad);
		ck_assert_ptr_null(bad);
	}
	ck_assert_uint_eq(cmek_secret_len(shared), 32);
	cmek_secret_free(shared);
}
END_TEST

static void harden(void *arg)
{
	struct rlimit limit;

	(void)arg;
	if (cmek_secret_harden_process() || prctl(PR_GET_DUMPABLE) != 0 || getrlimit(RLIMIT_CORE, &limit) ||
	    limit.rlim_cur != 0 || limit.rlim_max != 0)
		_exit(1);
}

START_TEST(harden_process)
{
	ck_assert_int_eq(unit_in_child(harden, NULL), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("secret");
	TCase *tc = tcase_create("memory");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, freed_key_is_gone, 0, UNIT_ROWS(key_lens));
	tcase_add_loop_test(tc, used_key_is_gone, 0, UNIT_ROWS(uses));
	tcase_add_test(tc, key_used_by_idle_threads_is_gone);
	tcase_add_test(tc, ended_thread_leaves_nothing);
	suite_add_tcase(s, tc);
	tc = tcase_create("allocation");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, lengths_and_texts);
	tcase_add_test(tc, slots);
	tcase_add_loop_test(tc, frugal, 0, 3);
	tcase_add_test(tc, locked_also_after_fork);
	tcase_add_test(tc, lock_refused);
	tcase_add_test(tc, lock_refused_after_fork);
	suite_add_tcase(s, tc);
	tc = tcase_create("use");
	tcase_add_test(tc, wrong_purpose_aborts);
	tcase_add_test(tc, guarded);
	tcase_add_test(tc, random_keys_differ);
	tcase_add_test(tc, threads);
	tcase_add_test(tc, harden_process);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
