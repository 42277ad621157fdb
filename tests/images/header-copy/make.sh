# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# One copy of the header is damaged, the other one is good.
flip "$store/.cmekfs/header.0" 5000
