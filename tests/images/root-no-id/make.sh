# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The root has lost its id.
rm "$store/.cmekfs.dir"
