/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From the status of a mount and its counters to Prometheus text. It must not know the daemon, nor how anything is found
 * out: what is in the status is told, what is not is left out.
 */
#include "config.h"

#include "fs/mount/metrics.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/promtext.h"
#include "base/text.h"
#include "fs/mount/lock_state.h"
#include "fs/mount/reencrypt.h"
#include "fs/mount/watch.h"

struct text {
	FILE *out;
	const char *volume, *mountpoint; /* of the status */
};

/* Pairs of a label's name and its value, ended by NULL. */
#define NO_LABELS ((const char *const[]){ NULL })
#define ONE_LABEL(name, value) ((const char *const[]){ (name), (value), NULL })
#define TWO_LABELS(name, value, name2, value2) ((const char *const[]){ (name), (value), (name2), (value2), NULL })

static void head(const struct text *t, const char *name, const char *type, const char *help)
{
	cmek_promtext_head(t->out, name, type, help);
}

/* Counts up to 2^53 are exact in a double, which is what Prometheus keeps anyway. */
static void sample(const struct text *t, const char *name, const char *suffix, const char *const *labels, double value)
{
	(void)fprintf(t->out, "%s%s{", name, suffix);
	cmek_promtext_label(t->out, "volume", t->volume);
	(void)fputc(',', t->out);
	cmek_promtext_label(t->out, "mountpoint", t->mountpoint);
	for (; *labels; labels += 2) {
		(void)fputc(',', t->out);
		cmek_promtext_label(t->out, labels[0], labels[1]);
	}
	(void)fprintf(t->out, "} %.16g\n", value);
}

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

/* False: the status does not tell this time. */
static bool time_of(const json_t *json, const char *name, int64_t *ret_unix_seconds)
{
	return cmek_time_decode(text_of(json, name), ret_unix_seconds) == 0;
}

/* ---- numbers of the status, as they are ---- */

static const struct row {
	const char *object, *member; /* of the status; object NULL: the status itself */
	const char *name, *type, *help;
} rows[] = {
	{ NULL, "read_only", "cmekfs_read_only", "gauge", "Whether nothing can be written, by the mount's options, its key watch, or after a failure." },
	{ "content", "files", "cmekfs_open_files", "gauge", "Files that are open, or have changes." },
	{ "content", "waiting_files", "cmekfs_waiting_files", "gauge", "Files with changes that are in memory only." },
	{ "content", "waiting_bytes", "cmekfs_waiting_bytes", "gauge", "Memory that changes take which are in memory only." },
	{ "content", "oldest_s", "cmekfs_waiting_oldest_seconds", "gauge", "How long the oldest of them has waited." },
	{ "room", "full", "cmekfs_store_full", "gauge", "Whether files that grow are refused, and then new ones, for want of room in the store." },
	{ "room", "reserve_bytes", "cmekfs_reserve_bytes", "gauge", "Room of the store that should be set aside for data that was written already." },
	{ "room", "reserve_held_bytes", "cmekfs_reserve_held_bytes", "gauge", "Room that is; the rest is being used." },
	{ "content", "map_pages", "cmekfs_map_pages", "gauge", "Decoded map pages in memory." },
	{ "content", "read_bytes", "cmekfs_read_bytes_total", "counter", "Contents of files that were read, not counting what the kernel had in its cache." },
	{ "content", "written_bytes", "cmekfs_written_bytes_total", "counter", "Contents of files that were written." },
	{ "journal", "length_bytes", "cmekfs_journal_size_bytes", "gauge", "Size of the journal." },
	{ "journal", "used_bytes", "cmekfs_journal_used_bytes", "gauge", "What a replay of the journal would read." },
	{ "journal", "records", "cmekfs_journal_records", "gauge", "Records that a replay of the journal would read." },
	{ "journal", "oldest_s", "cmekfs_journal_oldest_seconds", "gauge", "Age of the oldest of them." },
	{ "journal", "appends", "cmekfs_journal_appends_total", "counter", "Files whose changes were put into the journal." },
	{ "journal", "flushes", "cmekfs_journal_flushes_total", "counter", "Commits: flushes of the journal, each of one record." },
	{ "journal", "appended_bytes", "cmekfs_journal_appended_bytes_total", "counter", "Bytes of the records that have these." },
	{ "journal", "checkpoints", "cmekfs_journal_checkpoints_total", "counter", "Times that the journal was emptied." },
	{ "reencrypt", "bytes_total", "cmekfs_reencrypt_bytes", "gauge", "Contents that re-encryption has to look at." },
	{ "reencrypt", "bytes_done", "cmekfs_reencrypt_done_bytes", "gauge", "Contents that its pass has looked at." },
	{ "reencrypt", "bytes_moved", "cmekfs_reencrypt_moved_bytes_total", "counter", "Contents that it has moved to the active data key." },
	{ "process", "resident_bytes", "cmekfs_process_resident_memory_bytes", "gauge", "Memory of the storage daemon." },
	{ "process", "cpu_s", "cmekfs_process_cpu_seconds_total", "counter", "Processor time of the storage daemon." },
};

static void tell_rows(const struct text *t, const json_t *status)
{
	const json_t *object, *value;
	const struct row *row;
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		row = rows + i;
		object = row->object ? json_object_get(status, row->object) : status;
		value = json_object_get(object, row->member);
		if (!json_is_number(value) && !json_is_boolean(value))
			continue;
		head(t, row->name, row->type, row->help);
		sample(t, row->name, "", NO_LABELS,
		       json_is_boolean(value) ? (double)json_is_true(value) : json_number_value(value));
	}
}

/* ---- states: one sample for each there is, 1 for the one that it is ---- */

static const char *lock_state(int i)
{
	return i < CMEK_LOCK_STATES ? cmek_lock_state_name((enum cmek_lock_state)i) : NULL;
}

static const char *reencrypt_state(int i)
{
	return i < CMEK_REENCRYPT_STATES ? cmek_reencrypt_state_name((unsigned)i) : NULL;
}

static const char *watch_state(int i)
{
	return i < CMEK_WATCH_STATES ? cmek_watch_state_name((enum cmek_watch_state)i) : NULL;
}

/* in: its member "state". slot NULL: it is of no slot. state_name: of the i-th, NULL behind the last. */
static void tell_state(const struct text *t, const char *name, const json_t *in, const char *slot,
		       const char *(*state_name)(int i))
{
	const char *is = text_of(in, "state"), *state;
	int i;

	for (i = 0; (state = state_name(i)) != NULL; i++)
		sample(t, name, "", slot ? TWO_LABELS("slot", slot, "state", state) : ONE_LABEL("state", state),
		       strcmp(is, state) == 0);
}

static void tell_mount(const struct text *t, const json_t *status)
{
	const json_t *journal = json_object_get(status, "journal");
	int64_t since;

	head(t, "cmekfs_info", "gauge", "The mount: version of the program and label of the volume. Always 1.");
	sample(t, "cmekfs_info", "",
	       TWO_LABELS("version", text_of(status, "program_version"), "label",
			  text_of(json_object_get(status, "volume"), "label")), 1);
	if (time_of(status, "since", &since)) {
		head(t, "cmekfs_mount_start_time_seconds", "gauge", "When it was mounted, as Unix time.");
		sample(t, "cmekfs_mount_start_time_seconds", "", NO_LABELS, (double)since);
	}
	head(t, "cmekfs_lock_state", "gauge", "1 for the state that the mount is in, else 0.");
	tell_state(t, "cmekfs_lock_state", status, NULL, lock_state);
	if (json_is_object(journal)) {
		head(t, "cmekfs_journal_failed", "gauge", "Whether the journal has failed: nothing more can be made durable.");
		sample(t, "cmekfs_journal_failed", "", NO_LABELS, json_is_string(json_object_get(journal, "error")));
	}
}

/* ---- elements of an array, each with its number as a label ---- */

struct number {
	char text[24];
};

static struct number number_of(const json_t *element, const char *member)
{
	struct number number;

	(void)snprintf(number.text, sizeof(number.text), "%lld", (long long)json_integer_value(json_object_get(element, member)));
	return number;
}

/* One sample for each. value_member: a number, or what counts 1 when it is a text and 0 when it is null. */
static void tell_elements(const struct text *t, const char *name, const json_t *elements, const char *label_name,
			  const char *number_member, const char *value_member)
{
	const json_t *element, *value;
	size_t i;

	json_array_foreach(elements, i, element) {
		value = json_object_get(element, value_member);
		sample(t, name, "", ONE_LABEL(label_name, number_of(element, number_member).text),
		       json_is_number(value) ? json_number_value(value) : json_is_string(value));
	}
}

static void tell_slots(const struct text *t, const json_t *slots)
{
	const json_t *slot;
	size_t i;

	head(t, "cmekfs_key_slot_state", "gauge", "1 for the state that the key of the slot is in, else 0.");
	json_array_foreach(slots, i, slot)
		tell_state(t, "cmekfs_key_slot_state", slot, number_of(slot, "slot").text, watch_state);
	head(t, "cmekfs_key_slot_newer_version", "gauge", "Whether the key has a newer version than the slot was wrapped under.");
	tell_elements(t, "cmekfs_key_slot_newer_version", slots, "slot", "slot", "newer_version");
	/* Of the versions that the header needs, which the service may tell apart. */
	head(t, "cmekfs_key_slot_version_at_risk", "gauge", "Whether the version of the key that the slot was wrapped under is disabled, or will be or is destroyed.");
	tell_elements(t, "cmekfs_key_slot_version_at_risk", slots, "slot", "slot", "version_state");
}

static void tell_watch(const struct text *t, const json_t *watch, int64_t now)
{
	const json_t *slots = json_object_get(watch, "slots");
	int64_t good;

	if (!json_is_object(watch))
		return;
	head(t, "cmekfs_key_state", "gauge", "1 for the state that the key watch has found the volume's keys in, else 0.");
	tell_state(t, "cmekfs_key_state", watch, NULL, watch_state);
	if (time_of(watch, "last_good", &good)) {
		head(t, "cmekfs_key_last_good_timestamp_seconds", "gauge", "When the keys could be had last, as Unix time.");
		sample(t, "cmekfs_key_last_good_timestamp_seconds", "", NO_LABELS, (double)good);
		head(t, "cmekfs_key_last_good_age_seconds", "gauge", "How long ago that was when this was asked for.");
		sample(t, "cmekfs_key_last_good_age_seconds", "", NO_LABELS, now > good ? (double)(now - good) : 0);
	}
	if (json_array_size(slots) > 0)
		tell_slots(t, slots);
}

/* ---- counters ---- */

/* One counter for two things that are kept in memory. */
static void tell_caches(const struct text *t, const json_t *content)
{
	static const struct {
		const char *name, *hits, *misses;
	} caches[] = { { "map_page", "map_page_hits", "map_page_misses" }, { "content_key", "key_hits", "key_misses" } };
	size_t i;

	if (!json_is_object(content))
		return;
	head(t, "cmekfs_cache_hits_total", "counter", "What was wanted and in memory.");
	for (i = 0; i < sizeof(caches) / sizeof(caches[0]); i++)
		sample(t, "cmekfs_cache_hits_total", "", ONE_LABEL("cache", caches[i].name),
		       json_number_value(json_object_get(content, caches[i].hits)));
	head(t, "cmekfs_cache_misses_total", "counter", "What was wanted and had to be read, or derived.");
	for (i = 0; i < sizeof(caches) / sizeof(caches[0]); i++)
		sample(t, "cmekfs_cache_misses_total", "", ONE_LABEL("cache", caches[i].name),
		       json_number_value(json_object_get(content, caches[i].misses)));
}

/* The same two numbers, of sealing and of opening, for each cipher. */
static void tell_aead(const struct text *t, const json_t *crypto, const char *name, const char *help, const char *seal,
		      const char *open)
{
	const json_t *of;
	const char *cipher;

	head(t, name, "counter", help);
	/* The cast is jansson's: its iterators are not const. */
	json_object_foreach((json_t *)crypto, cipher, of) {
		sample(t, name, "", TWO_LABELS("cipher", cipher, "op", "seal"), json_number_value(json_object_get(of, seal)));
		sample(t, name, "", TWO_LABELS("cipher", cipher, "op", "open"), json_number_value(json_object_get(of, open)));
	}
}

static void tell_crypto(const struct text *t, const json_t *crypto, const json_t *deks)
{
	const json_t *of;
	const char *cipher;

	if (!json_is_object(crypto))
		return;
	tell_aead(t, crypto, "cmekfs_aead_calls_total", "Calls of a cipher: gcm for contents, map pages, journal and attributes, siv for names.", "seals", "opens");
	tell_aead(t, crypto, "cmekfs_aead_bytes_total", "Bytes of text in these calls.", "sealed_bytes", "opened_bytes");
	head(t, "cmekfs_aead_failures_total", "counter", "Openings that did not authenticate.");
	json_object_foreach((json_t *)crypto, cipher, of)
		sample(t, "cmekfs_aead_failures_total", "", ONE_LABEL("cipher", cipher),
		       json_number_value(json_object_get(of, "failures")));
	if (json_array_size(deks) == 0)
		return;
	head(t, "cmekfs_dek_sealed_bytes_total", "counter", "Bytes that were encrypted under each data key since the mount.");
	tell_elements(t, "cmekfs_dek_sealed_bytes_total", deks, "dek", "id", "sealed_bytes");
}

static void tell_reencrypt(const struct text *t, const json_t *reencrypt)
{
	if (!json_is_object(reencrypt))
		return;
	head(t, "cmekfs_reencrypt_state", "gauge", "1 for the state that re-encryption is in, else 0.");
	tell_state(t, "cmekfs_reencrypt_state", reencrypt, NULL, reencrypt_state);
}

static void tell_durations(const struct text *t, const struct cmek_gate *gate)
{
	struct cmek_gate_op op;
	uint64_t n;
	char bound[32];
	unsigned i, k;

	head(t, "cmekfs_request_duration_seconds", "histogram", "Requests of the kernel that were served, and how long they took.");
	for (i = 0; cmek_gate_op(gate, i, &op); i++) {
		if (op.n == 0)
			continue;
		/* Others count meanwhile: the buckets say how many there are, so that these agree with each other. */
		for (n = 0, k = 0; k < CMEK_GATE_BUCKETS; k++) {
			n += op.buckets[k];
			if (isinf(cmek_gate_bucket_s[k]))
				(void)snprintf(bound, sizeof(bound), "+Inf");
			else
				(void)snprintf(bound, sizeof(bound), "%g", cmek_gate_bucket_s[k]);
			sample(t, "cmekfs_request_duration_seconds", "_bucket", TWO_LABELS("op", op.name, "le", bound), (double)n);
		}
		sample(t, "cmekfs_request_duration_seconds", "_sum", ONE_LABEL("op", op.name), (double)op.total_ns / 1e9);
		sample(t, "cmekfs_request_duration_seconds", "_count", ONE_LABEL("op", op.name), (double)n);
	}
}

static void tell_requests(const struct text *t, const struct cmek_gate *gate)
{
	struct cmek_gate_op op;
	unsigned i;

	tell_durations(t, gate);
	head(t, "cmekfs_request_errors_total", "counter", "Requests of the kernel that were answered with an error.");
	for (i = 0; cmek_gate_op(gate, i, &op); i++) {
		if (op.n > 0)
			sample(t, "cmekfs_request_errors_total", "", ONE_LABEL("op", op.name), (double)op.failed);
	}
	head(t, "cmekfs_requests_refused_total", "counter", "Requests of the kernel that were refused because the volume was locked, or read-only by its key watch.");
	sample(t, "cmekfs_requests_refused_total", "", NO_LABELS, (double)cmek_gate_refused(gate));
}

static void tell_kms(const struct text *t, const struct cmek_agent_counts *counts)
{
	uint64_t n, total[CMEK_AGENT_CALLS] = { 0 };
	int call, kind;

	head(t, "cmekfs_kms_calls_total", "counter", "Questions to key services by their outcome, which is ok or the kind of an error.");
	for (call = 0; call < CMEK_AGENT_CALLS; call++) {
		for (kind = 0; kind < CMEK_E_KIND_MAX; kind++) {
			n = atomic_load(&counts->calls[call].outcomes[kind]);
			total[call] += n;
			if (n > 0 || kind == CMEK_E_NONE)
				sample(t, "cmekfs_kms_calls_total", "",
				       TWO_LABELS("call", cmek_agent_call_name(call), "outcome",
						  kind == CMEK_E_NONE ? "ok" : cmek_kind_name((enum cmek_kind)kind)), (double)n);
		}
	}
	head(t, "cmekfs_kms_call_duration_seconds", "summary", "How long questions to key services took, repetitions included.");
	for (call = 0; call < CMEK_AGENT_CALLS; call++) {
		sample(t, "cmekfs_kms_call_duration_seconds", "_sum", ONE_LABEL("call", cmek_agent_call_name(call)),
		       (double)atomic_load(&counts->calls[call].total_ns) / 1e9);
		sample(t, "cmekfs_kms_call_duration_seconds", "_count", ONE_LABEL("call", cmek_agent_call_name(call)), (double)total[call]);
	}
}

int cmek_metrics_text(const json_t *status, const struct cmek_gate *gate, const struct cmek_agent_counts *counts,
		      int64_t now, char **ret_text)
{
	struct text t = { NULL, text_of(json_object_get(status, "volume"), "uuid"), text_of(status, "mount_point") };
	char *buf = NULL;
	size_t len = 0;
	bool failed;

	t.out = open_memstream(&buf, &len);
	if (!t.out)
		return -ENOMEM;
	tell_mount(&t, status);
	tell_rows(&t, status);
	tell_caches(&t, json_object_get(status, "content"));
	tell_crypto(&t, json_object_get(status, "crypto"), json_object_get(json_object_get(status, "volume"), "deks"));
	tell_reencrypt(&t, json_object_get(status, "reencrypt"));
	tell_watch(&t, json_object_get(status, "watch"), now);
	tell_requests(&t, gate);
	tell_kms(&t, counts);
	failed = ferror(t.out);
	failed = fclose(t.out) != 0 || failed;
	if (failed) {
		free(buf);
		return -ENOMEM;
	}
	*ret_text = buf;
	return 0;
}
