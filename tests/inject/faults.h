/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_FAULTS_H
#define CMEK_TESTS_FAULTS_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * The file named by CMEK_FAULTS, mapped by the library and by the test (tests/integ/inject.py has the same layout). Calls
 * on files of the device `dev` are counted while armed; those from number fail_at on fail, fail_count of them.
 */
struct faults {
	_Atomic uint32_t armed;
	uint32_t error;     /* errno of the calls that fail */
	uint32_t kinds;     /* which calls count: a sum of enum fault_kind */
	uint32_t half;      /* a write that fails leaves the first half of what it had to write */
	uint64_t dev;       /* st_dev of the store */
	uint64_t fail_at;   /* 1 = the first */
	uint64_t fail_count;
	_Atomic uint64_t calls;
	_Atomic uint64_t failed;
	char what[64];      /* the call that failed last */
};

enum fault_kind {
	FAULT_READ = 1,  /* data, attributes, names */
	FAULT_WRITE = 2, /* data */
	FAULT_FLUSH = 4,
	FAULT_MAKE = 8,  /* what needs room: entries, allocation */
	FAULT_CHANGE = 16, /* removal, attributes */
};

#endif
