/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_TOOL_PREFLIGHT_H
#define CMEK_TOOLS_TOOL_PREFLIGHT_H

#include <stdio.h>

#include "kms/preflight.h"
#include "tools/tool.h"

/* The steps of a dry run for people: one line each, with its time and, if it failed, what is to be done about it. */
void cmek_tool_preflight_print(FILE *f, const struct cmek_preflight *preflight);
/* [{"step", "result": "ok", "left-out" or "failed", "ms", "text", "kind"}, ...]; NULL when there is no memory. */
json_t *cmek_tool_preflight_json(const struct cmek_preflight *preflight);

#endif
