/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_CTL_SHRED_H
#define CMEK_TOOLS_CTL_SHRED_H

#include <jansson.h>

#include "fs/volume/registry.h"
#include "fs/volume/shred.h"
#include "tools/ctl.h"

/*
 * The inside of cmekctl shred, shared by its own files: the deeds (ctl_shred.c, ctl_shred_kms.c), and the words
 * (ctl_shred_report.c).
 */
enum cmek_shred_mode { CMEK_SHRED_NONE, CMEK_SHRED_VOLUME, CMEK_SHRED_SLOT, CMEK_SHRED_RETIRED_DEKS };

/* One key slot that is to go: what is known of its key, and what became of it. */
struct cmek_shred_victim {
	struct cmek_slot slot; /* a copy */
	struct cmek_ctl_use *others;
	size_t n_others;       /* other volumes' slots and backups of this key, of this host's */
	struct cmek_error kms_err;
	bool asked, done;      /* the KMS was asked for deletion, and said yes */
	json_t *requests;      /* what it answered to that, request by request */
	const char *state;     /* of the key, as the KMS says it afterwards; NULL = it does not */
	int64_t date;          /* of the deletion; 0 = at once */
	struct cmek_error opens; /* what the slot said afterwards; not set: it still opens */
};

struct cmek_shred_run {
	struct cmek_tool *tool;
	const char *operand;
	enum cmek_shred_mode mode;
	unsigned slot;
	bool kms, force, shared_keys, destroy;
	unsigned days;
	const char *yes; /* the label that was typed as an option */
	const char *certificate, *sign_key;
	struct cmek_ctl_unlock unlock;

	int store_fd;
	char *path;
	uint8_t uuid[16];
	char uuid_text[CMEK_UUID_TEXT];
	char label[CMEK_LABEL_MAX + 1];
	int64_t created, when;
	uint64_t sequence;
	struct cmek_shred_victim victims[CMEK_SLOTS_MAX];
	size_t n_victims;
	json_t *staying; /* slots that still open the volume afterwards */
	json_t *deks;    /* ids that are destroyed */
	struct cmek_registered *volumes;
	size_t n_volumes;
	const struct cmek_registered *here;
	struct cmek_shred_count count;
	bool in_use;    /* the volume is mounted, or read by a program */
	json_t *mounts; /* where, of those that can be told */
	bool executed;
	struct cmek_error verified; /* not set: proved that nothing is left */
};

/* ctl_shred.c: an event of the audit log. slot: what it is about, NULL = the volume. */
void cmek_ctl_shred_audit(const struct cmek_shred_run *s, const char *name, const struct cmek_slot *slot,
			  const struct cmek_error *failure);
/*
 * ctl_shred_kms.c: deletion of the victims' keys in the KMS where that was asked for, then what the slots' blobs say: a copy of
 * them could be anywhere. What came of it is noted there.
 */
void cmek_ctl_shred_keys(struct cmek_shred_run *s);

/* ctl_shred_report.c */

/* What people call the volume: its label, or its UUID. Borrowed. */
const char *cmek_ctl_shred_name(const struct cmek_shred_run *s);
/* What would go, and what could still open it then. */
void cmek_ctl_shred_say_plan(const struct cmek_shred_run *s);
/* What became of it. */
void cmek_ctl_shred_say_result(const struct cmek_shred_run *s);
/* The certificate, and the plan where nothing was done. NULL: no memory. */
json_t *cmek_ctl_shred_json(const struct cmek_shred_run *s);

#endif
