#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs the integration tests, all or the named ones: tests/integ/run.sh [NAME]...
# One line each: PASS name (seconds), FAIL name (with the end of its log), SKIP name: reason. Exit 1 if any failed.
# Environment, see lib.sh too:
#   CMEK_BUILD     build directory whose cmekfs, mkfs.cmekfs and cmekctl are tested (default: the installed ones)
#   CMEK_LONG=1    larger sizes
#   CMEK_TIMEOUT   seconds for one test (default 300, with CMEK_LONG 3600)
#   CMEK_JOBS      how many tests at a time (default 1)
#   CMEK_LOGS      directory for the logs (default: a new one, kept only after a failure)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ $# -gt 0 ]; then
	names=("${@%.sh}")
	names=("${names[@]##*/}")
else
	names=()
	for f in "$here"/*.sh; do
		f=$(basename "$f" .sh)
		case $f in lib | run) ;; *) names+=("$f") ;; esac
	done
fi

if [ -n "${CMEK_BUILD:-}" ]; then
	CMEK_BUILD=$(cd "$CMEK_BUILD" && pwd) || exit 1
	export CMEK_BUILD
fi
limit=${CMEK_TIMEOUT:-$([ "${CMEK_LONG:-}" = 1 ] && echo 3600 || echo 300)}
jobs=${CMEK_JOBS:-1}
work=$(mktemp -d /var/tmp/cmekfs-integ.XXXXXX) || exit 1
shm=$(mktemp -d /dev/shm/cmekfs-integ.XXXXXX) || exit 1
chmod 755 "$work" "$shm"
keep_logs=${CMEK_LOGS:-}
logs=${CMEK_LOGS:-$(mktemp -d /var/tmp/cmekfs-integ-logs.XXXXXX)}
mkdir -p "$logs"
# Interrupted: the tests that run are ended first, and clean up behind themselves.
finish() {
	local job
	for job in $(jobs -p); do
		pkill -TERM -P "$job"
	done
	wait
	rm -rf --one-file-system "$work" "$shm"
}
trap finish EXIT
trap 'exit 130' INT TERM

# run_one NAME: runs it, leaves its exit code in $work/NAME.code and says how it went.
run_one() {
	local name=$1 log=$logs/$1.log start=$SECONDS code=1 took daemon_log
	if [ ! -f "$here/$name.sh" ]; then
		echo "FAIL $name: no such test"
		echo 1 >"$work/$name.code"
		return
	fi
	mkdir "$work/$name" "$shm/$name"
	CMEK_TEST_DIR=$work/$name CMEK_TEST_SHM=$shm/$name /usr/bin/python3 "$here/contain.py" "$limit" \
		"$work/$name:$shm/$name" bash "$here/$name.sh" >"$log" 2>&1 </dev/null
	code=$?
	took=$((SECONDS - start))
	case $code in
	0) echo "PASS $name ($took s)" ;;
	77) echo "SKIP $name: $(sed -n 's/^skipped: //p' "$log" | tail -n 1)" ;;
	*)
		[ $code -eq 124 ] && echo "not finished after $limit s" >>"$log"
		{
			echo "FAIL $name ($took s, exit code $code), the end of $log:"
			tail -n 40 "$log" | sed 's/^/    /'
			for daemon_log in "$work/$name"/*.mount.log; do
				[ -s "$daemon_log" ] || continue
				cp "$daemon_log" "$logs/$name.$(basename "$daemon_log")"
				echo "    the end of $logs/$name.$(basename "$daemon_log"):"
				tail -n 20 "$daemon_log" | sed 's/^/        /'
			done
		} >"$work/$name.said"
		cat "$work/$name.said" # at once, not between the lines of others
		;;
	esac
	echo $code >"$work/$name.code"
	rm -rf --one-file-system "${work:?}/$name" "${shm:?}/$name"
}

running=0
for name in "${names[@]}"; do
	if [ $running -ge "$jobs" ]; then
		wait -n
		running=$((running - 1))
	fi
	run_one "$name" &
	running=$((running + 1))
done
wait

passed=0 failed=0 skipped=0
for name in "${names[@]}"; do
	case $(cat "$work/$name.code" 2>/dev/null) in
	0) passed=$((passed + 1)) ;;
	77) skipped=$((skipped + 1)) ;;
	*)
		failed=$((failed + 1))
		keep_logs=1
		;;
	esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ -n "$keep_logs" ] || rm -rf "$logs"
[ "$failed" -eq 0 ]
