/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Replay of journals that are written by hand, record by record: which image of a place is the last one, which file a
 * record means, and what is left alone. Blocks here are patterns: replay writes the sealed bytes that it finds.
 */
#include "config.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "fs/content/block_map.h"
#include "fs/content/map_page.h"
#include "tests/unit/journal_fixture.h"

enum { BLOCK = 4096, JOURNAL_BYTES = 4 << 20 };

static struct jf_store store;

/* Bytes of a file that its disk can't read. */
static struct {
	ino_t ino; /* 0: none */
	uint64_t from, to;
} unreadable;

ssize_t __real_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off)
{
	struct stat st;

	if (unreadable.ino != 0 && fstat(fd, &st) == 0 && st.st_ino == unreadable.ino &&
	    (uint64_t)off < unreadable.to && (uint64_t)off + n > unreadable.from) {
		errno = EIO;
		return -1;
	}
	return __real_pread(fd, buf, n, off);
}

/* An entry that can't be looked at for now. */
static const char *hidden_name;

int __real_fstatat(int dirfd, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int dirfd, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
	if (hidden_name != NULL && strcmp(name, hidden_name) == 0) {
		errno = EIO;
		return -1;
	}
	return __real_fstatat(dirfd, name, st, flags);
}

/* The journal that a test writes. */
static struct {
	int fd;
	struct cmek_journal_super super;
	uint64_t off, seq; /* of the next record */
} journal;

/* The section that a test builds. */
static struct cmek_section section;
static uint8_t *images;
static size_t images_bytes;

static void write_super(void)
{
	uint8_t buf[JF_UNIT];

	journal.super.sequence++;
	ck_assert_int_eq(cmek_journal_super_encode(store.ring, jf_volume, &journal.super, buf), 0);
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, buf, sizeof(buf), journal.super.sequence % 2 * JF_UNIT), 0);
}

/* own: the superblock names this file; else it is a copy of another one. */
static void journal_make(const char *name, bool own)
{
	journal.fd = openat(store.meta_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ck_assert_int_ge(journal.fd, 0);
	ck_assert_int_eq(ftruncate(journal.fd, JOURNAL_BYTES), 0);
	journal.super = (struct cmek_journal_super){ .length_bytes = JOURNAL_BYTES, .tail_off = CMEK_JOURNAL_RECORDS_AT,
						 .tail_seq = 1, .dek_next = 2 };
	memcpy(journal.super.mount_id, jf_mount, sizeof(jf_mount));
	ck_assert_int_eq(cmek_handle_of(journal.fd, &journal.super.handle), 0);
	if (!own)
		journal.super.handle.bytes[0] ^= 1;
	write_super();
	journal.off = CMEK_JOURNAL_RECORDS_AT;
	journal.seq = 1;
}

static void setup(void)
{
	jf_store_init(&store);
	unreadable.ino = 0;
	hidden_name = NULL;
	memset(&section, 0, sizeof(section));
	images = NULL;
	images_bytes = 0;
	journal.fd = -1;
}

static void teardown(void)
{
	if (journal.fd >= 0)
		close(journal.fd);
	jf_store_done(&store);
}

/* ---- files ---- */

static void file_id_of(unsigned id, uint8_t file_id[CMEK_FILE_ID_LEN])
{
	memset(file_id, (int)id, CMEK_FILE_ID_LEN);
}

/* A page with the clear head of a file; what is behind it is a pattern. */
static void page_of(unsigned id, unsigned version, uint8_t page[CMEK_MAP_BYTES])
{
	jf_fill(page, CMEK_MAP_BYTES, version);
	memcpy(page, "CMK\1", 4);
	cmek_store32(page + 4, 1);
	cmek_store64(page + 8, 5);
	file_id_of(id, page + 32);
}

/* A stored file: pages of this id, blocks of pattern 0. */
static void store_file(const char *name, unsigned id, uint64_t plain_size)
{
	int fd = openat(store.store_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	uint64_t size = cmek_stored_size(BLOCK, plain_size), g;
	uint8_t *buf = calloc(1, size + 1), page[CMEK_MAP_BYTES];

	ck_assert_int_ge(fd, 0);
	for (g = 0; g < cmek_group_count(BLOCK, plain_size); g++) {
		page_of(id, 0, page);
		memcpy(buf + cmek_map_stored_off(BLOCK, g), page, sizeof(page));
	}
	ck_assert_int_eq(cmek_pwrite_full(fd, buf, size, 0), 0);
	close(fd);
	free(buf);
}

static uint64_t stored_size(const char *name)
{
	struct stat st;

	ck_assert_int_eq(fstatat(store.store_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return (uint64_t)st.st_size;
}

/* Version of the pattern that a block (or page) of a stored file has; 0 also for zeros. */
static void check_block(const char *name, uint64_t block, size_t len, unsigned version)
{
	uint8_t got[65536], want[65536] = { 0 };
	int fd = openat(store.store_fd, name, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	if (version != 0)
		jf_fill(want, len, version);
	ck_assert_int_eq(cmek_pread_full(fd, got, len, cmek_block_stored_off(BLOCK, block)), len);
	ck_assert_msg(memcmp(got, want, len) == 0, "%s: block %llu has not version %u", name,
		      (unsigned long long)block, version);
	close(fd);
}

static void check_page(const char *name, uint64_t group, unsigned id, unsigned version)
{
	uint8_t got[CMEK_MAP_BYTES], want[CMEK_MAP_BYTES];
	int fd = openat(store.store_fd, name, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	page_of(id, version, want);
	ck_assert_int_eq(cmek_pread_full(fd, got, sizeof(got), cmek_map_stored_off(BLOCK, group)), sizeof(got));
	ck_assert_msg(memcmp(got, want, sizeof(got)) == 0, "%s: page %llu has not version %u", name,
		      (unsigned long long)group, version);
	close(fd);
}

/* ---- records ---- */

/* Begins a section about a file; by_handle: names it as it is now. */
static void about(const char *name, unsigned id, uint64_t plain_size, unsigned flags, bool by_handle)
{
	int fd;

	section.path = strdup(name);
	file_id_of(id, section.file_id);
	section.plain_size = plain_size;
	section.flags = flags;
	section.mtime = (struct timespec){ 1600000000 + (time_t)plain_size, 42 };
	if (!by_handle)
		return;
	fd = openat(store.store_fd, name, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cmek_handle_of(fd, &section.handle), 0);
	close(fd);
	free(section.path);
	section.path = strdup("not/the/path"); /* that the handle goes first */
}

static void block(uint64_t at, size_t len, unsigned version)
{
	uint8_t buf[65536];

	jf_fill(buf, len, version);
	jf_add(&section, CMEK_ITEM_BLOCK, at, buf, len, &images, &images_bytes);
}

static void page(uint64_t group, unsigned id, unsigned version)
{
	uint8_t buf[CMEK_MAP_BYTES];

	page_of(id, version, buf);
	jf_add(&section, CMEK_ITEM_MAP, group, buf, sizeof(buf), &images, &images_bytes);
}

static void range(enum cmek_item_type type, uint64_t first, uint64_t count)
{
	ck_assert_int_eq(cmek_section_add(&section, type, first, count, 0), 0);
}

static struct cmek_record_id next_id(void)
{
	struct cmek_record_id id = { .seq = journal.seq };

	memcpy(id.volume, jf_volume, sizeof(id.volume));
	memcpy(id.mount_id, journal.super.mount_id, sizeof(id.mount_id));
	return id;
}

/* Ends the section: a record, of which the first `keep` bytes reach the disk. Returns its length. */
static size_t record_cut(size_t keep)
{
	struct cmek_record_id id = next_id();
	size_t bytes;
	uint8_t *buf = jf_record(store.ring, &id, &section, images, images_bytes, &bytes);

	ck_assert_uint_le(journal.off + bytes, journal.super.length_bytes);
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, buf, keep < bytes ? keep : bytes, journal.off), 0);
	journal.off += bytes;
	journal.seq++;
	free(buf);
	free(images);
	images = NULL;
	images_bytes = 0;
	cmek_section_done(&section);
	return bytes;
}

static size_t record(void)
{
	return record_cut(SIZE_MAX);
}

static struct cmek_replay_result replay(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	ck_assert_msg(jf_replay(&store, BLOCK, false, &result, &err) == 0, "%s", err.text);
	return result;
}

static void check_fails(int errnum, enum cmek_kind kind)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;
	int dry;

	for (dry = 1; dry >= 0; dry--) {
		cmek_error_clear(&err);
		ck_assert_int_eq(jf_replay(&store, BLOCK, dry, &result, &err), -errnum);
		ck_assert_msg(err.kind == kind, "%s", err.text);
	}
}

static struct cmek_replay_result salvage(void)
{
	struct cmek_replay_params params = { .store_fd = store.store_fd, .meta_fd = store.meta_fd, .block_size = BLOCK,
					     .salvage = true };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	memcpy(params.volume, jf_volume, sizeof(params.volume));
	ck_assert_msg(cmek_replay(store.ring, &params, &result, &err) == 0, "%s", err.text);
	return result;
}

/* Other bytes than those that are there: what is sealed has any value by chance. */
static void junk_at(uint64_t off, size_t len)
{
	uint8_t junk[JF_UNIT];
	size_t i;

	ck_assert_int_eq(cmek_pread_full(journal.fd, junk, len, off), len);
	for (i = 0; i < len; i++)
		junk[i] ^= 0x5a;
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, junk, len, off), 0);
}

static void unreadable_at(uint64_t from, uint64_t to)
{
	struct stat st;

	ck_assert_int_eq(fstat(journal.fd, &st), 0);
	unreadable.ino = st.st_ino;
	unreadable.from = from;
	unreadable.to = to;
}

static bool is_empty(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	ck_assert_int_eq(jf_replay(&store, BLOCK, true, &result, &err), 0);
	return result.journals == 0;
}

static unsigned count_lost(void)
{
	int fd = openat(store.meta_fd, "lost", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir;

	if (fd < 0)
		return 0;
	dir = fdopendir(fd);
	while ((entry = readdir(dir)) != NULL)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* ---- the final state ---- */

START_TEST(last_image_wins)
{
	struct cmek_replay_result result;
	struct stat st;

	store_file("f", 1, 3 * BLOCK);
	journal_make("journal.0", true);
	about("f", 1, 3 * BLOCK, CMEK_FILE_MTIME, true);
	page(0, 1, 1);
	block(0, BLOCK, 1);
	block(1, BLOCK, 1);
	record();
	about("f", 1, 3 * BLOCK - 10, CMEK_FILE_MTIME, true);
	page(0, 1, 2);
	block(1, BLOCK, 2);
	block(2, BLOCK - 10, 2);
	record();
	about("f", 1, 4 * BLOCK + 5, CMEK_FILE_MTIME, true);
	page(0, 1, 3);
	block(4, 5, 3);
	block(2, BLOCK, 3);
	record();
	result = replay();
	ck_assert_uint_eq(result.journals, 1);
	ck_assert_uint_eq(result.records, 3);
	ck_assert_uint_eq(result.files, 1);
	ck_assert_uint_eq(result.lost + result.gone + result.rolled_back, 0);
	check_page("f", 0, 1, 3);
	check_block("f", 0, BLOCK, 1);
	check_block("f", 1, BLOCK, 2);
	check_block("f", 2, BLOCK, 3);
	check_block("f", 3, BLOCK, 0);
	check_block("f", 4, 5, 3);
	ck_assert_uint_eq(stored_size("f"), cmek_stored_size(BLOCK, 4 * BLOCK + 5));
	ck_assert_int_eq(fstatat(store.store_fd, "f", &st, 0), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1600000000 + 4 * BLOCK + 5);
	ck_assert_int_eq(st.st_mtim.tv_nsec, 42);
	ck_assert(is_empty());
	ck_assert_uint_eq(replay().journals, 0);
}
END_TEST

/* Our writes would take it; what changed the file before it was set took it long ago. */
START_TEST(capability_stays)
{
	/* VFS_CAP_REVISION_2, effective; permitted: CAP_NET_BIND_SERVICE */
	static const uint8_t capability[20] = { 1, 0, 0, 2, 0, 4 };
	uint8_t got[64];
	int fd;

	store_file("f", 1, BLOCK);
	store_file("g", 2, BLOCK);
	fd = openat(store.store_fd, "f", O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (fsetxattr(fd, "security.capability", capability, sizeof(capability), 0) < 0) {
		ck_assert_msg(errno == EPERM || errno == EOPNOTSUPP, "%s", strerror(errno));
		printf("skipped: file capabilities can't be set here\n");
		close(fd);
		return;
	}
	journal_make("journal.0", true);
	about("f", 1, 2 * BLOCK, CMEK_FILE_MTIME, true);
	block(0, BLOCK, 1);
	block(1, BLOCK, 1);
	record();
	about("g", 2, BLOCK, 0, true);
	block(0, BLOCK, 1);
	record();
	ck_assert_uint_eq(replay().files, 2);
	check_block("f", 1, BLOCK, 1);
	ck_assert_int_eq(fgetxattr(fd, "security.capability", got, sizeof(got)), sizeof(capability));
	ck_assert_mem_eq(got, capability, sizeof(capability));
	close(fd);
	fd = openat(store.store_fd, "g", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_lt(fgetxattr(fd, "security.capability", got, sizeof(got)), 0);
	close(fd);
}
END_TEST

START_TEST(mtime_only_if_asked)
{
	struct stat before, after;

	store_file("f", 1, BLOCK);
	ck_assert_int_eq(fstatat(store.store_fd, "f", &before, 0), 0);
	journal_make("journal.0", true);
	about("f", 1, BLOCK, 0, true);
	record();
	replay();
	ck_assert_int_eq(fstatat(store.store_fd, "f", &after, 0), 0);
	ck_assert_int_ne(after.st_mtim.tv_sec, 1600000000 + BLOCK);
	(void)before;
}
END_TEST

/* A smaller size outdates what lies behind it, also when the file grew again. */
START_TEST(size_cuts)
{
	uint64_t group = cmek_group_plain_bytes(BLOCK);

	store_file("f", 1, BLOCK);
	journal_make("journal.0", true);
	about("f", 1, 2 * group, 0, true);
	page(0, 1, 1);
	page(1, 1, 1);
	block(1, BLOCK, 1);
	block(2, BLOCK, 1);
	block(CMEK_GROUP_BLOCKS, BLOCK, 1);
	record();
	about("f", 1, 2 * BLOCK - 1, 0, true);
	page(0, 1, 2);
	record();
	about("f", 1, 2 * group, 0, true);
	page(0, 1, 3);
	record();
	ck_assert_uint_eq(replay().pages, 1); /* the last of group 0, none of group 1 */
	check_page("f", 0, 1, 3);
	check_block("f", 1, BLOCK, 1); /* the tail of the cut file: its image counts, the record had a new one if need be */
	check_block("f", 2, BLOCK, 0);
	check_block("f", CMEK_GROUP_BLOCKS, BLOCK, 0);
	ck_assert_uint_eq(stored_size("f"), cmek_stored_size(BLOCK, 2 * group));
}
END_TEST

/* What was emptied and written anew has nothing of what it was. */
START_TEST(new_id_outdates)
{
	store_file("f", 1, 2 * BLOCK);
	journal_make("journal.0", true);
	about("f", 1, 2 * BLOCK, 0, true);
	page(0, 1, 1);
	block(0, BLOCK, 1);
	block(1, BLOCK, 1);
	record();
	about("f", 2, 2 * BLOCK, CMEK_FILE_NEW_ID, true);
	page(0, 2, 2);
	block(0, BLOCK, 2);
	record();
	ck_assert_uint_eq(replay().blocks, 1);
	check_page("f", 0, 2, 2);
	check_block("f", 0, BLOCK, 2);
	check_block("f", 1, BLOCK, 0); /* as the store has it */
}
END_TEST

START_TEST(emptied)
{
	store_file("f", 1, 2 * BLOCK);
	journal_make("journal.0", true);
	about("f", 1, 2 * BLOCK, 0, true);
	page(0, 1, 1);
	record();
	about("f", 1, 0, CMEK_FILE_NEW_ID, true);
	record();
	replay();
	ck_assert_uint_eq(stored_size("f"), 0);
}
END_TEST

START_TEST(touch_rolls_back)
{
	struct cmek_replay_result result;

	/* a: bulk data came behind the sealed end; b: its commit is there, too; c: was empty */
	store_file("a", 1, 100 * BLOCK);
	store_file("b", 2, 100 * BLOCK);
	store_file("c", 3, 100 * BLOCK);
	journal_make("journal.0", true);
	about("a", 1, BLOCK, CMEK_FILE_TOUCH, true);
	record();
	about("b", 2, BLOCK, CMEK_FILE_TOUCH, true);
	record();
	about("c", 3, 0, CMEK_FILE_TOUCH | CMEK_FILE_NEW_ID, true);
	record();
	about("b", 2, 100 * BLOCK, 0, true);
	page(0, 2, 1);
	range(CMEK_ITEM_INPLACE, 1, 99);
	record();
	result = replay();
	ck_assert_uint_eq(result.rolled_back, 2);
	ck_assert_uint_eq(result.files, 3);
	ck_assert_uint_eq(stored_size("a"), cmek_stored_size(BLOCK, BLOCK));
	ck_assert_uint_eq(stored_size("b"), cmek_stored_size(BLOCK, 100 * BLOCK));
	ck_assert_uint_eq(stored_size("c"), 0);
}
END_TEST

/*
 * A commit in parts. Without the last one the file has the size it had, and what lies behind it is not there; with it,
 * also what the parts brought behind the old end is.
 */
START_TEST(parts)
{
	uint64_t group = cmek_group_plain_bytes(BLOCK), old = _i & 2 ? 3 * group : 0;
	struct cmek_replay_result result;
	bool whole = _i & 1;

	store_file("f", 1, old);
	journal_make("journal.0", true);
	if (old == 0) {
		about("f", 1, 0, CMEK_FILE_TOUCH | CMEK_FILE_NEW_ID, true);
		memset(section.file_id, 0xee, sizeof(section.file_id)); /* the new one was not drawn then */
		record();
	}
	about("f", 1, old, CMEK_FILE_PART | (old == 0 ? CMEK_FILE_NEW_ID : 0), true);
	page(1, 1, 1);
	block(CMEK_GROUP_BLOCKS, BLOCK, 1);
	page(3, 1, 1);
	block(3 * CMEK_GROUP_BLOCKS, BLOCK, 1);
	record();
	about("f", 1, old, CMEK_FILE_PART, true);
	page(4, 1, 2);
	record();
	if (whole) {
		about("f", 1, 5 * group, 0, true);
		page(0, 1, 3);
		record();
	}
	result = replay();
	ck_assert_uint_eq(result.files, 1);
	ck_assert_uint_eq(result.rolled_back, !whole);
	ck_assert_uint_eq(stored_size("f"), cmek_stored_size(BLOCK, whole ? 5 * group : old));
	if (whole || old > 0) {
		check_page("f", 0, 1, whole ? 3 : 0);
		check_page("f", 1, 1, 1);
		check_block("f", CMEK_GROUP_BLOCKS, BLOCK, 1);
	}
	if (whole) {
		check_page("f", 3, 1, 1);
		check_block("f", 3 * CMEK_GROUP_BLOCKS, BLOCK, 1);
		check_page("f", 4, 1, 2);
	}
}
END_TEST

/* A touch that is repeated between the parts takes nothing away from them. */
START_TEST(touch_between_parts)
{
	uint64_t group = cmek_group_plain_bytes(BLOCK);

	store_file("f", 1, 0);
	journal_make("journal.0", true);
	about("f", 1, 0, CMEK_FILE_PART | CMEK_FILE_NEW_ID, true);
	page(1, 1, 1);
	record();
	about("f", 9, 0, CMEK_FILE_TOUCH | CMEK_FILE_NEW_ID, true);
	record();
	about("f", 1, 2 * group, 0, true);
	page(0, 1, 2);
	record();
	replay();
	check_page("f", 0, 1, 2);
	check_page("f", 1, 1, 1);
}
END_TEST

START_TEST(in_place_and_punch_outdate)
{
	store_file("f", 1, 8 * BLOCK);
	journal_make("journal.0", true);
	about("f", 1, 8 * BLOCK, 0, true);
	page(0, 1, 1);
	for (unsigned i = 0; i < 8; i++)
		block(i, BLOCK, 1);
	record();
	about("f", 1, 8 * BLOCK, 0, true);
	page(0, 1, 2);
	range(CMEK_ITEM_INPLACE, 1, 2);
	range(CMEK_ITEM_PUNCH, 4, 1);
	range(CMEK_ITEM_INPLACE, 6, 0);
	record();
	about("f", 1, 8 * BLOCK, 0, true);
	block(2, BLOCK, 3); /* later again */
	page(0, 1, 3);
	record();
	replay();
	check_page("f", 0, 1, 3); /* pages are not blocks */
	check_block("f", 0, BLOCK, 1);
	check_block("f", 1, BLOCK, 0);
	check_block("f", 2, BLOCK, 3);
	check_block("f", 3, BLOCK, 1);
	check_block("f", 4, BLOCK, 0);
	check_block("f", 6, BLOCK, 1);
}
END_TEST

/* A punch of all blocks of a group is one of its page, too: unless the same record brings it a new one. */
START_TEST(punch_outdates_pages)
{
	const uint64_t size = 4 * 96 * BLOCK;

	store_file("f", 1, size);
	journal_make("journal.0", true);
	about("f", 1, size, 0, true);
	for (unsigned i = 0; i < 4; i++)
		page(i, 1, 1);
	record();
	about("f", 1, size, 0, true);
	range(CMEK_ITEM_PUNCH, 96, 96);
	page(1, 1, 2);
	range(CMEK_ITEM_PUNCH, 2 * 96, 96);
	range(CMEK_ITEM_PUNCH, 3 * 96, 95);
	page(0, 1, 2);
	record();
	ck_assert_uint_eq(replay().pages, 3);
	check_page("f", 0, 1, 2);
	check_page("f", 1, 1, 2);
	check_page("f", 3, 1, 1);
}
END_TEST

/* ---- which file ---- */

/* By handle a file is found wherever it is now; one that was deleted is nobody's loss. */
START_TEST(moved_and_gone)
{
	struct cmek_replay_result result;

	store_file("a", 1, BLOCK);
	store_file("b", 2, BLOCK);
	journal_make("journal.0", true);
	about("a", 1, BLOCK, 0, true);
	block(0, BLOCK, 1);
	record();
	about("b", 2, BLOCK, 0, true);
	block(0, BLOCK, 2);
	record();
	ck_assert_int_eq(renameat(store.store_fd, "a", store.store_fd, "c"), 0);
	ck_assert_int_eq(unlinkat(store.store_fd, "b", 0), 0);
	store_file("a", 3, BLOCK); /* the name is another file's now */
	result = replay();
	ck_assert_uint_eq(result.files, 1);
	ck_assert_uint_eq(result.gone, 1);
	ck_assert_uint_eq(result.lost, 0);
	check_block("c", 0, BLOCK, 1);
	check_block("a", 0, BLOCK, 0);
	ck_assert_uint_eq(count_lost(), 0);
	ck_assert(is_empty());
}
END_TEST

/* The store was copied (cp -a), the journal with it: handles mean nothing there. */
START_TEST(copied_store)
{
	struct cmek_replay_result result;

	ck_assert_int_eq(mkdirat(store.store_fd, "d", 0700), 0);
	store_file("d/a", 1, BLOCK);
	store_file("other", 9, BLOCK);
	journal_make("journal.0", false);
	/* the handle is that of another file, as it happens in a copy */
	about("other", 1, 2 * BLOCK, 0, true);
	free(section.path);
	section.path = strdup("d/a");
	page(0, 1, 1);
	block(1, BLOCK, 1);
	record();
	result = replay();
	ck_assert_uint_eq(result.files, 1);
	ck_assert_uint_eq(result.lost, 0);
	check_page("d/a", 0, 1, 1);
	check_block("d/a", 1, BLOCK, 1);
	check_page("other", 0, 9, 0);
	ck_assert_uint_eq(count_lost(), 0);
}
END_TEST

/* Paths that must not be gone along, and what is at them. */
static const char *const bad_paths[] = {
	"", "/", "/outside/f", "outside/f", "../f", "d/../outside/f", "./f", "d//f", "d/", "d", "link", "linked/f", "missing",
	"missing/f", "f/f", "d/.", "d/..", ".", "..", "fifo", "socket-like-name-that-is-very-long-and-missing"
};

START_TEST(bad_path)
{
	struct cmek_replay_result result;

	ck_assert_int_eq(mkdirat(store.store_fd, "d", 0700), 0);
	store_file("f", 7, BLOCK);
	store_file("d/f", 7, BLOCK);
	ck_assert_int_eq(symlinkat("f", store.store_fd, "link"), 0);
	ck_assert_int_eq(symlinkat("d", store.store_fd, "linked"), 0);
	ck_assert_int_eq(mkfifoat(store.store_fd, "fifo", 0600), 0);
	journal_make("journal.0", false);
	about(bad_paths[_i], 1, 5 * BLOCK, CMEK_FILE_NEW_ID, false); /* not even the id would tell */
	page(0, 1, 1);
	record();
	result = replay();
	ck_assert_msg(result.lost == 1 && result.files == 0, "%s: lost %llu", bad_paths[_i],
		      (unsigned long long)result.lost);
	check_page("f", 0, 7, 0);
	check_page("d/f", 0, 7, 0);
	ck_assert_uint_eq(stored_size("f"), cmek_stored_size(BLOCK, BLOCK));
	ck_assert_uint_eq(count_lost(), 1); /* the journal is kept */
	ck_assert_int_lt(openat(store.meta_fd, "journal.0", O_RDONLY), 0);
	ck_assert(is_empty());
}
END_TEST

/* A path where by now another file is; the other files of that journal are replayed all the same. */
START_TEST(other_file_id)
{
	struct cmek_replay_result result;

	store_file("a", 5, BLOCK);
	store_file("b", 2, BLOCK);
	journal_make("journal.0", false);
	about("a", 1, BLOCK, 0, false);
	page(0, 1, 1);
	record();
	about("b", 2, BLOCK, 0, false);
	page(0, 2, 1);
	record();
	result = replay();
	ck_assert_uint_eq(result.lost, 1);
	ck_assert_uint_eq(result.files, 1);
	check_page("a", 0, 5, 0);
	check_page("b", 0, 2, 1);
	ck_assert_uint_eq(count_lost(), 1);
	/* twice the same name does not overwrite what was kept */
	close(journal.fd);
	journal_make("journal.0", false);
	about("a", 1, BLOCK, 0, false);
	record();
	ck_assert_uint_eq(replay().lost, 1);
	ck_assert_uint_eq(count_lost(), 2);
}
END_TEST

/* In a copy, a file that was renamed behind its last record is known by its id; nothing else is taken for it. */
START_TEST(renamed_in_copy)
{
	struct cmek_replay_result result;

	ck_assert_int_eq(mkdirat(store.store_fd, "d", 0700), 0);
	store_file("d/now", 1, BLOCK);
	store_file("then", 2, BLOCK); /* another one by the old name */
	store_file("other", 3, BLOCK);
	journal_make("journal.0", false);
	about(_i == 0 ? "then" : "nowhere", 1, BLOCK, 0, false);
	page(0, 1, 1);
	block(0, BLOCK, 1);
	record();
	result = replay();
	ck_assert_uint_eq(result.files, 1);
	ck_assert_uint_eq(result.lost, 0);
	check_page("d/now", 0, 1, 1);
	check_block("d/now", 0, BLOCK, 1);
	check_page("then", 0, 2, 0);
	check_page("other", 0, 3, 0);
	ck_assert(is_empty());
}
END_TEST

/* What can't be looked at may be the file that is sought: it is not lost, nor deleted, and the journal stays. */
START_TEST(hidden_in_copy)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	store_file("now", 1, BLOCK);
	store_file("other", 3, BLOCK);
	journal_make("journal.0", false);
	about("then", 1, BLOCK, 0, false);
	page(0, 1, 1);
	block(0, BLOCK, 1);
	record();
	hidden_name = "now";
	ck_assert_int_eq(jf_replay(&store, BLOCK, false, &result, &err), -EIO);
	ck_assert(err.kind == CMEK_E_SYSTEM);
	hidden_name = NULL;
	ck_assert_uint_eq(count_lost(), 0);
	ck_assert_uint_eq(replay().files, 1);
	check_page("now", 0, 1, 1);
	ck_assert(is_empty());
}
END_TEST

/* A file that is sought is found at any depth, with fewer descriptors than that, and so is one behind the deep place. */
START_TEST(deep_in_copy)
{
	enum { DEPTH = 300, DESCRIPTORS = 64 };
	char path[2 * DEPTH + 16] = "", file[sizeof(path) + sizeof("/now")];
	struct rlimit before, few;
	unsigned i;

	journal_make("journal.0", false);
	for (i = 0; i < DEPTH; i++) {
		strcat(path, i == 0 ? "d" : "/d");
		ck_assert_int_eq(mkdirat(store.store_fd, path, 0700), 0);
		if (i == 0 || i == DEPTH / 2 || i == DEPTH - 1) {
			snprintf(file, sizeof(file), "%s/now", path);
			store_file(file, i + 1, BLOCK);
			snprintf(file, sizeof(file), "nowhere-%u", i);
			about(file, i + 1, BLOCK, 0, false);
			page(0, i + 1, 1);
			block(0, BLOCK, 1);
			record();
		}
	}
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){ .rlim_cur = DESCRIPTORS, .rlim_max = before.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ck_assert_uint_eq(replay().files, 3);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_uint_eq(count_lost(), 0);
	check_page("d/now", 0, 1, 1);
	snprintf(file, sizeof(file), "%s/now", path);
	check_page(file, 0, DEPTH, 1);
	ck_assert(is_empty());
}
END_TEST

/* Records before and after a rename are about one file: its handle says so, though it can't be opened in the copy. */
START_TEST(renamed_between_records)
{
	struct cmek_file_handle handle;
	struct cmek_replay_result result;

	store_file("new", 1, 2 * BLOCK);
	journal_make("journal.0", false);
	about("new", 1, 2 * BLOCK, 0, true);
	free(section.path);
	section.path = strdup("old");
	handle = section.handle;
	page(0, 1, 1);
	block(0, BLOCK, 1);
	record();
	about("new", 1, 2 * BLOCK, 0, false);
	section.handle = handle;
	page(0, 1, 2);
	block(1, BLOCK, 2);
	record();
	result = replay();
	ck_assert_uint_eq(result.files, 1);
	ck_assert_uint_eq(result.lost, 0);
	check_page("new", 0, 1, 2);
	check_block("new", 0, BLOCK, 1);
	check_block("new", 1, BLOCK, 2);
}
END_TEST

/*
 * New content at a path of a copy: the file there is the one that was emptied (its id is in a record), or has no content
 * yet. One with the id of somebody else is not touched.
 */
START_TEST(new_id_by_path)
{
	struct cmek_replay_result result;

	store_file("f", _i == 0 ? 1 : 7, _i == 2 ? 0 : BLOCK);
	journal_make("journal.0", false);
	about("f", 1, 0, CMEK_FILE_NEW_ID, false);
	record();
	about("f", 2, BLOCK, CMEK_FILE_NEW_ID, false);
	page(0, 2, 1);
	block(0, BLOCK, 1);
	record();
	result = replay();
	ck_assert_uint_eq(result.files, _i != 1);
	ck_assert_uint_eq(result.lost, _i == 1);
	ck_assert_uint_eq(count_lost(), _i == 1);
	if (_i != 1)
		check_page("f", 0, 2, 1);
	else
		check_page("f", 0, 7, 0);
}
END_TEST

/* What one journal has lost does not keep another one. */
START_TEST(lost_for_each_journal)
{
	store_file("b", 2, BLOCK);
	journal_make("journal.0", false);
	about("missing", 1, BLOCK, 0, false);
	page(0, 1, 1);
	record();
	close(journal.fd);
	journal_make("journal.3", false);
	about("b", 2, BLOCK, 0, false);
	page(0, 2, 1);
	record();
	ck_assert_uint_eq(replay().lost, 1);
	ck_assert_uint_eq(count_lost(), 1);
	ck_assert_int_eq(faccessat(store.meta_fd, "journal.3", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(store.meta_fd, "lost/journal.0.0", F_OK, 0), 0);
	ck_assert(is_empty());
	check_page("b", 0, 2, 1);
}
END_TEST

/* A first page that a crash tore is what replay mends. */
START_TEST(torn_first_page)
{
	uint8_t torn[2048] = { 0 };
	int fd;

	store_file("a", 1, BLOCK);
	fd = openat(store.store_fd, "a", O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(cmek_pwrite_full(fd, torn, sizeof(torn), 0), 0);
	close(fd);
	journal_make("journal.0", _i == 0);
	about("a", 1, BLOCK, 0, _i == 0);
	page(0, 1, 1);
	record();
	ck_assert_uint_eq(replay().files, 1);
	check_page("a", 0, 1, 1);
}
END_TEST

/* ---- again and again ---- */

static void make_two_files(void)
{
	store_file("a", 1, BLOCK);
	store_file("b", 2, 3 * BLOCK);
	journal_make("journal.0", true);
	about("a", 1, 2 * BLOCK, CMEK_FILE_MTIME, true);
	page(0, 1, 1);
	block(0, BLOCK, 1);
	block(1, BLOCK, 1);
	record();
	about("b", 2, BLOCK + 7, CMEK_FILE_MTIME, true);
	page(0, 2, 2);
	block(1, 7, 2);
	record();
	about("a", 1, 2 * BLOCK, CMEK_FILE_MTIME, true);
	page(0, 1, 3);
	block(1, BLOCK, 3);
	record();
}

static void check_two_files(void)
{
	check_page("a", 0, 1, 3);
	check_block("a", 0, BLOCK, 1);
	check_block("a", 1, BLOCK, 3);
	check_page("b", 0, 2, 2);
	check_block("b", 1, 7, 2);
	ck_assert_uint_eq(stored_size("a"), cmek_stored_size(BLOCK, 2 * BLOCK));
	ck_assert_uint_eq(stored_size("b"), cmek_stored_size(BLOCK, BLOCK + 7));
}

/* The journal is not yet marked, or the mark did not reach the disk: it all happens again. */
START_TEST(twice)
{
	make_two_files();
	replay();
	check_two_files();
	journal.super.sequence += 2;
	write_super(); /* not empty after all */
	ck_assert_uint_eq(replay().records, 3);
	check_two_files();
}
END_TEST

/* Cut off at any point of its writing: some images in place, one half of one, sizes as they may be. */
START_TEST(interrupted)
{
	uint8_t junk[CMEK_MAP_BYTES];
	int fd;

	make_two_files();
	memset(junk, 0xdd, sizeof(junk));
	fd = openat(store.store_fd, "a", O_RDWR | O_CLOEXEC);
	if (_i & 1)
		ck_assert_int_eq(cmek_pwrite_full(fd, junk, 2000, cmek_block_stored_off(BLOCK, 1)), 0);
	if (_i & 2)
		ck_assert_int_eq(cmek_pwrite_full(fd, junk, 1000, 0), 0);
	if (_i & 4)
		ck_assert_int_eq(ftruncate(fd, 100000), 0);
	close(fd);
	fd = openat(store.store_fd, "b", O_RDWR | O_CLOEXEC);
	if (_i & 8)
		ck_assert_int_eq(ftruncate(fd, 4096), 0);
	close(fd);
	replay();
	check_two_files();
	ck_assert(is_empty());
}
END_TEST

/* Neither the store nor the journal changes. */
START_TEST(dry_run)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	make_two_files();
	ck_assert_int_eq(jf_replay(&store, BLOCK, true, &result, &err), 0);
	ck_assert_uint_eq(result.journals, 1);
	ck_assert_uint_eq(result.records, 3);
	ck_assert_uint_eq(result.files, 2);
	check_page("a", 0, 1, 0);
	ck_assert_uint_eq(stored_size("a"), cmek_stored_size(BLOCK, BLOCK));
	ck_assert(!is_empty());
	replay();
	check_two_files();
}
END_TEST

/* ---- the log's end ---- */

/* What of the last record reached the disk. Bytes beyond are what was there: zeros. */
static const size_t torn_at[] = { 0, 1, 64, 127, 128, 512, 4095, 4096, 4097, 8192, 8192 + 512, 12287 };

START_TEST(torn_record)
{
	store_file("f", 1, BLOCK);
	journal_make("journal.0", true);
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 1);
	block(0, BLOCK, 1);
	record();
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 2);
	block(0, BLOCK, 2);
	ck_assert_uint_eq(record_cut(torn_at[_i]), 12288);
	ck_assert_uint_eq(replay().records, 1);
	check_page("f", 0, 1, 1);
	check_block("f", 0, BLOCK, 1);
	ck_assert(is_empty());
}
END_TEST

/* Records of an earlier round of the ring, and of an earlier mount, lie behind the last one. */
START_TEST(old_records_behind)
{
	struct cmek_journal_super super;

	store_file("f", 1, BLOCK);
	journal_make("journal.0", true);
	super = journal.super;
	memset(journal.super.mount_id, 0x66, 16);
	journal.off += 8192;
	journal.seq = 2; /* another mount's second record, just where ours would be */
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 5);
	record();
	journal.super = super;
	journal.off = CMEK_JOURNAL_RECORDS_AT;
	journal.seq = 1;
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 1);
	ck_assert_uint_eq(record(), 8192);
	ck_assert_uint_eq(replay().records, 1);
	check_page("f", 0, 1, 1);
}
END_TEST

/* The record that did not fit goes to the front of the ring. */
START_TEST(wraps)
{
	store_file("f", 1, BLOCK);
	journal_make("journal.0", true);
	journal.off = journal.super.tail_off = JOURNAL_BYTES - (_i == 0 ? 8192 : 12288);
	journal.seq = journal.super.tail_seq = 100;
	write_super();
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 1);
	record(); /* up to the very end, or up to one unit before it */
	journal.off = CMEK_JOURNAL_RECORDS_AT;
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 2);
	record();
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 3);
	record();
	ck_assert_uint_eq(replay().records, 3);
	check_page("f", 0, 1, 3);
}
END_TEST

/* ---- damage ---- */

/* Record i of four: file "f" of four blocks, block i in version i + 1. Offsets of the records. */
static void make_four(uint64_t offs[4])
{
	unsigned i;

	store_file("f", 1, 4 * BLOCK);
	journal_make("journal.0", true);
	for (i = 0; i < 4; i++) {
		offs[i] = journal.off;
		about("f", 1, 4 * BLOCK, CMEK_FILE_MTIME, true);
		page(0, 1, i + 1);
		block(i, BLOCK, i + 1);
		ck_assert_uint_eq(record(), 12288);
	}
}

/* Where a record is hit: magic, number, length, tag, meta data, zeros behind those, a page's image, a block's. */
static const uint64_t hits[] = { 0, 40, 48, 72, 128, 4000, 4096, 8192, 12287 };

/* Four records, one of them damaged: the last one can't be told from one that a crash tore, any other one can. */
START_TEST(damaged_record)
{
	unsigned which = (unsigned)_i / UNIT_ROWS(hits), i;
	struct cmek_replay_result result;
	uint64_t offs[4];

	make_four(offs);
	junk_at(offs[which] + hits[(unsigned)_i % UNIT_ROWS(hits)], 1);
	if (which == 3) {
		result = replay();
		ck_assert_uint_eq(result.records, 3);
		ck_assert_uint_eq(result.damaged, 0);
		check_page("f", 0, 1, 3);
		ck_assert(is_empty());
		return;
	}
	check_fails(EUCLEAN, CMEK_E_TAMPERED);
	check_page("f", 0, 1, 0);
	for (i = 0; i < 4; i++)
		check_block("f", i, BLOCK, 0);
	ck_assert_uint_eq(count_lost(), 0);

	result = salvage();
	ck_assert_uint_eq(result.damaged, 1);
	ck_assert_uint_eq(result.records, 3);
	check_page("f", 0, 1, 4);
	for (i = 0; i < 4; i++)
		check_block("f", i, BLOCK, i == which ? 0 : i + 1);
	ck_assert_uint_eq(count_lost(), 1);
	ck_assert_uint_eq(replay().journals, 0);
}
END_TEST

/* More than one is missing, and the ring goes round between them. */
START_TEST(damaged_round_the_ring)
{
	uint64_t offs[6];
	unsigned i;

	store_file("f", 1, 6 * BLOCK);
	journal_make("journal.0", true);
	journal.off = journal.super.tail_off = JOURNAL_BYTES - 3 * 12288 - 8192;
	journal.seq = journal.super.tail_seq = 50;
	write_super();
	for (i = 0; i < 6; i++) {
		if (i == 3)
			journal.off = CMEK_JOURNAL_RECORDS_AT;
		offs[i] = journal.off;
		about("f", 1, 6 * BLOCK, 0, true);
		page(0, 1, i + 1);
		block(i, BLOCK, i + 1);
		record();
	}
	junk_at(offs[2], 8);
	junk_at(offs[4], 8);
	check_fails(EUCLEAN, CMEK_E_TAMPERED);
	ck_assert_uint_eq(salvage().records, 4);
	check_page("f", 0, 1, 6);
	for (i = 0; i < 6; i++)
		check_block("f", i, BLOCK, i == 2 || i == 4 ? 0 : i + 1);
}
END_TEST

/* A record that the disk can't read may have been anything, the last one too. */
START_TEST(unreadable_record)
{
	uint64_t offs[4];

	make_four(offs);
	unreadable_at(offs[_i] + 4096, offs[_i] + 4608);
	check_fails(EUCLEAN, CMEK_E_TAMPERED);
	check_page("f", 0, 1, 0);
	ck_assert_uint_eq(salvage().records, 3);
	check_page("f", 0, 1, _i == 3 ? 3 : 4);
	ck_assert_uint_eq(count_lost(), 1);
}
END_TEST

START_TEST(salvage_of_what_is_whole)
{
	make_two_files();
	ck_assert_uint_eq(salvage().damaged, 0);
	check_two_files();
	ck_assert_uint_eq(count_lost(), 0);
	ck_assert(is_empty());
}
END_TEST

START_TEST(salvage_without_superblock)
{
	struct cmek_replay_result result;

	make_two_files();
	junk_at(0, JF_UNIT);
	junk_at(JF_UNIT, JF_UNIT);
	result = salvage();
	ck_assert_uint_eq(result.damaged, 1);
	ck_assert_uint_eq(result.records, 0);
	check_page("a", 0, 1, 0);
	ck_assert_uint_eq(count_lost(), 1);
	ck_assert_uint_eq(replay().journals, 0);
}
END_TEST

/* ---- journals that are none ---- */

START_TEST(one_bad_superblock)
{
	uint8_t junk[JF_UNIT];

	memset(junk, 0x99, sizeof(junk));
	make_two_files();
	write_super();
	/* the newer one is torn: the other one is not far behind */
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, junk, 512, journal.super.sequence % 2 * JF_UNIT), 0);
	ck_assert_uint_eq(replay().records, 3);
	check_two_files();
}
END_TEST

/* A sector of one superblock can't be read: the other one is enough, whichever it is. */
START_TEST(unreadable_superblock)
{
	make_two_files();
	if (_i >= 2)
		write_super(); /* the other copy is good, too */
	else
		ck_assert_uint_eq(journal.super.sequence, 1);
	unreadable_at((uint64_t)(_i % 2) * JF_UNIT, (uint64_t)(_i % 2) * JF_UNIT + 512);
	if (_i == 1) { /* the only one that was ever written */
		check_fails(EUCLEAN, CMEK_E_TAMPERED);
		return;
	}
	ck_assert_uint_eq(replay().records, 3);
	check_two_files();
}
END_TEST

/*
 * The newer superblock is bad, and the space that it gave free is used again: what is left begins later than the older
 * one says. With a gap in it, or with the tail still there, it is damage.
 */
START_TEST(newer_superblock_bad)
{
	uint64_t offs[8];
	unsigned i;

	store_file("f", 1, 8 * BLOCK);
	journal_make("journal.0", true);
	journal.super.length_bytes = CMEK_JOURNAL_RECORDS_AT + 6 * 12288;
	write_super(); /* sequence 2: the tail is record 1 */
	for (i = 0; i < 8; i++) {
		if (i == 6)
			journal.off = CMEK_JOURNAL_RECORDS_AT; /* over the first two */
		offs[i] = journal.off;
		about("f", 1, 8 * BLOCK, 0, true);
		page(0, 1, i + 1);
		block(i, BLOCK, i + 1);
		record();
	}
	if (_i == 1)
		junk_at(offs[4], 8);
	if (_i != 2)
		junk_at(JF_UNIT, 100);
	if (_i > 0) { /* with both superblocks good it can't be */
		if (_i == 2)
			write_super(), journal.super.sequence--, write_super();
		check_fails(EUCLEAN, CMEK_E_TAMPERED);
		return;
	}
	ck_assert_uint_eq(replay().records, 6);
	check_page("f", 0, 1, 8);
	for (i = 0; i < 8; i++)
		check_block("f", i, BLOCK, i < 2 ? 0 : i + 1);
	ck_assert(is_empty());
}
END_TEST

/* Only journal.N is a journal, and they go by their numbers. */
START_TEST(order_of_journals)
{
	static const char *const names[] = { "journal.10", "journal.9", "journal.2" };
	unsigned i;
	int fd;

	store_file("f", 1, BLOCK);
	for (i = 0; i < UNIT_ROWS(names); i++) {
		journal_make(names[i], true);
		about("f", 1, BLOCK, 0, true);
		page(0, 1, 10 - i);
		record();
		close(journal.fd);
	}
	journal.fd = -1;
	fd = openat(store.meta_fd, "journal.0.bak", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(cmek_pwrite_full(fd, "no journal", 10, 0), 0);
	close(fd);
	ck_assert_int_eq(symlinkat("journal.2", store.meta_fd, "journal.02"), 0);
	ck_assert_uint_eq(replay().journals, 3);
	check_page("f", 0, 1, 10);
}
END_TEST

START_TEST(bad_superblocks)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;
	uint8_t junk[JF_UNIT];

	memset(junk, 0x99, sizeof(junk));
	make_two_files();
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, junk, sizeof(junk), 0), 0);
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, junk, sizeof(junk), JF_UNIT), 0);
	ck_assert_int_eq(jf_replay(&store, BLOCK, _i, &result, &err), -EUCLEAN);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	check_page("a", 0, 1, 0);
}
END_TEST

/* As of a journal that was being made, but there are records behind them. */
START_TEST(blank_superblocks)
{
	static const uint8_t zeros[2 * JF_UNIT];

	make_two_files();
	ck_assert_int_eq(cmek_pwrite_full(journal.fd, zeros, sizeof(zeros), 0), 0);
	check_fails(EUCLEAN, CMEK_E_TAMPERED);
	check_page("a", 0, 1, 0);
	check_page("b", 0, 2, 0);
	ck_assert_int_eq(ftruncate(journal.fd, (off_t)CMEK_JOURNAL_RECORDS_AT), 0);
	ck_assert_int_eq(ftruncate(journal.fd, (off_t)1 << 40), 0); /* one hole: nobody waits until it is read */
	ck_assert_uint_eq(replay().journals, 0);
}
END_TEST

/* At a record, or behind the last one: what was cut off may have been records, too. */
START_TEST(cut_off)
{
	static const off_t sizes[] = { CMEK_JOURNAL_RECORDS_AT, CMEK_JOURNAL_RECORDS_AT + 100, JOURNAL_BYTES - 1 };

	make_two_files();
	write_super(); /* both copies are good */
	ck_assert_int_eq(ftruncate(journal.fd, sizes[_i]), 0);
	check_fails(EUCLEAN, CMEK_E_TAMPERED);
	check_page("a", 0, 1, 0);
	ck_assert_uint_eq(salvage().damaged, 1);
	ck_assert_uint_eq(count_lost(), 1);
}
END_TEST

/* Of a volume with other keys, and of one with the same KEK by another name (as if a header had been copied). */
START_TEST(journal_of_another_volume)
{
	struct cmek_replay_params params = { .store_fd = store.store_fd, .meta_fd = store.meta_fd, .block_size = BLOCK };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;
	struct cmek_keyring *other = jf_ring();

	make_two_files();
	params.volume[0] = 0xff;
	if (_i == 0)
		memcpy(params.volume, jf_volume, sizeof(params.volume));
	ck_assert_int_eq(cmek_replay(_i == 0 ? other : store.ring, &params, &result, &err), -EUCLEAN);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	check_page("a", 0, 1, 0);
	cmek_keyring_free(other);
	check_page("b", 0, 2, 0);
	ck_assert(!is_empty());
}
END_TEST

/* A FIFO or a device by the name of a journal is not waited for, nor taken for one. */
START_TEST(no_file)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;

	ck_assert_int_eq(mkfifoat(store.meta_fd, "journal.7", 0600), 0);
	ck_assert_int_lt(jf_replay(&store, BLOCK, _i, &result, &err), 0);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
}
END_TEST

/* Each journal of the store is replayed, whatever number it has. */
START_TEST(several_journals)
{
	store_file("f", 1, BLOCK);
	store_file("g", 2, BLOCK);
	journal_make("journal.0", true);
	about("f", 1, BLOCK, 0, true);
	page(0, 1, 1);
	record();
	close(journal.fd);
	journal_make("journal.12", true);
	about("g", 2, BLOCK, 0, true);
	page(0, 2, 1);
	record();
	ck_assert_uint_eq(replay().journals, 2);
	check_page("f", 0, 1, 1);
	check_page("g", 0, 2, 1);
	ck_assert(is_empty());
}
END_TEST

/* ---- records that a bug wrote ---- */

static const struct {
	enum cmek_item_type type;
	uint64_t first, plain_size;
	size_t len;
} senseless[] = {
	{ CMEK_ITEM_BLOCK, 0, 3 * BLOCK, BLOCK + 1 }, /* into the next block */
	{ CMEK_ITEM_BLOCK, 3, 3 * BLOCK, BLOCK },     /* behind the end */
	{ CMEK_ITEM_BLOCK, UINT64_MAX / BLOCK, 3 * BLOCK, BLOCK },
	{ CMEK_ITEM_BLOCK, UINT64_MAX >> 1, 3 * BLOCK, BLOCK },
	{ CMEK_ITEM_BLOCK, UINT64_MAX, 3 * BLOCK, BLOCK },
	{ CMEK_ITEM_MAP, 1, 3 * BLOCK, CMEK_MAP_BYTES },
	{ CMEK_ITEM_MAP, UINT64_MAX, 3 * BLOCK, CMEK_MAP_BYTES },
	{ CMEK_ITEM_MAP, UINT64_C(1) << 63, 3 * BLOCK, CMEK_MAP_BYTES }, /* group 0, if a bit is lost */
	{ CMEK_ITEM_MAP, 0, UINT64_MAX, CMEK_MAP_BYTES },
	{ CMEK_ITEM_MAP, 0, UINT64_C(1) << 62, CMEK_MAP_BYTES },
};

START_TEST(senseless_record)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;
	uint8_t buf[65536];

	store_file("f", 1, 3 * BLOCK);
	journal_make("journal.0", true);
	about("f", 1, senseless[_i].plain_size, 0, true);
	jf_fill(buf, senseless[_i].len, 1);
	jf_add(&section, senseless[_i].type, senseless[_i].first, buf, senseless[_i].len, &images, &images_bytes);
	record();
	ck_assert_int_eq(jf_replay(&store, BLOCK, false, &result, &err), -EUCLEAN);
	ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
	check_page("f", 0, 1, 0);
	for (unsigned i = 0; i < 3; i++)
		check_block("f", i, BLOCK, 0);
	ck_assert_uint_eq(stored_size("f"), cmek_stored_size(BLOCK, 3 * BLOCK));
}
END_TEST

/* ---- without privileges ---- */

/* Handles can't be opened by everybody, but they still tell which file is meant. */
START_TEST(unprivileged)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;
	struct stat st;
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return;
	make_two_files();
	ck_assert_int_eq(mkdirat(store.store_fd, "d", 0700), 0);
	ck_assert_int_eq(renameat(store.store_fd, "b", store.store_fd, "d/c"), 0);
	ck_assert_int_eq(chmod(store.dir, 0755), 0);
	ck_assert_int_eq(fchownat(store.store_fd, ".cmekfs", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(store.meta_fd, "journal.0", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(store.store_fd, "a", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(store.store_fd, "d", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(store.store_fd, "d/c", 65534, 65534, 0), 0);
	/* They were written when that was still allowed. */
	ck_assert_int_eq(fchmodat(store.store_fd, "a", _i == 0 ? 0600 : 0444, 0), 0);
	ck_assert_int_eq(fchmodat(store.store_fd, "d/c", _i == 0 ? 0600 : 0, 0), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(1);
		if (jf_replay(&store, BLOCK, false, &result, &err) < 0) {
			fprintf(stderr, "%s\n", err.text);
			_exit(2);
		}
		_exit(result.files == 2 && result.lost == 0 ? 0 : 3);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(fstatat(store.store_fd, "a", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 07777, _i == 0 ? 0600 : 0444);
	ck_assert_int_eq(fstatat(store.store_fd, "d/c", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 07777, _i == 0 ? 0600 : 0);
	ck_assert_int_eq(renameat(store.store_fd, "d/c", store.store_fd, "b"), 0);
	check_two_files();
	ck_assert(is_empty());
}
END_TEST

static void keep_line(void *arg, const char *text)
{
	snprintf(arg, 4096, "%s", text);
}

/* A directory that can't be searched may have the file: nothing is given up, and it is said which one it is. */
START_TEST(unprivileged_closed)
{
	struct cmek_replay_params params = { .store_fd = store.store_fd, .meta_fd = store.meta_fd, .block_size = BLOCK,
					     .report = keep_line };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_replay_result result;
	char said[4096] = "";
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return;
	memcpy(params.volume, jf_volume, sizeof(params.volume));
	params.arg = said;
	make_two_files();
	ck_assert_int_eq(mkdirat(store.store_fd, "closed", 0), 0);
	ck_assert_int_eq(renameat(store.store_fd, "b", store.store_fd, "closed/c"), 0);
	ck_assert_int_eq(chmod(store.dir, 0755), 0);
	ck_assert_int_eq(fchownat(store.store_fd, ".cmekfs", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(store.meta_fd, "journal.0", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(store.store_fd, "a", 65534, 65534, 0), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(1);
		_exit(cmek_replay(store.ring, &params, &result, &err) == -EACCES && strstr(said, "/closed: ") ? 0 : 2);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert(!is_empty());
	ck_assert_int_eq(renameat(store.store_fd, "closed/c", store.store_fd, "b"), 0);
	ck_assert_uint_eq(replay().lost, 0);
	check_two_files();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("replay");
	TCase *tcase = tcase_create("replay");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, last_image_wins);
	tcase_add_test(tcase, capability_stays);
	tcase_add_test(tcase, mtime_only_if_asked);
	tcase_add_test(tcase, size_cuts);
	tcase_add_test(tcase, new_id_outdates);
	tcase_add_test(tcase, emptied);
	tcase_add_test(tcase, touch_rolls_back);
	tcase_add_loop_test(tcase, parts, 0, 4);
	tcase_add_test(tcase, touch_between_parts);
	tcase_add_test(tcase, in_place_and_punch_outdate);
	tcase_add_test(tcase, punch_outdates_pages);
	tcase_add_test(tcase, moved_and_gone);
	tcase_add_test(tcase, copied_store);
	tcase_add_loop_test(tcase, bad_path, 0, UNIT_ROWS(bad_paths));
	tcase_add_test(tcase, other_file_id);
	tcase_add_loop_test(tcase, renamed_in_copy, 0, 2);
	tcase_add_test(tcase, hidden_in_copy);
	tcase_add_test(tcase, deep_in_copy);
	tcase_add_test(tcase, renamed_between_records);
	tcase_add_loop_test(tcase, new_id_by_path, 0, 3);
	tcase_add_test(tcase, lost_for_each_journal);
	tcase_add_loop_test(tcase, torn_first_page, 0, 2);
	tcase_add_test(tcase, twice);
	tcase_add_loop_test(tcase, interrupted, 0, 16);
	tcase_add_test(tcase, dry_run);
	tcase_add_loop_test(tcase, torn_record, 0, UNIT_ROWS(torn_at));
	tcase_add_test(tcase, old_records_behind);
	tcase_add_loop_test(tcase, wraps, 0, 2);
	tcase_add_loop_test(tcase, damaged_record, 0, 4 * (int)UNIT_ROWS(hits));
	tcase_add_test(tcase, damaged_round_the_ring);
	tcase_add_loop_test(tcase, unreadable_record, 0, 4);
	tcase_add_test(tcase, salvage_of_what_is_whole);
	tcase_add_test(tcase, salvage_without_superblock);
	tcase_add_test(tcase, one_bad_superblock);
	tcase_add_loop_test(tcase, unreadable_superblock, 0, 4);
	tcase_add_loop_test(tcase, newer_superblock_bad, 0, 3);
	tcase_add_test(tcase, order_of_journals);
	tcase_add_loop_test(tcase, bad_superblocks, 0, 2);
	tcase_add_test(tcase, blank_superblocks);
	tcase_add_loop_test(tcase, cut_off, 0, 3);
	tcase_add_loop_test(tcase, journal_of_another_volume, 0, 2);
	tcase_add_loop_test(tcase, no_file, 0, 2);
	tcase_add_test(tcase, several_journals);
	tcase_add_loop_test(tcase, senseless_record, 0, UNIT_ROWS(senseless));
	tcase_add_loop_test(tcase, unprivileged, 0, 2);
	tcase_add_test(tcase, unprivileged_closed);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
