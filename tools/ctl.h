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
int cmek_ctl_header(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_key(struct cmek_tool *tool, int argc, char **argv);
/* Verbs of their own. */
int cmek_ctl_status(struct cmek_tool *tool, int argc, char **argv);

/* What verbs on volumes share (ctl_volume.c). */

/*
 * Opens what a user calls a volume, its store or its mount point: *ret_fd is the store's directory, *ret_path its
 * absolute path (malloced). Kind not-found for neither.
 */
int cmek_ctl_volume_open(const char *volume, int *ret_fd, char **ret_path, struct cmek_error *err);
/* Where the store is mounted in this mount namespace: malloced, NULL if nowhere (or there is no memory). */
char *cmek_ctl_mount_point(const char *store);
/* "2026-11-22T10:11:12Z" as JSON. */
json_t *cmek_ctl_time_json(int64_t unix_seconds);

#endif
