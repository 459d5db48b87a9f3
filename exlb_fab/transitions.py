"""What a change of keepalived needs and costs: who stands still meanwhile, who begins last, who stops first. Pure.

A plan that was made file by file and node by node is put into the order in which never two nodes hold the VIP.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from exlb_fab import keepalived, vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.facts import Survey
from exlb_fab.keepalived import KeepalivedChange
from exlb_fab.planning import NodePlan, Plan, PlanError, UnitChange, nothing
from exlb_fab.platforms import KEEPALIVED_UNIT

MOST_REASONS = 8


def announced(plan: Plan, cluster: Cluster, texts: Mapping[Node, str], survey: Survey) -> Plan:
    """Return the plan in the order that its changes of keepalived need, and with what they cost.

    `texts` are the active keepalived.conf files of the nodes on which that file changes, and where keepalived starts
    somewhere, also of those `outside`. Raises PlanError where a change would leave nodes that run keepalived and do not
    hear each other.
    """
    _refuse_unheard(plan, cluster, texts, survey)
    _refuse_strangers(plan, cluster, texts, survey)
    changes = {
        each.node: keepalived.classify(texts.get(each.node, ""), _text(each))
        for each in plan.nodes
        if any(change.file.kind == "keepalived" for change in each.changes)
    }
    adverts = [keepalived.advert_seconds(text) or 0.0 for text in texts.values()]
    plan = replace(plan, advert_seconds=max(plan.advert_seconds, *adverts, 0.0))
    plan = _restarted(plan, changes)
    # A peer may be one of our nodes by another of its addresses: the file has sent from another family or network.
    known = {address for node in cluster.nodes for address in (node.address, node.source)}
    known |= {each.address.ip for found in survey.facts.values() for each in found.addresses}
    gone = {each for change in changes.values() for each in change.leaving - known}
    leaving = tuple(Node(str(each), each, None, len(cluster.nodes), 0, each) for each in sorted(gone, key=int))
    if leaving:
        what = "is no peer" if len(leaving) == 1 else "are no peers"
        notice = (
            f"{', '.join(map(str, leaving))} {what} any more: keepalived is stopped there first, and stays off at "
            f"boot, because it would hear nobody and hold {cluster.vip} too; where it holds it, the address moves "
            "once. Afterwards exlb decommission takes the rest of exlb off"
        )
        plan = replace(plan, notices=(*plan.notices, notice), asks=True, leaving=leaving)
    running = {node for node, found in survey.facts.items() if found.units[KEEPALIVED_UNIT].running}
    ending = {each.node for each in plan.nodes if each.keepalived.action == "stop"}
    apart = {node: each for node, each in changes.items() if each.deaf and node in running - ending}
    if ending and not running - ending and not any(each.keepalived.action == "start" for each in plan.nodes):
        notice = f"keepalived stops on all nodes: nobody will hold {cluster.vip}"
        plan = replace(plan, notices=(*plan.notices, notice), asks=True, vacant=True)
    if apart:
        plan = _apart(plan, cluster, apart, running, survey)
    elif any(change.joining for change in changes.values()):
        # Who joins begins when all others send to it: until then it would hear nobody and take the VIP.
        plan = replace(plan, waves=tuple(sorted(plan.waves, key=_starts_keepalived)))
        plan = _told_of_the_deaf(plan, cluster, survey)
    told = (*_taking_over(plan, cluster, texts, survey), *_costs(plan, cluster, texts, survey))
    return replace(plan, notices=(*plan.notices, *told))


def _told_of_the_deaf(plan: Plan, cluster: Cluster, survey: Survey) -> Plan:
    """Return the plan with a warning of nodes that cannot be asked: they do not send to who joins.

    Raises PlanError where one of them may hold the VIP now: who joins would not hear it, and take the VIP as well.
    """
    silent = ", ".join(map(str, survey.errors))
    joining = ", ".join(str(each.node) for each in plan.nodes if each.keepalived.action == "start")
    if not silent or not joining:
        return plan
    if not survey.holders(cluster.vip.address):
        raise PlanError(
            f"{silent} cannot be asked and may hold {cluster.vip}: it does not send to {joining} yet, "
            "and both would hold it",
            hint=f"push when it can be reached, or take it out of NODE_IPS in {cluster.path}",
        )
    notice = f"{silent} cannot be asked, and does not send to {joining}: it must not come back before it is pushed to"
    return replace(plan, notices=(*plan.notices, notice))


def outside(plan: Plan, survey: Survey) -> tuple[Node, ...]:
    """Return the nodes that run keepalived and are not in a plan."""
    chosen = {each.node for each in plan.nodes}
    return tuple(n for n, found in survey.facts.items() if n not in chosen and found.units[KEEPALIVED_UNIT].running)


def _refuse_unheard(plan: Plan, cluster: Cluster, texts: Mapping[Node, str], survey: Survey) -> None:
    """Refuse to start keepalived on a node to which one outside of the plan does not send: both would hold the VIP."""
    starting = [each.node for each in plan.nodes if each.keepalived.action == "start"]
    for node in outside(plan, survey):
        if starting and not survey.facts[node].generations.settled:
            raise PlanError(
                f"{node}: a change was interrupted: what its keepalived runs is not known", hint="exlb recover"
            )
        peers = keepalived.peers(texts.get(node, ""))
        unheard = [str(each) for each in starting if peers and each.source not in peers]
        if unheard:
            raise PlanError(
                f"{node} does not send to {', '.join(unheard)} yet, and both would hold {cluster.vip}",
                hint="who joins is pushed together with the others: leave --nodes out",
            )


def _refuse_strangers(plan: Plan, cluster: Cluster, texts: Mapping[Node, str], survey: Survey) -> None:
    """Refuse a plan after which two nodes run keepalived with files of which each discards the other's adverts.

    That is where the nodes stand on different generations, after a rollback to such ones for example.
    """
    running = {node for node, found in survey.facts.items() if found.units[KEEPALIVED_UNIT].running}
    alive = [each for each in plan.nodes if each.keepalived.action != "stop"]
    ends = {each.node: _text(each) for each in alive if each.node in running or each.keepalived.action == "start"}
    ends |= {node: texts.get(node, "") for node in outside(plan, survey)}
    moved = [each.node for each in alive if each.keepalived.action != "none" and ends[each.node]]
    for node in moved:
        for other, text in ends.items():
            if not text or other == node:
                continue
            change = keepalived.classify(_shared(text), _shared(ends[node]))
            if change.deaf:
                raise PlanError(
                    f"{node} and {other} would not hear each other, and both would hold {cluster.vip}: "
                    f"{'; '.join(change.reasons)}",
                    hint="push to all nodes, or go back to a generation that all of them have: exlb history",
                )
            for sender, receiver in ((node, other), (other, node)):
                if not keepalived.sends_to(ends[sender], ends[receiver]):
                    raise PlanError(
                        f"{sender} would not send to {receiver}, and both would hold {cluster.vip}",
                        hint=f"correct the template: unicast_peer of {sender} does not list {receiver}",
                    )


def _shared(text: str) -> str:
    """Return keepalived.conf text without that in which the nodes of a cluster may differ and hear each other.

    Who is in a list of peers is none of it, that there is one is: unicast and multicast do not hear each other.
    """
    text = re.sub(r"(\bunicast_peer\s*\{)[^}]*\}", r"\1 others\n}", text)
    own = "unicast_src_ip|mcast_src_ip|interface|router_id|state|priority"
    return re.sub(rf"^[ \t]*({own})\b.*$", "", text, flags=re.MULTILINE)


def _text(plan: NodePlan) -> str:
    return next((each.text for each in plan.desired.files if each.kind == "keepalived"), "")


def _starts_keepalived(wave: Sequence[NodePlan]) -> bool:
    return any(each.keepalived.action == "start" for each in wave)


def _restarted(plan: Plan, changes: Mapping[Node, KeepalivedChange]) -> Plan:
    """Turn reloads into restarts where a reload cannot bring the change about."""

    def restarted(each: NodePlan) -> NodePlan:
        change = changes.get(each.node)
        if change is None or change.kind != "restart" or each.keepalived.action != "reload":
            return each
        why = f"a reload cannot bring it about: {'; '.join(change.reasons)}"
        return replace(each, keepalived=UnitChange(KEEPALIVED_UNIT, "restart", why))

    return replace(
        plan,
        nodes=tuple(map(restarted, plan.nodes)),
        waves=tuple(tuple(map(restarted, wave)) for wave in plan.waves),
    )


def _apart(
    plan: Plan, cluster: Cluster, changes: Mapping[Node, KeepalivedChange], running: set[Node], survey: Survey
) -> Plan:
    """Order a change after which old and new do not hear each other: the holder alone, then the others on the new one.

    Source: docs/findings.md, "Split brain comes late".
    """
    changing = [each for each in plan.nodes if not each.still]
    left = outside(plan, survey)
    if left:
        raise PlanError(
            f"{', '.join(map(str, left))} would not hear "
            f"{', '.join(map(str, changes))} any more, and both sides would hold {cluster.vip}: "
            f"{_why(changes)}",
            hint="such a change is pushed to all nodes: leave --nodes out",
        )
    holders = survey.holders(cluster.vip.address)
    waiting = "".join(
        f"; {node} cannot be asked: it must not come back before it has been pushed to" for node in survey.errors
    )
    election = vrrp.election_seconds(cluster.priorities, plan.advert_seconds, cluster.vrrp.version)
    why = _why(changes)
    if len(holders) != 1:
        notice = f"old and new keepalived do not hear each other ({why}): all nodes change at once{waiting}"
        return replace(plan, waves=(tuple(changing),), notices=(*plan.notices, notice), apart=True)
    others = [each for each in changing if each.node not in holders]
    stops = tuple(
        NodePlan(
            each.node,
            (),
            nothing(each.proxy.unit),
            UnitChange(KEEPALIVED_UNIT, "stop", "until the holder has changed"),
            # What its proxy is to listen on, it does not yet.
            each.serving and each.proxy.action == "none",
        )
        for each in others
        if each.node in running
    )
    starts = tuple(
        replace(each, keepalived=UnitChange(KEEPALIVED_UNIT, "start", "the holder has changed"))
        if each.keepalived.action in ("reload", "restart")
        else each
        for each in others
    )
    first = tuple(each for each in changing if each.node in holders)
    if not others:
        return replace(plan, apart=True)
    notice = (
        f"old and new keepalived do not hear each other ({why}): keepalived stops on "
        f"{', '.join(str(each.node) for each in others)} until {holders[0]} has changed, and nobody could take over "
        f"meanwhile; clients lose {cluster.vip} for {math.ceil(election)} s at most{waiting}"
    )
    return replace(
        plan,
        nodes=tuple(next((start for start in starts if start.node == each.node), each) for each in plan.nodes),
        waves=tuple(wave for wave in (stops, first, starts) if wave),
        notices=(*plan.notices, notice),
        asks=True,
        apart=True,
    )


def _why(changes: Mapping[Node, KeepalivedChange]) -> str:
    """Return the worst reasons: where a file is another altogether, there are more than anybody reads."""
    reasons = list(dict.fromkeys(reason for change in changes.values() for reason in change.reasons))
    more = [f"and {len(reasons) - MOST_REASONS} more"] if len(reasons) > MOST_REASONS else []
    return "; ".join(reasons[:MOST_REASONS] + more)


def _taking_over(plan: Plan, cluster: Cluster, texts: Mapping[Node, str], survey: Survey) -> tuple[str, ...]:
    """Say that another node takes the VIP over, where the change turns the order of the priorities round."""
    holders = survey.holders(cluster.vip.address)
    new = {each.node: _text(each) for each in plan.nodes if each.keepalived.action != "stop"}
    if len(holders) != 1 or holders[0] not in new:
        return ()
    old = {node: texts.get(node, text) for node, text in new.items()}
    first = max(new, key=lambda node: keepalived.priority(new[node]))
    before = max(old, key=lambda node: keepalived.priority(old[node]))
    if first in (before, *holders) or not keepalived.preempting(new[first]):
        return ()
    return (
        f"{first} gets the highest priority and takes {cluster.vip} from {holders[0]}; that costs clients about a "
        "second, and ends their open connections",
    )


def _costs(plan: Plan, cluster: Cluster, texts: Mapping[Node, str], survey: Survey) -> tuple[str, ...]:
    """Say what restarts cost. Source: docs/findings.md, "What clients saw"."""
    holders = survey.holders(cluster.vip.address)
    costs = []
    for each in plan.nodes:
        if each.node not in holders:
            continue
        if each.keepalived.action == "restart":
            text = texts.get(each.node) or _text(each)
            moves = "away, and back again" if keepalived.preempting(text) else "away"
            costs.append(
                f"restarting keepalived on {each.node}, which holds {cluster.vip}, moves it {moves}; each move costs "
                "clients about a second, and ends their open connections"
            )
        if each.proxy.action == "restart":
            costs.append(
                f"restarting {each.proxy.unit} on {each.node}, which holds {cluster.vip}, ends its open connections "
                "and refuses new ones for less than a second"
            )
        if each.upgrade:
            costs.append(
                f"the packages' own scripts restart services on {each.node}, which holds {cluster.vip}: a newer "
                "keepalived moves it away, and back again where it preempts; each move costs clients about a second, "
                "and ends their open connections"
            )
    return tuple(costs)
