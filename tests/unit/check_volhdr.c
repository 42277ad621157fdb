/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The header codec: the vector of doc/format.md, every byte of it flipped, and tables of ways a header can be wrong. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/volume/volhdr.h"
#include "tests/unit/unit.h"
#include "tests/unit/vectors.h"

#define HEAD CMEK_VOLHDR_HEAD_LEN
#define AT_TEXT_LEN 48
#define AT_SHA256 56
#define AT_HMAC 88

/* The n-th allocation from now on fails (linked with --wrap); 0 = none. */
static unsigned long fail_at, allocations;

static int fail_now(void)
{
	return fail_at && ++allocations == fail_at;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
	return fail_now() ? NULL : __real_malloc(n);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
	return fail_now() ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n)
{
	return fail_now() ? NULL : __real_realloc(p, n);
}

void *__real_reallocarray(void *p, size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return fail_now() ? NULL : __real_reallocarray(p, n, size);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return fail_now() ? NULL : __real_strdup(text);
}

static uint8_t *vector;
static size_t vector_len;
static struct cmek_secret *mac_key;

static void setup(void)
{
	uint8_t *key = vector_get("header_mac_key", NULL);

	cmek_secret_allow_unlocked();
	vector = vector_get("header", &vector_len);
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_HEADER_MAC, key, 32, &mac_key, NULL), 0);
	free(key);
}

static void teardown(void)
{
	cmek_secret_free(mac_key);
	free(vector);
}

static struct cmek_volhdr *decode(const uint8_t *bytes, size_t len)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr *hdr = NULL;

	ck_assert_msg(cmek_volhdr_decode(bytes, len, &hdr, &err) == 0, "%s", err.text);
	return hdr;
}

START_TEST(vector_decodes)
{
	struct cmek_volhdr *hdr = decode(vector, vector_len);
	uint8_t *uuid = vector_get("uuid", NULL), blob[48];
	size_t i;

	for (i = 0; i < sizeof(blob); i++)
		blob[i] = (uint8_t)i;
	ck_assert_uint_eq(hdr->sequence, 7);
	ck_assert_mem_eq(hdr->uuid, uuid, 16);
	ck_assert_uint_eq(hdr->area_len, 4096);
	ck_assert_str_eq(hdr->label, "vectors");
	ck_assert_uint_eq(hdr->block_size, 4096);
	ck_assert_uint_eq(hdr->symlink_max, 4095);
	ck_assert_int_eq(hdr->created, 1767323045);
	ck_assert_ptr_null(hdr->read_only_for);
	ck_assert_uint_eq(hdr->n_slots, 1);
	ck_assert_uint_eq(hdr->slots[0].id, 0);
	ck_assert_str_eq(hdr->slots[0].purpose, "data");
	ck_assert_str_eq(hdr->slots[0].resolved, "local:test");
	ck_assert_str_eq(hdr->slots[0].version, "1");
	ck_assert_ptr_null(hdr->slots[0].role);
	ck_assert_uint_eq(hdr->slots[0].wrapped_len, sizeof(blob));
	ck_assert_mem_eq(hdr->slots[0].wrapped, blob, sizeof(blob));
	ck_assert_uint_eq(hdr->dek_next, 3);
	ck_assert_uint_eq(hdr->dek_active, 1);
	ck_assert_uint_eq(hdr->n_deks, 2);
	ck_assert_int_eq(hdr->deks[0].state, CMEK_DEK_ACTIVE);
	vector_check("dek_wrapped", hdr->deks[0].wrapped, CMEK_DEK_WRAPPED_LEN);
	ck_assert_int_eq(hdr->deks[1].state, CMEK_DEK_DESTROYED);
	ck_assert_int_eq(cmek_volhdr_verify(vector, vector_len, mac_key, NULL), 0);
	cmek_volhdr_free(hdr);
	free(uuid);
}
END_TEST

/* What a later version put into the text stays when this one changes the header. */
START_TEST(unknown_members_are_kept)
{
	struct cmek_volhdr *hdr = decode(vector, vector_len), *again;
	struct cmek_dek_entry *dek;
	uint8_t *bytes = NULL;
	size_t len = 0;

	strcpy(hdr->label, "another");
	hdr->sequence++;
	hdr->deks[0].state = CMEK_DEK_DECRYPT_ONLY;
	dek = cmek_volhdr_grow_deks(hdr);
	ck_assert_ptr_nonnull(dek);
	dek->id = 3;
	dek->state = CMEK_DEK_ACTIVE;
	hdr->dek_active = 3;
	hdr->dek_next = 4;
	ck_assert_int_eq(cmek_volhdr_encode(hdr, mac_key, &bytes, &len, NULL), 0);
	ck_assert_uint_eq(len, vector_len);
	again = decode(bytes, len);
	ck_assert_int_eq(cmek_volhdr_verify(bytes, len, mac_key, NULL), 0);
	ck_assert_str_eq(again->label, "another");
	ck_assert_uint_eq(again->sequence, 8);
	ck_assert_uint_eq(again->dek_active, 3);
	ck_assert_uint_eq(again->n_deks, 3);
	ck_assert_ptr_nonnull(strstr((char *)bytes + HEAD, "\"x-later\":{\"kept\":true}"));
	ck_assert_ptr_nonnull(strstr((char *)bytes + HEAD, "\"x-unknown\":[1,{\"deep\":null}]"));
	ck_assert_ptr_nonnull(strstr((char *)bytes + HEAD, "\"compat\":[\"x-some\"]"));
	cmek_volhdr_free(hdr);
	cmek_volhdr_free(again);
	free(bytes);
}
END_TEST

/* One header on: encoded, and decoded again. */
static struct cmek_volhdr *next_of(struct cmek_volhdr *hdr)
{
	struct cmek_volhdr *again;
	uint8_t *bytes = NULL;
	size_t len = 0;

	hdr->sequence++;
	ck_assert_int_eq(cmek_volhdr_encode(hdr, mac_key, &bytes, &len, NULL), 0);
	again = decode(bytes, len);
	cmek_volhdr_free(hdr);
	free(bytes);
	return again;
}

/* A data key's states come one after the other, with their times, and none is skipped. */
START_TEST(life_of_a_dek)
{
	struct cmek_volhdr *hdr = decode(vector, vector_len);
	struct cmek_dek_entry *dek = cmek_volhdr_dek(hdr, 1);
	const uint8_t zero[CMEK_DEK_WRAPPED_LEN] = { 0 };

	ck_assert_ptr_null(cmek_volhdr_dek(hdr, 77));
	ck_assert(!cmek_volhdr_retire_dek(dek, 1000, 2000)); /* it is active */
	ck_assert(!cmek_volhdr_destroy_dek(dek, 1000));
	dek->state = CMEK_DEK_DECRYPT_ONLY;
	dek = cmek_volhdr_grow_deks(hdr);
	ck_assert_ptr_nonnull(dek);
	dek->id = 3;
	dek->state = CMEK_DEK_ACTIVE;
	hdr->dek_active = 3;
	hdr->dek_next = 4;
	hdr = next_of(hdr);
	ck_assert_int_eq(cmek_volhdr_destroy_after(hdr), 0);
	dek = cmek_volhdr_dek(hdr, 1);
	ck_assert(!cmek_volhdr_destroy_dek(dek, 1000));
	ck_assert(cmek_volhdr_retire_dek(dek, 1000, 2000));
	ck_assert(!cmek_volhdr_retire_dek(dek, 1001, 2001));
	hdr = next_of(hdr);
	dek = cmek_volhdr_dek(hdr, 1);
	ck_assert_int_eq(dek->state, CMEK_DEK_RETIRED);
	ck_assert_int_eq(dek->retired, 1000);
	ck_assert_int_eq(dek->destroy_after, 2000);
	ck_assert(memcmp(dek->wrapped, zero, sizeof(zero)) != 0);
	ck_assert_int_eq(cmek_volhdr_destroy_after(hdr), 2000);
	ck_assert(cmek_volhdr_destroy_dek(dek, 3000));
	ck_assert(!cmek_volhdr_destroy_dek(dek, 3001));
	hdr = next_of(hdr);
	dek = cmek_volhdr_dek(hdr, 1);
	ck_assert_int_eq(dek->state, CMEK_DEK_DESTROYED);
	ck_assert_int_eq(dek->retired, 1000);
	ck_assert_int_eq(dek->destroy_after, 0);
	ck_assert_int_eq(dek->destroyed, 3000);
	ck_assert(memcmp(dek->wrapped, zero, sizeof(zero)) == 0);
	ck_assert_int_eq(cmek_volhdr_destroy_after(hdr), 0);
	cmek_volhdr_free(hdr);
}
END_TEST

/* A flipped bit anywhere is told, by the decoder or, in the HMAC's own bytes, by the HMAC. */
START_TEST(every_byte_flipped)
{
	struct cmek_volhdr *hdr;
	struct cmek_error err;
	size_t i;
	int ret;

	for (i = 0; i < vector_len; i++) {
		err = (struct cmek_error)CMEK_ERROR_INIT;
		hdr = NULL;
		vector[i] ^= (uint8_t)(1 << i % 8);
		ret = cmek_volhdr_decode(vector, vector_len, &hdr, &err);
		if (i >= AT_HMAC && i < AT_HMAC + 32) {
			ck_assert_int_eq(ret, 0);
			ck_assert_int_eq(cmek_volhdr_verify(vector, vector_len, mac_key, &err), -EBADMSG);
			ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
			cmek_volhdr_free(hdr);
		} else {
			ck_assert_msg(ret == -EINVAL || ret == -ENOTSUP, "byte %zu: %d", i, ret);
			ck_assert_msg(err.kind == CMEK_E_BAD_FORMAT || err.kind == CMEK_E_UNSUPPORTED, "byte %zu", i);
			ck_assert_ptr_null(hdr);
			ck_assert_int_eq(cmek_volhdr_verify(vector, vector_len, mac_key, NULL),
					 i >= AT_SHA256 && i < AT_HMAC ? 0 : -EBADMSG);
		}
		vector[i] ^= (uint8_t)(1 << i % 8);
	}
}
END_TEST

START_TEST(every_length)
{
	struct cmek_volhdr *hdr = NULL;
	uint8_t *longer = calloc(1, vector_len * 2), *exact;
	size_t len;

	ck_assert_ptr_nonnull(longer);
	memcpy(longer, vector, vector_len);
	for (len = 0; len <= vector_len * 2; len += len < 200 ? 1 : 61) {
		if (len == vector_len)
			continue;
		exact = malloc(len ? len : 1); /* so that a sanitizer sees a read past the end */
		ck_assert_ptr_nonnull(exact);
		memcpy(exact, longer, len);
		ck_assert_int_eq(cmek_volhdr_decode(exact, len, &hdr, NULL), -EINVAL);
		free(exact);
	}
	free(longer);
}
END_TEST

/* A header copy with this text and right checksums. */
static void put_text(uint8_t *bytes, size_t len, const char *text)
{
	struct iovec all = { bytes, len };

	ck_assert_uint_le(strlen(text), len - HEAD);
	memset(bytes + HEAD, 0, len - HEAD);
	memcpy(bytes + HEAD, text, strlen(text));
	cmek_store64(bytes + AT_TEXT_LEN, strlen(text));
	memset(bytes + AT_SHA256, 0, 64);
	ck_assert_int_eq(cmek_sha256(&all, 1, bytes + AT_SHA256), 0);
}

static void reseal(uint8_t *bytes, size_t len)
{
	struct iovec all = { bytes, len };

	memset(bytes + AT_SHA256, 0, 64);
	ck_assert_int_eq(cmek_sha256(&all, 1, bytes + AT_SHA256), 0);
}

/* Heads that are wrong in spite of a right checksum: `n` bytes of value at offset. */
static const struct {
	const char *name;
	size_t offset, n;
	uint64_t value;
	enum cmek_kind kind;
	const char *text;
} heads[] = {
	{ "magic", 0, 1, 'X', CMEK_E_BAD_FORMAT, "magic" },
	{ "a later version", 8, 4, 2, CMEK_E_UNSUPPORTED, "version 2" },
	{ "version 0", 8, 4, 0, CMEK_E_UNSUPPORTED, "version 0" },
	{ "head length", 12, 4, 8192, CMEK_E_BAD_FORMAT, "head length is 8192" },
	{ "sequence 0", 16, 8, 0, CMEK_E_BAD_FORMAT, "sequence" },
	{ "sequence at its end", 16, 8, UINT64_MAX, CMEK_E_BAD_FORMAT, "sequence" },
	{ "UUID", 24, 1, 0xff, CMEK_E_BAD_FORMAT, "uuid" },
	{ "area 0", 40, 8, 0, CMEK_E_BAD_FORMAT, "area length 0" },
	{ "area odd", 40, 8, 4097, CMEK_E_BAD_FORMAT, "area length 4097" },
	{ "area huge", 40, 8, UINT64_MAX - 4095, CMEK_E_BAD_FORMAT, "area length" },
	{ "area larger than the file", 40, 8, 8192, CMEK_E_BAD_FORMAT, "the head says 12288" },
	{ "text larger than the area", 48, 8, 4097, CMEK_E_BAD_FORMAT, "text length 4097" },
	{ "no text", 48, 8, 0, CMEK_E_BAD_FORMAT, "not zero" },
	{ "reserved", 120, 1, 1, CMEK_E_BAD_FORMAT, "reserved" },
	{ "reserved at the end", 4095, 1, 1, CMEK_E_BAD_FORMAT, "reserved" },
	{ "behind the text", 8191, 1, 1, CMEK_E_BAD_FORMAT, "behind the text" },
};

START_TEST(wrong_heads)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr *hdr = NULL;
	size_t i;

	for (i = 0; i < heads[_i].n; i++)
		vector[heads[_i].offset + i] = (uint8_t)(heads[_i].value >> 8 * i);
	reseal(vector, vector_len);
	ck_assert_msg(cmek_volhdr_decode(vector, vector_len, &hdr, &err) != 0, "%s", heads[_i].name);
	ck_assert_msg(err.kind == heads[_i].kind, "%s: %s", heads[_i].name, err.text);
	ck_assert_msg(strstr(err.text, heads[_i].text) != NULL, "%s: %s", heads[_i].name, err.text);
}
END_TEST

#define LONG_65 "12345678901234567890123456789012345678901234567890123456789012345"

/* The member at a path of the vector's text is replaced (NULL: taken away); what the error says. */
static const struct {
	const char *path, *value;
	enum cmek_kind kind;
	const char *text;
} texts[] = {
	{ "format", NULL, CMEK_E_BAD_FORMAT, "format is missing" },
	{ "format", "\"1\"", CMEK_E_BAD_FORMAT, "format is not an integer" },
	{ "format", "2", CMEK_E_UNSUPPORTED, "format 2" },
	{ "features", NULL, CMEK_E_BAD_FORMAT, "features is missing" },
	{ "features", "[]", CMEK_E_BAD_FORMAT, "features is not an object" },
	{ "features.compat", NULL, CMEK_E_BAD_FORMAT, "features.compat" },
	{ "features.incompat", NULL, CMEK_E_BAD_FORMAT, "features.incompat" },
	{ "features.incompat", "{}", CMEK_E_BAD_FORMAT, "features.incompat is not an array" },
	{ "features.incompat", "[1]", CMEK_E_BAD_FORMAT, "features.incompat" },
	{ "features.incompat", "[\"zip\", \"zap\"]", CMEK_E_UNSUPPORTED, "zip, zap" },
	{ "features.incompat", "[\"\\u001b[2J\"]", CMEK_E_BAD_FORMAT, "no feature's name" },
	{ "uuid", NULL, CMEK_E_BAD_FORMAT, "uuid is missing" },
	{ "uuid", "\"x\"", CMEK_E_BAD_FORMAT, "uuid is not a UUID" },
	{ "uuid", "\"6b0c1f5e-2d3a-4b58-9697-88796a5b4c3e\"", CMEK_E_BAD_FORMAT, "not the one in the head" },
	{ "label", "7", CMEK_E_BAD_FORMAT, "label" },
	{ "label", "\"" LONG_65 "\"", CMEK_E_BAD_FORMAT, "label" },
	{ "label", "\"a\\nb\"", CMEK_E_BAD_FORMAT, "label" },
	{ "label", "\"\\u009b2J\"", CMEK_E_BAD_FORMAT, "label" },
	{ "block_size", "0", CMEK_E_BAD_FORMAT, "block_size" },
	{ "block_size", "2048", CMEK_E_BAD_FORMAT, "block_size" },
	{ "block_size", "12288", CMEK_E_BAD_FORMAT, "block_size" },
	{ "block_size", "131072", CMEK_E_BAD_FORMAT, "block_size" },
	{ "block_size", "-4096", CMEK_E_BAD_FORMAT, "block_size" },
	{ "symlink_max", "1022", CMEK_E_BAD_FORMAT, "symlink_max" },
	{ "symlink_max", "4096", CMEK_E_BAD_FORMAT, "symlink_max" },
	{ "created", "\"yesterday\"", CMEK_E_BAD_FORMAT, "created" },
	{ "slots", "[]", CMEK_E_BAD_FORMAT, "slots has no slot" },
	{ "slots", "{}", CMEK_E_BAD_FORMAT, "slots is not an array" },
	{ "slots", "[7]", CMEK_E_BAD_FORMAT, "slots[0] is not an object" },
	{ "slots.0.id", "32", CMEK_E_BAD_FORMAT, "slots[0].id" },
	{ "slots.0.id", "-1", CMEK_E_BAD_FORMAT, "slots[0].id" },
	{ "slots.0.purpose", "\"fun\"", CMEK_E_BAD_FORMAT, "slots[0].purpose" },
	{ "slots.0.provider", "\"../local\"", CMEK_E_BAD_FORMAT, "slots[0].provider" },
	{ "slots.0.key", "\"\"", CMEK_E_BAD_FORMAT, "slots[0].key" },
	{ "slots.0.resolved", "\"local:\\u0007\"", CMEK_E_BAD_FORMAT, "slots[0].resolved" },
	{ "slots.0.version", NULL, CMEK_E_BAD_FORMAT, "slots[0].version" },
	{ "slots.0.region", "null", CMEK_E_BAD_FORMAT, "slots[0].region" },
	{ "slots.0.principal", "[]", CMEK_E_BAD_FORMAT, "slots[0].principal" },
	{ "slots.0.principal", "{\"role\": 1}", CMEK_E_BAD_FORMAT, "slots[0].principal.role" },
	{ "slots.0.wrapped", "\"\"", CMEK_E_BAD_FORMAT, "slots[0].wrapped" },
	{ "slots.0.wrapped", "\"AA=A\"", CMEK_E_BAD_FORMAT, "slots[0].wrapped is not base64" },
	{ "slots.0.rewrapped", "0", CMEK_E_BAD_FORMAT, "slots[0].rewrapped" },
	{ "deks", NULL, CMEK_E_BAD_FORMAT, "deks is missing" },
	{ "deks.next", "1", CMEK_E_BAD_FORMAT, "deks.next" },
	{ "deks.next", "65537", CMEK_E_BAD_FORMAT, "deks.next" },
	{ "deks.next", "2", CMEK_E_BAD_FORMAT, "DEK 2 is not below" },
	{ "deks.active", "2", CMEK_E_BAD_FORMAT, "DEK 1 is active, deks.active is 2" },
	{ "deks.table", "[]", CMEK_E_BAD_FORMAT, "no active DEK" },
	{ "deks.table.0.id", "0", CMEK_E_BAD_FORMAT, "deks.table[0].id" },
	{ "deks.table.0.id", "65536", CMEK_E_BAD_FORMAT, "deks.table[0].id" },
	{ "deks.table.1.id", "1", CMEK_E_BAD_FORMAT, "two DEKs with id 1" },
	{ "deks.table.0.state", "\"decrypt-only\"", CMEK_E_BAD_FORMAT, "no active DEK" },
	{ "deks.table.0.state", "\"alive\"", CMEK_E_BAD_FORMAT, "deks.table[0].state" },
	{ "deks.table.1.state", "\"active\"", CMEK_E_BAD_FORMAT, "deks.table[1].wrapped is missing" },
	{ "deks.table.0.state", "\"destroyed\"", CMEK_E_BAD_FORMAT, "although the DEK is destroyed" },
	{ "deks.table.0.domain", "4294967296", CMEK_E_BAD_FORMAT, "deks.table[0].domain" },
	{ "deks.table.0.created", NULL, CMEK_E_BAD_FORMAT, "deks.table[0].created" },
	{ "deks.table.0.wrapped", "\"AAAA\"", CMEK_E_BAD_FORMAT, "deks.table[0].wrapped" },
};

/* The text of the vector with one member replaced; the caller frees it. */
static char *changed_text(const char *path, const char *value)
{
	json_t *root = json_loads((char *)vector + HEAD, 0, NULL), *at = root;
	char *copy = strdup(path), *name, *next, *text;

	ck_assert_ptr_nonnull(root);
	for (name = strtok(copy, "."); (next = strtok(NULL, ".")); name = next)
		at = json_is_array(at) ? json_array_get(at, (size_t)atoi(name)) : json_object_get(at, name);
	ck_assert_ptr_nonnull(json_object_get(at, name));
	if (value)
		ck_assert_int_eq(json_object_set_new(at, name, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
	else
		json_object_del(at, name);
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	free(copy);
	return text;
}

START_TEST(wrong_texts)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr *hdr = NULL;
	char *text = changed_text(texts[_i].path, texts[_i].value);

	put_text(vector, vector_len, text);
	ck_assert_msg(cmek_volhdr_decode(vector, vector_len, &hdr, &err) != 0, "%s", texts[_i].path);
	ck_assert_msg(err.kind == texts[_i].kind, "%s: %s", texts[_i].path, err.text);
	ck_assert_msg(strstr(err.text, texts[_i].text) != NULL, "%s: %s", texts[_i].path, err.text);
	free(text);
}
END_TEST

static const char *const no_objects[] = {
	"", " ", "{", "[]", "null", "{} x", "{\"format\":1,\"format\":1}", "\xff\xfe", "{\"a\":\"\\u0000\"}",
};

START_TEST(no_json_object)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr *hdr = NULL;

	put_text(vector, vector_len, no_objects[_i]);
	ck_assert_int_eq(cmek_volhdr_decode(vector, vector_len, &hdr, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
}
END_TEST

START_TEST(two_slots_of_one_id)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr *hdr = NULL;
	json_t *root = json_loads((char *)vector + HEAD, 0, NULL), *slots = json_object_get(root, "slots");
	char *text;

	json_array_append_new(slots, json_deep_copy(json_array_get(slots, 0)));
	text = json_dumps(root, JSON_COMPACT);
	put_text(vector, vector_len, text);
	ck_assert_int_eq(cmek_volhdr_decode(vector, vector_len, &hdr, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "slots[1].id is used twice"));
	json_decref(root);
	free(text);
}
END_TEST

START_TEST(unknown_ro_compat_is_told)
{
	char *text = changed_text("features.ro_compat", "[\"quota\", \"dedup\"]");
	struct cmek_volhdr *hdr;

	put_text(vector, vector_len, text);
	hdr = decode(vector, vector_len);
	ck_assert_str_eq(hdr->read_only_for, "quota, dedup");
	cmek_volhdr_free(hdr);
	free(text);
}
END_TEST

START_TEST(intact)
{
	uint64_t sequence = 0;

	ck_assert(cmek_volhdr_intact(vector, vector_len, &sequence));
	ck_assert_uint_eq(sequence, 7);
	cmek_store32(vector + 8, 2);
	ck_assert(!cmek_volhdr_intact(vector, vector_len, &sequence));
	reseal(vector, vector_len);
	ck_assert(cmek_volhdr_intact(vector, vector_len, &sequence));
	ck_assert(!cmek_volhdr_intact(vector, vector_len - 1, &sequence));
	ck_assert(!cmek_volhdr_intact(vector, 10, &sequence));
}
END_TEST

static void set_zero_sequence(struct cmek_volhdr *hdr) { hdr->sequence = 0; }
static void set_block_size(struct cmek_volhdr *hdr) { hdr->block_size = 5000; }
static void set_symlink_max(struct cmek_volhdr *hdr) { hdr->symlink_max = 100; }
static void set_area_len(struct cmek_volhdr *hdr) { hdr->area_len = 5000; }
static void set_active(struct cmek_volhdr *hdr) { hdr->dek_active = 9; }
static void set_label(struct cmek_volhdr *hdr) { strcpy(hdr->label, "a\tb"); }
static void set_slot_id(struct cmek_volhdr *hdr) { hdr->slots[0].id = 32; }
static void set_long_key(struct cmek_volhdr *hdr)
{
	free(hdr->slots[0].wrapped);
	hdr->slots[0].wrapped_len = 4000;
	hdr->slots[0].wrapped = calloc(1, 4000);
}

static const struct {
	void (*spoil)(struct cmek_volhdr *hdr);
	enum cmek_kind kind;
} unencodable[] = {
	{ set_zero_sequence, CMEK_E_USAGE }, { set_block_size, CMEK_E_USAGE }, { set_symlink_max, CMEK_E_USAGE },
	{ set_area_len, CMEK_E_USAGE },      { set_active, CMEK_E_BAD_FORMAT }, { set_label, CMEK_E_USAGE },
	{ set_slot_id, CMEK_E_USAGE },       { set_long_key, CMEK_E_LIMIT },
};

START_TEST(what_can_not_be_read_is_not_written)
{
	struct cmek_volhdr *hdr = decode(vector, vector_len);
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *bytes = NULL;
	size_t len;

	unencodable[_i].spoil(hdr);
	ck_assert_int_ne(cmek_volhdr_encode(hdr, mac_key, &bytes, &len, &err), 0);
	ck_assert_int_eq(err.kind, unencodable[_i].kind);
	ck_assert_ptr_null(bytes);
	cmek_volhdr_free(hdr);
}
END_TEST

/* The text that goes to another process carries all of a slot but what we don't know. */
START_TEST(slot_as_text)
{
	struct cmek_volhdr *hdr = decode(vector, vector_len);
	struct cmek_slot *slot = &hdr->slots[0], again = { 0 };
	char *text = NULL;
	size_t len;

	slot->role = strdup("arn:aws:iam::1:role/r");
	slot->external_id = strdup("e");
	slot->service_account = strdup("s@p");
	slot->profile = strdup("Profile-1");
	slot->id = 31;
	ck_assert_int_eq(cmek_slot_encode(slot, &text, &len, NULL), 0);
	ck_assert_uint_eq(len, strlen(text));
	ck_assert_ptr_null(strchr(text, '\n'));
	ck_assert_ptr_null(strstr(text, "x-unknown"));
	ck_assert_int_eq(cmek_slot_decode(text, len, &again, NULL), 0);
	ck_assert_uint_eq(again.id, 31);
	ck_assert_str_eq(again.resolved, slot->resolved);
	ck_assert_str_eq(cmek_slot_principal(&again).role, slot->role);
	ck_assert_str_eq(cmek_slot_principal(&again).external_id, "e");
	ck_assert_str_eq(cmek_slot_principal(&again).service_account, "s@p");
	ck_assert_str_eq(cmek_slot_principal(&again).profile, "Profile-1");
	ck_assert_uint_eq(again.wrapped_len, slot->wrapped_len);
	ck_assert_mem_eq(again.wrapped, slot->wrapped, slot->wrapped_len);
	ck_assert_int_eq(again.rewrapped, slot->rewrapped);
	cmek_slot_done(&again);
	ck_assert_int_eq(cmek_slot_decode(text, len - 1, &again, NULL), -EINVAL);
	ck_assert_int_eq(cmek_slot_decode("{}", 2, &again, NULL), -EINVAL);
	free(text);
	cmek_volhdr_free(hdr);
}
END_TEST

/* Decodes, encodes and hands on a slot. The results are the caller's to free, whatever it returns. */
static int round_trip(uint8_t **bytes, size_t *len, char **text)
{
	struct cmek_volhdr *hdr = NULL;
	struct cmek_slot slot = { 0 };
	size_t text_len;
	int ret;

	*bytes = NULL;
	*text = NULL;
	ret = cmek_volhdr_decode(vector, vector_len, &hdr, NULL);
	if (!ret)
		ret = cmek_volhdr_encode(hdr, mac_key, bytes, len, NULL);
	if (!ret)
		ret = cmek_slot_encode(&hdr->slots[0], text, &text_len, NULL);
	if (!ret)
		ret = cmek_slot_decode(*text, text_len, &slot, NULL);
	cmek_slot_done(&slot);
	cmek_volhdr_free(hdr);
	return ret;
}

/* No memory, at each allocation: an error, or nothing is missing in the results; no crash, nothing leaked. */
START_TEST(no_memory)
{
	uint8_t *want_bytes, *bytes;
	char *want_text, *text;
	size_t want_len, len;
	unsigned long n = 0;
	int ret;

	cmek_json_init(); /* jansson's allocations are then the wrapped ones */
	ck_assert_int_eq(round_trip(&want_bytes, &want_len, &want_text), 0);
	do {
		allocations = 0;
		fail_at = ++n;
		ret = round_trip(&bytes, &len, &text);
		fail_at = 0; /* Check allocates, too */
		ck_assert_int_le(ret, 0);
		if (!ret) {
			ck_assert_uint_eq(len, want_len);
			ck_assert_mem_eq(bytes, want_bytes, len);
			ck_assert_str_eq(text, want_text);
		}
		free(bytes);
		free(text);
	} while (allocations >= n);
	ck_assert_int_eq(ret, 0);
	ck_assert_uint_gt(n, 500);
	free(want_bytes);
	free(want_text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("volhdr");
	TCase *tcase = tcase_create("volhdr");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, vector_decodes);
	tcase_add_test(tcase, unknown_members_are_kept);
	tcase_add_test(tcase, life_of_a_dek);
	tcase_add_test(tcase, every_byte_flipped);
	tcase_add_test(tcase, every_length);
	tcase_add_loop_test(tcase, wrong_heads, 0, UNIT_ROWS(heads));
	tcase_add_loop_test(tcase, wrong_texts, 0, UNIT_ROWS(texts));
	tcase_add_loop_test(tcase, no_json_object, 0, UNIT_ROWS(no_objects));
	tcase_add_test(tcase, two_slots_of_one_id);
	tcase_add_test(tcase, unknown_ro_compat_is_told);
	tcase_add_test(tcase, intact);
	tcase_add_loop_test(tcase, what_can_not_be_read_is_not_written, 0, UNIT_ROWS(unencodable));
	tcase_add_test(tcase, slot_as_text);
	tcase_add_test(tcase, no_memory);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
