/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What cmekctl shred says: its plan, its result, and both as JSON, which is the certificate. Changes nothing.
 */
#include "config.h"

#include "tools/ctl_shred.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const char *const mode_names[] = { "", "volume", "slot", "retired-deks" };

const char *cmek_ctl_shred_name(const struct cmek_shred_run *s)
{
	return s->label[0] ? s->label : s->uuid_text;
}

static bool backup_has(const struct cmek_backup *backup, const struct cmek_shred_victim *victim)
{
	size_t i;

	for (i = 0; i < backup->n_slots; i++)
		if (!strcmp(backup->slots[i].resolved, victim->slot.resolved))
			return true;
	return false;
}

/* Backups of the header that were noted, and stay: each opens the volume with any key of its own. */
static void say_backups(const struct cmek_shred_run *s)
{
	const struct cmek_backup *backup;
	char made[CMEK_TIME_TEXT];
	size_t i, k;

	for (i = 0; s->here && i < s->here->n_backups; i++) {
		backup = &s->here->backups[i];
		if (s->mode == CMEK_SHRED_SLOT && !backup_has(backup, &s->victims[0]))
			continue;
		cmek_time_encode(backup->made, made);
		cmek_tool_say(s->tool, "  the backup of its header %s, of %s, with one of these keys:", backup->path, made);
		for (k = 0; k < backup->n_slots; k++)
			cmek_tool_say(s->tool, "    %s%s%s", backup->slots[k].resolved,
				      backup->slots[k].version[0] ? " version " : "", backup->slots[k].version);
	}
}

static void say_victims(const struct cmek_shred_run *s)
{
	char text[CMEK_CTL_KEY_TEXT], uuid[CMEK_UUID_TEXT];
	const struct cmek_shred_victim *v;
	size_t i, k;

	for (i = 0; i < s->n_victims; i++) {
		v = &s->victims[i];
		cmek_tool_say(s->tool, "  slot %u: %s (%s)%s", v->slot.id,
			      cmek_ctl_key_text(v->slot.resolved, v->slot.version, text), v->slot.purpose,
			      s->kms ? ": its KMS is asked to delete it" : "");
		for (k = 0; k < v->n_others; k++) {
			cmek_uuid_encode(v->others[k].volume, uuid);
			cmek_tool_say(s->tool, "    it is also a key of volume %s, %s", uuid,
				      v->others[k].backup ? v->others[k].backup :
				      v->others[k].store ? v->others[k].store : "-");
		}
	}
}

static void say_mounts(const struct cmek_shred_run *s)
{
	json_t *mount;
	size_t i;

	json_array_foreach(s->mounts, i, mount)
		cmek_tool_say(s->tool, "It is mounted on %s: that mount drops its keys, and who uses it gets errors.",
			      json_string_value(json_object_get(mount, "mount_point")));
	if (s->in_use && !json_array_size(s->mounts))
		cmek_tool_say(s->tool, "It is in use by a mount or program that can't be told: that has to end before.");
}

void cmek_ctl_shred_say_plan(const struct cmek_shred_run *s)
{
	json_t *json;
	size_t i;

	cmek_tool_say(s->tool, "volume %s%s%s%s in %s", s->uuid_text, s->label[0] ? "  \"" : "", s->label,
		      s->label[0] ? "\"" : "", s->path);
	switch (s->mode) {
	case CMEK_SHRED_VOLUME:
		cmek_tool_say(s->tool, "All of it becomes unreadable: %u files of keys and journal, %llu bytes, are overwritten.",
			      s->count.files, (unsigned long long)s->count.bytes);
		cmek_tool_say(s->tool, "These slots go:");
		say_victims(s);
		say_mounts(s);
		break;
	case CMEK_SHRED_SLOT:
		cmek_tool_say(s->tool, "This slot goes, and both old copies of the header are overwritten:");
		say_victims(s);
		cmek_tool_say(s->tool, "These slots still open the volume:");
		json_array_foreach(s->staying, i, json)
			cmek_tool_say(s->tool, "  slot %d: %s", (int)json_integer_value(json_object_get(json, "slot")),
				      json_string_value(json_object_get(json, "resolved")));
		break;
	default:
		json_array_foreach(s->deks, i, json)
			cmek_tool_say(s->tool, "Data key %d goes: what it has encrypted and was not re-encrypted becomes unreadable.",
				      (int)json_integer_value(json));
	}
	cmek_tool_say(s->tool, "What could still open %s then:", s->mode == CMEK_SHRED_VOLUME ? "it" : "what is lost");
	say_backups(s);
	cmek_tool_say(s->tool, "  any other copy of the header or the store (backups, snapshots, what the disk keeps), with a\n"
			       "    key above that is not destroyed");
}

static json_t *use_json(const struct cmek_ctl_use *use)
{
	char uuid[CMEK_UUID_TEXT];

	cmek_uuid_encode(use->volume, uuid);
	return json_pack("{s:s, s:s?, s:s?}", "uuid", uuid, "store", use->store, "backup", use->backup);
}

static json_t *victim_json(const struct cmek_shred_run *s, const struct cmek_shred_victim *v)
{
	bool opens = !cmek_error_is_set(&v->opens);
	json_t *json = cmek_ctl_slot_json(&v->slot), *others = json_array(), *deletion = json_null();
	size_t i;

	for (i = 0; i < v->n_others; i++)
		json_array_append_new(others, use_json(&v->others[i]));
	if (v->asked)
		deletion = json_pack("{s:b, s:o, s:O?, s:s?, s:s?}", "accepted", v->done, "date",
				     v->date ? cmek_ctl_time_json(v->date) : json_null(), "requests", v->requests,
				     "key_state", v->state, "problem", v->done ? NULL : v->kms_err.text);
	json_object_set_new(json, "other_uses", others);
	json_object_set_new(json, "kms_deletion", deletion);
	if (s->executed)
		json_object_set_new(json, "old_copies_open", json_pack("{s:b, s:s?}", "now", opens, "because",
								       opens ? NULL : v->opens.text));
	return json;
}

static json_t *backups_json(const struct cmek_shred_run *s)
{
	json_t *list = json_array(), *slots;
	const struct cmek_backup *backup;
	size_t i, k;

	for (i = 0; s->here && i < s->here->n_backups; i++) {
		backup = &s->here->backups[i];
		slots = json_array();
		for (k = 0; k < backup->n_slots; k++)
			json_array_append_new(slots, json_pack("{s:s, s:s}", "key", backup->slots[k].resolved, "version",
							       backup->slots[k].version));
		json_array_append_new(list, json_pack("{s:s, s:o, s:I, s:o}", "path", backup->path, "made",
						      cmek_ctl_time_json(backup->made), "sequence",
						      (json_int_t)backup->sequence, "slots", slots));
	}
	return list;
}

/* What no program can look for, and keys that could still do their work. */
static json_t *could_survive_json(const struct cmek_shred_run *s)
{
	json_t *list = json_pack("[s, s, s]", "copies of the header or the store that this host does not know",
				 "snapshots of the store's file system, and what its device keeps of overwritten blocks",
				 "backups of the keys themselves, where their service has such");
	char key[CMEK_CTL_KEY_TEXT], date[CMEK_TIME_TEXT];
	const struct cmek_shred_victim *v;
	size_t i, k;

	if (json_array_size(s->mounts))
		json_array_append_new(list, json_string("what programs have read while it was mounted, in their memory, in "
							"swap and in files of theirs"));
	for (i = 0; i < s->n_victims; i++) {
		v = &s->victims[i];
		for (k = 0; k < i && strcmp(s->victims[k].slot.resolved, v->slot.resolved); k++)
			; /* a key of two slots is told once */
		if (k < i)
			continue;
		(void)cmek_ctl_key_text(v->slot.resolved, v->slot.version, key);
		if (!v->done) {
			json_array_append_new(list, json_sprintf("the key %s, which was not deleted", key));
		} else if (v->date > s->when) {
			cmek_time_encode(v->date, date);
			json_array_append_new(list, json_sprintf("the key %s, whose deletion can be cancelled until %s", key, date));
		} else if (!strcmp(v->slot.provider, "ibm")) {
			json_array_append_new(list, json_sprintf("the key %s, which the service can restore for 30 days", key));
		}
	}
	return list;
}

json_t *cmek_ctl_shred_json(const struct cmek_shred_run *s)
{
	bool clean = !cmek_error_is_set(&s->verified);
	json_t *slots = json_array();
	size_t i;

	for (i = 0; i < s->n_victims; i++)
		json_array_append_new(slots, victim_json(s, &s->victims[i]));
	return json_pack("{s:i, s:s, s:b, s:s, s:s, s:s, s:o, s:I, s:o, s:o, s:O, s:O, s:{s:i, s:I}, s:O, s:o, s:o, s:o}",
			 "format", 1, "what", mode_names[s->mode], "executed", s->executed, "uuid", s->uuid_text,
			 "label", s->label, "store", s->path, "created", cmek_ctl_time_json(s->created), "sequence",
			 (json_int_t)s->sequence, "date", s->executed ? cmek_ctl_time_json(s->when) : json_null(),
			 "slots", slots, "slots_that_stay", s->staying, "data_keys", s->deks, "overwritten", "files",
			 (int)s->count.files, "bytes", (json_int_t)s->count.bytes, "mounts", s->mounts,
			 "verified",
			 !s->executed ? json_null() :
			 clean ? json_true() : json_string(s->verified.text),
			 "known_backups", backups_json(s), "could_survive", could_survive_json(s));
}

void cmek_ctl_shred_say_result(const struct cmek_shred_run *s)
{
	char date[CMEK_TIME_TEXT];
	const struct cmek_shred_victim *v;
	json_t *mount;
	size_t i;

	if (!s->executed) {
		cmek_tool_say(s->tool, "Nothing was changed. To do it, add --yes-destroy %s", cmek_ctl_shred_name(s));
		return;
	}
	cmek_tool_say(s->tool, "Done: %s", s->mode == CMEK_SHRED_VOLUME ? "the volume is shredded" : "the header was replaced");
	json_array_foreach(s->mounts, i, mount)
		cmek_tool_say(s->tool, "  the mount on %s has no keys any more: unmount it",
			      json_string_value(json_object_get(mount, "mount_point")));
	for (i = 0; i < s->n_victims; i++) {
		v = &s->victims[i];
		if (v->date)
			cmek_time_encode(v->date, date);
		if (v->done)
			cmek_tool_say(s->tool, "  %s: deletion accepted%s%s%s%s", v->slot.resolved, v->date ? ", on " : "",
				      v->date ? date : "", v->state ? "; the key is " : "", v->state ? v->state : "");
		else if (v->asked)
			cmek_tool_say(s->tool, "  %s: NOT deleted: %s", v->slot.resolved, v->kms_err.text);
		if (cmek_error_is_set(&v->opens))
			cmek_tool_say(s->tool, "  slot %u: an old copy does not open: %s", v->slot.id, v->opens.text);
		else
			cmek_tool_say(s->tool, "  slot %u: an old copy of the header would still open with %s", v->slot.id,
				      v->slot.resolved);
	}
}
