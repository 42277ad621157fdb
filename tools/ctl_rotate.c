/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl rotate: a new key encryption key and a new data key for what is written from then on. A mounted volume gets them
 * at once: the header is changed here, then the mount is asked to read it. No data is rewritten.
 */
#include "config.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/ctl.h"

struct rotate {
	struct cmek_tool *tool;
	struct cmek_ctl_unlock unlock;
	struct cmek_ctl_mount mount; /* fd -1: not mounted */
	struct cmek_error mount_err; /* set: the mount did not take the keys over */
	bool locked; /* the mount takes them at its unlock */
	uint16_t old_dek, dek;
};

/* The mount reads the header again: what it was told is a failure of its own, the header has the new keys. */
static void tell_mount(struct rotate *r)
{
	json_t *result = NULL;

	if (r->mount.fd >= 0)
		(void)cmek_ctl_mount_ask(&r->mount, json_pack("{s:s}", "cmd", "reload-keys"), &result, &r->mount_err);
	r->locked = json_is_null(json_object_get(result, "active_dek"));
	json_decref(result);
}

static void tell(const struct rotate *r, const struct cmek_volhdr *hdr)
{
	const char *mount = r->mount.fd < 0 ? "none" : cmek_error_is_set(&r->mount_err) ? "not-told" : "told";
	char uuid[CMEK_UUID_TEXT];
	json_t *json;

	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_tool_say(r->tool, "volume %s has a new key encryption key, in %zu slot%s, and data key %u", uuid,
		      hdr->n_slots, hdr->n_slots > 1 ? "s" : "", r->dek);
	if (r->locked)
		cmek_tool_say(r->tool, "The mount is locked; what is written after its unlock is under it.");
	else if (r->mount.fd < 0)
		cmek_tool_say(r->tool, "What is written from the next mount on is under it.");
	else if (!cmek_error_is_set(&r->mount_err))
		cmek_tool_say(r->tool, "What is written from now on is under it; the mount has it already.");
	cmek_tool_say(r->tool, "Data key %u is kept for what was written before.", r->old_dek);
	cmek_tool_say(r->tool,
		      "Older backups of the header do not open what comes now: 'cmekctl header backup' makes a new one.");
	json = json_pack("{s:s, s:I, s:i, s:i, s:i, s:s}", "uuid", uuid, "sequence", (json_int_t)hdr->sequence, "slots",
			 (int)hdr->n_slots, "active_dek", (int)r->dek, "previous_dek", (int)r->old_dek, "mount", mount);
	cmek_tool_json(r->tool, &json);
}

static int run(struct rotate *r, const char *volume, struct cmek_error *err)
{
	struct cmek_change *change = NULL;
	char *path = NULL;
	int ret;

	/* Mounted, the mount is told; else mounts are kept out meanwhile. */
	if (cmek_ctl_mount_find(volume, r->unlock.kms.config_path, &r->mount, NULL))
		r->mount.fd = -1;
	ret = cmek_ctl_change_begin(r->tool, volume, r->mount.fd >= 0 ? CMEK_STORE_CHANGE : CMEK_STORE_WRITE, &r->unlock,
				    &path, &change, err);
	if (!ret) {
		r->old_dek = cmek_change_old(change)->dek_active;
		ret = cmek_change_rotate(change, &r->dek, err);
	}
	if (!ret)
		ret = cmek_ctl_commit(r->tool, &r->unlock, path, change, err);
	if (!ret) {
		tell_mount(r);
		tell(r, cmek_change_old(change));
	}
	if (!ret && cmek_error_is_set(&r->mount_err))
		ret = cmek_error_set(err, r->mount_err.kind, r->mount_err.err,
				     "the header has the new keys, but the mount goes on with the old ones until it is mounted "
				     "again: %s",
				     r->mount_err.text);
	cmek_change_end(change);
	free(path);
	return ret;
}

int cmek_ctl_rotate(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = { CMEK_CTL_UNLOCK_OPTIONS, { 0, NULL, NULL, NULL } };
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Gives the volume a new key encryption key, which all its slots must be able to wrap now, and a new\n"
			 "data key for what is written from then on, mounted or not.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct rotate r = { .tool = tool, .mount.fd = -1 };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_tool_args args;
	int id, code;

	cmek_ctl_unlock_init(&r.unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)))
		(void)cmek_ctl_unlock_option(&r.unlock, &args, id); /* there are no others */
	code = run(&r, args.argv[0], &err) ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_ctl_mount_done(&r.mount);
	cmek_ctl_unlock_done(&r.unlock);
	return code;
}
