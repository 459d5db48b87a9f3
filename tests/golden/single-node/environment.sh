#!/usr/bin/env bash
# shellcheck disable=SC2034 # exlb reads them
# No peer: keepalived refuses an empty unicast_peer.
NODE_IPS=(198.51.100.11)
VIP_IF=eth0
MASTER_VIP=198.51.100.100
