#!/usr/bin/env bash
# shellcheck disable=SC2034  # exlb, and the shell loops that source this file, read the variables
#
# kubeasz 3.x, role ex-lb, WITH HAPROXY IN PLACE OF L4LB: that stream-only nginx is to come as a second proxy. What
# clients and keepalived see is the document's: the same ports, the same backends, and a watch on the process. Make the
# addresses yours. Every line of the document, and why some are different here:
# docs/from-your-document.md#kubeasz-3-l4lb

# The groups [ex_lb] and [kube_master] of the inventory; the first of NODE_IPS is the master.
NODE_IPS=(192.0.2.6 192.0.2.7)
APISERVER_IPS=(192.0.2.1 192.0.2.2 192.0.2.3)
VIP_IF=eth0              # LB_IF
MASTER_VIP=192.0.2.250   # EX_APISERVER_VIP
APISERVER_DEST_PORT=8443 # EX_APISERVER_PORT
KUBE_APISERVER="https://${MASTER_VIP}:${APISERVER_DEST_PORT}"

# l4lb.conf.j2: the upstreams apiservers, ingress-nodes and ingress-tls-nodes ------------------------------------------

BALANCE=roundrobin
TIMEOUT_CONNECT=1s
# l4lb finds a dead backend by the clients that fail on it, twice, and tries it again after 3 s. haproxy asks by itself.
BACKEND_INTER=3s
BACKEND_FALL=2
INGRESS_NODE_IPS=(192.0.2.4 192.0.2.5)
INGRESS_HTTP_NODEPORT=30080
INGRESS_HTTPS_NODEPORT=30443

# keepalived-master.conf.j2 and keepalived-backup.conf.j2 --------------------------------------------------------------

VRRP_MODE=unicast
ROUTER_ID=222
# The role draws the priority of a backup between 61 and 119, anew with every run; see kubeasz-2.
PRIORITIES=(120 110)
CHECK_WEIGHT=-60
# vrrp_track_process: the kernel tells keepalived that the process is gone. In a container, and before keepalived
# 2.0.11, it cannot: a script looks every CHECK_INTERVAL there, and verify says so.
TRACK=process
# How long the process may be gone: what a restart takes.
PROCESS_DELAY=3
ADVERT_INT=3
