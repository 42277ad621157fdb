# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The root has the id of another directory: none of its names opens, and nothing is moved away for that.
ln -sfn v1:0001:AAAAAAAAAAAAAAAAAAAAAA "$store/.cmekfs.dir"
