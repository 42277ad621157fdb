/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl rewrap: the same key encryption key, wrapped under the newest version of the slots' keys or under another key;
 * one volume, or all of this host's. No data is read or written, and no mount notices.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "fs/volume/registry.h"
#include "tools/ctl.h"

enum { OPT_SLOT = 256, OPT_TO, OPT_ALL, OPT_JOBS, OPT_FORCE };

#define JOBS_DEFAULT 4
#define JOBS_MAX 64

struct rewrap {
	struct cmek_tool *tool;
	int slot;       /* -1 = all */
	const char *to; /* NULL = the slots' own keys */
	bool force;
	struct cmek_ctl_new_key key;
	struct cmek_ctl_unlock unlock;
};

enum outcome { UP_TO_DATE, REWRAPPED, FAILED };
static const char *const outcome_names[] = { "up-to-date", "rewrapped", "failed" };

struct slot_result {
	unsigned id;
	enum outcome outcome;
	char *resolved, *version;         /* before */
	char *new_resolved, *new_version; /* after */
	int behind;                       /* rotations since `version`, -1 = unknown */
	struct cmek_error err;
	struct cmek_ctl_needs needs; /* of what was before; backups NULL = not looked for */
};

struct volume_result {
	char uuid[CMEK_UUID_TEXT];
	char *store;
	struct slot_result slots[CMEK_SLOTS_MAX];
	size_t n_slots;
	bool committed;
	struct cmek_error err; /* what stopped all of it */
};

static void result_done(struct volume_result *result)
{
	size_t i;

	for (i = 0; i < result->n_slots; i++) {
		free(result->slots[i].resolved);
		free(result->slots[i].version);
		free(result->slots[i].new_resolved);
		free(result->slots[i].new_version);
		json_decref(result->slots[i].needs.backups);
	}
	free(result->store);
}

/* What the KMS says of the slot's key: 0 when the slot is under the newest version, -1 = it does not say. */
static int rotations_behind(const struct cmek_slot *slot, const struct cmek_kms_options *opts)
{
	struct cmek_kms_principal principal = cmek_slot_principal(slot);
	struct cmek_kms_info info = { 0 };
	struct cmek_kms *kms = NULL;
	int behind = -1;

	if (!cmek_kms_open(slot->resolved, &principal, opts, &kms, NULL) && !cmek_kms_describe(kms, &info, NULL))
		behind = cmek_ctl_rotations_since(&info, slot->version);
	cmek_kms_info_done(&info);
	cmek_kms_close(kms);
	return behind;
}

/* Puts a slot for the other key in the place of this one. */
static int replace_slot(const struct rewrap *rw, struct cmek_change *change, struct cmek_slot *slot,
			struct cmek_error *err)
{
	struct cmek_slot next = { 0 };
	int ret = cmek_ctl_new_key_wrap(&rw->key, &rw->unlock, rw->to, change, slot->id, slot->purpose, &next, err);

	if (ret)
		return ret;
	cmek_slot_done(slot);
	*slot = next;
	return 0;
}

static void rewrap_slot(const struct rewrap *rw, struct cmek_change *change, struct cmek_slot *slot,
			struct slot_result *result)
{
	const struct cmek_volhdr *old = cmek_change_old(change);
	int ret;

	result->id = slot->id;
	result->resolved = strdup(slot->resolved);
	result->version = strdup(slot->version);
	result->behind = rw->to ? -1 : rotations_behind(slot, &rw->unlock.kms);
	if (!rw->to && result->behind == 0 && !rw->force) {
		result->outcome = UP_TO_DATE;
		return;
	}
	if (rw->to)
		ret = replace_slot(rw, change, slot, &result->err);
	else
		ret = cmek_keyslot_rewrap(old->uuid, slot, &rw->unlock.kms, cmek_change_kek(change), &result->err);
	result->new_resolved = strdup(slot->resolved);
	result->new_version = strdup(slot->version);
	if (!ret && (!result->resolved || !result->version || !result->new_resolved || !result->new_version))
		ret = cmek_error_sys(&result->err, ENOMEM, "key slot %u", slot->id);
	result->outcome = ret ? FAILED : REWRAPPED;
}

static int rewrap_slots(const struct rewrap *rw, struct cmek_change *change, struct volume_result *result,
			struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	bool changed = false;
	size_t i;
	int ret = 0;

	if (rw->slot >= 0 && !cmek_volhdr_slot(hdr, (unsigned)rw->slot))
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENXIO, "the volume has no key slot %d", rw->slot);
	if (rw->to && rw->slot < 0 && hdr->n_slots > 1)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "the volume has %zu key slots: which one shall move to %s? Give --slot",
				      hdr->n_slots, rw->to);
	for (i = 0; i < hdr->n_slots; i++) {
		if (rw->slot >= 0 && hdr->slots[i].id != (unsigned)rw->slot)
			continue;
		rewrap_slot(rw, change, &hdr->slots[i], &result->slots[result->n_slots]);
		changed |= result->slots[result->n_slots++].outcome == REWRAPPED;
	}
	if (!changed)
		return 0;
	ret = cmek_ctl_commit(rw->tool, &rw->unlock, result->store, change, err);
	result->committed = !ret;
	for (i = 0; !ret && i < result->n_slots; i++)
		if (result->slots[i].outcome == REWRAPPED)
			ret = cmek_ctl_find_needs(cmek_change_old(change), result->slots[i].resolved,
						  result->slots[i].version, &result->slots[i].needs, err);
	return ret;
}

static void rewrap_volume(const struct rewrap *rw, const char *volume, struct volume_result *result)
{
	struct rewrap own = *rw; /* the configuration may say something else of each volume */
	struct cmek_change *change = NULL;
	int ret;

	ret = cmek_ctl_change_begin(rw->tool, volume, CMEK_STORE_CHANGE, &own.unlock, &result->store, &change,
				    &result->err);
	if (!ret) {
		cmek_uuid_encode(cmek_change_old(change)->uuid, result->uuid);
		(void)rewrap_slots(&own, change, result, &result->err); /* the error tells */
	}
	cmek_change_end(change);
	cmek_ctl_unlock_done(&own.unlock);
}

/* The error that stands for the volume: what stopped it, else that of the first slot that failed; NULL = none. */
static const struct cmek_error *failure_of(const struct volume_result *result)
{
	size_t i;

	if (cmek_error_is_set(&result->err))
		return &result->err;
	for (i = 0; i < result->n_slots; i++)
		if (result->slots[i].outcome == FAILED)
			return &result->slots[i].err;
	return NULL;
}

static json_t *slot_json(const struct slot_result *slot)
{
	bool failed = slot->outcome == FAILED;

	return json_pack("{s:i, s:s, s:s, s:s, s:s?, s:s?, s:o, s:b, s:O?, s:s?}", "slot", (int)slot->id, "outcome",
			 outcome_names[slot->outcome], "resolved", slot->resolved, "version", slot->version,
			 "new_resolved", failed ? NULL : slot->new_resolved, "new_version",
			 failed ? NULL : slot->new_version, "rotations_behind",
			 slot->behind < 0 ? json_null() : json_integer(slot->behind), "needed_by_header",
			 slot->needs.by_header, "needed_by_backups", slot->needs.backups, "problem",
			 failed ? slot->err.text : NULL);
}

static json_t *volume_json(const struct volume_result *result)
{
	const struct cmek_error *failure = failure_of(result);
	json_t *slots = json_array();
	size_t i;

	for (i = 0; i < result->n_slots; i++)
		json_array_append_new(slots, slot_json(&result->slots[i]));
	return json_pack("{s:s, s:s?, s:b, s:o, s:s?, s:s?}", "uuid", result->uuid, "store", result->store, "changed",
			 result->committed, "slots", slots, "kind", failure ? cmek_kind_name(failure->kind) : NULL,
			 "problem", failure ? failure->text : NULL);
}

static void say_needs(struct cmek_tool *tool, const struct cmek_ctl_needs *needs)
{
	json_t *path;
	size_t i;

	if (!needs->backups)
		return;
	if (needs->by_header)
		cmek_tool_say(tool, "  %s is needed still by this volume", needs->who);
	else if (!json_array_size(needs->backups))
		cmek_tool_say(tool, "  %s is no longer needed by this volume", needs->who);
	json_array_foreach(needs->backups, i, path)
		cmek_tool_say(tool, "  %s is needed still by a backup of the header: %s", needs->who,
			      json_string_value(path));
}

static void say_slot(struct cmek_tool *tool, const struct slot_result *slot)
{
	char before[CMEK_CTL_KEY_TEXT], after[CMEK_CTL_KEY_TEXT];

	cmek_ctl_key_text(slot->resolved, slot->version, before);
	switch (slot->outcome) {
	case UP_TO_DATE:
		cmek_tool_say(tool, "slot %u: %s is the newest version", slot->id, before);
		break;
	case FAILED:
		cmek_tool_say(tool, "slot %u: %s, unchanged: %s", slot->id, before, slot->err.text);
		break;
	default:
		cmek_tool_say(tool, "slot %u: %s -> %s", slot->id, before,
			      cmek_ctl_key_text(slot->new_resolved, slot->new_version, after));
		if (slot->behind > 1)
			cmek_tool_say(tool, "  the key had been rotated %d times since the slot was wrapped",
				      slot->behind);
		say_needs(tool, &slot->needs);
	}
}

static int run_one(const struct rewrap *rw, const char *volume)
{
	struct volume_result result = { .err = CMEK_ERROR_INIT };
	const struct cmek_error *failure;
	json_t *json;
	size_t i;
	int code;

	rewrap_volume(rw, volume, &result);
	failure = failure_of(&result);
	for (i = 0; !cmek_error_is_set(&result.err) && i < result.n_slots; i++)
		say_slot(rw->tool, &result.slots[i]);
	if (!failure || !cmek_error_is_set(&result.err)) {
		json = volume_json(&result);
		cmek_tool_json(rw->tool, &json);
	}
	if (failure && rw->tool->json && !cmek_error_is_set(&result.err))
		code = cmek_exit_code(failure->kind); /* one value on standard output: it has the story */
	else
		code = failure ? cmek_tool_fail(rw->tool, failure) : cmek_tool_done(rw->tool);
	result_done(&result);
	return code;
}

/* ---- all volumes ---- */

struct crew {
	const struct rewrap *rw;
	const struct cmek_registered *volumes;
	struct volume_result *results;
	size_t n;
	pthread_mutex_t lock; /* guards next */
	size_t next;
};

static void *work(void *arg)
{
	struct crew *crew = arg;
	size_t i;

	for (;;) {
		pthread_mutex_lock(&crew->lock);
		i = crew->next++;
		pthread_mutex_unlock(&crew->lock);
		if (i >= crew->n)
			return NULL;
		cmek_uuid_encode(crew->volumes[i].volume, crew->results[i].uuid);
		if (!crew->volumes[i].store)
			cmek_error_set(&crew->results[i].err, CMEK_E_NOT_FOUND, ENOENT,
				       "the registry does not say where its store is");
		else
			rewrap_volume(crew->rw, crew->volumes[i].store, &crew->results[i]);
		if (!crew->results[i].store && crew->volumes[i].store)
			crew->results[i].store = strdup(crew->volumes[i].store); /* for people: NULL is shown as "-" */
	}
}

/* Only one question at a time on the terminal. */
static int ask_in_turn(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int ret;

	pthread_mutex_lock(&lock);
	ret = cmek_tool_ask_passphrase(arg, prompt, ret_passphrase, err);
	pthread_mutex_unlock(&lock);
	return ret;
}

/* The calling thread works, too: when none can be started it does it alone. */
static void work_together(struct crew *crew, unsigned jobs)
{
	pthread_t threads[JOBS_MAX];
	unsigned n = 0, i;

	while (n + 1 < jobs && n + 1 < crew->n && !pthread_create(&threads[n], NULL, work, crew))
		n++;
	(void)work(crew);
	for (i = 0; i < n; i++)
		(void)pthread_join(threads[i], NULL); /* started above, so it can be joined */
}

static enum outcome outcome_of(const struct volume_result *result)
{
	if (failure_of(result))
		return FAILED;
	return result->committed ? REWRAPPED : UP_TO_DATE;
}

/* The table, and the exit code: that of the first volume that failed. */
static int tell_all(const struct rewrap *rw, const struct volume_result *results, size_t n)
{
	unsigned count[3] = { 0 };
	json_t *list = json_array(), *json;
	int code = CMEK_EXIT_OK;
	enum outcome outcome;
	size_t i;

	if (n)
		cmek_tool_say(rw->tool, "%-36s  %-10s  %s", "VOLUME", "RESULT", "STORE");
	for (i = 0; i < n; i++) {
		outcome = outcome_of(&results[i]);
		count[outcome]++;
		cmek_tool_say(rw->tool, "%-36s  %-10s  %s", results[i].uuid, outcome_names[outcome],
			      results[i].store ? results[i].store : "-");
		if (outcome == FAILED) {
			fprintf(stderr, "%s: %s: %s\n", rw->tool->program, results[i].store ? results[i].store : "-",
				failure_of(&results[i])->text);
			if (code == CMEK_EXIT_OK)
				code = cmek_exit_code(failure_of(&results[i])->kind);
		}
		json_array_append_new(list, volume_json(&results[i]));
	}
	cmek_tool_say(rw->tool, "%u rewrapped, %u up to date, %u failed", count[REWRAPPED], count[UP_TO_DATE],
		      count[FAILED]);
	json = json_pack("{s:o, s:i, s:i, s:i}", "volumes", list, "rewrapped", (int)count[REWRAPPED], "up_to_date",
			 (int)count[UP_TO_DATE], "failed", (int)count[FAILED]);
	cmek_tool_json(rw->tool, &json);
	return code == CMEK_EXIT_OK ? cmek_tool_done(rw->tool) : code;
}

static int run_all(struct rewrap *rw, unsigned jobs)
{
	struct crew crew = { .rw = rw };
	struct cmek_registered *volumes = NULL;
	struct cmek_registry *registry = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;
	size_t n = 0, i;
	int ret, code;

	rw->unlock.kms.ask_passphrase = ask_in_turn;
	ret = cmek_registry_new(NULL, &registry, &err);
	if (!ret)
		ret = cmek_registry_list(registry, &volumes, &n, &err);
	if (!ret) {
		crew.results = calloc(n + 1, sizeof(*crew.results));
		ret = crew.results ? 0 : cmek_error_sys(&err, ENOMEM, "the volumes of this host");
	}
	if (!ret) {
		crew.volumes = volumes;
		crew.n = n;
		pthread_mutex_init(&crew.lock, NULL);
		work_together(&crew, jobs);
		pthread_mutex_destroy(&crew.lock);
	}
	code = ret ? cmek_tool_fail(rw->tool, &err) : tell_all(rw, crew.results, n);
	for (i = 0; crew.results && i < n; i++)
		result_done(&crew.results[i]);
	free(crew.results);
	cmek_registry_list_free(volumes, n);
	cmek_registry_free(registry);
	return code;
}

int cmek_ctl_rewrap(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_SLOT, "slot", "N", "this key slot only" },
		{ OPT_TO, "to", "KEY", "wrap under this key, in the slot's place" },
		{ OPT_ALL, "all", NULL, "all volumes in this host's registry" },
		{ OPT_JOBS, "jobs", "N", "with --all: at most so many volumes at once [4]" },
		{ OPT_FORCE, "force", NULL, "also slots that are under the newest version already" },
		CMEK_CTL_NEW_KEY_OPTIONS,
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME | --all",
		.about = "Wraps the volume's key encryption key anew, under the newest version of the slots' keys: after a\n"
			 "rotation, so that older versions are no longer needed. No data is rewritten.",
		.options = options, .min_operands = 0, .max_operands = 1,
	};
	struct rewrap rw = { .tool = tool, .slot = -1 };
	struct cmek_tool_args args;
	unsigned jobs = JOBS_DEFAULT;
	bool all = false;
	int id;

	cmek_ctl_unlock_init(&rw.unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (cmek_ctl_unlock_option(&rw.unlock, &args, id) || cmek_ctl_new_key_option(&rw.key, &args, id))
			continue;
		if (id == OPT_SLOT)
			rw.slot = (int)cmek_tool_number(&args, 0, CMEK_SLOTS_MAX - 1);
		else if (id == OPT_TO)
			rw.to = args.value;
		else if (id == OPT_ALL)
			all = true;
		else if (id == OPT_JOBS)
			jobs = (unsigned)cmek_tool_number(&args, 1, JOBS_MAX);
		else
			rw.force = true;
	}
	if (all == (args.argc == 1))
		cmek_tool_usage(tool, "give either a volume or --all");
	if (all && (rw.to || rw.slot >= 0))
		cmek_tool_usage(tool, "--all goes with neither --to nor --slot");
	return all ? run_all(&rw, jobs) : run_one(&rw, args.argv[0]);
}
