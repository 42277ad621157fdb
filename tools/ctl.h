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
int cmek_ctl_sync(struct cmek_tool *tool, int argc, char **argv);

/* What verbs on volumes share (ctl_volume.c). */

/*
 * Opens what a user calls a volume, its store or its mount point: *ret_fd is the store's directory, *ret_path its
 * absolute path (malloced). Kind not-found for neither.
 */
int cmek_ctl_volume_open(const char *volume, int *ret_fd, char **ret_path, struct cmek_error *err);
/* Where the store is mounted in this mount namespace: malloced, NULL if nowhere (or there is no memory). */
char *cmek_ctl_mount_point(const char *store);
/* The control socket of a mount (ctl_mount.c, doc/control.md), and what the mount said of itself at first. */
struct cmek_ctl_mount {
	int fd;
	json_t *status;
};
/*
 * The mount that a user calls by its mount point, its store, its UUID or its label. Kinds: not-found (it is not mounted by
 * this user), usage (more than one fits), and those of cmek_ctlsock_ask() when a mount that may be the one does not answer.
 */
int cmek_ctl_mount_find(const char *volume, struct cmek_ctl_mount *ret_mount, struct cmek_error *err);
/* Asks, and waits for as long as it takes. request is taken over (NULL: no memory for it). */
int cmek_ctl_mount_ask(struct cmek_ctl_mount *mount, json_t *request, json_t **ret_result, struct cmek_error *err);
/* Hangs up; fd -1 is fine. */
void cmek_ctl_mount_done(struct cmek_ctl_mount *mount);

/* "2026-11-22T10:11:12Z" as JSON. */
json_t *cmek_ctl_time_json(int64_t unix_seconds);

#endif
