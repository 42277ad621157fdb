/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_CAPS_H
#define CMEK_BASE_CAPS_H

#include <stdint.h>

#include "base/err.h"

/*
 * Leaves only these capabilities, a sum of CMEK_CAP(), of what the process has, in all sets and for good. Before it has
 * threads: it is of this one and of later ones. Kind system.
 */
#define CMEK_CAP(cap) (UINT64_C(1) << (cap))
int cmek_caps_keep(uint64_t keep, struct cmek_error *err);

#endif
