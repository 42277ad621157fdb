/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Targets of symbolic links in the store: one symlink, or one and its continuations below .cmekfs/links. Knows nothing
 * of the directory that the link itself is in.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/symlink_crypt.h"
#include "fs/tree/tree_impl.h"

#define OWN_DIR ".cmekfs"
#define LINKS_DIR "links"

/* The directory of the pieces, opened once; with `make` it is made if it is not there. */
static int links_dir(struct cmek_tree *tree, bool make)
{
	int own, fd;

	pthread_mutex_lock(&tree->links_lock);
	fd = tree->links_fd;
	if (fd >= 0)
		goto out;
	own = cmek_tree_open_at(tree, tree->root_fd, OWN_DIR, O_PATH | O_DIRECTORY);
	if (own < 0) {
		fd = own;
		goto out;
	}
	fd = cmek_tree_open_at(tree, own, LINKS_DIR, O_RDONLY | O_DIRECTORY);
	if (fd == -ENOENT && make) {
		fd = cmek_store_mkdir(own, LINKS_DIR, 0700);
		if (fd == 0 || fd == -EEXIST)
			fd = cmek_tree_open_at(tree, own, LINKS_DIR, O_RDONLY | O_DIRECTORY);
	}
	close(own);
	if (fd >= 0)
		tree->links_fd = fd;
out:
	pthread_mutex_unlock(&tree->links_lock);
	return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? -EIO : fd;
}

static int read_pieces(struct cmek_tree *tree, const struct cmek_symlink_head *head, char *e)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1], name[CMEK_SYMLINK_PIECE_NAME];
	uint32_t max = tree->params.symlink_max;
	unsigned n = cmek_symlink_n_pieces(head, max), k;
	int fd = links_dir(tree, false);

	if (fd < 0)
		return fd;
	memcpy(e, head->e, head->e_here);
	for (k = 1; k <= n; k++) {
		size_t off, len;
		ssize_t got;

		cmek_symlink_piece(head, max, k, name, &off, &len);
		got = cmek_store_readlink(fd, name, text, sizeof text);
		if (got < 0)
			return got == -ENOENT ? -EIO : got == -EINVAL || got == -ENAMETOOLONG ? -EBADMSG : (int)got;
		if ((size_t)got != len)
			return -EBADMSG;
		memcpy(e + off, text, len);
	}
	return 0;
}

int cmek_tree_read_target(struct cmek_tree *tree, int dirfd, const char *name, char *ret_target, size_t *ret_len)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	const struct cmek_secret *key;
	struct cmek_symlink_head head;
	char *e = NULL;
	ssize_t n;
	int r;

	n = cmek_store_readlink(dirfd, name, text, sizeof text);
	if (n < 0)
		return n == -ENAMETOOLONG ? -EBADMSG : (int)n;
	r = cmek_symlink_parse(text, (size_t)n, tree->params.symlink_max, &head);
	if (r)
		return r;
	r = cmek_keyring_symlink_key(tree->ring, head.dek, &key);
	if (r)
		return r;
	if (!head.split)
		return cmek_symlink_decrypt(key, head.e, head.e_len, ret_target, ret_len);
	e = malloc(CMEK_SYMLINK_E_MAX + 1);
	if (!e)
		return -ENOMEM;
	r = read_pieces(tree, &head, e);
	if (r == 0)
		r = cmek_symlink_decrypt(key, e, head.e_len, ret_target, ret_len);
	free(e);
	return r;
}

static int make_pieces(struct cmek_tree *tree, const struct cmek_symlink_head *head, const char *e)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1], name[CMEK_SYMLINK_PIECE_NAME];
	uint32_t max = tree->params.symlink_max;
	unsigned n = cmek_symlink_n_pieces(head, max), k;
	int fd = links_dir(tree, true), r = 0;

	if (fd < 0)
		return fd;
	for (k = 1; k <= n && r == 0; k++) {
		size_t off, len;

		cmek_symlink_piece(head, max, k, name, &off, &len);
		memcpy(text, e + off, len);
		text[len] = 0;
		r = cmek_store_symlink(fd, name, text);
	}
	return r ? r : cmek_store_fsync(fd, false);
}

int cmek_tree_make_target(struct cmek_tree *tree, const char *target, char **ret_text)
{
	char *e = NULL, *text = NULL;
	uint32_t max = tree->params.symlink_max;
	uint16_t dek = cmek_keyring_active_dek(tree->ring);
	size_t n = strlen(target), e_len;
	const struct cmek_secret *key;
	struct cmek_symlink_head head;
	int r;

	if (atomic_load(&tree->read_only))
		return -EROFS;
	if (n == 0)
		return -ENOENT;
	if (n > CMEK_SYMLINK_TARGET_MAX)
		return -ENAMETOOLONG;
	e = malloc(CMEK_SYMLINK_E_MAX + 1);
	text = malloc((size_t)max + 1);
	if (!e || !text) {
		r = -ENOMEM;
		goto out;
	}
	r = cmek_keyring_symlink_key(tree->ring, dek, &key);
	if (r == 0)
		r = cmek_symlink_encrypt(key, target, n, e, &e_len);
	if (r)
		goto out;
	cmek_symlink_text(dek, e, e_len, max, NULL, text);
	r = cmek_symlink_parse(text, strlen(text), max, &head);
	if (r == 0 && head.split) {
		r = make_pieces(tree, &head, e);
		if (r)
			cmek_tree_drop_pieces(tree, text);
	}
out:
	free(e);
	if (r) {
		free(text);
		return r;
	}
	*ret_text = text;
	return 0;
}

void cmek_tree_drop_pieces(struct cmek_tree *tree, const char *text)
{
	char name[CMEK_SYMLINK_PIECE_NAME];
	uint32_t max = tree->params.symlink_max;
	struct cmek_symlink_head head;
	size_t off, len;
	unsigned k;
	int fd;

	if (cmek_symlink_parse(text, strlen(text), max, &head) || !head.split)
		return;
	fd = links_dir(tree, false);
	/* Pieces that nobody refers to are harmless; fsck finds them. */
	for (k = cmek_symlink_n_pieces(&head, max); fd >= 0 && k > 0; k--) {
		cmek_symlink_piece(&head, max, k, name, &off, &len);
		(void)cmek_store_unlink(fd, name);
	}
}
