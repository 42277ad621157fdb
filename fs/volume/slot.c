/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Key slots as values: JSON to struct with every field checked, and back. Knows neither the header around a slot nor
 * any KMS.
 */
#include "config.h"

#include "fs/volume/slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

void cmek_slot_done(struct cmek_slot *slot)
{
	free(slot->purpose);
	free(slot->provider);
	free(slot->key);
	free(slot->resolved);
	free(slot->version);
	free(slot->region);
	free(slot->role);
	free(slot->external_id);
	free(slot->service_account);
	free(slot->profile);
	free(slot->wrapped);
	json_decref(slot->read);
	memset(slot, 0, sizeof(*slot));
}

struct cmek_kms_principal cmek_slot_principal(const struct cmek_slot *slot)
{
	return (struct cmek_kms_principal){
		.role = slot->role,
		.external_id = slot->external_id,
		.service_account = slot->service_account,
		.profile = slot->profile,
	};
}

int cmek_slot_key_is(const char *resolved, const char *key)
{
	const char *behind = strstr(key, "://");

	return !strcmp(resolved, key) || (behind && !strcmp(resolved, behind + 3));
}

static int is_one_of(const char *text, const char *const *names)
{
	size_t i;

	for (i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return 1;
	return 0;
}

int cmek_slot_purpose_ok(const char *purpose)
{
	static const char *const purposes[] = { "data", "backup", "recovery", NULL };

	return is_one_of(purpose, purposes);
}

static int provider_ok(const char *provider)
{
	static const char *const providers[] = { "local", "aws", "gcp", "ibm", "recovery", NULL };

	return is_one_of(provider, providers);
}

int cmek_slot_text_ok(const char *text, size_t max, int empty)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t len = strlen(text);
	json_t *utf8;

	if (len > max || (len == 0 && !empty))
		return 0;
	for (; *p; p++)
		if (*p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
			return 0;
	/* Checks the encoding. No memory is told as "not fine", too: the caller then stops. */
	utf8 = json_string(text);
	json_decref(utf8);
	return utf8 != NULL;
}

json_t *cmek_slot_copy_json(const json_t *json)
{
	json_t *copy = json_deep_copy(json);

	if (copy && !json_equal(copy, json)) {
		json_decref(copy);
		copy = NULL;
	}
	return copy;
}

char *cmek_slot_dump_json(const json_t *json, size_t flags)
{
	char *text = json_dumps(json, flags);
	json_t *again = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;

	if (!again || !json_equal(again, json)) {
		free(text);
		text = NULL;
	}
	json_decref(again);
	return text;
}

static int read_text(const struct cmek_json_at *at, const char *name, int empty, char **ret_text,
		     struct cmek_error *err)
{
	const char *text = NULL;
	int ret = cmek_json_string(at, name, &text, err);

	if (ret)
		return ret;
	if (!cmek_slot_text_ok(text, CMEK_SLOT_TEXT_MAX, empty))
		return cmek_json_bad(at, name, "is empty, too long or has control characters", err);
	*ret_text = strdup(text);
	return *ret_text ? 0 : cmek_error_sys(err, ENOMEM, "key slot");
}

static int read_principal(const struct cmek_json_at *at, struct cmek_slot *slot, struct cmek_error *err)
{
	struct cmek_json_at principal;
	int ret = cmek_json_object(at, "principal", &principal, err);

	if (!ret && cmek_json_has(&principal, "role"))
		ret = read_text(&principal, "role", 0, &slot->role, err);
	if (!ret && cmek_json_has(&principal, "external_id"))
		ret = read_text(&principal, "external_id", 0, &slot->external_id, err);
	if (!ret && cmek_json_has(&principal, "service_account"))
		ret = read_text(&principal, "service_account", 0, &slot->service_account, err);
	if (!ret && cmek_json_has(&principal, "profile"))
		ret = read_text(&principal, "profile", 0, &slot->profile, err);
	return ret;
}

static int read_wrapped(const struct cmek_json_at *at, struct cmek_slot *slot, struct cmek_error *err)
{
	const char *text = NULL;
	size_t max;
	long n;
	int ret = cmek_json_string(at, "wrapped", &text, err);

	if (ret)
		return ret;
	max = strlen(text) / 4 * 3;
	if (max == 0 || max > CMEK_SLOT_BLOB_MAX)
		return cmek_json_bad(at, "wrapped", "is empty or too long", err);
	slot->wrapped = malloc(max);
	if (!slot->wrapped)
		return cmek_error_sys(err, ENOMEM, "key slot");
	n = cmek_b64_decode(text, strlen(text), slot->wrapped, max);
	if (n <= 0)
		return cmek_json_bad(at, "wrapped", "is not base64", err);
	slot->wrapped_len = (size_t)n;
	return 0;
}

static int read_fields(const struct cmek_json_at *at, struct cmek_slot *slot, struct cmek_error *err)
{
	uint64_t id = 0;
	int ret;

	ret = cmek_json_uint(at, "id", 0, CMEK_SLOTS_MAX - 1, &id, err);
	slot->id = (unsigned)id;
	if (!ret)
		ret = read_text(at, "purpose", 0, &slot->purpose, err);
	if (!ret && !cmek_slot_purpose_ok(slot->purpose))
		ret = cmek_json_bad(at, "purpose", "is none of data, backup, recovery", err);
	if (!ret)
		ret = read_text(at, "provider", 0, &slot->provider, err);
	if (!ret && !provider_ok(slot->provider))
		ret = cmek_json_bad(at, "provider", "is none of local, aws, gcp, ibm, recovery", err);
	if (!ret)
		ret = read_text(at, "key", 0, &slot->key, err);
	if (!ret)
		ret = read_text(at, "resolved", 0, &slot->resolved, err);
	if (!ret)
		ret = read_text(at, "version", 1, &slot->version, err);
	if (!ret)
		ret = read_text(at, "region", 1, &slot->region, err);
	if (!ret)
		ret = read_principal(at, slot, err);
	if (!ret)
		ret = read_wrapped(at, slot, err);
	if (!ret)
		ret = cmek_json_time(at, "created", &slot->created, err);
	if (!ret)
		ret = cmek_json_time(at, "rewrapped", &slot->rewrapped, err);
	return ret;
}

int cmek_slot_from_json(const struct cmek_json_at *at, struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_slot slot = { 0 };
	int ret = read_fields(at, &slot, err);

	if (!ret) {
		slot.read = cmek_slot_copy_json(at->value);
		if (!slot.read)
			ret = cmek_error_sys(err, ENOMEM, "key slot");
	}
	if (ret) {
		cmek_slot_done(&slot);
		return ret;
	}
	*ret_slot = slot;
	return 0;
}

/* Sets or, for NULL, takes away a text member. */
static int set_optional(json_t *json, const char *name, const char *text)
{
	if (!text) {
		(void)json_object_del(json, name); /* not there is fine */
		return 0;
	}
	return json_object_set_new(json, name, json_string(text));
}

static int set_principal(json_t *json, const struct cmek_slot *slot)
{
	json_t *principal = json_object_get(json, "principal");

	if (!principal) {
		principal = json_object();
		if (json_object_set_new(json, "principal", principal))
			return -1;
	}
	return set_optional(principal, "role", slot->role) ||
	       set_optional(principal, "external_id", slot->external_id) ||
	       set_optional(principal, "service_account", slot->service_account) ||
	       set_optional(principal, "profile", slot->profile);
}

/* base: an object with the unknown members, taken over; NULL = no memory. */
static int to_json(const struct cmek_slot *slot, json_t *base, json_t **ret_json, struct cmek_error *err)
{
	char created[CMEK_TIME_TEXT], rewrapped[CMEK_TIME_TEXT], *wrapped;

	cmek_time_encode(slot->created, created);
	cmek_time_encode(slot->rewrapped, rewrapped);
	wrapped = malloc(CMEK_B64_LEN(slot->wrapped_len) + 1);
	if (wrapped)
		cmek_b64_encode(slot->wrapped, slot->wrapped_len, wrapped);
	/* Setters take a NULL value for failure, so that one check at the end is enough. */
	if (!base || !wrapped ||
	    json_object_set_new(base, "id", json_integer(slot->id)) ||
	    json_object_set_new(base, "purpose", json_string(slot->purpose)) ||
	    json_object_set_new(base, "provider", json_string(slot->provider)) ||
	    json_object_set_new(base, "key", json_string(slot->key)) ||
	    json_object_set_new(base, "resolved", json_string(slot->resolved)) ||
	    json_object_set_new(base, "version", json_string(slot->version)) ||
	    json_object_set_new(base, "region", json_string(slot->region)) ||
	    set_principal(base, slot) ||
	    json_object_set_new(base, "wrapped", json_string(wrapped)) ||
	    json_object_set_new(base, "created", json_string(created)) ||
	    json_object_set_new(base, "rewrapped", json_string(rewrapped))) {
		json_decref(base);
		free(wrapped);
		return cmek_error_set(err, CMEK_E_SYSTEM, ENOMEM, "key slot %u can't be put into JSON", slot->id);
	}
	free(wrapped);
	*ret_json = base;
	return 0;
}

int cmek_slot_to_json(const struct cmek_slot *slot, json_t **ret_json, struct cmek_error *err)
{
	return to_json(slot, slot->read ? cmek_slot_copy_json(slot->read) : json_object(), ret_json, err);
}

int cmek_slot_encode(const struct cmek_slot *slot, char **ret_text, size_t *ret_len, struct cmek_error *err)
{
	json_t *json = NULL;
	char *text;
	int ret = to_json(slot, json_object(), &json, err);

	if (ret)
		return ret;
	text = cmek_slot_dump_json(json, JSON_COMPACT);
	json_decref(json);
	if (!text)
		return cmek_error_sys(err, ENOMEM, "key slot %u", slot->id);
	*ret_len = strlen(text);
	*ret_text = text;
	return 0;
}

int cmek_slot_decode(const void *text, size_t len, struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_json_at at;
	json_t *json = NULL;
	int ret = cmek_json_parse(text, len, "key slot", &json, err);

	if (ret)
		return ret;
	at = cmek_json_root(json, "key slot");
	ret = cmek_slot_from_json(&at, ret_slot, err);
	json_decref(json);
	return ret;
}
