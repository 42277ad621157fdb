/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl slot apply: makes a volume's data slots those of a manifest. Reads the manifest, compares, says what it will do,
 * and does it as one change of the header. Slots for backups and recovery are none of its business.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/text.h"
#include "kms/json.h"
#include "tools/ctl.h"

#define MANIFEST_MAX (1u << 20)
#define PURPOSE "data"

enum { OPT_DRY_RUN = 256 };

/* The manifest's types of keys, and the providers of slots. */
static const struct {
	const char *type, *provider;
} types[] = {
	{ "AWS_KMS", "aws" },
	{ "GCP_CLOUD_KMS", "gcp" },
	{ "IBM_KEY_PROTECT", "ibm" },
	{ "LOCAL", "local" },
};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

/* One key that the volume shall have; all borrowed from the JSON. */
struct spec {
	size_t index; /* in region_specs */
	const char *provider, *uri;
	struct cmek_ctl_new_key key; /* region and principal */
	bool met;                    /* a slot of the volume is this already */
};

struct apply {
	struct cmek_tool *tool;
	const char *volume, *file;
	bool dry_run;
	struct cmek_ctl_unlock unlock;
	json_t *json;
	bool revoke;
	struct spec specs[CMEK_SLOTS_MAX];
	size_t n_specs;
	json_t *plan; /* what is done, for JSON */
	unsigned changes;
};

/* ---- the manifest ---- */

/* Who to be: which member of a principal auth_principal means is up to the service. */
static int read_principal(const struct cmek_json_at *at, struct spec *spec, struct cmek_error *err)
{
	struct cmek_kms_principal *p = &spec->key.principal;
	const char *who = NULL;
	int ret = 0;

	if (cmek_json_has(at, "auth_principal"))
		ret = cmek_json_string(at, "auth_principal", &who, err);
	if (!ret && cmek_json_has(at, "external_id"))
		ret = cmek_json_string(at, "external_id", &p->external_id, err);
	if (ret)
		return ret;
	if (p->external_id && (strcmp(spec->provider, "aws") || !who))
		return cmek_json_bad(at, "external_id", "goes with auth_principal, the role, of an AWS_KMS key", err);
	if (who && !strcmp(spec->provider, "aws"))
		p->role = who;
	else if (who && !strcmp(spec->provider, "gcp"))
		p->service_account = who;
	else if (who && !strcmp(spec->provider, "ibm"))
		p->profile = who;
	else if (who)
		return cmek_json_bad(at, "auth_principal", "makes no sense for a LOCAL key", err);
	return 0;
}

static int read_key_spec(const struct cmek_json_at *at, struct spec *spec, struct cmek_error *err)
{
	static const char *const names[] = { "type", "uri", "auth_principal", "external_id", NULL };
	const char *type = NULL;
	size_t i;
	int ret;

	ret = cmek_json_only(at, names, err);
	if (!ret)
		ret = cmek_json_string(at, "type", &type, err);
	for (i = 0; !ret && i < N_TYPES; i++)
		if (!strcmp(type, types[i].type))
			spec->provider = types[i].provider;
	if (!ret && !spec->provider)
		ret = cmek_json_bad(at, "type", "is none of AWS_KMS, GCP_CLOUD_KMS, IBM_KEY_PROTECT, LOCAL", err);
	if (!ret)
		ret = cmek_json_string(at, "uri", &spec->uri, err);
	if (!ret && !cmek_slot_text_ok(spec->uri, CMEK_SLOT_TEXT_MAX, 0))
		ret = cmek_json_bad(at, "uri", "is empty, too long or has control characters", err);
	return ret ? ret : read_principal(at, spec, err);
}

static int read_spec(struct apply *a, const struct cmek_json_at *list, size_t i, struct cmek_error *err)
{
	static const char *const names[] = { "region", "key_spec", NULL };
	struct spec *spec = &a->specs[a->n_specs];
	struct cmek_json_at at, key;
	size_t k;
	int ret;

	spec->index = i;
	ret = cmek_json_element(list, i, &at, err);
	if (!ret)
		ret = cmek_json_only(&at, names, err);
	if (!ret && cmek_json_has(&at, "region"))
		ret = cmek_json_string(&at, "region", &spec->key.region, err);
	if (!ret && spec->key.region && !cmek_slot_text_ok(spec->key.region, CMEK_SLOT_TEXT_MAX, 1))
		ret = cmek_json_bad(&at, "region", "is too long or has control characters", err);
	if (!ret)
		ret = cmek_json_object(&at, "key_spec", &key, err);
	if (!ret)
		ret = read_key_spec(&key, spec, err);
	for (k = 0; !ret && k < a->n_specs; k++)
		if (!strcmp(a->specs[k].uri, spec->uri))
			ret = cmek_json_bad(&key, "uri", "is there twice", err);
	a->n_specs++;
	return ret;
}

static int read_manifest(struct apply *a, struct cmek_error *err)
{
	static const char *const names[] = { "$schema", "action", "region_specs", NULL };
	struct cmek_json_at root, list;
	const char *action = "APPLY";
	uint8_t *text = NULL;
	size_t len = 0, n = 0, i;
	int ret;

	ret = cmek_read_file(AT_FDCWD, a->file, MANIFEST_MAX, &text, &len, err);
	if (!ret)
		ret = cmek_json_parse(text, len, a->file, &a->json, err);
	free(text);
	if (ret)
		return ret;
	root = cmek_json_root(a->json, a->file);
	ret = cmek_json_only(&root, names, err);
	if (!ret && cmek_json_has(&root, "action"))
		ret = cmek_json_string(&root, "action", &action, err);
	if (!ret && strcmp(action, "APPLY") && strcmp(action, "REVOKE"))
		ret = cmek_json_bad(&root, "action", "is neither APPLY nor REVOKE", err);
	a->revoke = !strcmp(action, "REVOKE");
	/* A bare revocation is of all that the volume has. */
	if (!ret && (!a->revoke || cmek_json_has(&root, "region_specs")))
		ret = cmek_json_array(&root, "region_specs", &list, &n, err);
	if (!ret && n > CMEK_SLOTS_MAX)
		ret = cmek_json_bad(&root, "region_specs", "has more elements than a volume has key slots", err);
	if (!ret && !n && !a->revoke)
		ret = cmek_json_bad(&root, "region_specs", "is empty", err);
	for (i = 0; !ret && i < n; i++)
		ret = read_spec(a, &list, i, err);
	return ret;
}

/* ---- the comparison ---- */

static bool same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static bool same_key(const struct cmek_slot *slot, const struct spec *spec)
{
	return !strcmp(slot->provider, spec->provider) &&
	       (!strcmp(slot->key, spec->uri) || cmek_slot_key_is(slot->resolved, spec->uri));
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

	for (i = 0; i < a->n_specs; i++)
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
		ret = cmek_ctl_new_key_wrap(&spec->key, &a->unlock, spec->uri, change, slot->id, PURPOSE, &next, err);
		if (ret) {
			cmek_error_prefix(err, "region_specs[%zu]", spec->index);
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

	for (i = 0; i < a->n_specs; i++) {
		spec = &a->specs[i];
		if (spec->met)
			continue;
		ret = cmek_ctl_free_slot(hdr, &id, err);
		if (ret)
			return ret;
		memset(&slot, 0, sizeof(slot));
		slot.id = id;
		note(a, "add", &slot, spec->uri);
		if (a->dry_run)
			continue;
		ret = cmek_ctl_new_key_wrap(&spec->key, &a->unlock, spec->uri, change, id, PURPOSE, &slot, err);
		if (ret) {
			cmek_error_prefix(err, "region_specs[%zu]", spec->index);
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
		if (a->n_specs ? !spec : strcmp(slot->purpose, PURPOSE) != 0) {
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
		ret = a->revoke ? revoke_slots(a, change, err) : match_slots(a, change, err);
	if (!ret && !a->revoke)
		ret = add_slots(a, change, err);
	if (!ret && a->changes && !a->dry_run) {
		ret = prove(a, change, err);
		/* Who has the old header knows the KEK that it holds: a revocation makes another one. */
		if (!ret && a->revoke)
			ret = cmek_change_rekey(change, err);
		if (!ret)
			ret = cmek_change_commit(change, err);
	}
	if (!ret) {
		if (a->revoke)
			say_left(a, cmek_change_new(change));
		if (!a->changes)
			cmek_tool_say(a->tool, "Nothing to do.");
		else if (a->dry_run)
			cmek_tool_say(a->tool, "Nothing was changed (--dry-run).");
		cmek_uuid_encode(cmek_change_old(change)->uuid, uuid);
		json = json_pack("{s:s, s:I, s:s, s:b, s:O}", "uuid", uuid, "sequence",
				 (json_int_t)cmek_change_old(change)->sequence, "action", a->revoke ? "REVOKE" : "APPLY",
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
	cmek_ctl_unlock_init(&a.unlock);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)))
		if (!cmek_ctl_unlock_option(&a.unlock, &args, id))
			a.dry_run = true;
	a.volume = args.argv[0];
	a.file = args.argv[1];
	code = run(&a, &err) ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	json_decref(a.plan);
	json_decref(a.json);
	return code;
}
