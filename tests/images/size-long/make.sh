# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A crash has left a stored file longer than its contents.
head -c 10000 /dev/zero >>"$(stored 5000)"
