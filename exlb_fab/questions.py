"""The questions that one probe asks a node, by what has to be known.

`node/probe.sh` answers a list of them in one exec. A question is words with single blanks between them; an answer is
text and an exit status, which `answers` understands.
"""

from __future__ import annotations

from exlb_fab import selinux
from exlb_fab.cluster import Address as IpAddress
from exlb_fab.cluster import Cluster, Listener, Node, Vip, bracketed
from exlb_fab.platforms import KEEPALIVED_PACKAGE, KEEPALIVED_PATH, KEEPALIVED_UNIT, PROGRAMS
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.rendering import paths
from exlb_fab.system import DGRAM_QLEN, nonlocal_binds
from exlb_fab.vrrp import listening_seconds

# Where a change writes, and what the programs log to.
WRITTEN = ("/etc", "/run", "/var/lib/exlb", "/var/log")
# Where a package manager writes what it installs, and what it fetches.
INSTALLED_TO = ("/usr", "/var/cache")


def vip_url(cluster: Cluster, vip: Vip | None = None) -> str:
    """Return what a client asks through a VIP, through that of the apiservers where none is given."""
    return f"https://{bracketed(str(vip or cluster.vip))}:{cluster.apiserver_listener.port}/readyz"


def node_url(cluster: Cluster, node: Node) -> str:
    """Return what the node itself asks through its own port."""
    return f"https://{bracketed(str(cluster.own_address(node)))}:{cluster.apiserver_listener.port}/readyz"


def urls_from_outside(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """Return what the other nodes ask through a node's own port: by each of its addresses that the proxy listens on.

    None where it is bound to the VIPs alone. One of the addresses may be of a network for VRRP, or for SSH, alone.
    """
    match cluster.proxying.bind:
        case "vip":
            addresses: tuple[IpAddress, ...] = ()
        case "node":
            addresses = (node.address,)
        case "all":
            addresses = tuple(dict.fromkeys((node.source or node.address, node.address)))
    port = cluster.apiserver_listener.port
    return tuple(f"https://{bracketed(str(each))}:{port}/readyz" for each in addresses)


def listener_url(listener: Listener, address: IpAddress) -> str:
    """Return what a client asks of a listener: what it speaks, or only a connection where nobody can know."""
    return f"{listener.scheme}://{bracketed(str(address))}:{listener.port}{listener.path}"


def installation_questions(proxy: Proxy) -> list[str]:
    """Return what `install` has to know: the system, the programs with their packages, the units."""
    return [
        "system",
        " ".join(("programs", proxy.process, *PROGRAMS)),
        " ".join(("packages", *proxy.packages, KEEPALIVED_PACKAGE)),
        f"unit {proxy.unit}",
        f"unit {KEEPALIVED_UNIT}",
    ]


def configuration_questions(cluster: Cluster) -> list[str]:
    """Return what a push has to know of a node."""
    proxy = PROXIES[cluster.proxy]
    return [
        *installation_questions(proxy),
        *(f"unit-files {name}" for name in (proxy.unit, KEEPALIVED_UNIT)),
        "network",
        *([f"kernel {DGRAM_QLEN}"] if cluster.proxying.log == "syslog" else []),
        "proxy-version",
        "keepalived-version",
        "addresses",
        "listeners",
        *(f"file {path}" for path in paths(cluster)),
        "generation",
        "proxy-state",
        "proxy-others",
        *(["firewall"] if cluster.firewall != "ignore" else []),
        selinux.question(PROXIES[cluster.proxy]),
    ]


def service_questions(cluster: Cluster, node: Node) -> list[str]:
    """Return what tells whether a client on the node is served, and whether the node would serve it."""
    others = cluster.listeners[1:]
    addresses = (*(vip.address for vip in cluster.vips), cluster.own_address(node))
    return [
        "keepalived-counters",
        f"keepalived-checks {KEEPALIVED_PATH}",
        f"strays {PROXIES[cluster.proxy].process} {PROXIES[cluster.proxy].unit}",
        "keepalived-complaints",
        *(f"ping {vip}" for vip in cluster.vips),
        *(f"neighbours {vip}" for vip in cluster.vips),  # after the pings, which find out
        "links",
        *(f"kernel {name}" for name in nonlocal_binds(cluster)),
        *(f"request {vip_url(cluster, vip)}" for vip in cluster.vips),
        f"request {node_url(cluster, node)}",
        *(f"request {url}" for each in cluster.nodes if each != node for url in urls_from_outside(cluster, each)),
        *(f"request {listener_url(listener, address)}" for address in addresses for listener in others),
        *(f"certificate {endpoint}" for endpoint in shown_to(cluster, node)),
        " ".join(("space", *WRITTEN)),
        *(f"arp-answers {vip} {node.interface or '-'}" for vip in cluster.vips),
        f"keepalived-state {round(listening_seconds(cluster.vrrp.advert_seconds) * 1000)}",  # last, as it waits
        "clock",
    ]


def shown_to(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """Return the apiservers whose certificates a node is shown: each is asked by one node, in turn."""
    backends = cluster.apiserver_listener.backends
    place = cluster.nodes.index(node)
    return tuple(each.endpoint for number, each in enumerate(backends) if number % len(cluster.nodes) == place)
