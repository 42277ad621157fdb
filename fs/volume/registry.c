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
#include <strings.h>
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

struct cmek_registry {
	char *path;
	bool is_default; /* its directory may be made */
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

struct pin_arg {
	const struct cmek_volhdr *old; /* NULL = none; its keys are pinned as well */
	const struct cmek_volhdr *hdr;
	const char *store_path;
	bool only_known; /* a volume that is not there stays so */
};

static int append_pins(json_t *pins, const struct cmek_volhdr *hdr)
{
	json_t *pin, *other;
	size_t i, k;

	for (i = 0; hdr && i < hdr->n_slots; i++) {
		pin = cmek_pin_of(&hdr->slots[i]);
		json_array_foreach(pins, k, other)
			if (pin && json_equal(pin, other))
				break;
		if (k < json_array_size(pins))
			json_decref(pin);
		else if (json_array_append_new(pins, pin))
			return -1;
	}
	return 0;
}

/* The entry as it was, with what is known better now: members that others wrote stay. */
static int apply_pin(json_t *volumes, const char *uuid, const void *arg, bool *ret_changed)
{
	const struct pin_arg *pin = arg;
	json_t *entry = json_incref(json_object_get(volumes, uuid)), *slots = json_array();
	int ret;

	*ret_changed = entry || !pin->only_known;
	if (*ret_changed && !json_is_object(entry)) {
		json_decref(entry);
		entry = json_object();
	}
	ret = append_pins(slots, pin->old) || append_pins(slots, pin->hdr);
	if (!ret && *ret_changed)
		ret = json_object_set_new(entry, "label", json_string(pin->hdr->label)) ||
		      /* A path that is not UTF-8 is left out: it is for people only. */
		      (cmek_slot_text_ok(pin->store_path, 4096, 0) &&
		       json_object_set_new(entry, "store", json_string(pin->store_path))) ||
		      json_object_set(entry, "slots", slots) || set_time(entry, "created", pin->hdr->created) ||
		      set_time(entry, "last_used", (int64_t)time(NULL)) || json_object_set(volumes, uuid, entry);
	json_decref(slots);
	json_decref(entry);
	return ret;
}

int cmek_registry_pin(struct cmek_registry *reg, const struct cmek_volhdr *hdr, const char *store_path,
		      struct cmek_error *err)
{
	struct pin_arg arg = { .hdr = hdr, .store_path = store_path };

	return update(reg, hdr->uuid, &(struct change){ apply_pin, &arg }, err);
}

int cmek_registry_repin(struct cmek_registry *reg, const struct cmek_volhdr *old, const struct cmek_volhdr *hdr,
			const char *store_path, struct cmek_error *err)
{
	struct pin_arg arg = { old, hdr, store_path, true };

	return update(reg, hdr->uuid, &(struct change){ apply_pin, &arg }, err);
}

struct backup_arg {
	const struct cmek_volhdr *hdr;
	const char *path;
};

static json_t *backup_json(const struct backup_arg *backup)
{
	json_t *slots = json_array(), *json;
	const struct cmek_slot *slot;
	size_t i;

	for (i = 0; i < backup->hdr->n_slots; i++) {
		slot = &backup->hdr->slots[i];
		if (json_array_append_new(slots, json_pack("{s:i, s:s, s:s}", "id", (int)slot->id, "resolved",
							   slot->resolved, "version", slot->version))) {
			json_decref(slots);
			return NULL;
		}
	}
	json = json_pack("{s:s, s:I, s:o}", "path", backup->path, "sequence", (json_int_t)backup->hdr->sequence,
			 "slots", slots);
	if (json && set_time(json, "made", (int64_t)time(NULL))) {
		json_decref(json);
		json = NULL;
	}
	return json;
}

static int apply_backup(json_t *volumes, const char *uuid, const void *arg, bool *ret_changed)
{
	const struct backup_arg *backup = arg;
	json_t *entry = json_object_get(volumes, uuid), *backups = json_object_get(entry, "backups"), *old;
	const char *path;
	size_t i;

	*ret_changed = json_is_object(entry) && cmek_slot_text_ok(backup->path, 4096, 0);
	if (!*ret_changed)
		return 0;
	if (!json_is_array(backups)) {
		if (json_object_set_new(entry, "backups", json_array()))
			return -1;
		backups = json_object_get(entry, "backups");
	}
	json_array_foreach(backups, i, old) {
		path = json_string_value(json_object_get(old, "path"));
		if (path && !strcmp(path, backup->path))
			return json_array_set_new(backups, i, backup_json(backup));
	}
	return json_array_append_new(backups, backup_json(backup));
}

int cmek_registry_note_backup(struct cmek_registry *reg, const struct cmek_volhdr *hdr, const char *path,
			      struct cmek_error *err)
{
	struct backup_arg arg = { hdr, path };

	return update(reg, hdr->uuid, &(struct change){ apply_backup, &arg }, err);
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

static int copy_member(const struct cmek_json_at *at, const char *name, char **ret_text, struct cmek_error *err)
{
	const char *text = NULL;
	int ret;

	if (!cmek_json_has(at, name))
		return 0;
	ret = cmek_json_string(at, name, &text, err);
	if (ret)
		return ret;
	*ret_text = strdup(text);
	return *ret_text ? 0 : no_memory(err);
}

static int read_backup_slots(const struct cmek_json_at *at, struct cmek_backup *backup, struct cmek_error *err)
{
	struct cmek_json_at slots, slot;
	uint64_t id = 0;
	size_t n = 0, i;
	int ret = cmek_json_array(at, "slots", &slots, &n, err);

	if (ret || !n)
		return ret;
	backup->slots = calloc(n, sizeof(*backup->slots));
	if (!backup->slots)
		return no_memory(err);
	backup->n_slots = n;
	for (i = 0; !ret && i < n; i++) {
		ret = cmek_json_element(&slots, i, &slot, err);
		if (!ret)
			ret = cmek_json_uint(&slot, "id", 0, CMEK_SLOTS_MAX - 1, &id, err);
		backup->slots[i].id = (unsigned)id;
		if (!ret)
			ret = copy_member(&slot, "resolved", &backup->slots[i].resolved, err);
		if (!ret)
			ret = copy_member(&slot, "version", &backup->slots[i].version, err);
		if (!ret && (!backup->slots[i].resolved || !backup->slots[i].version))
			ret = cmek_json_bad(&slot, NULL, "lacks resolved or version", err);
	}
	return ret;
}

static int read_backups(const struct cmek_json_at *entry, struct cmek_registered *volume, struct cmek_error *err)
{
	struct cmek_json_at list, at;
	size_t n = 0, i;
	int ret;

	if (!cmek_json_has(entry, "backups"))
		return 0;
	ret = cmek_json_array(entry, "backups", &list, &n, err);
	if (ret || !n)
		return ret;
	volume->backups = calloc(n, sizeof(*volume->backups));
	if (!volume->backups)
		return no_memory(err);
	volume->n_backups = n;
	for (i = 0; !ret && i < n; i++) {
		ret = cmek_json_element(&list, i, &at, err);
		if (!ret)
			ret = copy_member(&at, "path", &volume->backups[i].path, err);
		if (!ret && !volume->backups[i].path)
			ret = cmek_json_bad(&at, "path", "is missing", err);
		if (!ret)
			ret = cmek_json_uint(&at, "sequence", 1, INT64_MAX, &volume->backups[i].sequence, err);
		if (!ret)
			ret = cmek_json_time(&at, "made", &volume->backups[i].made, err);
		if (!ret)
			ret = read_backup_slots(&at, &volume->backups[i], err);
	}
	return ret;
}

static int read_volume(const struct cmek_registry *reg, const json_t *json, const char *uuid,
		       struct cmek_registered *volume, struct cmek_error *err)
{
	struct cmek_json_at root = cmek_json_root(json, reg->path), volumes, entry;
	int ret;

	if (cmek_uuid_decode(uuid, volume->volume))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: '%s' is not a UUID", reg->path, uuid);
	ret = cmek_json_object(&root, "volumes", &volumes, err);
	if (!ret)
		ret = cmek_json_object(&volumes, uuid, &entry, err);
	if (!ret)
		ret = copy_member(&entry, "label", &volume->label, err);
	if (!ret)
		ret = copy_member(&entry, "store", &volume->store, err);
	if (!ret)
		ret = read_backups(&entry, volume, err);
	if (ret)
		return ret;
	return cmek_pins_read(&entry, &volume->pins, err);
}

static void backup_done(struct cmek_backup *backup)
{
	size_t i;

	for (i = 0; i < backup->n_slots; i++) {
		free(backup->slots[i].resolved);
		free(backup->slots[i].version);
	}
	free(backup->slots);
	free(backup->path);
}

void cmek_registry_list_free(struct cmek_registered *volumes, size_t n)
{
	size_t i, k;

	for (i = 0; volumes && i < n; i++) {
		for (k = 0; k < volumes[i].n_backups; k++)
			backup_done(&volumes[i].backups[k]);
		free(volumes[i].backups);
		free(volumes[i].label);
		free(volumes[i].store);
		cmek_pins_free(volumes[i].pins);
	}
	free(volumes);
}

static int by_uuid(const void *a, const void *b)
{
	return memcmp(((const struct cmek_registered *)a)->volume, ((const struct cmek_registered *)b)->volume, 16);
}

int cmek_registry_list(struct cmek_registry *reg, struct cmek_registered **ret_volumes, size_t *ret_n,
		       struct cmek_error *err)
{
	struct cmek_registered *volumes = NULL;
	json_t *json = NULL, *all, *entry;
	const char *uuid;
	size_t n = 0;
	int ret;

	ret = load(reg, &json, err);
	if (ret)
		goto out;
	all = json_object_get(json, "volumes");
	volumes = calloc(json_object_size(all) + 1, sizeof(*volumes));
	if (!volumes) {
		ret = no_memory(err);
		goto out;
	}
	json_object_foreach(all, uuid, entry) {
		ret = read_volume(reg, json, uuid, &volumes[n++], err);
		if (ret)
			goto out;
	}
	qsort(volumes, n, sizeof(*volumes), by_uuid);
	*ret_volumes = volumes;
	*ret_n = n;
	volumes = NULL;
out:
	cmek_registry_list_free(volumes, n);
	json_decref(json);
	if (ret)
		cmek_error_prefix(err, "volume registry");
	return ret;
}

const struct cmek_registered *cmek_registered_find(const struct cmek_registered *volumes, size_t n,
						   const uint8_t volume[16])
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!memcmp(volumes[i].volume, volume, 16))
			return &volumes[i];
	return NULL;
}

int cmek_registry_pins(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_pins **ret_pins,
		       struct cmek_error *err)
{
	struct cmek_json_at root, volumes, entry;
	struct cmek_pins *pins = NULL;
	char uuid[CMEK_UUID_TEXT];
	json_t *json = NULL;
	int ret;

	cmek_uuid_encode(volume, uuid);
	ret = load(reg, &json, err);
	if (!ret && json_object_get(json_object_get(json, "volumes"), uuid)) {
		root = cmek_json_root(json, reg->path);
		ret = cmek_json_object(&root, "volumes", &volumes, err);
		if (!ret)
			ret = cmek_json_object(&volumes, uuid, &entry, err);
		if (!ret)
			ret = cmek_pins_read(&entry, &pins, err);
	}
	if (!ret)
		*ret_pins = pins;
	else
		cmek_error_prefix(err, "volume registry");
	json_decref(json);
	return ret;
}

int cmek_registry_check_place(struct cmek_registry *reg, const uint8_t volume[16], const char *path,
			      struct cmek_error *err)
{
	char uuid[CMEK_UUID_TEXT];
	const char *other, *found = NULL;
	json_t *json = NULL, *entry, *store;
	bool ours = false;
	int ret;

	cmek_uuid_encode(volume, uuid);
	ret = load(reg, &json, err);
	if (ret) {
		cmek_error_prefix(err, "volume registry");
		return ret;
	}
	json_object_foreach(json_object_get(json, "volumes"), other, entry) {
		store = json_object_get(entry, "store");
		if (!json_is_string(store) || strcmp(json_string_value(store), path) != 0)
			continue;
		/* several volumes may have been made there, one after the other or on disks that take turns */
		found = other;
		ours = ours || !strcasecmp(other, uuid);
	}
	if (found && !ours)
		ret = cmek_error_set(err, CMEK_E_MISMATCH, EKEYREJECTED,
				     "the header is of volume %s, but the volume that this host knows there is %s: a header "
				     "was put in the place of its own, or another store in the place of that (then name its "
				     "key: key=URI)",
				     uuid, found);
	json_decref(json);
	return ret;
}
