# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A crash has left the link of a long name without its entry.
rm "$(find "$store" -name '*.n')"
