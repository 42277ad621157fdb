# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A map page has changed.
flip "$(stored 500000)" $((4096 * 97 + 70))
