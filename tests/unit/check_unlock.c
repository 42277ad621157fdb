/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Unlocking: which slots are asked, what is made of their answers, and of header copies that do not authenticate. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/unlock.h"
#include "tests/unit/unit.h"
#include "tests/unit/volume.h"

static struct unit_volume v;
static struct cmek_error err;
static struct cmek_unlock_params params;
static struct cmek_volhdr_store *store;
static struct cmek_keyring *ring;

/* How the i-th slot's key answers (by slot id): kind 0 = with the KEK. */
static struct {
	enum cmek_kind kind;
	int err;
	int wrong_kek;
} answers[4];
static char asked[16]; /* ids of the slots that were asked */

static int fake_unwrap(void *arg, const uint8_t volume[16], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
		       struct cmek_error *e)
{
	ck_assert_ptr_eq(arg, &v);
	ck_assert_mem_eq(volume, v.hdr->uuid, 16);
	ck_assert_uint_lt(strlen(asked), sizeof(asked) - 1);
	asked[strlen(asked)] = (char)('0' + slot->id);
	if (answers[slot->id].kind)
		return cmek_error_set(e, answers[slot->id].kind, answers[slot->id].err, "answer %u: %s", slot->id,
				      cmek_kind_name(answers[slot->id].kind));
	if (answers[slot->id].wrong_kek)
		return cmek_secret_new_random(CMEK_KEY_KEK, 32, ret_kek, e);
	*ret_kek = cmek_secret_ref(v.kek);
	return 0;
}

static void setup(void)
{
	memset(answers, 0, sizeof(answers));
	memset(asked, 0, sizeof(asked));
	err = (struct cmek_error)CMEK_ERROR_INIT;
	ring = NULL;
	store = NULL;
	unit_volume_init(&v, 3);
	unit_volume_write(&v);
	params = (struct cmek_unlock_params){ .unwrapper = { &v, fake_unwrap }, .slot = -1,
					      .report = unit_volume_report(&v) };
}

static void teardown(void)
{
	cmek_keyring_free(ring);
	cmek_volhdr_store_close(store);
	unit_volume_done(&v);
}

static int unlock(enum cmek_store_access access)
{
	ck_assert_int_eq(cmek_volhdr_store_open(v.store_fd, access, NULL, &store, NULL), 0);
	return cmek_unlock(store, &params, &ring, &err);
}

static void opened(enum cmek_store_access access)
{
	ck_assert_msg(unlock(access) == 0, "%s", err.text);
	ck_assert_uint_eq(cmek_keyring_active_dek(ring), 1);
	ck_assert_mem_eq(cmek_secret_bytes(cmek_keyring_kek(ring), CMEK_KEY_KEK),
			 cmek_secret_bytes(v.kek, CMEK_KEY_KEK), 32);
}

static void refused(enum cmek_kind kind, int errnum)
{
	ck_assert_int_eq(unlock(CMEK_STORE_READ), -errnum);
	ck_assert_msg(err.kind == kind, "%s: %s", cmek_kind_name(err.kind), err.text);
	ck_assert_ptr_null(ring);
}

static void said(const char *text, const char *what)
{
	ck_assert_msg(strstr(text, what) != NULL, "\"%s\" does not say \"%s\"", text, what);
}

START_TEST(the_first_slot_serves)
{
	opened(CMEK_STORE_READ);
	ck_assert_str_eq(asked, "0");
	said(v.reports, "is not pinned on this host");
	said(v.reports, "local:0");
}
END_TEST

START_TEST(the_second_slot_serves)
{
	answers[0].kind = CMEK_E_DENIED;
	answers[0].err = EACCES;
	opened(CMEK_STORE_READ);
	ck_assert_str_eq(asked, "01");
	said(v.reports, "key slot 1 (local:1) opened the volume; before it failed slot 0 (local:0): answer 0: denied");
}
END_TEST

/* All slots fail: every story is told, and the kind is the one to act on. */
static const struct {
	enum cmek_kind kinds[3], want;
} failures[] = {
	{ { CMEK_E_DENIED, CMEK_E_KEY_DISABLED, CMEK_E_NOT_FOUND }, CMEK_E_DENIED },
	{ { CMEK_E_KEY_DESTROYED, CMEK_E_UNREACHABLE, CMEK_E_DENIED }, CMEK_E_UNREACHABLE },
	{ { CMEK_E_DENIED, CMEK_E_DENIED, CMEK_E_THROTTLED }, CMEK_E_THROTTLED },
	{ { CMEK_E_EXPIRED, CMEK_E_UNREACHABLE, CMEK_E_DENIED }, CMEK_E_EXPIRED },
	{ { CMEK_E_KEY_DESTROYED, CMEK_E_KEY_DESTROYED, CMEK_E_KEY_DESTROYED }, CMEK_E_KEY_DESTROYED },
};

START_TEST(all_slots_fail)
{
	int i;

	for (i = 0; i < 3; i++) {
		answers[i].kind = failures[_i].kinds[i];
		answers[i].err = EACCES;
	}
	refused(failures[_i].want, EACCES);
	ck_assert_str_eq(asked, "012");
	said(err.text, "answer 0");
	said(err.text, "answer 1");
	said(err.text, "answer 2");
}
END_TEST

START_TEST(one_slot_is_chosen)
{
	params.slot = 2;
	opened(CMEK_STORE_READ);
	ck_assert_str_eq(asked, "2");
}
END_TEST

START_TEST(the_chosen_slot_is_missing)
{
	params.slot = 7;
	refused(CMEK_E_NOT_FOUND, ENOENT);
	ck_assert_str_eq(asked, "");
	said(err.text, "slot 7");
}
END_TEST

static const struct {
	const char *key, *asked;
} keys[] = {
	{ "local:1", "1" }, { "aws-kms://local:2", "2" }, { "local:3", "" }, { "local:", "" }, { "1", "" }, { "", "" },
};

START_TEST(a_key_is_given)
{
	params.key = keys[_i].key;
	if (keys[_i].asked[0]) {
		opened(CMEK_STORE_READ);
		ck_assert_str_eq(v.reports, ""); /* the given key is a pin */
	} else {
		refused(CMEK_E_MISMATCH, EKEYREJECTED);
	}
	ck_assert_str_eq(asked, keys[_i].asked);
}
END_TEST

/* Pins for the slots of the header hdr, through a registry of its own. */
static void pin(const struct cmek_volhdr *hdr)
{
	struct cmek_registry *reg = NULL;
	struct cmek_pins *pins = NULL;
	char *path;

	ck_assert_int_gt(asprintf(&path, "%s/volumes.json", v.dir), 0);
	ck_assert_int_eq(cmek_registry_new(path, &reg, NULL), 0);
	ck_assert_int_eq(cmek_registry_pin(reg, hdr, v.dir, NULL), 0);
	ck_assert_int_eq(cmek_registry_pins(reg, hdr->uuid, &pins, NULL), 0);
	ck_assert_ptr_nonnull(pins);
	params.pins = pins;
	cmek_registry_free(reg);
	free(path);
}

START_TEST(pinned)
{
	pin(v.hdr);
	opened(CMEK_STORE_READ);
	ck_assert_str_eq(v.reports, "");
	cmek_pins_free((struct cmek_pins *)params.pins);
}
END_TEST

/* Somebody has put a slot of their own before ours: it is not even asked. */
START_TEST(a_foreign_slot_is_not_asked)
{
	pin(v.hdr);
	free(v.hdr->slots[0].resolved);
	v.hdr->slots[0].resolved = strdup("local:evil");
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	opened(CMEK_STORE_READ);
	ck_assert_str_eq(asked, "1");
	said(v.reports, "local:evil, which is not pinned");
	cmek_pins_free((struct cmek_pins *)params.pins);
}
END_TEST

START_TEST(no_slot_is_pinned)
{
	struct cmek_slot *slot;
	size_t i;

	pin(v.hdr);
	for (i = 0; i < v.hdr->n_slots; i++) {
		slot = &v.hdr->slots[i];
		slot->role = strdup("arn:aws:iam::666:role/evil"); /* the principal counts, too */
	}
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	refused(CMEK_E_MISMATCH, EKEYREJECTED);
	ck_assert_str_eq(asked, "");
	said(err.text, "local:0, local:1, local:2");
	cmek_pins_free((struct cmek_pins *)params.pins);
}
END_TEST

/* A header that somebody without the key changed: right checksum, higher number, wrong HMAC. */
static void tamper(int i)
{
	uint8_t bytes[UNIT_COPY_LEN];
	char *label;

	unit_copy_read(&v, i, bytes);
	label = strstr((char *)bytes + CMEK_VOLHDR_HEAD_LEN, "unit");
	ck_assert_ptr_nonnull(label);
	memcpy(label, "evil", 4);
	cmek_store64(bytes + 16, 9);
	unit_copy_reseal(bytes);
	unit_copy_write(&v, i, bytes, sizeof(bytes));
}

/* Loop: the copy that is tampered with; read-only or not. */
START_TEST(a_tampered_copy_yields)
{
	tamper(_i & 1);
	opened(_i & 2 ? CMEK_STORE_WRITE : CMEK_STORE_READ);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "unit");
	said(v.reports, "is not to be trusted");
	said(v.reports, unit_copy_name(_i & 1));
	ck_assert(cmek_volhdr_store_unequal(store) == !(_i & 2));
	if (_i & 2)
		said(v.reports, "written anew");
}
END_TEST

START_TEST(both_copies_tampered)
{
	tamper(0);
	tamper(1);
	refused(CMEK_E_TAMPERED, EBADMSG);
}
END_TEST

/* The older copy of a volume whose newer one has an error of the KMS is not asked. */
START_TEST(a_refusal_is_no_tampering)
{
	v.hdr->sequence = 9;
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	answers[0].kind = answers[1].kind = answers[2].kind = CMEK_E_KEY_DISABLED;
	answers[0].err = answers[1].err = answers[2].err = EKEYREVOKED;
	refused(CMEK_E_KEY_DISABLED, EKEYREVOKED);
	ck_assert_str_eq(asked, "012");
}
END_TEST

START_TEST(another_kek)
{
	answers[0].wrong_kek = 1;
	refused(CMEK_E_TAMPERED, EBADMSG);
}
END_TEST

/* Only a holder of the key can write such a header, so this is damage before it was written. */
START_TEST(a_dek_that_does_not_open)
{
	v.hdr->deks[0].wrapped[20] ^= 1;
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	refused(CMEK_E_TAMPERED, EBADMSG);
	said(err.text, "DEK 1");
}
END_TEST

START_TEST(deks_in_all_states)
{
	static const uint8_t salt[16] = { 1 }, file_id[16];
	static const enum cmek_dek_state states[] = { CMEK_DEK_DECRYPT_ONLY, CMEK_DEK_RETIRED, CMEK_DEK_DESTROYED };
	struct cmek_secret *key = NULL;
	struct cmek_dek_entry *dek;
	uint16_t id;

	for (id = 2; id <= 4; id++) {
		dek = cmek_volhdr_grow_deks(v.hdr);
		dek->id = id;
		dek->state = states[id - 2];
		if (dek->state != CMEK_DEK_DESTROYED)
			ck_assert_int_eq(
				cmek_keyring_make_dek(v.ring, id, 0, CMEK_DEK_DECRYPT_ONLY, dek->wrapped, NULL), 0);
	}
	v.hdr->dek_next = 5;
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	opened(CMEK_STORE_READ);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 2, salt, file_id, &key), 0);
	cmek_secret_free(key);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 3, salt, file_id, &key), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 4, salt, file_id, &key), -EKEYREVOKED);
	ck_assert_int_eq(cmek_keyring_content_key(ring, 5, salt, file_id, &key), -ENOKEY);
}
END_TEST

/* With a real key store: a slot that was wrapped, moved and spoilt. */
static struct cmek_kms_options kms_opts;
static char *keystore;

static void real_setup(void)
{
	struct cmek_kms_principal nobody = { 0 };
	struct cmek_kms_create how = { .passphrase = false };
	struct cmek_kms *kms = NULL;

	setup();
	ck_assert_int_gt(asprintf(&keystore, "%s/keys.json", v.dir), 0);
	kms_opts = (struct cmek_kms_options){ .keystore_path = keystore };
	cmek_slot_done(&v.hdr->slots[0]);
	ck_assert_int_eq(cmek_kms_open("local:real", &nobody, &kms_opts, &kms, &err), 0);
	ck_assert_msg(cmek_kms_create(kms, &how, &err) == 0, "%s", err.text);
	ck_assert_msg(cmek_keyslot_wrap(kms, v.hdr->uuid, 0, "data", NULL, v.kek, &v.hdr->slots[0], &err) == 0, "%s",
		      err.text);
	cmek_kms_close(kms);
	while (v.hdr->n_slots > 1)
		cmek_slot_done(&v.hdr->slots[--v.hdr->n_slots]);
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	params.unwrapper = cmek_unwrapper_kms(&kms_opts);
}

static void real_teardown(void)
{
	teardown();
	free(keystore);
}

START_TEST(real_key)
{
	ck_assert_str_eq(v.hdr->slots[0].resolved, "local:real");
	ck_assert_str_eq(v.hdr->slots[0].version, "1");
	opened(CMEK_STORE_WRITE);
}
END_TEST

static void administer(int (*what)(struct cmek_kms *kms, struct cmek_error *e))
{
	struct cmek_kms *kms = NULL;

	ck_assert_int_eq(cmek_kms_open("local:real", NULL, &kms_opts, &kms, NULL), 0);
	ck_assert_int_eq(what(kms, NULL), 0);
	cmek_kms_close(kms);
}

START_TEST(real_key_disabled)
{
	administer(cmek_kms_disable);
	refused(CMEK_E_KEY_DISABLED, EKEYREVOKED);
	said(err.text, "slot 0 (local:real)");
	cmek_volhdr_store_close(store);
	err = (struct cmek_error)CMEK_ERROR_INIT;
	administer(cmek_kms_enable);
	opened(CMEK_STORE_READ);
}
END_TEST

START_TEST(real_key_store_gone)
{
	ck_assert_int_eq(unlink(keystore), 0);
	refused(CMEK_E_NOT_FOUND, ENOKEY);
}
END_TEST

/* A wrapped blob belongs to its volume and its purpose. */
START_TEST(real_blob_is_bound)
{
	struct cmek_secret *kek = NULL;
	uint8_t other[16] = { 1 };
	struct cmek_slot *slot = &v.hdr->slots[0];

	ck_assert_int_eq(cmek_keyslot_unwrap(v.hdr->uuid, slot, &kms_opts, &kek, NULL, &err), 0);
	cmek_secret_free(kek);
	ck_assert_int_eq(cmek_keyslot_unwrap(other, slot, &kms_opts, &kek, NULL, &err), -EBADMSG);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	memcpy(slot->purpose, "dat2", 4);
	ck_assert_int_ne(cmek_keyslot_unwrap(v.hdr->uuid, slot, &kms_opts, &kek, NULL, NULL), 0);
	memcpy(slot->purpose, "data", 4);
	slot->wrapped[slot->wrapped_len - 1] ^= 1;
	ck_assert_int_eq(cmek_keyslot_unwrap(v.hdr->uuid, slot, &kms_opts, &kek, NULL, NULL), -EBADMSG);
}
END_TEST

START_TEST(real_provider_is_compared)
{
	struct cmek_secret *kek = NULL;
	struct cmek_slot *slot = &v.hdr->slots[0];

	strcpy(slot->provider, "aws");
	ck_assert_int_eq(cmek_keyslot_unwrap(v.hdr->uuid, slot, &kms_opts, &kek, NULL, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("unlock");
	TCase *fake = tcase_create("fake"), *real = tcase_create("real");

	tcase_add_checked_fixture(fake, setup, teardown);
	tcase_add_test(fake, the_first_slot_serves);
	tcase_add_test(fake, the_second_slot_serves);
	tcase_add_loop_test(fake, all_slots_fail, 0, UNIT_ROWS(failures));
	tcase_add_test(fake, one_slot_is_chosen);
	tcase_add_test(fake, the_chosen_slot_is_missing);
	tcase_add_loop_test(fake, a_key_is_given, 0, UNIT_ROWS(keys));
	tcase_add_test(fake, pinned);
	tcase_add_test(fake, a_foreign_slot_is_not_asked);
	tcase_add_test(fake, no_slot_is_pinned);
	tcase_add_loop_test(fake, a_tampered_copy_yields, 0, 4);
	tcase_add_test(fake, both_copies_tampered);
	tcase_add_test(fake, a_refusal_is_no_tampering);
	tcase_add_test(fake, another_kek);
	tcase_add_test(fake, a_dek_that_does_not_open);
	tcase_add_test(fake, deks_in_all_states);
	suite_add_tcase(suite, fake);
	tcase_add_checked_fixture(real, real_setup, real_teardown);
	tcase_add_test(real, real_key);
	tcase_add_test(real, real_key_disabled);
	tcase_add_test(real, real_key_store_gone);
	tcase_add_test(real, real_blob_is_bound);
	tcase_add_test(real, real_provider_is_compared);
	suite_add_tcase(suite, real);
	return unit_run(suite);
}
