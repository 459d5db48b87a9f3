#!/bin/sh
# What the programs of one session share: the lock that it holds on this node, and the change or drill that runs.
# shellcheck disable=SC2034,SC2329 # the program that follows uses these
set -u
umask 077
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

run=/run/exlb
unit=exlb-apply
drill=exlb-drill
silence=20 # seconds: a partition can leave sshd with a session for hours

# is_locked: somebody holds this node. A shared lock asks: two who ask do not take each other for a holder.
is_locked() {
	[ -e "$run/lock" ] && ! flock -s -n "$run/lock" true
}

# owns TOKEN: the session of this token still holds this node.
owns() {
	is_locked && grep -q -s -x -F "token=$1" "$run/holder"
}

# is_heard: whoever started this program has said a line, or ended it just now; not so after silence.
is_heard() {
	timeout "$silence" sh -c 'IFS= read -r _'
}

# is_busy UNIT: it does something, or is being ended.
is_busy() {
	case $(systemctl show -p ActiveState "$1.service") in
	*=active | *=activating | *=reloading | *=deactivating) ;;
	*) return 1 ;;
	esac
}

# is_changing: a change runs, whoever started it and whether or not anybody still listens to it.
is_changing() {
	is_busy "$unit"
}

# is_drilling: a fault of a drill is there, or being undone. Its session may have lost the lock: that ends at once, and what
# undoes the fault takes longer.
is_drilling() {
	is_busy "$drill"
}
