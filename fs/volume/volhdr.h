/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_VOLHDR_H
#define CMEK_VOLUME_VOLHDR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "fs/volume/keyring.h"
#include "fs/volume/slot.h"

/*
 * The volume header (doc/format.md section 2): bytes <-> struct, no I/O. One thread at a time per header.
 */
#define CMEK_VOLHDR_HEAD_LEN 4096
#define CMEK_VOLHDR_AREA_MIN 4096
#define CMEK_VOLHDR_AREA_DEFAULT 65536
#define CMEK_VOLHDR_AREA_MAX 1048576
#define CMEK_VOLHDR_LEN_MAX (CMEK_VOLHDR_HEAD_LEN + CMEK_VOLHDR_AREA_MAX)
#define CMEK_LABEL_MAX 64
#define CMEK_SYMLINK_TEXT_MIN 1023
#define CMEK_SYMLINK_TEXT_MAX 4095
#define CMEK_BLOCK_SIZE_MIN 4096
#define CMEK_BLOCK_SIZE_MAX 65536

struct cmek_dek_entry {
	uint16_t id; /* 1..65535 */
	enum cmek_dek_state state;
	uint32_t domain;
	int64_t created;
	int64_t retired, destroy_after; /* 0 = not known; destroy_after: of a retired one, when its grace is over */
	int64_t destroyed;
	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN]; /* zero when destroyed */
	json_t *read; /* as in struct cmek_slot */
};

struct cmek_volhdr {
	uint64_t sequence;
	uint8_t uuid[16];
	uint32_t area_len;
	char label[CMEK_LABEL_MAX + 1];
	uint32_t block_size;
	uint32_t symlink_max;
	int64_t created;
	struct cmek_slot *slots; /* 1..32 */
	size_t n_slots;
	uint32_t dek_next;   /* ids from here on were never used: 2..65536 */
	uint16_t dek_active;
	struct cmek_dek_entry *deks;
	size_t n_deks;
	char *read_only_for; /* unknown ro_compat features, comma-separated: mount read-only. NULL = none */
	json_t *read;        /* the object it was read from, for what we don't know; NULL = new */
};

/* A zeroed header with sequence 0 and the default area length; the caller owns it. */
int cmek_volhdr_new(struct cmek_volhdr **ret_hdr, struct cmek_error *err);
void cmek_volhdr_free(struct cmek_volhdr *hdr); /* NULL allowed */
/* Makes room for one slot more at the end of slots and returns it zeroed, NULL when there is no memory. */
struct cmek_slot *cmek_volhdr_grow_slots(struct cmek_volhdr *hdr);
struct cmek_dek_entry *cmek_volhdr_grow_deks(struct cmek_volhdr *hdr);
/* The slot with this number, or NULL. */
struct cmek_slot *cmek_volhdr_slot(const struct cmek_volhdr *hdr, unsigned id);
/* Takes a slot of the header out of it and frees what it holds. */
void cmek_volhdr_drop_slot(struct cmek_volhdr *hdr, struct cmek_slot *slot);

/*
 * Bytes of a whole copy -> header. Checks length, magic, version, bounds, SHA-256, then every field, in this order; not
 * the HMAC, for that needs the KEK. Kinds: bad-format (-EINVAL) saying what is wrong; unsupported (-ENOTSUP): a later
 * version, or an unknown incompat feature; key-destroyed (-EIDRM): a tombstone.
 */
int cmek_volhdr_decode(const uint8_t *bytes, size_t len, struct cmek_volhdr **ret_hdr, struct cmek_error *err);
/* True when the bytes have the form and the SHA-256 of a header of any version; *ret_sequence is then set. */
bool cmek_volhdr_intact(const uint8_t *bytes, size_t len, uint64_t *ret_sequence);
/* The HMAC of bytes that were decoded. Kind tampered, -EBADMSG. */
int cmek_volhdr_verify(const uint8_t *bytes, size_t len, const struct cmek_secret *mac_key, struct cmek_error *err);

/*
 * Header -> bytes of a whole copy with both digests, malloced. Members that were read and are not known are kept.
 * Kind limit, -ENOSPC, when the area is too small; usage for a field out of range.
 */
int cmek_volhdr_encode(const struct cmek_volhdr *hdr, const struct cmek_secret *mac_key, uint8_t **ret_bytes,
		       size_t *ret_len, struct cmek_error *err);

/*
 * What stands in the place of a header that was shredded (doc/format.md section 2.1). It says that nothing can be read
 * any more, and authenticates nothing.
 */
#define CMEK_TOMBSTONE_LEN CMEK_VOLHDR_HEAD_LEN
struct cmek_tombstone {
	uint64_t sequence; /* of a header that it outdates, + 1 */
	uint8_t uuid[16];
	int64_t when; /* Unix seconds */
};
int cmek_tombstone_encode(const struct cmek_tombstone *tombstone, uint8_t bytes[CMEK_TOMBSTONE_LEN]);
bool cmek_tombstone_decode(const uint8_t *bytes, size_t len, struct cmek_tombstone *ret_tombstone);

/* The DEK with this id, or NULL. */
struct cmek_dek_entry *cmek_volhdr_dek(const struct cmek_volhdr *hdr, uint16_t id);
/*
 * The last two steps of a DEK's life, whose conditions (doc/format.md section 2) the caller has seen to: decrypt-only becomes
 * retired, retired becomes destroyed. False: it is in another state, and nothing was changed.
 */
bool cmek_volhdr_retire_dek(struct cmek_dek_entry *dek, int64_t now, int64_t destroy_after);
bool cmek_volhdr_destroy_dek(struct cmek_dek_entry *dek, int64_t now);
/* The earliest end of a grace of the retired DEKs, 0 = none has one. */
int64_t cmek_volhdr_destroy_after(const struct cmek_volhdr *hdr);

/* "active", "decrypt-only", "retired", "destroyed". */
const char *cmek_dek_state_name(enum cmek_dek_state state);

#endif
