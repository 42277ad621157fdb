/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Calls of key services between a mount's processes. It must not know which process tells which.
 */
#include "config.h"

#include "fs/mount/call_note.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void cmek_call_note_make(const struct cmek_kms_call *call, struct cmek_call_note *ret_note)
{
	size_t from = call->n_requests > CMEK_CALL_NOTE_REQUESTS ? call->n_requests - CMEK_CALL_NOTE_REQUESTS : 0;

	memset(ret_note, 0, sizeof(*ret_note));
	(void)snprintf(ret_note->operation, sizeof(ret_note->operation), "%s", call->operation);
	(void)snprintf(ret_note->provider, sizeof(ret_note->provider), "%s", call->provider);
	(void)snprintf(ret_note->version, sizeof(ret_note->version), "%s", call->version ? call->version : "");
	if (cmek_error_is_set(call->failure))
		ret_note->failure = (uint32_t)call->failure->kind;
	ret_note->took_ms = call->took_ms;
	ret_note->n_left_out = call->n_left_out + from;
	ret_note->n_requests = (uint32_t)(call->n_requests - from);
	if (ret_note->n_requests > 0)
		memcpy(ret_note->requests, call->requests + from, ret_note->n_requests * sizeof(ret_note->requests[0]));
}

bool cmek_call_note_check(struct cmek_call_note *note)
{
	size_t i;

	if (note->failure >= CMEK_E_KIND_MAX || note->n_requests > CMEK_CALL_NOTE_REQUESTS)
		return false;
	note->operation[sizeof(note->operation) - 1] = '\0';
	note->provider[sizeof(note->provider) - 1] = '\0';
	note->version[sizeof(note->version) - 1] = '\0';
	for (i = 0; i < CMEK_CALL_NOTE_REQUESTS; i++) {
		note->requests[i].what[sizeof(note->requests[i].what) - 1] = '\0';
		note->requests[i].request_id[sizeof(note->requests[i].request_id) - 1] = '\0';
	}
	return true;
}

struct cmek_kms_call cmek_call_note_read(const struct cmek_call_note *note, struct cmek_error *failure)
{
	cmek_error_clear(failure);
	if (note->failure != CMEK_E_NONE)
		(void)cmek_error_set(failure, (enum cmek_kind)note->failure, EIO, "of the mount");
	return (struct cmek_kms_call){
		.operation = note->operation, .provider = note->provider, .version = note->version, .failure = failure,
		.took_ms = note->took_ms, .requests = note->requests, .n_requests = note->n_requests,
		.n_left_out = note->n_left_out,
	};
}
