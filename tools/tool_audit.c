/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Events of the programs for the audit log. It knows no event but that a key service was asked: what was done and to what,
 * its callers say.
 */
#include "config.h"

#include <stdio.h>

#include "tools/tool.h"

/*
 * One command may ask many times: that these are not in the log is said once, and a log that somebody keeps locked is waited
 * for once. The system log has them all.
 */
static void audit_call(void *arg, const struct cmek_kms_call *call)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_audit_event event;
	struct cmek_tool *tool = arg;

	cmek_audit_kms_call(call, &event);
	event.program = tool->program;
	event.at_once = atomic_load(&tool->audit_busy);
	if (cmek_audit_write(tool->config_path, &event, &err) == 0)
		return;
	if (err.kind == CMEK_E_BUSY)
		atomic_store(&tool->audit_busy, true);
	if (!atomic_exchange(&tool->audit_failed, true))
		fprintf(stderr, "%s: warning: not in the audit log: %s (%s) and maybe more: %s\n", tool->program, event.name,
			event.operation, err.text);
}

struct cmek_kms_options cmek_tool_kms_options(struct cmek_tool *tool)
{
	return (struct cmek_kms_options){
		.ask_passphrase = cmek_tool_ask_passphrase, .called = audit_call, .called_arg = tool,
	};
}

void cmek_tool_audit(const struct cmek_tool *tool, const char *config_path, struct cmek_audit_event *event)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	event->program = tool->program;
	/* Data and keys come first: what was done stays done. */
	if (cmek_audit_write(config_path, event, &err) != 0)
		fprintf(stderr, "%s: warning: not in the audit log: %s: %s\n", tool->program, event->name, err.text);
}
