#!/bin/sh
# The one program that changes the configuration of a node.
#
#   stage                                 read files from stdin into a directory of root's, and validate them there
#   activate PROXY KEEPALIVED LIMIT       make the staged files the active ones; PROXY and KEEPALIVED say what the
#                                         units need (none, reload, start, restart), LIMIT is the gate's, in seconds
#   units PROXY KEEPALIVED LIMIT          the same for the units alone, where no file changes
#   discard                               forget what is staged
#
# stdin of stage, per file: a line "KIND MODE LINES PATH", then that many lines of content.
# Prints "step NAME" as it goes; ends with "exlb-apply: done" or "exlb-apply: failed STEP".
# Sent after the functions of one proxy (haproxy.sh), which set:
# shellcheck disable=SC2154 # proxy_unit and proxy_path
set -u
umask 077
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

# Whoever started this may be gone: the change is ended all the same, and nobody listening is no failure.
trap '' HUP INT PIPE

state=/var/lib/exlb
staging=$state/staging
step=start

# run STEP COMMAND...: name the step, then do it.
run() {
	step=$1
	echo "step $step"
	shift
	"$@"
}

fail() {
	if [ $# -gt 0 ]; then printf '%s\n' "$*"; fi
	echo "exlb-apply: failed $step"
	exit 1
}

finish() {
	echo 'exlb-apply: done'
	exit 0
}

# each FUNCTION: call it with NUMBER KIND MODE PATH for every staged file, in order; stop at the first that fails.
each() {
	while read -r number kind mode path; do
		"$1" "$number" "$kind" "$mode" "$path" </dev/null || return 1
	done <"$staging/manifest"
}

receive() {
	rm -rf "$staging" && mkdir -p "$state" "$staging" && chmod 0700 "$state" "$staging" || return
	: >"$staging/manifest"
	number=0
	while read -r kind mode lines path; do
		number=$((number + 1))
		while [ "$lines" -gt 0 ]; do
			IFS= read -r line || return
			printf '%s\n' "$line" || return
			lines=$((lines - 1))
		done >"$staging/$number" || return
		printf '%s %s %s %s\n' "$number" "$kind" "$mode" "$path" >>"$staging/manifest" || return
	done
	[ "$number" -gt 0 ]
}

# A rename can take the place of a regular file only: through a link it would replace the link, on a mount it fails.
check_target() {
	if [ -L "$4" ]; then echo "$4 is a symbolic link to $(readlink "$4"): exlb replaces regular files only" && return 1; fi
	if [ -e "$4" ] && [ ! -f "$4" ]; then echo "$4 is not a regular file" && return 1; fi
	if [ ! -d "${4%/*}" ]; then echo "${4%/*} is not there: is the package installed?" && return 1; fi
	if [ -e "$4" ] && [ "$(stat -c %d "$4")" != "$(stat -c %d "${4%/*}")" ]; then
		echo "$4 is a mount of its own: it cannot be replaced by a rename" && return 1
	fi
}

validate_keepalived() {
	# keepalived -t takes a file without any instance for a good one.
	grep -q '^[[:blank:]]*vrrp_instance' "$1" || { echo "the rendered file has no vrrp_instance" && return 1; }
	keepalived -t -f "$1"
}

validate() {
	case $2 in
	proxy) said=$(proxy_validate "$staging/$1" 2>&1) ;;
	keepalived) said=$(validate_keepalived "$staging/$1" 2>&1) ;;
	*) said="unknown kind of file $2" && false ;;
	esac || {
		printf '%s\n' "$said" | sed "s#$staging/$1#$4#g"
		return 1
	}
}

keep_old() {
	if [ -e "$4" ]; then cp -p "$4" "$staging/$1.old"; fi
}

# A sibling is on the same file system, so that the rename is one: the old file or the new one, never a part of it.
put_sibling() {
	cp "$1" "$2.exlb-new" && chmod "$3" "$2.exlb-new" && chown root:root "$2.exlb-new" || return
	if command -v restorecon >/dev/null; then restorecon "$2.exlb-new" || return; fi
	sync "$2.exlb-new"
}

write_new() {
	put_sibling "$staging/$1" "$4" "$3"
}

drop_sibling() {
	rm -f "$4.exlb-new"
}

swap() {
	mv -f "$4.exlb-new" "$4" && sync "${4%/*}"
}

put_back() {
	if [ -e "$staging/$1.old" ]; then
		cp -p "$staging/$1.old" "$4.exlb-new" && mv -f "$4.exlb-new" "$4"
	else
		rm -f "$4" "$4.exlb-new"
	fi
}

# change_unit UNIT ACTION
change_unit() {
	case $2 in
	none) return 0 ;;
	start | restart) systemctl reset-failed "$1.service" 2>/dev/null ;;
	reload) ;;
	*) echo "unknown action $2" && return 1 ;;
	esac
	systemctl "$2" "$1.service" 2>&1 && return
	journalctl -u "$1.service" -n 5 --no-pager -o cat 2>/dev/null
	return 1
}

# remember: what is known of the servers, for the reload that follows.
remember() {
	if [ "$2" = proxy ] && [ -e "$staging/$1.old" ]; then proxy_remember "$staging/$1.old" "$staging/$1"; fi
	return 0
}

uptime_seconds() {
	cut -d . -f 1 /proc/uptime
}

# An active unit, an open port and systemctl's exit status prove nothing: the proxy says itself what it runs, and
# until the first check of a server has ended, its state is a guess.
gate_proxy() {
	wanted=$(sed -n 's/^ *description exlb-\([0-9a-f]*\)$/\1/p' "$1")
	until=$(($(uptime_seconds) + $2))
	until running=$(proxy_digest) && [ "$running" = "$wanted" ] && proxy_settled; do
		if [ "$(uptime_seconds)" -ge "$until" ]; then
			echo "after $2 s $proxy_unit runs ${running:-no configuration of exlb}, it should run $wanted"
			journalctl -u "$proxy_unit.service" -n 5 --no-pager -o cat 2>/dev/null
			return 1
		fi
		sleep 0.1
	done
	proxy_forget
}

gate_keepalived() {
	systemctl is-active -q keepalived.service && return
	echo 'keepalived does not run'
	journalctl -u keepalived.service -n 5 --no-pager -o cat 2>/dev/null
	return 1
}

stage() {
	run receive receive || fail 'the files did not arrive whole'
	run target each check_target || fail
	run validate each validate || fail
	finish
}

# again ACTION: what takes a unit back to the old bytes. Starting one that was started on the new ones does nothing.
again() {
	if [ "$1" = start ]; then echo restart; else echo "$1"; fi
}

# undo PROXY KEEPALIVED: the old bytes back, the units on them again.
undo() {
	echo 'step restore'
	each put_back
	change_unit "$proxy_unit" "$(again "$1")"
	change_unit keepalived "$(again "$2")"
	fail
}

# give_up: nothing active was touched yet, and nothing of ours stays beside it.
give_up() {
	each drop_sibling
	fail 'the new files cannot be written'
}

activate() {
	[ -s "$staging/manifest" ] || fail 'nothing is staged'
	run target each check_target || fail
	run keep each keep_old || fail 'the active files cannot be kept'
	run write each write_new || give_up
	run remember each remember
	run swap each swap || undo none none
	run "$1-proxy" change_unit "$proxy_unit" "$1" || undo "$1" none
	if [ "$1" != none ]; then run gate-proxy gate_proxy "$proxy_path" "$3" || undo "$1" none; fi
	run "$2-keepalived" change_unit keepalived "$2" || undo "$1" "$2"
	run gate-keepalived gate_keepalived || undo "$1" "$2"
	rm -rf "$staging"
	finish
}

change_units() {
	run "$1-proxy" change_unit "$proxy_unit" "$1" || fail
	if [ "$1" != none ]; then run gate-proxy gate_proxy "$proxy_path" "$3" || fail; fi
	run "$2-keepalived" change_unit keepalived "$2" || fail
	if [ "$2" != none ]; then run gate-keepalived gate_keepalived || fail; fi
	finish
}

case ${1-} in
stage) stage ;;
activate) shift && activate "$@" ;;
units) shift && change_units "$@" ;;
discard) rm -rf "$staging" && finish ;;
*) fail "unknown action ${1-}" ;;
esac
