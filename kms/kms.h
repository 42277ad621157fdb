/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_KMS_H
#define CMEK_KMS_KMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/receipt.h"

/*
 * The contract between a volume and a key management service. Knows nothing of volumes' files or of FUSE.
 * A provider is one const struct cmek_kms_provider at the end of its own .c file, listed in the table of kms.c.
 * One thread at a time a handle; different handles are independent. Every call may block on the network or the disk
 * for as long as the deadline in the options, so none is ever made on the data path.
 */

/* How a wrap is bound: AWS encryption context, Google Cloud and IBM additional authenticated data, AAD of local. */
struct cmek_kms_context {
	uint8_t volume[16];  /* volume UUID */
	const char *purpose; /* slot purpose: "data", "backup", "recovery" */
};

/* Who to be when asking; all borrowed, any may be NULL. Kept in the slot and given back at unwrap. */
struct cmek_kms_principal {
	const char *role;            /* AWS role ARN to assume */
	const char *external_id;     /* with it */
	const char *service_account; /* Google Cloud account to impersonate */
	const char *profile;         /* IBM trusted profile id */
};

struct cmek_kms_session;
struct cmek_http;

/*
 * An operation that a key service was asked for, and what came of it: for who keeps records. All borrowed, for as long as the
 * one who is told has it. Never anything secret.
 */
struct cmek_kms_call {
	const char *operation; /* "wrap", "schedule-deletion", ...: the functions below */
	const char *provider;  /* "local", "aws", ... */
	const char *key;       /* in full where that is known, else as it was opened */
	const char *version;   /* unwrap, rewrap: that the blob is under; wrap, rotate: the one that came of it; "" = unknown */
	const uint8_t *volume; /* and purpose: of wrap, unwrap and rewrap, else NULL */
	const char *purpose;
	const struct cmek_error *failure; /* not set: it went well */
	uint64_t took_ms;
	/* What the services answered on the way, as in cmek_kms_receipts(), and how many older ones are left out there. */
	const struct cmek_kms_receipt *requests;
	size_t n_requests;
	uint64_t n_left_out;
};

/* What of it concerns the service of this URI; the rest is NULL. */
struct cmek_kms_principal cmek_kms_principal_for(const char *uri, const struct cmek_kms_principal *principal);

/* How to behave; not part of a volume. All borrowed, zero = default. */
struct cmek_kms_options {
	unsigned deadline_ms;        /* for a whole call with its retries; default: as configured, else 30,000 */
	const char *config_path;     /* default /etc/cmekfs/cmekfs.conf */
	const char *profile;         /* of the configuration: its sections [aws PROFILE], ... come before [aws], ... */
	/* Shared by handles (kms/session.h), config_path is then not looked at; NULL = the handle makes its own. */
	struct cmek_kms_session *session;
	const char *keystore_path;   /* local: the key store file, overrides the environment and the default */
	const char *passphrase_file; /* local: read a store's passphrase from this file, never from argv */
	/* local: asks the user; NULL = a passphrase that is needed and not in a file is an error. prompt is text to show. */
	int (*ask_passphrase)(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err);
	void *ask_arg;
	/*
	 * Told of each operation after it, in the thread that asked; not of those that nobody was asked for, as the provider lacks
	 * them or the request is wrong by itself. NULL: nobody wants to know.
	 */
	void (*called)(void *arg, const struct cmek_kms_call *call);
	void *called_arg;
};

#define CMEK_KMS_BLOB_MAX 8192 /* AWS gives up to 6144 */

/* A wrapped key. Strings and bytes are malloced and owned; cmek_kms_blob_done() frees them. */
struct cmek_kms_blob {
	uint8_t *data; /* opaque to all but the provider */
	size_t len;
	char *resolved; /* the key that did it, in full and of any version: ARN, resource name, CRN, local:NAME */
	char *version;  /* its version as the provider names it, "" if it doesn't */
};
void cmek_kms_blob_done(struct cmek_kms_blob *blob);

enum cmek_kms_state {
	CMEK_KMS_ENABLED,
	CMEK_KMS_DISABLED,
	CMEK_KMS_PENDING_DELETION,
	CMEK_KMS_DESTROYED,
	CMEK_KMS_STATE_UNKNOWN /* describe is not permitted, or the service says something new */
};
const char *cmek_kms_state_name(enum cmek_kms_state state); /* "enabled", "disabled", "pending-deletion", ... */

struct cmek_kms_version {
	char *id;
	enum cmek_kms_state state;
	int64_t created; /* Unix seconds, 0 = unknown */
};

/* What a KMS says of a key. cmek_kms_info_done() frees what it holds. */
struct cmek_kms_info {
	char *resolved;
	enum cmek_kms_state state;
	char *primary_version;
	struct cmek_kms_version *versions;
	size_t n_versions;
	int64_t created;
	int64_t deletion_date;  /* pending: when the material goes; destroyed: when it went; Unix seconds, else 0 */
	char *origin;           /* "local", "AWS_KMS", "EXTERNAL", ... */
	char *protection_level; /* "software", "HSM", ... */
	char *protected_by;     /* local: "key file" or "passphrase" */
	int64_t rotation_s;     /* the service rotates it by itself every so many seconds; 0 = it does not, or doesn't tell */
	int64_t next_rotation;  /* and next at that time; Unix seconds, 0 = unknown */
	char *remark;           /* what else the service says of its life (rules of deletion, say), one line; may be NULL */
};
void cmek_kms_info_done(struct cmek_kms_info *info);

struct cmek_kms;

/*
 * Opens a key by its URI ("local:NAME", "aws-kms://arn:...", ...). No network traffic yet. uri and *opts are copied.
 * Kinds: usage (no provider takes this URI, or it is malformed: says what is expected), unsupported, system.
 */
int cmek_kms_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		  struct cmek_kms **ret_kms, struct cmek_error *err);
void cmek_kms_close(struct cmek_kms *kms);
const char *cmek_kms_provider_name(const struct cmek_kms *kms); /* "local", "aws", "gcp", "ibm": stored in the slot */
const char *cmek_kms_uri(const struct cmek_kms *kms);           /* as given */
/*
 * To unwrap, somebody has to bring a recovery code; to wrap, nobody. So a slot of such a key is not tried unless it is asked
 * for, and what was wrapped can't be proved without that somebody.
 */
bool cmek_kms_is_by_hand(const struct cmek_kms *kms);
#define CMEK_KMS_RECOVERY_NAME "recovery" /* the name of that provider */

/*
 * wrap:    key (made for CMEK_KEY_KEK, 32 bytes) -> blob, under the key's newest version, bound to ctx.
 * unwrap:  blob -> key. blob->resolved names the key that must answer (compared). *ret_fresh, if not NULL: a blob the
 *          provider re-made on the way because the key was rotated since (IBM; Google Cloud, if it may be asked to wrap),
 *          data == NULL if none; the caller owns it.
 * rewrap:  blob -> new blob under the newest version, in the KMS where it can, else by an unwrap and a wrap.
 * Kinds: denied, expired (also: this machine has no credentials, which says nothing of the key), key-disabled,
 *        pending-deletion, key-destroyed, not-found, unreachable, throttled, tampered (the blob or the context does not fit),
 *        bad-format, system, limit. errno: -EACCES for denied, -EKEYREVOKED disabled/pending/destroyed, -ENOKEY not found,
 *        -EAGAIN throttled, -EBADMSG tampered; unreachable: -ETIMEDOUT, or -EHOSTUNREACH, -ECONNREFUSED, -ECONNRESET,
 *        -EPROTO (TLS); expired: -EKEYEXPIRED, or -ENOKEY (no credentials), -ENOENT, -EACCES (a file of them). local tells
 *        more of denied: -EPERM (a file of the store is open to others), -EKEYREJECTED (wrong passphrase or key file),
 *        -ENOTTY (a passphrase is needed and nobody can be asked).
 */
int cmek_kms_wrap(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
		  struct cmek_kms_blob *ret_blob, struct cmek_error *err);
int cmek_kms_unwrap(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		    struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err);
int cmek_kms_rewrap(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		    struct cmek_kms_blob *ret_blob, struct cmek_error *err);
int cmek_kms_describe(struct cmek_kms *kms, struct cmek_kms_info *ret_info, struct cmek_error *err);

/*
 * Administration. create and rotate may change which key cmek_kms_describe() tells of: the one that was made.
 * A provider that lacks one: kind unsupported, -EOPNOTSUPP.
 */
struct cmek_kms_create {
	bool passphrase;   /* local: protect this key store by a passphrase instead of the key file */
	bool multi_region; /* AWS: a key that can be replicated to other Regions */
	const char *name;  /* IBM: what people call it; NULL = "cmekfs" */
};
int cmek_kms_create(struct cmek_kms *kms, const struct cmek_kms_create *how, struct cmek_error *err);
int cmek_kms_rotate(struct cmek_kms *kms, char **ret_version, struct cmek_error *err);
int cmek_kms_enable(struct cmek_kms *kms, struct cmek_error *err);
int cmek_kms_disable(struct cmek_kms *kms, struct cmek_error *err);
/*
 * days until the material goes, or CMEK_KMS_DAYS_DEFAULT. local: 0..30, default 7; 0 destroys at once. A key that is
 * already pending gets the new date. cancel_deletion leaves the key disabled. *ret_date: Unix seconds; NULL allowed.
 */
#define CMEK_KMS_DAYS_DEFAULT (~0u)
int cmek_kms_schedule_deletion(struct cmek_kms *kms, unsigned days, int64_t *ret_date, struct cmek_error *err);
int cmek_kms_cancel_deletion(struct cmek_kms *kms, struct cmek_error *err);
/*
 * The same for a key that other resources are registered as using, where the service would refuse: their registrations
 * go with it. For a service without registrations: unsupported.
 */
int cmek_kms_force_deletion(struct cmek_kms *kms, int64_t *ret_date, struct cmek_error *err);
/*
 * Who the service takes us for, as it names identities (an ARN, an account), and where the credentials come from: malloced
 * text for people. It asks the service or its token endpoint.
 */
int cmek_kms_identity(struct cmek_kms *kms, char **ret_text, struct cmek_error *err);
/*
 * What the service answered in the last call with this handle, its requests for credentials included, the oldest first.
 * Borrowed until the next call with any handle of the session. NULL and none where requests have no names (local).
 */
const struct cmek_kms_receipt *cmek_kms_receipts(struct cmek_kms *kms, size_t *ret_n);
/* Every key the URI's provider can list there ("local:" lists the store): a malloced array of n infos. */
int cmek_kms_list(struct cmek_kms *kms, struct cmek_kms_info **ret_infos, size_t *ret_n, struct cmek_error *err);

/* What else uses a key, as the service was told by those resources (IBM). */
struct cmek_kms_registration {
	char *resource; /* its CRN */
	char *description;
	int64_t created; /* Unix seconds, 0 = unknown */
	bool prevents_deletion;
};
void cmek_kms_registration_done(struct cmek_kms_registration *reg);
/* A malloced array of n. */
int cmek_kms_registrations(struct cmek_kms *kms, struct cmek_kms_registration **ret_regs, size_t *ret_n,
			   struct cmek_error *err);

/*
 * The least that somebody must be allowed who opens volumes with this key, as the principal the key was opened with.
 * No network traffic.
 */
struct cmek_kms_policy_wish {
	const char *member;           /* who, as the service names principals; NULL = a word to replace */
	bool create;                  /* make volumes and key slots, too, not only open them */
	const uint8_t (*volumes)[16]; /* only for these, where the service can tell volumes apart */
	size_t n_volumes;
};
struct cmek_kms_policy {
	char *document; /* JSON, as the service takes it */
	char *guide;    /* lines of text: the commands that put it there, and what it can't limit */
};
void cmek_kms_policy_done(struct cmek_kms_policy *policy);
int cmek_kms_policy(struct cmek_kms *kms, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err);

/* What a provider implements; NULL = unsupported. The state is its own; arguments as above, already checked. */
struct cmek_kms_provider {
	const char *name;
	bool by_hand; /* see cmek_kms_is_by_hand() */
	/* True when this provider takes the URI. */
	bool (*match)(const char *uri);
	int (*open)(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		    void **ret_state, struct cmek_error *err);
	void (*close)(void *state);
	int (*wrap)(void *state, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
		    struct cmek_kms_blob *ret_blob, struct cmek_error *err);
	int (*unwrap)(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err);
	int (*rewrap)(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_kms_blob *ret_blob, struct cmek_error *err);
	int (*describe)(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err);
	int (*create)(void *state, const struct cmek_kms_create *how, struct cmek_error *err);
	int (*rotate)(void *state, char **ret_version, struct cmek_error *err);
	int (*enable)(void *state, struct cmek_error *err);
	int (*disable)(void *state, struct cmek_error *err);
	int (*schedule_deletion)(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err);
	int (*cancel_deletion)(void *state, struct cmek_error *err);
	int (*identity)(void *state, char **ret_text, struct cmek_error *err);
	int (*list)(void *state, struct cmek_kms_info **ret_infos, size_t *ret_n, struct cmek_error *err);
	int (*force_deletion)(void *state, int64_t *ret_date, struct cmek_error *err);
	int (*registrations)(void *state, struct cmek_kms_registration **ret_regs, size_t *ret_n, struct cmek_error *err);
	int (*policy)(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		      struct cmek_error *err);
	/*
	 * The last unwrap has left no fresh blob, and a newer version is there to wrap under: who wants one wraps. For a service
	 * that makes none on the way.
	 */
	bool (*outdated)(void *state);
	/* The connections of its requests; NULL: none yet. */
	struct cmek_http *(*http)(void *state);
};

#endif
