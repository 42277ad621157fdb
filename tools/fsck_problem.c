/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The table of what fsck.cmekfs can find, and the one place that speaks of findings. Finds nothing itself.
 */
#include "config.h"

#include "tools/fsck_problem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define DETAIL_MAX 1024

#define MOVED "moved to .cmekfs/lost"

/* In the order of enum cmek_fsck_code; a unit test walks it. */
static const struct cmek_fsck_row rows[] = {
	{ CMEK_FSCK_HEADER_COPY, "header-copy", "a copy of the volume header is not usable", CMEK_FSCK_SAFE,
	  "written anew from the other one" },
	{ CMEK_FSCK_HEADER_OLD_COPY, "header-old-copy", "the copies of the volume header differ", CMEK_FSCK_SAFE,
	  "made equal" },
	{ CMEK_FSCK_META_MISSING, "meta-missing", "a directory of the volume is missing", CMEK_FSCK_SAFE, "made" },
	{ CMEK_FSCK_META_FOREIGN, "meta-foreign", "this is no file of a volume", CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_JOURNAL_FULL, "journal-full", "the last mount did not end in order, its journal has to be replayed",
	  CMEK_FSCK_SAFE, "replayed" },
	{ CMEK_FSCK_JOURNAL_DAMAGED, "journal-damaged", "a journal can't be replayed as a whole", CMEK_FSCK_QUARANTINE,
	  "what was whole of it was replayed, and it is kept in .cmekfs/lost" },
	{ CMEK_FSCK_JOURNAL_LOST, "journal-lost", "a journal was put aside, with changes that could not be replayed",
	  CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_FOREIGN, "foreign", "this name was not made by a mount", CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_TYPE, "type", "this is another kind of file than its name says", CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_DIR_NO_ID, "dir-no-id", "the directory has entries and no id: their names can't be read",
	  CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_DIR_BAD_ID, "dir-bad-id", "the id of the directory makes no sense: its names can't be read",
	  CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_DIR_TWIN_ID, "dir-twin-id", "the directory has the id of another one: it is a copy of it",
	  CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_LONG_NO_LINK, "long-no-link", "the link with the long name of this entry is missing",
	  CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_LONG_BAD_LINK, "long-bad-link", "the link with the long name of this entry is not its own",
	  CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_LINK_ALONE, "link-alone", "the link with a long name has no entry", CMEK_FSCK_SAFE, "removed" },
	{ CMEK_FSCK_NAME_BAD, "name-bad", "the name does not authenticate in this directory", CMEK_FSCK_QUARANTINE,
	  MOVED },
	{ CMEK_FSCK_SYMLINK_BAD, "symlink-bad", "the symbolic link can't be read", CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_PIECE_ALONE, "piece-alone", "a piece of a long symbolic link that no link has", CMEK_FSCK_SAFE,
	  "removed" },
	{ CMEK_FSCK_DEK_UNKNOWN, "dek-unknown", "the header does not know its data key: the header is too old",
	  CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_DEK_RETIRED, "dek-retired", "its data key is retired or destroyed", CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_FIRST_PAGE, "first-page", "the first page of the file does not authenticate: nothing of it can be read",
	  CMEK_FSCK_QUARANTINE, MOVED },
	{ CMEK_FSCK_SIZE_LONG, "size-long", "the stored file is longer than its contents", CMEK_FSCK_SAFE, "cut" },
	{ CMEK_FSCK_SIZE_SHORT, "size-short", "the stored file is shorter than its contents", CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_GROUP_BAD, "group-bad", "map pages do not authenticate", CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_BLOCK_BAD, "block-bad", "blocks do not authenticate", CMEK_FSCK_LEAVE, NULL },
	{ CMEK_FSCK_UNREADABLE, "unreadable", "the store can't read it", CMEK_FSCK_LEAVE, NULL },
};

const struct cmek_fsck_row *cmek_fsck_row(enum cmek_fsck_code code)
{
	assert((unsigned)code < CMEK_FSCK_CODE_MAX && rows[code].code == code);
	return &rows[code];
}

bool cmek_fsck_may_fix(const struct cmek_fsck_findings *findings, enum cmek_fsck_code code)
{
	switch (cmek_fsck_row(code)->repair) {
	case CMEK_FSCK_SAFE:
		return findings->mode != CMEK_FSCK_NO;
	case CMEK_FSCK_QUARANTINE:
		return findings->mode == CMEK_FSCK_YES;
	default:
		return false;
	}
}

void cmek_fsck_tell(struct cmek_fsck_findings *findings, enum cmek_fsck_code code, const char *stored, const char *plain,
		    bool fixed, const char *detail, ...)
{
	const struct cmek_fsck_row *row = cmek_fsck_row(code);
	char text[DETAIL_MAX] = "";
	va_list ap;

	if (detail) {
		va_start(ap, detail);
		vsnprintf(text, sizeof(text), detail, ap);
		va_end(ap);
	}
	pthread_mutex_lock(&findings->lock);
	findings->found++;
	findings->fixed += fixed;
	if (findings->progress)
		fputs("\r\033[K", stderr);
	findings->progress = false;
	cmek_tool_say(findings->tool, "%s%s%s%s: %s%s%s%s%s", stored, plain ? " (" : "", plain ? plain : "",
		      plain ? ")" : "", row->sentence, text[0] ? ": " : "", text, fixed ? "; " : "",
		      fixed ? row->done : "");
	json_array_append_new(findings->list,
			      json_pack("{s:s, s:s, s:s?, s:s, s:s?, s:b}", "problem", row->name, "stored", stored,
					"plain", plain, "text", row->sentence, "detail", text[0] ? text : NULL, "fixed",
					fixed));
	pthread_mutex_unlock(&findings->lock);
}

int cmek_fsck_status(const struct cmek_fsck_findings *findings)
{
	return (findings->fixed ? 1 : 0) | (findings->found > findings->fixed ? 4 : 0);
}
