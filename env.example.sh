#!/usr/bin/env bash
# shellcheck disable=SC2034  # exlb, and the shell loops that source this file, read the variables
#
# The environment file of exlb. Make your own, and edit the three lines below:
#
#     exlb config --example > environment.sh
#
# exlb reads the file that --env names, else $EXLB_ENV, else ./environment.sh. Bash itself sources it, in an empty
# environment: arrays, references, export, $( ) and `source other.sh` work as they do in your shell, and variables that
# exlb does not know are yours. Nobody but you may be able to write the file. `exlb config` shows what was understood.

# Required ------------------------------------------------------------------------------------------------------------

# The addresses of the load-balancer nodes; the first is the master.
NODE_IPS=(192.0.2.11 192.0.2.12 192.0.2.13)

# The network interface of the nodes that carries the VIP.
VIP_IF=eth0

# The virtual address, or address/prefix. No machine may have it.
MASTER_VIP=192.0.2.10

# Optional: each line shows the default, or an example where there is no constant default -----------------------------

# The names of the nodes, one for each address, in the same order.
# Default: the addresses in NODE_IPS.
#NODE_NAMES=(master-1 master-2 master-3)

# The addresses or DNS names of the kube-apiservers, without a port.
# Default: the addresses in NODE_IPS.
#APISERVER_IPS=("${NODE_IPS[@]}")

# What the proxy calls the kube-apiservers, one for each, in the same order.
# Default: the texts in APISERVER_IPS.
#APISERVER_NAMES=(apiserver-1 apiserver-2 apiserver-3)

# The port that the kube-apiservers listen on. Unit: TCP port.
#APISERVER_SRC_PORT=6443

# The port that the proxy listens on, and that clients connect to. It differs from APISERVER_SRC_PORT where the
# kube-apiservers run on the nodes themselves. Unit: TCP port.
#APISERVER_DEST_PORT=8443

# The address that clients use. exlb only checks that it leads to the VIP and to APISERVER_DEST_PORT; a DNS name is
# welcome, and you are warned if it does not resolve to the VIP. (%/* takes the prefix off MASTER_VIP, if it has one.)
# Unit: https URL.
# Default: not checked.
#KUBE_APISERVER="https://${MASTER_VIP%/*}:8443"

# The virtual_router_id (VRID) of VRRP. No other VRRP group of the network segment may have it.
# Unit: number from 1 to 255.
#ROUTER_ID=68

# How the proxy checks a kube-apiserver: readyz is an HTTPS request of /readyz, tcp a mere connection, for clusters that
# answer 401 without a certificate (anonymous-auth=false). Unit: readyz or tcp.
#HEALTH_CHECK=readyz

# How the proxy spreads connections over the kube-apiservers. Unit: source, roundrobin or leastconn.
#BALANCE=source

# The port of the proxy's statistics page (/status). Unit: TCP port.
#STATS_PORT=10080

# The user of the statistics page, where STATS_PASSWORD is set.
#STATS_USER=admin

# The password of the statistics page: 1 to 128 printable signs.
# Default: none, and the page listens on 127.0.0.1 only.
#STATS_PASSWORD='a secret of your own'

# The time between two VRRP advertisements, 1 to 255. Unit: seconds.
#ADVERT_INT=1

# The time between two checks of the proxy by keepalived, 1 to 255. Unit: seconds.
#CHECK_INTERVAL=2

# After how many failed checks in a row a node counts as failed, 1 to 255. Unit: checks.
#CHECK_FALL=2

# After how many passed checks in a row a node counts as well again, 1 to 255. Unit: checks.
#CHECK_RISE=2

# The user to log in as on the nodes.
#SSH_USER=root

# The port of the nodes' sshd. Unit: TCP port.
#SSH_PORT=22

# The private key to log in with; ~ is your home directory. Unit: path.
# Default: your ssh_config, your agent and the usual files in ~/.ssh.
#SSH_KEY=~/.ssh/id_ed25519

# The host to jump through to the nodes. Unit: [user@]host[:port].
# Default: what your ssh_config says (ProxyJump).
#SSH_GATEWAY=operator@bastion.example.org:22

# The file with the host keys of the nodes; ~ is your home directory. Unit: path.
# Default: what your ssh_config says, else ~/.ssh/known_hosts.
#SSH_KNOWN_HOSTS=~/.ssh/known_hosts

# Whether programs that need root are run through sudo; auto: unless SSH_USER is root. Unit: auto, yes or no.
#SUDO=auto
