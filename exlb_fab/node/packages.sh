#!/bin/sh
# The package database of a node, and what exlb has brought: read and written by install.sh and uninstall.sh.
#
#   installed    "package NAME" for each that exlb brought, others that it needs among them; "unit NAME ENABLED ACTIVE" for
#                one that exlb enabled, as it was before
#
# Sent after generations.sh, in front of a program that sets `manager` and `limit`.
# shellcheck disable=SC2154,SC2034,SC2329 # which set state, manager and limit; the program that follows uses these

DEBIAN_FRONTEND=noninteractive
NEEDRESTART_SUSPEND=1
export DEBIAN_FRONTEND NEEDRESTART_SUSPEND

record=$state/installed

uptime_seconds() {
	cut -d . -f 1 /proc/uptime
}

# holder FILE: the process that holds a lock on FILE, by the kernel's own list.
holder() {
	inode=$(stat -c %i "$1" 2>/dev/null) || return 1
	found=$(sed -n "s/^[0-9]*: [A-Z]* *[A-Z]* *WRITE *\\([0-9]*\\) [0-9a-f]*:[0-9a-f]*:$inode .*/\\1/p" /proc/locks)
	[ -n "$found" ] && echo "$found" | head -n 1
}

# wait_for_locks: until no other package manager runs, for the limit at most.
wait_for_locks() {
	until=$(($(uptime_seconds) + limit))
	case $manager in
	apt-get) set -- /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock ;;
	*) set -- /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock ;;
	esac
	for lock in "$@"; do
		while pid=$(holder "$lock"); do
			if [ "$(uptime_seconds)" -ge "$until" ]; then
				echo "$lock is held by process $pid ($(cat "/proc/$pid/comm" 2>/dev/null)) for more than $limit s"
				exit 75
			fi
			sleep 1
		done
	done
}

# installed_packages: the names of all, sorted.
installed_packages() {
	case $manager in
	apt-get) dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' ;;
	dnf | yum) rpm -qa --qf '%{NAME}\n' ;;
	esac | sort -u
}

# recorded: take what comes on stdin into the record. What it says of a unit or a package already is older, and true.
recorded() (
	umask 077 # of these files alone: a package manager needs its own
	touch "$record" && cat "$record" - | awk '!known[$1, $2]++' >"$record.new" && sync "$record.new" &&
		mv -f "$record.new" "$record"
)
