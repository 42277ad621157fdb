# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# A crash has left less than the first page: the file is empty.
file=$(stored 700)
truncate -s 0 "$file"
head -c 1000 /dev/urandom >"$file"
