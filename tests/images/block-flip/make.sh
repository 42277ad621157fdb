# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A byte of a block has changed.
flip "$(stored 500000)" 100000
flip "$(stored 500000)" 200000
