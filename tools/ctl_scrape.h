/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_CTL_SCRAPE_H
#define CMEK_TOOLS_CTL_SCRAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The metrics of several mounts as one Prometheus text. All of them are asked at once, and one that does not answer costs the
 * others nothing. Rounds can be repeated: the mounts are found anew in each. One thread at a time.
 */
struct cmek_scrape;

/* Mounts in a round; more are not looked at. */
#define CMEK_SCRAPE_MAX 256

/*
 * volumes: n names as cmek_ctl_mount_find() takes them, borrowed; n = 0: all mounts of this user. What they are names of is
 * looked up now. Kinds: usage (no UTF-8), system.
 */
int cmek_scrape_new(char *const *volumes, size_t n, struct cmek_scrape **ret_scrape, struct cmek_error *err);
void cmek_scrape_free(struct cmek_scrape *scrape); /* NULL allowed */

/*
 * A round: it is over after max_ms at the latest. No directory of control sockets is no mount. Kinds of cmek_ctlsock_dir().
 */
int cmek_scrape_run(struct cmek_scrape *scrape, unsigned max_ms, struct cmek_error *err);

/* After a round: mounts that have answered, and the first reason why one, or (kind not-found) a volume, has not. */
size_t cmek_scrape_answered(const struct cmek_scrape *scrape);
const struct cmek_error *cmek_scrape_trouble(const struct cmek_scrape *scrape); /* not set: there is none */
/*
 * After a round: the text, malloced; NULL: no memory. Its family cmekfs_up has 1 for each mount that has answered, and 0 for
 * each that did not, and for each of `volumes` that is not mounted.
 */
char *cmek_scrape_text(const struct cmek_scrape *scrape);

#endif
