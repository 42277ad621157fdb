/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_LOCK_STATE_H
#define CMEK_MOUNT_LOCK_STATE_H

/* Whether a mount has its keys: what status, metrics and log tell. */
enum cmek_lock_state {
	CMEK_UNLOCKED,
	CMEK_DRAINING, /* users are refused, keys are there still: what they wrote is being kept */
	CMEK_LOCKED,   /* no keys, no plaintext */
	CMEK_SHREDDED, /* the same for good: the volume is being destroyed */
	CMEK_LOCK_STATES,
};
/* "unlocked", "draining", "locked", "shredded". */
const char *cmek_lock_state_name(enum cmek_lock_state state);

#endif
