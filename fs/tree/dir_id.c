/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The symlink .cmekfs.dir: format, reading, making, removing. A symlink, because making one is a single journaled
 * operation: it can't be found empty after a crash. Knows nothing of keys, nodes, or which lock protects it.
 */
#include "config.h"

#include "fs/tree/dir_id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/tree/store.h"

#define PLAIN_LEN 30  /* "v1:DDDD:" and the id */
#define MOVING_LEN 35 /* "v1:DDDD,OOOO:" and the id */
#define ID_TEXT_LEN 22

void cmek_dir_id_format(const struct cmek_dir_id *id, char ret_text[CMEK_DIR_ID_TEXT])
{
	char id_text[ID_TEXT_LEN + 1];

	cmek_b64url_encode(id->id, sizeof id->id, id_text);
	if (id->old_dek)
		snprintf(ret_text, CMEK_DIR_ID_TEXT, "v1:%04x,%04x:%s", id->dek, id->old_dek, id_text);
	else
		snprintf(ret_text, CMEK_DIR_ID_TEXT, "v1:%04x:%s", id->dek, id_text);
}

/* A DEK id: four lower-case hexadecimal digits, not zero. */
static int parse_dek(const char *s, uint16_t *ret_dek)
{
	uint8_t b[2];
	size_t i;

	for (i = 0; i < 4; i++) {
		if (s[i] >= 'A' && s[i] <= 'F')
			return -EBADMSG;
	}
	if (cmek_hex_decode(s, 4, b, sizeof b) != 2 || (b[0] | b[1]) == 0)
		return -EBADMSG;
	*ret_dek = (uint16_t)(b[0] << 8 | b[1]);
	return 0;
}

int cmek_dir_id_parse(const char *text, size_t len, struct cmek_dir_id *ret_id)
{
	struct cmek_dir_id id = { 0 };
	const char *id_text;

	if ((len != PLAIN_LEN && len != MOVING_LEN) || memcmp(text, "v1:", 3) != 0)
		return -EBADMSG;
	id_text = text + len - ID_TEXT_LEN;
	if (id_text[-1] != ':')
		return -EBADMSG;
	if (parse_dek(text + 3, &id.dek))
		return -EBADMSG;
	if (len == MOVING_LEN && (text[7] != ',' || parse_dek(text + 8, &id.old_dek) || id.old_dek == id.dek))
		return -EBADMSG;
	if (cmek_b64url_decode(id_text, ID_TEXT_LEN, id.id, sizeof id.id) != (long)sizeof id.id)
		return -EBADMSG;
	*ret_id = id;
	return 0;
}

int cmek_dir_id_read(int dirfd, struct cmek_dir_id *ret_id)
{
	char text[CMEK_DIR_ID_TEXT + 1];
	ssize_t n = cmek_store_readlink(dirfd, CMEK_DIR_ID_NAME, text, sizeof text);

	if (n == -EINVAL || n == -ENAMETOOLONG)
		return -EBADMSG;
	return n < 0 ? (int)n : cmek_dir_id_parse(text, (size_t)n, ret_id);
}

int cmek_dir_id_make(int dirfd, uint16_t dek, struct cmek_dir_id *ret_id, bool *ret_made)
{
	struct cmek_dir_id id = { .dek = dek };
	int r;

	cmek_random(id.id, sizeof id.id);
	r = cmek_dir_id_restore(dirfd, &id);
	*ret_made = r == 0;
	if (r == -EEXIST)
		return cmek_dir_id_read(dirfd, ret_id);
	if (r == 0)
		*ret_id = id;
	return r;
}

int cmek_dir_id_remove(int dirfd)
{
	int r = cmek_store_unlink(dirfd, CMEK_DIR_ID_NAME);

	return r == -ENOENT ? 0 : r;
}

int cmek_dir_id_restore(int dirfd, const struct cmek_dir_id *id)
{
	char text[CMEK_DIR_ID_TEXT];

	cmek_dir_id_format(id, text);
	return cmek_store_symlink(dirfd, CMEK_DIR_ID_NAME, text);
}
