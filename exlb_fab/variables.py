"""The table of what the environment file can say: every variable, its default, and how to write it."""

from collections.abc import Mapping
from dataclasses import dataclass

MOST_NODES = 50  # more do not get a priority each, see vrrp


@dataclass(frozen=True, slots=True)
class Spec:
    """Describe one variable.

    `default` is what holds if the file does not set it, as it would be written there; where that is no constant,
    `otherwise` says it in words. `right` tells how to write it. `has_blanks` are elements of more than one word.
    """

    name: str
    description: str
    right: str
    default: str = ""
    otherwise: str = ""
    unit: str = ""
    is_array: bool = False
    has_blanks: bool = False
    required: bool = False
    secret: bool = False


VARIABLES: tuple[Spec, ...] = (
    Spec(
        "NODE_IPS",
        "the addresses of the load-balancer nodes; the first is the master",
        "write NODE_IPS=(ADDRESS ...)",
        is_array=True,
        required=True,
    ),
    Spec(
        "VIP_IF",
        "the network interface of the nodes that carries the VIP; auto finds it by the network of the VIP",
        "write VIP_IF=INTERFACE, a name that `ip -br link` shows on the nodes, or VIP_IF=auto",
        required=True,
    ),
    Spec(
        "MASTER_VIP",
        "the virtual address, or address/prefix",
        "write MASTER_VIP=ADDRESS or MASTER_VIP=ADDRESS/PREFIX",
        required=True,
    ),
    Spec(
        "NODE_NAMES",
        "the names of the nodes, one for each address, in the same order",
        "write NODE_NAMES=(NAME ...), names made of letters, digits, dots and dashes",
        otherwise="the addresses in NODE_IPS",
        is_array=True,
    ),
    Spec(
        "NODE_VIP_IFS",
        "the interface of each node, where they differ, in the same order; auto as in VIP_IF",
        "write NODE_VIP_IFS=(INTERFACE ...), one for each of NODE_IPS",
        otherwise="VIP_IF on every node",
        is_array=True,
    ),
    Spec(
        "EXTRA_VIPS",
        "more virtual addresses, or address/prefix, which move together with MASTER_VIP",
        "write EXTRA_VIPS=(ADDRESS/PREFIX ...)",
        otherwise="none",
        is_array=True,
    ),
    Spec(
        "APISERVER_IPS",
        "the addresses or DNS names of the kube-apiservers",
        "write APISERVER_IPS=(ADDRESS ...), addresses or DNS names without a port",
        otherwise="the addresses in NODE_IPS",
        is_array=True,
    ),
    Spec(
        "APISERVER_NAMES",
        "what the proxy calls the kube-apiservers, one for each, in the same order",
        "write APISERVER_NAMES=(NAME ...), names made of letters, digits and . _ : -",
        otherwise="the texts in APISERVER_IPS",
        is_array=True,
    ),
    Spec(
        "APISERVER_SRC_PORT",
        "the port that the kube-apiservers listen on",
        "write a port from 1 to 65535",
        default="6443",
        unit="TCP port",
    ),
    Spec(
        "APISERVER_DEST_PORT",
        "the port that the proxy listens on, and that clients connect to",
        "write a port from 1 to 65535",
        default="8443",
        unit="TCP port",
    ),
    Spec(
        "KUBE_APISERVER",
        "the address that clients use; only checked: it must lead to the VIP and to APISERVER_DEST_PORT",
        "write https://HOST:PORT",
        otherwise="not checked",
        unit="https URL",
    ),
    Spec(
        "HEALTH_CHECK",
        "how the proxy checks a kube-apiserver: an HTTPS request of that path, a TLS greeting, or a TCP connection",
        "write readyz, healthz, livez, ssl-hello or tcp",
        default="readyz",
        unit="readyz, healthz, livez, ssl-hello or tcp",
    ),
    Spec(
        "APISERVER_CA",
        "the file on this host with the authorities whose certificates HEALTH_CHECK accepts; ~ is your home directory",
        "write the path of a PEM file",
        otherwise="none, and any certificate is accepted",
        unit="path",
    ),
    Spec(
        "BACKEND_INTER",
        "the time between two checks of a backend by the proxy",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        default="2s",
        unit="time",
    ),
    Spec(
        "BACKEND_FALL",
        "after how many failed checks in a row a backend is down",
        "write a whole number from 1 to 255",
        default="2",
        unit="checks",
    ),
    Spec(
        "BACKEND_RISE",
        "after how many passed checks in a row a backend is up again",
        "write a whole number from 1 to 255",
        default="2",
        unit="checks",
    ),
    Spec(
        "BACKEND_SLOWSTART",
        "the time in which a backend that is up again comes to its full share",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        default="0",
        unit="time",
    ),
    Spec(
        "BALANCE",
        "how the proxy spreads connections over the backends",
        "write source, roundrobin, leastconn, static-rr or first",
        default="source",
        unit="source, roundrobin, leastconn, static-rr or first",
    ),
    Spec(
        "LISTENER_LAYOUT",
        "how a listener is written: one listen section, or a frontend and a backend",
        "write listen or frontend",
        default="listen",
        unit="listen or frontend",
    ),
    Spec(
        "BIND",
        "the addresses that the proxy listens on: all, the VIPs alone, or the VIPs and the own address of the node",
        "write all, vip or node",
        default="all",
        unit="all, vip or node",
    ),
    Spec(
        "TIMEOUT_CONNECT",
        "how long the proxy waits for a backend to take a connection",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        default="5s",
        unit="time",
    ),
    Spec(
        "TIMEOUT_CLIENT",
        "how long a client may be silent; less than 10m cuts watches and `kubectl logs -f`",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        default="10m",
        unit="time",
    ),
    Spec(
        "TIMEOUT_SERVER",
        "how long a backend may be silent; less than 10m cuts watches and `kubectl logs -f`",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        default="10m",
        unit="time",
    ),
    Spec(
        "TIMEOUT_CHECK",
        "how long a check of a backend may take once it is connected",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        otherwise="what the proxy does: BACKEND_INTER",
        unit="time",
    ),
    Spec(
        "TIMEOUT_QUEUE",
        "how long a connection waits for a backend that has no room",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        otherwise="what the proxy does: TIMEOUT_CONNECT",
        unit="time",
    ),
    Spec(
        "MAXCONN",
        "how many connections the proxy takes at the same time; the file limit of its unit is raised to fit",
        "write a whole number from 1 to 10000000",
        otherwise="what the proxy makes of the file limit of its unit",
        unit="connections",
    ),
    Spec(
        "LOG",
        "where the proxy logs to: its own output, which is the journal, or /dev/log",
        "write journal or syslog",
        default="journal",
        unit="journal or syslog",
    ),
    Spec(
        "HARD_STOP_AFTER",
        "how long a process of before a reload may live on for its open connections",
        "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds",
        otherwise="until the last of them has ended",
        unit="time",
    ),
    Spec(
        "SERVER_STATE",
        "whether what is drained or disabled through the admin socket stays so when exlb reloads the proxy",
        "write yes or no",
        default="no",
        unit="yes or no",
    ),
    Spec(
        "INGRESS_NODE_IPS",
        "the addresses or DNS names of the nodes with an ingress controller",
        "write INGRESS_NODE_IPS=(ADDRESS ...), addresses or DNS names without a port",
        otherwise="none, and there is no listener for an ingress",
        is_array=True,
    ),
    Spec(
        "INGRESS_HTTP_NODEPORT",
        "the port of those nodes that serves the ingress over HTTP",
        "write a port from 1 to 65535",
        otherwise="none, and there is no listener for it",
        unit="TCP port",
    ),
    Spec(
        "INGRESS_HTTPS_NODEPORT",
        "the port of those nodes that serves the ingress over HTTPS",
        "write a port from 1 to 65535",
        otherwise="none, and there is no listener for it",
        unit="TCP port",
    ),
    Spec(
        "INGRESS_HTTP_PORT",
        "the port that the proxy listens on for the ingress over HTTP",
        "write a port from 1 to 65535",
        default="80",
        unit="TCP port",
    ),
    Spec(
        "INGRESS_HTTPS_PORT",
        "the port that the proxy listens on for the ingress over HTTPS",
        "write a port from 1 to 65535",
        default="443",
        unit="TCP port",
    ),
    Spec(
        "INGRESS_PROXY_PROTOCOL",
        "the version of the PROXY protocol in which the ingress learns the address of a client",
        "write no, v1 or v2",
        default="no",
        unit="no, v1 or v2",
    ),
    Spec(
        "EXTRA_LISTENERS",
        "more TCP listeners, each with a name, a port, backends, and how these are checked",
        'write EXTRA_LISTENERS=("NAME PORT BACKEND:PORT,BACKEND:PORT [CHECK]" ...), CHECK being tcp, none, '
        "ssl-hello, http:/PATH or https:/PATH",
        otherwise="none",
        is_array=True,
        has_blanks=True,
    ),
    Spec(
        "STATS_BIND",
        "the address that the statistics page listens on",
        "write 0.0.0.0 or :: for all addresses of a node, or 127.0.0.1",
        otherwise="0.0.0.0 with a STATS_PASSWORD, 127.0.0.1 without",
        unit="address",
    ),
    Spec(
        "STATS_PORT",
        "the port of the statistics page",
        "write a port from 1 to 65535",
        default="10080",
        unit="TCP port",
    ),
    Spec(
        "STATS_USER",
        "the user of the statistics page, where STATS_PASSWORD is set",
        "write up to 32 letters, digits and . _ @ -",
        default="admin",
    ),
    Spec(
        "STATS_PASSWORD",
        "the password of the statistics page; generate makes one, and keeps it in a file beside this one",
        "write 1 to 128 printable signs, or generate",
        otherwise="none",
        secret=True,
    ),
    Spec(
        "STATS_ADMIN",
        "whether servers can be disabled and drained on the statistics page",
        "write yes or no",
        default="no",
        unit="yes or no",
    ),
    Spec(
        "EXPORTER",
        "whether /metrics on the port of the statistics page answers Prometheus",
        "write yes or no",
        default="no",
        unit="yes or no",
    ),
    Spec(
        "ROUTER_ID",
        "the virtual_router_id (VRID); no other VRRP group of the network segment may have it",
        "write a whole number from 1 to 255",
        default="68",
        unit="number from 1 to 255",
    ),
    Spec(
        "VRRP_MODE",
        "whether the nodes send their adverts to each other or to a multicast group",
        "write unicast or multicast",
        default="unicast",
        unit="unicast or multicast",
    ),
    Spec(
        "VRRP_IPS",
        "the addresses that the nodes send their adverts from and to, in the same order",
        "write VRRP_IPS=(ADDRESS ...), one for each of NODE_IPS, of the family of MASTER_VIP",
        otherwise="the addresses in NODE_IPS",
        is_array=True,
    ),
    Spec(
        "VRRP_VERSION",
        "the version of VRRP",
        "write 2 or 3",
        otherwise="2, with an IPv6 MASTER_VIP or TIMING=fast 3",
        unit="2 or 3",
    ),
    Spec(
        "AUTH_PASS",
        "the password in the adverts of version 2, sent in clear: it prevents accidents; generate makes one",
        "write 1 to 8 letters, digits and . _ @ + -, or generate",
        otherwise="none",
        secret=True,
    ),
    Spec(
        "PRIORITIES",
        "the priorities of the nodes, in the same order; the highest is the master",
        "write PRIORITIES=(NUMBER ...), one from 1 to 254 for each of NODE_IPS",
        otherwise="120 110 105 and so on",
        is_array=True,
    ),
    Spec(
        "PREEMPT",
        "whether a node takes the VIP back from one with a lower priority",
        "write yes or no",
        default="yes",
        unit="yes or no",
    ),
    Spec(
        "FAILOVER",
        "whether a failed check lowers a priority (a VIP always exists) or takes a node out of the election",
        "write weighted or fault",
        otherwise="weighted, with PREEMPT=no fault",
        unit="weighted or fault",
    ),
    Spec(
        "TRACK",
        "what keepalived checks on its node, several with commas: the process of the proxy by events of the kernel, "
        "or by a script, an apiserver through the proxy, or the port of the proxy",
        "write process, script, apiserver or port",
        default="script",
        unit="process, script, apiserver or port",
    ),
    Spec(
        "TIMING",
        "the times below that are not set: default, those of the documents, or fast (version 3)",
        "write default, documents or fast",
        default="default",
        unit="default, documents or fast",
    ),
    Spec(
        "ADVERT_INT",
        "the time between two VRRP adverts; less than a second takes version 3",
        "write seconds: a whole number from 1 to 255, or 0.1 to 40.95 in version 3",
        otherwise="as TIMING says: 1, documents 3, fast 0.3",
        unit="seconds",
    ),
    Spec(
        "CHECK_INTERVAL",
        "the time between two checks of the node by keepalived",
        "write a whole number from 1 to 255",
        otherwise="as TIMING says: 1, documents 5, fast 1",
        unit="seconds",
    ),
    Spec(
        "CHECK_TIMEOUT",
        "how long such a check may take",
        "write a whole number from 1 to 255",
        default="2",
        unit="seconds",
    ),
    Spec(
        "CHECK_FALL",
        "after how many failed checks in a row a node counts as failed",
        "write a whole number from 1 to 255",
        otherwise="as TIMING says: 2, documents 1, fast 2",
        unit="checks",
    ),
    Spec(
        "CHECK_RISE",
        "after how many passed checks in a row a node counts as well again",
        "write a whole number from 1 to 255",
        otherwise="as TIMING says: 2, documents 1, fast 2",
        unit="checks",
    ),
    Spec(
        "CHECK_WEIGHT",
        "what a failed check takes from the priority of a node, or, above 0, a passed one adds",
        "write a whole number from -253 to 253, as in -60",
        default="-60",
        unit="priority",
    ),
    Spec(
        "PROCESS_DELAY",
        "how long the process may be gone with TRACK=process",
        "write a whole number from 0 to 255",
        default="0",
        unit="seconds",
    ),
    Spec(
        "GARP_MASTER_DELAY",
        "the time after which a new master announces the VIPs a second time",
        "write a whole number from 0 to 255",
        default="5",
        unit="seconds",
    ),
    Spec(
        "GARP_MASTER_REPEAT",
        "how many packets it sends each time",
        "write a whole number from 1 to 255",
        default="5",
        unit="packets",
    ),
    Spec(
        "GARP_MASTER_REFRESH",
        "the time between two announcements of the master, 0 for none: a healed partition then cuts clients off",
        "write a whole number from 0 to 255",
        default="1",
        unit="seconds",
    ),
    Spec(
        "GARP_MASTER_REFRESH_REPEAT",
        "how many packets it sends each time",
        "write a whole number from 1 to 255",
        default="1",
        unit="packets",
    ),
    Spec(
        "FIREWALL",
        "whether exlb opens the firewall of the nodes for VRRP and the listeners, or only checks it",
        "write check, manage or ignore",
        default="check",
        unit="check, manage or ignore",
    ),
    Spec(
        "SSH_USER",
        "the user to log in as on the nodes",
        "write a user name made of letters, digits and . _ -",
        default="root",
    ),
    Spec(
        "SSH_PORT",
        "the port of the nodes' sshd",
        "write a port from 1 to 65535",
        default="22",
        unit="TCP port",
    ),
    Spec(
        "SSH_KEY",
        "the private key to log in with; ~ is your home directory",
        "write the path of a private key",
        otherwise="your ssh_config, your agent and the usual files in ~/.ssh",
        unit="path",
    ),
    Spec(
        "SSH_GATEWAY",
        "the host to jump through to the nodes",
        "write [USER@]HOST[:PORT]",
        otherwise="what your ssh_config says (ProxyJump)",
        unit="[user@]host[:port]",
    ),
    Spec(
        "SSH_KNOWN_HOSTS",
        "the file with the host keys of the nodes; ~ is your home directory",
        "write the path of a known_hosts file",
        otherwise="what your ssh_config says, else ~/.ssh/known_hosts",
        unit="path",
    ),
    Spec(
        "SUDO",
        "whether programs that need root are run through sudo; auto: unless SSH_USER is root",
        "write auto, yes or no",
        default="auto",
        unit="auto, yes or no",
    ),
)
SPECS: Mapping[str, Spec] = {spec.name: spec for spec in VARIABLES}
KNOWN = tuple(SPECS)

# Other tools source the same file. These names are theirs, however much they look like ours.
UNRELATED = frozenset(
    """
    BOOTSTRAP_TOKEN CLUSTER_CIDR CLUSTER_DNS_DOMAIN CLUSTER_DNS_SVC_IP CLUSTER_KUBERNETES_SVC_IP CLUSTER_NAME
    CONTAINERD_DIR DOCKER_DIR ENCRYPTION_KEY ETCD_DATA_DIR ETCD_ENDPOINTS ETCD_IPS ETCD_NAMES ETCD_NODES ETCD_WAL_DIR
    FLANNEL_ETCD_PREFIX IFACE K8S_DIR MASTER_IP MASTER_IPS MASTER_NAMES NODE_IP NODE_NAME NODE_PORT_RANGE POD_CIDR
    SERVICE_CIDR SSH_OPTS VIP WORKER_IPS WORKER_NAMES
    """.split()  # noqa: SIM905 - a paragraph of names reads better than a column of strings
)
