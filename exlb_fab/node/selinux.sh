#!/bin/sh
# selinux.sh DIRECTIVE...: let the proxy bind and connect under SELinux, for good.
#
# A directive is one argument: "boolean NAME" sets it, "label PORT TYPE" gives a TCP port a type. What it has set is kept
# in $state/selinux, a line per directive. With "undo " in front it is as before, where it is ours.
# Sent after session.sh and generations.sh.
# shellcheck disable=SC2154 # which set state

kept=$state/selinux

keep() {
	grep -q -s -x -F -e "$1" "$kept" || printf '%s\n' "$1" >>"$kept"
}

forget() {
	grep -v -x -F -e "$1" "$kept" >"$kept.new"
	[ $? -le 1 ] && mv -f "$kept.new" "$kept" # a disk that is full is no empty file
}

# unlabel PORT TYPE: what somebody has deleted already, or a run that was killed behind it, need not be deleted.
unlabel() {
	customs=$(semanage port -l -C) || return
	if printf '%s\n' "$customs" | grep -q -E "^$2 +tcp +(.*, )?$1(,|\$)"; then semanage port -d -t "$2" -p tcp "$1"; fi
}

# label PORT TYPE: a port that has a type of its own already gets another one, but not for ever.
label() {
	semanage port -a -t "$2" -p tcp "$1" 2>/dev/null || semanage port -m -t "$2" -p tcp "$1"
}

carry_out() {
	case $1 in
	boolean) keep "$*" && setsebool -P "$2" 1 ;;
	label) keep "$*" && label "$2" "$3" ;;
	undo)
		shift
		grep -q -s -x -F -e "$*" "$kept" || return 0
		case $1 in
		boolean) setsebool -P "$2" 0 ;;
		label) unlabel "$2" "$3" ;;
		esac && forget "$*"
		;;
	*) echo "unknown directive $*" && return 1 ;;
	esac
}

mkdir -p "$state" && chmod 0700 "$state" || exit 1
for each in "$@"; do
	# shellcheck disable=SC2086 # words
	carry_out $each 2>&1 || exit 1
done
