/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_REPLY_H
#define CMEK_MOUNT_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statvfs.h>

#include "fs/mount/fuse.h"
#include "fs/tree/tree.h"

/*
 * The only callers of fuse_reply_*(): each consumes the request. Errors go through one table, from what the modules
 * return to what a user may see (doc/operations.md). Thread-safe.
 */

/* How long the kernel may keep what it was told: nobody else changes the volume while it is mounted. */
struct cmek_reply_timeouts {
	double entry_s;
	double attr_s;
	double negative_s;
};

/* error: 0 or -errno of a module. A positive errno as a user may see it; 0 stays 0. */
int cmek_reply_user_errno(int error);
/* What is wrong, for the log; error: -errno. */
const char *cmek_reply_cause(int error);

/* What an error was met at, for the log line of EIO; offset: in the plain file, UINT64_MAX when it isn't about data. */
struct cmek_reply_site {
	const char *what; /* the request: "read" */
	uint64_t node;
	uint64_t offset;
};

/* 0 or an error; errors that a user sees as EIO are logged, a few a second; the session is told of what is unauthentic. */
void cmek_reply_status(fuse_req_t req, int error, const struct cmek_reply_site *site);
/* Entries of a directory that a listing left out because they fail authentication: a log line. */
void cmek_reply_log_bad_entries(fuse_req_t req, uint64_t node, unsigned n);
/* A store file's length was not that of its sealed size. */
void cmek_reply_log_size(fuse_req_t req, uint64_t node, bool mended);
/* The kernel gets a lookup on entry->node. Not 0 when it could not be told: the lookup is the caller's to undo. */
int cmek_reply_entry(fuse_req_t req, const struct cmek_entry *entry, const struct cmek_reply_timeouts *timeouts);
/* "There is no such name", and that may be remembered. */
void cmek_reply_no_entry(fuse_req_t req, const struct cmek_reply_timeouts *timeouts);
int cmek_reply_create(fuse_req_t req, const struct cmek_entry *entry, const struct cmek_reply_timeouts *timeouts,
		      const struct fuse_file_info *fi);
void cmek_reply_attr(fuse_req_t req, const struct stat *st, const struct cmek_reply_timeouts *timeouts);
/* Not 0 when the kernel could not be told (the opener is gone): there will be no release. */
int cmek_reply_open(fuse_req_t req, const struct fuse_file_info *fi);
void cmek_reply_data(fuse_req_t req, const void *data, size_t len);
void cmek_reply_written(fuse_req_t req, size_t len);
/* How long a value or a list is. */
void cmek_reply_length(fuse_req_t req, size_t len);
void cmek_reply_offset(fuse_req_t req, uint64_t off);
void cmek_reply_target(fuse_req_t req, const char *target);
void cmek_reply_statfs(fuse_req_t req, const struct statvfs *st);
/* No answer is due (forget). */
void cmek_reply_none(fuse_req_t req);

/* Fills libfuse's form of an entry: for directory listings with attributes. */
void cmek_reply_fill_entry(struct fuse_entry_param *ret_param, const struct cmek_entry *entry,
			   const struct cmek_reply_timeouts *timeouts);

#endif
