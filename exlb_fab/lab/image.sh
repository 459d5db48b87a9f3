#!/bin/sh
# Make the root file system of the lab's nodes out of a minimal Debian, and its offline repository.
# mmdebstrap runs this as its customize hook, so that apt knows the release's packages and what is installed.
#
# $1 root file system  $2 repository  $3... packages of the repository, which come with their dependencies
set -eu
umask 022
root=$1 repository=$2
shift 2

mkdir -p "$repository"
# Those that are installed already as well.
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --quiet install --reinstall --download-only --no-install-recommends \
    -o Dir::Cache::archives="$repository" -o APT::Sandbox::User=root "$@"
rm -rf "$repository/partial" "$repository/lock"
(cd "$repository" && dpkg-scanpackages --multiversion . >Packages)

# A node knows the offline repository and nothing else: it never tries a network.
rm -rf "$root/etc/apt/sources.list.d"
mkdir "$root/etc/apt/sources.list.d"
echo "deb [trusted=yes] file:/srv/repo ./" >"$root/etc/apt/sources.list"

# Nothing of the host that built the image, and no identity that two nodes would share.
: >"$root/etc/resolv.conf"
echo LANG=C.UTF-8 >"$root/etc/default/locale"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"

# operator has sudo without a password, through its group; clerk has to type one.
chroot "$root" useradd --uid 2001 --gid operator --create-home --shell /bin/bash operator
chroot "$root" useradd --uid 2002 --user-group --groups sudo --create-home --shell /bin/bash clerk
echo "%operator ALL=(ALL:ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/operator"
chmod 0440 "$root/etc/sudoers.d/operator"

cat >"$root/etc/ssh/sshd_config.d/lab.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
UseDNS no
LogLevel VERBOSE
EOF

# Addresses that keepalived adds are not networkd's to take away.
mkdir -p "$root/etc/systemd/networkd.conf.d" "$root/etc/systemd/journald.conf.d" \
    "$root/etc/systemd/system/systemd-networkd-wait-online.service.d"
cat >"$root/etc/systemd/networkd.conf.d/lab.conf" <<'EOF'
[Network]
ManageForeignRoutes=no
EOF
cat >"$root/etc/systemd/journald.conf.d/lab.conf" <<'EOF'
[Journal]
SystemMaxUse=32M
RuntimeMaxUse=32M
EOF
cat >"$root/etc/systemd/system/systemd-networkd-wait-online.service.d/lab.conf" <<'EOF'
[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --interface=host0 --timeout=5
EOF
chroot "$root" systemctl enable systemd-networkd.service ssh.service
chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer dpkg-db-backup.timer systemd-resolved.service systemd-timesyncd.service \
    console-getty.service getty.target systemd-logind-varlink.socket
