#!/bin/sh
# install.sh MANAGER LIMIT UNIT,UNIT PACKAGE...: install packages and enable units at boot.
# With MANAGER-upgrade: bring those that are installed to their newest versions.
#
# Waits up to LIMIT seconds for another package manager to end. What the manager says goes to stdout.
set -u
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
DEBIAN_FRONTEND=noninteractive
NEEDRESTART_SUSPEND=1
export DEBIAN_FRONTEND NEEDRESTART_SUSPEND

manager=${1%-upgrade}
verb=install
case $1 in *-upgrade) verb=upgrade ;; esac
limit=$2
units=$3
shift 3

uptime_seconds() {
	cut -d . -f 1 /proc/uptime
}

# holder FILE: the process that holds a lock on FILE, by the kernel's own list.
holder() {
	inode=$(stat -c %i "$1" 2>/dev/null) || return 1
	found=$(sed -n "s/^[0-9]*: [A-Z]* *[A-Z]* *WRITE *\\([0-9]*\\) [0-9a-f]*:[0-9a-f]*:$inode .*/\\1/p" /proc/locks)
	[ -n "$found" ] && echo "$found" | head -n 1
}

wait_for_locks() {
	until=$(($(uptime_seconds) + limit))
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

# Only units to enable: no package manager is run.
if [ $# -eq 0 ]; then manager=none; fi

case $manager in
none) ;;
apt-get)
	if [ "$verb" = upgrade ]; then set -- --only-upgrade "$@"; fi
	set -- -y --no-install-recommends -o "DPkg::Lock::Timeout=$limit" \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install "$@"
	wait_for_locks /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock
	# A repository that fails matters only if the packages cannot be had without it.
	apt-get -o "DPkg::Lock::Timeout=$limit" update </dev/null 2>&1
	wait_for_locks /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock
	apt-get "$@" </dev/null 2>&1 || exit 1
	;;
dnf | yum)
	wait_for_locks /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock
	# What the manager remembers of the repositories may be two days old. (yum has no --refresh.)
	if [ "$verb" = upgrade ]; then "$manager" -q clean expire-cache </dev/null 2>&1; fi
	"$manager" -y "$verb" "$@" </dev/null 2>&1 || exit 1
	;;
*)
	echo "unknown package manager $manager"
	exit 64
	;;
esac

IFS=,
for unit in $units; do
	systemctl enable "$unit.service" 2>&1 || exit 1
done
