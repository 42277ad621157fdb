# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# What can be checked without a key.
options=(--no-key)
touch "$store/foreign"
rm "$(find "$store" -name '*.l')"
