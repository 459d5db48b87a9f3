#!/bin/sh
# Answers questions about this node, one per line of stdin, and leaves nothing changed: keepalived writes itself down for it,
# in files that go away again.
#
# For each: "@ QUESTION", its answer with "| " before every line, "= STATUS". At the end: "exlb-probe-end".
# Sent after session.sh, units.sh, generations.sh, keepalived.sh and the functions of one proxy (haproxy.sh).
# shellcheck disable=SC2154 # which set run, state, generations and running

guards=/etc/systemd/network
network_folders='/etc/systemd/network /run/systemd/network /usr/local/lib/systemd/network /usr/lib/systemd/network'
settings=/proc/sys

system() {
	cat /etc/os-release
	printf 'HOST=%s\n' "$(uname -n)"
	printf 'KERNEL=%s\n' "$(uname -r)"
	printf 'CONTAINER=%s\n' "$(systemd-detect-virt -c 2>/dev/null)"
	printf 'USER_ID=%s\n' "$(id -u)"
	printf 'EPOCH=%s\n' "$(date +%s)"
	managers=
	for manager in apt-get dnf yum; do
		if command -v "$manager" >/dev/null; then managers="$managers $manager"; fi
	done
	printf 'MANAGERS=%s\n' "${managers# }"
}

# packages NAME...: "NAME VERSION" for each that is installed, by the database that this distribution lives by.
packages() {
	# shellcheck source=/dev/null
	case " $(. /etc/os-release && echo "$ID ${ID_LIKE-}") " in
	*' debian '* | *' ubuntu '*)
		dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' "$@" 2>/dev/null | sed -n 's/^installed //p'
		;;
	*)
		for name in "$@"; do
			if rpm -q --quiet "$name"; then rpm -q --qf '%{NAME} %{VERSION}-%{RELEASE}\n' "$name"; fi
		done
		;;
	esac
}

# programs NAME...: those that are there.
programs() {
	for name in "$@"; do
		if command -v "$name" >/dev/null; then echo "$name"; fi
	done
}

# unit NAME: its properties; where it does not run, also what its processes said last.
unit() {
	systemctl show -p LoadState -p ActiveState -p SubState -p UnitFileState "$1.service"
	# In UTC: date cannot know which CST a time is in.
	changed=$(TZ=UTC systemctl show -p StateChangeTimestamp "$1.service")
	if [ -n "${changed#*=}" ]; then printf 'Changed=%s\n' "$(date -d "${changed#*=}" +%s)"; fi
	if ! systemctl is-active -q "$1.service"; then
		unit_said "$1" | sed 's/^/Journal=/'
	fi
}

# strays PROCESS UNIT: "PID COMMAND LINE" of the processes of a name that a unit does not have, and that serve: one that
# checks a file or tells its version is gone before anybody counts on it.
strays() {
	for process in "$running"/[0-9]*; do
		{ read -r name <"$process/comm"; } 2>/dev/null || continue
		[ "$name" = "$1" ] || continue
		if grep -q -s "/$2\.service" "$process/cgroup"; then continue; fi
		command=$({ tr '\000' ' ' <"$process/cmdline"; } 2>/dev/null)
		case " $command" in ' ' | *' -c '* | *' -v '* | *' -vv '*) continue ;; esac
		printf '%s %s\n' "${process##*/}" "${command% }"
	done
	return 0
}

# unit_files NAME: the limit that every unit gets, and the files that systemd reads of a unit, each after its path. Not by
# `systemctl cat`, which ends at the first that somebody has taken away.
unit_files() {
	systemctl show -p DefaultLimitNOFILE
	parts=$(systemctl show -p FragmentPath -p DropInPaths "$1.service" | sed 's/^[^=]*=//')
	[ -n "$parts" ] || return
	for part in $parts; do
		if [ -f "$part" ]; then printf '# %s\n' "$part" && cat "$part" && echo; fi
	done
}

# network: what manages each interface that has an address for others: "networkd INTERFACE FILE KEEPS" (its .network file,
# and what KeepConfiguration= says of it without us), "NetworkManager INTERFACE"; and "file PATH FACT" of our guards,
# those that are there and those that could be.
network() {
	interfaces=$(ip -o addr show scope global | awk '{ print $2 }' | sort -u)
	networks=$(if systemctl is-active -q systemd-networkd.service; then
		for interface in $interfaces; do
			named=$(networkctl status -n 0 --no-pager "$interface" 2>/dev/null | sed -n 's/^ *Network File: //p')
			if [ -f "$named" ]; then echo "networkd $interface $named $(keeps "$named")"; fi
		done
	fi)
	if [ -n "$networks" ]; then printf '%s\n' "$networks"; fi
	if command -v nmcli >/dev/null && systemctl is-active -q NetworkManager.service; then
		nmcli -t -f DEVICE,STATE device | sed -n 's/^\([^:]*\):connected$/NetworkManager \1/p'
	fi
	{
		printf '%s\n' "$networks" | sed -n "s#^networkd [^ ]* .*/\([^ ]*\) .*#$guards/\1.d/exlb.conf#p"
		for guard in "$guards"/*.network.d/exlb.conf; do if [ -e "$guard" ]; then echo "$guard"; fi; done
	} | sort -u | while read -r guard; do echo "file $guard $(file "$guard")"; done
}

# keeps FILE: the KeepConfiguration= of a .network file. Of drop-ins the last one by name counts, wherever it is, and one
# in /etc hides those of its name elsewhere.
keeps() {
	{
		for folder in $network_folders; do
			for part in "$folder/${1##*/}.d"/*.conf; do
				if [ -f "$part" ] && [ "${part##*/}" != exlb.conf ]; then echo "${part##*/} $part"; fi
			done
		done | sort -s -u -k 1,1 | sed 's/^[^ ]* //'
	} | { printf '%s\n' "$1"; cat; } | while read -r part; do
		sed -n 's/^KeepConfiguration=[[:blank:]]*\([[:alnum:]-]*\).*/\1/p' "$part"
	done | tail -n 1
}

# kernel NAME: a setting of the kernel, as sysctl names it.
kernel() {
	cat "$settings/$(printf '%s' "$1" | tr . /)"
}

# file PATH: "absent", or "MODE OWNER:GROUP SHA256 CHANGED KIND".
file() {
	if [ ! -e "$1" ] && [ ! -L "$1" ]; then
		echo absent
	elif [ -f "$1" ] && [ ! -L "$1" ]; then
		sum=$(sha256sum <"$1") || return
		printf '%s %s %s regular file\n' "$(stat -c '%a %u:%g' "$1")" "${sum%% *}" "$(stat -c %.Z "$1")"
	else
		printf '%s - - %s\n' "$(stat -c '%a %u:%g' "$1")" "$(stat -c %F "$1")"
	fi
}

# active_generation: what is active, whether that is what the generation says, and what has not ended.
active_generation() {
	now=$(generation)
	if [ -n "$now" ]; then
		echo "number $now"
		if is_active "$generations/$now"; then echo 'edited no'; else echo 'edited yes'; fi
	fi
	for kept in "$generations"/[0-9]*; do if is_kept "${kept##*/}"; then echo "kept ${kept##*/}"; fi; done
	if [ -e "$state/pruned" ]; then echo "pruned $(cat "$state/pruned")"; fi
	if [ -e "$state/intent" ]; then echo "intent $(cat "$state/intent")"; fi
	if is_changing; then echo "changing $(systemctl show -p MainPID "$unit.service")"; fi
}

# history: every generation with its meta and its manifest, and then the journal.
history() {
	for kept in "$generations"/[0-9]*; do
		is_kept "${kept##*/}" || continue
		echo "generation ${kept##*/}"
		sed 's/^/meta /' "$kept/meta"
		sed 's/^/file /' "$kept/manifest"
	done
	tail -n 100 "$state/journal" 2>/dev/null | sed 's/^/journal /'
}

# prefixed WORD COMMAND...: the rules that a command lists, the word before each line. Without them nobody knows.
prefixed() {
	word=$1
	shift
	if listing=$("$@" 2>/dev/null); then
		printf '%s\n' "$listing" | sed "s/^/$word /"
	else
		echo "unread \`$*\` says nothing"
	fi
}

# firewall: every ruleset with rules for what comes in or goes out, as the kernel has it, the word for its source before
# each line; and what exlb has opened. nft does not know all that iptables has written, and nothing of iptables-legacy.
firewall() {
	if command -v nft >/dev/null; then
		nft list chains 2>/dev/null | awk '$1 == "table" { table = $2 " " $3 } /hook (prerouting|input|output) / { print table }' | sort -u |
			while read -r family name; do
				prefixed nft nft -j list table "$family" "$name" </dev/null
			done
	elif systemctl is-active -q firewalld.service; then
		# It has the library of nft in Python, if not nft.
		python3 -c 'from nftables import Nftables
nft = Nftables()
nft.set_json_output(True)
print("nft", nft.cmd("list ruleset")[1])' 2>/dev/null || echo 'unread firewalld runs, and there is no nft to read its rules with'
	fi
	for kind in ip ip6; do
		if command -v "${kind}tables-nft-save" >/dev/null; then
			"${kind}tables-nft-save" -t filter 2>/dev/null | sed "s/^/${kind}tables /"
		fi
		grep -q -s -x filter "/proc/net/${kind}_tables_names" || continue
		save=${kind}tables-legacy-save
		command -v "$save" >/dev/null || save=${kind}tables-save
		prefixed "${kind}tables-legacy" "$save" -t filter
	done
	sed 's/^/opened /' "$state/firewall" 2>/dev/null
	return 0
}

# selinux: whether it forbids anything, and the boolean and the ports that matter for the proxy.
selinux() {
	sed 's/^/kept /' "$state/selinux" 2>/dev/null
	if ! command -v getenforce >/dev/null || [ "$(getenforce)" != Enforcing ]; then return 0; fi
	echo 'mode Enforcing'
	boolean=$(getsebool "$1" 2>/dev/null) && echo "boolean $boolean"
	case $boolean in *' on') return 0 ;; esac
	if command -v semanage >/dev/null; then semanage port -l | sed -n 's/^\([a-z0-9_]*\) *tcp */port \1 /p'; else echo 'lacks semanage'; fi
}

# lock: who holds this node, "free" if nobody does.
lock() {
	if is_locked; then cat "$run/holder" 2>/dev/null; else echo free; fi
}

# request URL: "HTTP-STATUS CONNECTIONS-MADE" or what curl complains of, and "body" with the beginning of what came, in one
# line; no proxy, and nothing else that this node sets for its curl, is in between. Of tcp://HOST:PORT only whether
# somebody takes the connection.
request() {
	case $1 in
	tcp://*) timeout 4 socat -u /dev/null "TCP:${1#tcp://},connect-timeout=2" ;;
	*)
		curl -q --noproxy '*' -gksS -o /dev/fd/3 --connect-timeout 2 --max-time 4 -w '%{http_code} %{num_connects}\n' "$1" \
			3>&1 >&2 | {
			begins=$(head -c 256 | tr -c '[:print:]' ' ')
			cat >/dev/null # else curl complains that nobody reads on
			printf 'body %s\n' "$begins"
		}
		;;
	esac
}

# certificate HOST:PORT: the one that a TLS server shows.
certificate() {
	command -v openssl >/dev/null || return 127
	timeout 2 openssl s_client -connect "$1" </dev/null 2>/dev/null | sed -n '/-----BEGIN CERT/,/-----END CERT/p'
}

# space PATH...: "PATH WRITABLE BLOCK-SIZE BLOCKS FREE INODES FREE MOUNT" of the file system that has a path, or would.
space() {
	for path in "$@"; do
		found=$path
		while [ ! -e "$found" ]; do found=${found%/*} && found=${found:-/}; done
		writable=no
		if [ -w "$found" ]; then writable=yes; fi
		sizes=$(stat -L -f -c '%S %b %a %c %d' "$found") || return
		echo "$path $writable $sizes $(stat -L -c %m "$found")"
	done
}

# interface_to ADDRESS INTERFACE: INTERFACE, or where it is "-" the one that has ADDRESS, or leads to it without a router
# between. To an address of its own a node is led by its loopback.
interface_to() {
	if [ "$2" != - ]; then
		echo "$2"
		return
	fi
	has=$(ip -o addr show to "$1" 2>/dev/null | sed -n '1s/^[0-9]*: *\([^ @]*\).*/\1/p')
	if [ -n "$has" ]; then
		echo "$has"
	else
		ip -o route get "$1" 2>/dev/null | sed -n '/ via /!s/.* dev \([^ ]*\).*/\1/p'
	fi
}

# arp_answers ADDRESS INTERFACE: the MACs that answer ARP for an IPv4 address that another host has, by an arping of either
# kind. Who has it himself does not ask: his question would tell everybody that it is here.
arp_answers() {
	command -v arping >/dev/null || return 127
	case $1 in *:*) return 0 ;; esac
	if [ -n "$(ip -o addr show to "$1" 2>/dev/null)" ]; then return 0; fi
	interface=$(interface_to "$1" "$2")
	if [ -z "$interface" ]; then return 0; fi
	arping -c 2 -w 2 -I "$interface" "$1" 2>/dev/null | grep -o -i -E '([0-9a-f]{2}:){5}[0-9a-f]{2}' | sort -u
	return 0
}

ask() {
	case $1 in
	system) system ;;
	packages) shift && packages "$@" ;;
	programs) shift && programs "$@" ;;
	unit) unit "$2" ;;
	unit-files) unit_files "$2" ;;
	strays) strays "$2" "$3" ;;
	network) network ;;
	kernel) kernel "$2" ;;
	proxy-version) proxy_version ;;
	keepalived-version) keepalived --version ;;
	keepalived-counters) keepalived_counters ;;
	keepalived-state) keepalived_state "${2-}" ;;
	keepalived-checks) keepalived_checks "$2" ;;
	keepalived-complaints) keepalived_complaints ;;
	addresses) ip -o addr show ;;
	listeners) ss -Hltnp ;;
	file) file "$2" ;;
	read) cat "$2" ;;
	proxy-state) proxy_state ;;
	proxy-others) proxy_others ;;
	generation) active_generation ;;
	history) history ;;
	lock) lock ;;
	firewall) firewall ;;
	selinux) selinux "$2" ;;
	ping) ping -c 1 -W 2 "$2" ;;
	request) request "$2" ;;
	neighbours) ip neigh show to "$2" ;;
	arp-answers) arp_answers "$2" "$3" ;;
	links) ip -o link show ;;
	certificate) certificate "$2" ;;
	space) shift && space "$@" ;;
	clock) date +%s ;;
	ground) shift && ground "$@" ;; # of doctor.sh, where that is sent too
	*) echo "unknown question $1" && return 64 ;;
	esac
}

while IFS= read -r question; do
	# shellcheck disable=SC2086 # a question is words; none holds a blank or a sign that the shell would expand
	answer=$(set -f && set -- $question && set +f && ask "$@" </dev/null 2>&1)
	status=$?
	# shellcheck disable=SC2034 # keepalived.sh reads it
	if [ "$question" = keepalived-counters ]; then counted=$(date +%s%N); fi
	printf '@ %s\n' "$question"
	if [ -n "$answer" ]; then printf '%s\n' "$answer" | sed 's/^/| /'; fi
	printf '= %s\n' "$status"
done
echo exlb-probe-end
