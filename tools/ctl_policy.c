/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl watch: shows and changes the policy of a mount's key watch. It must not know what the keys of a policy mean.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"

#define SETTINGS_MAX 16

/* "KEY=VALUE" of the command line as JSON, and all of them as one text, for the audit log. */
static int parse_settings(char **operands, int n, json_t *settings, char *text, size_t size, struct cmek_error *err)
{
	char *key, *value;
	size_t used = 0;
	int i, bad;

	for (i = 0; i < n; i++) {
		key = strdup(operands[i]);
		if (!key)
			return cmek_error_sys(err, ENOMEM, "%s", operands[i]);
		value = strchr(key, '=');
		if (value)
			*value++ = '\0';
		bad = value ? json_object_set_new(settings, key, json_string(value)) : -1;
		free(key);
		if (bad)
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: not KEY=VALUE, as in on_denied=lock:2h", operands[i]);
		if (used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? " " : "", operands[i]);
	}
	return 0;
}

int cmek_ctl_policy(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME [KEY=VALUE]...",
		.about = "Shows what the key watch of a mounted volume does in which state of its keys, or changes it until the unmount.",
		.min_operands = 1, .max_operands = 1 + SETTINGS_MAX,
	};
	struct cmek_ctl_mount mount = { .fd = -1 };
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *settings = json_object(), *policy = NULL, *value;
	struct cmek_tool_args args;
	char text[1024] = "";
	const char *key;
	int rc;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args) != 0)
		; /* there are only common options here */
	rc = parse_settings(args.argv + 1, args.argc - 1, settings, text, sizeof(text), &err);
	if (rc == 0)
		rc = cmek_ctl_mount_find(args.argv[0], NULL, &mount, &err);
	if (rc == 0)
		rc = cmek_ctl_mount_ask(&mount, json_pack("{s:s, s:O}", "cmd", "watch", "settings", settings), &policy, &err);
	if (mount.status && args.argc > 1)
		cmek_ctl_mount_audit(tool, "watch.set", mount.status, args.argv[0], text, &err);
	cmek_ctl_mount_done(&mount);
	json_decref(settings);
	if (rc != 0)
		return cmek_tool_fail(tool, &err);
	json_object_foreach(policy, key, value)
		cmek_tool_say(tool, "%-20s %s", key, json_string_value(value) ? json_string_value(value) : "");
	cmek_tool_json(tool, &policy);
	return cmek_tool_done(tool);
}
