/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_CALL_NOTE_H
#define CMEK_MOUNT_CALL_NOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kms/kms.h"

/*
 * A call of a key service (struct cmek_kms_call) in one flat piece, as the processes of a mount hand it on: the KMS agent to
 * the storage daemon, and that one to the auditor. The slot, its key and the volume are known where it arrives.
 */
#define CMEK_CALL_NOTE_REQUESTS 12 /* the last ones; so an event still fits into a page or two of the kernel's */
struct cmek_call_note {
	char operation[24];
	char provider[16];
	char version[512];
	uint32_t failure; /* enum cmek_kind; CMEK_E_NONE: it went well */
	uint32_t n_requests;
	uint64_t took_ms;
	uint64_t n_left_out;
	struct cmek_kms_receipt requests[CMEK_CALL_NOTE_REQUESTS];
};

void cmek_call_note_make(const struct cmek_kms_call *call, struct cmek_call_note *ret_note);
/* Of a note that came from another process: false, it is none; all texts end afterwards. */
bool cmek_call_note_check(struct cmek_call_note *note);
/* The call that it tells of; it borrows from note and failure, which gets the kind of error without its words. */
struct cmek_kms_call cmek_call_note_read(const struct cmek_call_note *note, struct cmek_error *failure);

#endif
