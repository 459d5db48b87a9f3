#!/bin/sh
# Make of a Debian root file system one that lives by dnf and rpm, and of its offline repository one of rpm packages.
# mmdebstrap runs this as a customize hook, after image.sh.
#
# $1 root file system  $2 repository  $3... packages of the repository that become rpm packages; all others that are in
# it are what those need, and go into the root file system.
set -eu
umask 022
root=$1 repository=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
work=$root/rpm # rpmbuild runs inside of the root file system
wanted=" $* "
mkdir -p "$work/repo" "$root/etc/rpm"

# rpm_name PACKAGE: what EL calls a package of Debian's.
rpm_name() {
	case $1 in
	iproute2) echo iproute ;;
	iputils-ping) echo iputils ;;
	iptables) echo iptables-nft ;;
	network-manager) echo NetworkManager ;;
	*) echo "$1" ;;
	esac
}

# definitions NAME: what its package says beside its files, an argument of rpmbuild per line.
definitions() {
	case $1 in
	exlb-el-release)
		echo '--define=gives system-release = 9, system-release(releasever) = 9, /bin/sh'
		;;
	haproxy)
		echo '--define=unit haproxy'
		echo '--define=user haproxy'
		;;
	keepalived | NetworkManager) echo "--define=unit $1" ;;
	firewalld)
		echo '--define=unit firewalld'
		echo '--define=needs nftables'
		;;
	iptables-nft) echo '--define=gives iptables' ;;
	esac
}

# in_style NAME TREE: make of what Debian installs what EL would.
in_style() {
	for directory in bin sbin lib; do
		if [ -d "$2/$directory" ]; then
			mkdir -p "$2/usr/$directory"
			cp -a "$2/$directory/." "$2/usr/$directory"
			rm -r "${2:?}/$directory"
		fi
	done
	for path in etc/default etc/init.d etc/logrotate.d etc/rsyslog.d etc/apparmor.d usr/share/doc usr/share/man \
		usr/share/locale usr/share/lintian usr/share/bug usr/share/bash-completion usr/share/zsh; do
		rm -rf "${2:?}/$path"
	done
	case $1 in
	haproxy)
		rm -r "$2/usr/lib/tmpfiles.d" "$2/var/lib/haproxy/dev"
		mkdir "$2/etc/haproxy/conf.d"
		;;
	firewalld)
		actions=$2/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1
		mv "$actions.server.policy.choice" "$actions.policy"
		rm "$actions.desktop.policy.choice"
		;;
	iptables-nft)
		for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
			ln -s xtables-nft-multi "$2/usr/sbin/$tool"
		done
		;;
	esac
	if [ -d "$here/$1" ]; then (cd "$here/$1" && find . -type f -exec install -D -m 0644 {} "$2/{}" \;); fi
}

# list TREE: its files, and those of its directories that the root file system has not got.
list() {
	(cd "$1" && find . -mindepth 1 ! -type d) | sed -e 's#^\.##' -e 's#^/etc/#%config(noreplace) /etc/#'
	(cd "$1" && find . -mindepth 1 -type d) | while read -r path; do
		if [ ! -d "$root/$path" ]; then echo "%dir ${path#.}"; fi
	done
}

# package NAME VERSION REVISION: make an rpm package of the tree that is there.
package() {
	list "$work/tree" >"$work/list"
	definitions "$1" | (
		set -- "--define=program $1" "--define=upstream $2" "--define=revision $3"
		while read -r definition; do set -- "$@" "$definition"; done
		chroot "$root" rpmbuild -bb --quiet --define='_topdir /rpm/build' --define='_rpmdir /rpm/repo' \
			--define='tree /rpm/tree' --define='listing /rpm/list' "$@" /rpm/program.spec
	)
}

cp "$here/macros" "$root/etc/rpm/macros"
cp "$here/dnf.conf" "$root/etc/dnf/dnf.conf"
cp "$here/program.spec" "$work"

mkdir "$work/tree"
in_style exlb-el-release "$work/tree"
package exlb-el-release 9 1

needed=
for deb in "$repository"/*.deb; do
	name=$(dpkg-deb -f "$deb" Package)
	case $wanted in
	*" $name "*)
		name=$(rpm_name "$name")
		version=$(dpkg-deb -f "$deb" Version | sed -e 's/^[0-9]*://' -e 's/-[^-]*$//')
		rm -r "$work/tree"
		dpkg-deb -x "$deb" "$work/tree"
		in_style "$name" "$work/tree"
		package "$name" "$version" 1
		# A second release of what `exlb install --upgrade` upgrades.
		case $name in haproxy | keepalived) package "$name" "$version" 2 ;; esac
		;;
	*) needed="$needed $deb" ;;
	esac
done
# shellcheck disable=SC2086 # a list of files, none with a blank in it
dpkg --root="$root" --install $needed
chroot "$root" createrepo_c --quiet /rpm/repo
chroot "$root" rpm --initdb
chroot "$root" sh -c 'rpm -i --force-debian /rpm/repo/noarch/exlb-el-release-*.rpm'
rm -r "$repository"
mv "$work/repo" "$repository"
rm -r "$work"

# Nobody is to mistake it for a Debian.
rm -f "$root"/usr/bin/apt* "$root"/usr/bin/dpkg* "$root/etc/apt/sources.list" "$root/etc/debian_version"
