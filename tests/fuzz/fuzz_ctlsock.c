/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The line of a request on a control socket: what anybody who may connect can send. */
#include "config.h"

#include <string.h>

#include "fs/volume/ctlsock.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *request = NULL;
	char *line;
	int rc;

	if (size > CMEK_CTLSOCK_REQUEST_MAX)
		return 0;
	rc = cmek_ctlsock_parse((const char *)data, size, &request, &err);
	FUZZ_CHECK(rc == 0 ? json_is_object(request) : rc < 0 && request == NULL && cmek_error_is_set(&err));
	if (rc == 0) {
		const char *cmd = json_string_value(json_object_get(request, "cmd"));

		FUZZ_CHECK(cmd != NULL && strlen(cmd) <= CMEK_CTLSOCK_CMD_MAX);
		FUZZ_CHECK(json_integer_value(json_object_get(request, "v")) == CMEK_CTLSOCK_VERSION);
	}
	/* Whatever it was, there is an answer, and it is one line. */
	line = cmek_ctlsock_answer(&request, rc != 0 ? &err : NULL);
	FUZZ_CHECK(request == NULL);
	FUZZ_CHECK(line == NULL || strchr(line, '\n') == line + strlen(line) - 1);
	free(line);
	return 0;
}
