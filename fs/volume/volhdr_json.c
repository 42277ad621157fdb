/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The JSON object in a volume header's area: every field is checked when it is read, and what a later version put there
 * is kept when it is written. Knows nothing of the head, the digests or files.
 */
#include "config.h"

#include "fs/volume/volhdr_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"

#define FORMAT 1
#define WHAT "the header's text"
#define DEK_ID_MAX 65535

static const char *const dek_states[] = {
	[CMEK_DEK_ACTIVE] = "active",
	[CMEK_DEK_DECRYPT_ONLY] = "decrypt-only",
	[CMEK_DEK_RETIRED] = "retired",
	[CMEK_DEK_DESTROYED] = "destroyed",
};
#define N_DEK_STATES (sizeof(dek_states) / sizeof(*dek_states))

/* Features that this program knows: none yet in any of the three sets. */
static const char *const known_features[] = { NULL };

const char *cmek_dek_state_name(enum cmek_dek_state state)
{
	return dek_states[state];
}

static bool feature_known(const char *name)
{
	size_t i;

	for (i = 0; known_features[i]; i++)
		if (!strcmp(name, known_features[i]))
			return true;
	return false;
}

/* Collects the unknown names of one set, ", " between them; NULL = none. */
static int read_features(const struct cmek_json_at *features, const char *set, char **ret_unknown,
			 struct cmek_error *err)
{
	struct cmek_json_at at;
	char *unknown = NULL;
	size_t i, n, len = 0;
	int ret = cmek_json_array(features, set, &at, &n, err);

	for (i = 0; !ret && i < n; i++) {
		const char *name = json_string_value(json_array_get(at.value, i));
		char *grown;

		if (!name || !cmek_slot_text_ok(name, 64, 0)) {
			ret = cmek_json_bad(&at, NULL, "holds something that is no feature's name", err);
			continue;
		}
		if (feature_known(name))
			continue;
		grown = realloc(unknown, len + strlen(name) + 3);
		if (!grown) {
			ret = cmek_error_sys(err, ENOMEM, "volume header");
			continue;
		}
		unknown = grown;
		len += (size_t)snprintf(unknown + len, strlen(name) + 3, "%s%s", len ? ", " : "", name);
	}
	if (ret) {
		free(unknown);
		return ret;
	}
	*ret_unknown = unknown;
	return 0;
}

static int check_features(const struct cmek_json_at *root, struct cmek_volhdr *hdr, struct cmek_error *err)
{
	char *compat = NULL, *incompat = NULL;
	struct cmek_json_at at;
	int ret = cmek_json_object(root, "features", &at, err);

	if (!ret)
		ret = read_features(&at, "compat", &compat, err);
	if (!ret)
		ret = read_features(&at, "ro_compat", &hdr->read_only_for, err);
	if (!ret)
		ret = read_features(&at, "incompat", &incompat, err);
	if (!ret && incompat)
		ret = cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP,
				     "the volume uses features that this program does not know: %s", incompat);
	free(compat);
	free(incompat);
	return ret;
}

static int read_slots(const struct cmek_json_at *root, struct cmek_volhdr *hdr, struct cmek_error *err)
{
	struct cmek_json_at array, at;
	struct cmek_slot *slot;
	uint32_t seen = 0;
	size_t i, n;
	int ret = cmek_json_array(root, "slots", &array, &n, err);

	if (!ret && (n == 0 || n > CMEK_SLOTS_MAX))
		ret = cmek_json_bad(root, "slots", "has no slot, or more than 32", err);
	for (i = 0; !ret && i < n; i++) {
		ret = cmek_json_element(&array, i, &at, err);
		if (ret)
			break;
		slot = cmek_volhdr_grow_slots(hdr);
		if (!slot)
			return cmek_error_sys(err, ENOMEM, "volume header");
		ret = cmek_slot_from_json(&at, slot, err);
		if (!ret && (seen & UINT32_C(1) << slot->id))
			ret = cmek_json_bad(&at, "id", "is used twice", err);
		seen |= UINT32_C(1) << slot->id;
	}
	return ret;
}

static int read_dek(const struct cmek_json_at *at, struct cmek_dek_entry *dek, struct cmek_error *err)
{
	const char *state = NULL;
	uint64_t id = 0, domain = 0;
	size_t i = 0;
	int ret = cmek_json_uint(at, "id", 1, DEK_ID_MAX, &id, err);

	if (!ret)
		ret = cmek_json_string(at, "state", &state, err);
	while (!ret && i < N_DEK_STATES && strcmp(state, dek_states[i]))
		i++;
	if (!ret && i == N_DEK_STATES)
		ret = cmek_json_bad(at, "state", "is none of active, decrypt-only, retired, destroyed", err);
	if (!ret)
		ret = cmek_json_uint(at, "domain", 0, UINT32_MAX, &domain, err);
	if (!ret)
		ret = cmek_json_time(at, "created", &dek->created, err);
	if (!ret)
		ret = cmek_json_opt_time(at, "retired", &dek->retired, err);
	if (!ret)
		ret = cmek_json_opt_time(at, "destroy_after", &dek->destroy_after, err);
	if (!ret)
		ret = cmek_json_opt_time(at, "destroyed", &dek->destroyed, err);
	if (!ret && i != CMEK_DEK_DESTROYED)
		ret = cmek_json_b64(at, "wrapped", dek->wrapped, sizeof(dek->wrapped), err);
	if (!ret && i == CMEK_DEK_DESTROYED && cmek_json_has(at, "wrapped"))
		ret = cmek_json_bad(at, "wrapped", "is there although the DEK is destroyed", err);
	if (ret)
		return ret;
	dek->id = (uint16_t)id;
	dek->domain = (uint32_t)domain;
	dek->state = (enum cmek_dek_state)i;
	dek->read = cmek_slot_copy_json(at->value);
	return dek->read ? 0 : cmek_error_sys(err, ENOMEM, "volume header");
}

/* What holds between the entries: unique ids below next, one active DEK and it is the one that is named. */
static int check_deks(const struct cmek_volhdr *hdr, struct cmek_error *err)
{
	uint8_t seen[(DEK_ID_MAX + 1) / 8] = { 0 };
	const struct cmek_dek_entry *dek;
	bool active = false;
	size_t i;

	for (i = 0; i < hdr->n_deks; i++) {
		dek = &hdr->deks[i];
		if (seen[dek->id / 8] & 1 << dek->id % 8)
			return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, WHAT ": two DEKs with id %u", dek->id);
		seen[dek->id / 8] |= (uint8_t)(1 << dek->id % 8);
		if (dek->id >= hdr->dek_next)
			return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL,
					      WHAT ": DEK %u is not below deks.next (%u)", dek->id, hdr->dek_next);
		if (dek->state != CMEK_DEK_ACTIVE)
			continue;
		if (dek->id != hdr->dek_active)
			return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL,
					      WHAT ": DEK %u is active, deks.active is %u", dek->id, hdr->dek_active);
		active = true;
	}
	if (!active)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL,
				      WHAT ": deks.active is %u, which is no active DEK", hdr->dek_active);
	return 0;
}

static int read_deks(const struct cmek_json_at *root, struct cmek_volhdr *hdr, struct cmek_error *err)
{
	struct cmek_json_at deks, array, at;
	struct cmek_dek_entry *dek;
	uint64_t next = 0, active = 0;
	size_t i, n = 0;
	int ret = cmek_json_object(root, "deks", &deks, err);

	if (!ret)
		ret = cmek_json_uint(&deks, "next", 2, DEK_ID_MAX + 1, &next, err);
	if (!ret)
		ret = cmek_json_uint(&deks, "active", 1, DEK_ID_MAX, &active, err);
	if (!ret)
		ret = cmek_json_array(&deks, "table", &array, &n, err);
	for (i = 0; !ret && i < n; i++) {
		ret = cmek_json_element(&array, i, &at, err);
		if (ret)
			break;
		dek = cmek_volhdr_grow_deks(hdr);
		if (!dek)
			return cmek_error_sys(err, ENOMEM, "volume header");
		ret = read_dek(&at, dek, err);
	}
	hdr->dek_next = (uint32_t)next;
	hdr->dek_active = (uint16_t)active;
	return ret ? ret : check_deks(hdr, err);
}

static bool block_size_ok(uint64_t n)
{
	return n >= CMEK_BLOCK_SIZE_MIN && n <= CMEK_BLOCK_SIZE_MAX && !(n & (n - 1));
}

/* Features come before all that they could change the meaning of. */
static int read_root(const struct cmek_json_at *root, struct cmek_volhdr *hdr, struct cmek_error *err)
{
	uint64_t format = 0, block_size = 0, symlink_max = 0;
	const char *label = NULL;
	uint8_t uuid[16];
	int ret = cmek_json_uint(root, "format", 1, UINT32_MAX, &format, err);

	if (!ret && format != FORMAT)
		ret = cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP, "format %llu, this program knows format %d",
				     (unsigned long long)format, FORMAT);
	if (!ret)
		ret = check_features(root, hdr, err);
	if (!ret)
		ret = cmek_json_uuid(root, "uuid", uuid, err);
	if (!ret && memcmp(uuid, hdr->uuid, sizeof(uuid)))
		ret = cmek_json_bad(root, "uuid", "is not the one in the head", err);
	if (!ret)
		ret = cmek_json_string(root, "label", &label, err);
	if (!ret && !cmek_slot_text_ok(label, CMEK_LABEL_MAX, 1))
		ret = cmek_json_bad(root, "label", "is longer than 64 bytes or has control characters", err);
	if (!ret)
		ret = cmek_json_uint(root, "block_size", 0, UINT32_MAX, &block_size, err);
	if (!ret && !block_size_ok(block_size))
		ret = cmek_json_bad(root, "block_size", "is not a power of two from 4096 to 65536", err);
	if (!ret)
		ret = cmek_json_uint(root, "symlink_max", CMEK_SYMLINK_TEXT_MIN, CMEK_SYMLINK_TEXT_MAX, &symlink_max,
				     err);
	if (!ret)
		ret = cmek_json_time(root, "created", &hdr->created, err);
	if (ret)
		return ret;
	memcpy(hdr->label, label, strlen(label) + 1);
	hdr->block_size = (uint32_t)block_size;
	hdr->symlink_max = (uint32_t)symlink_max;
	return 0;
}

int cmek_volhdr_area_decode(const uint8_t *text, size_t len, struct cmek_volhdr *hdr, struct cmek_error *err)
{
	struct cmek_json_at root;
	int ret = cmek_json_parse(text, len, WHAT, &hdr->read, err);

	if (ret)
		return ret;
	root = cmek_json_root(hdr->read, WHAT);
	ret = read_root(&root, hdr, err);
	if (!ret)
		ret = read_slots(&root, hdr, err);
	if (!ret)
		ret = read_deks(&root, hdr, err);
	return ret;
}

/* What our own code put together wrongly must not reach a disk, where nobody could read it any more. */
static int check_for_encode(const struct cmek_volhdr *hdr, struct cmek_error *err)
{
	uint32_t seen = 0;
	size_t i;

	if (hdr->sequence == 0 || hdr->sequence == UINT64_MAX || !block_size_ok(hdr->block_size) ||
	    hdr->area_len < CMEK_VOLHDR_AREA_MIN || hdr->area_len > CMEK_VOLHDR_AREA_MAX ||
	    hdr->area_len % CMEK_VOLHDR_AREA_MIN || hdr->symlink_max < CMEK_SYMLINK_TEXT_MIN ||
	    hdr->symlink_max > CMEK_SYMLINK_TEXT_MAX || !cmek_slot_text_ok(hdr->label, CMEK_LABEL_MAX, 1) ||
	    hdr->dek_next < 2 || hdr->dek_next > DEK_ID_MAX + 1 || hdr->n_slots == 0 || hdr->n_slots > CMEK_SLOTS_MAX)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "a field of the new volume header is out of range");
	for (i = 0; i < hdr->n_slots; i++) {
		if (hdr->slots[i].id >= CMEK_SLOTS_MAX || seen & UINT32_C(1) << hdr->slots[i].id)
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
					      "the new volume header's slot ids are not unique");
		seen |= UINT32_C(1) << hdr->slots[i].id;
	}
	return check_deks(hdr, err);
}

/* The member `name` of json, made as an empty object or array if it is not there; NULL when there is no memory. */
static json_t *member(json_t *json, const char *name, bool array)
{
	json_t *v = json_object_get(json, name);

	if (!v) {
		v = array ? json_array() : json_object();
		if (json_object_set_new(json, name, v))
			return NULL;
	}
	return v;
}

static int put_features(json_t *json)
{
	json_t *features = member(json, "features", false);

	return !features || !member(features, "compat", true) || !member(features, "ro_compat", true) ||
	       !member(features, "incompat", true);
}

static int put_slots(const struct cmek_volhdr *hdr, json_t *json, struct cmek_error *err)
{
	json_t *array = json_array(), *slot;
	size_t i;
	int ret = json_object_set_new(json, "slots", array);

	for (i = 0; !ret && i < hdr->n_slots; i++) {
		ret = cmek_slot_to_json(&hdr->slots[i], &slot, err);
		if (!ret)
			ret = json_array_append_new(array, slot);
	}
	return ret;
}

/* A time that is not known is left out, also when it was there for another state. */
static int put_time(json_t *json, const char *name, int64_t when)
{
	char text[CMEK_TIME_TEXT];

	if (when == 0) {
		(void)json_object_del(json, name); /* not there is fine */
		return 0;
	}
	cmek_time_encode(when, text);
	return json_object_set_new(json, name, json_string(text));
}

static int put_times(json_t *json, const struct cmek_dek_entry *dek)
{
	bool retired = dek->state == CMEK_DEK_RETIRED, destroyed = dek->state == CMEK_DEK_DESTROYED;

	return put_time(json, "retired", retired || destroyed ? dek->retired : 0) ||
	       put_time(json, "destroy_after", retired ? dek->destroy_after : 0) ||
	       put_time(json, "destroyed", destroyed ? dek->destroyed : 0);
}

static json_t *dek_to_json(const struct cmek_dek_entry *dek)
{
	char created[CMEK_TIME_TEXT], wrapped[CMEK_B64_LEN(CMEK_DEK_WRAPPED_LEN) + 1];
	json_t *json = dek->read ? cmek_slot_copy_json(dek->read) : json_object();

	cmek_time_encode(dek->created, created);
	cmek_b64_encode(dek->wrapped, sizeof(dek->wrapped), wrapped);
	if (!json || json_object_set_new(json, "id", json_integer(dek->id)) ||
	    json_object_set_new(json, "state", json_string(dek_states[dek->state])) ||
	    json_object_set_new(json, "domain", json_integer(dek->domain)) ||
	    json_object_set_new(json, "created", json_string(created)) || put_times(json, dek) ||
	    (dek->state != CMEK_DEK_DESTROYED && json_object_set_new(json, "wrapped", json_string(wrapped)))) {
		json_decref(json);
		return NULL;
	}
	if (dek->state == CMEK_DEK_DESTROYED)
		(void)json_object_del(json, "wrapped"); /* not there is fine */
	return json;
}

static int put_deks(const struct cmek_volhdr *hdr, json_t *json)
{
	json_t *deks = member(json, "deks", false), *array = json_array();
	size_t i;
	int ret;

	ret = json_object_set_new(deks, "next", json_integer(hdr->dek_next)) ||
	      json_object_set_new(deks, "active", json_integer(hdr->dek_active));
	/* Last, as it takes over the array also when it fails. */
	ret = json_object_set_new(deks, "table", array) || ret;
	for (i = 0; !ret && i < hdr->n_deks; i++)
		ret = json_array_append_new(array, dek_to_json(&hdr->deks[i]));
	return ret;
}

int cmek_volhdr_area_encode(const struct cmek_volhdr *hdr, char **ret_text, struct cmek_error *err)
{
	char uuid[CMEK_UUID_TEXT], created[CMEK_TIME_TEXT], *text = NULL;
	json_t *json = NULL;
	int ret = check_for_encode(hdr, err);

	if (ret)
		return ret;
	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_time_encode(hdr->created, created);
	json = hdr->read ? cmek_slot_copy_json(hdr->read) : json_object();
	if (!json || json_object_set_new(json, "format", json_integer(FORMAT)) || put_features(json) ||
	    json_object_set_new(json, "uuid", json_string(uuid)) ||
	    json_object_set_new(json, "label", json_string(hdr->label)) ||
	    json_object_set_new(json, "block_size", json_integer(hdr->block_size)) ||
	    json_object_set_new(json, "symlink_max", json_integer(hdr->symlink_max)) ||
	    json_object_set_new(json, "created", json_string(created)) || put_slots(hdr, json, err) ||
	    put_deks(hdr, json) || !(text = cmek_slot_dump_json(json, JSON_COMPACT))) {
		json_decref(json);
		return cmek_error_set(err, CMEK_E_SYSTEM, ENOMEM, "the volume header can't be put into JSON");
	}
	json_decref(json);
	*ret_text = text;
	return 0;
}
