/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_AGENT_H
#define CMEK_MOUNT_AGENT_H

#include <stdatomic.h>

#include "base/err.h"
#include "fs/mount/call_note.h"
#include "fs/volume/keyslot.h"
#include "kms/kms.h"

/*
 * The KMS agent: a process of the mount that has the network and the credentials, and no store. The storage daemon, for
 * which it is the other way round, hands it a key slot over a socket pair (cmek_message_pair()) and gets the KEK or an
 * error with its kind and text.
 */

/*
 * Serves until the other end closes: 0, or -errno when the socket fails. answered(arg), if not NULL, is called once,
 * after the first KEK was handed over: no passphrase will be asked for any more.
 */
int cmek_agent_serve(int sock, const struct cmek_kms_options *opts, void (*answered)(void *arg), void *arg);

/* What a KMS says of a slot's key, as far as a mount is concerned. */
struct cmek_agent_key {
	enum cmek_kms_state state;
	char primary_version[512]; /* "" = unknown */
	enum cmek_kms_state version_state; /* of the version that the slot was wrapped under, as far as it is told apart */
	int64_t deletion_date;     /* Unix seconds, 0 = none */
};

/* What was asked, how often with which outcome, and how long that took in all. Zeroed at first; read while others count. */
enum { CMEK_AGENT_UNWRAP, CMEK_AGENT_DESCRIBE, CMEK_AGENT_REWRAP, CMEK_AGENT_CALLS };
struct cmek_agent_counts {
	struct {
		atomic_uint_fast64_t outcomes[CMEK_E_KIND_MAX]; /* CMEK_E_NONE: it went well */
		atomic_uint_fast64_t total_ns;
	} calls[CMEK_AGENT_CALLS];
};

const char *cmek_agent_call_name(int call); /* "unwrap", "describe", "rewrap" */

/*
 * What the agent asked a key service for the sake of a question, of which there may be several; or the question itself where
 * it did not come so far. Everything is borrowed.
 */
struct cmek_agent_call {
	int call; /* the question: CMEK_AGENT_UNWRAP, ... */
	const struct cmek_slot *slot;
	const struct cmek_call_note *note;
};

/* The asking end: an unwrapper over the socket, valid as long as link is. One thread at a time. */
struct cmek_agent_link {
	int sock;
	/*
	 * NULL: nothing but the KEK is asked for. Else (zeroed by the caller, who calls cmek_slot_done()): the slot that was
	 * unwrapped last, as cmek_keyslot_renew() makes it, if the service gave a fresher blob; wrapped == NULL if not.
	 */
	struct cmek_slot *renewed;
	struct cmek_agent_counts *counts; /* borrowed; NULL: nobody counts */
	void (*called)(void *arg, const struct cmek_agent_call *call); /* of each; NULL: nobody wants to know */
	void *arg;
	unsigned n_told; /* calls of the last question */
};
struct cmek_unwrapper cmek_agent_unwrapper(struct cmek_agent_link *link);
/*
 * A copy of the slot, wrapped under the newest version of its key, and proven to hold the same KEK; nobody but the agent sees
 * that. link->renewed is not looked at. *ret_slot is the caller's (cmek_slot_done()). Kinds as cmek_keyslot_rewrap().
 */
int cmek_agent_rewrap(struct cmek_agent_link *link, const uint8_t volume[16], const struct cmek_slot *slot,
		      struct cmek_slot *ret_slot, struct cmek_error *err);
/* The state of a slot's key. Kinds of cmek_kms_describe(). */
int cmek_agent_describe(struct cmek_agent_link *link, const uint8_t volume[16], const struct cmek_slot *slot,
			struct cmek_agent_key *ret_key, struct cmek_error *err);

#endif
