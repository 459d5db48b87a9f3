#!/usr/bin/env bash
# shellcheck disable=SC2034  # exlb, and the shell loops that source this file, read the variables
#
# kubeadm's notes on load balancing: haproxy and keepalived on the three control-plane nodes, VRRP by multicast with a
# password, and a script that asks for the apiserver. As units of systemd: static pods are to come. Make the addresses
# yours. Every line of the document, and why some are different here: docs/from-your-document.md#kubeadm

NODE_IPS=(203.0.113.151 203.0.113.152 203.0.113.153)
VIP_IF=eth1              # INTERFACE
MASTER_VIP=203.0.113.150 # APISERVER_VIP
APISERVER_SRC_PORT=6443
# The document connects to port 6443 of the VIP. The apiservers of the same machines have that one.
APISERVER_DEST_PORT=8443
KUBE_APISERVER="https://${MASTER_VIP}:${APISERVER_DEST_PORT}" # controlPlaneEndpoint

# haproxy.cfg ----------------------------------------------------------------------------------------------------------

APISERVER_NAMES=(master-1 master-2 master-3) # HOST1_ID and so on
LOG=syslog                                   # /dev/log
LISTENER_LAYOUT=frontend
BALANCE=roundrobin
# The document asks for /healthz, in clear and of a TLS port, and then says `option ssl-hello-chk`, by which nothing is
# asked for at all. This is what is meant: GET /healthz over TLS, and status 200.
HEALTH_CHECK=healthz
# A bare `check`: haproxy's own defaults.
BACKEND_INTER=2s
BACKEND_FALL=3
BACKEND_RISE=2
TIMEOUT_CONNECT=5s
TIMEOUT_QUEUE=20s
TIMEOUT_CHECK=10s
# 20s in the document, which cuts `kubectl logs -f` and every watch that is silent for so long
# (kubernetes/kubeadm#2227).
TIMEOUT_CLIENT=10m
TIMEOUT_SERVER=10m

# keepalived.conf and check_apiserver.sh -------------------------------------------------------------------------------

VRRP_MODE=multicast
ROUTER_ID=51 # one for each cluster in a subnet, and not the same for all of them, as the document has it
# The document's example is 42. Adverts carry it in clear: it keeps a stranger's mistake away, and no attacker.
AUTH_PASS=42
# STATE and PRIORITY of each node, in the order of NODE_IPS: 101 for the master, and less for the others.
PRIORITIES=(101 100 99)
# The document has -2. With it, where the check fails on the first two nodes, the VIP stays on the first: 101 - 2 is not
# below 99.
CHECK_WEIGHT=-60
TRACK=apiserver
ADVERT_INT=1 # what keepalived does where, as in the document, nothing is said
CHECK_INTERVAL=3
# The document's number, by which a dead proxy is missed for half a minute. Without this line it is 2.
CHECK_FALL=10
CHECK_RISE=2
