/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl status: a volume, who uses it, and what its KMS says of its keys. Nothing is unlocked unless it is asked for:
 * what cannot be asked is told as such and is no failure.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/volume/registry.h"
#include "fs/volume/volhdr_store.h"
#include "kms/kms.h"
#include "tools/ctl.h"

enum { OPT_JOURNAL = 256, OPT_WATCH };

static const char *const use_names[] = {
	[CMEK_USE_NONE] = "no",
	[CMEK_USE_READERS] = "read-only",
	[CMEK_USE_WRITER] = "read-write",
	[CMEK_USE_UNKNOWN] = "unknown",
};

/* What is known of one slot's key. */
struct slot_state {
	struct cmek_kms_info info; /* valid unless err is set */
	struct cmek_error err;
	const char *pinned; /* "yes", "no", "unknown" */
	int behind;         /* rotations of the key since the slot was wrapped, -1 = unknown */
};

struct status {
	struct cmek_tool *tool;
	char *path;       /* the store's */
	char *mount_point;
	struct cmek_ctl_mount mount; /* fd -1: it is not mounted, or not by this user */
	struct cmek_ctl_journal journal; /* of a volume without a mount of this user's */
	struct cmek_volhdr_store *store;
	const struct cmek_volhdr *hdr;
	struct slot_state *slots;
	struct cmek_registered *volumes; /* all of this host's */
	size_t n_volumes;
	const struct cmek_registered *here; /* this one among them, or NULL */
};

static void ask_kms(const struct cmek_slot *slot, const struct cmek_kms_options *opts, struct slot_state *state)
{
	struct cmek_kms_principal principal = cmek_slot_principal(slot);
	struct cmek_kms *kms = NULL;

	if (!cmek_kms_open(slot->resolved, &principal, opts, &kms, &state->err))
		(void)cmek_kms_describe(kms, &state->info, &state->err); /* err tells */
	cmek_kms_close(kms);
	state->behind = cmek_error_is_set(&state->err) ? -1 : cmek_ctl_rotations_since(&state->info, slot->version);
}

/*
 * A slot before this one whose service, in the same place, gave no answer: to wait for that once more for each slot would tell
 * nothing new. NULL: there is none.
 */
static const struct cmek_slot *silent_before(const struct status *s, size_t slot)
{
	const struct cmek_slot *here = &s->hdr->slots[slot], *other;
	size_t i;

	for (i = 0; i < slot; i++) {
		other = &s->hdr->slots[i];
		if (s->slots[i].err.kind == CMEK_E_UNREACHABLE && !strcmp(other->provider, here->provider) &&
		    !strcmp(other->region, here->region))
			return other;
	}
	return NULL;
}

static void ask_all(struct status *s, const struct cmek_kms_options *opts)
{
	const struct cmek_slot *silent;
	size_t i;

	for (i = 0; i < s->hdr->n_slots; i++) {
		silent = silent_before(s, i);
		if (!silent) {
			ask_kms(&s->hdr->slots[i], opts, &s->slots[i]);
			continue;
		}
		(void)cmek_error_set(&s->slots[i].err, CMEK_E_UNREACHABLE, EHOSTUNREACH,
				     "not asked, as the service of slot %u did not answer", silent->id);
		s->slots[i].behind = -1;
	}
}

/* The pins, and a word on them for all slots at once when there are none. */
static void ask_registry(struct status *s)
{
	struct cmek_registry *reg = NULL;
	bool asked;
	size_t i;

	asked = !cmek_registry_new(NULL, &reg, NULL) && !cmek_registry_list(reg, &s->volumes, &s->n_volumes, NULL);
	s->here = cmek_registered_find(s->volumes, s->n_volumes, s->hdr->uuid);
	for (i = 0; i < s->hdr->n_slots; i++) {
		if (!asked)
			s->slots[i].pinned = "unknown";
		else
			s->slots[i].pinned = s->here && cmek_pins_match(s->here->pins, &s->hdr->slots[i]) ? "yes" : "no";
	}
	cmek_registry_free(reg);
}

/* The version of a key that opens the header, or a backup of it. */
struct need {
	const char *resolved, *version; /* borrowed */
	const char *by;                 /* "header", or the path of a backup */
};

/* Calls tell() for each; a slot without a version is one of a KMS that does not name them. */
static void each_need(const struct status *s, void (*tell)(void *arg, const struct need *need), void *arg)
{
	const struct cmek_backup *backup;
	size_t i, k;

	for (i = 0; i < s->hdr->n_slots; i++)
		tell(arg, &(struct need){ s->hdr->slots[i].resolved, s->hdr->slots[i].version, "header" });
	for (i = 0; s->here && i < s->here->n_backups; i++) {
		backup = &s->here->backups[i];
		for (k = 0; k < backup->n_slots; k++)
			tell(arg, &(struct need){ backup->slots[k].resolved, backup->slots[k].version, backup->path });
	}
}

static void print_need(void *arg, const struct need *need)
{
	cmek_tool_say(arg, "%-8s  %-24s  %s", need->version[0] ? need->version : "-", need->resolved, need->by);
}

static void add_need(void *arg, const struct need *need)
{
	json_array_append_new(arg, json_pack("{s:s, s:s, s:s}", "key", need->resolved, "version", need->version, "by",
					     need->by));
}

static const char *state_of(const struct slot_state *state)
{
	return cmek_error_is_set(&state->err) ? cmek_kind_name(state->err.kind) :
						cmek_kms_state_name(state->info.state);
}

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

static void print_dek(const struct cmek_tool *tool, const struct cmek_dek_entry *dek)
{
	bool destroyed = dek->state == CMEK_DEK_DESTROYED && dek->destroyed > 0;
	const char *word = destroyed ? "  on " : dek->destroy_after > 0 ? "  will be destroyed after " : "";
	char when[CMEK_TIME_TEXT] = "";

	if (*word)
		cmek_time_encode(destroyed ? dek->destroyed : dek->destroy_after, when);
	cmek_tool_say(tool, "%-5u  %s%s%s", dek->id, cmek_dek_state_name(dek->state), word, when);
}

static json_t *known_time(int64_t when)
{
	return when > 0 ? cmek_ctl_time_json(when) : json_null();
}

static json_t *dek_json(const struct cmek_dek_entry *dek)
{
	return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o}", "id", (int)dek->id, "state", cmek_dek_state_name(dek->state),
			 "created", known_time(dek->created), "retired", known_time(dek->retired), "destroy_after",
			 known_time(dek->destroy_after), "destroyed", known_time(dek->destroyed));
}

/* What is known without asking a key service, which may take long just when somebody wants to know. */
static void print_head(const struct status *s)
{
	const struct cmek_volhdr *hdr = s->hdr;
	char uuid[CMEK_UUID_TEXT];

	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_tool_say(s->tool, "volume:      %s%s%s%s", uuid, hdr->label[0] ? "  \"" : "", hdr->label,
		      hdr->label[0] ? "\"" : "");
	cmek_tool_say(s->tool, "store:       %s", s->path);
	cmek_tool_say(s->tool, "in use:      %s", use_names[cmek_volhdr_store_use(s->store)]);
	if (s->mount_point)
		cmek_tool_say(s->tool, "mounted on:  %s", s->mount_point);
	cmek_ctl_mount_print(s->tool, s->mount.status);
	cmek_ctl_journal_print(&s->journal, s->tool);
	cmek_tool_say(s->tool, "block size:  %u", hdr->block_size);
	cmek_tool_say(s->tool, "header:      number %llu%s", (unsigned long long)hdr->sequence,
		      cmek_volhdr_store_unequal(s->store) ?
			      ", the copies differ (the next read-write mount repairs that)" :
			      "");
	(void)fflush(stdout); /* cmek_tool_done() tells whether it was written */
}

static void print_keys(const struct status *s)
{
	const struct cmek_volhdr *hdr = s->hdr;
	size_t i;

	cmek_tool_say(s->tool, "%-4s  %-8s  %-16s  %-8s  %-6s  %s", "SLOT", "PURPOSE", "STATE", "VERSION", "PINNED",
		      "KEY");
	for (i = 0; i < hdr->n_slots; i++) {
		cmek_tool_say(s->tool, "%-4u  %-8s  %-16s  %-8s  %-6s  %s", hdr->slots[i].id, hdr->slots[i].purpose,
			      state_of(&s->slots[i]), hdr->slots[i].version[0] ? hdr->slots[i].version : "-",
			      s->slots[i].pinned, hdr->slots[i].resolved);
		if (cmek_error_is_set(&s->slots[i].err))
			cmek_tool_say(s->tool, "      %s", s->slots[i].err.text);
		if (s->slots[i].behind > 0)
			cmek_tool_say(s->tool, "      the key is at version %s, %d rotation%s on: 'cmekctl rewrap'",
				      s->slots[i].info.primary_version, s->slots[i].behind,
				      s->slots[i].behind > 1 ? "s" : "");
	}
	cmek_tool_say(s->tool, "%-8s  %-24s  %s", "VERSION", "OF KEY", "IS NEEDED BY");
	each_need(s, print_need, s->tool);
	cmek_tool_say(s->tool, "%-5s  %s", "DEK", "STATE");
	for (i = 0; i < hdr->n_deks; i++)
		print_dek(s->tool, &hdr->deks[i]);
}

static json_t *slot_json(const struct cmek_slot *slot, const struct slot_state *state)
{
	bool failed = cmek_error_is_set(&state->err);

	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s?, s:o, s:s, s:s?}", "slot", (int)slot->id, "purpose",
			 slot->purpose, "key", slot->resolved, "version", slot->version, "provider", slot->provider,
			 "state", state_of(state), "primary_version", failed ? NULL : state->info.primary_version,
			 "rotations_behind", state->behind < 0 ? json_null() : json_integer(state->behind), "pinned", state->pinned, "problem", failed ? state->err.text : NULL);
}

static json_t *status_json(const struct status *s)
{
	json_t *slots = json_array(), *deks = json_array(), *needed = json_array();
	char uuid[CMEK_UUID_TEXT];
	size_t i;

	cmek_uuid_encode(s->hdr->uuid, uuid);
	each_need(s, add_need, needed);
	for (i = 0; i < s->hdr->n_slots; i++)
		json_array_append_new(slots, slot_json(&s->hdr->slots[i], &s->slots[i]));
	for (i = 0; i < s->hdr->n_deks; i++)
		json_array_append_new(deks, dek_json(&s->hdr->deks[i]));
	return json_pack("{s:s, s:s, s:s, s:s, s:s?, s:O?, s:o, s:i, s:I, s:b, s:o, s:o, s:o}", "uuid", uuid, "label", s->hdr->label,
			 "store", s->path, "in_use", use_names[cmek_volhdr_store_use(s->store)], "mount_point",
			 s->mount_point, "mount", s->mount.status, "journal", cmek_ctl_journal_json(&s->journal), "block_size", (int)s->hdr->block_size, "sequence",
			 (json_int_t)s->hdr->sequence, "copies_differ", cmek_volhdr_store_unequal(s->store), "slots",
			 slots, "deks", deks, "needed_versions", needed);
}

static int collect(struct status *s, const char *volume, struct cmek_ctl_unlock *unlock, bool journal,
		   struct cmek_error *err)
{
	const struct cmek_kms_options *opts = &unlock->kms;
	struct cmek_error mount_err = CMEK_ERROR_INIT;
	int fd = -1, ret;

	/* A mount is asked even where the store could be: only it knows what a UUID or a label stand for. */
	if (cmek_ctl_mount_find(volume, opts->config_path, &s->mount, &mount_err) == 0)
		volume = text_of(s->mount.status, "store");
	else if (mount_err.kind == CMEK_E_USAGE)
		return cmek_error_set(err, mount_err.kind, mount_err.err, "%s", mount_err.text);
	else if (mount_err.kind != CMEK_E_NOT_FOUND)
		cmek_tool_say(s->tool, "warning:     %s", mount_err.text);
	ret = cmek_ctl_volume_open(volume, unlock, &fd, &s->path, err);
	if (!ret)
		ret = cmek_volhdr_store_open(fd, CMEK_STORE_PEEK, NULL, &s->store, err);
	/* the journal of a mount that writes is no settled thing */
	if (!ret && s->mount.fd < 0)
		cmek_ctl_journal_look(fd, s->store,
				      journal && cmek_volhdr_store_use(s->store) != CMEK_USE_WRITER ? opts : NULL, &s->journal);
	if (fd >= 0)
		close(fd);
	if (ret)
		return ret;
	s->hdr = cmek_volhdr_store_header(s->store);
	if (s->mount.fd >= 0)
		s->mount_point = strdup(text_of(s->mount.status, "mount_point"));
	else
		s->mount_point = cmek_ctl_mount_point(s->path);
	s->slots = calloc(s->hdr->n_slots, sizeof(*s->slots));
	if (!s->slots)
		return cmek_error_sys(err, ENOMEM, "status");
	return 0;
}

int cmek_ctl_status(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_JOURNAL, "journal", NULL, "unlock a volume that is not mounted, and say what is in its journal" },
		{ OPT_WATCH, "watch", NULL, "show what the mount says, every two seconds, until it ends; asks no key service" },
		CMEK_CTL_KMS_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Shows a volume, who uses it, and the state of its keys. VOLUME is a store, "
			 "its name in the configuration, or, of a mounted volume, its mount point, UUID or label.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_ctl_unlock unlock;
	struct status s = { .tool = tool, .mount = { .fd = -1 } };
	struct cmek_tool_args args;
	bool journal = false, watch = false;
	json_t *json;
	size_t i;
	int code, id;

	cmek_ctl_unlock_init(&unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (id == OPT_JOURNAL)
			journal = true;
		else if (id == OPT_WATCH)
			watch = true;
		else
			(void)cmek_ctl_unlock_option(&unlock, &args, id); /* there are no others */
	}
	if (watch && journal)
		cmek_tool_usage(tool, "--watch is of a mounted volume, --journal of one that is not");
	if (watch)
		return cmek_ctl_mount_watch(tool, args.argv[0], unlock.kms.config_path);
	if (collect(&s, args.argv[0], &unlock, journal, &err)) {
		if (err.err == EIDRM && s.mount.fd >= 0) { /* it was shredded; the mount is there still */
			cmek_tool_say(tool, "mounted on:  %s", text_of(s.mount.status, "mount_point"));
			cmek_ctl_mount_print(tool, s.mount.status);
		}
		code = cmek_tool_fail(tool, &err);
	} else {
		print_head(&s);
		ask_all(&s, &unlock.kms);
		ask_registry(&s);
		print_keys(&s);
		json = status_json(&s);
		cmek_tool_json(tool, &json);
		code = cmek_tool_done(tool);
	}
	for (i = 0; s.slots && i < s.hdr->n_slots; i++)
		cmek_kms_info_done(&s.slots[i].info);
	free(s.slots);
	cmek_registry_list_free(s.volumes, s.n_volumes);
	cmek_volhdr_store_close(s.store);
	cmek_ctl_mount_done(&s.mount);
	cmek_ctl_unlock_done(&unlock);
	free(s.mount_point);
	free(s.path);
	return code;
}
