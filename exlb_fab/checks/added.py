"""What somebody else than keepalived has added to a node of the VIPs: it removes only what it has added itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exlb_fab.checks.base import View
from exlb_fab.cluster import Node, Vip
from exlb_fab.facts import Address
from exlb_fab.platforms import KEEPALIVED_UNIT

Places = Mapping[Node, tuple[Address, ...]]


def by_others(view: View, nodes: Iterable[Node], *vips: Vip) -> Places:
    """Return where nodes have VIPs and keepalived would not add them: another interface, or another prefix."""
    return _nonempty({node: tuple(each for vip in vips for each in _by_somebody(view, node, vip)) for node in nodes})


def only_by_others(view: View, nodes: Iterable[Node], *vips: Vip) -> Places:
    """Return the same of those VIPs that keepalived has not added as well.

    One that is MASTER has added them, in its own way where its file is not what a push would write.
    """
    return _nonempty(
        {
            node: tuple(
                each
                for vip in vips
                if (odd := _by_somebody(view, node, vip)) == _places(view, node, vip)
                for each in odd
            )
            for node in nodes
            if not _may_be_master(view, node)
        }
    )


def cause(added: Places) -> str:
    """Return what has come about: nobody takes away what keepalived has not added."""
    told = ", ".join(f"{each} of {node}" for node, places in added.items() for each in places)
    return f"somebody else than keepalived has added {told}: it stays when the VIP moves"


def removal(added: Places) -> str:
    """Return what to type; keepalived, restarted, would leave it where it is."""
    return "; ".join(
        f"exlb exec --sudo --nodes {node} -- ip addr del {each.address} dev {each.interface}"
        for node, places in added.items()
        for each in places
    )


def _by_somebody(view: View, node: Node, vip: Vip) -> tuple[Address, ...]:
    instance = view.facts(node).instance(view.cluster.vip)
    ours = {view.facts(node).carrier(view.cluster, node), instance.interface if instance else None} - {None}
    return tuple(
        each
        for each in _places(view, node, vip)
        if ours and (each.interface not in ours or each.address.network.prefixlen != vip.length)
    )


def _may_be_master(view: View, node: Node) -> bool:
    instance = view.facts(node).instance(view.cluster.vip)
    return view.facts(node).units[KEEPALIVED_UNIT].running and (instance is None or instance.state == "MASTER")


def _places(view: View, node: Node, vip: Vip) -> tuple[Address, ...]:
    return view.facts(node).places(vip.address)


def _nonempty(found: Places) -> Places:
    return {node: places for node, places in found.items() if places}
