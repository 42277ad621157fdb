/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads plaintext ranges: finds the groups, reads runs of stored blocks straight into the caller's buffer and opens
 * them there. Knows where ciphertext may be (store or held); never changes anything.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>

#include "base/io.h"
#include "fs/content/ofile.h"

/* The content key last used, so that a run of blocks of one session looks it up once. */
struct key_memo {
	const uint8_t *entry; /* one that it belongs to */
	struct cmek_secret *key;
};

static int memo_key(struct cmek_ofile *file, struct key_memo *memo, const uint8_t *entry)
{
	struct cmek_secret *key;
	int r;

	if (memo->key != NULL && cmek_entry_same_key(memo->entry, entry))
		return 0;
	r = cmek_key_cache_get(file->content->keys, cmek_entry_dek(entry), cmek_entry_salt(entry), file->file_id, &key);
	if (r < 0)
		return r;
	cmek_secret_free(memo->key);
	memo->key = key;
	memo->entry = entry;
	return 0;
}

static int block_read(struct cmek_group *group, struct key_memo *memo, uint64_t block, uint32_t len, uint8_t *plain)
{
	struct cmek_ofile *file = group->file;
	unsigned i = block % CMEK_GROUP_BLOCKS;
	const uint8_t *entry = cmek_group_entry(group, i);
	const struct cmek_held *held = group->held[i];
	ssize_t n;
	int r;

	if (cmek_entry_is_hole(entry)) {
		memset(plain, 0, len);
		return 0;
	}
	r = memo_key(file, memo, entry);
	if (r < 0)
		return r;
	if (held != NULL)
		return held->len == len ? cmek_block_open(memo->key, entry, block, held->data, len, plain) : -EBADMSG;
	n = cmek_ofile_read_block(file, block, plain, len);
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)len)
		return -EBADMSG; /* the store file ends before its sealed size */
	return cmek_block_open(memo->key, entry, block, plain, len, plain);
}

int cmek_block_read_locked(struct cmek_group *group, uint64_t block, uint32_t len, uint8_t *plain)
{
	struct key_memo memo = { NULL, NULL };
	int r = block_read(group, &memo, block, len, plain);

	cmek_secret_free(memo.key);
	return r;
}

/* Number of blocks from i on, at most n, that lie in the store one behind the other. */
static unsigned stored_run(struct cmek_group *group, unsigned i, unsigned n)
{
	uint64_t block = group->index * CMEK_GROUP_BLOCKS + i;
	unsigned run = 0;

	while (run < n && group->held[i + run] == NULL && !cmek_entry_is_hole(cmek_group_entry(group, i + run)) &&
	       !cmek_ofile_is_overlaid(group->file, block + run))
		run++;
	return run;
}

/* A run of whole stored blocks, of `bytes` in total (the last may be the short tail): one read, opened in place. */
static int read_run(struct cmek_group *group, struct key_memo *memo, uint64_t block, size_t bytes, uint8_t *dest)
{
	struct cmek_ofile *file = group->file;
	uint32_t block_size = file->content->params.block_size;
	ssize_t n = cmek_pread_full(file->fd, dest, bytes, cmek_block_stored_off(block_size, block));
	int r;

	if (n < 0)
		return (int)n;
	if ((size_t)n < bytes)
		return -EBADMSG;
	for (; bytes > 0; block++) {
		const uint8_t *entry = cmek_group_entry(group, block % CMEK_GROUP_BLOCKS);
		uint32_t len = bytes < block_size ? (uint32_t)bytes : block_size;

		r = memo_key(file, memo, entry);
		if (r == 0)
			r = cmek_block_open(memo->key, entry, block, dest, len, dest);
		if (r < 0)
			return r;
		dest += len;
		bytes -= len;
	}
	return 0;
}

/* Part of one block, by way of a scratch buffer. */
static int read_part(struct cmek_group *group, struct key_memo *memo, uint64_t block, uint32_t block_len, uint32_t from,
		     uint32_t len, uint8_t *dest)
{
	struct cmek_scratch *scratch = cmek_scratch_get(group->file->content);
	int r;

	if (scratch == NULL)
		return -ENOMEM;
	r = block_read(group, memo, block, block_len, scratch->plain);
	if (r == 0)
		memcpy(dest, scratch->plain + from, len);
	cmek_wipe(scratch->plain, block_len);
	return r;
}

/* Plain bytes off..end-1, all inside this group and inside the file. */
static int read_group(struct cmek_group *group, uint64_t off, uint64_t end, uint8_t *dest)
{
	struct cmek_ofile *file = group->file;
	uint32_t block_size = file->content->params.block_size;
	struct key_memo memo = { NULL, NULL };
	int r = 0;

	while (r == 0 && off < end) {
		uint64_t block = off / block_size;
		uint32_t block_len = cmek_block_plain_len(block_size, file->size, block);
		uint32_t from = (uint32_t)(off % block_size);
		size_t len = end - off;
		unsigned run = 0;

		if (from == 0 && len >= block_len)
			run = stored_run(group, block % CMEK_GROUP_BLOCKS,
					 (unsigned)((len + block_size - 1) / block_size));
		/* the last block of the run may be asked for in part only */
		if (run > 0 && (uint64_t)run * block_size > len &&
		    end != block * block_size + (uint64_t)(run - 1) * block_size +
				   cmek_block_plain_len(block_size, file->size, block + run - 1))
			run--;
		if (run > 0) {
			if (len > (size_t)run * block_size)
				len = (size_t)run * block_size;
			r = read_run(group, &memo, block, len, dest);
		} else {
			if (len > block_len - from)
				len = block_len - from;
			if (len == block_len)
				r = block_read(group, &memo, block, block_len, dest);
			else
				r = read_part(group, &memo, block, block_len, from, (uint32_t)len, dest);
		}
		dest += len;
		off += len;
	}
	cmek_secret_free(memo.key);
	return r;
}

ssize_t cmek_content_read(struct cmek_ofile *file, void *buf, size_t len, uint64_t off)
{
	uint32_t block_size = file->content->params.block_size;
	uint64_t group_plain = cmek_group_plain_bytes(block_size), end, pos;
	uint8_t *dest = buf;
	struct cmek_group *group;
	int r;

	r = cmek_ofile_load(file);
	if (r < 0)
		return r;
	(void)pthread_rwlock_rdlock(&file->lock);
	end = off >= file->size ? off : file->size - off < len ? file->size : off + len;
	for (pos = off; r == 0 && pos < end;) {
		uint64_t index = pos / group_plain;
		uint64_t group_end = (index + 1) * group_plain < end ? (index + 1) * group_plain : end;

		group = cmek_group_peek(file, index);
		if (group == NULL) {
			/* Page and blocks are needed both: let the store fetch the blocks while the page is checked. */
			(void)posix_fadvise(file->fd, (off_t)cmek_block_stored_off(block_size, pos / block_size),
					    (off_t)(group_end - pos), POSIX_FADV_WILLNEED); /* a hint */
		} else {
			cmek_group_put(group);
		}
		r = cmek_group_get(file, index, false, &group);
		if (r < 0)
			break;
		(void)pthread_rwlock_rdlock(&group->lock);
		r = read_group(group, pos, group_end, dest);
		(void)pthread_rwlock_unlock(&group->lock);
		cmek_group_put(group);
		dest += group_end - pos;
		pos = group_end;
	}
	(void)pthread_rwlock_unlock(&file->lock);
	if (r == 0)
		atomic_fetch_add_explicit(&file->content->read_bytes, end - off, memory_order_relaxed);
	return r < 0 ? r : (ssize_t)(end - off);
}
