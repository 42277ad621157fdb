/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl header: what a volume's header says, without any key. So nothing of it is authenticated, and it says so.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/volume/volhdr_store.h"
#include "tools/ctl.h"

static const char *or_dash(const char *text)
{
	return text && text[0] ? text : "-";
}

static void print_slot(const struct cmek_tool *tool, const struct cmek_slot *slot)
{
	char created[CMEK_TIME_TEXT], rewrapped[CMEK_TIME_TEXT];

	cmek_time_encode(slot->created, created);
	cmek_time_encode(slot->rewrapped, rewrapped);
	cmek_tool_say(tool, "slot %u", slot->id);
	cmek_tool_say(tool, "  purpose:     %s", slot->purpose);
	cmek_tool_say(tool, "  key:         %s", slot->key);
	if (strcmp(slot->key, slot->resolved))
		cmek_tool_say(tool, "  resolved:    %s", slot->resolved);
	cmek_tool_say(tool, "  version:     %s", or_dash(slot->version));
	if (slot->region[0])
		cmek_tool_say(tool, "  region:      %s", slot->region);
	if (slot->role)
		cmek_tool_say(tool, "  role:        %s", slot->role);
	if (slot->external_id)
		cmek_tool_say(tool, "  external id: %s", slot->external_id);
	if (slot->service_account)
		cmek_tool_say(tool, "  account:     %s", slot->service_account);
	if (slot->profile)
		cmek_tool_say(tool, "  profile:     %s", slot->profile);
	cmek_tool_say(tool, "  wrapped key: %zu bytes", slot->wrapped_len);
	cmek_tool_say(tool, "  created:     %s", created);
	cmek_tool_say(tool, "  rewrapped:   %s", rewrapped);
}

static void print_header(const struct cmek_tool *tool, const struct cmek_volhdr_store *store, const char *path)
{
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(store);
	char uuid[CMEK_UUID_TEXT], created[CMEK_TIME_TEXT];
	const char *problem;
	uint64_t sequence = 0;
	size_t i;
	int k;

	cmek_uuid_encode(hdr->uuid, uuid);
	cmek_time_encode(hdr->created, created);
	cmek_tool_say(tool, "store:         %s", path);
	for (k = 0; k < 2; k++) {
		problem = cmek_volhdr_store_problem(store, k, &sequence);
		if (problem)
			cmek_tool_say(tool, "copy %d:        not usable: %s", k, problem);
		else
			cmek_tool_say(tool, "copy %d:        whole, number %llu", k, (unsigned long long)sequence);
	}
	cmek_tool_say(tool, "authenticated: no (that needs a key)");
	cmek_tool_say(tool, "UUID:          %s", uuid);
	cmek_tool_say(tool, "label:         %s", or_dash(hdr->label));
	cmek_tool_say(tool, "created:       %s", created);
	cmek_tool_say(tool, "block size:    %u", hdr->block_size);
	cmek_tool_say(tool, "symlink max:   %u", hdr->symlink_max);
	cmek_tool_say(tool, "area:          %u bytes", hdr->area_len);
	if (hdr->read_only_for)
		cmek_tool_say(tool, "read-only for: %s", hdr->read_only_for);
	for (i = 0; i < hdr->n_slots; i++)
		print_slot(tool, &hdr->slots[i]);
	for (i = 0; i < hdr->n_deks; i++) {
		cmek_time_encode(hdr->deks[i].created, created);
		cmek_tool_say(tool, "DEK %-5u      %s, domain %u, created %s", hdr->deks[i].id,
			      cmek_dek_state_name(hdr->deks[i].state), hdr->deks[i].domain, created);
	}
	cmek_tool_say(tool, "next DEK:      %u", hdr->dek_next);
}

static json_t *copies_json(const struct cmek_volhdr_store *store)
{
	json_t *copies = json_array();
	const char *problem;
	uint64_t sequence = 0;
	int k;

	for (k = 0; k < 2; k++) {
		problem = cmek_volhdr_store_problem(store, k, &sequence);
		json_array_append_new(copies,
				      json_pack("{s:i, s:b, s:o, s:s?}", "copy", k, "usable", problem == NULL,
						"sequence", problem ? json_null() : json_integer((json_int_t)sequence),
						"problem", problem));
	}
	return copies;
}

static json_t *header_json(const struct cmek_volhdr_store *store, const char *path)
{
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(store);
	json_t *slots = json_array(), *deks = json_array(), *slot;
	char uuid[CMEK_UUID_TEXT];
	size_t i;

	cmek_uuid_encode(hdr->uuid, uuid);
	for (i = 0; i < hdr->n_slots; i++)
		if (!cmek_slot_to_json(&hdr->slots[i], &slot, NULL))
			json_array_append_new(slots, slot);
	for (i = 0; i < hdr->n_deks; i++)
		json_array_append_new(deks, json_pack("{s:i, s:s, s:I, s:o}", "id", hdr->deks[i].id, "state",
						      cmek_dek_state_name(hdr->deks[i].state), "domain",
						      (json_int_t)hdr->deks[i].domain, "created",
						      cmek_ctl_time_json(hdr->deks[i].created)));
	return json_pack("{s:s, s:o, s:b, s:I, s:s, s:s, s:o, s:i, s:i, s:i, s:s?, s:o, s:o, s:i, s:i}", "store", path,
			 "copies", copies_json(store), "authenticated", 0, "sequence", (json_int_t)hdr->sequence,
			 "uuid", uuid, "label", hdr->label, "created", cmek_ctl_time_json(hdr->created), "block_size",
			 (int)hdr->block_size, "symlink_max", (int)hdr->symlink_max, "area_length", (int)hdr->area_len,
			 "read_only_for", hdr->read_only_for, "slots", slots, "deks", deks, "active_dek",
			 (int)hdr->dek_active, "next_dek", (int)hdr->dek_next);
}

static int run_dump(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Shows what the header of a volume says. Needs no key, and so authenticates nothing.",
		.min_operands = 1, .max_operands = 1,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr_store *store = NULL;
	struct cmek_tool_args args;
	char *path = NULL;
	json_t *json;
	int fd = -1, ret, code;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args))
		; /* there are only common options here */
	ret = cmek_ctl_volume_open(args.argv[0], NULL, &fd, &path, &err);
	if (!ret)
		ret = cmek_volhdr_store_open(fd, CMEK_STORE_PEEK, NULL, &store, &err);
	if (!ret) {
		print_header(tool, store, path);
		json = header_json(store, path);
		cmek_tool_json(tool, &json);
	}
	code = ret ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_volhdr_store_close(store);
	if (fd >= 0)
		close(fd);
	free(path);
	return code;
}

int cmek_ctl_header(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_ctl_verb verbs[] = {
		{ "backup", "put a copy of the header into a file", cmek_ctl_header_backup },
		{ "dump", "show what the header says", run_dump },
		{ "restore", "put the header of a backup in the place of the volume's", cmek_ctl_header_restore },
		{ NULL, NULL, NULL },
	};

	return cmek_ctl_dispatch(tool, verbs, "A volume's header. VOLUME is a store, a mount point or a name in the configuration.", argc, argv);
}
