/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Data keys that have come to their end, for people: when they go, and which backups of the header hold them still. Reads the
 * registry; asks no key service and opens no header.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "fs/volume/registry.h"
#include "tools/ctl.h"

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

static bool has_ended(const json_t *dek, const char *since)
{
	const char *state = text_of(dek, "state");

	/* Times of one form compare as texts. */
	return strcmp(state, "retired") == 0 || (strcmp(state, "destroyed") == 0 && strcmp(text_of(dek, "destroyed"), since) >= 0);
}

/* A backup has all data keys that the header had when it was made. */
static json_t *backups_with(const struct cmek_registered *volume, const json_t *dek)
{
	const char *destroyed = text_of(dek, "destroyed");
	json_t *list = json_array();
	char made[CMEK_TIME_TEXT];
	size_t i;

	for (i = 0; volume && i < volume->n_backups; i++) {
		cmek_time_encode(volume->backups[i].made, made);
		if (strcmp(made, text_of(dek, "created")) >= 0 && (!*destroyed || strcmp(made, destroyed) <= 0))
			json_array_append_new(list, json_pack("{s:s, s:s}", "path", volume->backups[i].path, "made", made));
	}
	return list;
}

static void say(const struct cmek_tool *tool, const json_t *dek, const json_t *backups)
{
	json_int_t id = json_integer_value(json_object_get(dek, "id"));
	const char *after = text_of(dek, "destroy_after");
	json_t *backup;
	size_t i;

	if (strcmp(text_of(dek, "state"), "destroyed") == 0)
		cmek_tool_say(tool, "data key %" JSON_INTEGER_FORMAT " is destroyed: the header has it no more", id);
	else
		cmek_tool_say(tool, "data key %" JSON_INTEGER_FORMAT " is retired: nothing is under it, and it is destroyed %s%s", id,
			      *after ? "after " : "by 'cmekctl shred --retired-deks'", after);
	json_array_foreach(backups, i, backup)
		cmek_tool_say(tool, "  the backup of the header %s, of %s, holds it still", text_of(backup, "path"),
			      text_of(backup, "made"));
}

void cmek_ctl_deks_ended(const struct cmek_tool *tool, const json_t *volume, const char *since, json_t *report)
{
	struct cmek_registered *volumes = NULL;
	const struct cmek_registered *here = NULL;
	struct cmek_registry *registry = NULL;
	json_t *list = json_array(), *dek, *copy;
	uint8_t uuid[16];
	size_t i, n = 0;

	/* Where the registry can't be read, it is not known: no backup is named. */
	if (cmek_uuid_decode(text_of(volume, "uuid"), uuid) == 0 && cmek_registry_new(NULL, &registry, NULL) == 0 &&
	    cmek_registry_list(registry, &volumes, &n, NULL) == 0)
		here = cmek_registered_find(volumes, n, uuid);
	json_array_foreach(json_object_get(volume, "deks"), i, dek) {
		if (!has_ended(dek, since))
			continue;
		copy = json_deep_copy(dek);
		json_object_set_new(copy, "header_backups", backups_with(here, dek));
		say(tool, dek, json_object_get(copy, "header_backups"));
		json_array_append_new(list, copy);
	}
	json_object_set_new(report, "ended_deks", list);
	cmek_registry_list_free(volumes, n);
	cmek_registry_free(registry);
}
