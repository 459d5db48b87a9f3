#!/usr/bin/env bash
# shellcheck disable=SC2034 # exlb reads them
# A VIP with its prefix, nodes with names, and every number that may be set.
export CLUSTER=blue
NODE_IPS=(198.51.100.11 198.51.100.12 198.51.100.13 198.51.100.14)
NODE_NAMES=("${CLUSTER}-lb-1" "${CLUSTER}-lb-2" "${CLUSTER}-lb-3" "${CLUSTER}-lb-4")
VIP_IF=bond0.42
MASTER_VIP=198.51.100.100/24
KUBE_APISERVER="https://${MASTER_VIP%/*}:9443"
APISERVER_DEST_PORT=9443
STATS_PORT=9000
ROUTER_ID=255
ADVERT_INT=3
CHECK_INTERVAL=5
CHECK_FALL=3
CHECK_RISE=4
