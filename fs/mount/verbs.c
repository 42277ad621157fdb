/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the storage daemon answers on its control socket: one function for each command of doc/control.md. It must not
 * know how a request comes in. Every function may be called by several threads at once.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/mount/daemon_impl.h"
#include "fs/mount/metrics.h"

#define LOCK_REASON_MAX 200

static json_t *time_json(int64_t unix_seconds)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(unix_seconds, text);
	return json_string(text);
}

static json_t *slots_json(const struct cmek_volhdr *hdr)
{
	json_t *slots = json_array();
	size_t i;

	for (i = 0; i < hdr->n_slots; i++)
		json_array_append_new(slots, json_pack("{s:i, s:s, s:s, s:s, s:s}", "slot", (int)hdr->slots[i].id,
						       "purpose", hdr->slots[i].purpose, "provider",
						       hdr->slots[i].provider, "key", hdr->slots[i].resolved, "version",
						       hdr->slots[i].version));
	return slots;
}

static json_t *deks_json(const struct cmek_volhdr *hdr, const struct cmek_keyring *ring)
{
	json_t *deks = json_array();
	size_t i;

	for (i = 0; i < hdr->n_deks; i++) {
		const struct cmek_dek_entry *dek = &hdr->deks[i];

		json_array_append_new(deks, json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:I}", "id", (int)dek->id, "state",
						      cmek_dek_state_name(dek->state), "created", time_json(dek->created),
						      "retired", dek->retired ? time_json(dek->retired) : json_null(),
						      "destroy_after",
						      dek->destroy_after ? time_json(dek->destroy_after) : json_null(),
						      "destroyed", dek->destroyed ? time_json(dek->destroyed) : json_null(),
						      "sealed_bytes",
						      (json_int_t)cmek_keyring_sealed_bytes(ring, dek->id)));
	}
	return deks;
}

static json_t *header_json(struct daemon *d)
{
	const struct cmek_volhdr *hdr;
	char uuid[CMEK_UUID_TEXT];
	json_t *json;

	(void)pthread_mutex_lock(&d->header_lock);
	hdr = cmek_volhdr_store_header(d->header);
	cmek_uuid_encode(hdr->uuid, uuid);
	json = json_pack("{s:s, s:s, s:i, s:I, s:o, s:o}", "uuid", uuid, "label", hdr->label, "block_size",
			 (int)hdr->block_size, "sequence", (json_int_t)hdr->sequence, "slots", slots_json(hdr), "deks",
			 deks_json(hdr, d->ring));
	(void)pthread_mutex_unlock(&d->header_lock);
	return json;
}

static json_t *content_json(const struct cmek_content_status *status)
{
	return json_pack("{s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)status->files, "waiting_files",
			 (json_int_t)status->waiting_files, "waiting_bytes", (json_int_t)status->waiting_bytes,
			 "oldest_s", (double)status->oldest_ms / 1000, "map_pages", (json_int_t)status->map_pages,
			 "read_bytes", (json_int_t)status->read_bytes, "written_bytes",
			 (json_int_t)status->written_bytes, "map_page_hits", (json_int_t)status->map_hits,
			 "map_page_misses", (json_int_t)status->map_misses, "key_hits", (json_int_t)status->key_hits,
			 "key_misses", (json_int_t)status->key_misses);
}

static json_t *journal_json(const struct cmek_content_status *status)
{
	if (!status->has_journal)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:s?}", "length_bytes",
			 (json_int_t)status->journal_length_bytes, "used_bytes", (json_int_t)status->journal_used_bytes,
			 "records", (json_int_t)status->journal_records, "oldest_s",
			 (double)status->journal_oldest_ms / 1000, "appends", (json_int_t)status->journal_appends,
			 "flushes", (json_int_t)status->journal_flushes, "checkpoints",
			 (json_int_t)status->journal_checkpoints, "appended_bytes",
			 (json_int_t)status->journal_appended_bytes, "error",
			 status->journal_error ? strerror(-status->journal_error) : NULL);
}

static json_t *room_json(const struct daemon *d)
{
	struct cmek_room_status room;

	if (!d->room)
		return json_null();
	cmek_room_status(d->room, &room);
	return json_pack("{s:s, s:b, s:I, s:I, s:I}", "level", cmek_room_level_name(room.level), "full", room.level >= CMEK_ROOM_FULL,
			 "kept_bytes", (json_int_t)room.kept_bytes, "reserve_bytes", (json_int_t)room.reserve_bytes,
			 "reserve_held_bytes", (json_int_t)room.held_bytes);
}

static json_t *requests_json(struct daemon *d)
{
	const struct cmek_gate *gate = cmek_session_gate(d->session);
	json_t *json = json_pack("{s:I}", "refused", (json_int_t)cmek_gate_refused(gate));
	struct cmek_gate_op op;
	unsigned i;

	for (i = 0; cmek_gate_op(gate, i, &op); i++) {
		if (op.n > 0)
			json_object_set_new(json, op.name, json_pack("{s:I, s:I, s:f}", "n", (json_int_t)op.n, "failed",
								     (json_int_t)op.failed, "seconds",
								     (double)op.total_ns / 1e9));
	}
	return json;
}

/* Calls of each cipher, as {"gcm": {"seals": ...}, "siv": ...}. */
static json_t *crypto_json(void)
{
	static const char *const names[CMEK_AEADS] = { [CMEK_AEAD_GCM] = "gcm", [CMEK_AEAD_SIV] = "siv" };
	struct cmek_aead_counts counts;
	json_t *json = json_object();
	int i;

	cmek_crypto_counts(&counts);
	for (i = 0; i < CMEK_AEADS; i++)
		json_object_set_new(json, names[i], json_pack("{s:I, s:I, s:I, s:I, s:I}",
			"seals", (json_int_t)counts.of[i].seals, "opens", (json_int_t)counts.of[i].opens,
			"sealed_bytes", (json_int_t)counts.of[i].sealed_bytes,
			"opened_bytes", (json_int_t)counts.of[i].opened_bytes,
			"failures", (json_int_t)counts.of[i].failures));
	return json;
}

static void add_state(struct daemon *d, json_t *json)
{
	int failed = cmek_content_failed(d->content);

	(void)pthread_mutex_lock(&d->state_lock);
	json_object_set_new(json, "state", json_string(cmek_lock_state_name(d->lock_state)));
	if (d->lock_state != CMEK_UNLOCKED) {
		json_object_set_new(json, "locked_since", time_json(d->lock_since));
		json_object_set_new(json, "lock_reason", json_string(d->lock_reason));
	}
	if (*d->refuses_writes)
		json_object_set_new(json, "read_only_reason", json_string(d->refuses_writes));
	else if (failed < 0)
		json_object_set_new(json, "read_only_reason",
				    json_sprintf("the store or the journal failed (%s): mount it anew", strerror(-failed)));
	(void)pthread_mutex_unlock(&d->state_lock);
}

static int no_memory(struct cmek_error *err)
{
	return cmek_error_sys(err, ENOMEM, "answering");
}

/* Of this process; resident_bytes is null where /proc does not say. */
static json_t *process_json(void)
{
	struct rusage usage = { 0 };
	unsigned long total, resident;
	json_t *memory = NULL;
	FILE *statm = fopen("/proc/self/statm", "re");

	if (statm && fscanf(statm, "%lu %lu", &total, &resident) == 2)
		memory = json_integer((json_int_t)resident * sysconf(_SC_PAGESIZE));
	if (statm)
		(void)fclose(statm); /* read only */
	(void)getrusage(RUSAGE_SELF, &usage); /* can't fail */
	return json_pack("{s:o, s:f}", "resident_bytes", memory ? memory : json_null(), "cpu_s",
			 (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
				 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

/* NULL: no memory. */
static json_t *status_json(struct daemon *d)
{
	struct cmek_content_status status;
	json_t *json;

	cmek_content_status(d->content, &status);
	json = json_pack("{s:s, s:s, s:s, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "store", d->opts->store,
			 "mount_point", d->opts->mountpoint, "program_version", PACKAGE_VERSION, "pid",
			 (json_int_t)getpid(), "read_only",
			 d->read_only || cmek_content_failed(d->content) < 0 ||
				 cmek_gate_state(cmek_session_gate(d->session)) == CMEK_GATE_READ_ONLY, "since", time_json(d->since), "volume",
			 header_json(d), "content", content_json(&status), "journal", journal_json(&status),
			 "requests", requests_json(d), "process", process_json());
	if (json) {
		add_state(d, json);
		json_object_set_new(json, "room", room_json(d));
		json_object_set_new(json, "crypto", crypto_json());
		json_object_set_new(json, "reencrypt", cmek_reencrypt_json(d->reencrypt));
		json_object_set_new(json, "watch", cmek_watcher_json(d->watcher));
	}
	return json;
}

static int verb_status(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	(void)request;
	*ret_result = status_json(arg);
	return *ret_result ? 0 : no_memory(err);
}

static int verb_metrics(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	struct daemon *d = arg;
	json_t *status = status_json(d);
	char *text = NULL;
	int rc = -ENOMEM;

	(void)request;
	if (status)
		rc = cmek_metrics_text(status, cmek_session_gate(d->session), &d->kms_counts, (int64_t)time(NULL), &text);
	if (rc == 0) {
		*ret_result = json_pack("{s:s}", "text", text);
		rc = *ret_result ? 0 : -ENOMEM;
	}
	free(text);
	json_decref(status);
	return rc == 0 ? 0 : no_memory(err);
}

/* Everything that this daemon has been given into the store, and that durable. */
static int verb_sync(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	struct daemon *d = arg;
	int rc;

	(void)request;
	(void)ret_result;
	rc = d->read_only ? 0 : cmek_content_commit_all(d->content);
	if (rc == 0 && !d->read_only)
		rc = cmek_tree_syncfs(d->tree);
	return rc == 0 ? 0 : cmek_error_sys(err, -rc, "writing everything to the store");
}

/* reason: for people, as the log and the status tell it. timeout_s: for what is under way to come to an end. */
static int verb_lock(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	const char *reason = "by hand";
	uint64_t timeout_s = CMEK_LOCK_TIMEOUT_S;
	struct daemon *d = arg;
	int rc = 0;

	(void)ret_result;
	if (cmek_json_has(request, "reason"))
		rc = cmek_json_string(request, "reason", &reason, err);
	if (rc == 0 && !cmek_slot_text_ok(reason, LOCK_REASON_MAX, false))
		rc = cmek_json_bad(request, "reason", "is too long, or has characters that can't be shown", err);
	if (rc == 0 && cmek_json_has(request, "timeout_s"))
		rc = cmek_json_uint(request, "timeout_s", 1, 86400, &timeout_s, err);
	if (rc != 0)
		return rc;
	cmek_watcher_give_up_lock(d->watcher);
	return cmek_daemon_lock(d, reason, (unsigned)timeout_s, err);
}

/* timeout_s: as for lock. */
static int verb_shred(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	uint64_t timeout_s = CMEK_LOCK_TIMEOUT_S;
	int rc = 0;

	(void)ret_result;
	if (cmek_json_has(request, "timeout_s"))
		rc = cmek_json_uint(request, "timeout_s", 1, 86400, &timeout_s, err);
	return rc == 0 ? cmek_daemon_shred(arg, (unsigned)timeout_s, err) : rc;
}

static int verb_unlock(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	struct daemon *d = arg;
	int rc = cmek_daemon_unlock(d, err);

	(void)request;
	(void)ret_result;
	if (rc == 0)
		cmek_watcher_unlocked(d->watcher);
	return rc;
}

static int verb_reload_keys(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	uint16_t dek = 0;
	int rc = cmek_daemon_reload_keys(arg, &dek, err);

	(void)request;
	if (rc != 0)
		return rc;
	*ret_result = json_pack("{s:o}", "active_dek", dek ? json_integer(dek) : json_null());
	return *ret_result ? 0 : no_memory(err);
}

static int reencrypt_action(struct daemon *d, const struct cmek_json_at *request, const char *action,
			    struct cmek_error *err)
{
	uint64_t rate = CMEK_REENCRYPT_KEEP, grace_s = CMEK_REENCRYPT_KEEP;
	int rc = 0;

	if (strcmp(action, "status") == 0)
		return 0;
	if (strcmp(action, "pause") == 0)
		return cmek_reencrypt_pause(d->reencrypt, err);
	if (strcmp(action, "stop") == 0)
		return cmek_reencrypt_stop(d->reencrypt, err);
	if (strcmp(action, "start") != 0)
		return cmek_json_bad(request, "action", "is none of start, pause, stop, status", err);
	if (cmek_json_has(request, "rate_bytes"))
		rc = cmek_json_uint(request, "rate_bytes", 0, INT64_MAX, &rate, err);
	if (rc == 0 && cmek_json_has(request, "grace_s"))
		rc = cmek_json_uint(request, "grace_s", 0, CMEK_REENCRYPT_GRACE_MAX_S, &grace_s, err);
	return rc == 0 ? cmek_reencrypt_start(d->reencrypt, rate, grace_s, err) : rc;
}

/*
 * action: start (rate_bytes: a second, 0 = no limit; grace_s: see cmek_reencrypt_start()), pause, stop, status. Answers with
 * the state after it.
 */
static int verb_reencrypt(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	const char *action = "status";
	struct daemon *d = arg;
	int rc = 0;

	if (!d->reencrypt)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EROFS, "a mount that is read-only or has no journal can't "
				      "re-encrypt");
	if (cmek_json_has(request, "action"))
		rc = cmek_json_string(request, "action", &action, err);
	if (rc == 0)
		rc = reencrypt_action(d, request, action, err);
	if (rc != 0)
		return rc;
	*ret_result = cmek_reencrypt_json(d->reencrypt);
	return *ret_result ? 0 : no_memory(err);
}

static int verb_watch(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	struct daemon *d = arg;
	struct cmek_json_at settings = { .value = NULL };
	int rc = 0;

	if (cmek_json_has(request, "settings"))
		rc = cmek_json_object(request, "settings", &settings, err);
	return rc == 0 ? cmek_watcher_set(d->watcher, settings.value, ret_result, err) : rc;
}

const struct cmek_control_verb cmek_daemon_verbs[] = {
	{ "lock", verb_lock },
	{ "metrics", verb_metrics },
	{ "reencrypt", verb_reencrypt },
	{ "reload-keys", verb_reload_keys },
	{ "shred", verb_shred },
	{ "status", verb_status },
	{ "sync", verb_sync },
	{ "unlock", verb_unlock },
	{ "watch", verb_watch },
	{ NULL, NULL },
};
