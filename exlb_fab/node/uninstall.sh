#!/bin/sh
# uninstall.sh MANAGER LIMIT ACTION=UNIT,... PACKAGE...: leave nothing of exlb on a node whose files are those from before it.
#
# ACTIONs (stop, disable) bring the units to how they were; PACKAGEs go with their configuration, each unless something
# else that is installed needs it. Every step can be done again, and $state goes last: the next run ends what was killed.
# Prints "step NAME" as it goes, and "warning: ..." for what stays.
# Sent after session.sh, generations.sh, the functions of one proxy and packages.sh, which set:
# shellcheck disable=SC2154 # run, state, generations, staging, leaving, proxy_unit, proxy_memory, proxy_socket
# shellcheck disable=SC2034 # limit is for wait_for_locks

manager=$1
limit=$2
units=$3
shift 3

fail() {
	echo "$*"
	exit 1
}

# stands_as_found: nothing of exlb's is active, or an earlier run has come so far already.
stands_as_found() {
	[ -e "$leaving" ] || { [ ! -e "$state/intent" ] && { [ -z "$(generation)" ] || is_active "$generations/0000"; }; }
}

# settle_units: a unit that is not there any more went with its package.
settle_units() {
	for each in $(echo "$units" | tr , ' '); do
		systemctl cat "${each#*=}.service" >/dev/null 2>&1 || continue
		systemctl "${each%%=*}" "${each#*=}.service" </dev/null 2>&1 || return
	done
}

# remove_files: what some generation names and the one from before exlb does not, attachments above all; of what was only
# staged, those alone. Where that generation is gone already, an earlier run has been here, and what stands is not exlb's.
remove_files() {
	for kept in "$generations"/[0-9]* "$staging"; do
		[ -e "$kept/manifest" ] || continue
		while read -r _ kind _ _ _ path; do
			if [ "$kind" != attachment ] && { [ "$kept" = "$staging" ] || is_original "$path"; }; then continue; fi
			rm -f "$path" "$path.exlb-new" "$path.exlb-old" || return
		done <"$kept/manifest"
	done
}

is_original() {
	[ ! -e "$generations/0000/manifest" ] || grep -q " $1\$" "$generations/0000/manifest"
}

# still_there NAME...: those that are installed.
still_there() {
	installed_packages | while read -r found; do
		for name; do if [ "$name" = "$found" ]; then echo "$name"; fi; done
	done
}

# The package managers would take along what needs a package; their databases refuse.
remove() {
	(umask 022 && case $manager in apt-get) dpkg --purge "$@" ;; *) rpm -e "$@" ;; esac </dev/null 2>&1)
}

is_needed() {
	case $manager in apt-get) ! dpkg --no-act --purge "$1" ;; *) ! rpm -e --test "$1" ;; esac >/dev/null 2>&1
}

# purge NAME...: all in one go, because they need each other; then one by one for as long as that takes any away.
purge() {
	wait_for_locks
	left=$(still_there "$@")
	while [ -n "$left" ]; do
		before=$left
		# shellcheck disable=SC2086 # names of packages
		said=$(remove $before)
		for name in $(still_there "$@"); do said=$(remove "$name"); done
		left=$(still_there "$@")
		if [ "$left" = "$before" ]; then break; fi
	done
	for name in $left; do
		is_needed "$name" || { printf '%s\n' "$said" && return 1; }
		echo "warning: $name stays: something else that is installed needs it"
	done
}

remove_runtime() {
	rm -f "$proxy_memory" "$proxy_memory.new" || return
	systemctl is-active -q "$proxy_unit.service" || rm -f "$proxy_socket"
	touch "$run/gone" # whoever holds the lock takes the rest with it
}

# remove_state: the mark is the last thing in it.
remove_state() {
	for each in "$state"/*; do [ "$each" = "$leaving" ] || rm -rf "$each" || return; done
	rm -rf "$state"
}

echo 'step check'
stands_as_found || fail 'the active files are not those from before exlb'
if ! { touch "$leaving" && sync "$leaving" "$state"; }; then fail "$state cannot be written"; fi
echo 'step units'
settle_units || fail 'a unit does not stop'
echo 'step files'
remove_files || fail 'the files of exlb cannot be removed'
echo 'step packages'
if [ $# -gt 0 ]; then purge "$@" || fail 'the packages cannot be removed'; fi
echo 'step state'
if ! { remove_runtime && remove_state; }; then fail 'what exlb kept cannot be removed'; fi
