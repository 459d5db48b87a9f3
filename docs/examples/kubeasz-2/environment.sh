#!/usr/bin/env bash
# shellcheck disable=SC2034  # exlb, and the shell loops that source this file, read the variables
#
# kubeasz 2.x, role ex-lb: two load balancers beside the cluster, VRRP by unicast, a listener for the apiservers and two
# for an ingress. Make the addresses yours. Every line of the document, and why some are different here:
# docs/from-your-document.md#kubeasz-2

# The groups [ex_lb] and [kube_master] of the inventory. The first of NODE_IPS is the master: there is one file for all
# nodes, and no template for a master and another for the backups.
NODE_IPS=(192.0.2.6 192.0.2.7)
APISERVER_IPS=(192.0.2.1 192.0.2.2 192.0.2.3)
VIP_IF=eth0              # LB_IF
MASTER_VIP=192.0.2.250   # EX_APISERVER_VIP
APISERVER_DEST_PORT=8443 # EX_APISERVER_PORT
KUBE_APISERVER="https://${MASTER_VIP}:${APISERVER_DEST_PORT}"

# haproxy.cfg.j2 -------------------------------------------------------------------------------------------------------

BALANCE=roundrobin # BALANCE_ALG
BACKEND_INTER=5s
BACKEND_FALL=2
BACKEND_RISE=2
# The role opens a connection and closes it again, so an apiserver that answers every request with 500 is up for it.
# HEALTH_CHECK=tcp would be the same.
HEALTH_CHECK=readyz
# nbproc 1 is not written: haproxy 2.5 and later do not start with it, and one process is what there is without it.

# The listeners ingress-node and ingress-node-tls: each is there once its port of the nodes is set.
INGRESS_NODE_IPS=(192.0.2.4 192.0.2.5)
INGRESS_HTTP_NODEPORT=23456
INGRESS_HTTPS_NODEPORT=23457
INGRESS_HTTP_PORT=80
INGRESS_HTTPS_PORT=443

# keepalived-master.conf.j2 and keepalived-backup.conf.j2 --------------------------------------------------------------

VRRP_MODE=unicast
ROUTER_ID=222
# The role draws the priority of a backup between 61 and 119, anew with every run; two backups that draw the same one
# both take over at once, which costs clients about five seconds. Written down, it stays, and each is different.
PRIORITIES=(120 110)
# The configuration of the document has -60, its text -30. Either is more than 120 - 110, which is all that counts.
CHECK_WEIGHT=-60
# `killall -0 haproxy`, by its path and as a user that is named: keepalived -t complains of less.
TRACK=script
# advert_int 3 and interval 5, as in the document: clients wait up to 15 s when the proxy of the holder stops. Without
# this line it is 6 s.
TIMING=documents
