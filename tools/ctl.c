/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl: finds the verb and calls it. It knows the names of the verbs and nothing of what they do; each group of
 * verbs is a file ctl_GROUP.c of its own.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "tools/ctl.h"

static const struct cmek_ctl_verb groups[] = {
	{ "audit", "look at the audit log", cmek_ctl_audit },
	{ "header", "show, back up and restore a volume's header", cmek_ctl_header },
	{ "key", "make, describe, rotate, disable and delete keys in their KMS", cmek_ctl_key },
	{ "lock", "take the keys of a mounted volume out of memory", cmek_ctl_lock },
	{ "metrics", "print or serve what mounted volumes count, for Prometheus", cmek_ctl_metrics },
	{ "reencrypt", "move what a mounted volume has to its newest data key", cmek_ctl_reencrypt },
	{ "rewrap", "wrap a volume's key under the newest version of its keys", cmek_ctl_rewrap },
	{ "rotate", "give a volume a new key encryption key and a new data key", cmek_ctl_rotate },
	{ "shred", "destroy a volume, a key slot or retired data keys for good", cmek_ctl_shred },
	{ "slot", "add, remove and list a volume's key slots", cmek_ctl_slot },
	{ "status", "show a volume's state and the state of its keys", cmek_ctl_status },
	{ "sync", "write everything of a mounted volume to its store", cmek_ctl_sync },
	{ "unlock", "have a locked volume ask for its keys again", cmek_ctl_unlock },
	{ "watch", "show or change what a mounted volume does when its keys change", cmek_ctl_policy },
	{ NULL, NULL, NULL },
};

/* The help of a dispatcher lists its verbs below the sentence about it. */
static void build_about(const struct cmek_ctl_verb *verbs, const char *about, char *buf, size_t max)
{
	size_t n = (size_t)snprintf(buf, max, "%s\n\ncommands:", about);

	for (size_t i = 0; verbs[i].name && n < max; i++)
		n += (size_t)snprintf(buf + n, max - n, "\n  %-20s %s", verbs[i].name, verbs[i].summary);
}

int cmek_ctl_dispatch(struct cmek_tool *tool, const struct cmek_ctl_verb *verbs, const char *about, int argc,
		      char **argv)
{
	char text[4096];
	struct cmek_tool_command command = { .synopsis = "COMMAND [options] ...", .about = text, .min_operands = 1,
					     .max_operands = -1, .stop_at_operand = true };
	struct cmek_tool_args args;
	size_t len;

	build_about(verbs, about, text, sizeof(text));
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args) != 0)
		; /* there are only common options here */
	for (size_t i = 0; verbs[i].name; i++) {
		if (strcmp(verbs[i].name, args.argv[0]) != 0)
			continue;
		len = strlen(tool->program);
		snprintf(tool->program + len, sizeof(tool->program) - len, " %s", verbs[i].name);
		return verbs[i].run(tool, args.argc, args.argv);
	}
	cmek_tool_usage(tool, "'%s' is not a command", args.argv[0]);
}

int main(int argc, char **argv)
{
	struct cmek_tool tool;

	cmek_tool_init(&tool, "cmekctl");
	return cmek_ctl_dispatch(&tool, groups, "Administers cmekfs volumes and their keys.", argc, argv);
}
