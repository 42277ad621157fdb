#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Compares what the programs print with what is expected: runs each tests/cli/NAME.sh (or those named as arguments) in
# a directory of its own and compares its output with NAME.out. The programs are taken from $CMEK_BUILDDIR (default:
# the current directory). --update writes the .out files instead: read the difference before you commit it.
#
# In the output the scratch directory is DIR, a time is TIME, a UUID is UUID and the program's version VERSION.
set -u

here=$(cd "$(dirname "$0")" && pwd)
builddir=$(cd "${CMEK_BUILDDIR:-.}" && pwd)
update=no
if [ "${1-}" = --update ]; then
	update=yes
	shift
fi
if [ ! -x "$builddir/cmekctl" ]; then
	echo "no cmekctl in $builddir"
	exit 77
fi
PATH=$builddir:$PATH
export PATH
unset CREDENTIALS_DIRECTORY
LC_ALL=C
export LC_ALL

scratch=$(mktemp -d "${TMPDIR:-/tmp}/cmekfs-cli.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

# No credentials, configuration and metadata service of the machine's own.
for name in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|GOOGLE_[A-Z_]*\|IBM[A-Z_]*\)=.*/\1/p'); do
	unset "$name"
done
AWS_EC2_METADATA_DISABLED=true
CMEKFS_CONFIG=$scratch/cmekfs.conf
CMEKFS_AUDIT_LOG=$scratch/audit.log
# Not where the mounts of others come and go.
CMEKFS_RUNTIME_DIR=$scratch/run
HOME=$scratch
export AWS_EC2_METADATA_DISABLED CMEKFS_CONFIG CMEKFS_AUDIT_LOG CMEKFS_RUNTIME_DIR HOME
: >"$CMEKFS_CONFIG"
chmod 600 "$CMEKFS_CONFIG"

normalise()
{
	sed -e "s|$scratch/[a-z-]*|DIR|g" \
		-e 's/[0-9]\{4\}-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z/TIME/g' \
		-e 's/[0-9a-f]\{8\}-[0-9a-f]\{4\}-[0-9a-f]\{4\}-[0-9a-f]\{4\}-[0-9a-f]\{12\}/UUID/g' \
		-e 's/(cmekfs) [0-9][0-9.]*$/(cmekfs) VERSION/'
}

if [ $# -eq 0 ]; then
	for script in "$here"/*.sh; do
		case ${script##*/} in
		run.sh | lib.sh) ;;
		*) set -- "$@" "$(basename "$script" .sh)" ;;
		esac
	done
fi

failed=0
for name in "$@"; do
	mkdir "$scratch/$name" || exit 1
	(
		cd "$scratch/$name" || exit 1
		CMEKFS_LOCAL_KEYSTORE=$scratch/$name/keys.json
		export CMEKFS_LOCAL_KEYSTORE
		umask 022
		# shellcheck source=tests/cli/lib.sh
		. "$here/lib.sh"
		# shellcheck source=/dev/null
		. "$here/$name.sh"
	) </dev/null >"$scratch/$name.raw" 2>&1
	normalise <"$scratch/$name.raw" >"$scratch/$name.got"
	if [ "$update" = yes ]; then
		cp "$scratch/$name.got" "$here/$name.out"
	elif diff -u "$here/$name.out" "$scratch/$name.got"; then
		echo "PASS: $name"
	else
		echo "FAIL: $name"
		failed=1
	fi
done
exit $failed
