#!/bin/sh
# Boot one node of a lab and become its systemd-nspawn. Runs in a mount namespace of its own: what is mounted
# here ends with the node, whatever it dies of.
#
# $1 image  $2 disk (has upper, work, root)  $3 namespace of the bastion  $4 bridge  $5 machine  $6 hostname
# $7 offline repository  $8 where it is in the node
set -eu
image=$1 disk=$2 namespace=$3 bridge=$4 machine=$5 hostname=$6 repository=$7 repository_in_node=$8

# nspawn leaves locks and sockets there when it is killed, and has nothing to say to the host's own systemd.
mkdir -p /run/systemd
mount -t tmpfs -o mode=0755 exlb-lab /run/systemd
mount -t overlay -o "lowerdir=$image,upperdir=$disk/upper,workdir=$disk/work" exlb-lab "$disk/root"

# Not `ip netns exec`, which hides /sys/fs/cgroup. No settings of the host's have a say here.
exec nsenter --net="$namespace" systemd-nspawn --quiet --boot --directory="$disk/root" \
    --machine="$machine" --hostname="$hostname" --register=no --keep-unit --settings=no --private-users=no \
    --network-bridge="$bridge" --bind-ro="$repository:$repository_in_node" \
    --link-journal=no --resolv-conf=off --timezone=off --console=pipe
