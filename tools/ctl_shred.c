/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl shred: destroys a volume, a key slot or retired data keys for good. It says first what that means and what
 * would survive, wants to be told twice, and leaves a certificate of what it did. Reads no data.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/ctl_certificate.h"
#include "tools/ctl_shred.h"

enum {
	OPT_VOLUME = 256,
	OPT_SLOT,
	OPT_RETIRED_DEKS,
	OPT_KMS,
	OPT_DAYS,
	OPT_FORCE,
	OPT_SHARED_KEYS,
	OPT_DESTROY,
	OPT_YES_DESTROY,
	OPT_CERTIFICATE,
	OPT_SIGN_KEY
};

/* ---- the plan ---- */

/* Uses of the key by other volumes, and by their backups. */
static int find_others(const struct cmek_shred_run *s, struct cmek_shred_victim *victim, struct cmek_error *err)
{
	struct cmek_ctl_use *uses = NULL, kept;
	size_t n = 0, i, others = 0;
	int ret = cmek_ctl_find_uses(victim->slot.resolved, &uses, &n, err);

	/* Others to the front, what is this volume's behind them. */
	for (i = 0; i < n; i++) {
		if (!memcmp(uses[i].volume, s->uuid, 16))
			continue;
		kept = uses[others];
		uses[others++] = uses[i];
		uses[i] = kept;
	}
	if (n > others) {
		for (i = others; i < n; i++) {
			free(uses[i].label);
			free(uses[i].store);
			free(uses[i].backup);
			free(uses[i].purpose);
			free(uses[i].version);
		}
	}
	victim->others = uses;
	victim->n_others = others;
	return ret;
}

static int add_victim(struct cmek_shred_run *s, const struct cmek_slot *slot, struct cmek_error *err)
{
	struct cmek_shred_victim *victim = &s->victims[s->n_victims];
	char *text = NULL;
	size_t len = 0;
	int ret;

	ret = cmek_slot_encode(slot, &text, &len, err);
	if (!ret)
		ret = cmek_slot_decode(text, len, &victim->slot, err);
	free(text);
	if (ret)
		return ret;
	s->n_victims++;
	return find_others(s, victim, err);
}

static int read_registry(struct cmek_shred_run *s, struct cmek_error *err)
{
	struct cmek_registry *registry = NULL;
	int ret = cmek_registry_new(NULL, &registry, err);

	if (!ret)
		ret = cmek_registry_list(registry, &s->volumes, &s->n_volumes, err);
	s->here = ret ? NULL : cmek_registered_find(s->volumes, s->n_volumes, s->uuid);
	cmek_registry_free(registry);
	return ret;
}

/* What the header says of what is to go. */
static int plan(struct cmek_shred_run *s, const struct cmek_volhdr *hdr, struct cmek_error *err)
{
	const struct cmek_slot *slot;
	size_t i;
	int ret = 0;

	memcpy(s->uuid, hdr->uuid, 16);
	cmek_uuid_encode(s->uuid, s->uuid_text);
	snprintf(s->label, sizeof(s->label), "%s", hdr->label);
	s->created = hdr->created;
	s->sequence = hdr->sequence;
	for (i = 0; !ret && i < hdr->n_slots; i++) {
		slot = &hdr->slots[i];
		if (s->mode == CMEK_SHRED_VOLUME || (s->mode == CMEK_SHRED_SLOT && slot->id == s->slot))
			ret = add_victim(s, slot, err);
		else
			json_array_append_new(s->staying, cmek_ctl_slot_json(slot));
	}
	for (i = 0; i < hdr->n_deks; i++)
		if (s->mode == CMEK_SHRED_VOLUME ||
		    (s->mode == CMEK_SHRED_RETIRED_DEKS && hdr->deks[i].state == CMEK_DEK_RETIRED))
			json_array_append_new(s->deks, json_integer(hdr->deks[i].id));
	if (!ret && s->mode == CMEK_SHRED_SLOT && !s->n_victims)
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENXIO, "the volume has no key slot %u", s->slot);
	if (!ret && s->mode == CMEK_SHRED_RETIRED_DEKS && !json_array_size(s->deks))
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "the volume has no retired data keys");
	if (!ret && s->mode == CMEK_SHRED_VOLUME)
		ret = cmek_shred_measure(s->store_fd, &s->count, err);
	return ret ? ret : read_registry(s, err);
}

/* The key of one volume must not go with another one by accident. */
static int check_shared(const struct cmek_shred_run *s, struct cmek_error *err)
{
	char uuid[CMEK_UUID_TEXT];
	json_t *slot;
	size_t i, k;

	for (i = 0; s->kms && i < s->n_victims; i++) {
		json_array_foreach(s->staying, k, slot)
			if (!strcmp(json_string_value(json_object_get(slot, "resolved")), s->victims[i].slot.resolved))
				return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
						      "%s is also the key of slot %d, which stays: leave out --kms",
						      s->victims[i].slot.resolved,
						      (int)json_integer_value(json_object_get(slot, "slot")));
	}
	for (i = 0; s->kms && !s->shared_keys && i < s->n_victims; i++) {
		if (!s->victims[i].n_others)
			continue;
		cmek_uuid_encode(s->victims[i].others[0].volume, uuid);
		return cmek_error_set(err, CMEK_E_BUSY, EDEADLK,
				      "%s is also a key of volume %s: its deletion would take that one along",
				      s->victims[i].slot.resolved, uuid);
	}
	return 0;
}

static int note_mount(void *arg, struct cmek_ctl_mount *mount, struct cmek_error *err)
{
	json_t *json = json_pack("{s:O, s:O, s:b}", "mount_point", json_object_get(mount->status, "mount_point"), "pid",
				 json_object_get(mount->status, "pid"), "keys_wiped", 0);

	if (!json || json_array_append_new(((struct cmek_shred_run *)arg)->mounts, json))
		return cmek_error_sys(err, ENOMEM, "the mounts of the volume");
	return 0;
}

/* Nobody can mount it from here on, or it is known who has. */
static int find_mounts(struct cmek_shred_run *s, struct cmek_volhdr_store *store, struct cmek_error *err)
{
	struct cmek_error busy = CMEK_ERROR_INIT;
	int ret = cmek_volhdr_store_claim(store, &busy);
	size_t n;

	if (!ret)
		return 0;
	if (ret != -EBUSY)
		return cmek_error_set(err, busy.kind, busy.err, "%s", busy.text);
	s->in_use = true;
	return cmek_ctl_mount_each(s->uuid, note_mount, s, &n, err);
}

/* ---- deeds ---- */

void cmek_ctl_shred_audit(const struct cmek_shred_run *s, const char *name, const struct cmek_slot *slot,
			  const struct cmek_error *failure)
{
	struct cmek_audit_event event = {
		.name = name, .volume = s->uuid, .label = s->label, .store = s->path, .slot = slot ? (int)slot->id : -1,
		.key = slot ? slot->resolved : NULL, .version = slot ? slot->version : NULL, .failure = failure,
	};

	cmek_tool_audit(s->tool, s->unlock.kms.config_path, &event);
}

/* The label typed on the terminal. */
static int ask_user(const struct cmek_shred_run *s, struct cmek_error *err)
{
	char line[256] = "";
	FILE *tty = fopen("/dev/tty", "r+e");

	if (!tty)
		return cmek_error_set(err, CMEK_E_USAGE, ENOTTY,
				      "there is no terminal to ask on: give --yes-destroy %s", cmek_ctl_shred_name(s));
	fprintf(tty, "This can't be undone. Type %s to go on: ", cmek_ctl_shred_name(s));
	fflush(tty);
	if (!fgets(line, sizeof(line), tty))
		line[0] = '\0';
	fclose(tty);
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, cmek_ctl_shred_name(s)))
		return cmek_error_set(err, CMEK_E_USAGE, ECANCELED, "that is not it: nothing was changed");
	return 0;
}

static int confirm(const struct cmek_shred_run *s, struct cmek_error *err)
{
	if (!s->yes)
		return ask_user(s, err);
	if (strcmp(s->yes, cmek_ctl_shred_name(s)) && strcmp(s->yes, s->uuid_text))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the volume is called '%s', not '%s': nothing was changed",
				      cmek_ctl_shred_name(s), s->yes);
	return 0;
}

static void forget(const struct cmek_shred_run *s)
{
	struct cmek_registry *registry = NULL;

	/* An entry that stays does no harm. */
	if (!cmek_registry_new(NULL, &registry, NULL))
		(void)cmek_registry_forget(registry, s->uuid, NULL);
	cmek_registry_free(registry);
}

static int wipe_mount(void *arg, struct cmek_ctl_mount *mount, struct cmek_error *err)
{
	struct cmek_shred_run *s = arg;
	const json_t *pid = json_object_get(mount->status, "pid");
	json_t *noted;
	size_t i;
	int ret;

	ret = cmek_ctl_mount_end_use(mount, json_pack("{s:s}", "cmd", "shred"), CMEK_CTL_LOCK_S, err);
	if (ret)
		return ret;
	json_array_foreach(s->mounts, i, noted)
		if (json_equal(json_object_get(noted, "pid"), pid))
			break;
	/* One that came since is noted now. */
	if (i == json_array_size(s->mounts))
		ret = note_mount(s, mount, err);
	if (!ret)
		json_object_set_new(json_array_get(s->mounts, i), "keys_wiped", json_true());
	return ret;
}

/*
 * Mounts let go of the keys, for good: before their header goes (first), so that this can still be given up when one does
 * not.
 */
static int wipe_mounts(struct cmek_shred_run *s, bool first, struct cmek_error *err)
{
	size_t n = 0;
	int ret;

	if (!s->in_use)
		return 0;
	ret = cmek_ctl_mount_each(s->uuid, wipe_mount, s, &n, err);
	if (!ret && !n && first)
		ret = cmek_error_set(err, CMEK_E_BUSY, EBUSY,
				     "the volume is in use by a program, or by a mount that has no control socket here: it has "
				     "to end before");
	return ret;
}

/*
 * The order: mounts, then what is in the store, then mounts again: a read-only one that began meanwhile has read the header
 * before, and was not there to be told. What is destroyed by then stays so, and goes on: that one did not let go is told in
 * the end.
 */
static int destroy_volume(struct cmek_shred_run *s, const struct cmek_volhdr_store *store, struct cmek_error *err)
{
	int ret = wipe_mounts(s, true, err);

	if (ret) {
		cmek_error_prefix(err, "nothing was overwritten");
		return ret;
	}
	ret = cmek_shred_volume(s->store_fd, store, s->uuid, s->when, &s->count, err);
	if (ret)
		return ret;
	s->executed = true;
	(void)wipe_mounts(s, false, &s->verified); /* the error tells */
	return 0;
}

/* What a shredding that was cut off has left: the rest goes without a question. */
static int end_interrupted(struct cmek_shred_run *s, struct cmek_volhdr_store *store, const struct cmek_tombstone *tombstone,
			   struct cmek_error *err)
{
	int ret;

	memcpy(s->uuid, tombstone->uuid, 16);
	cmek_uuid_encode(s->uuid, s->uuid_text);
	s->when = tombstone->when;
	ret = find_mounts(s, store, err);
	if (!ret)
		ret = destroy_volume(s, store, err);
	cmek_ctl_shred_audit(s, "volume.shred", NULL, err);
	if (!ret)
		ret = cmek_shred_verify(s->store_fd, err);
	if (!ret)
		cmek_tool_say(s->tool, "%s was shredded before; nothing of its header and journals is left", s->path);
	forget(s);
	return ret;
}

static int shred_volume(struct cmek_shred_run *s, struct cmek_error *err)
{
	struct cmek_volhdr_store *store = NULL, *again = NULL;
	struct cmek_error why = CMEK_ERROR_INIT;
	struct cmek_tombstone tombstone;
	int ret;

	ret = cmek_volhdr_store_open_any(s->store_fd, CMEK_STORE_CHANGE, &store, err);
	if (ret)
		return ret;
	if (!cmek_volhdr_store_header(store)) {
		if (cmek_volhdr_store_shredded(store, &tombstone) && s->destroy)
			ret = end_interrupted(s, store, &tombstone, err);
		else
			ret = cmek_volhdr_store_open(s->store_fd, CMEK_STORE_PEEK, NULL, &again, err);
		goto out;
	}
	ret = plan(s, cmek_volhdr_store_header(store), err);
	if (!ret)
		ret = find_mounts(s, store, err);
	if (!ret)
		cmek_ctl_shred_say_plan(s);
	if (!ret && s->destroy)
		ret = check_shared(s, err);
	if (!ret && s->destroy)
		ret = confirm(s, err);
	if (ret || !s->destroy)
		goto out;
	ret = destroy_volume(s, store, err);
	cmek_ctl_shred_audit(s, "volume.shred", NULL, err);
	if (ret)
		goto out;
	cmek_ctl_shred_keys(s);
	if (cmek_shred_verify(s->store_fd, &why))
		s->verified = why;
	forget(s);
out:
	cmek_volhdr_store_close(again);
	cmek_volhdr_store_close(store);
	return ret;
}

/* The new header without the slot, or with its retired data keys destroyed. */
static int change_header(struct cmek_shred_run *s, struct cmek_change *change, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = cmek_change_new(change);
	struct cmek_shred_old old;
	int ret, rc;
	size_t i;

	if (s->mode == CMEK_SHRED_SLOT) {
		ret = cmek_ctl_prove_rest(change, s->slot, &s->unlock.kms, err);
		if (ret)
			return ret;
		cmek_volhdr_drop_slot(hdr, cmek_volhdr_slot(hdr, s->slot));
	}
	for (i = 0; s->mode == CMEK_SHRED_RETIRED_DEKS && i < hdr->n_deks; i++)
		(void)cmek_volhdr_destroy_dek(&hdr->deks[i], s->when); /* of the retired ones */
	ret = cmek_shred_old_open(s->store_fd, &old, err);
	if (ret)
		return ret;
	ret = cmek_ctl_commit(s->tool, &s->unlock, s->path, change, err);
	rc = cmek_shred_old_finish(&old, !ret, ret ? NULL : err);
	return ret ? ret : rc;
}

static int shred_part(struct cmek_shred_run *s, struct cmek_error *err)
{
	const struct cmek_change_params params = {
		.access = CMEK_STORE_CHANGE,
		.kms = &s->unlock.kms,
		.key = s->unlock.key,
		.slot = s->unlock.slot,
		.report = { cmek_ctl_report_line, s->tool },
	};
	struct cmek_change *change = NULL;
	int ret;

	ret = cmek_change_begin(s->store_fd, s->path, &params, &change, err);
	cmek_ctl_audit_opened(s->tool, &s->unlock, s->path, change, err);
	if (!ret)
		ret = plan(s, cmek_change_old(change), err);
	if (!ret)
		cmek_ctl_shred_say_plan(s);
	if (!ret && s->destroy)
		ret = check_shared(s, err);
	if (!ret && s->destroy)
		ret = confirm(s, err);
	if (!ret && s->destroy)
		ret = change_header(s, change, err);
	if (!ret && s->destroy) {
		s->executed = true;
		cmek_ctl_shred_keys(s);
	}
	cmek_change_end(change);
	return ret;
}

/* ---- the result ---- */

/* A deletion that the KMS refused is a failure, though the rest is done. */
static const struct cmek_error *first_failure(const struct cmek_shred_run *s)
{
	size_t i;

	if (cmek_error_is_set(&s->verified))
		return &s->verified;
	for (i = 0; i < s->n_victims; i++)
		if (s->victims[i].asked && !s->victims[i].done)
			return &s->victims[i].kms_err;
	return NULL;
}

static int finish(struct cmek_shred_run *s, struct cmek_error *err)
{
	const struct cmek_error *failure;
	json_t *json = cmek_ctl_shred_json(s);
	int ret = 0;

	if (!json)
		return cmek_error_sys(err, ENOMEM, "the certificate");
	if (s->executed && (s->certificate || s->sign_key))
		ret = cmek_ctl_certificate_write(&json, s->certificate, s->sign_key, err);
	if (!ret || s->executed)
		cmek_ctl_shred_say_result(s);
	failure = ret ? NULL : first_failure(s);
	if (failure)
		ret = cmek_error_set(err, failure->kind, failure->err, "%s", failure->text);
	if (s->tool->json && ret) /* one value on standard output: the error has its own, the certificate is in its file */
		json_decref(json);
	else
		cmek_tool_json(s->tool, &json);
	return ret;
}

static void parse(struct cmek_shred_run *s, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_VOLUME, "volume", NULL, "shred all of the volume" },
		{ OPT_SLOT, "slot", "N", "shred this key slot" },
		{ OPT_RETIRED_DEKS, "retired-deks", NULL, "shred the data keys that are retired" },
		{ OPT_KMS, "kms", NULL, "also ask the KMS to delete the slots' keys" },
		{ OPT_DAYS, "days", "N", "days until the KMS deletes them" },
		{ OPT_FORCE, "force", NULL, "IBM: delete them with what is registered as using them" },
		{ OPT_SHARED_KEYS, "shared-keys", NULL, "also keys that other volumes of this host use" },
		{ OPT_DESTROY, "destroy", NULL, "do it, after the volume's label was typed" },
		{ OPT_YES_DESTROY, "yes-destroy", "LABEL", "do it: the volume's label, or its UUID" },
		{ OPT_CERTIFICATE, "certificate", "FILE", "write the certificate to FILE" },
		{ OPT_SIGN_KEY, "sign-key", "FILE", "sign it with this Ed25519 private key (PEM)" },
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "--volume | --slot N | --retired-deks [options] VOLUME",
		.about = "Destroys what opens a volume. Without --destroy or --yes-destroy it only says what would be lost, and\n"
			 "what could still open it.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_tool_args args;
	enum cmek_shred_mode mode;
	int id;

	cmek_tool_args_init(&args, s->tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (cmek_ctl_unlock_option(&s->unlock, &args, id))
			continue;
		mode = id == OPT_VOLUME	      ? CMEK_SHRED_VOLUME :
		       id == OPT_SLOT	      ? CMEK_SHRED_SLOT :
		       id == OPT_RETIRED_DEKS ? CMEK_SHRED_RETIRED_DEKS :
						CMEK_SHRED_NONE;
		if (mode && s->mode)
			cmek_tool_usage(s->tool, "give one of --volume, --slot and --retired-deks");
		if (mode)
			s->mode = mode;
		if (id == OPT_SLOT)
			s->slot = (unsigned)cmek_tool_number(&args, 0, CMEK_SLOTS_MAX - 1);
		s->kms |= id == OPT_KMS;
		s->force |= id == OPT_FORCE;
		s->shared_keys |= id == OPT_SHARED_KEYS;
		s->destroy |= id == OPT_DESTROY || id == OPT_YES_DESTROY;
		if (id == OPT_DAYS)
			s->days = (unsigned)cmek_tool_number(&args, 0, 3650);
		else if (id == OPT_YES_DESTROY)
			s->yes = args.value;
		else if (id == OPT_CERTIFICATE)
			s->certificate = args.value;
		else if (id == OPT_SIGN_KEY)
			s->sign_key = args.value;
	}
	if (!s->mode)
		cmek_tool_usage(s->tool, "give one of --volume, --slot and --retired-deks");
	if (s->kms && s->mode == CMEK_SHRED_RETIRED_DEKS)
		cmek_tool_usage(s->tool, "--kms is for --volume and --slot: data keys are in no KMS");
	if (s->sign_key && !s->certificate)
		cmek_tool_usage(s->tool, "--sign-key goes with --certificate");
	s->operand = args.argv[0];
}

int cmek_ctl_shred(struct cmek_tool *tool, int argc, char **argv)
{
	static struct cmek_shred_run s;
	struct cmek_error err = CMEK_ERROR_INIT;
	int ret, code;
	size_t i;

	s.tool = tool;
	s.store_fd = -1;
	s.days = CMEK_KMS_DAYS_DEFAULT;
	s.when = (int64_t)time(NULL);
	s.staying = json_array();
	s.deks = json_array();
	s.mounts = json_array();
	cmek_ctl_unlock_init(&s.unlock, tool);
	parse(&s, argc, argv);
	ret = s.certificate ? cmek_ctl_certificate_check(s.certificate, s.sign_key, &err) : 0;
	if (!ret)
		ret = cmek_ctl_volume_open(s.operand, &s.unlock, &s.store_fd, &s.path, &err);
	if (!ret)
		ret = s.mode == CMEK_SHRED_VOLUME ? shred_volume(&s, &err) : shred_part(&s, &err);
	if (!ret)
		ret = finish(&s, &err);
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	for (i = 0; i < s.n_victims; i++) {
		cmek_slot_done(&s.victims[i].slot);
		json_decref(s.victims[i].requests);
		cmek_ctl_uses_free(s.victims[i].others, s.victims[i].n_others);
	}
	cmek_registry_list_free(s.volumes, s.n_volumes);
	cmek_ctl_unlock_done(&s.unlock);
	json_decref(s.staying);
	json_decref(s.deks);
	json_decref(s.mounts);
	if (s.store_fd >= 0)
		close(s.store_fd);
	free(s.path);
	return code;
}
