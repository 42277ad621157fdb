/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_LOCAL_FIXTURE_H
#define CMEK_TESTS_LOCAL_FIXTURE_H

/*
 * What the tests of the local key store share: a directory of their own with a store in it, and short forms of the
 * calls, which fail the test with the error's text.
 */
#include <jansson.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/secret.h"
#include "kms/json.h"
#include "kms/kms.h"
#include "kms/local_handle.h"
#include "tests/unit/unit.h"

static char *dir_path, *store_path, *key_path;
static struct cmek_error err;

static inline void setup(void)
{
	cmek_json_init();
	memset(&err, 0, sizeof(err));
	dir_path = unit_tmpdir();
	ck_assert_int_gt(asprintf(&store_path, "%s/keys.json", dir_path), 0);
	ck_assert_int_gt(asprintf(&key_path, "%s/keys.json.key", dir_path), 0);
}

static inline void teardown(void)
{
	unit_rmtree(dir_path);
	free(store_path);
	free(key_path);
}

#define ck_ok(call) ck_assert_msg((call) == 0, "%s: %s (%s)", #call, err.text, cmek_kind_name(err.kind))

/* The call fails with this kind; the error is cleared for the next one. */
#define ck_fails(call, want_kind)                                                                                      \
	do {                                                                                                           \
		int rc_ = (call);                                                                                      \
		ck_assert_msg(rc_ < 0, "%s succeeded", #call);                                                         \
		ck_assert_msg(err.kind == (want_kind), "%s: kind %s: %s", #call, cmek_kind_name(err.kind), err.text);  \
		ck_assert_int_eq(rc_, -err.err);                                                                       \
		cmek_error_clear(&err);                                                                                \
	} while (0)

static inline struct cmek_kms *open_with(const char *uri, const struct cmek_kms_options *opts)
{
	struct cmek_kms_options all = opts ? *opts : (struct cmek_kms_options){ 0 };
	struct cmek_kms *kms = NULL;

	if (!all.keystore_path)
		all.keystore_path = store_path;
	ck_ok(cmek_kms_open(uri, NULL, &all, &kms, &err));
	return kms;
}

static inline struct cmek_kms *open_key(const char *uri)
{
	return open_with(uri, NULL);
}

static inline struct cmek_kms *created(const char *uri)
{
	struct cmek_kms *kms = open_key(uri);

	ck_ok(cmek_kms_create(kms, NULL, &err));
	return kms;
}

static const struct cmek_kms_context ctx = { .volume = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
					     .purpose = "data" };

static inline struct cmek_secret *new_kek(void)
{
	struct cmek_secret *kek = NULL;

	ck_ok(cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, &err));
	return kek;
}

/* What kms wraps, unwraps to the same key. */
static inline void check_round_trip(struct cmek_kms *kms)
{
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob blob = { 0 };

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	ck_ok(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err));
	ck_assert_mem_eq(cmek_secret_bytes(back, CMEK_KEY_KEK), cmek_secret_bytes(kek, CMEK_KEY_KEK), 32);
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
	cmek_secret_free(back);
}

static inline size_t n_versions_of(struct cmek_kms *kms)
{
	struct cmek_kms_info info = { 0 };
	size_t n;

	ck_ok(cmek_kms_describe(kms, &info, &err));
	n = info.n_versions;
	cmek_kms_info_done(&info);
	return n;
}

static inline enum cmek_kms_state state_of(struct cmek_kms *kms)
{
	struct cmek_kms_info info = { 0 };
	enum cmek_kms_state state;

	ck_ok(cmek_kms_describe(kms, &info, &err));
	state = info.state;
	cmek_kms_info_done(&info);
	return state;
}

/* The text of a file, malloced, with a NUL behind it. */
static inline char *read_text(const char *path, size_t *ret_len)
{
	uint8_t *data = NULL;
	size_t len = 0;

	ck_ok(cmek_read_file(AT_FDCWD, path, 1 << 24, &data, &len, &err));
	if (ret_len)
		*ret_len = len;
	return (char *)data;
}

static inline void write_text(const char *path, const void *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cmek_write_full(fd, text, len), 0);
	close(fd);
}

/* Moves a key's deletion into the past, properly authenticated: what waiting would do. */
static inline void let_expire(const char *uri)
{
	static const struct cmek_kms_principal nobody;
	const struct cmek_kms_options opts = { .keystore_path = store_path };
	struct cmek_local_key *key = NULL;
	struct cmek_local_update u;
	struct cmek_local *l = NULL;
	int64_t now;

	ck_ok(cmek_local_handle_new(uri, &nobody, &opts, &l, &err));
	ck_ok(cmek_local_begin(l, &u, &err));
	ck_ok(cmek_local_find(l, &u.store, &key, &err));
	ck_assert_int_eq(key->state, CMEK_KMS_PENDING_DELETION);
	now = u.now;
	key->deletion_date = now - 1;
	u.now = 0; /* so that this write does not remove the material already */
	ck_ok(cmek_local_commit(l, &u, &err));
	cmek_local_end(&u);
	cmek_local_handle_free(l);
}

#endif
