# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A piece of a long symbolic link is missing.
rm "$(find "$store/.cmekfs/links" -name '*.1')"
