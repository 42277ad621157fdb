# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# The link with a long name has another text.
ln -sfn "$(printf '%0300d' 0)" "$(find "$store" -name '*.l')"
