#!/usr/bin/env bash
# shellcheck disable=SC2034  # exlb, and the shell loops that source this file, read the variables
#
# Loops of ssh and scp over NODE_IPS ("06-1"): haproxy and keepalived on the three masters themselves, VRRP by
# multicast, a statistics page. The loops may go on sourcing this file. Make the addresses yours. Every line of the
# document, and why some are different here: docs/from-your-document.md#bash-loops

# The three masters, which the apiservers run on as well; the first is the master of keepalived.
NODE_IPS=(192.0.2.105 192.0.2.111 192.0.2.112)
VIP_IF=eth0
MASTER_VIP=192.0.2.100
# The apiservers have port 6443 of the same machines.
APISERVER_DEST_PORT=8443
KUBE_APISERVER="https://${MASTER_VIP}:${APISERVER_DEST_PORT}"

# haproxy.cfg ----------------------------------------------------------------------------------------------------------

LOG=syslog # /dev/log
TIMEOUT_CONNECT=5000
TIMEOUT_CLIENT=10m
TIMEOUT_SERVER=10m
BALANCE=source
# `check` and nothing more: a connection that is opened and closed. readyz, the default, also takes out an apiserver
# that answers every request with 500.
HEALTH_CHECK=tcp
BACKEND_INTER=2000
BACKEND_FALL=2
BACKEND_RISE=2
# nbproc 1 is not written: haproxy 2.5 and later do not start with it, and one process is what there is without it.

# http://VIP:10080/status
STATS_BIND=0.0.0.0
STATS_PORT=10080
STATS_USER='admin'
# The document's password, 123456, is everybody's. This one is made once, and kept beside this file.
STATS_PASSWORD=generate
# The document has `stats admin if TRUE`: whoever knows that password can take all apiservers out from a browser.
STATS_ADMIN=no

# keepalived.conf ------------------------------------------------------------------------------------------------------

VRRP_MODE=multicast # unicast, the default, also works where switches or clouds drop multicast
ROUTER_ID=68
# The document gives both backups 110. Then both take over at once, which costs clients about five seconds.
PRIORITIES=(120 110 105)
CHECK_WEIGHT=-30
# `killall -0 haproxy`, by its path and as a user that is named: keepalived -t complains of less.
TRACK=script
# advert_int 3 and interval 5, as in the document: clients wait up to 15 s when the proxy of the holder stops. Without
# this line it is 6 s.
TIMING=documents
