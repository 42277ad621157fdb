# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The link with a long name is missing.
rm "$(find "$store" -name '*.l')"
