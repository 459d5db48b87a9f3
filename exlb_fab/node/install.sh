#!/bin/sh
# install.sh MANAGER LIMIT UNIT,UNIT PACKAGE...: install packages and enable units at boot.
# With MANAGER-upgrade: bring those that are installed to their newest versions.
#
# Waits up to LIMIT seconds for another package manager to end. What the manager says goes to stdout. What is new by it is
# recorded, so that it can go again. Sent after generations.sh and packages.sh.
# shellcheck disable=SC2154 # which set state, generations and record
set -u
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

manager=${1%-upgrade}
verb=install
case $1 in *-upgrade) verb=upgrade ;; esac
limit=$2
units=$3
shift 3

# Only units to enable: no package manager is run.
if [ $# -eq 0 ]; then manager=none; fi

before=$state/packages

# unit_states: those that are to be enabled, as they are now. A push that came first has found them as they were before
# exlb; by now they run because of it.
unit_states() {
	if [ -e "$generations/0000/units" ]; then return; fi
	for unit in $(echo "$units" | tr , ' '); do
		enabled=$(systemctl is-enabled "$unit.service" 2>/dev/null)
		echo "unit $unit ${enabled:-not-found} $(systemctl is-active "$unit.service")"
	done
}

# record_before PACKAGE...: those that are new, before they come: whoever kills this cannot make them somebody else's.
record_before() {
	mkdir -p "$state" && chmod 0700 "$state" && (umask 077 && installed_packages >"$before") && {
		unit_states
		for name; do grep -q -x -F "$name" "$before" || echo "package $name"; done
	} | recorded
}

# record_new: what came with them.
record_new() {
	installed_packages | comm -13 "$before" - | sed 's/^/package /' | recorded && rm -f "$before"
}

fail_to_record() {
	echo "what is installed cannot be recorded: is $state full?"
	exit 1
}

case $manager in
none | apt-get | dnf | yum) ;;
*)
	echo "unknown package manager $manager"
	exit 64
	;;
esac

if [ "$manager" != none ]; then wait_for_locks; fi
record_before "$@" || fail_to_record
case $manager in
apt-get)
	if [ "$verb" = upgrade ]; then set -- --only-upgrade "$@"; fi
	set -- -y --no-install-recommends -o "DPkg::Lock::Timeout=$limit" \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install "$@"
	# A repository that fails matters only if the packages cannot be had without it.
	apt-get -o "DPkg::Lock::Timeout=$limit" update </dev/null 2>&1
	wait_for_locks
	apt-get "$@" </dev/null 2>&1 || exit 1
	;;
dnf | yum)
	# What the manager remembers of the repositories may be two days old. (yum has no --refresh.)
	if [ "$verb" = upgrade ]; then "$manager" -q clean expire-cache </dev/null 2>&1; fi
	"$manager" -y "$verb" "$@" </dev/null 2>&1 || exit 1
	;;
esac
if [ "$manager" != none ]; then record_new || fail_to_record; fi

IFS=,
for unit in $units; do
	systemctl enable "$unit.service" 2>&1 || exit 1
done
