/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mkfs.cmekfs: makes a volume in a store directory. Proves every key first, then pins them in the host's registry, then
 * makes the volume; the work is done by the libraries.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/content/journal.h"
#include "fs/volume/keyring.h"
#include "fs/volume/keyslot.h"
#include "fs/volume/mkvol.h"
#include "fs/volume/registry.h"
#include "fs/volume/volhdr.h"
#include "kms/kms.h"
#include "tools/tool.h"
#include "tools/tool_preflight.h"

#define PURPOSE "data"
#define FIRST_DEK 1

enum { OPT_UUID = 0x20000, OPT_PASSPHRASE_FILE, OPT_FORCE, OPT_JOURNAL_SIZE, OPT_NO_PIN, OPT_CONFIG, OPT_PROFILE };

static const struct cmek_tool_option options[] = {
	{ 'k', "key", "URI", "a key that opens the volume; repeat it for more key slots" },
	{ 'b', "block-size", "BYTES", "block size: 4096 (the default), 8192, 16384, 32768 or 65536" },
	{ 'L', "label", "LABEL", "a name for people, at most 64 bytes" },
	{ OPT_JOURNAL_SIZE, "journal-size", "SIZE", "make the journal now, of this size (8M or more)" },
	{ OPT_UUID, "uuid", "UUID", "use this UUID instead of a random one" },
	{ OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", "read the local key store's passphrase from FILE" },
	{ OPT_FORCE, "force", NULL, "make a new volume where an empty one has lost its .cmekfs" },
	{ OPT_NO_PIN, "no-pin", NULL, "do not enter the volume's keys in this host's registry" },
	{ OPT_CONFIG, "config", "FILE", "the configuration [/etc/cmekfs/cmekfs.conf]" },
	CMEK_TOOL_PROFILE_OPTION(OPT_PROFILE),
	CMEK_TOOL_PRINCIPAL_OPTIONS,
	{ 0, NULL, NULL, NULL },
};

static const struct cmek_tool_command command = {
	.synopsis = "--key URI [--key URI]... [options] STORE",
	.about = "Makes a cmekfs volume in the directory STORE, which must be empty; it is made if it does not exist.\n"
		 "A local: key that does not exist is made, too.",
	.options = options,
	.min_operands = 1,
	.max_operands = 1,
};

struct key {
	const char *uri;
	struct cmek_kms *kms;
	bool created;
	bool wrapped; /* slot is filled */
	struct cmek_slot slot;
};

struct mkfs {
	struct cmek_tool tool;
	const char *store;
	struct key keys[CMEK_SLOTS_MAX];
	unsigned n_keys;
	uint32_t block_size;
	const char *label;
	uint8_t uuid[16];
	bool force, no_pin;
	uint64_t journal_bytes; /* 0: the first mount makes the journal, as it suits the store */
	struct cmek_kms_options kms_opts;
	struct cmek_kms_principal principal; /* for the keys of its service */
	char *asked; /* the user, and this was the answer; NULL = not yet */
	struct cmek_secret *answer;
};

static void warn_line(void *arg, const char *text)
{
	const struct mkfs *m = arg;

	fprintf(stderr, "%s: %s\n", m->tool.program, text);
}

/* Keys of one store have one passphrase, and each is opened for itself: the same question is asked once. */
static int ask_once(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err)
{
	struct mkfs *m = arg;
	int ret = 0;

	if (!m->asked || strcmp(m->asked, prompt)) {
		cmek_secret_free(m->answer);
		m->answer = NULL;
		free(m->asked);
		m->asked = NULL;
		ret = cmek_tool_ask_passphrase(NULL, prompt, &m->answer, err);
		if (ret)
			return ret;
		m->asked = strdup(prompt); /* without it the question comes again */
	}
	return cmek_secret_new_copy(CMEK_KEY_TEXT, cmek_secret_bytes(m->answer, CMEK_KEY_TEXT), cmek_secret_len(m->answer),
				    ret_passphrase, err);
}

static uint32_t block_size_option(const struct cmek_tool_args *args)
{
	uint64_t n;

	if (cmek_parse_size(args->value, CMEK_BLOCK_SIZE_MAX, &n) || n < CMEK_BLOCK_SIZE_MIN || (n & (n - 1)))
		cmek_tool_usage(args->tool, "--block-size takes 4096, 8192, 16384, 32768 or 65536, not '%s'",
				args->value);
	return (uint32_t)n;
}

static void key_option(struct mkfs *m, const char *uri)
{
	unsigned i;

	if (m->n_keys == CMEK_SLOTS_MAX)
		cmek_tool_usage(&m->tool, "a volume has at most %d key slots", CMEK_SLOTS_MAX);
	for (i = 0; i < m->n_keys; i++)
		if (!strcmp(m->keys[i].uri, uri))
			cmek_tool_usage(&m->tool, "the key '%s' is given twice", uri);
	m->keys[m->n_keys++].uri = uri;
}

static void parse(struct mkfs *m, int argc, char **argv)
{
	struct cmek_tool_args args;
	int id;

	m->block_size = CMEK_BLOCK_SIZE_MIN;
	m->label = "";
	cmek_random(m->uuid, sizeof(m->uuid));
	m->uuid[6] = (uint8_t)((m->uuid[6] & 0x0f) | 0x40); /* RFC 9562 section 5.4: version 4, */
	m->uuid[8] = (uint8_t)((m->uuid[8] & 0x3f) | 0x80); /* and the variant */
	m->kms_opts = cmek_tool_kms_options(&m->tool);
	m->kms_opts.ask_passphrase = ask_once;
	m->kms_opts.ask_arg = m;

	cmek_tool_args_init(&args, &m->tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		switch (id) {
		case 'k':
			key_option(m, args.value);
			break;
		case 'b':
			m->block_size = block_size_option(&args);
			break;
		case 'L':
			if (!cmek_slot_text_ok(args.value, CMEK_LABEL_MAX, 1))
				cmek_tool_usage(&m->tool,
						"--label takes at most %d bytes of UTF-8 without control characters",
						CMEK_LABEL_MAX);
			m->label = args.value;
			break;
		case OPT_JOURNAL_SIZE:
			if (cmek_parse_size(args.value, UINT64_C(1) << 40, &m->journal_bytes) || m->journal_bytes == 0)
				cmek_tool_usage(&m->tool, "--journal-size takes a size such as 64M, not '%s'", args.value);
			break;
		case OPT_UUID:
			if (cmek_uuid_decode(args.value, m->uuid))
				cmek_tool_usage(&m->tool, "--uuid takes a UUID, not '%s'", args.value);
			break;
		case OPT_PASSPHRASE_FILE:
			m->kms_opts.passphrase_file = args.value;
			break;
		case OPT_FORCE:
			m->force = true;
			break;
		case OPT_NO_PIN:
			m->no_pin = true;
			break;
		case OPT_CONFIG:
			m->kms_opts.config_path = args.value;
			break;
		case OPT_PROFILE:
			m->kms_opts.profile = args.value;
			break;
		default:
			(void)cmek_tool_principal(&args, id, &m->principal);
			break;
		}
	}
	if (m->journal_bytes != 0 && m->journal_bytes < cmek_journal_length_min(m->block_size))
		cmek_tool_usage(&m->tool, "--journal-size: with this block size the journal has %llu MiB or more",
				(unsigned long long)cmek_journal_length_min(m->block_size) >> 20);
	m->store = args.argv[0];
	if (!m->n_keys)
		cmek_tool_usage(&m->tool, "a volume needs a key: --key URI, for instance --key local:NAME");
}

static int wrap(struct mkfs *m, unsigned i, const struct cmek_secret *kek, struct cmek_error *err)
{
	struct key *key = &m->keys[i];
	struct cmek_kms_principal principal = cmek_kms_principal_for(key->uri, &m->principal);
	int ret = cmek_keyslot_wrap(key->kms, m->uuid, i, PURPOSE, &principal, kek, &key->slot, err);

	key->wrapped = !ret;
	return ret;
}

/* A local key that is not there is made, so that mkfs with a local: key needs no other set-up. */
static int make_key(struct mkfs *m, unsigned i, struct cmek_error *err)
{
	struct cmek_kms_create how = { .passphrase = false };
	int ret = cmek_kms_create(m->keys[i].kms, &how, err);

	m->keys[i].created = !ret;
	return ret;
}

/* Two names of one key would be two slots that fall together. */
static int refuse_twins(const struct mkfs *m, struct cmek_error *err)
{
	unsigned i, k;

	for (i = 0; i < m->n_keys; i++)
		for (k = 0; k < i; k++)
			if (!strcmp(m->keys[i].slot.resolved, m->keys[k].slot.resolved))
				return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%s' and '%s' are the same key, %s",
						      m->keys[k].uri, m->keys[i].uri, m->keys[i].slot.resolved);
	return 0;
}

/*
 * A key of a service is tried first, for this volume: who is asked, as whom, and which permission is missing shall be seen
 * before anything is made.
 */
static int try_key(struct mkfs *m, unsigned i, struct cmek_error *err)
{
	struct cmek_kms_context ctx = { .purpose = PURPOSE };
	struct cmek_preflight preflight;
	int ret;

	if (!strcmp(cmek_kms_provider_name(m->keys[i].kms), "local"))
		return 0;
	memcpy(ctx.volume, m->uuid, sizeof(ctx.volume));
	ret = cmek_kms_preflight(m->keys[i].kms, &ctx, &preflight, err);
	/* If not even the first step went well, there is nothing to tell but the error. */
	if (ret && preflight.steps[0].result == CMEK_PREFLIGHT_OK) {
		fprintf(stderr, "%s: trying %s:\n", m->tool.program, m->keys[i].uri);
		cmek_tool_preflight_print(stderr, &preflight);
	}
	return ret;
}

/* Every key wraps and unwraps. Keys are made last, when all that exist have proved themselves. */
static int prove_keys(struct mkfs *m, const struct cmek_secret *kek, struct cmek_error *err)
{
	bool missing[CMEK_SLOTS_MAX] = { false };
	unsigned i;
	int ret = 0;

	for (i = 0; !ret && i < m->n_keys; i++)
		ret = cmek_kms_open(m->keys[i].uri, &m->principal, &m->kms_opts, &m->keys[i].kms, err);
	for (i = 0; !ret && i < m->n_keys; i++)
		ret = try_key(m, i, err);
	for (i = 0; !ret && i < m->n_keys; i++) {
		ret = wrap(m, i, kek, err);
		missing[i] = ret == -ENOKEY && !strcmp(cmek_kms_provider_name(m->keys[i].kms), "local");
		if (missing[i]) {
			cmek_error_clear(err);
			ret = 0;
		}
	}
	for (i = 0; !ret && i < m->n_keys; i++) {
		if (!missing[i])
			continue;
		ret = make_key(m, i, err);
		if (!ret)
			ret = wrap(m, i, kek, err);
	}
	return ret ? ret : refuse_twins(m, err);
}

/* The header of a new volume. Slots move from m->keys into it. */
static int fill_header(struct mkfs *m, struct cmek_keyring *ring, uint32_t symlink_max, struct cmek_volhdr **ret_hdr,
		       struct cmek_error *err)
{
	struct cmek_volhdr *hdr = NULL;
	struct cmek_dek_entry *dek;
	struct cmek_slot *slot;
	unsigned i;
	int ret;

	ret = cmek_volhdr_new(&hdr, err);
	if (ret)
		return ret;
	hdr->sequence = 1;
	memcpy(hdr->uuid, m->uuid, sizeof(hdr->uuid));
	snprintf(hdr->label, sizeof(hdr->label), "%s", m->label);
	hdr->block_size = m->block_size;
	hdr->symlink_max = symlink_max;
	hdr->created = (int64_t)time(NULL);
	hdr->dek_active = FIRST_DEK;
	hdr->dek_next = FIRST_DEK + 1;
	for (i = 0; !ret && i < m->n_keys; i++) {
		slot = cmek_volhdr_grow_slots(hdr);
		if (!slot) {
			ret = cmek_error_sys(err, ENOMEM, "volume header");
			continue;
		}
		*slot = m->keys[i].slot;
		m->keys[i].wrapped = false;
	}
	dek = cmek_volhdr_grow_deks(hdr);
	if (!ret && !dek)
		ret = cmek_error_sys(err, ENOMEM, "volume header");
	if (!ret) {
		dek->id = FIRST_DEK;
		dek->state = CMEK_DEK_ACTIVE;
		dek->created = hdr->created;
		ret = cmek_keyring_make_dek(ring, dek->id, dek->domain, dek->state, dek->wrapped, err);
	}
	if (ret) {
		cmek_volhdr_free(hdr);
		return ret;
	}
	*ret_hdr = hdr;
	return 0;
}

/*
 * The pins come before the volume: a volume without its pins would be opened on the header's word alone, pins without
 * their volume do no harm.
 */
static int pin_and_commit(struct cmek_mkvol *mk, const struct cmek_volhdr *hdr, const struct cmek_keyring *ring,
			  struct cmek_registry *reg, struct cmek_error *err)
{
	int ret = reg ? cmek_registry_pin(reg, hdr, cmek_mkvol_path(mk), err) : 0;

	if (ret)
		return ret;
	ret = cmek_mkvol_commit(mk, hdr, cmek_keyring_header_mac(ring), FIRST_DEK, err);
	if (ret && reg && !cmek_mkvol_committed(mk))
		(void)cmek_registry_forget(reg, hdr->uuid, NULL); /* the first failure is the one to tell */
	return ret;
}

static int make_journal(const struct mkfs *m, const struct cmek_mkvol *mk, struct cmek_keyring *ring, struct cmek_error *err)
{
	struct cmek_journal_params params = { .length_bytes = m->journal_bytes,
					      .block_size = m->block_size,
					      .dek_next = FIRST_DEK + 1 };

	if (m->journal_bytes == 0)
		return 0;
	memcpy(params.volume, m->uuid, sizeof(params.volume));
	return cmek_journal_make(ring, cmek_mkvol_dir(mk), &params, err);
}

static json_t *key_to_json(const struct key *key, const struct cmek_slot *slot)
{
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:b}", "slot", (int)slot->id, "key", slot->key, "resolved",
			 slot->resolved, "version", slot->version, "provider", slot->provider, "created", key->created);
}

static void tell(const struct mkfs *m, const struct cmek_mkvol *mk, const struct cmek_volhdr *hdr,
		 const struct cmek_registry *reg)
{
	const struct cmek_tool *t = &m->tool;
	const char *registry = reg ? cmek_registry_path(reg) : NULL;
	char uuid[CMEK_UUID_TEXT];
	json_t *keys = json_array(), *json;
	unsigned i;

	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_tool_say(t, "volume %s%s%s%s", uuid, hdr->label[0] ? "  \"" : "", hdr->label, hdr->label[0] ? "\"" : "");
	cmek_tool_say(t, "  store       %s", cmek_mkvol_path(mk));
	cmek_tool_say(t, "  block size  %u", hdr->block_size);
	for (i = 0; i < m->n_keys; i++) {
		cmek_tool_say(t, "  key slot %-2u %s%s%s%s", hdr->slots[i].id, hdr->slots[i].resolved,
			      hdr->slots[i].version[0] ? ", version " : "", hdr->slots[i].version,
			      m->keys[i].created ? " (made now)" : "");
		json_array_append_new(keys, key_to_json(&m->keys[i], &hdr->slots[i]));
	}
	cmek_tool_say(t, "  pinned in   %s", registry ? registry : "- (--no-pin)");
	cmek_tool_say(t, "Mount it with: cmekfs %s MOUNTPOINT", cmek_mkvol_path(mk));
	cmek_tool_say(t,
		      "Without its keys and %s/" CMEK_META_DIR
		      " nobody can read the volume, ever: keep copies of both, apart "
		      "from each other.",
		      cmek_mkvol_path(mk));
	json = json_pack("{s:s, s:s, s:s, s:i, s:i, s:o, s:s?}", "uuid", uuid, "label", hdr->label, "store",
			 cmek_mkvol_path(mk), "block_size", (int)hdr->block_size, "symlink_max", (int)hdr->symlink_max,
			 "keys", keys, "registry", registry);
	cmek_tool_json(t, &json);
}

/* What was made, or was not. */
static void audit(const struct mkfs *m, const struct cmek_mkvol *mk, const struct cmek_volhdr *hdr,
		  const struct cmek_error *failure)
{
	struct cmek_audit_event event = {
		.name = "volume.create", .volume = hdr ? hdr->uuid : NULL, .label = m->label,
		.store = mk ? cmek_mkvol_path(mk) : m->store, .slot = -1, .failure = failure,
	};
	unsigned i;

	cmek_tool_audit(&m->tool, m->kms_opts.config_path, &event);
	event.name = "slot.add";
	for (i = 0; !cmek_error_is_set(failure) && i < m->n_keys; i++) {
		event.slot = (int)hdr->slots[i].id;
		event.key = hdr->slots[i].resolved;
		event.version = hdr->slots[i].version;
		event.purpose = hdr->slots[i].purpose;
		cmek_tool_audit(&m->tool, m->kms_opts.config_path, &event);
	}
}

static int run(struct mkfs *m, struct cmek_error *err)
{
	const struct cmek_report report = { warn_line, m };
	struct cmek_mkvol *mk = NULL;
	struct cmek_registry *reg = NULL;
	struct cmek_secret *kek = NULL;
	struct cmek_keyring *ring = NULL;
	struct cmek_volhdr *hdr = NULL;
	uint32_t symlink_max = 0;
	int ret;

	ret = cmek_mkvol_open(m->store, m->force, &report, &mk, err);
	if (!ret && !m->no_pin)
		ret = cmek_registry_new(NULL, &reg, err);
	if (!ret)
		ret = cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, err);
	if (!ret)
		ret = prove_keys(m, kek, err);
	if (!ret)
		ret = cmek_keyring_new(m->uuid, &kek, &ring, err);
	if (!ret)
		ret = cmek_mkvol_prepare(mk, &symlink_max, err);
	if (!ret)
		ret = fill_header(m, ring, symlink_max, &hdr, err);
	if (!ret)
		ret = make_journal(m, mk, ring, err);
	if (!ret)
		ret = pin_and_commit(mk, hdr, ring, reg, err);
	audit(m, mk, hdr, err);
	if (!ret)
		tell(m, mk, hdr, reg);
	cmek_volhdr_free(hdr);
	cmek_keyring_free(ring);
	cmek_secret_free(kek);
	cmek_registry_free(reg);
	cmek_mkvol_close(mk);
	return ret;
}

int main(int argc, char **argv)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	static struct mkfs m;
	unsigned i;
	int code;

	cmek_tool_init(&m.tool, "mkfs.cmekfs");
	umask(077);
	parse(&m, argc, argv);
	code = run(&m, &err) ? cmek_tool_fail(&m.tool, &err) : cmek_tool_done(&m.tool);
	for (i = 0; i < m.n_keys; i++) {
		if (m.keys[i].wrapped)
			cmek_slot_done(&m.keys[i].slot);
		cmek_kms_close(m.keys[i].kms);
	}
	cmek_secret_free(m.answer);
	free(m.asked);
	return code;
}
