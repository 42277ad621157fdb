# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A directory with entries has lost its id.
rm "$(dirname "$(stored 4096)")/.cmekfs.dir"
