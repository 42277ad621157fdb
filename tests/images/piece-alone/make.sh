# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A crash has left a piece of a symbolic link that was never made.
rm "$(find "$store" -type l -lname '1????+*')"
