/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_SLOT_H
#define CMEK_VOLUME_SLOT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kms/json.h"
#include "kms/kms.h"

/*
 * A key slot: the volume's KEK, wrapped by one key of a KMS (doc/format.md section 2). A value with a text form, no
 * I/O. Everything in a slot that was read is untrusted: see fs/volume/registry.h. One thread at a time per slot.
 */
#define CMEK_SLOTS_MAX 32
/* Longest text of any field but the blob, and longest blob. */
#define CMEK_SLOT_TEXT_MAX 2048
#define CMEK_SLOT_BLOB_MAX 16384

struct cmek_slot {
	unsigned id;       /* 0..31 */
	char *purpose;     /* "data", "backup", "recovery" */
	char *provider;    /* "local", "aws", "gcp", "ibm" */
	char *key;         /* the URI as given */
	char *resolved;    /* the key in full; this is what is asked to unwrap */
	char *version;     /* may be empty, never NULL */
	char *region;      /* may be empty, never NULL */
	char *role;        /* principal: any of these four may be NULL */
	char *external_id;
	char *service_account;
	char *profile;
	uint8_t *wrapped;
	size_t wrapped_len;
	int64_t created;   /* Unix seconds */
	int64_t rewrapped;
	json_t *read;      /* the object it was read from, for members we don't know; NULL = new */
};

/* Frees what the slot holds, not the slot; a zeroed slot is fine. */
void cmek_slot_done(struct cmek_slot *slot);
/* Borrows the four texts of the slot. */
struct cmek_kms_principal cmek_slot_principal(const struct cmek_slot *slot);

/* True when `key` names this resolved key: "aws-kms://arn:..." and the like mean the form behind the scheme. */
int cmek_slot_key_is(const char *resolved, const char *key);

/* "data", "backup" or "recovery". */
int cmek_slot_purpose_ok(const char *purpose);
/* 1..max bytes (0 allowed if `empty`) of UTF-8 without control characters, so that it can be shown on a terminal. */
int cmek_slot_text_ok(const char *text, size_t max, int empty);

/* A copy of the whole of it, or NULL: json_deep_copy() leaves out members that there is no memory for. */
json_t *cmek_slot_copy_json(const json_t *json);
/* Its text, or NULL: json_dumps() can leave out something, too. flags: as there. */
char *cmek_slot_dump_json(const json_t *json, size_t flags);

/* JSON object -> slot; every field is checked. Kind bad-format. */
int cmek_slot_from_json(const struct cmek_json_at *at, struct cmek_slot *ret_slot, struct cmek_error *err);
/* Slot -> a new JSON object that the caller owns, unknown members of what was read included. */
int cmek_slot_to_json(const struct cmek_slot *slot, json_t **ret_json, struct cmek_error *err);

/*
 * The same as one line of text (malloced; no newline; NUL behind it), to hand a slot to another process.
 * CMEK_SLOT_ENCODED_MAX bounds it when the slot has no unknown members, which are left out.
 */
#define CMEK_SLOT_ENCODED_MAX 65536
int cmek_slot_encode(const struct cmek_slot *slot, char **ret_text, size_t *ret_len, struct cmek_error *err);
int cmek_slot_decode(const void *text, size_t len, struct cmek_slot *ret_slot, struct cmek_error *err);

#endif
