/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Shows a dry run with a key, as text and as JSON. It must not know what the steps do.
 */
#include "config.h"

#include "tools/tool_preflight.h"

static const char *result_name(enum cmek_preflight_result result)
{
	switch (result) {
	case CMEK_PREFLIGHT_OK:
		return "ok";
	case CMEK_PREFLIGHT_LEFT_OUT:
		return "left-out";
	case CMEK_PREFLIGHT_FAILED:
		break;
	}
	return "failed";
}

void cmek_tool_preflight_print(FILE *f, const struct cmek_preflight *preflight)
{
	for (unsigned i = 0; i < preflight->n; i++) {
		const struct cmek_preflight_step *s = &preflight->steps[i];

		fprintf(f, "%-9s %-8s %5u ms  %s\n", s->name, result_name(s->result), s->ms,
			s->result == CMEK_PREFLIGHT_OK ? s->text : s->error.text);
	}
}

json_t *cmek_tool_preflight_json(const struct cmek_preflight *preflight)
{
	json_t *list = json_array();

	for (unsigned i = 0; list && i < preflight->n; i++) {
		const struct cmek_preflight_step *s = &preflight->steps[i];
		bool ok = s->result == CMEK_PREFLIGHT_OK;

		if (json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:s, s:s?}", "step", s->name, "result",
							  result_name(s->result), "ms", (int)s->ms, "text",
							  ok ? s->text : s->error.text, "kind",
							  ok ? NULL : cmek_kind_name(s->error.kind))) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}
