#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Everything that CI checks, one function a job, from a bare clone on:
#
#   tests/ci.sh               all jobs
#   tests/ci.sh JOB...        some
#   tests/ci.sh --list        their names
#
# Missing Debian packages are installed, which wants root. Jobs work on a copy of the files that git knows (and of new
# ones that it does not ignore), in build-ci/, so that builds inside the tree don't matter and none is left there. A
# job's log is build-ci/log/JOB.log. The last line is "N passed, N failed, N skipped": unit tests, integration scripts,
# and the single checks of other jobs. The exit code is 0 when none failed.
set -uo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$top/build-ci
src=$work/src
logs=$work/log
export LC_ALL=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1

all_jobs=(style quickstart build_gcc build_clang asan tsan nonce distcheck reader integ powercut fuzz sdks)

packages=(
	acl attr autoconf automake btrfs-progs build-essential check clang e2fsprogs fio fuse3 git jq libcap2-bin
	libclang-rt-dev libcurl4-openssl-dev libfuse3-dev libinih-dev libjansson-dev libmicrohttpd-dev libssl-dev mandoc pkg-config
	postgresql procps python3 python3-botocore python3-cryptography python3-jsonschema rsync
	shellcheck sqlite3 xfsprogs
)
# Where Node.js comes from elsewhere, Debian's five hundred packages are not wanted.
command -v node >/dev/null && command -v npm >/dev/null || packages+=(nodejs npm)

# ---- helpers of jobs ----

run() {
	printf '+ %s\n' "$*"
	"$@"
}

# tally PASSED FAILED SKIPPED: counts tests of the running job.
tally() {
	printf '%d %d %d\n' "$@" >>"$counts"
}

# verdict NAME COMMAND...: one check; its failure is counted and the job goes on.
verdict() {
	local name=$1
	shift
	if "$@"; then
		echo "PASS: $name"
		tally 1 0 0
	else
		echo "FAIL: $name"
		tally 0 1 0
	fi
}

# build NAME CONFIGURE-ARGUMENTS...: an out-of-tree build in build-ci/NAME.
build() {
	local dir=$work/$1
	shift
	run mkdir -p "$dir"
	cd "$dir"
	run "$src/configure" --quiet --enable-werror --enable-tests "$@"
	run make -j"$(nproc)"
}

# number FILE WHAT: the count behind "# WHAT:" in automake's summary.
number() {
	local n
	n=$(sed -n "s/^# $2: *//p" "$1" | tail -n 1)
	echo "${n:-0}"
}

# check_build NAME VARIABLE=VALUE...: make check there; fails also when no test ran.
check_build() {
	local dir=$work/$1 code=0 passed failed
	local summary=$dir/test-suite.log
	shift
	rm -f "$summary"
	run env "$@" timeout -k 30 900 make -C "$dir" -j"$(nproc)" check VERBOSE=1 || code=$?
	[ -f "$summary" ] || return 1
	passed=$(number "$summary" PASS)
	failed=$(($(number "$summary" FAIL) + $(number "$summary" ERROR) + $(number "$summary" XPASS)))
	tally "$passed" "$failed" "$(number "$summary" SKIP)"
	[ $code -eq 0 ] && [ "$passed" -gt 0 ]
}

# Integration scripts that the sanitizers run, too: those that reach much code with little data.
sanitized=(basic_ops hostile keys mount random_ops sigterm)

# integration BUILD NAME...: integration scripts with the programs of build-ci/BUILD.
integration() {
	local dir=$work/$1 code=0 out
	shift
	out=$(mktemp)
	# They wait a third of their time.
	CMEK_BUILD=$dir CMEK_JOBS=$(($(nproc) + 1)) run "$src/tests/integ/run.sh" "$@" | tee "$out" || code=$?
	tally "$(grep -c '^PASS ' "$out")" "$(grep -c '^FAIL ' "$out")" "$(grep -c '^SKIP ' "$out")"
	if ! grep -q '^PASS ' "$out"; then
		echo "no integration script passed"
		code=1
	fi
	rm -f "$out"
	return $code
}

# ---- style ----

# sources REGEX: files whose path matches, one a line.
sources() {
	grep -E "$1" "$work/files" || true
}

# grep_sources REGEX PATTERN: what grep -E finds in them.
grep_sources() {
	(cd "$src" && sources "$1" | xargs -r -d '\n' grep -HnE "$2")
}

# Prints nothing and succeeds when the command finds nothing.
finds_nothing() {
	local found
	found=$("$@")
	[ -z "$found" ] && return 0
	printf '%s\n' "$found"
	return 1
}

# bad_includes PATH ALLOWED...: quoted includes in C files at or below PATH that begin with something else than allowed.
bad_includes() {
	local path=$1 allowed
	shift
	allowed=$(printf '%s|' "$@")
	grep_sources "^$path.*\.[ch]$" '^[[:space:]]*#[[:space:]]*include "' |
		grep -Ev "include \"(config\.h\"|(${allowed%|}))"
}

tools_below_main() {
	grep_sources '^fs/' 'include "tools/' | grep -v '^fs/mount/main\.c:'
}

includes_point_down() {
	# The tree takes the arithmetic of sizes from content.h; main.c is a program, and speaks as the tools do.
	finds_nothing bad_includes base/ base/ &&
		finds_nothing bad_includes kms/ kms/ base/ &&
		finds_nothing bad_includes fs/volume/ fs/volume/ kms/ base/ &&
		finds_nothing bad_includes fs/content/ fs/content/ fs/volume/ base/ &&
		finds_nothing bad_includes fs/tree/ fs/tree/ fs/content/content.h fs/volume/ base/ &&
		finds_nothing bad_includes fs/mount/ fs/ kms/ base/ tools/tool.h &&
		finds_nothing tools_below_main &&
		finds_nothing bad_includes tools/ tools/ fs/volume/ fs/content/ fs/tree/ kms/ base/
}

# outsiders HEADER ALLOWED: includes of <HEADER in files that don't match ALLOWED, tests apart.
outsiders() {
	grep_sources '^(base|kms|fs|tools)/.*\.[ch]$' "include <$1" | grep -Ev "$2"
}

libraries_kept_in() {
	finds_nothing outsiders 'openssl/' '^base/crypto(_pkey)?\.c:' &&
		finds_nothing outsiders 'curl/' '^kms/http_curl\.c:' &&
		finds_nothing outsiders 'microhttpd' '^tools/ctl_listen\.c:' &&
		finds_nothing outsiders 'fuse' '^fs/mount/'
}

no_marks_left() {
	finds_nothing grep_sources '\.([chm]|am|ac|md|py|sh|[1-8])$' '\b(TO''DO|FIX''ME|XX''X)\b'
}

no_banned_calls() {
	finds_nothing grep_sources '^(base|kms|fs|tools)/.*\.[ch]$' \
		'(^|[^_[:alnum:]])(strcpy|strcat|sprintf|vsprintf|gets|alloca|system|popen|tmpnam|mktemp|strtok)\('
}

goto_is_out() {
	finds_nothing goto_elsewhere
}

goto_elsewhere() {
	grep_sources '^(base|kms|fs|tools)/.*\.c$' '\bgoto[[:space:]]' | grep -Ev 'goto out;'
}

config_first() {
	finds_nothing without_config
}

without_config() {
	sources '\.c$' | while read -r file; do
		[ "$(grep -m1 '^#include' "$src/$file")" = '#include "config.h"' ] || echo "$file"
	done
}

licence_named() {
	finds_nothing without_licence
}

without_licence() {
	sources '(\.([ch]|am|ac|py|sh)|^\.ci/run)$' | while read -r file; do
		head -n 3 "$src/$file" | grep -q 'SPDX-License-Identifier: GPL-3.0-or-later' || echo "$file"
	done
}

lines_fit() {
	finds_nothing bad_lines
}

# The style wants 120 columns; a word beyond that is no reason to stop, and texts are not broken up.
bad_lines() {
	local file
	sources '\.([ch]|sh|py)$' | while read -r file; do
		expand -t 8 "$src/$file" | awk -v file="$file" \
			'length > 132 && !/"/ { print file ":" NR ": " length " columns" }'
	done
	grep_sources '\.([chm]|am|ac|md|py|sh)$' '[[:space:]]+$'
}

# Files that begin with #!.
scripts() {
	local file
	sources . | while read -r file; do
		if [ "$(head -c 2 "$src/$file" | tr -d '\0')" = '#!' ]; then
			echo "$file"
		fi
	done
}

wrong_modes() {
	local file
	scripts | while read -r file; do
		[ -x "$src/$file" ] || echo "$file: has #! and is not executable"
	done
	sources '\.([chm]|am|ac|md|[1-8]|txt)$' | while read -r file; do
		[ -x "$src/$file" ] && echo "$file: is executable"
	done
}

modes_fit() {
	finds_nothing wrong_modes
}

# Shell scripts, and what they source. (SC2015 is about "check && check || fail", where fail exits.)
shell_scripts() {
	local file
	scripts | while read -r file; do
		if head -n 1 "$src/$file" | grep -qE '(/|env )(ba|da)?sh( |$)'; then
			echo "$file"
		fi
	done
	sources '/lib\.sh$'
}

shellcheck_clean() {
	(cd "$src" && shell_scripts | sort -u | xargs -r shellcheck -x -P SCRIPTDIR -e SC2015)
}

manuals_clean() {
	(cd "$src" && sources '^doc/man/.*\.[1-8]$' | xargs -r mandoc -T lint -W warning)
}

job_style() {
	verdict "includes point downward" includes_point_down
	verdict "each library is included in its place only" libraries_kept_in
	verdict "no marks of unfinished work" no_marks_left
	verdict "no banned calls" no_banned_calls
	verdict "goto goes to out" goto_is_out
	verdict "config.h comes first" config_first
	verdict "licence is named" licence_named
	verdict "lines fit" lines_fit
	verdict "modes fit" modes_fit
	verdict "shellcheck" shellcheck_clean
	verdict "manual pages" manuals_clean
}

# ---- what the README promises ----

first_file_is_there() {
	findmnt "$1/build/quickstart/mnt" && grep "Customer 4711" "$1/build/quickstart/mnt/ledger.txt"
}

# As in a bare clone, and again, as who wonders whether it went well would do.
job_quickstart() {
	local tree=$work/quickstart
	umount "$tree/build/quickstart/mnt" 2>/dev/null || true
	rm -rf "$tree"
	mkdir -p "$tree"
	tar -c -C "$src" --no-recursion -T "$work/files" | tar -x -C "$tree"
	verdict "quickstart.sh" run "$tree/contrib/quickstart.sh"
	verdict "quickstart.sh on what it left" run "$tree/contrib/quickstart.sh"
	verdict "its file is on the mount" first_file_is_there "$tree"
	verdict "its mount goes away" run umount "$tree/build/quickstart/mnt"
}

# ---- builds ----

foreign_symbols() {
	find "$work/build_gcc" -maxdepth 1 -name 'libcmek*.a' | sort | while read -r archive; do
		nm --defined-only --extern-only "$archive" | awk -v a="${archive##*/}" \
			'NF == 3 && $3 !~ /^cmek_/ { print a ": " $3 }'
	done
}

job_build_gcc() {
	build build_gcc CC=gcc
	verdict "global symbols begin with cmek_" finds_nothing foreign_symbols
	check_build build_gcc
}

# What it makes is tested by the distcheck job.
job_build_clang() {
	build build_clang CC=clang
	verdict "everything builds with clang" run make -C "$work/build_clang" -j"$(nproc)" check TESTS=
}

# One process for all tests of a suite: a sanitizer's report must not be lost with a forked child. A report ends the
# process, a mounted file system's as well, which its integration test then notices.
job_asan() {
	export UBSAN_OPTIONS=print_stacktrace=1
	build asan CC=gcc CFLAGS='-O1 -g' --enable-sanitize=address,undefined
	check_build asan CK_FORK=no
	integration asan "${sanitized[@]}"
}

job_tsan() {
	local fixed=()
	export TSAN_OPTIONS=halt_on_error=1
	build tsan CC=gcc CFLAGS='-O1 -g' --enable-sanitize=thread
	# Its shadow memory collides with much address randomization.
	setarch "$(uname -m)" -R true 2>/dev/null && fixed=(setarch "$(uname -m)" -R)
	check_build tsan CK_FORK=no "${fixed[@]}"
	# What a hostile store does is done to one thread at a time.
	integration tsan "${sanitized[@]/hostile/lock}"
}

job_nonce() {
	build nonce CC=gcc --enable-nonce-log
	CMEK_NONCE_BUILD=$work/nonce integration nonce nonces
}

# Files that git knows and a release lacks.
undistributed() {
	tar -tf "$work"/build_gcc/cmekfs-*.tar.xz | sed 's,^[^/]*/,,' | sort >"$work/distributed"
	comm -23 <(grep -v '^\.git' "$work/files" | sort) "$work/distributed"
	rm -f "$work/distributed"
}

job_distcheck() {
	build build_gcc CC=gcc
	rm -f "$work"/build_gcc/cmekfs-*.tar.xz
	verdict "make distcheck, with clang" run env CMEK_CRASH_DEPTH=1 make -C "$work/build_gcc" -j"$(nproc)" \
		DISTCHECK_CONFIGURE_FLAGS=CC=clang distcheck
	verdict "a release has every file" finds_nothing undistributed
}

# ---- what is outside of the build ----

siv_vectors_reproduced() {
	/usr/bin/python3 "$src/tests/vectors/aes256_siv.py" | cmp - "$src/tests/vectors/aes256_siv.h"
}

rs256_vector_reproduced() {
	/usr/bin/python3 "$src/tests/vectors/rfc7515_a2.py" | cmp - "$src/tests/vectors/rfc7515_a2.h"
}

job_reader() {
	verdict "the RS256 vector is what its script makes" rs256_vector_reproduced
	verdict "AES-256-SIV vectors are what their script makes" siv_vectors_reproduced
	verdict "format vectors are what their script makes" \
		run /usr/bin/python3 "$src/tests/vectors/format-v1.py" --check
	verdict "the independent reader" run /usr/bin/python3 "$src/tests/reader/test_reader.py"
}

# promtool, which checks metrics and alerts, in the PATH: alone, because Debian's package of it is Prometheus, which would be
# started. Checks by it are left out where there is none to be had.
add_promtool() {
	local dir=$work/promtool
	command -v promtool >/dev/null && return 0
	[ -x "$dir/usr/bin/promtool" ] || fetch_promtool "$dir" || {
		echo "SKIP: promtool: Debian's package prometheus can't be downloaded"
		tally 0 0 1
		return 0
	}
	PATH=$PATH:$dir/usr/bin
}

fetch_promtool() {
	local dir=$1
	rm -rf "$dir"
	mkdir -p "$dir"
	(
		cd "$dir" || exit 1
		timeout 120 apt-get -q download prometheus ||
			{ timeout 120 apt-get -q update && timeout 120 apt-get -q download prometheus; } || exit 1
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool || exit 1
		rm -f prometheus_*.deb
		[ -x usr/bin/promtool ]
	)
}

job_integ() {
	local names=()
	build build_gcc CC=gcc
	add_promtool
	# nonces has a job of its own, with another build.
	mapfile -t names < <(cd "$src/tests/integ" && printf '%s\n' ./*.sh | sed 's,^\./,,; s,\.sh$,,' |
		grep -vxE 'lib|run|nonces')
	integration build_gcc "${names[@]}"
}

# Of twenty times each; a timer of the store's file system may come between, and have one or two of its own.
one_flush_each() {
	run "$src/tests/powercut/flushes" ext4 | tee "$work/flushes"
	grep -qxE 'overwrite \+ fdatasync, ext4: plain [0-9.]+, cmekfs 1(\.05|\.1)?' "$work/flushes" &&
		grep -qxE 'append \+ fsync, ext4: plain [0-9.]+, cmekfs 1(\.05|\.1)?' "$work/flushes"
}

# Cuts of the power and kills of the daemon; tests/powercut/README.md has the long run.
job_powercut() {
	local cut=("$src/tests/powercut/run" --target cmekfs --fs ext4 --seconds 2 --seed 1 --scratch /dev/shm)
	build build_gcc CC=gcc
	run make -C "$work/build_gcc" tests/powercut/recorder tests/powercut/mkimage
	export CMEK_BUILD=$work/build_gcc
	verdict "power cuts" run "${cut[@]}" --workload overwrite,append,files,sqlite,rotate --tear 4096,512 --images 6 --second 1
	verdict "one flush for a synced write" one_flush_each
	verdict "kills" run "${cut[@]}" --workload overwrite,append,rotate --kill --images 3
}

# The same inputs in every run; tests/fuzz/README.md has the long one.
job_fuzz() {
	local code=0 out=$work/fuzz.out
	rm -rf "$work/fuzz/inputs" "$work/fuzz/crashes"
	run env CMEK_FUZZ_DIR="$work/fuzz" "$src/tests/fuzz/run" -s 1 1 | tee "$out" || code=$?
	tally "$(grep -c ' ok$' "$out")" "$(grep -c ' FAILED ' "$out")" 0
	rm -f "$out"
	return $code
}

# The emulator of the key services, checked by the services' own clients. Without npm or a registry it can't be.
job_sdks() {
	local code=0 out
	out=$(mktemp)
	run "$src/tests/emulator/check_sdks.sh" "$work/sdks" | tee "$out" || code=$?
	if [ $code -eq 77 ]; then
		sed -n 's/^skipped: /SKIP: /p' "$out"
		tally 0 0 1
		code=0
	else
		tally "$(grep -c '^PASS: ' "$out")" "$(grep -c '^FAIL: ' "$out")" 0
	fi
	rm -f "$out"
	return $code
}

# ---- the driver ----

die() {
	echo "ci.sh: $*" >&2
	exit 1
}

install_packages() {
	local missing=() package as_root=()
	command -v dpkg-query >/dev/null || {
		echo "not Debian: taking the packages for installed"
		return 0
	}
	for package in "${packages[@]}"; do
		dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
	done
	[ ${#missing[@]} -eq 0 ] && return 0
	echo "installing ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		sudo -n true 2>/dev/null || die "not root, and these packages are missing: ${missing[*]}"
		as_root=(sudo -n)
	fi
	# The tests make clusters of their own: PostgreSQL's package shall not start one.
	if printf '%s\n' "${missing[@]}" | grep -qx postgresql; then
		"${as_root[@]}" mkdir -p /etc/postgresql-common/createcluster.d &&
			echo 'create_main_cluster = false' |
			"${as_root[@]}" tee /etc/postgresql-common/createcluster.d/cmekfs-ci.conf >/dev/null
	fi
	if ! { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends \
			-o Dpkg::Use-Pty=0 install "${missing[@]}"; } >"$logs/apt.log" 2>&1; then
		tail -n 30 "$logs/apt.log"
		die "packages can't be installed"
	fi
}

# The files that git knows or would add; without git (a release) all but build directories.
list_files() {
	local file
	if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
		git -c safe.directory='*' ls-files --cached --others --exclude-standard
	else
		find . -path './build*' -prune -o ! -type d -printf '%P\n'
	fi | sort -u | while read -r file; do
		if [ -e "$file" ] || [ -L "$file" ]; then
			printf '%s\n' "$file"
		fi
	done
}

copy_source() {
	rm -rf "$src"
	mkdir -p "$src"
	cd "$top" || return 1
	list_files >"$work/files"
	tar -c --no-recursion -T "$work/files" | tar -x -C "$src" || return 1
	cd "$src" || return 1
	autoreconf -fi >"$logs/autoreconf.log" 2>&1 || {
		cat "$logs/autoreconf.log"
		return 1
	}
}

# What a job tallied.
sums() {
	awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$1"
}

# run_job NAME: adds to the totals, tells how it went.
run_job() {
	local job=$1 start=$SECONDS code passed failed skipped
	local log=$logs/$job.log
	counts=$work/$job.counts
	: >"$counts"
	printf '== %-12s ' "$job"
	(
		set -e
		cd "$src"
		"job_$job"
	) >"$log" 2>&1 </dev/null 9>&-
	code=$?
	read -r passed failed skipped < <(sums "$counts")
	rm -f "$counts"
	# A build that fails has no tests to count, and still is a failure.
	if [ $code -ne 0 ] && [ "$failed" -eq 0 ]; then
		failed=1
	fi
	total_passed=$((total_passed + passed))
	total_failed=$((total_failed + failed))
	total_skipped=$((total_skipped + skipped))
	if [ "$failed" -eq 0 ]; then
		summary+=("ok      $job ($passed passed, $skipped skipped, $((SECONDS - start)) s)")
		echo "ok: $passed passed, $skipped skipped ($((SECONDS - start)) s)"
		grep -E '^SKIP[: ]' "$log" | sed 's/^/   /'
		return 0
	fi
	summary+=("FAILED  $job ($failed failed, $passed passed, $skipped skipped), see ${log#"$top"/}")
	echo "FAILED: $failed failed, $passed passed, $skipped skipped ($((SECONDS - start)) s)"
	grep -E '^(FAIL|ERROR|XPASS|SKIP)[: ]' "$log" | sort -u | sed 's/^/   /'
	echo "   the end of ${log#"$top"/}:"
	tail -n 60 "$log" | sed 's/^/   | /'
}

main() {
	local jobs=("$@") job
	if [ "${1:-}" = --list ]; then
		printf '%s\n' "${all_jobs[@]}"
		return 0
	fi
	[ $# -gt 0 ] || jobs=("${all_jobs[@]}")
	for job in "${jobs[@]}"; do
		printf '%s\n' "${all_jobs[@]}" | grep -qxF -- "$job" || die "no job \"$job\"; --list shows them"
	done
	mkdir -p "$logs" || exit 1
	exec 9>"$work/lock"
	flock -n 9 || die "another run is at work in $work"
	install_packages
	copy_source || die "can't prepare the source"
	total_passed=0 total_failed=0 total_skipped=0 summary=()
	for job in "${jobs[@]}"; do
		run_job "$job"
	done
	echo
	printf '%s\n' "${summary[@]}"
	echo
	echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
	[ "$total_failed" -eq 0 ]
}

main "$@"
