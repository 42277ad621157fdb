# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The first page of a file has changed.
flip "$(stored 5000)" 70
