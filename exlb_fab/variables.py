"""The table of what the environment file can say: every variable, its default, and how to write it."""

from collections.abc import Mapping
from dataclasses import dataclass

MOST_NODES = 50  # more do not get a priority each, see vrrp


@dataclass(frozen=True, slots=True)
class Spec:
    """Describe one variable.

    `default` is what holds if the file does not set it, as it would be written there; where that is no constant,
    `otherwise` says it in words. `right` tells how to write it.
    """

    name: str
    description: str
    right: str
    default: str = ""
    otherwise: str = ""
    unit: str = ""
    is_array: bool = False
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
        "the network interface of the nodes that carries the VIP",
        "write VIP_IF=INTERFACE, a name that `ip -br link` shows on the nodes",
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
        "ROUTER_ID",
        "the virtual_router_id (VRID); no other VRRP group of the network segment may have it",
        "write a whole number from 1 to 255",
        default="68",
        unit="number from 1 to 255",
    ),
    Spec(
        "HEALTH_CHECK",
        "how the proxy checks a kube-apiserver: an HTTPS request of /readyz, or a mere TCP connection",
        "write readyz or tcp",
        default="readyz",
        unit="readyz or tcp",
    ),
    Spec(
        "BALANCE",
        "how the proxy spreads connections over the kube-apiservers",
        "write source, roundrobin or leastconn",
        default="source",
        unit="source, roundrobin or leastconn",
    ),
    Spec(
        "STATS_PORT",
        "the port of the proxy's statistics page",
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
        "the password of the statistics page",
        "write 1 to 128 printable signs",
        otherwise="none, and the page listens on 127.0.0.1 only",
        secret=True,
    ),
    Spec(
        "ADVERT_INT",
        "the time between two VRRP advertisements",
        "write a whole number from 1 to 255",
        default="1",
        unit="seconds",
    ),
    Spec(
        "CHECK_INTERVAL",
        "the time between two checks of the proxy by keepalived",
        "write a whole number from 1 to 255",
        default="2",
        unit="seconds",
    ),
    Spec(
        "CHECK_FALL",
        "after how many failed checks in a row a node counts as failed",
        "write a whole number from 1 to 255",
        default="2",
        unit="checks",
    ),
    Spec(
        "CHECK_RISE",
        "after how many passed checks in a row a node counts as well again",
        "write a whole number from 1 to 255",
        default="2",
        unit="checks",
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
