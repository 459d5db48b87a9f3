"""Is it the holder to whom the others send what is meant for the VIP, and does it alone answer for it?"""

from __future__ import annotations

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node, Vip
from exlb_fab.host import Neighbour

CHECKS = Register()

# Source: Linux net/core/neighbour.c: a stale entry that is used becomes one of these.
_IN_USE = ("REACHABLE", "DELAY", "PROBE", "NOARP")
# Somebody has written it, and the kernel leaves it alone. Source: ip-neighbour(8), `nud permanent`.
_STATIC = "PERMANENT"


@CHECKS.per_node("vip.mac", "The node sends to the holder what is meant for the VIP, and nobody else answers")
def mac(view: View, node: Node) -> Verdict:
    return view.of_each_vip(lambda vip: _mac(view, node, vip))


def _mac(view: View, node: Node, vip: Vip) -> Verdict:
    holder = view.holder(vip)
    if holder is None:
        return skipped("not exactly one node holds the VIP")
    known = view.facts(node).neighbours.get(str(vip), ())
    # The holder does not use its own, and will once another node holds the VIP.
    if written := next((each for each in known if each.state == _STATIC), None):
        return _written(view, node, vip, holder, written)
    if node == holder:
        return passed("its own")
    # The ping a moment ago has used one; an older entry, of another interface perhaps, says nothing. Without a MAC
    # nobody has answered yet; behind a router there is no entry at all.
    seen = {each.mac for each in known if each.mac and each.state in _IN_USE}
    answered = view.facts(node).arp_answers.get(str(vip), frozenset())
    own = set(view.facts(holder).macs.values())
    if not (seen or answered) or not own:
        return skipped(f"{node} knows no MAC of {vip}")
    if astray := sorted(seen - own):
        return _misled(view, node, vip, holder, astray[0])
    if others := sorted(answered - own):
        return rivalled(view, str(node), vip, holder, others[0])
    return passed(f"{holder}'s")


def _written(view: View, node: Node, vip: Vip, holder: Node, entry: Neighbour) -> Verdict:
    """Judge that a node has been told by hand where to send: today that may be right, after a failover it is not."""
    owner = _owner(view, entry.mac)
    said = f"{node} sends to {entry.mac}, which is {_whose(owner)}, and {holder} holds {vip}"
    if node == holder:
        said = f"{node} holds {vip}, and will send to {entry.mac}, which is {_whose(owner)}, once another node does"
    elif owner == holder:
        said = f"{node} sends to {entry.mac}, which is {holder}'s, and still will once another node holds {vip}"
    cause = "a static entry, which no announcement (gratuitous ARP) changes"
    # `ip neigh flush` leaves a static entry where it is.
    hint = f"exlb exec --sudo --nodes {node} -- ip neigh del {vip} dev {entry.interface}"
    return failed(said, cause=cause, hint=hint)


def _misled(view: View, node: Node, vip: Vip, holder: Node, mac: str) -> Verdict:
    """Judge that a node sends to another MAC than the holder's."""
    owner = _owner(view, mac)
    said = f"{node} sends to {mac}, which is {_whose(owner)}, and {holder} holds {vip}"
    flush = f"exlb exec --sudo --nodes {node} -- ip neigh flush to {vip}"
    if owner:
        cause = "it missed the holder's announcement (gratuitous ARP), or its switch drops it"
        return failed(said, cause=cause, hint=flush)
    if maybe := _unasked(view):
        return warned(said, cause=maybe, hint=flush)
    return failed(said, cause="another host has the same address", hint=_find(mac))


def rivalled(view: View, asker: str, vip: Vip, holder: Node, mac: str) -> Verdict:
    """Judge that another MAC answers as well as the holder's: who asked has believed the holder, a client may not."""
    owner = _owner(view, mac)
    said = f"{mac}, which is {_whose(owner)}, answers {asker} for {vip} as well as {holder}, which holds it"
    if owner:
        cause = f"{owner} answers for addresses that it does not have (proxy ARP)"
        return failed(said, cause=cause, hint=f"exlb exec --nodes {owner} -- sysctl -a -r proxy_arp")
    if maybe := _unasked(view):
        return warned(said, cause=maybe, hint=_find(mac))
    cause = "another host has the same address, or a router answers in its place (proxy ARP)"
    return failed(said, cause=cause, hint=_find(mac))


def _owner(view: View, mac: str | None) -> Node | None:
    return next((node for node in view.answering if mac in view.facts(node).macs.values()), None)


def _whose(owner: Node | None) -> str:
    return f"{owner}'s" if owner else "no node's"


def _unasked(view: View) -> str | None:
    """Return what a MAC that is no node's may be where not every node could be asked."""
    away = " or ".join(str(node) for node in view.cluster.nodes if node not in view.answering)
    return f"it may be {away}, which could not be asked, or another host" if away else None


def _find(mac: str) -> str:
    return f"find the host with {mac}: the switch's table of MACs names its port"
