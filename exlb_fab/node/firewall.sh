#!/bin/sh
# firewall.sh DIRECTIVE...: open or close the firewall of this node, now and for good, without a reload.
#
# A directive is one argument: "open PROGRAM PLACE WHAT", or "close ...". WHAT is "tcp PORT", "vrrp from ADDRESS" or
# "vrrp to GROUP". PROGRAM and PLACE are "firewalld ZONE", "ufw -", "iptables ip|ip6" or "nftables FAMILY/TABLE/CHAIN";
# what is opened by the last two is gone with the next boot.
#
# What it has opened is kept in $state/firewall, a line per directive, before it is opened: what is not there is not ours,
# and is never closed. Sent after session.sh and generations.sh.
# shellcheck disable=SC2154 # which set run and state

set -f
opened=$state/firewall
protocol=112

# keep LINE, forget LINE: by a rename, so that the list is always whole.
keep() {
	{ cat "$opened" 2>/dev/null; printf '%s\n' "$1"; } >"$opened.new" && replace_list
}

forget() {
	without "$1" "$opened" >"$opened.new" && replace_list
}

# without LINE FILE: its other lines, of which there may be none.
without() {
	grep -v -x -F -e "$1" "$2"
	[ $? -le 1 ] # a disk that is full is no empty file
}

replace_list() {
	sync "$opened.new" && mv -f "$opened.new" "$opened" && sync "$state"
}

is_ours() {
	grep -q -s -x -F -e "$1" "$opened"
}

# tell WORD...: a line of the journal.
tell() {
	sed -n 's/^\(who\|from\|what\)=//p' "$run/holder" 2>/dev/null | tr '\n' ' ' |
		{ read -r who; printf '%s firewall %s: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$who" "$*"; } >>"$state/journal"
}

is_ipv6() {
	case $1 in *:*) ;; *) return 1 ;; esac
}

# firewalld ZONE VERB WHAT...

firewalld_rule() {
	if [ "$2" = tcp ]; then echo "--$1-port=$3/tcp" && return; fi
	family=ipv4
	if is_ipv6 "$4"; then family=ipv6; fi
	side=source
	if [ "$3" = to ]; then side=destination; fi
	echo "--$1-rich-rule=rule family=\"$family\" $side address=\"$4\" protocol value=\"$protocol\" accept"
}

# firewalld_open: for good first. Killed in between it is still closed, and the next push opens it.
firewalld_open() {
	zone=$1
	shift
	firewall-cmd --permanent --zone="$zone" "$(firewalld_rule add "$@")" &&
		firewall-cmd --zone="$zone" "$(firewalld_rule add "$@")"
}

# firewalld_close: where it does not run, it would open it again with its next start; where it is gone, nothing is open.
firewalld_close() {
	zone=$1
	shift
	if firewall-cmd -q --state 2>/dev/null; then
		firewall-cmd -q --zone="$zone" "$(firewalld_rule remove "$@")"
		firewall-cmd -q --permanent --zone="$zone" "$(firewalld_rule remove "$@")"
		! firewall-cmd -q --permanent --zone="$zone" "$(firewalld_rule query "$@")"
	elif command -v firewall-offline-cmd >/dev/null; then
		firewall-offline-cmd --zone="$zone" "$(firewalld_rule remove "$@")"
	fi
}

# firewalld_is_theirs: it is in the permanent configuration already, by somebody who has only not loaded it yet.
firewalld_is_theirs() {
	zone=$1
	shift
	firewall-cmd --permanent --zone="$zone" "$(firewalld_rule query "$@")" >/dev/null 2>&1
}

# ufw: in front of what denies it. One that does not know VRRP (before 0.36.2) takes it from its own files alone.

ufw_rule() {
	if [ "$1" = tcp ]; then echo "allow $2/tcp"; else echo "allow proto vrrp $2 $3"; fi
}

# ufw_shown: the same as ufw shows it.
ufw_shown() {
	if [ "$1" = tcp ]; then echo "ufw allow $2/tcp comment 'exlb'"; else echo "ufw allow $2 $3 proto vrrp comment 'exlb'"; fi
}

ufw_open() {
	shift
	# shellcheck disable=SC2046 # words
	if said=$(ufw prepend $(ufw_rule "$@") comment exlb 2>&1); then echo "$said" && return; fi
	case $said in
	*'nsupported protocol'*) ufw_before "$@" ;;
	*) echo "$said" && return 1 ;;
	esac
}

# accept SIDE ADDRESS: the end of a rule of iptables that lets VRRP in.
accept() {
	if [ "$1" = to ]; then side=-d; else side=-s; fi
	echo "-p $protocol $side $2 -m comment --comment exlb -j ACCEPT"
}

# is_there, delete_rule PROGRAM RULE: at run time; what somebody has flushed need not be deleted.
is_there() {
	# shellcheck disable=SC2086 # words
	"$1" -w -C $2 2>/dev/null
}

delete_rule() {
	# shellcheck disable=SC2086 # words
	if is_there "$1" "$2"; then "$1" -w -D $2; fi
}

# ufw_names SIDE ADDRESS: the file and the program of a family, and the rule in its chain.
ufw_names() {
	file=/etc/ufw/before.rules
	tables=iptables
	rule="ufw-before-input $(accept "$@")"
	if is_ipv6 "$2"; then
		file=/etc/ufw/before6.rules
		tables=ip6tables
		rule="ufw6-before-input $(accept "$@")"
	fi
}

# ufw_before vrrp SIDE ADDRESS: in front of the first COMMIT of the file, which ends its table `filter`; and at once.
ufw_before() {
	ufw_names "$2" "$3"
	if ! grep -q -s -x -F -e "-A $rule" "$file"; then
		cp -p "$file" "$file.exlb-new" && awk -v line="-A $rule" '
			$0 == "*filter" { inside = 1 } inside && $0 == "COMMIT" { print line; inside = 0 } { print }' \
			"$file" >"$file.exlb-new" && replace_rules || return
	fi
	# shellcheck disable=SC2086 # words
	is_there "$tables" "$rule" || "$tables" -w -I $rule
}

replace_rules() {
	sync "$file.exlb-new" && mv -f "$file.exlb-new" "$file"
}

ufw_close() {
	shift
	if ufw show added 2>/dev/null | grep -q -x -F -e "$(ufw_shown "$@")"; then
		# shellcheck disable=SC2046 # words
		ufw delete $(ufw_rule "$@") || return
	fi
	if [ "$1" = tcp ]; then return 0; fi
	ufw_names "$2" "$3"
	if grep -q -s -x -F -e "-A $rule" "$file"; then
		cp -p "$file" "$file.exlb-new" && without "-A $rule" "$file" >"$file.exlb-new" && replace_rules || return
	fi
	delete_rule "$tables" "$rule"
}

# iptables, at the head of INPUT

iptables_rule() {
	if [ "$1" = tcp ]; then
		echo "INPUT -p tcp --dport $2 -m comment --comment exlb -j ACCEPT"
	else
		echo "INPUT $(accept "$2" "$3")"
	fi
}

iptables_open() {
	program=$1tables
	shift
	# shellcheck disable=SC2046 # words
	"$program" -w -I $(iptables_rule "$@")
}

iptables_close() {
	program=$1tables
	shift
	delete_rule "$program" "$(iptables_rule "$@")"
}

# nftables, at the head of the chain; the comment tells ours

nftables_rule() {
	if [ "$1" = tcp ]; then echo "tcp dport $2" && return; fi
	ip=ip
	if is_ipv6 "$3"; then ip=ip6; fi
	side=saddr
	if [ "$2" = to ]; then side=daddr; fi
	echo "$ip $side $3 meta l4proto $protocol"
}

nftables_open() {
	chain=$(echo "$1" | tr / ' ')
	shift
	# shellcheck disable=SC2046,SC2086 # words
	nft insert rule $chain $(nftables_rule "$@") accept comment "\"exlb $*\""
}

nftables_close() {
	chain=$(echo "$1" | tr / ' ')
	shift
	# shellcheck disable=SC2086 # words
	nft -a list chain $chain 2>/dev/null | sed -n "s/.* comment \"exlb $*\" # handle \([0-9]*\)\$/\1/p" |
		while read -r handle; do nft delete rule $chain handle "$handle" </dev/null || return; done
}

# carry_out open|close DIRECTIVE WORD...: all of its words twice, whole and one by one.
carry_out() {
	verb=$1
	directive=$2
	shift 2
	deed=$1_$verb
	case $deed in
	firewalld_open | ufw_open | iptables_open | nftables_open)
		if [ "$1" = firewalld ] && ! is_ours "$directive" && firewalld_is_theirs "$2" "$3" "$4" "${5-}"; then :; else
			is_ours "$directive" || keep "$directive" || { echo "$opened cannot be written: is $state full?" && return 1; }
		fi
		;;
	firewalld_close | ufw_close | iptables_close | nftables_close) is_ours "$directive" || return 0 ;;
	*) echo "unknown directive $verb $directive" && return 1 ;;
	esac
	shift
	said=$("$deed" "$@" 2>&1) || { printf '%s: %s\n' "$verb $directive" "$said" && return 1; }
	if [ "$verb" = close ]; then forget "$directive" || return; fi
	tell "$verb $directive"
}

mkdir -p "$state" && chmod 0700 "$state" || exit 1
for each in "$@"; do
	verb=${each%% *}
	# shellcheck disable=SC2086 # words
	carry_out "$verb" "${each#* }" ${each#* } || exit 1
done
