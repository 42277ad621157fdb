/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_DAEMON_IMPL_H
#define CMEK_MOUNT_DAEMON_IMPL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/content/content.h"
#include "fs/mount/agent.h"
#include "fs/mount/auditor.h"
#include "fs/mount/control.h"
#include "fs/mount/lock_state.h"
#include "fs/mount/opts.h"
#include "fs/mount/reencrypt.h"
#include "fs/mount/session.h"
#include "fs/tree/tree.h"
#include "fs/volume/unlock.h"
#include "fs/volume/volhdr_store.h"

/*
 * The inside of the storage daemon, shared by its own files only: its life (daemon.c), locking and unlocking (lock.c), and
 * its commands (verbs.c).
 */
/* Failed authentications that were met, for the thread of events.c. */
#define EVENT_NOTES_MAX 16
struct event_note {
	uint64_t node, offset; /* offset: as in struct cmek_mount_event */
	const char *what;      /* the request; a constant */
};
struct event_notes {
	pthread_t thread;
	bool started;
	/* lock: the rest. Short, and innermost */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stopping;
	struct event_note notes[EVENT_NOTES_MAX];
	unsigned n;
	int64_t minute_s; /* when this minute began */
	unsigned n_minute;
	uint64_t left_out;
};

struct daemon {
	/* constant once requests are served, but for what the lock below guards */
	const struct cmek_mount_opts *opts;
	int supervisor, agent;
	int audit; /* to who writes the audit log */
	uint8_t volume[16];
	char label[CMEK_LABEL_MAX + 1];
	int store_fd, meta_fd;
	int control_fd; /* the control socket until somebody serves it, -1: there is none */
	char store_path[PATH_MAX];
	bool read_only;
	int64_t since; /* Unix seconds */
	struct cmek_keyring *ring;
	struct cmek_tree *tree;
	struct cmek_content *content;
	struct cmek_overlay *overlay; /* the journal's changes, where a read-only mount can't write them; mostly NULL */
	struct cmek_session *session;
	struct cmek_room *room; /* NULL: none is kept */
	bool was_full, was_near; /* its level, as log and supervisor know it; one call at a time */
	struct cmek_control *control;
	struct cmek_watcher *watcher; /* NULL: none */
	struct cmek_reencrypt *reencrypt; /* NULL: a mount that may not, or should not, write so much */
	struct event_notes notes;
	pthread_t listener;
	bool listening;
	atomic_bool ending; /* the session is over: what the listener hears is of no interest */
	/* agent_lock: one question at a time to the KMS agent */
	pthread_mutex_t agent_lock;
	struct cmek_agent_counts kms_counts; /* without a lock */
	/* Of the watch's questions about each slot, under agent_lock; see cmek_event_watch_call(). */
	struct watch_call {
		enum cmek_kind outcome;
		int64_t told_s; /* CLOCK_MONOTONIC, 0 = never */
		uint64_t left_out;
	} watch_calls[CMEK_SLOTS_MAX][CMEK_AGENT_CALLS];
	/* life_lock: locking, unlocking and ending, one at a time. Outermost; held for as long as these take */
	pthread_mutex_t life_lock;
	/* state_lock: short. Written under both locks, so that either is enough to read */
	pthread_mutex_t state_lock;
	enum cmek_lock_state lock_state;
	int64_t lock_since;    /* Unix seconds */
	char lock_reason[256]; /* "" when unlocked */
	char refuses_writes[256]; /* why users can't change anything, "" = they can, or the turn has not come to an end */
	/* header_lock: the header and its handle. Held over writes of the header, never over a request of FUSE */
	pthread_mutex_t header_lock;
	struct cmek_volhdr_store *header; /* as it was at the mount; it has the store's lock */
	uint64_t header_seen; /* the highest number of a header that was unlocked; tools can change it meanwhile */
	/* pulse_lock: outside of state_lock and the locks of watch and re-encryption */
	pthread_mutex_t pulse_lock;
	char told_state[256]; /* what the supervisor knows */
	struct cmek_slot renewed; /* under life_lock: what cmek_daemon_renew() is to write, wrapped == NULL: nothing */
};

/* daemon.c: asks the agent for the keys of this header; d->renewed is then what the key service made anew on the way. */
int cmek_daemon_open_keys(struct daemon *d, struct cmek_volhdr_store *header, struct cmek_keyring **ret_ring,
			  struct cmek_error *err);

/*
 * lock.c: users are refused with EKEYREVOKED, what they wrote is put into the store, then keys and plaintext are wiped.
 * reason is for people. Done already (the reason is the new one then), or shredded: 0. Kinds: busy (-ETIMEDOUT): something
 * did not come to an end in timeout_s, users are refused but keys are still there, to be tried again; -ESHUTDOWN: the mount
 * is ending. Changes that could not be written are reported by inode, kept in memory for after an unlock, and are no failure.
 */
#define CMEK_LOCK_TIMEOUT_S 60 /* where nobody says another one */
int cmek_daemon_lock(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err);
/*
 * Asks the KMS for the keys again and goes on where it was. Not locked: 0. Kinds of cmek_unlock(); mismatch: the header in
 * the store is another volume's, or older than the one that was there; key-destroyed (-EIDRM): it is or was shredded. Nothing
 * has changed then.
 */
int cmek_daemon_unlock(struct daemon *d, struct cmek_error *err);
/*
 * The header has new keys (a rotation): takes them over, so that the next seal is under its active data key. *ret_dek: that
 * one; 0: the mount is locked, it takes them at the unlock. Kinds as cmek_daemon_unlock() and cmek_keyring_adopt().
 */
int cmek_daemon_reload_keys(struct daemon *d, uint16_t *ret_dek, struct cmek_error *err);
/*
 * Users get EROFS for whatever would change the volume, reads go on, and what was written before is in the store when it
 * returns (what could not be is reported by inode, and tried again). Read-only, locked, or done already: 0, and nothing
 * happens. Kind busy as cmek_daemon_lock(), to be tried again. It lasts until writes are allowed, or the volume was locked
 * and is unlocked. What is changed through mappings that there are already is not refused.
 */
int cmek_daemon_refuse_writes(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err);
void cmek_daemon_allow_writes(struct daemon *d); /* no change if they are, or it is locked */
/*
 * As a lock, but nothing unlocks it any more: for somebody who is about to destroy the volume. Done already: 0; locked: only
 * the state changes. Kinds of cmek_daemon_lock().
 */
int cmek_daemon_shred(struct daemon *d, unsigned timeout_s, struct cmek_error *err);
enum cmek_lock_state cmek_daemon_lock_state(struct daemon *d);
/* The header as it is in the store now; mismatch as above. The caller closes it. */
int cmek_daemon_read_header(struct daemon *d, struct cmek_volhdr_store **ret_header, struct cmek_error *err);
/* daemon.c: an unlock by this unwrapper instead of the agent's, with the slots that this mount may use. */
int cmek_daemon_try_slots(struct daemon *d, struct cmek_volhdr_store *header, const struct cmek_unwrapper *unwrapper,
			  struct cmek_report say, struct cmek_keyring **ret_ring, struct cmek_error *err);

/*
 * renew.c: puts d->renewed into the header that was just unlocked, whose number is d->header_seen, in the directory
 * store_fd (borrowed); forgets it either way. What goes wrong is logged: the slot is as good as before.
 */
void cmek_daemon_renew(struct daemon *d, int store_fd);
/*
 * Puts a slot that was wrapped anew into the header, in one update, and tells the audit log. Its blob is taken over. from: the
 * slot that it was made from and that must be there still, in a header of this volume's keys, and no older one than was
 * unlocked. Under life_lock. Kinds: busy (somebody changes the header, or has changed the slot; the volume is locked),
 * mismatch, tampered, system: the header is as before.
 */
int cmek_daemon_put_slot(struct daemon *d, int store_fd, struct cmek_slot *renewed, const struct cmek_slot *from,
			 struct cmek_error *err);

/*
 * retire.c: the functions of struct cmek_reencrypt_host, arg is the daemon. The keys must be in use (not locked). They write
 * the header under its locks, and tell the audit log.
 */
int cmek_daemon_retire_deks(void *arg, const uint16_t *ids, size_t n, uint64_t grace_s, const char *proof,
			    struct cmek_error *err);
int cmek_daemon_destroy_deks(void *arg, bool all, int64_t *ret_next, struct cmek_error *err);

/* events.c: an event of this volume, to be filled further; then cmek_auditor_tell(d->audit). */
void cmek_event_init(const struct daemon *d, enum cmek_mount_event_type type, struct cmek_mount_event *ret_event);
/* One with a reason ("" = none), done or (failure set) failed. */
void cmek_event_tell(const struct daemon *d, enum cmek_mount_event_type type, const char *reason,
		     const struct cmek_error *failure);
/* Something stored of this node failed authentication. Any thread, under any lock; what: a constant. */
void cmek_event_unauthentic(struct daemon *d, uint64_t node, uint64_t offset, const char *what);
/*
 * For struct cmek_agent_link: a question to a key service. Each is an event; those of the key watch (cmek_event_watch_call())
 * when their outcome is another one than that of the question before, and once a day. arg: the daemon. Under agent_lock.
 */
void cmek_event_kms_call(void *arg, const struct cmek_agent_call *call);
void cmek_event_watch_call(void *arg, const struct cmek_agent_call *call);
int cmek_events_start(struct daemon *d, struct cmek_error *err);
void cmek_events_stop(struct daemon *d); /* while there is a tree; not started: fine */

/* pulse.c: tells the supervisor the state of the mount, if it has changed. Without life_lock's help; not under state_lock. */
void cmek_daemon_tell_state(struct daemon *d);
/* How much room the store has, for the log, and for the supervisor; see struct cmek_room_host. arg: the daemon. */
void cmek_daemon_tell_room(void *arg, enum cmek_room_level level);
void cmek_daemon_tell_reserve(void *arg, bool used);
/* Answers whether requests are being dealt with. */
void cmek_daemon_answer_ping(struct daemon *d);

/* watcher.c: the thread of the key watch (so: after the last fork). Stop closes the conversation with the agent. */
struct cmek_watcher;
int cmek_watcher_start(struct daemon *d, struct cmek_watcher **ret_watcher, struct cmek_error *err);
void cmek_watcher_stop(struct cmek_watcher *w); /* NULL allowed */
/* Somebody unlocked the volume: the keys are good as of now. NULL allowed. */
void cmek_watcher_unlocked(struct cmek_watcher *w);
/* Before somebody locks the volume: what the watch has locked, or was about to unlock, is theirs to unlock now. NULL allowed. */
void cmek_watcher_give_up_lock(struct cmek_watcher *w);
json_t *cmek_watcher_json(struct cmek_watcher *w); /* of NULL: null */
/* In few words, for people; "" when there is none, or no watch (NULL). */
void cmek_watcher_problem(struct cmek_watcher *w, char *to, size_t size);
/*
 * Sets keys of the policy, all or none: an object of texts, see cmek_watch_policy_set(); the keys are then asked about at
 * once. *ret_policy: as it is now. Kinds: usage; unsupported: there is no watch (NULL).
 */
int cmek_watcher_set(struct cmek_watcher *w, const json_t *settings, json_t **ret_policy, struct cmek_error *err);

/* verbs.c: what the control socket understands; arg is the daemon. Ends with a zeroed row. */
extern const struct cmek_control_verb cmek_daemon_verbs[];

#endif
