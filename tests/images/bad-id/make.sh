# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The id of a directory makes no sense.
ln -sfn v1:0001:short "$(dirname "$(stored 4096)")/.cmekfs.dir"
