/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_CTL_H
#define CMEK_TOOLS_CTL_H

#include "tools/tool.h"

/*
 * A verb of cmekctl, or a verb within a group ("key" "create"). run() gets the verb as argv[0] and a tool whose program
 * name already says the whole verb; it returns the exit code.
 */
struct cmek_ctl_verb {
	const char *name;
	const char *summary; /* one line for the help */
	int (*run)(struct cmek_tool *tool, int argc, char **argv);
};

/*
 * Runs the verb that the first operand names, from a table that ends with a zeroed one. about: for --help. Common
 * options may stand before the verb as well as behind it.
 */
int cmek_ctl_dispatch(struct cmek_tool *tool, const struct cmek_ctl_verb *verbs, const char *about, int argc,
		      char **argv);

/* The groups, one file each. */
int cmek_ctl_key(struct cmek_tool *tool, int argc, char **argv);

#endif
