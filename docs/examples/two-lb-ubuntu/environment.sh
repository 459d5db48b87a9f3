#!/usr/bin/env bash
# shellcheck disable=SC2034  # exlb, and the shell loops that source this file, read the variables
#
# Two load balancers with Ubuntu beside the cluster: port 6443, VRRP by unicast with a password, and a check that adds
# to the priority. Make the addresses yours. Every line of the document, and why some are different here:
# docs/from-your-document.md#two-lb-ubuntu

NODE_IPS=(198.51.100.252 198.51.100.251)
NODE_NAMES=(k8s-lb-1 k8s-lb-2)
VIP_IF=ens160
MASTER_VIP=198.51.100.253/24 # /16 in the document, with addresses to match
SSH_USER=ubuntu              # and sudo, as in the document
APISERVER_IPS=(198.51.100.250 198.51.100.249 198.51.100.248)
APISERVER_NAMES=(k8s-master-1 k8s-master-2 k8s-master-3)
APISERVER_SRC_PORT=6443
APISERVER_DEST_PORT=6443 # the apiservers are on other machines: nobody has this port on the load balancers
KUBE_APISERVER="https://${MASTER_VIP%/*}:${APISERVER_DEST_PORT}"

# haproxy.cfg ----------------------------------------------------------------------------------------------------------

LOG=syslog # /dev/log
LISTENER_LAYOUT=frontend
BALANCE=roundrobin
# A TLS greeting, which an apiserver that answers every request with 500 returns as well. readyz, the default, asks
# more.
HEALTH_CHECK=ssl-hello
# A bare `check`: haproxy's own defaults.
BACKEND_INTER=2s
BACKEND_FALL=3
BACKEND_RISE=2
TIMEOUT_CONNECT=5000
# 50000 in the document, 50 s, which cuts `kubectl logs -f` and every watch that is silent for so long.
TIMEOUT_CLIENT=10m
TIMEOUT_SERVER=10m

# keepalived.conf ------------------------------------------------------------------------------------------------------

VRRP_MODE=unicast
ROUTER_ID=60
# The document's, k8s-lb@lab, has 10 signs, and VRRP takes 8: keepalived cuts it, and `keepalived -t` refuses it.
AUTH_PASS=k8s-lb
# One point apart and a weight of +2: right for two nodes. With a third one, of priority 99, exlb refuses this weight.
PRIORITIES=(101 100)
CHECK_WEIGHT=2
# `killall -0 haproxy`, by its path and as a user that is named: keepalived -t complains of less.
TRACK=script
ADVERT_INT=1
CHECK_INTERVAL=2
CHECK_FALL=1 # keepalived's own defaults
CHECK_RISE=1
