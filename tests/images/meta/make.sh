# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# Directories of the volume are missing, and there is what does not belong to it.
rmdir "$store/.cmekfs/lost"
touch "$store/.cmekfs/note"
