/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_AUDIT_H
#define CMEK_VOLUME_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/text.h"
#include "kms/kms.h"

/*
 * The audit log of this host: who did what to which volume and key, and how it ended. One event a line, JSON; each line
 * holds the SHA-256 of the line before it, so that what is changed or taken out later shows (doc/operations.md, "The audit
 * log", is the description for users). Never names or contents of files, never key bytes.
 *
 * The file: $CMEKFS_AUDIT_LOG, else "file" of [audit] in the configuration, else /var/log/cmekfs/audit.log for root and
 * ${XDG_STATE_HOME:-~/.local/state}/cmekfs/audit.log for others. Beside it FILE.chain: who holds its lock may write, and in
 * it stands the last line's number and hash, so that the chain goes on in a new file after FILE was rotated away. The file
 * is opened for each event. Any number of processes and threads.
 */
struct cmek_audit_event {
	const char *name;       /* "slot.add": doc/operations.md lists them */
	const char *program;    /* "cmekctl slot add" */
	const uint8_t *volume;  /* its UUID; NULL = not known (yet) */
	const char *label;      /* this and the rest: NULL or "" = there is none, or it is not known */
	const char *store;
	const char *key;        /* in full */
	const char *version;    /* of the key */
	const char *purpose;    /* of the slot */
	int slot;               /* -1 = none */
	int dek;                /* a data key's number, 0 = none */
	const char *file;       /* a header backup's */
	const char *mount_point;
	const char *was, *state; /* of a key */
	const char *reason;     /* for people */
	const char *stored;     /* below the store, as it is there: encrypted */
	uint64_t inode;         /* of that; 0 = none */
	const uint64_t *offset; /* in the plain file */
	uint64_t left_out;      /* events like this one that were not written */
	const char *provider;   /* of a call of a key service; this and: */
	const char *operation;
	const char *request_id; /* the service's name for its last answer */
	const struct cmek_kms_receipt *requests; /* all answers, the last one among them */
	size_t n_requests;
	uint64_t n_requests_left_out; /* before those */
	const uint64_t *took_ms;
	int64_t pid;            /* 0 = this process */
	bool at_once;           /* does not wait for others who write */
	const struct cmek_error *failure; /* NULL or not set: it was done. Its kind is told, not its text */
};
/* An event about nothing. */
#define CMEK_AUDIT_EVENT_INIT { .slot = -1 }
/* That of a call of a key service, "kms.call", to be added to. It borrows all from call. */
void cmek_audit_kms_call(const struct cmek_kms_call *call, struct cmek_audit_event *ret_event);

/*
 * Adds the event, durably, and tells syslog (LOG_AUTHPRIV) the same line; the system log gets it also when the file can't
 * be written. config_path: as for cmek_conf_load(). Waits 10 s at most for others who write (kind busy). What was done goes
 * on whatever this returns.
 */
int cmek_audit_write(const char *config_path, const struct cmek_audit_event *event, struct cmek_error *err);

/* Where the log is: malloced. */
int cmek_audit_path(const char *config_path, char **ret_path, struct cmek_error *err);

#define CMEK_AUDIT_HASH_TEXT 65
/* How far a chain was followed. Zeroed at first; the same struct goes from a rotated file on to its successor. */
struct cmek_audit_chain {
	uint64_t events;    /* seen so far */
	uint64_t first, last; /* numbers of the first and the last event; 0 = none was seen */
	char hash[CMEK_AUDIT_HASH_TEXT]; /* of the last line, "" when none was seen */
};
/*
 * Follows the chain through one file. -EBADMSG, kind tampered, with "PATH:LINE: what is wrong" for the first line that does
 * not fit, and when FILE.chain knows of events behind the end of the file. A first file may begin anywhere in the chain.
 */
int cmek_audit_verify(const char *path, struct cmek_audit_chain *chain, struct cmek_error *err);

#endif
