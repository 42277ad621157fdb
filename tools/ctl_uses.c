/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl key uses: which volumes of this host a key opens. It reads the registry and the headers of the stores that the
 * registry names; no KMS is asked but to resolve an alias.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/volume/registry.h"
#include "fs/volume/volhdr_store.h"
#include "tools/ctl.h"

struct uses {
	const char *key;
	struct cmek_ctl_use *list;
	size_t n;
	bool failed; /* no memory */
};

static void add_text(struct uses *uses, const char *text, char **ret_copy)
{
	if (!text)
		return;
	*ret_copy = strdup(text);
	uses->failed |= !*ret_copy;
}

/* A new use of the volume; NULL when there is no memory. */
static struct cmek_ctl_use *add_use(struct uses *uses, const struct cmek_registered *volume, const char *state)
{
	struct cmek_ctl_use *grown = reallocarray(uses->list, uses->n + 1, sizeof(*grown));

	if (!grown) {
		uses->failed = true;
		return NULL;
	}
	uses->list = grown;
	grown += uses->n++;
	memset(grown, 0, sizeof(*grown));
	memcpy(grown->volume, volume->volume, 16);
	grown->state = state;
	grown->slot = -1;
	add_text(uses, volume->label, &grown->label);
	add_text(uses, volume->store, &grown->store);
	return grown;
}

/* The header of the volume's store, if it is there and this volume's. */
static struct cmek_volhdr_store *peek(const struct cmek_registered *volume)
{
	struct cmek_volhdr_store *store = NULL;
	int fd;

	fd = volume->store ? open(volume->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0)
		return NULL;
	if (!cmek_volhdr_store_open(fd, CMEK_STORE_PEEK, NULL, &store, NULL) &&
	    memcmp(cmek_volhdr_store_header(store)->uuid, volume->volume, 16)) {
		cmek_volhdr_store_close(store);
		store = NULL;
	}
	close(fd);
	return store;
}

static void look_at_header(struct uses *uses, const struct cmek_registered *volume)
{
	struct cmek_volhdr_store *store = peek(volume);
	enum cmek_store_use use;
	const struct cmek_slot *slot;
	struct cmek_ctl_use *found;
	size_t i;

	if (!store) {
		if (cmek_pins_have_key(volume->pins, uses->key))
			(void)add_use(uses, volume, "unknown"); /* no memory is noted in uses */
		return;
	}
	use = cmek_volhdr_store_use(store);
	for (i = 0; i < cmek_volhdr_store_header(store)->n_slots; i++) {
		slot = &cmek_volhdr_store_header(store)->slots[i];
		if (!cmek_slot_key_is(slot->resolved, uses->key))
			continue;
		found = add_use(uses, volume,
				use == CMEK_USE_WRITER || use == CMEK_USE_READERS ? "in use" : "available");
		if (!found)
			break;
		found->slot = (int)slot->id;
		found->since = slot->created;
		add_text(uses, slot->purpose, &found->purpose);
		add_text(uses, slot->version, &found->version);
	}
	cmek_volhdr_store_close(store);
}

static void look_at_backups(struct uses *uses, const struct cmek_registered *volume)
{
	const struct cmek_backup *backup;
	struct cmek_ctl_use *found;
	size_t i, k;

	for (i = 0; i < volume->n_backups; i++) {
		backup = &volume->backups[i];
		for (k = 0; k < backup->n_slots; k++) {
			if (!cmek_slot_key_is(backup->slots[k].resolved, uses->key))
				continue;
			found = add_use(uses, volume, "backup");
			if (!found)
				return;
			found->slot = (int)backup->slots[k].id;
			found->since = backup->made;
			add_text(uses, backup->path, &found->backup);
			add_text(uses, backup->slots[k].version, &found->version);
		}
	}
}

void cmek_ctl_uses_free(struct cmek_ctl_use *uses, size_t n)
{
	size_t i;

	for (i = 0; uses && i < n; i++) {
		free(uses[i].label);
		free(uses[i].store);
		free(uses[i].backup);
		free(uses[i].purpose);
		free(uses[i].version);
	}
	free(uses);
}

int cmek_ctl_find_uses(const char *key, struct cmek_ctl_use **ret_uses, size_t *ret_n, struct cmek_error *err)
{
	struct cmek_registered *volumes = NULL;
	struct cmek_registry *registry = NULL;
	struct uses uses = { .key = key };
	size_t n = 0, i;
	int ret;

	ret = cmek_registry_new(NULL, &registry, err);
	if (!ret)
		ret = cmek_registry_list(registry, &volumes, &n, err);
	for (i = 0; i < n; i++) {
		look_at_header(&uses, &volumes[i]);
		look_at_backups(&uses, &volumes[i]);
	}
	if (!ret && uses.failed)
		ret = cmek_error_sys(err, ENOMEM, "the uses of %s", key);
	cmek_registry_list_free(volumes, n);
	cmek_registry_free(registry);
	if (ret) {
		cmek_ctl_uses_free(uses.list, uses.n);
		return ret;
	}
	*ret_uses = uses.list;
	*ret_n = uses.n;
	return 0;
}

int cmek_ctl_find_needs(const struct cmek_volhdr *hdr, const char *resolved, const char *version,
			struct cmek_ctl_needs *ret_needs, struct cmek_error *err)
{
	struct cmek_ctl_needs needs = { .backups = json_array() };
	struct cmek_registered *volumes = NULL;
	const struct cmek_registered *here;
	struct cmek_registry *registry = NULL;
	const struct cmek_backup *backup;
	size_t n = 0, i, k;
	int ret;

	cmek_ctl_key_text(resolved, version, needs.who);
	for (i = 0; i < hdr->n_slots; i++)
		if (!strcmp(hdr->slots[i].resolved, resolved) && !strcmp(hdr->slots[i].version, version))
			needs.by_header = true;
	ret = cmek_registry_new(NULL, &registry, err);
	if (!ret)
		ret = cmek_registry_list(registry, &volumes, &n, err);
	here = ret ? NULL : cmek_registered_find(volumes, n, hdr->uuid);
	for (i = 0; here && i < here->n_backups; i++) {
		backup = &here->backups[i];
		for (k = 0; k < backup->n_slots; k++)
			if (!strcmp(backup->slots[k].resolved, resolved) && !strcmp(backup->slots[k].version, version))
				break;
		if (k < backup->n_slots)
			json_array_append_new(needs.backups, json_string(backup->path));
	}
	cmek_registry_list_free(volumes, n);
	cmek_registry_free(registry);
	if (ret)
		json_decref(needs.backups);
	else
		*ret_needs = needs;
	return ret;
}

static json_t *use_json(const struct cmek_ctl_use *use)
{
	char uuid[CMEK_UUID_TEXT];

	cmek_uuid_encode(use->volume, uuid);
	return json_pack("{s:s, s:s?, s:s?, s:s, s:s?, s:o, s:s?, s:s?, s:o}", "uuid", uuid, "label", use->label, "store",
			 use->store, "use", use->state, "backup", use->backup, "slot",
			 use->slot < 0 ? json_null() : json_integer(use->slot), "purpose", use->purpose, "version",
			 use->version, "since", use->since ? cmek_ctl_time_json(use->since) : json_null());
}

static const char *or_dash(const char *text)
{
	return text && text[0] ? text : "-";
}

static void tell(struct cmek_tool *tool, const char *key, const struct cmek_ctl_use *uses, size_t n)
{
	char uuid[CMEK_UUID_TEXT], since[CMEK_TIME_TEXT], slot[16];
	json_t *list = json_array(), *json;
	size_t i;

	if (!n)
		cmek_tool_say(tool, "No volume in this host's registry uses %s.", key);
	else
		cmek_tool_say(tool, "%-36s  %-9s  %-4s  %-8s  %-7s  %-20s  %s", "VOLUME", "USE", "SLOT", "PURPOSE",
			      "VERSION", "SINCE", "WHERE");
	for (i = 0; i < n; i++) {
		cmek_uuid_encode(uses[i].volume, uuid);
		if (uses[i].since)
			cmek_time_encode(uses[i].since, since);
		snprintf(slot, sizeof(slot), "%d", uses[i].slot);
		cmek_tool_say(tool, "%-36s  %-9s  %-4s  %-8s  %-7s  %-20s  %s", uuid, uses[i].state,
			      uses[i].slot < 0 ? "-" : slot, or_dash(uses[i].purpose), or_dash(uses[i].version),
			      uses[i].since ? since : "-", or_dash(uses[i].backup ? uses[i].backup : uses[i].store));
		json_array_append_new(list, use_json(&uses[i]));
	}
	json = json_pack("{s:s, s:o}", "key", key, "uses", list);
	cmek_tool_json(tool, &json);
}

/* What a KMS calls the key in full, NULL if it does not say; malloced. */
static char *resolve(const char *uri, const struct cmek_kms_options *opts)
{
	struct cmek_kms_info info = { 0 };
	struct cmek_kms *kms = NULL;
	char *resolved = NULL;

	if (!cmek_kms_open(uri, NULL, opts, &kms, NULL) && !cmek_kms_describe(kms, &info, NULL) && info.resolved)
		resolved = strdup(info.resolved);
	cmek_kms_info_done(&info);
	cmek_kms_close(kms);
	return resolved;
}

int cmek_ctl_key_uses(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = { CMEK_CTL_KMS_OPTIONS, { 0, NULL, NULL, NULL } };
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY",
		.about = "Lists the volumes in this host's registry that have a key slot for KEY, and the backups of their\n"
			 "headers that do. Consult it before a key is deleted.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_ctl_unlock unlock;
	struct cmek_ctl_use *uses = NULL;
	struct cmek_tool_args args;
	char *resolved = NULL;
	const char *key;
	size_t n = 0;
	int ret, id, code;

	cmek_ctl_unlock_init(&unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)))
		(void)cmek_ctl_unlock_option(&unlock, &args, id); /* there are no others */
	key = args.argv[0];
	ret = cmek_ctl_find_uses(key, &uses, &n, &err);
	/* Nothing by that name: it may be an alias. */
	if (!ret && !n && (resolved = resolve(key, &unlock.kms)) && strcmp(resolved, key)) {
		key = resolved;
		ret = cmek_ctl_find_uses(key, &uses, &n, &err);
	}
	if (!ret)
		tell(tool, key, uses, n);
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_ctl_uses_free(uses, n);
	free(resolved);
	return code;
}
