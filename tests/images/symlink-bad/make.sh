# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The text of a symbolic link does not authenticate.
link=$(find "$store" -type l -lname '1????-*')
text=$(readlink "$link")
ln -sfn "${text%?????}AAAAA" "$link"
