"""Who hears whose adverts, and why several nodes hold the VIP: what each of them hears of the others, and drops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exlb_fab.checks import added, election
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped
from exlb_fab.checks.firewall import blocking
from exlb_fab.cluster import Node
from exlb_fab.dump import RECEIVED, SENT, UNWRITABLE, Instance
from exlb_fab.firewall import VRRP_PROTOCOL
from exlb_fab.platforms import KEEPALIVED_UNIT

# What a receiver counts an advert as that it drops, and what that means. Source: keepalived vrrp/vrrp.c vrrp_in_chk.
DROPPED = {
    "Authentication Errors: Failure": "the passwords differ",
    "Authentication Errors: Type Mismatch": "only some of them have a password",
    "Authentication Errors: Invalid Type": "only some of them have a password",
    "Packet Errors: Advertisement Interval": "the advert intervals differ",
    "Packet Errors: Address List": "the VIPs differ",
    "Packet Errors: TTL": "the adverts have been routed, and VRRP does not cross a router",
    "Packet Errors: Length": "the adverts are not whole",
}


CHECKS = Register()


@CHECKS.per_node("vrrp.adverts", "The adverts of the holder arrive")
def adverts(view: View, node: Node) -> Verdict:
    """Judge by what keepalived counts during the probe: a backup shows by its state only later that it hears nobody."""
    instance = view.facts(node).instance(view.cluster.vip)
    if instance is None or instance.state not in ("MASTER", "BACKUP"):
        return skipped("keepalived neither sends nor listens")
    count = instance.counted(SENT if instance.state == "MASTER" else RECEIVED)
    if count is None:
        return skipped("keepalived does not tell what it has counted")
    if instance.advert_seconds > view.cluster.vrrp.advert_seconds:
        return skipped("its interval is not the one of the environment file")
    if count:
        return passed("sends" if instance.state == "MASTER" else "hears")
    dropped = _dropped(view, [node])
    if instance.state == "MASTER":
        said = "is MASTER, and sends no adverts"
        # Each advert that arrives sets its timer anew. Source: keepalived vrrp/vrrp_scheduler.c vrrp_dispatcher_read.
        if dropped:
            return failed(said, cause=f"{dropped}, and each of them puts its own off", hint="exlb push-config")
        return failed(said, hint=f"exlb restart {KEEPALIVED_UNIT}{_nodes([node])}")
    said = "hears no adverts, and will take the VIP"
    masters = [other for other, each in election.instances(view).items() if each.state == "MASTER"]
    if dropped:
        return failed(said, cause=dropped, hint="exlb push-config")
    if blocked := blocking(view, hearing=[node], sending=masters):
        return failed(said, cause=blocked.cause, hint=blocked.hint)
    cause = None if masters else "no node that was asked is MASTER"
    return failed(said, cause=cause, hint=_way(view.answering))


def split(view: View, holders: Sequence[Node]) -> Verdict:
    """Judge that several nodes hold the VIP; the first cause that can be shown is named."""
    said = f"split brain: {', '.join(map(str, holders))} all hold {view.cluster.vip}"
    if others := added.only_by_others(view, holders, view.cluster.vip):
        return failed(said, cause=added.cause(others), hint=added.removal(others))
    stale = [node for node in holders if _is_stale(view, node)]
    if stale:
        names = ", ".join(map(str, stale))
        cause = f"{KEEPALIVED_UNIT} on {names} is not MASTER, and has left the address behind"
        running = [node for node in stale if view.facts(node).units[KEEPALIVED_UNIT].running]
        # A push starts what does not run, a restart does not.
        hint = f"exlb restart {KEEPALIVED_UNIT}{_nodes(running)}" if running == stale else "exlb push-config"
        return failed(said, cause=cause, hint=hint)
    found = election.instances(view)
    silent = [node for node in holders if view.facts(node).keepalived_silence not in ("", *UNWRITABLE)]
    if silent and set(found) & set(holders):
        cause = f"{KEEPALIVED_UNIT} on {', '.join(map(str, silent))} runs, and does not tell how: it hangs"
        return failed(said, cause=cause, hint=f"exlb restart {KEEPALIVED_UNIT}{_nodes(silent)}")
    differ = election.disagreements({node: found[node] for node in holders if node in found})
    if differ:
        return failed(said, cause="; ".join(differ), hint="exlb push-config")
    dropped = _dropped(view, holders)
    if dropped:
        return failed(said, cause=dropped, hint="exlb push-config")
    elsewhere = _elsewhere(view, found, holders)
    if elsewhere:
        return failed(said, cause=elsewhere, hint="exlb push-config")
    if blocked := blocking(view, hearing=holders, sending=holders):
        return failed(said, cause=blocked.cause, hint=blocked.hint)
    return failed(said, cause=_deaf(view, holders), hint=_way(holders))


def _is_stale(view: View, node: Node) -> bool:
    found = view.facts(node)
    instance = found.instance(view.cluster.vip)
    return not found.units[KEEPALIVED_UNIT].running or (instance is not None and instance.state != "MASTER")


def _elsewhere(view: View, found: Mapping[Node, Instance], nodes: Sequence[Node]) -> str | None:
    """Return which nodes speak VRRP on another interface than the one of the VIPs."""
    asked = {node: view.facts(node).carrier(view.cluster, node) for node in nodes if node in found}
    told = [
        f"{node} runs on {found[node].interface} instead of {wanted}"
        for node, wanted in asked.items()
        if wanted not in (None, found[node].interface)
    ]
    return "; ".join(told) or None


def _counted(view: View, node: Node, counter: str) -> int | None:
    instance = view.facts(node).instance(view.cluster.vip)
    return instance.counted(counter) if instance else None


def _dropped(view: View, nodes: Sequence[Node]) -> str | None:
    """Return what nodes drop adverts for."""
    told = [
        f"{node} drops adverts of the others: {why}"
        for node in nodes
        for counter, why in DROPPED.items()
        if (_counted(view, node, counter) or 0) > 0
    ]
    return "; ".join(dict.fromkeys(told)) or None


def _deaf(view: View, nodes: Sequence[Node]) -> str:
    """Return who hears whom, as far as the counters tell."""
    heard = {node: _counted(view, node, RECEIVED) for node in nodes}
    deaf = [str(node) for node, count in heard.items() if count == 0]
    hearing = [str(node) for node, count in heard.items() if count]
    if deaf and hearing:
        return f"adverts reach {', '.join(hearing)}, and do not reach {', '.join(deaf)}: one way is cut"
    return "they do not hear each other's adverts"


def _way(nodes: Sequence[Node]) -> str:
    names = " and ".join(map(str, nodes))
    return f"look at what is between {names}: switch, VLAN, firewalls; protocol {VRRP_PROTOCOL} has to pass both ways"


def _nodes(nodes: Sequence[Node]) -> str:
    return "".join(f" --nodes {node}" for node in nodes)
