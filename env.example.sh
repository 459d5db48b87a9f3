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

# The addresses of the load-balancer nodes, by which exlb reaches them. The first is the master.
NODE_IPS=(192.0.2.11 192.0.2.12 192.0.2.13)

# The network interface of the nodes that carries the VIP. With auto each node's own is found: the one whose network
# contains the VIP.
VIP_IF=eth0

# The virtual address, or address/prefix, IPv4 or IPv6. No machine may have it.
MASTER_VIP=192.0.2.10

# Everything below is optional. Each line shows the default, or an example where there is no constant default. ---------

# The nodes and the virtual addresses ----------------------------------------------------------------------------------

# The names of the nodes, one for each address, in the same order.
# Default: the addresses in NODE_IPS.
#NODE_NAMES=(lb-1 lb-2 lb-3)

# The interface of each node, where they differ, in the same order. auto is what it is in VIP_IF.
# Default: VIP_IF on every node.
#NODE_VIP_IFS=(eth0 eth0 bond0)

# More virtual addresses, or address/prefix, IPv4 or IPv6. They move together with MASTER_VIP.
# Default: none.
#EXTRA_VIPS=(192.0.2.20/24)

# The kube-apiservers and the listener in front of them ----------------------------------------------------------------

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

# How the proxy checks a kube-apiserver: by an HTTPS request of /readyz, /healthz or /livez, by a TLS greeting
# (ssl-hello), or by a mere TCP connection (tcp). One that answers 401 to anonymous requests needs one of the last two.
# Write readyz, healthz, livez, ssl-hello or tcp.
#HEALTH_CHECK=readyz

# The file on this host with the authorities whose certificates HEALTH_CHECK accepts. It comes to the nodes with their
# configuration. ~ is your home directory. Unit: path.
# Default: none, and any certificate is accepted.
#APISERVER_CA=~/pki/ca.crt

# The checks of the backends, and how connections are spread -----------------------------------------------------------

# A time is written 500ms, 5s, 10m, 2h or 1d, here and below; a plain number is milliseconds.

# The time between two checks of a backend by the proxy. Unit: time.
#BACKEND_INTER=2s

# After how many failed checks in a row a backend is down. Unit: checks.
#BACKEND_FALL=2

# After how many passed checks in a row a backend is up again. Unit: checks.
#BACKEND_RISE=2

# The time in which a backend that is up again comes to its full share; with 0 it has that at once. Unit: time.
#BACKEND_SLOWSTART=0

# How the proxy spreads connections over the backends. source sends a client to the same backend as long as that is up.
# Write source, roundrobin, leastconn, static-rr or first.
#BALANCE=source

# The proxy as a whole -------------------------------------------------------------------------------------------------

# How a listener is written in the configuration: as one listen section, or as a frontend and a backend. The proxy does
# the same with both. Write listen or frontend.
#LISTENER_LAYOUT=listen

# The addresses that the listeners are on: all of the node's, only the VIPs (and 127.0.0.1, for the node itself), or the
# VIPs and the node's address in NODE_IPS. Write all, vip or node.
#BIND=all

# How long the proxy waits for a backend to take a connection. Unit: time.
#TIMEOUT_CONNECT=5s

# How long a client may be silent. Less than 10m cuts watches and `kubectl logs -f`. Unit: time.
#TIMEOUT_CLIENT=10m

# How long a backend may be silent. Less than 10m cuts watches and `kubectl logs -f`. Unit: time.
#TIMEOUT_SERVER=10m

# How long a check of a backend may take once it is connected. Unit: time.
# Default: what the proxy does: BACKEND_INTER.
#TIMEOUT_CHECK=2s

# How long a connection waits for a backend that has no room. Unit: time.
# Default: what the proxy does: TIMEOUT_CONNECT.
#TIMEOUT_QUEUE=20s

# How many connections the proxy takes at the same time. The file limit of its unit is raised to fit. Unit:
# connections.
# Default: what the proxy makes of the file limit of its unit.
#MAXCONN=20000

# Where the proxy logs to: its own output, which is the journal, or /dev/log. Write journal or syslog.
#LOG=journal

# How long a process of before a reload may live on for its open connections. Unit: time.
# Default: until the last of them has ended.
#HARD_STOP_AFTER=24h

# Whether what is drained or disabled through the admin socket stays so when exlb reloads the proxy. Write yes or no.
#SERVER_STATE=no

# More listeners -------------------------------------------------------------------------------------------------------

# The addresses or DNS names of the nodes with an ingress controller.
# Default: none, and there is no listener for an ingress.
#INGRESS_NODE_IPS=(192.0.2.21 192.0.2.22)

# The port of those nodes that serves the ingress over HTTP. Unit: TCP port.
# Default: none, and there is no listener for it.
#INGRESS_HTTP_NODEPORT=30080

# The port of those nodes that serves the ingress over HTTPS. Unit: TCP port.
# Default: none, and there is no listener for it.
#INGRESS_HTTPS_NODEPORT=30443

# The port that the proxy listens on for the ingress over HTTP. Unit: TCP port.
#INGRESS_HTTP_PORT=80

# The port that the proxy listens on for the ingress over HTTPS. Unit: TCP port.
#INGRESS_HTTPS_PORT=443

# The version of the PROXY protocol in which the ingress learns the address of a client. The ingress has to expect it.
# Write no, v1 or v2.
#INGRESS_PROXY_PROTOCOL=no

# More TCP listeners: each a name, a port, the backends with their ports, and how these are checked (tcp, none,
# ssl-hello, http:/PATH or https:/PATH; without a word it is tcp).
# Default: none.
#EXTRA_LISTENERS=("registry 5000 192.0.2.31:5000,192.0.2.32:5000 http:/v2/" "etcd 2379 192.0.2.41:2379")

# The statistics page --------------------------------------------------------------------------------------------------

# The address that the statistics page listens on. Unit: address.
# Default: 0.0.0.0 with a STATS_PASSWORD, 127.0.0.1 without.
#STATS_BIND=0.0.0.0

# The port of the statistics page. Unit: TCP port.
#STATS_PORT=10080

# The user of the statistics page, where STATS_PASSWORD is set.
#STATS_USER=admin

# The password of the statistics page. With generate exlb makes one, and keeps it in a file beside this one.
# Default: none.
#STATS_PASSWORD='a secret of your own'

# Whether servers can be disabled and drained on the statistics page. It needs a STATS_PASSWORD. Write yes or no.
#STATS_ADMIN=no

# Whether /metrics on the port of the statistics page answers Prometheus, without a password. Write yes or no.
#EXPORTER=no

# VRRP: who holds the VIP ----------------------------------------------------------------------------------------------

# The virtual_router_id (VRID). No other VRRP group of the network segment may have it. Unit: number from 1 to 255.
#ROUTER_ID=68

# Whether the nodes send their adverts to each other or to a multicast group, which clouds and many switches block.
# Write unicast or multicast.
#VRRP_MODE=unicast

# The addresses that the nodes send their adverts from and to, where they are not those in NODE_IPS: one for each, in
# the same order, of the family of MASTER_VIP.
# Default: the addresses in NODE_IPS.
#VRRP_IPS=(10.1.0.11 10.1.0.12 10.1.0.13)

# The version of VRRP. Write 2 or 3.
# Default: 2, with an IPv6 MASTER_VIP or TIMING=fast 3.
#VRRP_VERSION=2

# The password in the adverts of version 2, 1 to 8 signs. It is sent in clear: it prevents accidents, not attacks. With
# generate exlb makes one, and keeps it in a file beside this one.
# Default: none.
#AUTH_PASS=generate

# The priorities of the nodes, in the same order. The highest is the master.
# Default: 120 110 105 and so on.
#PRIORITIES=(120 110 105)

# Whether a node takes the VIP back from one with a lower priority. Write yes or no.
#PREEMPT=yes

# What a failed check does to its node: it lowers the priority (weighted: there is always a VIP), or takes the node out
# of the election (fault: faster, and no VIP at all where the check fails everywhere). Write weighted or fault.
# Default: weighted, with PREEMPT=no fault.
#FAILOVER=weighted

# What keepalived checks on its node, several with commas between them: that the process of the proxy runs, by events of
# the kernel (process) or by a script (script), that an apiserver answers through the proxy (apiserver), or that the
# port of the proxy takes connections (port). Write process, script, apiserver or port.
#TRACK=script

# How fast VRRP and its checks are -------------------------------------------------------------------------------------

# The times that the next lines do not set: default, those of the documents, or fast, which takes version 3.
# Write default, documents or fast.
#TIMING=default

# The time between two adverts. Less than a second takes version 3. Unit: seconds.
# Default: as TIMING says: 1, documents 3, fast 0.3.
#ADVERT_INT=1

# The time between two checks of the node by keepalived. Unit: seconds.
# Default: as TIMING says: 1, documents 5, fast 1.
#CHECK_INTERVAL=1

# How long such a check may take. Unit: seconds.
#CHECK_TIMEOUT=2

# After how many failed checks in a row a node counts as failed. Unit: checks.
# Default: as TIMING says: 2, documents 1, fast 2.
#CHECK_FALL=2

# After how many passed checks in a row a node counts as well again. Unit: checks.
# Default: as TIMING says: 2, documents 1, fast 2.
#CHECK_RISE=2

# What a failed check takes from the priority of its node, or, above 0, what a passed one adds. It has to be more than
# the highest priority is above the lowest. Unit: priority.
#CHECK_WEIGHT=-60

# How long the process may be gone with TRACK=process before that counts. Unit: seconds.
#PROCESS_DELAY=0

# The time after which a new master announces the VIPs a second time. Unit: seconds.
#GARP_MASTER_DELAY=5

# How many packets it sends each time. Unit: packets.
#GARP_MASTER_REPEAT=5

# The time between two announcements of a master that stays one. With 0 there are none, and a healed partition cuts
# clients off for most of a minute. Unit: seconds.
#GARP_MASTER_REFRESH=1

# How many packets it sends each time. Unit: packets.
#GARP_MASTER_REFRESH_REPEAT=1

# The nodes' firewall --------------------------------------------------------------------------------------------------

# Whether exlb opens the firewall of the nodes for VRRP and the listeners (manage), only tells where it is in the way
# (check), or does not look at it (ignore). Write check, manage or ignore.
#FIREWALL=check

# SSH ------------------------------------------------------------------------------------------------------------------

# The user to log in as on the nodes.
#SSH_USER=root

# The port of the nodes' sshd. Unit: TCP port.
#SSH_PORT=22

# The private key to log in with. ~ is your home directory. Unit: path.
# Default: your ssh_config, your agent and the usual files in ~/.ssh.
#SSH_KEY=~/.ssh/id_ed25519

# The host to jump through to the nodes. Unit: [user@]host[:port].
# Default: what your ssh_config says (ProxyJump).
#SSH_GATEWAY=operator@bastion.example.org:22

# The file with the host keys of the nodes. ~ is your home directory. Unit: path.
# Default: what your ssh_config says, else ~/.ssh/known_hosts.
#SSH_KNOWN_HOSTS=~/.ssh/known_hosts

# Whether programs that need root are run through sudo. auto: unless SSH_USER is root. Write auto, yes or no.
#SUDO=auto
