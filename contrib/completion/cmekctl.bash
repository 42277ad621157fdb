# bash completion for cmekctl                                -*- shell-script -*-
# SPDX-License-Identifier: GPL-3.0-or-later
# Commands and options come from the programs' own --help, so there is nothing here to go out of date.

# The words of a help text that stand below "commands:".
_cmekctl_commands() {
	"$@" --help 2>/dev/null | awk '/^commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }'
}

_cmekctl_options() {
	"$@" --help 2>/dev/null | grep -oE -- '(^|[ ,])--[a-z][a-z-]*' | tr -d ' ,'
}

_cmekctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} word next=1
	local -a command=("${COMP_WORDS[0]}") found
	COMPREPLY=()
	# The commands that are given already: one, or a group and one of its own.
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		[[ $word == -* ]] && continue
		mapfile -t found < <(_cmekctl_commands "${command[@]}")
		next=0
		if [[ " ${found[*]} " == *" $word "* ]]; then
			command+=("$word")
			next=1
		fi
		[[ $next == 1 ]] || break
	done
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_cmekctl_options "${command[@]}")" -- "$cur")
		return
	fi
	[[ $next == 1 ]] && mapfile -t found < <(_cmekctl_commands "${command[@]}")
	if [[ $next == 1 && ${#found[@]} -gt 0 ]]; then
		mapfile -t COMPREPLY < <(compgen -W "${found[*]}" -- "$cur")
		return
	fi
	# Stores and mount points are directories.
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -d -- "$cur")
} && complete -F _cmekctl cmekctl
