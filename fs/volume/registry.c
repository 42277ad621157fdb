/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The host's registry of volumes, a JSON file outside all stores: which keys belong to which volume. Knows no keys and
 * opens no volume.
 */
#include "config.h"

#include "fs/volume/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "kms/json.h"
#include "kms/local_file.h"

#define FORMAT 1
#define ROOT_PATH "/var/lib/cmekfs/volumes.json"
#define USER_PATH "cmekfs/volumes.json"
#define FILE_MAX (8u << 20)
#define LOCK_DEADLINE_MS 10000

static const char *const principal_names[] = { "role", "external_id", "service_account", "profile" };
#define N_PRINCIPAL 4

struct cmek_registry {
	char *path;
	bool is_default; /* its directory may be made */
};

struct cmek_pins {
	json_t *slots; /* array of objects, checked */
	char *text;
};

static int no_memory(struct cmek_error *err)
{
	return cmek_error_sys(err, ENOMEM, "volume registry");
}

/* XDG Base Directory Specification: a relative XDG_DATA_HOME counts as unset. */
static int default_path(char **ret_path, struct cmek_error *err)
{
	const char *data = secure_getenv("XDG_DATA_HOME"), *home = secure_getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = asprintf(ret_path, ROOT_PATH);
	else if (data && data[0] == '/')
		n = asprintf(ret_path, "%s/" USER_PATH, data);
	else if (home && home[0] == '/')
		n = asprintf(ret_path, "%s/.local/share/" USER_PATH, home);
	else
		return cmek_error_set(
			err, CMEK_E_USAGE, EINVAL,
			"where the volume registry is can't be told: neither CMEKFS_VOLUMES nor XDG_DATA_HOME nor "
			"HOME is set to a path");
	return n < 0 ? no_memory(err) : 0;
}

static int absolute_path(const char *given, char **ret_path, struct cmek_error *err)
{
	char *cwd = NULL;
	int ret = 0;

	if (given[0] == '/') {
		*ret_path = strdup(given);
		return *ret_path ? 0 : no_memory(err);
	}
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return cmek_error_sys(err, errno, "the current directory");
	if (asprintf(ret_path, "%s/%s", cwd, given) < 0)
		ret = no_memory(err);
	free(cwd);
	return ret;
}

int cmek_registry_new(const char *path, struct cmek_registry **ret_reg, struct cmek_error *err)
{
	struct cmek_registry *reg = calloc(1, sizeof(*reg));
	int ret;

	if (!reg)
		return no_memory(err);
	if (!path)
		path = secure_getenv("CMEKFS_VOLUMES");
	reg->is_default = !path || !path[0];
	if (reg->is_default)
		ret = default_path(&reg->path, err);
	else
		ret = absolute_path(path, &reg->path, err);
	if (ret) {
		free(reg);
		return ret;
	}
	*ret_reg = reg;
	return 0;
}

void cmek_registry_free(struct cmek_registry *reg)
{
	if (!reg)
		return;
	free(reg->path);
	free(reg);
}

const char *cmek_registry_path(const struct cmek_registry *reg)
{
	return reg->path;
}

/* The whole file; an empty registry when there is none. */
static int load(const struct cmek_registry *reg, json_t **ret_json, struct cmek_error *err)
{
	struct cmek_json_at root, volumes;
	uint64_t format = 0;
	json_t *json = NULL;
	char *text = NULL;
	size_t len = 0;
	int ret;

	ret = cmek_local_file_read(reg->path, FILE_MAX, &text, &len, err);
	if (ret)
		goto out;
	if (!text) {
		json = json_pack("{s:i, s:{}}", "format", FORMAT, "volumes");
		ret = json ? 0 : no_memory(err);
		goto out;
	}
	ret = cmek_json_parse(text, len, reg->path, &json, err);
	if (ret)
		goto out;
	root = cmek_json_root(json, reg->path);
	ret = cmek_json_uint(&root, "format", 1, UINT32_MAX, &format, err);
	if (!ret && format != FORMAT)
		ret = cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP, "%s: format %llu, this program knows format %d",
				     reg->path, (unsigned long long)format, FORMAT);
	if (!ret)
		ret = cmek_json_object(&root, "volumes", &volumes, err);
out:
	free(text);
	if (ret)
		json_decref(json);
	else
		*ret_json = json;
	return ret;
}

static int save(const struct cmek_registry *reg, const json_t *json, struct cmek_error *err)
{
	char *text = cmek_slot_dump_json(json, JSON_INDENT(2));
	size_t len;
	int ret;

	if (!text)
		return no_memory(err);
	len = strlen(text);
	text[len] = '\n'; /* in the place of the NUL */
	ret = cmek_local_file_replace(reg->path, text, len + 1, err);
	free(text);
	return ret;
}

/* The right to change the file; close the descriptor to give it up. */
static int lock(const struct cmek_registry *reg, int *ret_fd, struct cmek_error *err)
{
	int ret = 0;

	if (reg->is_default)
		ret = cmek_local_file_make_dir(reg->path, err);
	return ret ? ret : cmek_local_file_lock(reg->path, LOCK_DEADLINE_MS, ret_fd, err);
}

/* Applies change to the file under the lock. *ret_changed = false: nothing to write. */
struct change {
	int (*apply)(json_t *volumes, const char *uuid, const void *arg, bool *ret_changed);
	const void *arg;
};

static int update(struct cmek_registry *reg, const uint8_t volume[16], const struct change *change,
		  struct cmek_error *err)
{
	char uuid[CMEK_UUID_TEXT];
	json_t *json = NULL;
	bool changed = true;
	int fd = -1, ret;

	cmek_uuid_encode(volume, uuid);
	ret = lock(reg, &fd, err);
	if (!ret)
		ret = load(reg, &json, err);
	if (!ret && change->apply(json_object_get(json, "volumes"), uuid, change->arg, &changed))
		ret = no_memory(err);
	if (!ret && changed)
		ret = save(reg, json, err);
	json_decref(json);
	if (fd >= 0)
		close(fd);
	if (ret)
		cmek_error_prefix(err, "volume registry");
	return ret;
}

static int set_time(json_t *json, const char *name, int64_t when)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(when, text);
	return json_object_set_new(json, name, json_string(text));
}

/* In the order of principal_names. */
static void principal_texts(const struct cmek_slot *slot, const char *texts[N_PRINCIPAL])
{
	texts[0] = slot->role;
	texts[1] = slot->external_id;
	texts[2] = slot->service_account;
	texts[3] = slot->profile;
}

static json_t *pin_of(const struct cmek_slot *slot)
{
	const char *texts[N_PRINCIPAL];
	json_t *principal = json_object(), *pin;
	size_t i;

	principal_texts(slot, texts);
	for (i = 0; i < N_PRINCIPAL; i++) {
		if (texts[i] && json_object_set_new(principal, principal_names[i], json_string(texts[i]))) {
			json_decref(principal);
			return NULL;
		}
	}
	pin = json_object();
	if (json_object_set_new(pin, "provider", json_string(slot->provider)) ||
	    json_object_set_new(pin, "resolved", json_string(slot->resolved)) ||
	    json_object_set(pin, "principal", principal)) {
		json_decref(pin);
		pin = NULL;
	}
	json_decref(principal);
	return pin;
}

struct pin_arg {
	const struct cmek_volhdr *hdr;
	const char *store_path;
};

static int apply_pin(json_t *volumes, const char *uuid, const void *arg, bool *ret_changed)
{
	const struct pin_arg *pin = arg;
	json_t *entry = json_object(), *slots = json_array();
	size_t i;
	int ret = 0;

	for (i = 0; !ret && i < pin->hdr->n_slots; i++)
		ret = json_array_append_new(slots, pin_of(&pin->hdr->slots[i]));
	if (!ret)
		ret = json_object_set_new(entry, "label", json_string(pin->hdr->label)) ||
		      /* A path that is not UTF-8 is left out: it is for people only. */
		      (cmek_slot_text_ok(pin->store_path, 4096, 0) &&
		       json_object_set_new(entry, "store", json_string(pin->store_path))) ||
		      json_object_set(entry, "slots", slots) || set_time(entry, "created", pin->hdr->created) ||
		      set_time(entry, "last_used", (int64_t)time(NULL)) || json_object_set(volumes, uuid, entry);
	json_decref(slots);
	json_decref(entry);
	*ret_changed = true;
	return ret;
}

int cmek_registry_pin(struct cmek_registry *reg, const struct cmek_volhdr *hdr, const char *store_path,
		      struct cmek_error *err)
{
	struct pin_arg arg = { hdr, store_path };

	return update(reg, hdr->uuid, &(struct change){ apply_pin, &arg }, err);
}

static int apply_touch(json_t *volumes, const char *uuid, const void *arg, bool *ret_changed)
{
	json_t *entry = json_object_get(volumes, uuid);

	(void)arg;
	*ret_changed = json_is_object(entry);
	return *ret_changed ? set_time(entry, "last_used", (int64_t)time(NULL)) : 0;
}

int cmek_registry_touch(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_error *err)
{
	return update(reg, volume, &(struct change){ apply_touch, NULL }, err);
}

static int apply_forget(json_t *volumes, const char *uuid, const void *arg, bool *ret_changed)
{
	(void)arg;
	*ret_changed = json_object_del(volumes, uuid) == 0;
	return 0;
}

int cmek_registry_forget(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_error *err)
{
	return update(reg, volume, &(struct change){ apply_forget, NULL }, err);
}

/* Checks one pin and adds its key to the text for people. */
static int read_pin(const struct cmek_json_at *slots, size_t i, char **text, struct cmek_error *err)
{
	const char *provider, *resolved, *value;
	struct cmek_json_at pin, principal;
	char *longer = NULL;
	size_t k;
	int ret = cmek_json_element(slots, i, &pin, err);

	if (!ret)
		ret = cmek_json_string(&pin, "provider", &provider, err);
	if (!ret)
		ret = cmek_json_string(&pin, "resolved", &resolved, err);
	if (!ret)
		ret = cmek_json_object(&pin, "principal", &principal, err);
	for (k = 0; !ret && k < N_PRINCIPAL; k++)
		if (cmek_json_has(&principal, principal_names[k]))
			ret = cmek_json_string(&principal, principal_names[k], &value, err);
	if (ret)
		return ret;
	if (asprintf(&longer, "%s%s%s", *text ? *text : "", *text ? ", " : "", resolved) < 0)
		return no_memory(err);
	free(*text);
	*text = longer;
	return 0;
}

static int read_pins(const struct cmek_registry *reg, const json_t *json, const char *uuid, struct cmek_pins *pins,
		     struct cmek_error *err)
{
	struct cmek_json_at root = cmek_json_root(json, reg->path), volumes, entry, slots;
	size_t i, n = 0;
	int ret;

	ret = cmek_json_object(&root, "volumes", &volumes, err);
	if (!ret)
		ret = cmek_json_object(&volumes, uuid, &entry, err);
	if (!ret)
		ret = cmek_json_array(&entry, "slots", &slots, &n, err);
	/* An entry without a key would refuse all of them, or none: neither was meant. */
	if (!ret && n == 0)
		ret = cmek_json_bad(&entry, "slots", "is empty", err);
	for (i = 0; !ret && i < n; i++)
		ret = read_pin(&slots, i, &pins->text, err);
	if (!ret)
		pins->slots = json_incref((json_t *)slots.value);
	return ret;
}

int cmek_registry_pins(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_pins **ret_pins,
		       struct cmek_error *err)
{
	struct cmek_pins *pins = NULL;
	char uuid[CMEK_UUID_TEXT];
	json_t *json = NULL;
	int ret;

	cmek_uuid_encode(volume, uuid);
	ret = load(reg, &json, err);
	if (ret)
		goto out;
	if (!json_object_get(json_object_get(json, "volumes"), uuid)) {
		*ret_pins = NULL;
		goto out;
	}
	pins = calloc(1, sizeof(*pins));
	ret = pins ? read_pins(reg, json, uuid, pins, err) : no_memory(err);
	if (ret)
		goto out;
	*ret_pins = pins;
	pins = NULL;
out:
	cmek_pins_free(pins);
	json_decref(json);
	if (ret)
		cmek_error_prefix(err, "volume registry");
	return ret;
}

void cmek_pins_free(struct cmek_pins *pins)
{
	if (!pins)
		return;
	json_decref(pins->slots);
	free(pins->text);
	free(pins);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : !a && !b;
}

bool cmek_pins_match(const struct cmek_pins *pins, const struct cmek_slot *slot)
{
	const char *texts[N_PRINCIPAL];
	json_t *pin, *principal;
	size_t i, k;

	principal_texts(slot, texts);
	json_array_foreach(pins->slots, i, pin) {
		if (!same_text(json_string_value(json_object_get(pin, "provider")), slot->provider) ||
		    !same_text(json_string_value(json_object_get(pin, "resolved")), slot->resolved))
			continue;
		principal = json_object_get(pin, "principal");
		for (k = 0; k < N_PRINCIPAL; k++)
			if (!same_text(json_string_value(json_object_get(principal, principal_names[k])), texts[k]))
				break;
		if (k == N_PRINCIPAL)
			return true;
	}
	return false;
}

const char *cmek_pins_text(const struct cmek_pins *pins)
{
	return pins->text;
}
