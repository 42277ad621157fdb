/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl shred: destroys a volume, a key slot or retired data keys for good. It says first what that means and what
 * would survive, wants to be told twice, and leaves a certificate of what it did. Reads no data.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/volume/registry.h"
#include "fs/volume/shred.h"
#include "tools/ctl.h"
#include "tools/ctl_certificate.h"

enum {
	OPT_VOLUME = 256,
	OPT_SLOT,
	OPT_RETIRED_DEKS,
	OPT_KMS,
	OPT_DAYS,
	OPT_FORCE,
	OPT_SHARED_KEYS,
	OPT_DESTROY,
	OPT_YES_DESTROY,
	OPT_CERTIFICATE,
	OPT_SIGN_KEY
};

enum mode { NO_MODE, VOLUME, SLOT, RETIRED_DEKS };
static const char *const mode_names[] = { "", "volume", "slot", "retired-deks" };

/* One key slot that is to go: what is known of its key, and what became of it. */
struct victim {
	struct cmek_slot slot; /* a copy */
	struct cmek_ctl_use *others;
	size_t n_others;       /* other volumes' slots and backups of this key, of this host's */
	struct cmek_error kms_err;
	bool asked, done;      /* the KMS was asked for deletion, and said yes */
	int64_t date;          /* of the deletion; 0 = at once */
	struct cmek_error opens; /* what the slot said afterwards; not set: it still opens */
};

struct shred {
	struct cmek_tool *tool;
	const char *operand;
	enum mode mode;
	unsigned slot;
	bool kms, force, shared_keys, destroy;
	unsigned days;
	const char *yes; /* the label that was typed as an option */
	const char *certificate, *sign_key;
	struct cmek_ctl_unlock unlock;

	int store_fd;
	char *path;
	uint8_t uuid[16];
	char uuid_text[CMEK_UUID_TEXT];
	char label[CMEK_LABEL_MAX + 1];
	int64_t created, when;
	uint64_t sequence;
	struct victim victims[CMEK_SLOTS_MAX];
	size_t n_victims;
	json_t *staying; /* slots that still open the volume afterwards */
	json_t *deks;    /* ids that are destroyed */
	struct cmek_registered *volumes;
	size_t n_volumes;
	const struct cmek_registered *here;
	struct cmek_shred_count count;
	bool executed;
	struct cmek_error verified; /* not set: proved that nothing is left */
};

/* ---- the plan ---- */

/* Uses of the key by other volumes, and by their backups. */
static int find_others(const struct shred *s, struct victim *victim, struct cmek_error *err)
{
	struct cmek_ctl_use *uses = NULL, kept;
	size_t n = 0, i, others = 0;
	int ret = cmek_ctl_find_uses(victim->slot.resolved, &uses, &n, err);

	/* Others to the front, what is this volume's behind them. */
	for (i = 0; i < n; i++) {
		if (!memcmp(uses[i].volume, s->uuid, 16))
			continue;
		kept = uses[others];
		uses[others++] = uses[i];
		uses[i] = kept;
	}
	if (n > others) {
		for (i = others; i < n; i++) {
			free(uses[i].label);
			free(uses[i].store);
			free(uses[i].backup);
			free(uses[i].purpose);
			free(uses[i].version);
		}
	}
	victim->others = uses;
	victim->n_others = others;
	return ret;
}

static int add_victim(struct shred *s, const struct cmek_slot *slot, struct cmek_error *err)
{
	struct victim *victim = &s->victims[s->n_victims];
	char *text = NULL;
	size_t len = 0;
	int ret;

	ret = cmek_slot_encode(slot, &text, &len, err);
	if (!ret)
		ret = cmek_slot_decode(text, len, &victim->slot, err);
	free(text);
	if (ret)
		return ret;
	s->n_victims++;
	return find_others(s, victim, err);
}

static int read_registry(struct shred *s, struct cmek_error *err)
{
	struct cmek_registry *registry = NULL;
	int ret = cmek_registry_new(NULL, &registry, err);

	if (!ret)
		ret = cmek_registry_list(registry, &s->volumes, &s->n_volumes, err);
	s->here = ret ? NULL : cmek_registered_find(s->volumes, s->n_volumes, s->uuid);
	cmek_registry_free(registry);
	return ret;
}

/* What the header says of what is to go. */
static int plan(struct shred *s, const struct cmek_volhdr *hdr, struct cmek_error *err)
{
	const struct cmek_slot *slot;
	size_t i;
	int ret = 0;

	memcpy(s->uuid, hdr->uuid, 16);
	cmek_uuid_encode(s->uuid, s->uuid_text);
	snprintf(s->label, sizeof(s->label), "%s", hdr->label);
	s->created = hdr->created;
	s->sequence = hdr->sequence;
	s->staying = json_array();
	s->deks = json_array();
	for (i = 0; !ret && i < hdr->n_slots; i++) {
		slot = &hdr->slots[i];
		if (s->mode == VOLUME || (s->mode == SLOT && slot->id == s->slot))
			ret = add_victim(s, slot, err);
		else
			json_array_append_new(s->staying, cmek_ctl_slot_json(slot));
	}
	for (i = 0; i < hdr->n_deks; i++)
		if (s->mode == VOLUME || (s->mode == RETIRED_DEKS && hdr->deks[i].state == CMEK_DEK_RETIRED))
			json_array_append_new(s->deks, json_integer(hdr->deks[i].id));
	if (!ret && s->mode == SLOT && !s->n_victims)
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENXIO, "the volume has no key slot %u", s->slot);
	if (!ret && s->mode == RETIRED_DEKS && !json_array_size(s->deks))
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "the volume has no retired data keys");
	if (!ret && s->mode == VOLUME)
		ret = cmek_shred_measure(s->store_fd, &s->count, err);
	return ret ? ret : read_registry(s, err);
}

/* The key of one volume must not go with another one by accident. */
static int check_shared(const struct shred *s, struct cmek_error *err)
{
	char uuid[CMEK_UUID_TEXT];
	json_t *slot;
	size_t i, k;

	for (i = 0; s->kms && i < s->n_victims; i++) {
		json_array_foreach(s->staying, k, slot)
			if (!strcmp(json_string_value(json_object_get(slot, "resolved")), s->victims[i].slot.resolved))
				return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
						      "%s is also the key of slot %d, which stays: leave out --kms",
						      s->victims[i].slot.resolved,
						      (int)json_integer_value(json_object_get(slot, "slot")));
	}
	for (i = 0; s->kms && !s->shared_keys && i < s->n_victims; i++) {
		if (!s->victims[i].n_others)
			continue;
		cmek_uuid_encode(s->victims[i].others[0].volume, uuid);
		return cmek_error_set(err, CMEK_E_BUSY, EDEADLK,
				      "%s is also a key of volume %s: its deletion would take that one along",
				      s->victims[i].slot.resolved, uuid);
	}
	return 0;
}

/* ---- words ---- */

static const char *name_of(const struct shred *s)
{
	return s->label[0] ? s->label : s->uuid_text;
}

static bool backup_has(const struct cmek_backup *backup, const struct victim *victim)
{
	size_t i;

	for (i = 0; i < backup->n_slots; i++)
		if (!strcmp(backup->slots[i].resolved, victim->slot.resolved))
			return true;
	return false;
}

/* Backups of the header that were noted, and stay: each opens the volume with any key of its own. */
static void say_backups(const struct shred *s)
{
	const struct cmek_backup *backup;
	char made[CMEK_TIME_TEXT];
	size_t i, k;

	for (i = 0; s->here && i < s->here->n_backups; i++) {
		backup = &s->here->backups[i];
		if (s->mode == SLOT && !backup_has(backup, &s->victims[0]))
			continue;
		cmek_time_encode(backup->made, made);
		cmek_tool_say(s->tool, "  the backup of its header %s, of %s, with one of these keys:", backup->path, made);
		for (k = 0; k < backup->n_slots; k++)
			cmek_tool_say(s->tool, "    %s%s%s", backup->slots[k].resolved,
				      backup->slots[k].version[0] ? " version " : "", backup->slots[k].version);
	}
}

static void say_victims(const struct shred *s)
{
	char text[CMEK_CTL_KEY_TEXT], uuid[CMEK_UUID_TEXT];
	const struct victim *v;
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

static void say_plan(const struct shred *s)
{
	json_t *json;
	size_t i;

	cmek_tool_say(s->tool, "volume %s%s%s%s in %s", s->uuid_text, s->label[0] ? "  \"" : "", s->label,
		      s->label[0] ? "\"" : "", s->path);
	switch (s->mode) {
	case VOLUME:
		cmek_tool_say(s->tool, "All of it becomes unreadable: %u files of keys and journal, %llu bytes, are overwritten.",
			      s->count.files, (unsigned long long)s->count.bytes);
		cmek_tool_say(s->tool, "These slots go:");
		say_victims(s);
		break;
	case SLOT:
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
	cmek_tool_say(s->tool, "What could still open %s then:", s->mode == VOLUME ? "it" : "what is lost");
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

static json_t *victim_json(const struct shred *s, const struct victim *v)
{
	bool opens = !cmek_error_is_set(&v->opens);
	json_t *json = cmek_ctl_slot_json(&v->slot), *others = json_array(), *deletion = json_null();
	size_t i;

	for (i = 0; i < v->n_others; i++)
		json_array_append_new(others, use_json(&v->others[i]));
	if (v->asked)
		deletion = json_pack("{s:b, s:o, s:s?}", "accepted", v->done, "date",
				     v->date ? cmek_ctl_time_json(v->date) : json_null(), "problem",
				     v->done ? NULL : v->kms_err.text);
	json_object_set_new(json, "other_uses", others);
	json_object_set_new(json, "kms_deletion", deletion);
	if (s->executed)
		json_object_set_new(json, "old_copies_open", json_pack("{s:b, s:s?}", "now", opens, "because",
								       opens ? NULL : v->opens.text));
	return json;
}

static json_t *backups_json(const struct shred *s)
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

/* The certificate, and the plan where nothing was done. */
static json_t *shred_json(const struct shred *s)
{
	bool clean = !cmek_error_is_set(&s->verified);
	json_t *slots = json_array();
	size_t i;

	for (i = 0; i < s->n_victims; i++)
		json_array_append_new(slots, victim_json(s, &s->victims[i]));
	return json_pack("{s:i, s:s, s:b, s:s, s:s, s:s, s:o, s:I, s:o, s:o, s:O, s:O, s:{s:i, s:I}, s:o, s:o, s:[s,s,s]}",
			 "format", 1, "what", mode_names[s->mode], "executed", s->executed, "uuid", s->uuid_text,
			 "label", s->label, "store", s->path, "created", cmek_ctl_time_json(s->created), "sequence",
			 (json_int_t)s->sequence, "date", s->executed ? cmek_ctl_time_json(s->when) : json_null(),
			 "slots", slots, "slots_that_stay", s->staying, "data_keys", s->deks, "overwritten", "files",
			 (int)s->count.files, "bytes", (json_int_t)s->count.bytes, "verified",
			 !s->executed ? json_null() :
			 clean ? json_true() : json_string(s->verified.text),
			 "known_backups", backups_json(s), "could_survive",
			 "copies of the header or the store that this host does not know",
			 "snapshots of the store's file system, and what its device keeps of overwritten blocks",
			 "backups of the keys themselves, where their service has such");
}

/* ---- deeds ---- */

/* slot: what it is about, NULL = the volume. */
static void audit(const struct shred *s, const char *name, const struct cmek_slot *slot, const struct cmek_error *failure)
{
	struct cmek_audit_event event = {
		.name = name, .volume = s->uuid, .label = s->label, .store = s->path, .slot = slot ? (int)slot->id : -1,
		.key = slot ? slot->resolved : NULL, .version = slot ? slot->version : NULL, .failure = failure,
	};

	cmek_tool_audit(s->tool, s->unlock.kms.config_path, &event);
}

static void ask_kms(const struct shred *s, struct victim *v)
{
	struct cmek_kms_principal principal = cmek_slot_principal(&v->slot);
	struct cmek_kms *kms = NULL;
	int ret;

	v->asked = true;
	ret = cmek_kms_open(v->slot.resolved, &principal, &s->unlock.kms, &kms, &v->kms_err);
	if (!ret && s->force)
		ret = cmek_kms_force_deletion(kms, &v->date, &v->kms_err);
	else if (!ret)
		ret = cmek_kms_schedule_deletion(kms, s->days, &v->date, &v->kms_err);
	v->done = !ret;
	cmek_kms_close(kms);
	audit(s, "key.schedule-deletion", &v->slot, &v->kms_err);
}

/* Deletion in the KMS where that was asked for, then what the slot's blob says: a copy of it could be anywhere. */
static void finish_keys(struct shred *s)
{
	struct cmek_secret *kek = NULL;
	size_t i;

	for (i = 0; i < s->n_victims; i++) {
		if (s->kms)
			ask_kms(s, &s->victims[i]);
		if (!cmek_keyslot_unwrap(s->uuid, &s->victims[i].slot, &s->unlock.kms, &kek, NULL, &s->victims[i].opens))
			cmek_secret_free(kek);
		kek = NULL;
	}
}

/* The label typed on the terminal. */
static int ask_user(const struct shred *s, struct cmek_error *err)
{
	char line[256] = "";
	FILE *tty = fopen("/dev/tty", "r+e");

	if (!tty)
		return cmek_error_set(err, CMEK_E_USAGE, ENOTTY,
				      "there is no terminal to ask on: give --yes-destroy %s", name_of(s));
	fprintf(tty, "This can't be undone. Type %s to go on: ", name_of(s));
	fflush(tty);
	if (!fgets(line, sizeof(line), tty))
		line[0] = '\0';
	fclose(tty);
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, name_of(s)))
		return cmek_error_set(err, CMEK_E_USAGE, ECANCELED, "that is not it: nothing was changed");
	return 0;
}

static int confirm(const struct shred *s, struct cmek_error *err)
{
	if (!s->yes)
		return ask_user(s, err);
	if (strcmp(s->yes, name_of(s)) && strcmp(s->yes, s->uuid_text))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the volume is called '%s', not '%s': nothing was changed",
				      name_of(s), s->yes);
	return 0;
}

static void forget(const struct shred *s)
{
	struct cmek_registry *registry = NULL;

	/* An entry that stays does no harm. */
	if (!cmek_registry_new(NULL, &registry, NULL))
		(void)cmek_registry_forget(registry, s->uuid, NULL);
	cmek_registry_free(registry);
}

/* What a shredding that was cut off has left: the rest goes without a question. */
static int end_interrupted(struct shred *s, const struct cmek_volhdr_store *store, const struct cmek_tombstone *tombstone,
			   struct cmek_error *err)
{
	int ret;

	memcpy(s->uuid, tombstone->uuid, 16);
	cmek_uuid_encode(s->uuid, s->uuid_text);
	s->staying = json_array();
	s->deks = json_array();
	s->when = tombstone->when;
	ret = cmek_shred_volume(s->store_fd, store, s->uuid, s->when, &s->count, err);
	audit(s, "volume.shred", NULL, err);
	s->executed = true;
	if (!ret)
		ret = cmek_shred_verify(s->store_fd, err);
	if (!ret)
		cmek_tool_say(s->tool, "%s was shredded before; nothing of its header and journals is left", s->path);
	forget(s);
	return ret;
}

static int shred_volume(struct shred *s, struct cmek_error *err)
{
	struct cmek_volhdr_store *store = NULL, *again = NULL;
	struct cmek_error why = CMEK_ERROR_INIT;
	struct cmek_tombstone tombstone;
	int ret;

	ret = cmek_volhdr_store_open_any(s->store_fd, &store, err);
	if (ret)
		return ret;
	if (!cmek_volhdr_store_header(store)) {
		if (cmek_volhdr_store_shredded(store, &tombstone) && s->destroy)
			ret = end_interrupted(s, store, &tombstone, err);
		else
			ret = cmek_volhdr_store_open(s->store_fd, CMEK_STORE_PEEK, NULL, &again, err);
		goto out;
	}
	ret = plan(s, cmek_volhdr_store_header(store), err);
	if (!ret)
		say_plan(s);
	if (!ret && s->destroy)
		ret = check_shared(s, err);
	if (!ret && s->destroy)
		ret = confirm(s, err);
	if (ret || !s->destroy)
		goto out;
	ret = cmek_shred_volume(s->store_fd, store, s->uuid, s->when, &s->count, err);
	audit(s, "volume.shred", NULL, err);
	if (ret)
		goto out;
	s->executed = true;
	finish_keys(s);
	if (cmek_shred_verify(s->store_fd, &why))
		s->verified = why;
	forget(s);
out:
	cmek_volhdr_store_close(again);
	cmek_volhdr_store_close(store);
	return ret;
}

/* The new header without the slot, or with its retired data keys destroyed. */
static int change_header(struct shred *s, struct cmek_change *change, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_shred_old old;
	int ret, rc;
	size_t i;

	if (s->mode == SLOT) {
		ret = cmek_ctl_prove_rest(change, s->slot, &s->unlock.kms, err);
		if (ret)
			return ret;
		cmek_volhdr_drop_slot(hdr, cmek_volhdr_slot(hdr, s->slot));
	}
	for (i = 0; s->mode == RETIRED_DEKS && i < hdr->n_deks; i++) {
		if (hdr->deks[i].state != CMEK_DEK_RETIRED)
			continue;
		hdr->deks[i].state = CMEK_DEK_DESTROYED;
		memset(hdr->deks[i].wrapped, 0, sizeof(hdr->deks[i].wrapped));
	}
	ret = cmek_shred_old_open(s->store_fd, &old, err);
	if (ret)
		return ret;
	ret = cmek_ctl_commit(s->tool, &s->unlock, s->path, change, err);
	rc = cmek_shred_old_finish(&old, !ret, ret ? NULL : err);
	return ret ? ret : rc;
}

static int shred_part(struct shred *s, struct cmek_error *err)
{
	const struct cmek_change_params params = {
		.access = CMEK_STORE_CHANGE,
		.kms = &s->unlock.kms,
		.key = s->unlock.key,
		.slot = s->unlock.slot,
		.report = { cmek_ctl_report_line, s->tool },
	};
	struct cmek_change *change = NULL;
	int ret;

	ret = cmek_change_begin(s->store_fd, s->path, &params, &change, err);
	cmek_ctl_audit_opened(s->tool, &s->unlock, s->path, change, err);
	if (!ret)
		ret = plan(s, cmek_change_old(change), err);
	if (!ret)
		say_plan(s);
	if (!ret && s->destroy)
		ret = check_shared(s, err);
	if (!ret && s->destroy)
		ret = confirm(s, err);
	if (!ret && s->destroy)
		ret = change_header(s, change, err);
	if (!ret && s->destroy) {
		s->executed = true;
		finish_keys(s);
	}
	cmek_change_end(change);
	return ret;
}

/* ---- the result ---- */

static void say_result(const struct shred *s)
{
	char date[CMEK_TIME_TEXT];
	const struct victim *v;
	size_t i;

	if (!s->executed) {
		cmek_tool_say(s->tool, "Nothing was changed. To do it, add --yes-destroy %s", name_of(s));
		return;
	}
	cmek_tool_say(s->tool, "Done: %s", s->mode == VOLUME ? "the volume is shredded" : "the header was replaced");
	for (i = 0; i < s->n_victims; i++) {
		v = &s->victims[i];
		if (v->date)
			cmek_time_encode(v->date, date);
		if (v->done)
			cmek_tool_say(s->tool, "  %s: deletion accepted%s%s", v->slot.resolved, v->date ? ", on " : "",
				      v->date ? date : "");
		else if (v->asked)
			cmek_tool_say(s->tool, "  %s: NOT deleted: %s", v->slot.resolved, v->kms_err.text);
		if (cmek_error_is_set(&v->opens))
			cmek_tool_say(s->tool, "  slot %u: an old copy does not open: %s", v->slot.id, v->opens.text);
		else
			cmek_tool_say(s->tool, "  slot %u: an old copy of the header would still open with %s", v->slot.id,
				      v->slot.resolved);
	}
}

/* A deletion that the KMS refused is a failure, though the rest is done. */
static const struct cmek_error *first_failure(const struct shred *s)
{
	size_t i;

	if (cmek_error_is_set(&s->verified))
		return &s->verified;
	for (i = 0; i < s->n_victims; i++)
		if (s->victims[i].asked && !s->victims[i].done)
			return &s->victims[i].kms_err;
	return NULL;
}

static int finish(struct shred *s, struct cmek_error *err)
{
	const struct cmek_error *failure;
	json_t *json = shred_json(s);
	int ret = 0;

	if (!json)
		return cmek_error_sys(err, ENOMEM, "the certificate");
	if (s->executed && (s->certificate || s->sign_key))
		ret = cmek_ctl_certificate_write(&json, s->certificate, s->sign_key, err);
	if (!ret || s->executed)
		say_result(s);
	failure = ret ? NULL : first_failure(s);
	if (failure)
		ret = cmek_error_set(err, failure->kind, failure->err, "%s", failure->text);
	if (s->tool->json && ret) /* one value on standard output: the error has its own, the certificate is in its file */
		json_decref(json);
	else
		cmek_tool_json(s->tool, &json);
	return ret;
}

static void parse(struct shred *s, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_VOLUME, "volume", NULL, "shred all of the volume" },
		{ OPT_SLOT, "slot", "N", "shred this key slot" },
		{ OPT_RETIRED_DEKS, "retired-deks", NULL, "shred the data keys that are retired" },
		{ OPT_KMS, "kms", NULL, "also ask the KMS to delete the slots' keys" },
		{ OPT_DAYS, "days", "N", "days until the KMS deletes them" },
		{ OPT_FORCE, "force", NULL, "IBM: delete them with what is registered as using them" },
		{ OPT_SHARED_KEYS, "shared-keys", NULL, "also keys that other volumes of this host use" },
		{ OPT_DESTROY, "destroy", NULL, "do it, after the volume's label was typed" },
		{ OPT_YES_DESTROY, "yes-destroy", "LABEL", "do it: the volume's label, or its UUID" },
		{ OPT_CERTIFICATE, "certificate", "FILE", "write the certificate to FILE" },
		{ OPT_SIGN_KEY, "sign-key", "FILE", "sign it with this Ed25519 private key (PEM)" },
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "--volume | --slot N | --retired-deks [options] VOLUME",
		.about = "Destroys what opens a volume. Without --destroy or --yes-destroy it only says what would be lost, and\n"
			 "what could still open it.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_tool_args args;
	enum mode mode;
	int id;

	cmek_tool_args_init(&args, s->tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (cmek_ctl_unlock_option(&s->unlock, &args, id))
			continue;
		mode = id == OPT_VOLUME ? VOLUME : id == OPT_SLOT ? SLOT : id == OPT_RETIRED_DEKS ? RETIRED_DEKS : NO_MODE;
		if (mode && s->mode)
			cmek_tool_usage(s->tool, "give one of --volume, --slot and --retired-deks");
		if (mode)
			s->mode = mode;
		if (id == OPT_SLOT)
			s->slot = (unsigned)cmek_tool_number(&args, 0, CMEK_SLOTS_MAX - 1);
		s->kms |= id == OPT_KMS;
		s->force |= id == OPT_FORCE;
		s->shared_keys |= id == OPT_SHARED_KEYS;
		s->destroy |= id == OPT_DESTROY || id == OPT_YES_DESTROY;
		if (id == OPT_DAYS)
			s->days = (unsigned)cmek_tool_number(&args, 0, 3650);
		else if (id == OPT_YES_DESTROY)
			s->yes = args.value;
		else if (id == OPT_CERTIFICATE)
			s->certificate = args.value;
		else if (id == OPT_SIGN_KEY)
			s->sign_key = args.value;
	}
	if (!s->mode)
		cmek_tool_usage(s->tool, "give one of --volume, --slot and --retired-deks");
	if (s->kms && s->mode == RETIRED_DEKS)
		cmek_tool_usage(s->tool, "--kms is for --volume and --slot: data keys are in no KMS");
	if (s->sign_key && !s->certificate)
		cmek_tool_usage(s->tool, "--sign-key goes with --certificate");
	s->operand = args.argv[0];
}

int cmek_ctl_shred(struct cmek_tool *tool, int argc, char **argv)
{
	static struct shred s;
	struct cmek_error err = CMEK_ERROR_INIT;
	int ret, code;
	size_t i;

	s.tool = tool;
	s.store_fd = -1;
	s.days = CMEK_KMS_DAYS_DEFAULT;
	s.when = (int64_t)time(NULL);
	cmek_ctl_unlock_init(&s.unlock);
	parse(&s, argc, argv);
	ret = s.certificate ? cmek_ctl_certificate_check(s.certificate, s.sign_key, &err) : 0;
	if (!ret)
		ret = cmek_ctl_volume_open(s.operand, &s.unlock, &s.store_fd, &s.path, &err);
	if (!ret)
		ret = s.mode == VOLUME ? shred_volume(&s, &err) : shred_part(&s, &err);
	if (!ret)
		ret = finish(&s, &err);
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	for (i = 0; i < s.n_victims; i++) {
		cmek_slot_done(&s.victims[i].slot);
		cmek_ctl_uses_free(s.victims[i].others, s.victims[i].n_others);
	}
	cmek_registry_list_free(s.volumes, s.n_volumes);
	cmek_ctl_unlock_done(&s.unlock);
	json_decref(s.staying);
	json_decref(s.deks);
	if (s.store_fd >= 0)
		close(s.store_fd);
	free(s.path);
	return code;
}
