"""Is there room for the VIPs and their VRID on the network segment of the nodes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from exlb_fab.checks.base import Register, Verdict, View, failed, gravest, passed, skipped, warned
from exlb_fab.cluster import Address, Node, Vip
from exlb_fab.ground import NO_TCPDUMP, Owners
from exlb_fab.platforms import KEEPALIVED_UNIT

CHECKS = Register()


@CHECKS.per_node("segment.vip", "Nobody else answers for the VIPs")
def vips(view: View, node: Node) -> Verdict:
    """A node on which exlb runs already may have them."""
    return gravest(_vip(view, node, vip) for vip in view.cluster.vips)


def _vip(view: View, node: Node, vip: Vip) -> Verdict:
    if view.facts(node).holds(vip.address):
        return _own(view, node, vip)
    owners = view.ground(node).owners.get(vip.address, Owners())
    known = {mac: other for other in view.answering for mac in view.facts(other).macs.values()}
    strange = sorted(owners.macs - known.keys())
    if not owners.macs:
        return _unseen(vip) if owners.ping else passed("nobody answers")
    if not strange:
        return passed(f"{' and '.join(sorted({str(known[mac]) for mac in owners.macs}))} has it")
    said = f"{' and '.join(strange)} answers for {vip}"
    if len(view.answering) < len(view.cluster.nodes):
        return skipped(f"{said}; a node that could not be asked may have it")
    return failed(
        said,
        cause="another host has the address, or a router answers in its place (proxy ARP)",
        hint=f"free {vip}: the switch's table of MACs names the port of the host; or another MASTER_VIP or EXTRA_VIPS",
    )


def _unseen(vip: Vip) -> Verdict:
    """Judge an address that answers a ping, and has no MAC on the segment."""
    return failed(
        f"{vip} answers a ping from behind a router",
        cause="it is an address of another network, and somebody has it",
        hint="another MASTER_VIP or EXTRA_VIPS, of the network of the nodes",
    )


def _own(view: View, node: Node, vip: Vip) -> Verdict:
    """Judge that the node itself has a VIP."""
    facts = view.facts(node)
    if facts.generations.current is not None:
        return passed("has it: exlb runs there")
    own = next(each for each in facts.addresses if each.address.ip == vip.address)
    if facts.units[KEEPALIVED_UNIT].running:
        return warned(
            f"has {vip} on {own.interface} by a keepalived that is not exlb's",
            cause="a push takes it over, and the VIP may move once by it",
            hint=f"exlb push-config --dry-run --nodes {node} shows what would change",
        )
    return failed(
        f"has {vip} on {own.interface}, and no keepalived runs there",
        cause="it is an address of the node's own: it would never leave it",
        hint=f"take it out of the network configuration of the node, and: exlb exec --sudo --nodes {node} -- "
        f"ip addr del {own.address} dev {own.interface}",
    )


@CHECKS.per_node("segment.vrid", "Nobody else sends adverts with the VRID")
def vrid(view: View, node: Node) -> Verdict:
    """Heard for some seconds where there is tcpdump, and by the keepalived that runs; else nobody has listened."""
    ground, ours, wanted = view.ground(node), _ours(view), view.cluster.vrrp.router_id
    strangers = [each for each in ground.adverts or () if each.router_id == wanted and each.source not in ours]
    masters = {
        each.master
        for each in view.facts(node).instances
        if each.router_id == wanted and each.master is not None and each.master not in ours
    }
    senders = sorted({str(each.source) for each in strangers} | set(map(str, masters)))
    if senders:
        meant = bool(masters) or any(each.destination in ours for each in strangers)
        return _taken(view, senders, "to the nodes" if meant else "to others")
    if ground.adverts is None:
        said, name = f"nobody has listened: {ground.deaf}", view.facts(node).carrier(view.cluster, node)
        interface = ground.interfaces.get(name or "")
        if interface is None or not interface.up:  # network.interface has said so
            return skipped(said)
        if ground.deaf != NO_TCPDUMP:
            return warned(said, hint=f"exlb exec --sudo --nodes {node} -- timeout 5 tcpdump -n -i {name} ip proto 112")
        return warned(said, hint=_listen(view, node))
    others = sorted({each.router_id for each in ground.adverts if each.source not in ours})
    return passed(f"free; others use {', '.join(map(str, others))}" if others else "nobody")


def _listen(view: View, node: Node) -> str:
    """Return what lets doctor listen: it installs nothing by itself."""
    system = view.facts(node).system
    if system is None or system.platform is None:
        return f"install tcpdump on {node}, and exlb doctor again"
    manager = "apt-get" if system.platform.manager == "apt" else system.platform.manager
    return f"exlb exec --sudo --nodes {node} -- {manager} install -y tcpdump; then exlb doctor again"


def _taken(view: View, senders: Sequence[str], to: Literal["to the nodes", "to others"]) -> Verdict:
    vrrp = view.cluster.vrrp
    said = f"{' and '.join(senders)} sends adverts with VRID {vrrp.router_id}"
    hint = "choose another ROUTER_ID in environment.sh"
    if vrrp.mode == "unicast" and to == "to others":
        cause = (
            "another VRRP group uses it: no harm to VRRP_MODE=unicast, whose nodes take adverts of their peers alone"
        )
        return warned(said, cause=cause, hint=hint)
    return failed(said, cause="another VRRP group on this network uses the same VRID", hint=hint)


def _ours(view: View) -> frozenset[Address]:
    """Return every address of the nodes, by the environment file and by their own kernels."""
    told = {address for node in view.cluster.nodes for address in (node.address, node.source) if address is not None}
    return frozenset(told | {each.address.ip for node in view.answering for each in view.facts(node).addresses})
