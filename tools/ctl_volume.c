/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the verbs on volumes share: from what a user calls a volume to its store. It reads the table of mounts, never a
 * header.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/volume/volhdr_store.h"
#include "tools/ctl.h"

#define MOUNT_TYPE "fuse.cmekfs"

/* A field of /proc/self/mountinfo in place: \ooo is a byte in octal (proc(5)). */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
		    text[3] >= '0' && text[3] <= '7') {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* One line: "36 35 98:0 /root /mount/point rw,... [optional]... - TYPE SOURCE options". */
static int parse_line(char *line, char **ret_point, char **ret_source)
{
	char *behind = strstr(line, " - "), *type, *save = NULL;
	int i;

	if (!behind)
		return -1;
	*behind = '\0';
	*ret_point = strtok_r(line, " ", &save);
	for (i = 0; i < 4 && *ret_point; i++)
		*ret_point = strtok_r(NULL, " ", &save);
	type = strtok_r(behind + 3, " ", &save);
	*ret_source = strtok_r(NULL, " ", &save);
	if (!*ret_point || !type || !*ret_source || strcmp(type, MOUNT_TYPE))
		return -1;
	unescape(*ret_point);
	unescape(*ret_source);
	return 0;
}

/* The other end of the last mount whose source (or, if by_point, whose mount point) is this; malloced or NULL. */
static char *other_end(const char *path, bool by_point)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *point, *source, *found = NULL;
	size_t size = 0;

	if (!f)
		return NULL;
	while (getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (parse_line(line, &point, &source) || strcmp(by_point ? point : source, path))
			continue;
		free(found);
		found = strdup(by_point ? source : point);
	}
	free(line);
	fclose(f);
	return found;
}

char *cmek_ctl_mount_point(const char *store)
{
	return other_end(store, false);
}

static bool has_volume(int fd)
{
	struct stat st;

	return fstatat(fd, CMEK_META_DIR, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int cmek_ctl_volume_path(const char *volume, const char *config_path, char **ret_path, struct cmek_error *err)
{
	struct cmek_volconf conf = { NULL, NULL, NULL };
	int ret = 0;

	/* What is there is meant, and then a mistake in the configuration keeps nobody from it. */
	if (!strchr(volume, '/') && access(volume, F_OK) != 0)
		ret = cmek_volconf_load(config_path, volume, &conf, err);
	if (ret)
		return ret;
	*ret_path = strdup(conf.store ? conf.store : volume);
	cmek_volconf_done(&conf);
	return *ret_path ? 0 : cmek_error_sys(err, ENOMEM, "%s", volume);
}

int cmek_ctl_unlock_configure(struct cmek_ctl_unlock *unlock, const char *store, struct cmek_error *err)
{
	int ret;

	/* What another volume's section said is no option. */
	if (unlock->key == unlock->conf.key)
		unlock->key = NULL;
	if (unlock->kms.profile == unlock->conf.profile)
		unlock->kms.profile = NULL;
	cmek_volconf_done(&unlock->conf);
	ret = cmek_volconf_load(unlock->kms.config_path, store, &unlock->conf, err);
	if (ret)
		return ret;
	if (!unlock->key)
		unlock->key = unlock->conf.key;
	if (!unlock->kms.profile)
		unlock->kms.profile = unlock->conf.profile;
	return 0;
}

/* The store that volume means, in full. */
static int find_store(const char *volume, const char *config_path, char **ret_path, struct cmek_error *err)
{
	char *path = NULL, *real;
	int ret = cmek_ctl_volume_path(volume, config_path, &path, err);

	if (ret)
		return ret;
	real = realpath(path, NULL);
	if (!real && errno == ENOENT)
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s does not exist", path);
	else if (!real)
		ret = cmek_error_sys(err, errno, "%s", path);
	free(path);
	if (!ret)
		*ret_path = real;
	return ret;
}

int cmek_ctl_volume_open(const char *volume, struct cmek_ctl_unlock *unlock, int *ret_fd, char **ret_path,
			 struct cmek_error *err)
{
	char *path = NULL, *store = NULL;
	int fd = -1, ret;

	ret = find_store(volume, unlock ? unlock->kms.config_path : NULL, &path, err);
	if (ret)
		return ret;
	/* Asked of the table first: looking into a mount whose daemon is stuck would hang. */
	store = other_end(path, true);
	if (store) {
		free(path);
		path = store;
		store = NULL;
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOTDIR)
		ret = cmek_error_set(err, CMEK_E_USAGE, ENOTDIR, "%s is not a directory", path);
	else if (fd < 0)
		ret = cmek_error_sys(err, errno, "can't open %s", path);
	else if (!has_volume(fd))
		ret = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT,
				     "%s is neither a cmekfs volume's store nor its mount point", path);
	if (!ret && unlock)
		ret = cmek_ctl_unlock_configure(unlock, path, err);
	if (ret) {
		if (fd >= 0)
			close(fd);
		free(path);
		return ret;
	}
	*ret_fd = fd;
	*ret_path = path;
	return 0;
}

void cmek_ctl_unlock_init(struct cmek_ctl_unlock *unlock, struct cmek_tool *tool)
{
	*unlock = (struct cmek_ctl_unlock){ .slot = -1, .kms = cmek_tool_kms_options(tool) };
}

void cmek_ctl_unlock_done(struct cmek_ctl_unlock *unlock)
{
	cmek_volconf_done(&unlock->conf);
}

bool cmek_ctl_unlock_option(struct cmek_ctl_unlock *unlock, const struct cmek_tool_args *args, int id)
{
	switch (id) {
	case CMEK_CTL_OPT_UNLOCK_KEY:
		unlock->key = args->value;
		return true;
	case CMEK_CTL_OPT_UNLOCK_SLOT:
		unlock->slot = (int)cmek_tool_number(args, 0, CMEK_SLOTS_MAX - 1);
		return true;
	case CMEK_CTL_OPT_PASSPHRASE_FILE:
		unlock->kms.passphrase_file = args->value;
		return true;
	case CMEK_CTL_OPT_KEYSTORE:
		unlock->kms.keystore_path = args->value;
		return true;
	case CMEK_CTL_OPT_CONFIG:
		unlock->kms.config_path = args->value;
		return true;
	case CMEK_CTL_OPT_CONF_PROFILE:
		unlock->kms.profile = args->value;
		return true;
	default:
		return false;
	}
}

void cmek_ctl_report_line(void *arg, const char *text)
{
	const struct cmek_tool *tool = arg;

	fprintf(stderr, "%s: %s\n", tool->program, text);
}

int cmek_ctl_change_begin(struct cmek_tool *tool, const char *volume, enum cmek_store_access access,
			  struct cmek_ctl_unlock *unlock, char **ret_path, struct cmek_change **ret_change,
			  struct cmek_error *err)
{
	struct cmek_change_params params = {
		.access = access,
		.kms = &unlock->kms,
		.slot = unlock->slot,
		.report = { cmek_ctl_report_line, tool },
	};
	struct cmek_error own = CMEK_ERROR_INIT;
	struct cmek_change *change = NULL;
	int fd = -1, ret;

	ret = cmek_ctl_volume_open(volume, unlock, &fd, ret_path, err);
	if (ret)
		return ret;
	params.key = unlock->key;
	ret = cmek_change_begin(fd, *ret_path, &params, &change, &own);
	close(fd);
	cmek_ctl_audit_opened(tool, unlock, *ret_path, change, &own);
	if (ret)
		return cmek_error_set(err, own.kind, own.err, "%s", own.text);
	*ret_change = change;
	return 0;
}

bool cmek_ctl_new_key_option(struct cmek_ctl_new_key *key, const struct cmek_tool_args *args, int id)
{
	switch (id) {
	case CMEK_CTL_OPT_REGION:
		if (!cmek_slot_text_ok(args->value, CMEK_SLOT_TEXT_MAX, 1))
			cmek_tool_usage(args->tool, "--region takes a text without control characters");
		key->region = args->value;
		return true;
	case CMEK_CTL_OPT_KEY_KEYSTORE:
		key->keystore = args->value;
		return true;
	case CMEK_CTL_OPT_KEY_PASSPHRASE_FILE:
		key->passphrase_file = args->value;
		return true;
	default:
		return cmek_tool_principal(args, id, &key->principal);
	}
}

/* cmek_kms_options.ask_passphrase, where the answer is known. */
static int give_code(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err)
{
	const struct cmek_secret *code = arg;

	(void)prompt;
	return cmek_secret_new_copy(CMEK_KEY_TEXT, cmek_secret_bytes(code, CMEK_KEY_TEXT), cmek_secret_len(code),
				    ret_passphrase, err);
}

int cmek_ctl_new_key_wrap(const struct cmek_ctl_new_key *key, const struct cmek_ctl_unlock *unlock, const char *uri,
			  const struct cmek_change *change, unsigned id, const char *purpose,
			  struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_kms_principal principal = cmek_kms_principal_for(uri, &key->principal);
	struct cmek_kms_options opts = unlock->kms;
	struct cmek_slot slot = { 0 };
	struct cmek_kms *kms = NULL;
	int ret;

	if (key->keystore) {
		opts.keystore_path = key->keystore;
		opts.passphrase_file = NULL;
	}
	if (key->passphrase_file)
		opts.passphrase_file = key->passphrase_file;
	if (key->recovery_code) {
		opts.passphrase_file = NULL;
		opts.ask_passphrase = give_code;
		opts.ask_arg = (void *)key->recovery_code;
	}
	ret = cmek_kms_open(uri, &principal, &opts, &kms, err);
	if (!ret)
		ret = cmek_keyslot_wrap(kms, cmek_change_old(change)->uuid, id, purpose, &principal,
					cmek_change_kek(change), &slot, err);
	cmek_kms_close(kms);
	if (ret)
		return ret;
	if (key->region) {
		free(slot.region);
		slot.region = strdup(key->region);
		if (!slot.region) {
			cmek_slot_done(&slot);
			return cmek_error_sys(err, ENOMEM, "key slot %u", id);
		}
	}
	*ret_slot = slot;
	return 0;
}

int cmek_ctl_rotations_since(const struct cmek_kms_info *info, const char *version)
{
	int at = -1, primary = -1;
	size_t i;

	for (i = 0; i < info->n_versions; i++) {
		if (!strcmp(info->versions[i].id, version))
			at = (int)i;
		if (info->primary_version && !strcmp(info->versions[i].id, info->primary_version))
			primary = (int)i;
	}
	if (at < 0 || primary < 0)
		return info->primary_version && version[0] && !strcmp(info->primary_version, version) ? 0 : -1;
	return primary > at ? primary - at : at - primary;
}

static json_t *principal_json(const struct cmek_slot *slot)
{
	/* "s*" leaves out what is NULL. */
	return json_pack("{s:s*, s:s*, s:s*, s:s*}", "role", slot->role, "external_id", slot->external_id,
			 "service_account", slot->service_account, "profile", slot->profile);
}

json_t *cmek_ctl_slot_json(const struct cmek_slot *slot)
{
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "slot", (int)slot->id, "purpose",
			 slot->purpose, "provider", slot->provider, "key", slot->key, "resolved", slot->resolved,
			 "version", slot->version, "region", slot->region, "principal", principal_json(slot), "created",
			 cmek_ctl_time_json(slot->created), "rewrapped", cmek_ctl_time_json(slot->rewrapped));
}

const char *cmek_ctl_key_text(const char *resolved, const char *version, char text[CMEK_CTL_KEY_TEXT])
{
	snprintf(text, CMEK_CTL_KEY_TEXT, "%s%s%s", resolved, version && version[0] ? " version " : "",
		 version ? version : "");
	return text;
}

json_t *cmek_ctl_time_json(int64_t unix_seconds)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(unix_seconds, text);
	return json_string(text);
}
