/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl slot test: a dry run with a key, before a volume depends on it. What it does is the library's; this is its
 * command line and its words.
 */
#include "config.h"

#include <string.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/volume/slot.h"
#include "tools/ctl.h"
#include "tools/tool_preflight.h"

enum { OPT_VOLUME = 256, OPT_PURPOSE, OPT_PASSPHRASE_FILE, OPT_CONFIG, OPT_PROFILE };

struct test_run {
	struct cmek_kms_context ctx;
	struct cmek_kms_principal principal;
	struct cmek_kms_options opts;
	const char *uri;
};

static void parse(struct test_run *run, struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_VOLUME, "volume", "UUID", "as for this volume, which need not exist: the KMS's policy may name it" },
		{ OPT_PURPOSE, "purpose", "PURPOSE", "data (the default), backup or recovery" },
		{ OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", "read the passphrase of a local key store from FILE" },
		{ OPT_CONFIG, "config", "FILE", "the configuration [/etc/cmekfs/cmekfs.conf]" },
		CMEK_TOOL_PROFILE_OPTION(OPT_PROFILE),
		CMEK_TOOL_PRINCIPAL_OPTIONS,
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY",
		.about = "Tries what a volume will want of a key, with a key of its own that is thrown away: who we are for the\n"
			 "KMS, the key's state, wrap, unwrap, and that another volume can't unwrap. Changes nothing.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_tool_args args;
	int id;

	cmek_random(run->ctx.volume, sizeof(run->ctx.volume));
	run->ctx.purpose = "data";
	run->opts = cmek_tool_kms_options(tool);
	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)) != 0) {
		if (id == OPT_VOLUME && cmek_uuid_decode(args.value, run->ctx.volume) != 0)
			cmek_tool_usage(tool, "--volume takes a UUID, not '%s'", args.value);
		else if (id == OPT_PURPOSE && !cmek_slot_purpose_ok(args.value))
			cmek_tool_usage(tool, "--purpose takes data, backup or recovery, not '%s'", args.value);
		else if (id == OPT_PURPOSE)
			run->ctx.purpose = args.value;
		else if (id == OPT_PASSPHRASE_FILE)
			run->opts.passphrase_file = args.value;
		else if (id == OPT_CONFIG)
			run->opts.config_path = args.value;
		else if (id == OPT_PROFILE)
			run->opts.profile = args.value;
		else if (id != OPT_VOLUME)
			(void)cmek_tool_principal(&args, id, &run->principal);
	}
	run->uri = args.argv[0];
}

int cmek_ctl_slot_test(struct cmek_tool *tool, int argc, char **argv)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct test_run run = { .uri = NULL };
	struct cmek_preflight preflight = { .n = 0 };
	struct cmek_kms *kms = NULL;
	json_t *json;
	int rc, code;

	parse(&run, tool, argc, argv);
	rc = cmek_kms_open(run.uri, &run.principal, &run.opts, &kms, &err);
	if (rc == 0)
		rc = cmek_kms_preflight(kms, &run.ctx, &preflight, &err);
	if (!tool->quiet && !tool->json)
		cmek_tool_preflight_print(stdout, &preflight);
	if (rc == 0) {
		cmek_tool_say(tool, "A volume can use this key.");
		json = json_pack("{s:s, s:o}", "key", run.uri, "steps", cmek_tool_preflight_json(&preflight));
		cmek_tool_json(tool, &json);
	}
	code = rc == 0 ? cmek_tool_done(tool) : cmek_tool_fail(tool, &err);
	cmek_kms_close(kms);
	return code;
}
