/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The journal of a volume that is not mounted, for cmekctl status: how large, and, with the volume's key, whether there
 * is anything to replay. Changes nothing.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/content/replay.h"
#include "fs/volume/registry.h"
#include "fs/volume/unlock.h"
#include "tools/ctl.h"

/* Journals that a replay has put aside. */
static unsigned count_kept(int meta_fd)
{
	int fd = openat(meta_fd, "lost", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	unsigned n = 0;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while ((entry = readdir(dir)))
		n += !strncmp(entry->d_name, "journal.", 8);
	closedir(dir);
	return n;
}

static int unlock(struct cmek_volhdr_store *store, const struct cmek_kms_options *opts, struct cmek_keyring **ret_ring,
		  struct cmek_error *err)
{
	struct cmek_unlock_params params = { .unwrapper = cmek_unwrapper_kms(opts), .slot = -1 };
	struct cmek_registry *registry = NULL;
	struct cmek_pins *pins = NULL;
	int ret;

	ret = cmek_registry_new(NULL, &registry, err);
	if (!ret)
		ret = cmek_registry_pins(registry, cmek_volhdr_store_header(store)->uuid, &pins, err);
	params.pins = pins;
	if (!ret)
		ret = cmek_unlock(store, &params, ret_ring, err);
	cmek_pins_free(pins);
	cmek_registry_free(registry);
	return ret;
}

/* err says what is wrong with the journal, or with the key. */
static void look_inside(struct cmek_ctl_journal *j, int store_fd, int meta_fd, struct cmek_volhdr_store *store,
			const struct cmek_kms_options *opts)
{
	struct cmek_replay_params params = { .store_fd = store_fd, .meta_fd = meta_fd, .dry_run = true };
	struct cmek_keyring *ring = NULL;

	if (!unlock(store, opts, &ring, &j->err)) {
		params.block_size = cmek_volhdr_store_header(store)->block_size;
		memcpy(params.volume, cmek_volhdr_store_header(store)->uuid, sizeof(params.volume));
		if (!cmek_replay(ring, &params, &j->result, &j->err))
			j->state = j->result.journals > 0 ? "to be replayed" : "empty";
		else if (j->err.kind == CMEK_E_TAMPERED || j->err.kind == CMEK_E_BAD_FORMAT)
			j->state = "damaged";
	}
	cmek_keyring_free(ring);
}

void cmek_ctl_journal_look(int store_fd, struct cmek_volhdr_store *store, const struct cmek_kms_options *opts,
			   struct cmek_ctl_journal *ret_journal)
{
	int meta_fd = openat(store_fd, CMEK_META_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	*ret_journal = (struct cmek_ctl_journal){ .state = "unknown" };
	if (meta_fd < 0)
		return;
	ret_journal->kept = count_kept(meta_fd);
	if (!fstatat(meta_fd, "journal.0", &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
		ret_journal->length_bytes = (uint64_t)st.st_size;
	if (opts && ret_journal->length_bytes > 0)
		look_inside(ret_journal, store_fd, meta_fd, store, opts);
	close(meta_fd);
}

void cmek_ctl_journal_print(const struct cmek_ctl_journal *j, const struct cmek_tool *tool)
{
	if (j->length_bytes > 0 && !strcmp(j->state, "to be replayed"))
		cmek_tool_say(tool, "journal:     %" PRIu64 " bytes, %s by the next mount: %" PRIu64 " records of %" PRIu64 " files",
			      j->length_bytes, j->state, j->result.records, j->result.files);
	else if (j->length_bytes > 0)
		cmek_tool_say(tool, "journal:     %" PRIu64 " bytes%s%s", j->length_bytes,
			      strcmp(j->state, "unknown") ? ", " : "; --journal asks for the key and says what is in it",
			      strcmp(j->state, "unknown") ? j->state : "");
	if (cmek_error_is_set(&j->err))
		cmek_tool_say(tool, "             %s", j->err.text);
	if (j->kept > 0)
		cmek_tool_say(tool, "             %u put aside in .cmekfs/lost, with changes that found no file or were damaged",
			      j->kept);
}

json_t *cmek_ctl_journal_json(const struct cmek_ctl_journal *j)
{
	if (j->length_bytes == 0 && j->kept == 0)
		return json_null();
	return json_pack("{s:I, s:s, s:I, s:I, s:i, s:s?}", "length_bytes", (json_int_t)j->length_bytes, "state", j->state,
			 "records", (json_int_t)j->result.records, "files", (json_int_t)j->result.files, "put_aside",
			 (int)j->kept, "problem", cmek_error_is_set(&j->err) ? j->err.text : NULL);
}
