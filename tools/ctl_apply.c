/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl slot apply: makes a volume's data slots those of a manifest. Compares, says what it will do, and does it as one
 * change of the header. Slots for backups and recovery are none of its business.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/text.h"
#include "tools/ctl.h"
#include "tools/ctl_manifest.h"

#define MANIFEST_MAX (1u << 20)
#define PURPOSE "data"

enum { OPT_DRY_RUN = 256 };

/* A key of the manifest. */
struct spec {
	const struct cmek_manifest_key *wanted;
	struct cmek_ctl_new_key key; /* how to make a slot for it */
	bool met;                    /* a slot of the volume is this already */
};

struct apply {
	struct cmek_tool *tool;
	const char *volume, *file;
	bool dry_run;
	struct cmek_ctl_unlock unlock;
	struct cmek_manifest manifest;
	struct spec specs[CMEK_SLOTS_MAX]; /* as many as the manifest has keys */
	json_t *plan; /* what is done, for JSON */
	unsigned changes;
};

static int read_manifest(struct apply *a, struct cmek_error *err)
{
	uint8_t *text = NULL;
	size_t len = 0, i;
	int ret;

	ret = cmek_read_file(AT_FDCWD, a->file, MANIFEST_MAX, &text, &len, err);
	if (!ret)
		ret = cmek_manifest_parse(text, len, a->file, &a->manifest, err);
	free(text);
	for (i = 0; !ret && i < a->manifest.n_keys; i++) {
		a->specs[i].wanted = &a->manifest.keys[i];
		a->specs[i].key.region = a->manifest.keys[i].region;
		a->specs[i].key.principal = a->manifest.keys[i].principal;
	}
	return ret;
}

/* ---- the comparison ---- */

static bool same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static bool same_key(const struct cmek_slot *slot, const struct spec *spec)
{
	return !strcmp(slot->provider, spec->wanted->provider) &&
	       (!strcmp(slot->key, spec->wanted->uri) || cmek_slot_key_is(slot->resolved, spec->wanted->uri));
}

static bool same_principal(const struct cmek_slot *slot, const struct spec *spec)
{
	const struct cmek_kms_principal *p = &spec->key.principal;

	return same_text(slot->role, p->role) && same_text(slot->external_id, p->external_id) &&
	       same_text(slot->service_account, p->service_account) && same_text(slot->profile, p->profile);
}

static void note(struct apply *a, const char *what, const struct cmek_slot *slot, const char *key)
{
	cmek_tool_say(a->tool, "%-8s slot %u: %s", what, slot->id, key);
	json_array_append_new(a->plan, json_pack("{s:s, s:i, s:s}", "what", what, "slot", (int)slot->id, "key", key));
	a->changes += strcmp(what, "keep") != 0;
}

static struct spec *find_spec(struct apply *a, const struct cmek_slot *slot)
{
	size_t i;

	for (i = 0; i < a->manifest.n_keys; i++)
		if (same_key(slot, &a->specs[i]))
			return &a->specs[i];
	return NULL;
}

/* Slots that the manifest has, or has with another principal, and those that it lacks. */
static int match_slots(struct apply *a, struct cmek_change *change, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_slot *slot, next;
	struct spec *spec;
	size_t i;
	int ret;

	for (i = 0; i < hdr->n_slots;) {
		slot = &hdr->slots[i];
		spec = !strcmp(slot->purpose, PURPOSE) ? find_spec(a, slot) : NULL;
		if (strcmp(slot->purpose, PURPOSE) || (spec && spec->met)) {
			i++;
			continue;
		}
		if (!spec) {
			note(a, "remove", slot, slot->resolved);
			cmek_volhdr_drop_slot(hdr, slot);
			continue;
		}
		spec->met = true;
		i++;
		if (same_principal(slot, spec) && same_text(slot->region, spec->key.region)) {
			note(a, "keep", slot, slot->resolved);
			continue;
		}
		note(a, "replace", slot, slot->resolved);
		if (a->dry_run)
			continue;
		memset(&next, 0, sizeof(next));
		ret = cmek_ctl_new_key_wrap(&spec->key, &a->unlock, spec->wanted->uri, change, slot->id, PURPOSE, &next, err);
		if (ret) {
			cmek_error_prefix(err, "region_specs[%zu]", spec->wanted->index);
			return ret;
		}
		cmek_slot_done(slot);
		*slot = next;
	}
	return 0;
}

static int add_slots(struct apply *a, struct cmek_change *change, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_slot slot, *place;
	struct spec *spec;
	unsigned id = 0;
	size_t i;
	int ret;

	for (i = 0; i < a->manifest.n_keys; i++) {
		spec = &a->specs[i];
		if (spec->met)
			continue;
		ret = cmek_ctl_free_slot(hdr, &id, err);
		if (ret)
			return ret;
		memset(&slot, 0, sizeof(slot));
		slot.id = id;
		note(a, "add", &slot, spec->wanted->uri);
		if (a->dry_run)
			continue;
		ret = cmek_ctl_new_key_wrap(&spec->key, &a->unlock, spec->wanted->uri, change, id, PURPOSE, &slot, err);
		if (ret) {
			cmek_error_prefix(err, "region_specs[%zu]", spec->wanted->index);
			return ret;
		}
		place = cmek_volhdr_grow_slots(hdr);
		if (!place) {
			cmek_slot_done(&slot);
			return cmek_error_sys(err, ENOMEM, "key slot %u", id);
		}
		*place = slot;
	}
	return 0;
}

/* The slots that a revocation names, or all for data: what is left has to open the volume, by whatever purpose. */
static int revoke_slots(struct apply *a, struct cmek_change *change, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_slot *slot;
	struct spec *spec;
	size_t i;

	for (i = 0; i < hdr->n_slots;) {
		slot = &hdr->slots[i];
		spec = find_spec(a, slot);
		if (a->manifest.n_keys ? !spec : strcmp(slot->purpose, PURPOSE) != 0) {
			i++;
			continue;
		}
		if (spec)
			spec->met = true;
		note(a, "remove", slot, slot->resolved);
		cmek_volhdr_drop_slot(hdr, slot);
	}
	if (a->changes && !hdr->n_slots)
		return cmek_error_set(err, CMEK_E_USAGE, EKEYREJECTED,
				      "no other key slot would be left, nothing could open the volume again; 'cmekctl shred' "
				      "is for that");
	return 0;
}

/* One of the slots that stay opens now: the KEK that they hold is proved by it. */
static int prove(const struct apply *a, struct cmek_change *change, struct cmek_error *err)
{
	const struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_error failure = CMEK_ERROR_INIT;
	size_t i;

	for (i = 0; i < hdr->n_slots; i++) {
		cmek_error_clear(&failure);
		if (!cmek_keyslot_prove(hdr->uuid, &hdr->slots[i], &a->unlock.kms, cmek_change_kek(change), &failure))
			return 0;
	}
	return cmek_error_set(err, CMEK_E_USAGE, EKEYREJECTED, "no key slot that stays opens the volume now: %s", failure.text);
}

static void say_left(const struct apply *a, const struct cmek_volhdr *hdr)
{
	char text[CMEK_CTL_KEY_TEXT];
	size_t i;

	cmek_tool_say(a->tool, "What %s the volume:", a->dry_run ? "would open" : "opens");
	for (i = 0; i < hdr->n_slots; i++)
		cmek_tool_say(a->tool, "  slot %u: %s (%s)", hdr->slots[i].id,
			      cmek_ctl_key_text(hdr->slots[i].resolved, hdr->slots[i].version, text),
			      hdr->slots[i].purpose);
}

static int run(struct apply *a, struct cmek_error *err)
{
	struct cmek_error why = CMEK_ERROR_INIT;
	struct cmek_change *change = NULL;
	char uuid[CMEK_UUID_TEXT], *path = NULL;
	json_t *json;
	int ret;

	ret = read_manifest(a, &why);
	/* A manifest is what the user asks for, not damage. */
	if (ret)
		return cmek_error_set(err, why.kind == CMEK_E_BAD_FORMAT ? CMEK_E_USAGE : why.kind, why.err, "%s", why.text);
	ret = cmek_ctl_change_begin(a->tool, a->volume, CMEK_STORE_CHANGE, &a->unlock, &path, &change, err);
	if (!ret)
		ret = a->manifest.revoke ? revoke_slots(a, change, err) : match_slots(a, change, err);
	if (!ret && !a->manifest.revoke)
		ret = add_slots(a, change, err);
	if (!ret && a->changes && !a->dry_run) {
		ret = prove(a, change, err);
		/* Who has the old header knows the KEK that it holds: a revocation makes another one. */
		if (!ret && a->manifest.revoke)
			ret = cmek_change_rekey(change, err);
		if (!ret)
			ret = cmek_ctl_commit(a->tool, &a->unlock, path, change, err);
	}
	if (!ret) {
		if (a->manifest.revoke)
			say_left(a, cmek_change_new(change));
		if (!a->changes)
			cmek_tool_say(a->tool, "Nothing to do.");
		else if (a->dry_run)
			cmek_tool_say(a->tool, "Nothing was changed (--dry-run).");
		cmek_uuid_encode(cmek_change_old(change)->uuid, uuid);
		json = json_pack("{s:s, s:I, s:s, s:b, s:O}", "uuid", uuid, "sequence",
				 (json_int_t)cmek_change_old(change)->sequence, "action", a->manifest.revoke ? "REVOKE" : "APPLY",
				 "changed", a->changes && !a->dry_run, "plan", a->plan);
		cmek_tool_json(a->tool, &json);
	}
	cmek_change_end(change);
	free(path);
	return ret;
}

int cmek_ctl_slot_apply(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_DRY_RUN, "dry-run", NULL, "say what would be done, change nothing" },
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME FILE",
		.about = "Makes the volume's slots for data those of the manifest in FILE: adds, replaces and removes. Doing it\n"
			 "again changes nothing.",
		.options = options, .min_operands = 2, .max_operands = 2,
	};
	static struct apply a;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_tool_args args;
	int id, code;

	a.tool = tool;
	a.plan = json_array();
	cmek_ctl_unlock_init(&a.unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)))
		if (!cmek_ctl_unlock_option(&a.unlock, &args, id))
			a.dry_run = true;
	a.volume = args.argv[0];
	a.file = args.argv[1];
	code = run(&a, &err) ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	json_decref(a.plan);
	cmek_ctl_unlock_done(&a.unlock);
	cmek_manifest_done(&a.manifest);
	return code;
}
