/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_AUDITOR_H
#define CMEK_MOUNT_AUDITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/mount/call_note.h"
#include "fs/mount/opts.h"
#include "fs/volume/slot.h"
#include "fs/volume/volhdr.h"

/*
 * The auditor: a process of the mount that writes its events to the audit log (fs/volume/audit.h), since the storage daemon
 * may open no files outside of the store, and the supervisor shall wait for nobody. The others tell it over a socket pair
 * (cmek_message_pair()) and never wait for it.
 */
enum cmek_mount_event_type {
	CMEK_EVENT_MOUNT = 1,
	CMEK_EVENT_UNMOUNT,
	CMEK_EVENT_LOCKED,
	CMEK_EVENT_UNLOCKED,
	CMEK_EVENT_READ_ONLY,  /* by the key watch, and back: */
	CMEK_EVENT_READ_WRITE,
	CMEK_EVENT_WATCH,      /* the state of the volume's keys: was, state */
	CMEK_EVENT_KEY_STATE,  /* of one slot's key, at such a change: slot, key, state */
	CMEK_EVENT_KEY_VERSION, /* a key has a newer version than its slot */
	CMEK_EVENT_SLOT_REWRAP, /* and the slot is (or could not be) wrapped under it */
	CMEK_EVENT_DEK_RETIRE, /* a data key (dek); reason: what was proved */
	CMEK_EVENT_DEK_DESTROY,
	CMEK_EVENT_VERSION_STATE, /* the version that a slot needs is no longer enabled */
	CMEK_EVENT_KMS_CALL,    /* of the agent: slot, key, call */
	CMEK_EVENT_UNAUTHENTIC, /* stored bytes that fail authentication */
	CMEK_EVENT_TYPES,
};
/* "volume.mount"; doc/operations.md lists them. */
const char *cmek_mount_event_name(enum cmek_mount_event_type type);

/* What is not known is zero or "", but for slot. Never a plain name. */
struct cmek_mount_event {
	uint32_t type;
	uint32_t failure;    /* enum cmek_kind; CMEK_E_NONE: it was done */
	uint8_t volume[16];
	char label[CMEK_LABEL_MAX + 1];
	int32_t slot;        /* -1 = none */
	int32_t dek;         /* 0 = none */
	char key[CMEK_SLOT_TEXT_MAX + 1];
	char version[512];   /* of the key */
	char was[32], state[32];
	char reason[512];
	char stored[1024];   /* path below the store, as it is there */
	uint64_t inode;      /* of the store's file */
	uint64_t offset;     /* in the plain file; UINT64_MAX = it is not about data */
	uint64_t left_out;   /* events like this one that were not told since the last */
	struct cmek_call_note call; /* of KMS_CALL */
};
#define CMEK_MOUNT_EVENT_INIT { .slot = -1, .offset = UINT64_MAX }

/* Tells; what finds no room is lost, with a line in the log. sock -1: there is no auditor. Any thread. */
void cmek_auditor_tell(int sock, const struct cmek_mount_event *event);

/* The log was given by a path that needs the working directory. */
bool cmek_auditor_needs_directory(void);

/*
 * Writes what it is told until all other ends are closed. An event that can't be written is a line in the log; messages
 * that are none are passed over: who sends them parses what others wrote.
 */
void cmek_auditor_serve(int sock, const struct cmek_mount_opts *opts);

#endif
