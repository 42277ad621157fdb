/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_CTL_H
#define CMEK_TOOLS_CTL_H

#include "fs/content/replay.h"
#include "fs/volume/change.h"
#include "fs/volume/volconf.h"
#include "kms/kms.h"
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
int cmek_ctl_audit(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_header(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_key(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_slot(struct cmek_tool *tool, int argc, char **argv);
/* cmekctl header backup, header restore (ctl_backup.c). */
int cmek_ctl_header_backup(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_header_restore(struct cmek_tool *tool, int argc, char **argv);
/* Verbs of groups that have files of their own. */
int cmek_ctl_slot_test(struct cmek_tool *tool, int argc, char **argv);
/* cmekctl slot apply (ctl_apply.c). */
int cmek_ctl_slot_apply(struct cmek_tool *tool, int argc, char **argv);
/* Verbs of their own. */
int cmek_ctl_reencrypt(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_rotate(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_rewrap(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_shred(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_status(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_lock(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_metrics(struct cmek_tool *tool, int argc, char **argv);
/*
 * cmekctl metrics --listen (ctl_listen.c): serves the metrics of the named volumes, or of all, on ADDR:PORT until a SIGTERM or
 * SIGINT. The exit code.
 */
int cmek_ctl_metrics_listen(struct cmek_tool *tool, const char *listen_on, char *const *volumes, size_t n);
int cmek_ctl_policy(struct cmek_tool *tool, int argc, char **argv); /* cmekctl watch */
int cmek_ctl_sync(struct cmek_tool *tool, int argc, char **argv);
int cmek_ctl_unlock(struct cmek_tool *tool, int argc, char **argv);

/* What verbs on volumes share (ctl_volume.c). */

struct cmek_ctl_unlock;

/*
 * Opens what a user calls a volume, its store, its mount point or its name in the configuration: *ret_fd is the store's
 * directory, *ret_path its absolute path (malloced). Kind not-found for none of them. unlock (NULL: its keys are not asked
 * for): gets what the volume's section of the configuration says, as far as no option said it.
 */
int cmek_ctl_volume_open(const char *volume, struct cmek_ctl_unlock *unlock, int *ret_fd, char **ret_path,
			 struct cmek_error *err);
/* A path, malloced: the store, if volume is a name in the configuration, else volume itself. Kinds of cmek_conf_load(). */
int cmek_ctl_volume_path(const char *volume, const char *config_path, char **ret_path, struct cmek_error *err);
/* Where the store is mounted in this mount namespace: malloced, NULL if nowhere (or there is no memory). */
char *cmek_ctl_mount_point(const char *store);
/* The control socket of a mount (ctl_mount.c, doc/control.md), and what the mount said of itself at first. */
struct cmek_ctl_mount {
	int fd;
	json_t *status;
};
/*
 * The mount that a user calls by its mount point, its store, its UUID, its label or its name in the configuration
 * (config_path NULL = the default). Kinds: not-found (it is not mounted by this user), usage (more than one fits), and those
 * of cmek_ctlsock_ask() when a mount that may be the one does not answer.
 */
int cmek_ctl_mount_find(const char *volume, const char *config_path, struct cmek_ctl_mount *ret_mount,
			struct cmek_error *err);
/* Whether a user who says `volume`, whose real path is `real` (NULL: it is none), means the mount with this status. */
bool cmek_ctl_mount_is(const json_t *status, const char *volume, const char *real);
/* Asks, and waits for as long as it takes. request is taken over (NULL: no memory for it). */
int cmek_ctl_mount_ask(struct cmek_ctl_mount *mount, json_t *request, json_t **ret_result, struct cmek_error *err);
/*
 * The same of a command that takes the keys out of memory, which has this time. Kind busy (-ETIMEDOUT): it was not enough; when
 * what is missing is the store, which no time limit ends, the mount goes on with it.
 */
#define CMEK_CTL_LOCK_S 60 /* where nobody says another one */
int cmek_ctl_mount_end_use(struct cmek_ctl_mount *mount, json_t *request, unsigned timeout_s, struct cmek_error *err);
/*
 * The event that a mount was (or, failure set, could not be) told something. status: what it said of itself, NULL = nothing;
 * volume: as the user called it; reason: NULL = none.
 */
void cmek_ctl_mount_audit(const struct cmek_tool *tool, const char *name, const json_t *status, const char *volume,
			  const char *reason, const struct cmek_error *failure);
/* For people: what a mount said of itself. status NULL: nothing. */
void cmek_ctl_mount_print(const struct cmek_tool *tool, const json_t *status);
/* The same again and again, in place of what was there where that is a terminal, until there is none any more. The exit code. */
int cmek_ctl_mount_watch(const struct cmek_tool *tool, const char *volume, const char *config_path);
/*
 * Calls visit() for each mount of this volume that this user may ask: one that may write, or any number of read-only ones.
 * Ends at the first failure, a mount that does not answer included. *ret_n: how many were visited.
 */
int cmek_ctl_mount_each(const uint8_t volume[16],
			int (*visit)(void *arg, struct cmek_ctl_mount *mount, struct cmek_error *err), void *arg,
			size_t *ret_n, struct cmek_error *err);
/*
 * Says of the data keys in `volume` of a mount's status which are retired, or were destroyed since this time, and which known
 * backups of the header hold them; the same goes into report as "ended_deks" (ctl_deks.c).
 */
void cmek_ctl_deks_ended(const struct cmek_tool *tool, const json_t *volume, const char *since, json_t *report);
/* Hangs up; fd -1 is fine. */
void cmek_ctl_mount_done(struct cmek_ctl_mount *mount);

/* "2026-11-22T10:11:12Z" as JSON. */
json_t *cmek_ctl_time_json(int64_t unix_seconds);

/* The journal of a volume that is not mounted (ctl_journal.c). */
struct cmek_ctl_journal {
	uint64_t length_bytes; /* 0: there is none */
	unsigned kept;         /* journals in .cmekfs/lost */
	const char *state;     /* "unknown" (nobody asked, or no key), "empty", "to be replayed", "damaged" */
	struct cmek_replay_result result; /* when it is to be replayed */
	struct cmek_error err; /* what is wrong with it, or with the key */
};
/* opts: how to unlock, NULL = without. Never fails: what can't be said is in *ret_journal. */
void cmek_ctl_journal_look(int store_fd, struct cmek_volhdr_store *store, const struct cmek_kms_options *opts,
			   struct cmek_ctl_journal *ret_journal);
void cmek_ctl_journal_print(const struct cmek_ctl_journal *journal, const struct cmek_tool *tool);
json_t *cmek_ctl_journal_json(const struct cmek_ctl_journal *journal); /* JSON null: there is none */

/* How a verb unlocks a volume: rows for its table of options, and what they said. */
enum { CMEK_CTL_OPT_UNLOCK_KEY = 0x200, CMEK_CTL_OPT_UNLOCK_SLOT, CMEK_CTL_OPT_PASSPHRASE_FILE, CMEK_CTL_OPT_KEYSTORE,
       CMEK_CTL_OPT_CONFIG, CMEK_CTL_OPT_CONF_PROFILE };
#define CMEK_CTL_KMS_OPTIONS \
	{ CMEK_CTL_OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", \
	  "read the passphrase of a local key store from FILE" }, \
	{ CMEK_CTL_OPT_KEYSTORE, "keystore", "FILE", "the local key store" }, \
	{ CMEK_CTL_OPT_CONFIG, "config", "FILE", "the configuration [/etc/cmekfs/cmekfs.conf]" }, \
	CMEK_TOOL_PROFILE_OPTION(CMEK_CTL_OPT_CONF_PROFILE)
#define CMEK_CTL_UNLOCK_OPTIONS \
	{ CMEK_CTL_OPT_UNLOCK_KEY, "unlock-key", "URI", "unlock the volume with this key only" }, \
	{ CMEK_CTL_OPT_UNLOCK_SLOT, "unlock-slot", "N", "unlock the volume with this key slot only" }, \
	CMEK_CTL_KMS_OPTIONS
struct cmek_ctl_unlock {
	const char *key;
	int slot; /* -1 = any */
	struct cmek_kms_options kms;
	struct cmek_volconf conf; /* of the volume that was opened: key and kms.profile may point into it */
};
void cmek_ctl_unlock_init(struct cmek_ctl_unlock *unlock, struct cmek_tool *tool);
void cmek_ctl_unlock_done(struct cmek_ctl_unlock *unlock);
/* What options left open: key and profile, as the configuration says them of this store. cmek_ctl_volume_open() does it. */
int cmek_ctl_unlock_configure(struct cmek_ctl_unlock *unlock, const char *store, struct cmek_error *err);
/* Takes the option that was just returned, if it is one of these. */
bool cmek_ctl_unlock_option(struct cmek_ctl_unlock *unlock, const struct cmek_tool_args *args, int id);

/* Options about a key that shall get a slot, and what they said. */
enum { CMEK_CTL_OPT_REGION = 0x280, CMEK_CTL_OPT_KEY_KEYSTORE, CMEK_CTL_OPT_KEY_PASSPHRASE_FILE };
#define CMEK_CTL_NEW_KEY_OPTIONS \
	CMEK_TOOL_PRINCIPAL_OPTIONS, \
	{ CMEK_CTL_OPT_REGION, "region", "REGION", "the key's region, for people" }, \
	{ CMEK_CTL_OPT_KEY_KEYSTORE, "key-keystore", "FILE", "the local key store of KEY, if it is another one" }, \
	{ CMEK_CTL_OPT_KEY_PASSPHRASE_FILE, "key-passphrase-file", "FILE", "the passphrase of that store" }
struct cmek_ctl_new_key {
	struct cmek_kms_principal principal;
	const char *region; /* NULL = not given */
	const char *keystore, *passphrase_file; /* NULL = those that unlock the volume */
	const struct cmek_secret *recovery_code; /* NULL = it is not for one */
};
bool cmek_ctl_new_key_option(struct cmek_ctl_new_key *key, const struct cmek_tool_args *args, int id);
/* A slot for the key with the KEK of the change, proved. The caller owns it. */
int cmek_ctl_new_key_wrap(const struct cmek_ctl_new_key *key, const struct cmek_ctl_unlock *unlock, const char *uri,
			  const struct cmek_change *change, unsigned id, const char *purpose,
			  struct cmek_slot *ret_slot, struct cmek_error *err);

/*
 * Opens a volume as cmek_ctl_volume_open(), which may fill *unlock, and begins a change of its header; *unlock is borrowed
 * until its end.
 * *ret_path (malloced): the store's, set once the volume was found.
 */
int cmek_ctl_change_begin(struct cmek_tool *tool, const char *volume, enum cmek_store_access access,
			  struct cmek_ctl_unlock *unlock, char **ret_path, struct cmek_change **ret_change,
			  struct cmek_error *err);
/*
 * cmek_change_commit(), and what it changed of slots and data keys goes to the audit log, done or failed (ctl_audit.c).
 * store: its path.
 */
int cmek_ctl_commit(const struct cmek_tool *tool, const struct cmek_ctl_unlock *unlock, const char *store,
		    struct cmek_change *change, struct cmek_error *err);
/* The event that a volume was opened, or (change NULL) could not be. cmek_ctl_change_begin() tells it itself. */
void cmek_ctl_audit_opened(const struct cmek_tool *tool, const struct cmek_ctl_unlock *unlock, const char *store,
			   const struct cmek_change *change, const struct cmek_error *failure);
/* The lowest number that no slot has. Kind limit. */
int cmek_ctl_free_slot(const struct cmek_volhdr *hdr, unsigned *ret_id, struct cmek_error *err);
/* 0 when another slot than this one holds the volume's key and opens now, else kind usage with what the others said. */
int cmek_ctl_prove_rest(const struct cmek_change *change, unsigned removed, const struct cmek_kms_options *kms,
			struct cmek_error *err);
/* A line of a library for people, on standard error; arg is the tool. For struct cmek_report. */
void cmek_ctl_report_line(void *arg, const char *text);

/* A key slot for people's eyes: all of it but the wrapped key. NULL when there is no memory. */
json_t *cmek_ctl_slot_json(const struct cmek_slot *slot);
/* One place where a key is used: a slot of a volume of this host, or of a header backup that was noted. */
struct cmek_ctl_use {
	uint8_t volume[16];
	char *label;
	char *store;         /* may be NULL */
	char *backup;        /* path of the backup, NULL = the volume's own header */
	const char *state;   /* "in use", "available", "backup", "unknown": the header can't be read, the pin says so */
	int slot;            /* -1 = unknown */
	char *purpose;       /* NULL = unknown */
	char *version;       /* NULL = unknown */
	int64_t since;       /* when the slot was made; 0 = unknown */
};
/* Looks into the registry and the headers of all volumes that it lists. key: in full, or as users write it. */
int cmek_ctl_find_uses(const char *key, struct cmek_ctl_use **ret_uses, size_t *ret_n, struct cmek_error *err);
void cmek_ctl_uses_free(struct cmek_ctl_use *uses, size_t n); /* NULL allowed */
/* Who needs a version of a key still to open a volume: its header, and backups of it that were noted. */
#define CMEK_CTL_KEY_TEXT (CMEK_SLOT_TEXT_MAX * 2 + 16)
struct cmek_ctl_needs {
	bool by_header;
	json_t *backups;             /* their paths; the caller's */
	char who[CMEK_CTL_KEY_TEXT]; /* key and version */
};
int cmek_ctl_find_needs(const struct cmek_volhdr *hdr, const char *resolved, const char *version,
			struct cmek_ctl_needs *ret_needs, struct cmek_error *err);
/* cmekctl key uses */
int cmek_ctl_key_uses(struct cmek_tool *tool, int argc, char **argv);

/* How many versions the key is ahead of this one, -1 when that can't be told. */
int cmek_ctl_rotations_since(const struct cmek_kms_info *info, const char *version);
/* "local:db" or, where a version is known, "local:db version 2". */
const char *cmek_ctl_key_text(const char *resolved, const char *version, char text[CMEK_CTL_KEY_TEXT]);

#endif
