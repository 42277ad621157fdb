/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The text of the symlink that has a directory's id: what is taken has one form only. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/tree/dir_id.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char again[CMEK_DIR_ID_TEXT];
	struct cmek_dir_id id;
	int r = cmek_dir_id_parse((const char *)data, size, &id);

	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r < 0)
		return 0;
	FUZZ_CHECK(id.dek != 0 && id.old_dek != id.dek);
	cmek_dir_id_format(&id, again);
	FUZZ_CHECK(strlen(again) == size && memcmp(again, data, size) == 0);
	return 0;
}
