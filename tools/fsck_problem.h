/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_FSCK_PROBLEM_H
#define CMEK_TOOLS_FSCK_PROBLEM_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>

#include "tools/tool.h"

/*
 * What fsck.cmekfs can find: every finding is a row of one table, with its name, its sentence and what may be done about
 * it. Passes report codes, this module speaks and counts.
 */
enum cmek_fsck_code {
	/* the volume's own directory */
	CMEK_FSCK_HEADER_COPY,
	CMEK_FSCK_HEADER_OLD_COPY,
	CMEK_FSCK_META_MISSING,
	CMEK_FSCK_META_FOREIGN,
	CMEK_FSCK_JOURNAL_FULL,
	CMEK_FSCK_JOURNAL_DAMAGED,
	CMEK_FSCK_JOURNAL_LOST,
	/* the tree */
	CMEK_FSCK_FOREIGN,
	CMEK_FSCK_TYPE,
	CMEK_FSCK_DIR_NO_ID,
	CMEK_FSCK_DIR_BAD_ID,
	CMEK_FSCK_DIR_TWIN_ID,
	CMEK_FSCK_LONG_NO_LINK,
	CMEK_FSCK_LONG_BAD_LINK,
	CMEK_FSCK_LINK_ALONE,
	CMEK_FSCK_NAME_BAD,
	CMEK_FSCK_SYMLINK_BAD,
	CMEK_FSCK_PIECE_ALONE,
	CMEK_FSCK_DEK_UNKNOWN,
	CMEK_FSCK_DEK_RETIRED,
	/* files */
	CMEK_FSCK_FIRST_PAGE,
	CMEK_FSCK_SIZE_LONG,
	CMEK_FSCK_SIZE_SHORT,
	CMEK_FSCK_GROUP_BAD,
	CMEK_FSCK_BLOCK_BAD,
	CMEK_FSCK_UNREADABLE,
	CMEK_FSCK_CODE_MAX
};

enum cmek_fsck_repair {
	CMEK_FSCK_LEAVE,      /* nothing can be done here */
	CMEK_FSCK_SAFE,       /* loses nothing: -p and -y do it */
	CMEK_FSCK_QUARANTINE, /* -y moves it to .cmekfs/lost */
};

struct cmek_fsck_row {
	enum cmek_fsck_code code;
	const char *name;     /* stable, for JSON */
	const char *sentence; /* what is wrong */
	enum cmek_fsck_repair repair;
	const char *done; /* what was done about it; NULL for LEAVE */
};
const struct cmek_fsck_row *cmek_fsck_row(enum cmek_fsck_code code);

enum cmek_fsck_mode { CMEK_FSCK_NO, CMEK_FSCK_PREEN, CMEK_FSCK_YES };

/* Findings so far. Any thread may report. */
struct cmek_fsck_findings {
	const struct cmek_tool *tool;
	enum cmek_fsck_mode mode;
	pthread_mutex_t lock; /* guards all below, and the output */
	unsigned found, fixed;
	json_t *list;
	bool progress; /* a line of progress is on the terminal */
};

/* Whether a finding of this kind may be repaired in this mode. */
bool cmek_fsck_may_fix(const struct cmek_fsck_findings *findings, enum cmek_fsck_code code);
/*
 * Tells of one. stored: where it is, relative to the store; plain: the path that users know, NULL = unknown; fixed: it was
 * repaired. detail (may be NULL): what more there is to say.
 */
void cmek_fsck_tell(struct cmek_fsck_findings *findings, enum cmek_fsck_code code, const char *stored, const char *plain,
		    bool fixed, const char *detail, ...) __attribute__((format(printf, 6, 7)));
/* Exit status of fsck(8): 0 clean, 1 all was repaired, 4 something is left; and both bits. */
int cmek_fsck_status(const struct cmek_fsck_findings *findings);

#endif
