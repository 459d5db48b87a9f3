#!/bin/sh
# What a node stands on before exlb comes to it: more questions of probe.sh, in front of which it is sent. Nothing is
# installed or written, and no list of packages is fetched.
# shellcheck disable=SC2329 # probe.sh uses it

firmware=/sys/class/dmi/id
dnf_caches='/var/cache/dnf /var/cache/libdnf5 /var/cache/yum'
contact_seconds=3
repository_seconds=15

# ground QUESTION...: one of the questions below.
ground() {
	case $1 in
	machine) machine ;;
	available) shift && available "$@" ;;
	owners) shift && owners "$@" ;;
	adverts) adverts "$2" "$3" "$4" ;;
	contacts) shift && contacts "$@" ;;
	*) echo "unknown question $1" && return 64 ;;
	esac
}

# machine: "NAME VALUE" of what the firmware says of the machine; nothing where it says nothing.
machine() {
	for name in sys_vendor product_name chassis_asset_tag bios_version; do
		if [ -r "$firmware/$name" ]; then printf '%s %s\n' "$name" "$(cat "$firmware/$name")"; fi
	done
}

# available NAME...: "lists NUMBER" of the lists of repositories that this node has already, and what they say of the
# packages, in the package manager's own words. No repository is asked.
available() {
	# shellcheck source=/dev/null
	case " $(. /etc/os-release && echo "$ID ${ID_LIKE-}") " in
	*' debian '* | *' ubuntu '*)
		# Without its caches on the disk, which it would bring up to date.
		without='-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache='
		# shellcheck disable=SC2086 # a list of options
		{
			echo "lists $(apt-cache $without policy 2>/dev/null | grep -c ' Packages$')"
			apt-cache $without policy "$@" 2>/dev/null
		}
		;;
	*)
		# shellcheck disable=SC2086 # a list of folders
		echo "lists $(find $dnf_caches -name repomd.xml 2>/dev/null | wc -l)"
		for manager in dnf yum; do
			if command -v "$manager" >/dev/null; then
				timeout "$repository_seconds" "$manager" -C -q info "$@" 2>/dev/null
				break
			fi
		done
		;;
	esac
	return 0
}

# owners INTERFACE ADDRESS...: who answers for each address, all at once; it stands before every line about it.
owners() {
	interface=$1
	shift
	for address; do
		owner "$address" "$interface" | sed "s/^/$address /" &
	done
	wait
}

# owner ADDRESS INTERFACE: "ping" where it answers that, what the kernel finds out (`ip neigh`, ARP or NDP), and "arping MAC"
# where that program is there.
owner() {
	if ping -c 1 -W 1 "$1" >/dev/null 2>&1; then
		echo ping
		ip neigh show to "$1"
	else
		# Who had it a moment ago is still in the kernel's cache, and would be until it is asked anew. A datagram that nobody
		# needs to take makes it ask, where there is no ping.
		ip neigh flush to "$1" >/dev/null 2>&1
		# shellcheck disable=SC2016 # bash expands it
		timeout 1 bash -c 'echo >"/dev/udp/$1/9"' bash "$1" >/dev/null 2>&1
		neighbour "$1"
	fi
	arp_answers "$1" "$2" | sed 's/^/arping /'
	return 0
}

# neighbour ADDRESS: what the kernel has found out of it. It gives up after three questions, a second apart.
neighbour() {
	known=
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		known=$(ip neigh show to "$1")
		case $known in *INCOMPLETE*) sleep 0.5 ;; *) break ;; esac
	done
	if [ -n "$known" ]; then printf '%s\n' "$known"; fi
}

# adverts ADDRESS INTERFACE SECONDS: the VRRP adverts that come by, as tcpdump shows them. Without -v, which would show
# their passwords.
adverts() {
	if ! command -v tcpdump >/dev/null; then
		echo 'there is no tcpdump'
		return 127
	fi
	interface=$(interface_to "$1" "$2")
	if [ -z "$interface" ]; then
		echo "no interface leads to $1"
		return 1
	fi
	heard=$(timeout "$3" tcpdump -n -l -i "$interface" -c 200 'ip proto 112 or ip6 proto 112' 2>/dev/null)
	status=$?
	if [ "$status" -ne 0 ] && [ "$status" -ne 124 ]; then
		echo "tcpdump ended with status $status"
		return "$status"
	fi
	if [ -n "$heard" ]; then printf '%s\n' "$heard"; fi
}

# contacts HOST:PORT...: "HOST:PORT STATUS WORDS" of an attempt to connect to each, all at once. By bash, because a node
# may have no other client yet.
contacts() {
	for place; do
		host=${place%:*}
		host=${host#[}
		host=${host%]}
		# shellcheck disable=SC2016 # bash expands it
		(
			said=$(timeout "$contact_seconds" bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$host" "${place##*:}" 2>&1)
			printf '%s %s %s\n' "$place" "$?" "$(printf '%s\n' "$said" | head -n 1)"
		) &
	done
	wait
}
