/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl header backup and restore: a copy of a volume's header in a file of its own, whole or with some of its slots,
 * and the way back. Decides what may be put in the place of what; how it is written, the library knows.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "fs/tree/dir_id.h"
#include "fs/tree/name_crypt.h"
#include "fs/volume/registry.h"
#include "tools/ctl.h"

enum { OPT_SLOT = 256, OPT_FORCE, OPT_OLDER, OPT_OTHER_VOLUME };

/* ---- backup ---- */

struct backup {
	struct cmek_tool *tool;
	const char *volume, *file;
	bool slots[CMEK_SLOTS_MAX];
	bool some; /* only the slots of that list */
	bool force;
	struct cmek_ctl_unlock unlock;
};

/* Takes the slots that were not asked for out of the header. */
static int choose_slots(const struct backup *b, struct cmek_volhdr *hdr, struct cmek_error *err)
{
	unsigned id;
	size_t i;

	for (id = 0; b->some && id < CMEK_SLOTS_MAX; id++)
		if (b->slots[id] && !cmek_volhdr_slot(hdr, id))
			return cmek_error_set(err, CMEK_E_NOT_FOUND, ENXIO, "the volume has no key slot %u", id);
	for (i = 0; b->some && i < hdr->n_slots;) {
		if (b->slots[hdr->slots[i].id])
			i++;
		else
			cmek_volhdr_drop_slot(hdr, &hdr->slots[i]);
	}
	return 0;
}

/* Writes the file, all or nothing. *ret_path: its absolute path. */
static int write_file(const struct backup *b, const uint8_t *bytes, size_t len, char **ret_path, struct cmek_error *err)
{
	const char *slash = strrchr(b->file, '/'), *name = slash ? slash + 1 : b->file;
	char *dir_name = slash ? strndup(b->file, (size_t)(name - b->file)) : strdup(".");
	char *dir = dir_name ? realpath(dir_name, NULL) : NULL;
	struct stat st;
	int fd, ret;

	fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0 || asprintf(ret_path, "%s/%s", strcmp(dir, "/") ? dir : "", name) < 0) {
		*ret_path = NULL;
		ret = cmek_error_sys(err, errno, "%s", dir_name ? dir_name : b->file);
		goto out;
	}
	if (!b->force && !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		ret = cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "%s exists already", b->file);
		goto out;
	}
	ret = cmek_replace_file(fd, name, bytes, len, 0600, err);
	if (ret)
		cmek_error_prefix(err, "%s", b->file);
out:
	if (fd >= 0)
		close(fd);
	free(dir);
	free(dir_name);
	return ret;
}

static void tell_backup(const struct backup *b, const struct cmek_volhdr *hdr, const char *path)
{
	char uuid[CMEK_UUID_TEXT], text[CMEK_CTL_KEY_TEXT];
	json_t *slots = json_array(), *json;
	size_t i;

	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_tool_say(b->tool, "backup of header number %llu of volume %s in %s", (unsigned long long)hdr->sequence, uuid,
		      path);
	for (i = 0; i < hdr->n_slots; i++) {
		cmek_tool_say(b->tool, "  slot %u: %s (%s)", hdr->slots[i].id,
			      cmek_ctl_key_text(hdr->slots[i].resolved, hdr->slots[i].version, text),
			      hdr->slots[i].purpose);
		json_array_append_new(slots, cmek_ctl_slot_json(&hdr->slots[i]));
	}
	cmek_tool_say(b->tool, "Any of these keys opens the volume's data together with this file.");
	json = json_pack("{s:s, s:s, s:I, s:o}", "uuid", uuid, "file", path, "sequence", (json_int_t)hdr->sequence,
			 "slots", slots);
	cmek_tool_json(b->tool, &json);
}

/* hdr: what is in the file, NULL = not known. */
static void audit(const struct cmek_tool *tool, const struct cmek_ctl_unlock *unlock, const char *name,
		  const struct cmek_volhdr *hdr, const char *store, const char *file, const struct cmek_error *failure)
{
	struct cmek_audit_event event = {
		.name = name, .volume = hdr ? hdr->uuid : NULL, .label = hdr ? hdr->label : NULL, .store = store,
		.slot = -1, .file = file, .failure = failure,
	};

	cmek_tool_audit(tool, unlock->kms.config_path, &event);
}

static int make_backup(struct backup *b, struct cmek_error *err)
{
	struct cmek_change *change = NULL;
	struct cmek_registry *registry = NULL;
	struct cmek_volhdr *hdr = NULL;
	char *store = NULL, *path = NULL;
	uint8_t *bytes = NULL;
	size_t len = 0;
	int ret;

	ret = cmek_ctl_change_begin(b->tool, b->volume, CMEK_STORE_CHANGE, &b->unlock, &store, &change, err);
	if (!ret) {
		hdr = cmek_change_new(change); /* not to be committed: what goes into the file */
		ret = choose_slots(b, hdr, err);
	}
	if (!ret)
		ret = cmek_volhdr_encode(hdr, cmek_keyring_header_mac(cmek_change_ring(change)), &bytes, &len, err);
	if (!ret)
		ret = cmek_registry_new(NULL, &registry, err);
	if (!ret)
		ret = write_file(b, bytes, len, &path, err);
	if (!ret) {
		ret = cmek_registry_note_backup(registry, hdr, path, err);
		cmek_error_prefix(err, "the backup is in %s, but could not be noted", path);
	}
	audit(b->tool, &b->unlock, "header.backup", hdr, store, path ? path : b->file, err);
	if (!ret)
		tell_backup(b, hdr, path);
	cmek_registry_free(registry);
	cmek_change_end(change);
	free(bytes);
	free(store);
	free(path);
	return ret;
}

int cmek_ctl_header_backup(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_SLOT, "slot", "N", "put only this key slot into the file; may be repeated" },
		{ OPT_FORCE, "force", NULL, "replace FILE if it exists" },
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME FILE",
		.about = "Puts a copy of the volume's header into FILE, mounted or not, and notes it in this host's registry.",
		.options = options, .min_operands = 2, .max_operands = 2,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	struct backup b = { .tool = tool };
	struct cmek_tool_args args;
	int id, code;

	cmek_ctl_unlock_init(&b.unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (cmek_ctl_unlock_option(&b.unlock, &args, id))
			continue;
		if (id == OPT_SLOT)
			b.some = b.slots[cmek_tool_number(&args, 0, CMEK_SLOTS_MAX - 1)] = true;
		else
			b.force = true;
	}
	b.volume = args.argv[0];
	b.file = args.argv[1];
	code = make_backup(&b, &err) ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_ctl_unlock_done(&b.unlock);
	return code;
}

/* ---- restore ---- */

struct restore {
	struct cmek_tool *tool;
	const char *volume, *file;
	bool older, other_volume;
	struct cmek_ctl_unlock unlock;
	int store_fd;
	char *path; /* the store's */
	struct cmek_registry *registry;
	uint8_t *bytes;
	size_t len;
	struct cmek_volhdr *hdr; /* the file's */
	struct cmek_keyring *ring;
	struct cmek_volhdr_store *store;
};

/* A store whose .cmekfs was lost is one still: its root has an id. */
static int open_store(struct restore *r, struct cmek_error *err)
{
	struct cmek_error again = CMEK_ERROR_INIT;
	struct stat st;
	char *given = NULL;
	int ret = cmek_ctl_volume_open(r->volume, &r->unlock, &r->store_fd, &r->path, &again);

	if (ret != -ENOENT)
		return ret ? cmek_error_set(err, again.kind, again.err, "%s", again.text) : 0;
	ret = cmek_ctl_volume_path(r->volume, r->unlock.kms.config_path, &given, err);
	if (ret)
		return ret;
	r->path = realpath(given, NULL);
	free(given);
	ret = r->path ? cmek_ctl_unlock_configure(&r->unlock, r->path, err) : 0;
	if (ret)
		return ret;
	r->store_fd = r->path ? open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (r->store_fd < 0 || fstatat(r->store_fd, CMEK_ROOT_LINK, &st, AT_SYMLINK_NOFOLLOW))
		return cmek_error_set(err, again.kind, again.err, "%s", again.text);
	if (mkdirat(r->store_fd, CMEK_META_DIR, 0700) && errno != EEXIST)
		return cmek_error_sys(err, errno, "%s/" CMEK_META_DIR, r->path);
	/* The two directories of a volume: one that is there already is fine, the next mount tells of one that is not. */
	(void)mkdirat(r->store_fd, CMEK_META_DIR "/links", 0700);
	(void)mkdirat(r->store_fd, CMEK_META_DIR "/lost", 0700);
	return 0;
}

/* The file's header, with a slot of it that opens and its HMAC proved. */
static int read_backup(struct restore *r, struct cmek_error *err)
{
	struct cmek_unlock_params params = {
		.unwrapper = cmek_unwrapper_kms(&r->unlock.kms),
		.key = r->unlock.key,
		.slot = r->unlock.slot,
		.report = { cmek_ctl_report_line, r->tool },
	};
	struct cmek_pins *pins = NULL;
	int ret;

	ret = cmek_read_file(AT_FDCWD, r->file, CMEK_VOLHDR_LEN_MAX, &r->bytes, &r->len, err);
	if (!ret)
		ret = cmek_volhdr_decode(r->bytes, r->len, &r->hdr, err);
	if (!ret)
		ret = cmek_registry_new(NULL, &r->registry, err);
	if (!ret)
		ret = cmek_registry_pins(r->registry, r->hdr->uuid, &pins, err);
	params.pins = pins;
	if (!ret)
		ret = cmek_unlock_copy(r->hdr, r->bytes, r->len, "the header in it", &params, &r->ring, err);
	if (ret && ret != -ENOENT)
		cmek_error_prefix(err, "%s", r->file);
	cmek_pins_free(pins);
	return ret;
}

/*
 * Whether names in the volume's root open with the backup's data keys: 1 = one does, 0 = there is none to tell by,
 * -EBADMSG = there are names, and none does.
 */
static int root_fits(const struct restore *r)
{
	struct cmek_secret *key = NULL;
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	struct cmek_dir_id id;
	struct dirent *entry;
	int fd, ret = 0;
	DIR *dir;

	if (cmek_dir_id_read(r->store_fd, &id))
		return 0;
	if (cmek_keyring_name_key(r->ring, id.dek, &key) == -ENOKEY)
		return -EBADMSG;
	fd = openat(r->store_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		if (fd >= 0)
			close(fd);
		goto out;
	}
	while (key && ret != 1 && (entry = readdir(dir))) {
		if (cmek_name_kind(entry->d_name) != CMEK_STORE_NAME_SHORT)
			continue;
		ret = cmek_name_decrypt(key, id.id, entry->d_name, strlen(entry->d_name), plain) ? -EBADMSG : 1;
	}
	closedir(dir);
out:
	cmek_secret_free(key);
	return ret;
}

static int check_volume(const struct restore *r, const struct cmek_volhdr *now, struct cmek_error *err)
{
	char theirs[CMEK_UUID_TEXT], ours[CMEK_UUID_TEXT];

	if (r->other_volume)
		return 0;
	cmek_uuid_encode(r->hdr->uuid, theirs);
	if (now && memcmp(now->uuid, r->hdr->uuid, 16)) {
		cmek_uuid_encode(now->uuid, ours);
		return cmek_error_set(err, CMEK_E_MISMATCH, EXDEV, "%s is a header of volume %s, %s is volume %s", r->file,
				      theirs, r->path, ours);
	}
	if (root_fits(r) == -EBADMSG)
		return cmek_error_set(err, CMEK_E_MISMATCH, EXDEV,
				      "%s is a header of volume %s; no name in the root of %s opens with its data keys",
				      r->file, theirs, r->path);
	return 0;
}

static const struct cmek_dek_entry *find_dek(const struct cmek_volhdr *hdr, uint16_t id)
{
	size_t i;

	for (i = 0; i < hdr->n_deks; i++)
		if (hdr->deks[i].id == id)
			return &hdr->deks[i];
	return NULL;
}

static int check_age(const struct restore *r, const struct cmek_volhdr *now, struct cmek_error *err)
{
	size_t i;

	if (!now || r->older || r->hdr->sequence >= now->sequence)
		return 0;
	for (i = 0; i < now->n_deks; i++)
		if (now->deks[i].state != CMEK_DEK_DESTROYED && !find_dek(r->hdr, now->deks[i].id))
			return cmek_error_set(err, CMEK_E_EXISTS, EALREADY,
					      "%s is older than the volume's header (number %llu, that is %llu), and lacks "
					      "data key %u: what that has encrypted could not be read again",
					      r->file, (unsigned long long)r->hdr->sequence,
					      (unsigned long long)now->sequence, now->deks[i].id);
	return cmek_error_set(err, CMEK_E_EXISTS, EALREADY,
			      "%s is older than the volume's header: number %llu, that is %llu", r->file,
			      (unsigned long long)r->hdr->sequence, (unsigned long long)now->sequence);
}

static int restore(struct restore *r, struct cmek_error *err)
{
	const struct cmek_volhdr *now;
	int ret;

	ret = read_backup(r, err);
	if (!ret)
		ret = open_store(r, err);
	if (!ret)
		ret = cmek_volhdr_store_open_any(r->store_fd, CMEK_STORE_WRITE, &r->store, err);
	if (ret)
		return ret;
	now = cmek_volhdr_store_header(r->store);
	ret = check_volume(r, now, err);
	if (!ret)
		ret = check_age(r, now, err);
	if (ret)
		return ret;
	/* Newer than anything that is there, and no data key's number is given out twice. */
	if (cmek_volhdr_store_newest(r->store) > r->hdr->sequence)
		r->hdr->sequence = cmek_volhdr_store_newest(r->store);
	r->hdr->sequence++;
	if (now && now->dek_next > r->hdr->dek_next && !memcmp(now->uuid, r->hdr->uuid, 16))
		r->hdr->dek_next = now->dek_next;
	ret = cmek_volhdr_store_put(r->store, &r->hdr, cmek_keyring_header_mac(r->ring), err);
	if (!ret)
		ret = cmek_registry_repin(r->registry, NULL, cmek_volhdr_store_header(r->store), r->path, err);
	return ret;
}

static void tell_restored(const struct restore *r)
{
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(r->store);
	char uuid[CMEK_UUID_TEXT], text[CMEK_CTL_KEY_TEXT];
	json_t *slots = json_array(), *json;
	size_t i;

	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_tool_say(r->tool, "%s has the header of %s, as number %llu", r->path, r->file,
		      (unsigned long long)hdr->sequence);
	for (i = 0; i < hdr->n_slots; i++) {
		cmek_tool_say(r->tool, "  slot %u: %s (%s)", hdr->slots[i].id,
			      cmek_ctl_key_text(hdr->slots[i].resolved, hdr->slots[i].version, text),
			      hdr->slots[i].purpose);
		json_array_append_new(slots, cmek_ctl_slot_json(&hdr->slots[i]));
	}
	json = json_pack("{s:s, s:s, s:s, s:I, s:o}", "uuid", uuid, "store", r->path, "file", r->file, "sequence",
			 (json_int_t)hdr->sequence, "slots", slots);
	cmek_tool_json(r->tool, &json);
}

int cmek_ctl_header_restore(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_OLDER, "older", NULL, "also when the volume has a newer header" },
		{ OPT_OTHER_VOLUME, "other-volume", NULL, "also when it looks like the header of another volume" },
		CMEK_CTL_UNLOCK_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] STORE FILE",
		.about = "Puts the header in FILE, made by 'cmekctl header backup', in the place of the volume's. The volume\n"
			 "must not be mounted. One of the file's keys has to open it first.",
		.options = options, .min_operands = 2, .max_operands = 2,
	};
	struct restore r = { .tool = tool, .store_fd = -1 };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_tool_args args;
	int id, code, ret;

	cmek_ctl_unlock_init(&r.unlock, tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args))) {
		if (cmek_ctl_unlock_option(&r.unlock, &args, id))
			continue;
		if (id == OPT_OLDER)
			r.older = true;
		else
			r.other_volume = true;
	}
	r.volume = args.argv[0];
	r.file = args.argv[1];
	ret = restore(&r, &err);
	audit(tool, &r.unlock, "header.restore", r.hdr ? r.hdr : r.store ? cmek_volhdr_store_header(r.store) : NULL,
	      r.path ? r.path : r.volume, r.file, &err);
	if (ret) {
		code = cmek_tool_fail(tool, &err);
	} else {
		tell_restored(&r);
		code = cmek_tool_done(tool);
	}
	cmek_volhdr_store_close(r.store);
	cmek_keyring_free(r.ring);
	cmek_volhdr_free(r.hdr);
	cmek_registry_free(r.registry);
	cmek_ctl_unlock_done(&r.unlock);
	if (r.store_fd >= 0)
		close(r.store_fd);
	free(r.bytes);
	free(r.path);
	return code;
}
