/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl slot: adds, removes and lists a volume's key slots, mounted or not. How a header is changed, the library
 * knows; this file decides what may be changed and says what it means.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "kms/recovery.h"
#include "kms/recovery_code.h"
#include "tools/ctl.h"

enum { OPT_PURPOSE = 256, OPT_REKEY, OPT_RECOVERY, OPT_CODE_FILE };

#define RECOVERY_NAME "paper" /* where nobody gives another */

/* ---- list ---- */

static int run_list(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Lists the key slots of a volume. Needs no key, and so authenticates nothing.",
		.min_operands = 1, .max_operands = 1,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr_store *store = NULL;
	const struct cmek_volhdr *hdr;
	char rewrapped[CMEK_TIME_TEXT], *path = NULL;
	struct cmek_tool_args args;
	json_t *slots, *json;
	int fd = -1, ret, code;
	size_t i;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args))
		; /* there are only common options here */
	ret = cmek_ctl_volume_open(args.argv[0], NULL, &fd, &path, &err);
	if (!ret)
		ret = cmek_volhdr_store_open(fd, CMEK_STORE_PEEK, NULL, &store, &err);
	if (!ret) {
		hdr = cmek_volhdr_store_header(store);
		slots = json_array();
		cmek_tool_say(tool, "%-4s  %-8s  %-8s  %-20s  %s", "SLOT", "PURPOSE", "VERSION", "WRAPPED", "KEY");
		for (i = 0; i < hdr->n_slots; i++) {
			cmek_time_encode(hdr->slots[i].rewrapped, rewrapped);
			cmek_tool_say(tool, "%-4u  %-8s  %-8s  %-20s  %s", hdr->slots[i].id, hdr->slots[i].purpose,
				      hdr->slots[i].version[0] ? hdr->slots[i].version : "-", rewrapped,
				      hdr->slots[i].resolved);
			json_array_append_new(slots, cmek_ctl_slot_json(&hdr->slots[i]));
		}
		json = json_pack("{s:o}", "slots", slots);
		cmek_tool_json(tool, &json);
	}
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_volhdr_store_close(store);
	if (fd >= 0)
		close(fd);
	free(path);
	return code;
}

/* ---- add ---- */

struct add {
	struct cmek_tool *tool;
	const char *volume, *uri; /* uri: with recovery the name of the code, NULL = none was given */
	const char *purpose;
	bool recovery;
	const char *code_file; /* where the code goes, NULL = standard output */
	int code_fd;           /* it, made and empty, -1 = none */
	struct cmek_secret *code;
	char *code_uri;
	struct cmek_ctl_new_key key;
	struct cmek_ctl_unlock unlock;
};

static void parse_add(struct add *add, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_PURPOSE, "purpose", "PURPOSE", "data (the default), backup or recovery" },
		{ OPT_RECOVERY, "recovery", NULL, "for a recovery code, which is made and shown once; NAME is what to call it" },
		{ OPT_CODE_FILE, "code-file", "FILE", "write the recovery code to a new FILE in place of showing it" },
		CMEK_CTL_NEW_KEY_OPTIONS,
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME KEY\n       cmekctl slot add --recovery [options] VOLUME [NAME]",
		.about = "Adds a key slot: from then on KEY opens the volume, too. The key proves itself first: it wraps the\n"
			 "volume's key and unwraps it again.",
		.options = options, .min_operands = 1, .max_operands = 2,
	};
	struct cmek_tool_args args;
	int id;

	cmek_tool_args_init(&args, add->tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (cmek_ctl_unlock_option(&add->unlock, &args, id) || cmek_ctl_new_key_option(&add->key, &args, id))
			continue;
		if (id == OPT_PURPOSE && !cmek_slot_purpose_ok(args.value))
			cmek_tool_usage(add->tool, "--purpose takes data, backup or recovery, not '%s'", args.value);
		if (id == OPT_PURPOSE)
			add->purpose = args.value;
		else if (id == OPT_CODE_FILE)
			add->code_file = args.value;
		else
			add->recovery = true;
	}
	add->volume = args.argv[0];
	add->uri = args.argc > 1 ? args.argv[1] : NULL;
	if (!add->uri && !add->recovery)
		cmek_tool_usage(add->tool, "which key? give VOLUME and KEY, or --recovery");
	if (add->code_file && !add->recovery)
		cmek_tool_usage(add->tool, "--code-file goes with --recovery");
	if (add->recovery && add->tool->quiet && !add->code_file)
		cmek_tool_usage(add->tool, "--quiet would not show the recovery code: give --code-file");
	if (!add->purpose)
		add->purpose = add->recovery ? "recovery" : "data";
}

/*
 * The code that the slot will be for. Its file is made now: a slot whose code nobody has is of no use.
 */
static int make_code(struct add *add, struct cmek_error *err)
{
	int ret = cmek_recovery_code_new(&add->code, err);

	if (!ret)
		ret = cmek_recovery_uri(add->uri ? add->uri : RECOVERY_NAME, add->code, &add->code_uri, err);
	if (ret)
		return ret;
	add->uri = add->code_uri;
	add->key.recovery_code = add->code;
	if (!add->code_file)
		return 0;
	add->code_fd = open(add->code_file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (add->code_fd < 0 && errno == EEXIST)
		return cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "%s exists already", add->code_file);
	if (add->code_fd < 0)
		return cmek_error_sys(err, errno, "%s", add->code_file);
	ret = cmek_write_full(add->code_fd, cmek_secret_bytes(add->code, CMEK_KEY_TEXT), cmek_secret_len(add->code));
	if (!ret)
		ret = cmek_write_full(add->code_fd, "\n", 1);
	if (!ret && fsync(add->code_fd))
		ret = -errno;
	return ret ? cmek_error_sys(err, -ret, "%s", add->code_file) : 0;
}

/* Shown when the slot is there: one that was shown before could be of none. */
static void show_code(const struct add *add, unsigned id, json_t *json)
{
	const char *code = (const char *)cmek_secret_bytes(add->code, CMEK_KEY_TEXT);

	if (add->code_file) {
		cmek_tool_say(add->tool, "Its code is in %s. Keep that away from this machine.", add->code_file);
	} else {
		cmek_tool_say(add->tool, "Write this down, and keep it away from this machine; it is not shown again:\n\n  %s\n", code);
		json_object_set_new(json, "recovery_code", json_string(code));
	}
	cmek_tool_say(add->tool, "Whoever has it, and the store or a backup of its header, can read the volume:\n"
				 "  cmekfs -o slot=%u STORE MOUNTPOINT", id);
}

static void add_done(struct add *add, bool failed)
{
	if (add->code_fd >= 0) {
		close(add->code_fd);
		if (failed)
			(void)unlink(add->code_file); /* it opens nothing */
	}
	cmek_secret_free(add->code);
	free(add->code_uri);
	cmek_ctl_unlock_done(&add->unlock);
}

int cmek_ctl_free_slot(const struct cmek_volhdr *hdr, unsigned *ret_id, struct cmek_error *err)
{
	unsigned id;

	for (id = 0; id < CMEK_SLOTS_MAX; id++) {
		if (!cmek_volhdr_slot(hdr, id)) {
			*ret_id = id;
			return 0;
		}
	}
	return cmek_error_set(err, CMEK_E_LIMIT, ENOSPC, "the volume has %d key slots, which is all that fit: remove one",
			      CMEK_SLOTS_MAX);
}

/* Two slots of one key and purpose would fall together. */
static int refuse_twin(const struct cmek_volhdr *hdr, const struct cmek_slot *slot, struct cmek_error *err)
{
	size_t i;

	for (i = 0; i < hdr->n_slots; i++)
		if (!strcmp(hdr->slots[i].resolved, slot->resolved) && !strcmp(hdr->slots[i].purpose, slot->purpose))
			return cmek_error_set(err, CMEK_E_EXISTS, EEXIST,
					      "slot %u is for %s already; 'cmekctl rewrap' wraps under its newest version",
					      hdr->slots[i].id, slot->resolved);
	return 0;
}

/* A slot for the key, proved; its place in the new header. */
static int add_slot(const struct add *add, struct cmek_change *change, unsigned *ret_id, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_slot slot = { 0 }, *place = NULL;
	unsigned id = 0;
	int ret;

	ret = cmek_ctl_free_slot(hdr, &id, err);
	if (!ret)
		ret = cmek_ctl_new_key_wrap(&add->key, &add->unlock, add->uri, change, id, add->purpose, &slot, err);
	if (!ret)
		ret = refuse_twin(hdr, &slot, err);
	if (!ret) {
		place = cmek_volhdr_grow_slots(hdr);
		ret = place ? 0 : cmek_error_sys(err, ENOMEM, "key slot %u", id);
	}
	if (!ret) {
		*place = slot;
		*ret_id = id;
	} else {
		cmek_slot_done(&slot);
	}
	return ret;
}

static json_t *changed_json(const struct cmek_volhdr *hdr, const char *member, json_t *value)
{
	char uuid[CMEK_UUID_TEXT];

	cmek_uuid_encode(hdr->uuid, uuid);
	return json_pack("{s:s, s:I, s:o}", "uuid", uuid, "sequence", (json_int_t)hdr->sequence, member, value);
}

static int run_add(struct cmek_tool *tool, int argc, char **argv)
{
	struct add add = { .tool = tool, .code_fd = -1 };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_change *change = NULL;
	const struct cmek_slot *slot;
	char text[CMEK_CTL_KEY_TEXT], *path = NULL;
	unsigned id = 0;
	json_t *json;
	int ret, code;

	cmek_ctl_unlock_init(&add.unlock, tool);
	parse_add(&add, argc, argv);
	ret = cmek_ctl_change_begin(tool, add.volume, CMEK_STORE_CHANGE, &add.unlock, &path, &change, &err);
	if (!ret && add.recovery)
		ret = make_code(&add, &err);
	if (!ret)
		ret = add_slot(&add, change, &id, &err);
	if (!ret)
		ret = cmek_ctl_commit(tool, &add.unlock, path, change, &err);
	if (!ret) {
		slot = cmek_volhdr_slot(cmek_change_old(change), id);
		cmek_tool_say(tool, "added slot %u: %s (%s)", id,
			      cmek_ctl_key_text(slot->resolved, slot->version, text), slot->purpose);
		json = changed_json(cmek_change_old(change), "added", cmek_ctl_slot_json(slot));
		if (add.recovery)
			show_code(&add, id, json);
		cmek_tool_json(tool, &json);
	}
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_change_end(change);
	add_done(&add, ret != 0);
	free(path);
	return code;
}

/* ---- remove ---- */

int cmek_ctl_prove_rest(const struct cmek_change *change, unsigned removed, const struct cmek_kms_options *kms,
			struct cmek_error *err)
{
	const struct cmek_volhdr *hdr = cmek_change_old(change);
	char story[CMEK_ERROR_TEXT_MAX / 2] = "";
	struct cmek_error failure;
	size_t i, used;

	for (i = 0; i < hdr->n_slots; i++) {
		if (hdr->slots[i].id == removed)
			continue;
		failure = (struct cmek_error)CMEK_ERROR_INIT;
		if (!cmek_keyslot_prove(hdr->uuid, &hdr->slots[i], kms, cmek_change_kek(change), &failure))
			return 0;
		used = strlen(story);
		snprintf(story + used, sizeof(story) - used, "; slot %u (%.100s): %.200s", hdr->slots[i].id,
			 hdr->slots[i].resolved, failure.text);
	}
	return cmek_error_set(err, CMEK_E_USAGE, EKEYREJECTED,
			      "slot %u is the last one that works, without it the volume could not be opened again%s",
			      removed, story);
}

static void tell_removed(struct cmek_tool *tool, const struct cmek_volhdr *hdr, unsigned id, bool rekeyed,
			 const struct cmek_ctl_needs *needs)
{
	json_t *path, *json;
	size_t i;

	cmek_tool_say(tool, "removed slot %u: %s", id, needs->who);
	if (needs->by_header)
		cmek_tool_say(tool, "Another slot of the volume needs it still.");
	else if (!json_array_size(needs->backups))
		cmek_tool_say(tool, "The volume no longer needs it.");
	json_array_foreach(needs->backups, i, path)
		cmek_tool_say(tool, "A backup of the header needs it still: %s", json_string_value(path));
	if (rekeyed)
		cmek_tool_say(tool,
			      "The volume has a new key encryption key. Who has an older header and that key can still read\n"
			      "what was written so far: 'cmekctl rotate' protects what is written from then on.");
	else
		cmek_tool_say(tool,
			      "Who has an older header and that key can still open the volume; only a new key encryption\n"
			      "key shuts them out of what is written from then on: 'cmekctl rotate'.");
	json = json_pack("{s:i, s:s, s:b, s:O}", "slot", (int)id, "key", needs->who, "needed_by_header",
			 needs->by_header, "needed_by_backups", needs->backups);
	json = changed_json(hdr, "removed", json);
	json_object_set_new(json, "rekeyed", json_boolean(rekeyed));
	cmek_tool_json(tool, &json);
}

static int remove_slot(const struct cmek_tool *tool, const struct cmek_ctl_unlock *unlock, const char *path,
		       struct cmek_change *change, unsigned id, bool rekey, struct cmek_error *err)
{
	struct cmek_slot *slot = cmek_volhdr_slot(cmek_change_new(change), id);
	int ret;

	if (!slot)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENXIO, "the volume has no key slot %u", id);
	ret = cmek_ctl_prove_rest(change, id, &unlock->kms, err);
	if (ret)
		return ret;
	cmek_volhdr_drop_slot(cmek_change_new(change), slot);
	if (rekey)
		ret = cmek_change_rekey(change, err);
	return ret ? ret : cmek_ctl_commit(tool, unlock, path, change, err);
}

static int run_remove(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_REKEY, "rekey", NULL, "give the volume a new key encryption key, wrapped by the slots that stay" },
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME SLOT",
		.about = "Removes a key slot: its key no longer opens the volume. The last one that works stays.",
		.options = options, .min_operands = 2, .max_operands = 2,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_change *change = NULL;
	struct cmek_ctl_unlock unlock;
	char *path = NULL, *resolved = NULL, *version = NULL;
	const struct cmek_slot *slot;
	struct cmek_tool_args args;
	struct cmek_ctl_needs needs = { 0 };
	bool rekey = false;
	uint64_t number;
	unsigned id;
	int option, ret, code;

	cmek_ctl_unlock_init(&unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((option = cmek_tool_next(&args)))
		if (!cmek_ctl_unlock_option(&unlock, &args, option))
			rekey = true;
	if (cmek_parse_u64(args.argv[1], CMEK_SLOTS_MAX - 1, &number))
		cmek_tool_usage(tool, "'%s' is not the number of a key slot", args.argv[1]);
	id = (unsigned)number;
	ret = cmek_ctl_change_begin(tool, args.argv[0], CMEK_STORE_CHANGE, &unlock, &path, &change, &err);
	slot = ret ? NULL : cmek_volhdr_slot(cmek_change_old(change), id);
	if (slot) {
		resolved = strdup(slot->resolved);
		version = strdup(slot->version);
		ret = resolved && version ? 0 : cmek_error_sys(&err, ENOMEM, "key slot %u", id);
	}
	if (!ret)
		ret = remove_slot(tool, &unlock, path, change, id, rekey, &err);
	if (!ret)
		ret = cmek_ctl_find_needs(cmek_change_old(change), resolved, version, &needs, &err);
	if (!ret)
		tell_removed(tool, cmek_change_old(change), id, rekey, &needs);
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	json_decref(needs.backups);
	cmek_change_end(change);
	cmek_ctl_unlock_done(&unlock);
	free(resolved);
	free(version);
	free(path);
	return code;
}

int cmek_ctl_slot(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_ctl_verb verbs[] = {
		{ "add", "let another key open the volume", run_add },
		{ "apply", "make the slots those of a manifest", cmek_ctl_slot_apply },
		{ "list", "list the key slots", run_list },
		{ "remove", "take a key slot away", run_remove },
		{ "test", "try what a volume will want of a key", cmek_ctl_slot_test },
		{ NULL, NULL, NULL },
	};

	return cmek_ctl_dispatch(tool, verbs, "A volume's key slots. VOLUME is a store, a mount point or a name in the configuration.", argc, argv);
}
