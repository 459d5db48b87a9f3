#!/bin/sh
# The one program that changes the configuration of a node. What it begins, it ends: with all new bytes or all old ones.
#
#   stage TOKEN [unvalidated]             read a generation from stdin, and validate it where it cannot harm; with
#                                         "unvalidated" without keepalived's own verdict, which an old one cannot give
#   prepare TOKEN NUMBER [unvalidated] [idle-KIND]...
#                                         the same from a generation that the node keeps; a file of a KIND that no unit is
#                                         to run on is not validated
#   activate NUMBER FOUND PROXY KEEPALIVED LIMIT URL
#                                         make what is staged the generation NUMBER and the active one. FOUND is the
#                                         number for what exlb did not write, if the active files are such. PROXY and
#                                         KEEPALIVED say what the units need (none, reload, start, restart, stop), LIMIT
#                                         is the gate's, in seconds, URL is asked through the node's own port
#   units PROXY KEEPALIVED LIMIT URL      the same for the units alone, where no file changes; there is also retire, which
#                                         stops a unit for good, and recall, which undoes that
#   recover LIMIT URL                     take an unfinished change back; one that was complete is ended
#   discard TOKEN                         forget what is staged
#
# stdin of stage: "meta NAME VALUE", "bind ADDRESS PORT", "absent KIND PATH" for a file that is not to be there, and per
# file "file KIND MODE UID:GID LINES PATH" with that many lines of content behind it.
# Prints "step NAME" as it goes; ends with "exlb-apply: done" or "exlb-apply: failed STEP", after which nothing is half
# done, or with neither: then recover has work to do.
# Sent after session.sh, units.sh, generations.sh and the functions of one proxy, which set:
# shellcheck disable=SC2154 # run, state, generations, staging, leaving, proxy_unit, proxy_path

# Whoever started this may be gone: the change is ended all the same, and nobody listening is no failure.
trap '' HUP INT PIPE

kept=10
apiservers=kube-master
keepalived_path=/etc/keepalived/keepalived.conf
mounts=/proc/self/mountinfo
processes=/proc
kernel=/proc/sys
step=start

# run_step STEP COMMAND...: name the step, then do it.
run_step() {
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

# no_room: what keeps generations from being written.
no_room() {
	if [ -w "$state" ]; then echo "is $state full?"; else echo "$state cannot be written: is its file system mounted read-only?"; fi
}

# each DIRECTORY FUNCTION: call it with K KIND MODE OWNER SHA256 PATH for every file of a manifest; stop at a failure.
each() {
	while read -r key kind mode owner sum path; do
		"$2" "$key" "$kind" "$mode" "$owner" "$sum" "$path" </dev/null || return 1
	done <"$1/manifest"
}

# forget DIRECTORY: a generation, or what is staged, with the attachments that no other generation names.
forget() {
	sed -n 's/^[^ ]* attachment [^ ]* [^ ]* [^ ]* //p' "$1/manifest" 2>/dev/null | while read -r attachment; do
		for each_kept in "$generations"/[0-9]*; do
			if [ "$each_kept" != "$1" ] && grep -q -s " $attachment\$" "$each_kept/manifest"; then continue 2; fi
		done
		rm -f "$attachment"
	done
	rm -rf "${1:?}"
}

# Staging: nothing in here is active. A redirection of `:` that fails would end the shell: hence touch.

empty_staging() {
	forget "$staging" && mkdir -p "$generations" "$staging/files" && chmod 0700 "$state" "$generations" "$staging" &&
		touch "$staging/manifest" "$staging/meta" "$staging/binds"
}

receive() {
	empty_staging || return
	count=0
	while read -r what rest; do
		case $what in
		meta) printf '%s=%s\n' "${rest%% *}" "${rest#* }" >>"$staging/meta" ;;
		bind) printf '%s\n' "$rest" >>"$staging/binds" ;;
		absent)
			count=$((count + 1))
			printf '%s %s absent - - %s\n' "$count" "${rest%% *}" "${rest#* }" >>"$staging/manifest"
			;;
		file)
			count=$((count + 1))
			# shellcheck disable=SC2086 # five words, and no sign that the shell would expand
			receive_file "$count" $rest || return
			;;
		*) return 1 ;;
		esac || return
	done
	[ "$count" -gt 0 ]
}

# receive_file K KIND MODE UID:GID LINES PATH
receive_file() {
	[ $# -eq 6 ] || return
	lines=$5
	while [ "$lines" -gt 0 ]; do
		IFS= read -r line && printf '%s\n' "$line" || return
		lines=$((lines - 1))
	done >"$staging/files/$1" || return
	sum=$(sha256sum <"$staging/files/$1") || return
	printf '%s %s %s %s %s %s\n' "$1" "$2" "$3" "$4" "${sum%% *}" "$6" >>"$staging/manifest"
}

# copy_generation NUMBER: its meta is that of who takes the node back to it.
copy_generation() {
	if ! is_kept "$1" || [ ! -e "$generations/$1/manifest" ]; then echo "generation $1 is not kept here" && return 1; fi
	empty_staging && cp -R "$generations/$1/." "$staging/" &&
		sed -n '/^\(who\|from\|what\)=/p' "$run/holder" >"$staging/meta"
}

# A rename can take the place of a regular file only: through a link it would replace the link, on a mount it fails.
check_target() {
	folder=${6%/*}
	if [ ! -d "$folder" ]; then
		if [ "$3" = absent ]; then return; fi
		if is_for_drop_ins "$folder"; then folder=${folder%/*}; fi
	fi
	if [ -L "$6" ]; then echo "$6 is a symbolic link to $(readlink "$6"): exlb replaces regular files only" && return 1; fi
	if [ -e "$6" ] && [ ! -f "$6" ]; then echo "$6 is not a regular file" && return 1; fi
	if [ ! -d "$folder" ]; then echo "$folder is not there: is the package installed?" && return 1; fi
	if awk -v path="$6" '$5 == path { found = 1 } END { exit !found }' "$mounts"; then
		echo "$6 is a mount of its own: it cannot be replaced by a rename" && return 1
	fi
	if [ ! -w "$folder" ]; then echo "$folder cannot be written: is its file system mounted read-only?" && return 1; fi
}

# What another file names (a script, certificates) has to be in place before that is validated. Its path carries the hash
# of its content, so that the one in use is never another's.
write_attachment() {
	[ "$2" = attachment ] && [ "$3" != absent ] || return 0
	case $6 in
	*"$(printf '%.12s' "$5")"*) ;;
	*) echo "$6 does not carry the hash of its content" && return 1 ;;
	esac
	rm -f "${6%/*}"/*.exlb-new # of a session that was killed here
	[ "$(describe "$6")" = "$3 $4 $5" ] || put_file "$staging/files/$1" "$3" "$4" "$6"
}

validate_keepalived() {
	if unit_words keepalived | awk -v own="$keepalived_path" '
		after { print; after = 0 } $0 == "-f" { after = 1 } sub(/^--use-file=/, "") { print }' |
		grep -v -x -F "$keepalived_path"; then
		echo "that, and not $keepalived_path, is what keepalived.service reads" && return 1
	fi
	if [ -e "$staging/unvalidated" ]; then return 0; fi
	words=$(keepalived -t -f "$1" 2>&1)
	said_status=$?
	printf '%s\n' "$words"
	case $said_status in
	0) [ -e "$staging/units" ] || ! ends_with_0 || [ -z "$(complaints "$words")" ] ;;
	# Script security alone: what was found may have run without it, and must not be refused for it.
	6) [ -e "$staging/units" ] ;;
	*) return 1 ;;
	esac
}

# keepalived 2.1 ends with 0 whatever it has found: docs/keepalived-versions.md.
ends_with_0() { keepalived --version 2>&1 | grep -q '^Keepalived v2\.1\.'; }

# complaints WORDS: but for what 2.1 says of every IPv6 VIP in multicast, and takes all the same.
complaints() { printf '%s\n' "$1" | grep -v -e '^$' -e 'the first IPv6 VIP address must be link local$' || :; }

# keepalived -t takes a file without any instance for a good one, and a unit does not start on it.
check_instance() {
	grep -q '^[[:blank:]]*vrrp_instance' "$1" || { echo 'the rendered file has no vrrp_instance' && return 1; }
}

validate() {
	if [ "$3" = absent ] || [ -e "$staging/idle-$2" ]; then return 0; fi
	case $2 in
	proxy) said=$(proxy_validate "$staging/files/$1" 2>&1) ;;
	keepalived) said=$({ [ -e "$staging/units" ] || check_instance "$staging/files/$1"; } &&
		validate_keepalived "$staging/files/$1" 2>&1) ;;
	attachment | drop-in | sysctl | guard) ;;
	*) said="unknown kind of file $2" && false ;;
	esac || {
		printf '%s\n' "$said" | sed "s#$staging/files/$1#$6#g"
		return 1
	}
}

# validate_all: the node's own verdict on what is staged; a mark says that it was good.
validate_all() {
	rm -f "$staging/valid"
	each "$staging" write_attachment && each "$staging" validate && touch "$staging/valid"
}

# Activating

# overlaps OURS THEIRS: no two can listen on the same port of these addresses. What ss shows as [::] takes no IPv4
# connections; that which does is "*".
overlaps() {
	theirs=$2
	if [ "$theirs" = '*' ]; then return 0; fi
	theirs=${theirs#\[}
	theirs=${theirs%%[]%]*}
	case $1,$theirs in
	*:*,*:*) ;;
	*:*) return 1 ;;
	esac
	[ "$1" = "$theirs" ] || [ "$1" = 0.0.0.0 ] || [ "$1" = :: ] || [ "$theirs" = 0.0.0.0 ] || [ "$theirs" = :: ]
}

# check_port ADDRESS PORT: nobody but our proxy listens there. A reload onto a port that somebody has looks like one that
# went well, and refuses all clients until the proxy has given up.
check_port() {
	ss -Hltnp "sport = :$2" | while read -r _ _ _ where _ who; do
		overlaps "$1" "${where%:*}" || continue
		name=$(printf '%s\n' "$who" | sed -n 's/^[^"]*"\([^"]*\)",pid=\([0-9]*\).*/\2 \1/p')
		pid=${name%% *}
		name=${name#* }
		if grep -q -s "/$proxy_unit\.service" "$processes/${pid:-none}/cgroup"; then continue; fi
		echo "port $2 is taken by ${name:-another process}${pid:+ (process $pid)}" && return 1
	done
}

check_ports() {
	while read -r address port; do check_port "$address" "$port" </dev/null || return; done <"$staging/binds"
}

# capture: an attachment is ours alone, by its name.
capture() {
	[ "$2" != attachment ] || return 0
	described=$(describe "$6") || return
	if [ "${described%% *}" != absent ]; then cat "$6" >"$found_in/files/$1" || return; fi
	printf '%s %s %s %s\n' "$1" "$2" "$described" "$6" >>"$found_in/manifest"
}

# name_places: a path that no generation has named until now holds what it held in the time of each. All of them name it
# from now on, so that going back to any takes away what was not there.
name_places() {
	for known in "$generations"/[0-9]*; do
		if ! is_kept "${known##*/}" || [ ! -e "$known/manifest" ]; then continue; fi
		awk 'FILENAME == ARGV[1] { named[$6] = 1; next } $2 != "attachment" && !($6 in named)' \
			"$known/manifest" "$staging/manifest" >"$run/unnamed" || return
		if [ -s "$run/unnamed" ]; then name_unnamed || return; fi
	done
}

# name_unnamed: those in the generation $known. Its manifest is renamed into place when their bytes are there.
name_unnamed() {
	cp "$known/manifest" "$known/manifest.new" || return
	place=$(awk '$1 > last { last = $1 } END { print last }' "$known/manifest")
	while read -r _ kind _ _ _ path; do
		place=$((place + 1))
		described=$(describe "$path") || return
		if [ -e "$path" ]; then cat "$path" >"$known/files/$place" && sync "$known/files/$place" || return; fi
		printf '%s %s %s %s\n' "$place" "$kind" "$described" "$path" >>"$known/manifest.new" || return
	done <"$run/unnamed"
	sync "$known/manifest.new" && mv -f "$known/manifest.new" "$known/manifest" && sync "$known"
}

# snapshot FOUND: nothing that a change takes away is lost.
snapshot() {
	keep_found "$1" || return
	name_places || { echo "the active files cannot be kept: $(no_room)" && return 1; }
}

# keep_found NUMBER: what is active and is no generation of exlb becomes one, so that nobody's bytes are ever lost.
keep_found() {
	now=$(generation)
	if [ -n "$now" ] && is_active "$generations/$now"; then
		touch "$generations/$now/was-active"
		return
	fi
	if is_kept "$1"; then
		echo "the active files have changed since exlb looked, and $1 is kept already: push again" && return 1
	fi
	if ! keep_active "$1" "$staging" || ! point_to "$1"; then
		echo "the active files cannot be kept: $(no_room)" && return 1
	fi
}

# keep_active NUMBER DIRECTORY: the active files of a directory's manifest, with its meta, as a generation.
keep_active() {
	found_in=$generations/.found
	rm -rf "$found_in" && mkdir -p "$found_in/files" && touch "$found_in/manifest" && each "$2" capture || return
	sed '/^what=/d' "$2/meta" >"$found_in/meta" && echo 'what=found on the node' >>"$found_in/meta" || return
	for name in "$proxy_unit" keepalived; do
		echo "$name $(systemctl is-enabled "$name.service" 2>/dev/null) $(systemctl is-active "$name.service")"
	done >"$found_in/units" || return
	seal "$found_in" "$1"
}

# seal DIRECTORY NUMBER: all of it is on the disk before it has its name.
seal() {
	from=$1
	to=$generations/$2
	set -- "$from"/files/*
	[ -e "$1" ] || set --
	sync "$from" "$from"/* "$@" && rm -rf "${to:?}" && mv -T "$from" "$to" && sync "$generations"
}

# point_to NUMBER: by the rename of a link, so that there is always one.
point_to() {
	if [ "$(generation)" != "$1" ]; then
		ln -sfn "generations/$1" "$state/current.new" && mv -fT "$state/current.new" "$state/current" && sync "$state" || return
	fi
	touch "$generations/$1/was-active" && sync "$generations/$1"
}

record() {
	if is_kept "$1"; then
		if [ "$(cat "$generations/$1/manifest")" != "$(cat "$staging/manifest")" ]; then
			echo "$1 is another generation, which this node keeps" && return 1
		fi
	else
		printf 'previous=%s\n' "$previous" >>"$staging/meta" && rm -f "$staging/valid" && seal "$staging" "$1" || return
	fi
	printf '%s %s %s\n' "$1" "$previous" "$2" >"$state/intent.new" && sync "$state/intent.new" &&
		mv -f "$state/intent.new" "$state/intent" && sync "$state"
}

# journal RESULT: a line about the change that the intent names.
journal() {
	source=$generations/$number/meta
	if [ -e "$staging/meta" ]; then source=$staging/meta; fi
	sed -n 's/^\(who\|from\|what\)=//p' "$source" 2>/dev/null | tr '\n' ' ' |
		{ read -r told; printf '%s %s -> %s %s: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$previous" "$number" "$told" "$1"; } \
			2>/dev/null >>"$state/journal"
}

# is_for_drop_ins FOLDER: exlb may make it, and takes it away when nothing is left in it.
is_for_drop_ins() {
	case $1 in *.service.d | *.network.d) ;; *) return 1 ;; esac
}

# make_folder PATH: with the mode that such folders have; a drop-in is no secret.
make_folder() {
	[ -d "${1%/*}" ] || { mkdir -m 0755 "${1%/*}" && sync_folder "${1%/*}"; }
}

# sync_folder PATH: what was done in the folder of a path is on the disk.
sync_folder() {
	set -- "${1%/*}"
	if is_for_drop_ins "$1"; then rmdir "$1" 2>/dev/null; fi
	if [ -d "$1" ]; then sync "$1"; else [ ! -d "${1%/*}" ] || sync "${1%/*}"; fi
}

# put_sibling SOURCE MODE UID:GID PATH. On the same file system the rename that follows gives the old file or the new
# one, never a part of it.
put_sibling() {
	make_folder "$4" && cp "$1" "$4.exlb-new" && chmod "$2" "$4.exlb-new" && chown "$3" "$4.exlb-new" &&
		{ ! command -v restorecon >/dev/null || restorecon "$4.exlb-new"; } && sync "$4.exlb-new" && return
	rm -f "$4.exlb-new"
	return 1
}

# put_file SOURCE MODE UID:GID PATH
put_file() {
	put_sibling "$@" && mv -f "$4.exlb-new" "$4" && sync_folder "$4"
}

# The old bytes stay beside the new ones under a second name, which costs no space: taking them back cannot fail for the
# want of it.
write_new() {
	[ "$2" != attachment ] || return 0
	rm -f "$6.exlb-old" "$6.exlb-new"
	# What is the same already is not touched: a file newer than its unit says that the unit runs an older one.
	if [ "$(describe "$6")" = "$3 $4 $5" ]; then return 0; fi
	if [ -e "$6" ]; then ln "$6" "$6.exlb-old" || return; fi
	[ "$3" = absent ] || put_sibling "$generations/$number/files/$1" "$3" "$4" "$6"
}

swap() {
	[ "$2" != attachment ] || return 0
	if [ -e "$6.exlb-new" ]; then mv -f "$6.exlb-new" "$6"; elif [ "$3" = absent ]; then rm -f "$6"; fi && sync_folder "$6"
}

drop_siblings() {
	rm -f "$6.exlb-new" "$6.exlb-old"
	if is_for_drop_ins "${6%/*}"; then rmdir "${6%/*}" 2>/dev/null; fi
	return 0
}

# put_back, for a file of the generation $target: its bytes, mode and owner, from beside it or from that generation.
put_back() {
	[ "$2" != attachment ] || return 0
	rm -f "$6.exlb-new"
	if [ "$(describe "$6")" = "$3 $4 $5" ]; then
		rm -f "$6.exlb-old"
	elif [ "$3" = absent ]; then
		rm -f "$6" "$6.exlb-old"
	elif [ "$(describe "$6.exlb-old")" = "$3 $4 $5" ]; then
		mv -f "$6.exlb-old" "$6"
	else
		put_file "$generations/$target/files/$1" "$3" "$4" "$6" && rm -f "$6.exlb-old"
	fi && sync_folder "$6"
}

# files_of KIND NUMBER: the files of a kind in a generation; of one that is gone nobody knows.
files_of() {
	sed -n "s/^[^ ]* $1 //p" "$generations/$2/manifest" 2>/dev/null | sort
}

# differs KIND ONE OTHER: two generations do not have the same files of a kind.
differs() {
	[ ! -e "$generations/$2/manifest" ] || [ "$(files_of "$1" "$2")" != "$(files_of "$1" "$3")" ]
}

# system FROM TO: systemd and the kernel take in what is another file in the second generation. Nothing restarts: a unit's
# new settings count from its next start, and networkd reads a guard when it next reads anything (docs/system.md).
system() {
	if differs drop-in "$1" "$2"; then systemctl daemon-reload 2>&1 || return; fi
	if differs sysctl "$1" "$2"; then each "$generations/$2" set_kernel; fi
}

# set_kernel, for a file of sysctl.d(5). What the proxy cannot bind without has to be; a queue for log lines that stays
# short costs log lines at worst, and a container may not have it to set. A setting that goes stays until the next boot:
# nobody knows who else counts on it by now.
set_kernel() {
	[ "$2" = sysctl ] && [ "$3" != absent ] || return 0
	while IFS=' =' read -r name value; do
		case $name in '' | '#'*) continue ;; esac
		complaint=$({ printf '%s\n' "$value" >"$kernel/$(printf '%s' "$name" | tr . /)"; } 2>&1) && continue
		case $name in
		net.unix.*) echo "warning: $name = $value: ${complaint##*: }" ;;
		*) echo "$name = $value: ${complaint##*: }" && return 1 ;;
		esac
	done <"$6"
}

# change_unit UNIT ACTION
change_unit() {
	case $2 in
	none) return 0 ;;
	start | restart | reload) systemctl reset-failed "$1.service" 2>/dev/null ;;
	stop) ;;
	retire) systemctl disable -q "$1.service" 2>&1 && set -- "$1" stop || return ;;
	recall) systemctl enable -q "$1.service" 2>&1 && set -- "$1" start || return ;;
	*) echo "unknown action $2" && return 1 ;;
	esac
	systemctl "$2" "$1.service" 2>&1 && return
	unit_said "$1"
	return 1
}

# remember: what is known of the servers, for the reload that follows.
remember() {
	if [ -e "$proxy_path.exlb-old" ] && [ -e "$proxy_path.exlb-new" ]; then
		proxy_remember "$proxy_path.exlb-old" "$proxy_path.exlb-new"
	fi
	return 0
}

uptime_seconds() {
	cut -d . -f 1 /proc/uptime
}

# missing BEFORE NOW: the servers that were up, are still configured, and are not up now, although they answer this node.
# One that does not is down by itself, which is worth a warning.
missing() {
	proxy_servers >"$run/servers" || return 0
	for server in $1; do
		case " $2 " in *" $server "*) continue ;; esac
		address=$(sed -n "s#^$server ##p" "$run/servers" | head -n 1)
		[ -n "$address" ] || continue
		code=$(curl -q --noproxy '*' -ks -o /dev/null --connect-timeout 2 --max-time 4 -w '%{http_code}' "https://$address/readyz")
		case $code in
		[234]*) echo "$server was up before, and is not now, although $address answers with status $code" ;;
		*) echo "warning: $server is down: $address does not answer this node well (status ${code:-000})" >&3 ;;
		esac
	done
}

# gate_proxy BEFORE LIMIT URL. An active unit, an open port and systemctl's exit status prove nothing: the proxy says
# itself what it runs, and until the first check of a server has ended, its state is a guess.
gate_proxy() {
	wanted=$(sed -n 's/^ *description exlb-\([0-9a-f]*\)$/\1/p' "$proxy_path" 2>/dev/null)
	until=$(($(uptime_seconds) + $2))
	while :; do
		complaint=$(judge_proxy "$1" "$3" 3>"$run/warnings") && break
		if [ "$(uptime_seconds)" -ge "$until" ]; then
			echo "after $2 s: $complaint"
			unit_said "$proxy_unit"
			return 1
		fi
		sleep 0.1
	done
	cat "$run/warnings"
	proxy_forget
}

# judge_proxy BEFORE URL: nothing and 0, or what is wrong.
judge_proxy() {
	# What is not exlb's says nothing of itself that we could ask for.
	if [ -z "$wanted" ]; then
		systemctl is-active -q "$proxy_unit.service" && [ -z "$(proxy_digest)" ] && return
		echo "$proxy_unit does not run the configuration that was there" && return 1
	fi
	running=$(proxy_digest)
	if [ "$running" != "$wanted" ]; then
		echo "$proxy_unit runs ${running:-no configuration of exlb}, it should run $wanted" && return 1
	fi
	if ! proxy_settled; then echo "some servers have not been checked yet" && return 1; fi
	now=$(proxy_up | tr '\n' ' ')
	absent=$(missing "$1" "${now% }")
	if [ -n "$absent" ]; then printf '%s\n' "$absent" && return 1; fi
	if [ -z "${now% }" ]; then
		if [ -n "$1" ]; then echo "no server is up, and before there were: $1" && return 1; fi
		return 0
	fi
	# Only an apiserver answers that URL, and another listener may be up before there is any.
	case " $now" in *" $apiservers/"*) ;; *) if proxy_servers | grep -q "^$apiservers/"; then return 0; fi ;; esac
	code=$(curl -q --noproxy '*' -ks -o /dev/null --connect-timeout 2 --max-time 4 -w '%{http_code}' "$2")
	case $code in 000 | '') echo "$2 is not answered" && return 1 ;; esac
}

# keepalived takes a reload on after the signal, and can die of it: one look right behind it would be too early.
gate_keepalived() {
	looks=0
	while [ "$looks" -lt 5 ]; do
		if ! systemctl is-active -q keepalived.service; then
			echo 'keepalived does not run' && unit_said keepalived && return 1
		fi
		looks=$((looks + 1))
		sleep 0.2
	done
}

# do_units PROXY KEEPALIVED LIMIT URL BEFORE: each unit, and its gate; `tried` says how far it came.
do_units() {
	tried="$1 none"
	run_step "$1-proxy" change_unit "$proxy_unit" "$1" || return
	case $1 in none | stop) ;; *) run_step gate-proxy gate_proxy "$5" "$3" "$4" || return ;; esac
	tried="$1 $2"
	run_step "$2-keepalived" change_unit keepalived "$2" || return
	case $2 in none | stop | retire) ;; *) run_step gate-keepalived gate_keepalived || return ;; esac
}

# back UNIT ACTION PATH: on the old bytes again, whatever was tried; what did not run before does not run now.
back() {
	if [ "$2" = none ]; then return 0; fi
	if [ "$2" = start ] || [ ! -e "$3" ]; then
		systemctl stop "$1.service" 2>&1
		return
	fi
	if [ "$2" = reload ] && change_unit "$1" reload; then return 0; fi
	change_unit "$1" restart
}

# undo PROXY KEEPALIVED LIMIT URL BEFORE: the old bytes back, the units on them again.
undo() {
	failed=$step
	target=$previous
	echo 'step restore'
	if ! each "$generations/$target" put_back || ! point_to "$target"; then
		echo 'the old files cannot be put back; exlb recover tries again'
		journal "failed $failed, not restored"
		exit 1
	fi
	system "$number" "$target" || echo 'the old settings of the system are not taken in'
	back "$proxy_unit" "$1" "$proxy_path" || echo "$proxy_unit does not take the old configuration back"
	case $1 in none | start) ;; *) if [ -e "$proxy_path" ]; then
		gate_proxy "$5" "$3" "$4" || echo "$proxy_unit does not serve as before"
	fi ;; esac
	back keepalived "$2" "$keepalived_path" || echo 'keepalived does not take the old configuration back'
	end_change "failed $failed, restored"
	step=$failed
	fail
}

# give_up: nothing active was touched yet.
give_up() {
	end_change "failed $step"
	fail "$@"
}

# end_change RESULT: nothing stays beside the active files, and a generation that never was active is none.
end_change() {
	journal "$1"
	if [ -e "$generations/$number/manifest" ]; then each "$generations/$number" drop_siblings; fi
	is_kept "$number" || forget "$generations/$number"
	forget "$staging"
	rm -f "$state/intent" "$state/intent.new" && sync "$state"
}

# commit: the change is complete from the rename of `current` on; what is left to do then, recover does too.
commit() {
	point_to "$number" || return
	enable_as_found "$number"
	end_change 'done'
	prune
}

# enable_as_found NUMBER: units at boot as they were before exlb, in a generation that it did not write.
enable_as_found() {
	[ -e "$generations/$1/units" ] || return
	while read -r name enabled _; do
		case $enabled in
		enabled) systemctl enable -q "$name.service" </dev/null ;;
		disabled) systemctl disable -q "$name.service" </dev/null ;;
		esac
	done <"$generations/$1/units"
}

# prune: keep the newest few, the active one, and for ever what was there before exlb. What was never active goes.
prune() {
	now=$(generation)
	for each_kept in "$generations"/[0-9]*; do
		if is_kept "${each_kept##*/}"; then echo "${each_kept##*/}"; else forget "$each_kept"; fi
	done | sort -rn | tail -n "+$((kept + 1))" | while read -r old; do
		case $old in 0000 | "$now") continue ;; esac
		rm -f "$generations/$old/was-active" && forget "$generations/$old" && echo "$old"
	done | cat "$state/pruned" - 2>/dev/null | sort -rn | head -n 1 >"$state/pruned.new"
	if [ -s "$state/pruned.new" ]; then mv -f "$state/pruned.new" "$state/pruned"; else rm -f "$state/pruned.new"; fi
}

# Actions

require_session() {
	owns "$1" || fail 'this session has lost its lock on the node'
	if is_changing; then fail 'another change runs on the node'; fi
	if [ -e "$leaving" ]; then fail 'exlb was being removed from this node: exlb uninstall (or decommission) has to end that first'; fi
}

# allow WORD...: what need not be validated: "unvalidated", or "idle-KIND" of a file that no unit is to run on.
allow() {
	rm -f "$staging/unvalidated" "$staging"/idle-*
	for word; do touch "$staging/$word" || fail; done
}

# stage: what arrives late, after a partition that has cost the session its lock, must not get among what another one has
# staged meanwhile. So all of it is here before any of it is staged.
stage() {
	require_session "$1"
	arrived=$run/arrived.$1
	trap 'rm -f "$arrived"' EXIT
	rm -f "$run"/arrived.* # of a session that was killed here
	cat >"$arrived" || fail "the files did not arrive whole: is $run full?"
	require_session "$1"
	run_step receive receive <"$arrived" || fail "the files did not arrive whole: $(no_room)"
	shift
	allow "$@"
	run_step target each "$staging" check_target || fail
	run_step validate validate_all || fail
	finish
}

prepare() {
	require_session "$1"
	run_step receive copy_generation "$2" || fail
	shift 2
	allow "$@"
	run_step target each "$staging" check_target || fail
	run_step validate validate_all || fail
	finish
}

activate() {
	number=$1
	if [ -e "$state/intent" ]; then fail 'an earlier change has not ended: exlb recover'; fi
	[ -e "$staging/valid" ] || fail 'nothing is staged and validated'
	run_step target each "$staging" check_target || fail
	run_step validate validate_all || fail
	run_step ports check_ports || fail
	run_step snapshot snapshot "$2" || fail
	previous=$(generation)
	run_step record record "$number" "$4" || give_up "the new generation cannot be kept: $(no_room)"
	run_step write each "$generations/$number" write_new || give_up 'the new files cannot be written'
	before=$(proxy_up | tr '\n' ' ')
	before=${before% }
	tried='none none'
	run_step remember remember
	# Between here and the rename lies nothing that takes time.
	run_step compare is_active "$generations/$previous" || {
		proxy_forget
		give_up 'the active files have changed since exlb kept them: push again'
	}
	# shellcheck disable=SC2086 # two words
	{
		run_step swap each "$generations/$number" swap &&
			run_step system system "$previous" "$number" &&
			do_units "$3" "$4" "$5" "$6" "$before" &&
			run_step commit commit
	} || undo $tried "$5" "$6" "$before"
	finish
}

change_units() {
	before=$(proxy_up | tr '\n' ' ')
	do_units "$1" "$2" "$3" "$4" "${before% }" || fail
	finish
}

# as_before UNIT PATH GATE...: a unit whose file may have changed under it runs on what is there now. One that has no
# file, or did not run before exlb came, does not.
as_before() {
	found=$generations/$target/units
	if [ ! -e "$2" ] || { [ -e "$found" ] && ! grep -q "^$1 .* active$" "$found"; }; then
		systemctl stop "$1.service" 2>&1
		return 0
	fi
	if systemctl is-active -q "$1.service"; then back "$1" reload "$2"; else change_unit "$1" start; fi || return
	shift 2
	"$@"
}

# is_known: what is there is of the new generation or of the one before; else somebody has edited it since.
is_known() {
	grep -q -s -F " $(describe "$6") $6" "$generations/$number/manifest" "$generations/$previous/manifest"
}

# keep_edited: under a number above all others, since nobody could look before.
keep_edited() {
	edited=$(for each_kept in "$generations"/[0-9]*; do echo "${each_kept##*/}"; done |
		awk '{ last = $0 } END { printf "%04d", last + 1 }')
	keep_active "$edited" "$generations/$target" && touch "$generations/$edited/was-active"
}

recover() {
	[ -e "$state/intent" ] || finish
	read -r number previous wanted <"$state/intent"
	target=$previous
	other=$number
	result='interrupted, taken back'
	if [ "$(generation)" = "$number" ]; then
		target=$number
		other=$previous
		result='interrupted, ended'
	fi
	if ! each "$generations/$target" is_known; then
		run_step snapshot keep_edited || fail "the active files cannot be kept: $(no_room)"
		result="$result, edited since: kept as $edited"
	fi
	run_step restore each "$generations/$target" put_back || fail 'the files cannot be put back'
	point_to "$target" || fail 'the files are back, and the node cannot keep which generation they are'
	# Whatever its units say, the node stands on one complete generation: a push can mend the rest.
	failed=
	run_step system system "$other" "$target" || failed=$step
	run_step proxy as_before "$proxy_unit" "$proxy_path" gate_proxy '' "$1" "$2" || failed=$step
	if [ "$target" = "$previous" ] && [ "$wanted" = start ]; then
		# It stood still, perhaps because the others run what it would not hear: the next push starts it.
		run_step keepalived change_unit keepalived stop || failed=$step
	else
		run_step keepalived as_before keepalived "$keepalived_path" gate_keepalived || failed=$step
	fi
	if [ "$target" = "$number" ]; then enable_as_found "$number"; fi
	end_change "$result"
	step=${failed:-$step}
	[ -z "$failed" ] || fail "the files are those of generation $target, but its unit does not run well"
	finish
}

action=${1-}
[ $# -eq 0 ] || shift
case $action in
stage) stage "$@" ;;
prepare) prepare "$@" ;;
activate) activate "$@" ;;
units) change_units "$@" ;;
recover) recover "$@" ;;
discard) require_session "$1" && forget "$staging" && finish ;;
*) fail "unknown action $action" ;;
esac
