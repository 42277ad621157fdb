/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The program cmekfs, which is also mount(8)'s helper mount.cmekfs: from options to a mount, and from its error to text
 * and exit code. No logic.
 */
#include "config.h"

#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/mount/launch.h"
#include "fs/mount/opts.h"
#include "tools/tool.h"

static int mount_volume(struct cmek_mount_opts *opts, struct cmek_error *err)
{
	struct cmek_kms_options kms = { .ask_passphrase = cmek_tool_ask_passphrase };
	int rc = cmek_mount_opts_configure(opts, err);

	if (rc == 0)
		rc = cmek_mount_opts_resolve(opts, err);
	if (rc != 0 || opts->action == CMEK_MOUNT_FAKE)
		return rc;
	kms.config_path = opts->config_path;
	kms.profile = opts->profile;
	kms.keystore_path = opts->keystore_path;
	kms.passphrase_file = opts->passphrase_file;
	return cmek_launch(opts, &kms, err);
}

int main(int argc, char **argv)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_mount_opts *opts = NULL;
	struct cmek_tool tool;
	int code, rc;

	cmek_tool_init(&tool, "cmekfs");
	rc = cmek_mount_opts_parse(argc, argv, geteuid() == 0, &opts, &err);
	if (rc != 0)
		return cmek_tool_fail(&tool, &err);
	if (opts->action == CMEK_MOUNT_HELP || opts->action == CMEK_MOUNT_VERSION) {
		if (opts->action == CMEK_MOUNT_HELP)
			fputs(cmek_mount_opts_usage(), stdout);
		else
			printf("cmekfs (cmekfs) %s\n", PACKAGE_VERSION);
		cmek_mount_opts_free(opts);
		return cmek_tool_done(&tool);
	}
	cmek_log_to_stderr("cmekfs", opts->log_level);
	rc = mount_volume(opts, &err);
	code = rc == 0 ? CMEK_EXIT_OK : cmek_tool_fail(&tool, &err);
	cmek_mount_opts_free(opts);
	return code;
}
