# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the scripts of tests/cli have in common; sourced by run.sh.

# Shows a command, its output and, when it fails, its exit code.
t()
{
	printf '$ %s\n' "$*"
	rc=0
	setsid -w "$@" 2>&1 || rc=$? # setsid: no terminal to ask on
	[ $rc -eq 0 ] || echo "exit $rc"
}
