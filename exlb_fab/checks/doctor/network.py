"""Has each node the interface, the ports and the apiservers that the environment file names?"""

from __future__ import annotations

from collections.abc import Iterable

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node
from exlb_fab.facts import Address, Socket
from exlb_fab.planning import binds

CHECKS = Register()


@CHECKS.per_node("network.interface", "The interface of the VIPs is there and up, and its network has them")
def interface(view: View, node: Node) -> Verdict:
    """A push refuses what fails here."""
    cluster, there = view.cluster, view.ground(node).interfaces
    name = view.facts(node).carrier(cluster, node)
    own = _own(view, node)
    if name is None:
        return failed(
            f"VIP_IF=auto: not one interface has a network with {cluster.vip}",
            cause=f"it has {_listed(f'{each.interface} {each.address.network}' for each in own)}",
            hint="VIP_IF in environment.sh names one; or is MASTER_VIP another address?",
        )
    fitting = view.facts(node).interface_of(*cluster.vips)
    if name not in there:
        return failed(
            f"there is no interface {name}",
            cause=f"there is {_listed(each for each in there if each != 'lo')}",
            hint=f"VIP_IF={fitting or 'auto'} in environment.sh; VIP_IF=auto takes the one with the network of the VIP",
        )
    if not there[name].up:
        return failed(f"{name} is down", hint=f"exlb exec --sudo --nodes {node} -- ip link set {name} up")
    if not there[name].carrier:
        return failed(f"{name} has no carrier", hint="plug it in, or look at its port of the switch")
    networks = [each.address.network for each in own if each.interface == name]
    outside = [vip for vip in cluster.vips if not any(vip.address in network for network in networks)]
    if not outside:
        return passed(f"{name}, {_listed(networks)}")
    return failed(
        f"{name} has no network with {_listed(outside)}",
        cause=f"it has {_listed(networks)}",
        hint=f"VIP_IF={fitting}" if fitting else "another VIP_IF, or other addresses for MASTER_VIP and EXTRA_VIPS",
    )


def _own(view: View, node: Node) -> list[Address]:
    """Return the addresses of a node that put it into a network: not those that move, nor those of every interface."""
    moving = {vip.address for vip in view.cluster.vips}
    return [
        each
        for each in view.facts(node).addresses
        if each.address.ip not in moving and not each.address.is_loopback and not each.address.is_link_local
    ]


def _listed(words: Iterable[object]) -> str:
    return ", ".join(map(str, words)) or "none"


@CHECKS.overall("network.mtu", "The interfaces of the VIPs have the same MTU on all nodes")
def mtu(view: View) -> Verdict:
    found: dict[int, list[str]] = {}
    for node in view.answering:
        name = view.facts(node).carrier(view.cluster, node)
        if name is not None and name in view.ground(node).interfaces:
            found.setdefault(view.ground(node).interfaces[name].mtu, []).append(f"{node} ({name})")
    if not found:
        return skipped("no node has such an interface")
    if len(found) == 1:
        return passed(str(next(iter(found))))
    return warned(
        "; ".join(f"{size} on {', '.join(names)}" for size, names in found.items()),
        cause="packets that fit one node are too large for another: connections begin and then hang",
        hint="set the same MTU in the network configuration of the nodes, the one that the switch carries",
    )


@CHECKS.per_node("network.ports", "The ports of the proxy are free")
def ports(view: View, node: Node) -> Verdict:
    """A proxy of the same kind is no other one if its unit runs: else that of a pod, or one that somebody started."""
    facts, wanted = view.facts(node), binds(view.cluster, node)
    own = {view.proxy.process} if facts.units[view.proxy.unit].running else set[str]()
    taken = {
        port: _owner(view, each)
        for address, port in wanted
        for each in facts.sockets
        if each.process not in own and each.covers(address, port)
    }
    if taken:
        said = ", ".join(f"{process} listens on {port}" for port, process in taken.items())
        return failed(said, hint=f"stop it, or choose another port: {', '.join(_variables(view, taken))}")
    return passed(" ".join(dict.fromkeys(str(port) for _, port in wanted)))


def _owner(view: View, socket: Socket) -> str:
    if socket.process == view.proxy.process:
        return f"a {socket.process} that is not the unit {view.proxy.unit} (of a pod, or started by hand)"
    return socket.process or "another process"


def _variables(view: View, ports: Iterable[int]) -> list[str]:
    """Return what sets ports in the environment file."""
    cluster = view.cluster
    named = {cluster.apiserver_listener.port: "APISERVER_DEST_PORT", cluster.stats.port: "STATS_PORT"}
    others = {each.port: f"that of the listener {each}" for each in cluster.listeners[1:]}
    return [{**others, **named}[port] for port in ports]


@CHECKS.per_node("network.apiservers", "The node reaches the apiservers")
def apiservers(view: View, node: Node) -> Verdict:
    """Some that it does not reach are a warning, all of them a failure; before `kubeadm init` none is expected."""
    backends = view.cluster.apiserver_listener.backends
    found = {each.endpoint: contact for each in backends if (contact := view.ground(node).contacts.get(each.endpoint))}
    unknown = [contact for contact in found.values() if contact.reception == "unknown"]
    if not found or unknown:
        return skipped(unknown[0].said if unknown else "was not asked")
    missed = {endpoint: contact for endpoint, contact in found.items() if contact.reception != "taken"}
    reached = f"{len(found) - len(missed)} of {len(found)}"
    if not missed:
        return passed(reached)
    silent = [endpoint for endpoint, contact in missed.items() if contact.reception == "unanswered"]
    if view.expect_no_apiserver and not silent:
        return passed(f"{reached}; the hosts of the others are there")
    said = f"reaches {reached}: {', '.join(f'{endpoint}: {contact.said}' for endpoint, contact in missed.items())}"
    if silent:
        hint = f"is {' and '.join(silent)} up, routed to, and let in by the firewall of its host?"
    else:
        hint = "start the apiservers, or correct APISERVER_IPS and APISERVER_SRC_PORT"
    if view.expect_no_apiserver or len(missed) < len(found):
        return warned(said, hint=hint)
    return failed(said, hint=f"{hint} Before kubeadm init: exlb doctor --expect-no-apiserver")
