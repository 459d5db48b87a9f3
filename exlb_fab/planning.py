"""Desired files + what the nodes have -> a plan: what changes on each node, why, and in which order. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Literal

from exlb_fab import keepalived, vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import EnvironmentFileError, ExlbError
from exlb_fab.facts import Facts, FileFact, KeptFile, Survey
from exlb_fab.keepalived import KeepalivedChange
from exlb_fab.platforms import KEEPALIVED_UNIT, can_validate
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.rendering import File, Kind, mask_keepalived

Action = Literal["none", "reload", "start", "restart", "stop"]
CLOCK_SLACK_SECONDS = 1.5  # systemd tells times in whole seconds, and a reload follows the rename at once
ADOPTED = 0  # the generation of what was there before exlb


class PlanError(ExlbError):
    """A node is not fit for what is planned; nothing was changed anywhere."""


class NodeContradictionError(EnvironmentFileError):
    """The environment file says something that a node contradicts; nothing was changed anywhere."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What a node should have: all files of a generation, and the paths at which it has none.

    `number` is that of a generation which the node keeps, None where the files are brought to it.
    """

    files: tuple[File, ...]
    absent: tuple[File, ...] = ()
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One file that differs: `reason` is `missing`, `content`, `mode or owner`, or `to be removed`."""

    file: File
    found: FileFact
    reason: str


@dataclass(frozen=True, slots=True)
class UnitChange:
    """What a unit needs, and why."""

    unit: str
    action: Action
    why: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Packages that a node's own package manager brings to their newest versions."""

    manager: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What takes one node from what it has to what it should have.

    `serving` tells whether it serves clients now, and has to afterwards.
    `number` is the generation that this makes active, `previous` the one to go back to, which keeps what is active
    now. Both are None where no file changes.
    """

    node: Node
    changes: tuple[Change, ...]
    proxy: UnitChange
    keepalived: UnitChange
    serving: bool = False
    desired: Desired = Desired(())
    number: int | None = None
    previous: int | None = None
    upgrade: Upgrade | None = None

    @property
    def empty(self) -> bool:
        return not (self.changes or self.upgrade) and all(unit.action == "none" for unit in self.units)

    def summary(self) -> str:
        """Return the plan in one line for people."""
        if self.empty:
            return "no changes"
        files = [_told(change) for change in self.changes]
        units = [f"{unit.action} {unit.unit} ({unit.why})" for unit in self.units if unit.action != "none"]
        upgrade = [f"upgrade {', '.join(self.upgrade.packages)}"] if self.upgrade else []
        back = [f"back to generation {self.desired.number}"] if self.desired.number is not None else []
        return ", ".join((*back, *files, *units, *upgrade))

    @property
    def units(self) -> tuple[UnitChange, UnitChange]:
        return (self.proxy, self.keepalived)

    @property
    def moves_keepalived(self) -> bool:
        """Tell whether the holder may change by it, so that one holder counts only after a while."""
        return self.upgrade is not None or self.keepalived.action not in ("none", "stop")


def _told(change: Change) -> str:
    verb = "remove" if change.reason == "to be removed" else "write"
    return f"{verb} {change.file.path} ({change.reason})"


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes' plans in the order of the environment file, and the waves in which they are carried out.

    `notices` are what the operator has to know of the cost beforehand, `asks` that a yes to them is needed.
    `apart` tells that old and new keepalived do not hear each other, `vacant` that nobody is to hold the VIP in the
    end. `advert_seconds` is the largest interval, old or new.
    """

    proxy: Proxy
    nodes: tuple[NodePlan, ...]
    waves: tuple[tuple[NodePlan, ...], ...]
    advert_seconds: float
    notices: tuple[str, ...] = ()
    asks: bool = False
    apart: bool = False
    vacant: bool = False

    @property
    def empty(self) -> bool:
        return not self.waves


def plan(cluster: Cluster, desired: Mapping[Node, Desired], survey: Survey, *, unvalidated: bool = False) -> Plan:
    """Compare what is desired with what was found on the nodes that answered.

    `unvalidated` lets a keepalived pass that cannot validate. Raises NodeContradictionError or PlanError, with every
    reason, before anything is changed.
    """
    proxy = PROXIES[cluster.proxy]
    chosen = {node: survey.facts[node] for node in desired}
    _refuse_contradictions(cluster, chosen)
    _refuse_unfit(cluster, proxy, chosen, unvalidated=unvalidated)
    port = cluster.apiserver_listener.port
    nodes = tuple(
        _node_plan(node, desired[node], chosen[node], proxy, port) for node in cluster.nodes if node in desired
    )
    nodes = _numbered(nodes, survey)
    return _ordered(cluster, nodes, survey)


def kept_file(cluster: Cluster, found: KeptFile, text: str) -> File:
    """Return a file of a generation that a node keeps; `text` is "" for one that was not there."""
    proxy = PROXIES[cluster.proxy]
    kind: Kind = "proxy" if found.kind == "proxy" else "script" if found.kind == "script" else "keepalived"
    is_proxy = kind == "proxy"
    mark = re.search(re.escape(proxy.mark("0")).replace("0", "([0-9a-f]+)") + r"\s*$", text, re.MULTILINE)
    return File(
        path=found.path,
        text=text,
        mode=found.mode,
        kind=kind,
        unit=proxy.unit if is_proxy else KEEPALIVED_UNIT,
        digest=mark[1] if is_proxy and mark else "",
        mask=proxy.mask if is_proxy else mask_keepalived,
        owner=found.owner,
        known_sha256=found.sha256 or "",
    )


def restart(cluster: Cluster, nodes: Sequence[Node], units: Sequence[str], survey: Survey) -> Plan:
    """Plan a restart of units on nodes, in the same order and with the same gates as a push."""
    proxy = PROXIES[cluster.proxy]
    _refuse_unfit(cluster, proxy, {node: survey.facts[node] for node in nodes}, unvalidated=True)
    stopped = [str(node) for node in nodes if not survey.facts[node].units[KEEPALIVED_UNIT].running]
    if stopped and KEEPALIVED_UNIT in units:
        # Its file may be one on which it would not hear the others: only a push knows.
        raise PlanError(f"{KEEPALIVED_UNIT} does not run on {', '.join(stopped)}", hint="exlb push-config starts it")

    def change(unit: str) -> UnitChange:
        return UnitChange(unit, "restart", "asked for") if unit in units else _nothing(unit)

    plans = tuple(
        NodePlan(node, (), change(proxy.unit), change(KEEPALIVED_UNIT), _serving(survey.facts[node])) for node in nodes
    )
    return _ordered(cluster, plans, survey)


def upgrade(cluster: Cluster, packages: Mapping[Node, Upgrade], survey: Survey) -> Plan:
    """Plan an upgrade of packages, which restarts services, in the same order and with the same gates as a push."""
    proxy = PROXIES[cluster.proxy]
    plans = tuple(
        NodePlan(
            node,
            (),
            _nothing(proxy.unit),
            _nothing(KEEPALIVED_UNIT),
            _serving(survey.facts[node]),
            upgrade=packages[node],
        )
        for node in cluster.nodes
        if node in packages
    )
    return _ordered(cluster, plans, survey)


def _nothing(unit: str) -> UnitChange:
    return UnitChange(unit, "none", "")


def _ordered(cluster: Cluster, nodes: tuple[NodePlan, ...], survey: Survey) -> Plan:
    changing = [each for each in nodes if not each.empty]
    advert = float(cluster.vrrp.advert_interval_seconds)
    return Plan(PROXIES[cluster.proxy], nodes, waves(changing, survey, cluster.vip.address), advert)


def waves(changing: Sequence[NodePlan], survey: Survey, vip: IPv4Address) -> tuple[tuple[NodePlan, ...], ...]:
    """Return the order of a roll-out: one by one, who holds the VIP last.

    By what was observed, not by what is configured: a backup may be the holder today. All at once where no node or
    more than one holds it: no order protects anything then, and a split brain ends only when all have changed. A node
    that could not be asked may be the holder.
    """
    holders = survey.holders(vip)
    if len(holders) == 1 or (not holders and survey.errors):
        return tuple((each,) for each in sorted(changing, key=lambda each: each.node in holders))
    return (tuple(changing),) if changing else ()


def _numbered(nodes: Sequence[NodePlan], survey: Survey) -> tuple[NodePlan, ...]:
    """Give the change its number, the same on all nodes: a generation means the same everywhere.

    What exlb did not write gets a number of its own in front of it, 0 where it is there before exlb's first push.
    """
    newest = max((found.generations.newest for found in survey.facts.values()), default=0)
    edited = any(each.changes and survey.facts[each.node].generations.edited for each in nodes)
    number = newest + (2 if edited else 1)

    def numbered(each: NodePlan) -> NodePlan:
        if not each.changes:
            return each
        found = survey.facts[each.node].generations
        current = ADOPTED if found.current is None else found.current
        previous = newest + 1 if found.edited else current
        return replace(each, number=number if each.desired.number is None else each.desired.number, previous=previous)

    return tuple(map(numbered, nodes))


# Changes of keepalived


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
    known = {node.address for node in cluster.nodes}
    leaving = sorted({str(each) for change in changes.values() for each in change.leaving - known})
    if leaving:
        notice = (
            f"{', '.join(leaving)} is no peer any more: keepalived has to be stopped there first, "
            f"or it hears nobody and holds {cluster.vip} too"
        )
        plan = replace(plan, notices=(*plan.notices, notice), asks=True)
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
    return replace(plan, notices=(*plan.notices, *_costs(plan, cluster, texts, survey)))


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
        unheard = [str(each) for each in starting if peers and each.address not in peers]
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
    changing = [each for each in plan.nodes if not each.empty]
    left = outside(plan, survey)
    if left:
        raise PlanError(
            f"{', '.join(map(str, left))} would not hear "
            f"{', '.join(map(str, changes))} any more, and both sides would hold {cluster.vip}: "
            f"{'; '.join(_reasons(changes))}",
            hint="such a change is pushed to all nodes: leave --nodes out",
        )
    holders = survey.holders(cluster.vip.address)
    waiting = "".join(
        f"; {node} cannot be asked: it must not come back before it has been pushed to" for node in survey.errors
    )
    election = vrrp.election_seconds(vrrp.priorities(len(cluster.nodes)), plan.advert_seconds)
    why = "; ".join(_reasons(changes))
    if len(holders) != 1:
        notice = f"old and new keepalived do not hear each other ({why}): all nodes change at once{waiting}"
        return replace(plan, waves=(tuple(changing),), notices=(*plan.notices, notice), apart=True)
    others = [each for each in changing if each.node not in holders]
    stops = tuple(
        NodePlan(
            each.node,
            (),
            _nothing(each.proxy.unit),
            UnitChange(KEEPALIVED_UNIT, "stop", "until the holder has changed"),
            each.serving,
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


def _reasons(changes: Mapping[Node, KeepalivedChange]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reason for change in changes.values() for reason in change.reasons))


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


# One node


def _node_plan(node: Node, desired: Desired, facts: Facts, proxy: Proxy, port: int) -> NodePlan:
    changes = [change for file in desired.files if (change := _change(file, facts))]
    changes += [
        Change(file, facts.files[file.path], "to be removed")
        for file in desired.absent
        if not facts.files[file.path].absent
    ]
    by_kind = {file.kind: file for file in (*desired.files, *desired.absent)}
    return NodePlan(
        node,
        tuple(changes),
        _proxy_change(by_kind["proxy"], changes, facts, proxy),
        _unit_change(by_kind["keepalived"], changes, facts),
        # What was there before exlb may have served nobody, or not on this port.
        _serving(facts) and f":{port}" in by_kind["proxy"].text,
        desired,
    )


def _serving(facts: Facts) -> bool:
    """Tell whether the node's proxy has somebody to give a connection to."""
    return facts.proxy_state is not None and any(server.judged and server.up for server in facts.proxy_state.servers)


def _change(file: File, facts: Facts) -> Change | None:
    found = facts.files[file.path]
    if found.absent:
        return Change(file, found, "missing")
    if found.sha256 != file.sha256:
        return Change(file, found, "content")
    if (found.mode, found.owner) != (file.mode, file.owner):
        return Change(file, found, "mode or owner")
    return None


def _unit_change(file: File, changes: Sequence[Change], facts: Facts) -> UnitChange:
    unit, found = facts.units[file.unit], facts.files[file.path]
    reason = next((each.reason for each in changes if each.file is file), None)
    if reason == "to be removed":
        return UnitChange(file.unit, "stop", "its file goes") if unit.running else _nothing(file.unit)
    if not file.text:
        return _nothing(file.unit)
    if not unit.running:
        return UnitChange(file.unit, "start", f"it is {unit.active}")
    if reason:
        return UnitChange(file.unit, "reload", "its file changes")
    if found.changed and unit.changed and found.changed > unit.changed + CLOCK_SLACK_SECONDS:
        return UnitChange(file.unit, "reload", "its file is newer than what it runs")
    return _nothing(file.unit)


def _proxy_change(file: File, changes: Sequence[Change], facts: Facts, proxy: Proxy) -> UnitChange:
    change = _unit_change(file, changes, facts)
    # Only exlb's own configuration has a digest to ask the running proxy for.
    if (
        change.action == "none"
        and file.digest
        and (facts.proxy_state is None or facts.proxy_state.digest != file.digest)
    ):
        return UnitChange(proxy.unit, "reload", "it runs another configuration than its file")
    return change


def _refuse_contradictions(cluster: Cluster, found: Mapping[Node, Facts]) -> None:
    """Refuse an interface that is not there, and a VIP outside of its network: only the nodes can tell."""
    faults = [fault for node, facts in found.items() if (fault := _interface_fault(cluster, node, facts))]
    if faults:
        raise NodeContradictionError("\n".join(faults), hint=f"correct VIP_IF or MASTER_VIP in {cluster.path}")


def _interface_fault(cluster: Cluster, node: Node, facts: Facts) -> str | None:
    interfaces = dict.fromkeys(each.interface for each in facts.addresses if each.interface != "lo")
    if node.interface not in interfaces:
        return f"{node}: VIP_IF={node.interface}: no such interface with an address; it has {', '.join(interfaces)}"
    networks = [
        each.address.network
        for each in facts.addresses
        if each.interface == node.interface and each.address.version == 4 and each.address.ip != cluster.vip.address
    ]
    if not any(cluster.vip.address in network for network in networks):
        found = ", ".join(map(str, networks)) or "no IPv4 network"
        return f"{node}: MASTER_VIP={cluster.vip} is outside of the network of {node.interface} ({found})"
    return None


def _refuse_unfit(cluster: Cluster, proxy: Proxy, found: Mapping[Node, Facts], *, unvalidated: bool) -> None:
    """Refuse nodes that lack programs or cannot validate, and ports that somebody else listens on."""
    lacking = {node: facts.lacks(proxy) for node, facts in found.items()}
    incomplete = [f"{node}: not installed: {', '.join(programs)}" for node, programs in lacking.items() if programs]
    if incomplete:
        raise PlanError("\n".join(incomplete), hint="exlb install")
    masked = [f"{node}: {name}" for node, facts in found.items() for name, unit in facts.units.items() if unit.masked]
    if masked:
        name = masked[0].rpartition(" ")[2]
        raise PlanError(f"masked units: {', '.join(masked)}", hint=f"exlb exec --sudo -- systemctl unmask {name}")
    faults = [fault for node, facts in found.items() for fault in _taken(cluster, proxy, node, facts)]
    if faults:
        raise PlanError("\n".join(faults), hint="exlb exec --sudo -- ss -ltnp shows who listens")
    blind = [] if unvalidated else [fault for node, facts in found.items() for fault in _cannot_validate(node, facts)]
    if blind:
        raise PlanError("\n".join(blind), hint="--unvalidated pushes all the same")


def _cannot_validate(node: Node, facts: Facts) -> list[str]:
    if not facts.keepalived_version or can_validate(facts.keepalived_version):
        return []
    return [
        f"{node}: keepalived {facts.keepalived_version} cannot validate a configuration (-t came with 2.0.4), "
        "and what is not validated on a node is not pushed to it"
    ]


def binds(cluster: Cluster) -> tuple[tuple[str, int], ...]:
    """Return the addresses and ports that the proxy listens on."""
    wanted = [("0.0.0.0", listener.port) for listener in cluster.listeners]  # noqa: S104 - what the proxy binds
    return (*wanted, (cluster.stats.bind, cluster.stats.port))


def _taken(cluster: Cluster, proxy: Proxy, node: Node, facts: Facts) -> list[str]:
    faults: list[str] = []
    for address, port in binds(cluster):
        taken = [each for each in facts.sockets if each.process != proxy.process and each.covers(address, port)]
        faults.extend(f"{node}: port {port} is taken by {socket.process or 'another process'}" for socket in taken[:1])
    return faults
