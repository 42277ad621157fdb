# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The end of a stored file is missing.
truncate -s 300000 "$(stored 500000)"
