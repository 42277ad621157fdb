/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The local provider: states, versions, the wrapped blob and what it is bound to. Files are check_local_store.c. */
#include "config.h"

#include "base/bytes.h"
#include "base/crypto.h"
#include "tests/unit/local_fixture.h"

/* doc/kms/local.md */
#define BLOB_LEN 84

START_TEST(wraps_and_unwraps)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek();
	struct cmek_kms_blob blob = { 0 };

	check_round_trip(kms);
	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	ck_assert_uint_eq(blob.len, BLOB_LEN);
	ck_assert_str_eq(blob.resolved, "local:db");
	ck_assert_str_eq(blob.version, "1");
	ck_assert_str_eq(cmek_kms_provider_name(kms), "local");
	ck_assert_str_eq(cmek_kms_uri(kms), "local:db");
	ck_assert_ptr_null(memmem(blob.data, blob.len, cmek_secret_bytes(kek, CMEK_KEY_KEK), 32));
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(no_two_wraps_are_alike)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek();
	struct cmek_kms_blob a = { 0 }, b = { 0 };

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &a, &err));
	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &b, &err));
	ck_assert_mem_ne(a.data + 8, b.data + 8, 16);   /* salt */
	ck_assert_mem_ne(a.data + 24, b.data + 24, 12); /* nonce */
	ck_assert_mem_ne(a.data + 36, b.data + 36, 32); /* ciphertext */
	cmek_kms_blob_done(&a);
	cmek_kms_blob_done(&b);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
}
END_TEST

/* Unwraps with nothing but the document: HKDF and AES-256-GCM, AAD written out by hand. */
START_TEST(blob_is_as_documented)
{
	static const char volume[] = "cmekfs:volume=01020304-0506-0708-090a-0b0c0d0e0f10", slot[] = "cmekfs:slot=data";
	static const struct cmek_kms_principal nobody;
	const struct cmek_kms_options opts = { .keystore_path = store_path };
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek(), *material = NULL, *key = NULL;
	struct cmek_kms_blob blob = { 0 };
	struct cmek_local_store store = { 0 };
	struct cmek_local *l = NULL;
	uint8_t plain[32], len[3][2] = { { sizeof(volume) - 1 }, { sizeof(slot) - 1 }, { 2 } }, version[4] = { 2 };
	struct iovec aad[] = { { len[0], 2 }, { (void *)volume, sizeof(volume) - 1 }, { len[1], 2 },
			       { (void *)slot, sizeof(slot) - 1 }, { len[2], 2 }, { "db", 2 }, { version, 4 } };

	ck_ok(cmek_kms_rotate(kms, NULL, &err));
	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	ck_assert_mem_eq(blob.data, "CML\1\2\0\0\0", 8);
	ck_ok(cmek_local_handle_new("local:db", &nobody, &opts, &l, &err));
	ck_ok(cmek_local_load_existing(l, &store, &err));
	ck_ok(cmek_local_key_material(&store, &store.keys[0], 2, &l->keys, &material, &err));
	ck_ok(cmek_hkdf(material, CMEK_KEY_STORE, blob.data + 8, 16, "cmekfs local wrap v1", 20, CMEK_KEY_STORE, 32, &key,
			&err));
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_STORE, blob.data + 24, aad, 7, blob.data + 36, 32, plain,
				       blob.data + 68),
			 0);
	ck_assert_mem_eq(plain, cmek_secret_bytes(kek, CMEK_KEY_KEK), 32);
	cmek_local_store_done(&store);
	cmek_local_handle_free(l);
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
	cmek_secret_free(material);
	cmek_secret_free(key);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(old_versions_unwrap_after_rotate)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob old = { 0 }, fresh = { 0 }, extra = { 0 };
	char *version = NULL;

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &old, &err));
	ck_ok(cmek_kms_rotate(kms, &version, &err));
	ck_assert_str_eq(version, "2");
	ck_ok(cmek_kms_unwrap(kms, &ctx, &old, &back, &extra, &err));
	ck_assert_mem_eq(cmek_secret_bytes(back, CMEK_KEY_KEK), cmek_secret_bytes(kek, CMEK_KEY_KEK), 32);
	ck_assert_ptr_null(extra.data);
	cmek_secret_free(back);
	ck_ok(cmek_kms_rewrap(kms, &ctx, &old, &fresh, &err));
	ck_assert_str_eq(fresh.version, "2");
	ck_ok(cmek_kms_unwrap(kms, &ctx, &fresh, &back, NULL, &err));
	ck_assert_mem_eq(cmek_secret_bytes(back, CMEK_KEY_KEK), cmek_secret_bytes(kek, CMEK_KEY_KEK), 32);
	free(version);
	cmek_secret_free(back);
	cmek_secret_free(kek);
	cmek_kms_blob_done(&old);
	cmek_kms_blob_done(&fresh);
	cmek_kms_close(kms);
}
END_TEST

/* A blob that has been moved: to another volume, another slot, another key, another store. */

enum moved { OTHER_VOLUME, OTHER_PURPOSE, OTHER_KEY, OTHER_KEY_RENAMED, OTHER_STORE, SAME, N_MOVED };

START_TEST(moved_blob_is_tampered)
{
	struct cmek_kms_options elsewhere = { .keystore_path = store_path };
	struct cmek_kms *kms = created("local:db"), *other = created("local:db2"), *use = kms;
	struct cmek_kms_context use_ctx = ctx;
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob blob = { 0 };
	char path[128];

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	switch ((enum moved)_i) {
	case OTHER_VOLUME:
		use_ctx.volume[15] ^= 1;
		break;
	case OTHER_PURPOSE:
		use_ctx.purpose = "backup";
		break;
	case OTHER_KEY:
		use = other;
		break;
	case OTHER_KEY_RENAMED:
		use = other;
		free(blob.resolved);
		blob.resolved = strdup("local:db2");
		break;
	case OTHER_STORE:
		snprintf(path, sizeof(path), "%s/other.json", dir_path);
		elsewhere.keystore_path = path;
		cmek_kms_close(other);
		use = other = open_with("local:db", &elsewhere);
		ck_ok(cmek_kms_create(other, NULL, &err));
		break;
	default:
		break;
	}
	if (_i == SAME)
		ck_ok(cmek_kms_unwrap(use, &use_ctx, &blob, &back, NULL, &err));
	else
		ck_fails(cmek_kms_unwrap(use, &use_ctx, &blob, &back, NULL, &err), CMEK_E_TAMPERED);
	cmek_secret_free(back);
	cmek_secret_free(kek);
	cmek_kms_blob_done(&blob);
	cmek_kms_close(kms);
	cmek_kms_close(other);
}
END_TEST

START_TEST(truncated_blob_is_bad_format)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob blob = { 0 }, part = { 0 };

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	for (size_t len = 0; len < blob.len; len++) {
		/* Of exactly that size, so that a sanitizer sees a read behind it. */
		part = blob;
		part.len = len;
		part.data = malloc(len ? len : 1);
		memcpy(part.data, blob.data, len);
		ck_fails(cmek_kms_unwrap(kms, &ctx, &part, &back, NULL, &err), CMEK_E_BAD_FORMAT);
		free(part.data);
	}
	part.data = calloc(1, blob.len + 1);
	memcpy(part.data, blob.data, blob.len);
	part.len = blob.len + 1;
	ck_fails(cmek_kms_unwrap(kms, &ctx, &part, &back, NULL, &err), CMEK_E_BAD_FORMAT);
	free(part.data);
	cmek_secret_free(kek);
	cmek_kms_blob_done(&blob);
	cmek_kms_close(kms);
}
END_TEST

/* What a flipped byte means depends on where it is. */
static enum cmek_kind kind_at(size_t off)
{
	if (off < 3)
		return CMEK_E_BAD_FORMAT;
	if (off == 3)
		return CMEK_E_UNSUPPORTED;
	if (off < 8)
		return CMEK_E_NOT_FOUND; /* a version that the key doesn't have */
	return CMEK_E_TAMPERED;
}

START_TEST(every_flipped_byte_is_noticed)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob blob = { 0 };

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	for (size_t i = 0; i < blob.len; i++) {
		blob.data[i] ^= 0x80;
		ck_fails(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err), kind_at(i));
		blob.data[i] ^= 0x80;
	}
	cmek_store32(blob.data + 4, 0);
	ck_fails(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err), CMEK_E_BAD_FORMAT);
	cmek_store32(blob.data + 4, 2);
	ck_ok(cmek_kms_rotate(kms, NULL, &err));
	ck_fails(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err), CMEK_E_TAMPERED);
	ck_assert_ptr_null(back);
	cmek_secret_free(kek);
	cmek_kms_blob_done(&blob);
	cmek_kms_close(kms);
}
END_TEST

/* Each operation in each state. */

enum { OP_WRAP, OP_UNWRAP, OP_ROTATE, OP_ENABLE, OP_DISABLE, OP_SCHEDULE, OP_CANCEL, OP_CREATE, OP_DESCRIBE, N_OPS };
enum { ST_ENABLED, ST_DISABLED, ST_PENDING, ST_EXPIRED, ST_DESTROYED, N_STATES };

#define OK CMEK_E_NONE
#define DIS CMEK_E_KEY_DISABLED
#define PEND CMEK_E_PENDING_DELETION
#define DEST CMEK_E_KEY_DESTROYED
#define USAGE CMEK_E_USAGE
#define EXISTS CMEK_E_EXISTS

static const enum cmek_kind allowed[N_STATES][N_OPS] = {
	/*                 wrap  unwrap rotate enable disable schedule cancel create  describe */
	[ST_ENABLED] =   { OK,   OK,    OK,    OK,    OK,     OK,      USAGE, EXISTS, OK },
	[ST_DISABLED] =  { DIS,  DIS,   DIS,   OK,    OK,     OK,      USAGE, EXISTS, OK },
	[ST_PENDING] =   { PEND, PEND,  PEND,  PEND,  PEND,   OK,      OK,    EXISTS, OK },
	[ST_EXPIRED] =   { DEST, DEST,  DEST,  DEST,  DEST,   DEST,    DEST,  EXISTS, OK },
	[ST_DESTROYED] = { DEST, DEST,  DEST,  DEST,  DEST,   DEST,    DEST,  EXISTS, OK },
};

static const enum cmek_kms_state state_after[N_STATES][N_OPS] = {
#define E CMEK_KMS_ENABLED
#define D CMEK_KMS_DISABLED
#define P CMEK_KMS_PENDING_DELETION
#define X CMEK_KMS_DESTROYED
	[ST_ENABLED] =   { E, E, E, E, D, P, E, E, E },
	[ST_DISABLED] =  { D, D, D, E, D, P, D, D, D },
	[ST_PENDING] =   { P, P, P, P, P, P, D, P, P },
	[ST_EXPIRED] =   { X, X, X, X, X, X, X, X, X },
	[ST_DESTROYED] = { X, X, X, X, X, X, X, X, X },
#undef E
#undef D
#undef P
#undef X
};

static void put_in_state(struct cmek_kms *kms, int state)
{
	switch (state) {
	case ST_DISABLED:
		ck_ok(cmek_kms_disable(kms, &err));
		break;
	case ST_PENDING:
		ck_ok(cmek_kms_schedule_deletion(kms, CMEK_KMS_DAYS_DEFAULT, NULL, &err));
		break;
	case ST_EXPIRED:
		ck_ok(cmek_kms_schedule_deletion(kms, 1, NULL, &err));
		let_expire("local:db");
		break;
	case ST_DESTROYED:
		ck_ok(cmek_kms_schedule_deletion(kms, 0, NULL, &err));
		break;
	default:
		break;
	}
}

static int do_op(struct cmek_kms *kms, int op, const struct cmek_kms_blob *blob, const struct cmek_secret *kek)
{
	struct cmek_kms_blob out = { 0 };
	struct cmek_kms_info info = { 0 };
	struct cmek_secret *key = NULL;
	int rc = -EINVAL;

	switch (op) {
	case OP_WRAP:
		rc = cmek_kms_wrap(kms, &ctx, kek, &out, &err);
		break;
	case OP_UNWRAP:
		rc = cmek_kms_unwrap(kms, &ctx, blob, &key, NULL, &err);
		break;
	case OP_ROTATE:
		rc = cmek_kms_rotate(kms, NULL, &err);
		break;
	case OP_ENABLE:
		rc = cmek_kms_enable(kms, &err);
		break;
	case OP_DISABLE:
		rc = cmek_kms_disable(kms, &err);
		break;
	case OP_SCHEDULE:
		rc = cmek_kms_schedule_deletion(kms, 3, NULL, &err);
		break;
	case OP_CANCEL:
		rc = cmek_kms_cancel_deletion(kms, &err);
		break;
	case OP_CREATE:
		rc = cmek_kms_create(kms, NULL, &err);
		break;
	case OP_DESCRIBE:
		rc = cmek_kms_describe(kms, &info, &err);
		break;
	}
	cmek_kms_blob_done(&out);
	cmek_kms_info_done(&info);
	cmek_secret_free(key);
	return rc;
}

START_TEST(states_allow_what_they_should)
{
	int state = _i / N_OPS, op = _i % N_OPS;
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *kek = new_kek();
	struct cmek_kms_blob blob = { 0 };
	enum cmek_kind want = allowed[state][op];

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	put_in_state(kms, state);
	if (want == CMEK_E_NONE) {
		ck_ok(do_op(kms, op, &blob, kek));
	} else {
		ck_assert_int_lt(do_op(kms, op, &blob, kek), 0);
		ck_assert_msg(err.kind == want, "state %d, operation %d: kind %s: %s", state, op, cmek_kind_name(err.kind),
			      err.text);
		/* The sentence names the key and its store. */
		ck_assert_ptr_nonnull(strstr(err.text, "local:db"));
		if (want == DIS || want == PEND || want == DEST) {
			ck_assert_int_eq(err.err, EKEYREVOKED);
			ck_assert_ptr_nonnull(strstr(err.text, store_path));
		}
	}
	cmek_error_clear(&err);
	ck_assert_int_eq(state_of(kms), state_after[state][op]);
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(days_are_checked)
{
	static const struct {
		unsigned days;
		enum cmek_kind want;
		unsigned want_days;
	} rows[] = {
		{ CMEK_KMS_DAYS_DEFAULT, OK, 7 }, { 1, OK, 1 }, { 30, OK, 30 }, { 31, USAGE, 0 }, { ~1u, USAGE, 0 },
	};
	struct cmek_kms *kms = created("local:db");
	struct cmek_kms_info info = { 0 };
	int64_t date = 0, before = cmek_local_now();

	if (rows[_i].want != OK) {
		ck_fails(cmek_kms_schedule_deletion(kms, rows[_i].days, &date, &err), rows[_i].want);
		ck_assert_int_eq(state_of(kms), CMEK_KMS_ENABLED);
	} else {
		ck_ok(cmek_kms_schedule_deletion(kms, rows[_i].days, &date, &err));
		ck_assert_int_ge(date, before + rows[_i].want_days * 86400);
		ck_assert_int_le(date, cmek_local_now() + rows[_i].want_days * 86400);
		ck_ok(cmek_kms_describe(kms, &info, &err));
		ck_assert_int_eq(info.deletion_date, date);
		cmek_kms_info_done(&info);
	}
	cmek_kms_close(kms);
}
END_TEST

START_TEST(expired_material_goes_at_a_look)
{
	struct cmek_kms *kms = created("local:db"), *other = created("local:zz");
	struct cmek_kms_info info = { 0 };
	char *text;

	ck_ok(cmek_kms_schedule_deletion(kms, 1, NULL, &err));
	let_expire("local:db");
	text = read_text(store_path, NULL);
	ck_assert_ptr_nonnull(strstr(text, "pending-deletion"));
	free(text);
	if (_i == 0) {
		ck_ok(cmek_kms_describe(kms, &info, &err));
		ck_assert_int_eq(info.state, CMEK_KMS_DESTROYED);
		ck_assert_int_eq(info.versions[0].state, CMEK_KMS_DESTROYED);
		cmek_kms_info_done(&info);
	} else {
		ck_ok(cmek_kms_rotate(other, NULL, &err)); /* any write of the store does it */
	}
	text = read_text(store_path, NULL);
	ck_assert_ptr_null(strstr(text, "pending-deletion"));
	free(text);
	cmek_kms_close(kms);
	cmek_kms_close(other);
}
END_TEST

START_TEST(missing_keys_are_not_found)
{
	struct cmek_kms *kms = open_key("local:db"), *whole = open_key("local:");
	struct cmek_secret *kek = new_kek();
	struct cmek_kms_blob blob = { 0 };
	struct cmek_kms_info info, *infos;
	size_t n;

	/* No store at all, then a store without the key. */
	for (int round = 0; round < 2; round++) {
		ck_fails(cmek_kms_wrap(kms, &ctx, kek, &blob, &err), CMEK_E_NOT_FOUND);
		ck_fails(cmek_kms_describe(kms, &info, &err), CMEK_E_NOT_FOUND);
		ck_fails(cmek_kms_rotate(kms, NULL, &err), CMEK_E_NOT_FOUND);
		ck_fails(cmek_kms_schedule_deletion(kms, 1, NULL, &err), CMEK_E_NOT_FOUND);
		if (round == 0) {
			ck_fails(cmek_kms_list(whole, &infos, &n, &err), CMEK_E_NOT_FOUND);
			ck_assert_int_eq(access(store_path, F_OK), -1);
			ck_assert_int_eq(access(key_path, F_OK), -1);
			cmek_kms_close(created("local:other"));
		}
	}
	ck_fails(cmek_kms_create(whole, NULL, &err), CMEK_E_USAGE);
	ck_fails(cmek_kms_rotate(whole, NULL, &err), CMEK_E_USAGE);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
	cmek_kms_close(whole);
}
END_TEST

START_TEST(list_is_sorted)
{
	static const char *const names[] = { "local:m", "local:a", "local:z", "local:B", "local:m.1" };
	static const char *const sorted[] = { "local:B", "local:a", "local:m", "local:m.1", "local:z" };
	struct cmek_kms *kms = open_key("local:");
	struct cmek_kms_info *infos = NULL;
	size_t n = 0;

	for (size_t i = 0; i < 5; i++)
		cmek_kms_close(created(names[i]));
	ck_ok(cmek_kms_list(kms, &infos, &n, &err));
	ck_assert_uint_eq(n, 5);
	for (size_t i = 0; i < n; i++) {
		ck_assert_str_eq(infos[i].resolved, sorted[i]);
		ck_assert_str_eq(infos[i].protected_by, "key file");
		ck_assert_str_eq(infos[i].primary_version, "1");
		ck_assert_str_eq(infos[i].origin, "local");
		cmek_kms_info_done(&infos[i]);
	}
	free(infos);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(local_takes_no_principal)
{
	const struct cmek_kms_principal who = { .role = "arn:aws:iam::111122223333:role/x" };
	struct cmek_kms *kms = NULL;

	ck_fails(cmek_kms_open("local:db", &who, NULL, &kms, &err), CMEK_E_USAGE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("local");
	TCase *tc = tcase_create("local");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, wraps_and_unwraps);
	tcase_add_test(tc, no_two_wraps_are_alike);
	tcase_add_test(tc, blob_is_as_documented);
	tcase_add_test(tc, old_versions_unwrap_after_rotate);
	tcase_add_loop_test(tc, moved_blob_is_tampered, 0, N_MOVED);
	tcase_add_test(tc, truncated_blob_is_bad_format);
	tcase_add_test(tc, every_flipped_byte_is_noticed);
	tcase_add_loop_test(tc, states_allow_what_they_should, 0, N_STATES * N_OPS);
	tcase_add_loop_test(tc, days_are_checked, 0, 5);
	tcase_add_loop_test(tc, expired_material_goes_at_a_look, 0, 2);
	tcase_add_test(tc, missing_keys_are_not_found);
	tcase_add_test(tc, list_is_sorted);
	tcase_add_test(tc, local_takes_no_principal);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
