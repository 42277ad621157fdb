/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Targets of symbolic links in the store: one symlink, or one and its continuations below .cmekfs/links. Knows nothing
 * of the directory that the link itself is in.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/text.h"
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
	return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? -ENOLINK : fd;
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
			return got == -ENOENT ? -ENOLINK : got == -EINVAL || got == -ENAMETOOLONG ? -EBADMSG : (int)got;
		if ((size_t)got != len)
			return -EBADMSG;
		memcpy(e + off, text, len);
	}
	return 0;
}

int cmek_tree_read_target(struct cmek_tree *tree, int dirfd, const char *name, char *ret_target, size_t *ret_len)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	struct cmek_secret *key = NULL;
	struct cmek_symlink_head head;
	char *e = NULL;
	ssize_t n;
	int r;

	n = cmek_store_readlink(dirfd, name, text, sizeof text);
	if (n < 0) /* EINVAL: it was a symlink when it was looked up */
		return n == -ENAMETOOLONG ? -EBADMSG : n == -EINVAL ? -ESTALE : (int)n;
	r = cmek_symlink_parse(text, (size_t)n, tree->params.symlink_max, &head);
	if (r)
		return r;
	r = cmek_keyring_symlink_key(tree->ring, head.dek, &key);
	if (r)
		return r;
	if (head.split) {
		e = malloc(CMEK_SYMLINK_E_MAX + 1);
		r = e ? read_pieces(tree, &head, e) : -ENOMEM;
	}
	if (r == 0)
		r = cmek_symlink_decrypt(key, e ? e : head.e, head.e_len, ret_target, ret_len);
	cmek_secret_free(key);
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
	struct cmek_secret *key = NULL;
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
	cmek_secret_free(key);
	free(e);
	if (r) {
		free(text);
		return r;
	}
	*ret_text = text;
	return 0;
}

bool cmek_tree_target_is_old(struct cmek_tree *tree, const char *text)
{
	struct cmek_symlink_head head;

	return cmek_symlink_parse(text, strlen(text), tree->params.symlink_max, &head) == 0 &&
	       head.dek != cmek_keyring_active_dek(tree->ring);
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

/* A symlink in our own directory, under a name that no piece has; -1 or an O_PATH descriptor of it in *ret_fd. */
static int make_spare(struct cmek_tree *tree, int links, const char *text, char ret_name[CMEK_SYMLINK_PIECE_NAME], int *ret_fd)
{
	char id[CMEK_SYMLINK_ID_LEN + 1];
	uint8_t bytes[16];
	int r;

	cmek_random(bytes, sizeof bytes);
	cmek_b64url_encode(bytes, sizeof bytes, id);
	(void)snprintf(ret_name, CMEK_SYMLINK_PIECE_NAME, "%s.0", id);
	r = cmek_store_symlink(links, ret_name, text);
	if (r)
		return r;
	*ret_fd = cmek_tree_open_at(tree, links, ret_name, O_PATH);
	if (*ret_fd >= 0)
		return 0;
	(void)cmek_store_unlink(links, ret_name);
	return *ret_fd;
}

int cmek_tree_replace_link(struct cmek_tree *tree, const char *text, const struct stat *like, int dirfd, const char *name)
{
	struct timespec times[2];
	char spare[CMEK_SYMLINK_PIECE_NAME];
	int links = links_dir(tree, true), fd = -1, r;

	r = links < 0 ? links : make_spare(tree, links, text, spare, &fd);
	if (r)
		return r;
	if (like) {
		times[0] = like->st_atim;
		times[1] = like->st_mtim;
		r = cmek_store_chown(fd, like->st_uid, like->st_gid);
		if (r == 0)
			r = cmek_store_utimens(fd, times);
	}
	close(fd);
	if (r == 0)
		r = cmek_store_rename(links, spare, dirfd, name, 0);
	if (r)
		(void)cmek_store_unlink(links, spare);
	return r;
}

/* The entry is locked, and is a symlink with this text under another data key. */
static int seal_anew(struct cmek_tree *tree, int dirfd, const char *entry, const struct cmek_store_stat *st, const char *text)
{
	char target[CMEK_SYMLINK_TARGET_MAX + 1];
	struct cmek_node_key key;
	struct cmek_node node;
	char *new_text = NULL;
	bool known = false;
	size_t len = 0;
	int r;

	r = cmek_tree_read_target(tree, dirfd, entry, target, &len);
	if (r)
		return r;
	target[len] = 0;
	r = cmek_tree_key(st, dirfd, entry, &key);
	if (r == 0)
		r = cmek_tree_make_target(tree, target, &new_text);
	if (r == 0) {
		known = cmek_node_find(tree->nodes, &key, &node) == 0;
		r = cmek_tree_replace_link(tree, new_text, &st->st, dirfd, entry);
		if (r)
			cmek_tree_drop_pieces(tree, new_text);
	}
	/* It is another inode now: whoever knows the old one looks it up again. Its other names have its pieces still. */
	if (r == 0 && known)
		cmek_tree_retire(tree, node.number);
	if (r == 0 && st->st.st_nlink == 1)
		cmek_tree_drop_pieces(tree, text);
	if (known)
		cmek_node_put(tree->nodes, node.number);
	cmek_wipe(target, sizeof target);
	free(new_text);
	return r;
}

int cmek_tree_reencrypt_symlink(struct cmek_tree *tree, const struct cmek_tree_dir *dir, const char *entry,
				struct cmek_tree_reencrypt *sum)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	struct cmek_tree_locks locks = { 0 };
	struct cmek_symlink_head head;
	struct cmek_store_stat st;
	int fd = dir->fd.fd, r;
	ssize_t n = 0;

	cmek_tree_locks_add_name(&locks, &dir->fd.node.key, entry);
	cmek_tree_lock_names(tree, &locks);
	r = cmek_store_stat(fd, entry, &st);
	if (r == 0 && !S_ISLNK(st.st.st_mode))
		r = -ENOENT;
	if (r == 0) {
		n = cmek_store_readlink(fd, entry, text, sizeof text);
		r = n == -ENAMETOOLONG ? -EBADMSG : n < 0 ? (int)n : 0;
	}
	if (r == 0)
		r = cmek_symlink_parse(text, (size_t)n, tree->params.symlink_max, &head);
	sum->targets += r == 0;
	if (r == 0 && head.dek != cmek_keyring_active_dek(tree->ring)) {
		r = seal_anew(tree, fd, entry, &st, text);
		sum->moved += r == 0;
	}
	cmek_tree_unlock(tree, &locks);
	sum->bad += r == -EBADMSG || r == -EIO || r == -ENOLINK || r == -ENOKEY;
	sum->left += r == -EPERM || r == -EACCES;
	return r == -ENOENT || r == -EBADMSG || r == -EIO || r == -ENOLINK || r == -ENOKEY || r == -EPERM || r == -EACCES ? 0 : r;
}

int cmek_tree_reencrypt_link(struct cmek_tree *tree, uint64_t node, struct cmek_tree_reencrypt *sum)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	struct cmek_symlink_head head;
	struct cmek_tree_fd fd;
	ssize_t n;
	int r = cmek_tree_fd_get(tree, node, &fd);

	if (r)
		return r;
	n = cmek_store_readlink(fd.fd, "", text, sizeof text);
	r = n == -ENAMETOOLONG ? -EBADMSG : n < 0 ? (int)n : 0;
	if (r == 0)
		r = cmek_symlink_parse(text, (size_t)n, tree->params.symlink_max, &head);
	sum->targets += r == 0;
	sum->old += r == 0 && head.dek != cmek_keyring_active_dek(tree->ring);
	sum->bad += r == -EBADMSG;
	cmek_tree_fd_put(tree, &fd);
	return r == -EBADMSG ? 0 : r;
}

/*
 * A spare is there only while cmek_tree_replace_link() is at work, that is for who re-encrypts. What the crash of an earlier
 * mount left may be under any data key.
 */
int cmek_tree_reencrypt_spares(struct cmek_tree *tree)
{
	int links = links_dir(tree, false), fd, r = 0;
	const struct dirent *d;
	size_t len;
	DIR *dir;

	if (links < 0)
		return links == -ENOLINK ? 0 : links; /* there never was a long target, nor a spare */
	fd = cmek_tree_open_at(tree, links, ".", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, d = readdir(dir)) != NULL) {
		len = strlen(d->d_name);
		if (len == CMEK_SYMLINK_ID_LEN + 2 && strcmp(d->d_name + CMEK_SYMLINK_ID_LEN, ".0") == 0)
			r = cmek_store_unlink(links, d->d_name);
	}
	if (r == 0 && errno != 0)
		r = -errno;
	closedir(dir);
	return r;
}
