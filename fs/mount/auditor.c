/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Both ends of the conversation about a mount's events. It must not know why they come.
 */
#include "config.h"

#include "fs/mount/auditor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/volume/audit.h"

#define PROGRAM "cmekfs"

static const char *const event_names[CMEK_EVENT_TYPES] = {
	[CMEK_EVENT_MOUNT] = "volume.mount",
	[CMEK_EVENT_UNMOUNT] = "volume.unmount",
	[CMEK_EVENT_LOCKED] = "volume.locked",
	[CMEK_EVENT_UNLOCKED] = "volume.unlocked",
	[CMEK_EVENT_READ_ONLY] = "volume.read-only",
	[CMEK_EVENT_READ_WRITE] = "volume.read-write",
	[CMEK_EVENT_WATCH] = "watch.state",
	[CMEK_EVENT_KEY_STATE] = "key.state",
	[CMEK_EVENT_KEY_VERSION] = "key.new-version",
	[CMEK_EVENT_SLOT_REWRAP] = "slot.rewrap",
	[CMEK_EVENT_KMS_CALL] = "kms.call",
	[CMEK_EVENT_UNAUTHENTIC] = "data.unauthentic",
	[CMEK_EVENT_VERSION_STATE] = "key.version-state",
	[CMEK_EVENT_DEK_RETIRE] = "dek.retire",
	[CMEK_EVENT_DEK_DESTROY] = "dek.destroy",
};

const char *cmek_mount_event_name(enum cmek_mount_event_type type)
{
	return event_names[type];
}

void cmek_auditor_tell(int sock, const struct cmek_mount_event *event)
{
	static struct cmek_log_limit limit;
	ssize_t n;

	if (sock < 0)
		return;
	do {
		n = send(sock, event, sizeof(*event), MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "not in the audit log: %s: %s",
				 cmek_mount_event_name((enum cmek_mount_event_type)event->type),
				 errno == EAGAIN ? "its writer is busy" : "its writer is gone");
}

/* False: it is none. All texts end afterwards. */
static bool check(struct cmek_mount_event *event, size_t len)
{
	if (len != sizeof(*event) || event->type < CMEK_EVENT_MOUNT || event->type >= CMEK_EVENT_TYPES ||
	    event->failure >= CMEK_E_KIND_MAX || !cmek_call_note_check(&event->call))
		return false;
	event->label[sizeof(event->label) - 1] = '\0';
	event->key[sizeof(event->key) - 1] = '\0';
	event->version[sizeof(event->version) - 1] = '\0';
	event->was[sizeof(event->was) - 1] = '\0';
	event->state[sizeof(event->state) - 1] = '\0';
	event->reason[sizeof(event->reason) - 1] = '\0';
	event->stored[sizeof(event->stored) - 1] = '\0';
	return true;
}

static void write_event(const struct cmek_mount_event *told, const struct cmek_mount_opts *opts)
{
	static const uint8_t no_volume[16];
	static struct cmek_log_limit limit;
	struct cmek_error failure = CMEK_ERROR_INIT, err = CMEK_ERROR_INIT;
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	struct cmek_kms_call call;

	if (told->type == CMEK_EVENT_KMS_CALL) {
		call = cmek_call_note_read(&told->call, &failure);
		call.version = told->version;
		cmek_audit_kms_call(&call, &event);
	} else {
		if (told->failure != CMEK_E_NONE)
			(void)cmek_error_set(&failure, (enum cmek_kind)told->failure, EIO, "of the mount");
		event.version = told->version;
		event.failure = &failure;
	}
	event.name = event_names[told->type];
	event.program = PROGRAM;
	event.volume = memcmp(told->volume, no_volume, sizeof(no_volume)) != 0 ? told->volume : NULL;
	event.label = told->label;
	event.store = opts->store;
	event.key = told->key;
	event.slot = told->slot;
	event.dek = told->dek > 0 ? told->dek : 0;
	event.was = told->was;
	event.state = told->state;
	event.reason = told->reason;
	event.stored = told->stored;
	event.inode = told->inode;
	event.offset = told->offset != UINT64_MAX ? &told->offset : NULL;
	event.left_out = told->left_out;
	event.pid = getppid();
	if (told->type == CMEK_EVENT_MOUNT || told->type == CMEK_EVENT_UNMOUNT)
		event.mount_point = opts->mountpoint;
	if (cmek_audit_write(opts->config_path, &event, &err) != 0)
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "not in the audit log: %s: %s", event.name, err.text);
}

bool cmek_auditor_needs_directory(void)
{
	const char *given = secure_getenv("CMEKFS_AUDIT_LOG");

	return given && given[0] && given[0] != '/';
}

void cmek_auditor_serve(int sock, const struct cmek_mount_opts *opts)
{
	struct cmek_mount_event event;
	ssize_t n;

	for (;;) {
		n = recv(sock, &event, sizeof(event), MSG_TRUNC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		if (check(&event, (size_t)n))
			write_event(&event, opts);
	}
}
