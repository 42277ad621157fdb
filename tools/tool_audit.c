/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Events of the programs for the audit log. It knows no event: what was done and to what, its callers say.
 */
#include "config.h"

#include <stdio.h>

#include "tools/tool.h"

void cmek_tool_audit(const struct cmek_tool *tool, const char *config_path, struct cmek_audit_event *event)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	event->program = tool->program;
	/* Data and keys come first: what was done stays done. */
	if (cmek_audit_write(config_path, event, &err) != 0)
		fprintf(stderr, "%s: warning: not in the audit log: %s: %s\n", tool->program, event->name, err.text);
}
