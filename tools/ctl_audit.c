/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl audit, and the events of changed headers: what of slots and data keys differs between a header and the one that
 * takes its place. It knows neither why a header is changed nor what the audit log looks like.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"

/* ---- a changed header ---- */

/* One difference. A key's texts are copies: the slot of a header that was replaced is gone when it is told. */
struct difference {
	const char *name;
	char *key, *version, *purpose;
	int slot, dek;
	struct difference *next;
};

struct differences {
	struct difference *first, **end;
	bool incomplete; /* no memory for one */
};

static void add_difference(struct differences *all, const char *name, const struct cmek_slot *slot, int dek)
{
	struct difference *d = calloc(1, sizeof(*d));

	if (!d) {
		all->incomplete = true;
		return;
	}
	*d = (struct difference){ .name = name, .slot = slot ? (int)slot->id : -1, .dek = dek };
	if (slot) {
		d->key = strdup(slot->resolved);
		d->version = strdup(slot->version);
		d->purpose = strdup(slot->purpose);
		all->incomplete |= !d->key || !d->version || !d->purpose;
	}
	*all->end = d;
	all->end = &d->next;
}

static void free_differences(struct differences *all)
{
	struct difference *d;

	while ((d = all->first)) {
		all->first = d->next;
		free(d->key);
		free(d->version);
		free(d->purpose);
		free(d);
	}
}

static bool same_blob(const struct cmek_slot *a, const struct cmek_slot *b)
{
	return a->wrapped_len == b->wrapped_len && !memcmp(a->wrapped, b->wrapped, a->wrapped_len);
}

static void compare_slots(struct differences *all, const struct cmek_volhdr *old, const struct cmek_volhdr *hdr)
{
	const struct cmek_slot *slot, *other;
	size_t i;

	for (i = 0; i < old->n_slots; i++) {
		slot = &old->slots[i];
		other = cmek_volhdr_slot(hdr, slot->id);
		if (!other || strcmp(other->resolved, slot->resolved) || strcmp(other->purpose, slot->purpose))
			add_difference(all, "slot.remove", slot, 0);
	}
	for (i = 0; i < hdr->n_slots; i++) {
		slot = &hdr->slots[i];
		other = cmek_volhdr_slot(old, slot->id);
		if (!other || strcmp(other->resolved, slot->resolved) || strcmp(other->purpose, slot->purpose))
			add_difference(all, "slot.add", slot, 0);
		else if (!same_blob(slot, other))
			add_difference(all, "slot.rewrap", slot, 0);
	}
}

static const struct cmek_dek_entry *find_dek(const struct cmek_volhdr *hdr, uint16_t id)
{
	size_t i;

	for (i = 0; i < hdr->n_deks; i++)
		if (hdr->deks[i].id == id)
			return &hdr->deks[i];
	return NULL;
}

static void compare_deks(struct differences *all, const struct cmek_volhdr *old, const struct cmek_volhdr *hdr)
{
	const struct cmek_dek_entry *dek, *other;
	bool was_destroyed;
	size_t i;

	for (i = 0; i < hdr->n_deks; i++) {
		dek = &hdr->deks[i];
		other = find_dek(old, dek->id);
		was_destroyed = other && other->state == CMEK_DEK_DESTROYED;
		if (!other)
			add_difference(all, "dek.add", NULL, dek->id);
		else if (dek->state == CMEK_DEK_DESTROYED && !was_destroyed)
			add_difference(all, "dek.destroy", NULL, dek->id);
	}
}

int cmek_ctl_commit(const struct cmek_tool *tool, const struct cmek_ctl_unlock *unlock, const char *store,
		    struct cmek_change *change, struct cmek_error *err)
{
	const struct cmek_volhdr *old = cmek_change_old(change), *hdr = cmek_change_new(change);
	struct differences all = { .first = NULL };
	struct cmek_error own = CMEK_ERROR_INIT;
	struct cmek_audit_event event;
	const struct difference *d;
	int ret;

	all.end = &all.first;
	if (cmek_change_kek_is_new(change))
		add_difference(&all, "kek.replace", NULL, 0);
	compare_slots(&all, old, hdr);
	compare_deks(&all, old, hdr);
	ret = cmek_change_commit(change, &own);
	hdr = cmek_change_old(change); /* whichever it is now */
	for (d = all.first; d; d = d->next) {
		event = (struct cmek_audit_event){
			.name = d->name, .volume = hdr->uuid, .label = hdr->label, .store = store, .key = d->key,
			.version = d->version, .purpose = d->purpose, .slot = d->slot, .dek = d->dek, .failure = &own,
		};
		cmek_tool_audit(tool, unlock->kms.config_path, &event);
	}
	if (all.incomplete)
		fprintf(stderr, "%s: warning: not all is in the audit log: out of memory\n", tool->program);
	free_differences(&all);
	return ret ? cmek_error_set(err, own.kind, own.err, "%s", own.text) : 0;
}

void cmek_ctl_audit_opened(const struct cmek_tool *tool, const struct cmek_ctl_unlock *unlock, const char *store,
			   const struct cmek_change *change, const struct cmek_error *failure)
{
	const struct cmek_volhdr *hdr = change ? cmek_change_old(change) : NULL;
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;

	event.name = "volume.open";
	event.volume = hdr ? hdr->uuid : NULL;
	event.label = hdr ? hdr->label : NULL;
	event.store = store;
	event.failure = failure;
	cmek_tool_audit(tool, unlock->kms.config_path, &event);
}

/* ---- audit verify ---- */

static int verify(char **files, int n, const char *config_path, struct cmek_audit_chain *chain, struct cmek_error *err)
{
	char *path = NULL;
	int i, ret = 0;

	if (n == 0)
		ret = cmek_audit_path(config_path, &path, err);
	if (!ret && path)
		ret = cmek_audit_verify(path, chain, err);
	for (i = 0; !ret && i < n; i++)
		ret = cmek_audit_verify(files[i], chain, err);
	free(path);
	return ret;
}

static int run_verify(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ CMEK_CTL_OPT_CONFIG, "config", "FILE", "the configuration [/etc/cmekfs/cmekfs.conf]" },
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] [FILE...]",
		.about = "Follows the chain of the audit log through FILE, or through several, the oldest first, and names the\n"
			 "first line that was changed, put in or taken out. Without FILE: the log of this user.",
		.options = options, .min_operands = 0, .max_operands = -1,
	};
	struct cmek_audit_chain chain = { .events = 0 };
	struct cmek_error err = CMEK_ERROR_INIT;
	const char *config_path = NULL;
	struct cmek_tool_args args;
	json_t *json;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args))
		config_path = args.value; /* there is no other option */
	if (verify(args.argv, args.argc, config_path, &chain, &err))
		return cmek_tool_fail(tool, &err);
	if (!chain.events)
		cmek_tool_say(tool, "no events");
	else
		cmek_tool_say(tool, "events %" PRIu64 " to %" PRIu64 " are whole; the last one's hash is %s", chain.first,
			      chain.last, chain.hash);
	json = json_pack("{s:I, s:I, s:I, s:s}", "events", (json_int_t)chain.events, "first", (json_int_t)chain.first, "last",
			 (json_int_t)chain.last, "hash", chain.hash);
	cmek_tool_json(tool, &json);
	return cmek_tool_done(tool);
}

int cmek_ctl_audit(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_ctl_verb verbs[] = {
		{ "verify", "look for changed and missing events", run_verify },
		{ NULL, NULL, NULL },
	};

	return cmek_ctl_dispatch(tool, verbs, "The audit log of this host.", argc, argv);
}
