/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_FSCK_H
#define CMEK_TOOLS_FSCK_H

#include <stdint.h>

#include "fs/volume/keyring.h"
#include "fs/volume/volconf.h"
#include "fs/volume/volhdr_store.h"
#include "kms/kms.h"
#include "tools/fsck_problem.h"

/* One check of one volume: what its passes share. The driver (fsck.c) owns all of it. */
struct cmek_fsck {
	struct cmek_tool *tool;
	struct cmek_fsck_findings findings;
	struct cmek_kms_options kms;
	bool no_key, data;
	unsigned jobs; /* threads of the data pass */

	struct cmek_volconf conf; /* of the volume, in the configuration */
	char *path; /* the store's, absolute */
	int store_fd, meta_fd;
	struct cmek_volhdr_store *store;
	const struct cmek_volhdr *hdr; /* the store's */
	struct cmek_keyring *ring;     /* NULL: without a key */
	bool stale; /* a journal is not replayed: what files contain can't be judged */

	uint64_t files, dirs, symlinks, others, blocks;
	uint64_t stored_bytes; /* of all regular files */
};

/*
 * Passes. Each returns 0, or -errno with *err when it could not be carried out at all (fsck's exit status 8); what is
 * wrong with the volume goes to the findings.
 */
/* The header's copies, the unlock, what lies in .cmekfs, and the journals (fsck_hdr.c). */
int cmek_fsck_header(struct cmek_fsck *fsck, struct cmek_error *err);
int cmek_fsck_journal(struct cmek_fsck *fsck, struct cmek_error *err);
/* Names, directories, symbolic links, and each file's first page and size (fsck_tree.c). */
int cmek_fsck_tree(struct cmek_fsck *fsck, struct cmek_error *err);
/* Every page and block of every file (fsck_data.c). */
int cmek_fsck_data(struct cmek_fsck *fsck, struct cmek_error *err);

/* A regular file that was found. All borrowed. */
struct cmek_fsck_file {
	int dir_fd;
	const char *name; /* in dir_fd */
	const char *stored, *plain; /* paths; plain NULL = unknown */
	uint64_t size, ino;
	unsigned links;
};
/*
 * Calls visit() for every regular file of the tree, silently, for a second walk after cmek_fsck_tree(). Its failure ends
 * the walk.
 */
int cmek_fsck_each_file(struct cmek_fsck *fsck, int (*visit)(void *arg, const struct cmek_fsck_file *file), void *arg,
			struct cmek_error *err);

/* The first page and the size of a file, cut if that is safe (fsck_data.c). True when the file is to be quarantined. */
bool cmek_fsck_first_page(struct cmek_fsck *fsck, const struct cmek_fsck_file *file);

/* Moves an entry to .cmekfs/lost, under a name that is told by detail of the finding. 0 or -errno. */
#define CMEK_FSCK_LOST_NAME 32
int cmek_fsck_quarantine(struct cmek_fsck *fsck, int dir_fd, const char *name, char ret_name[CMEK_FSCK_LOST_NAME]);

#endif
