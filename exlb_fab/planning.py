"""Desired files + what the nodes have -> a plan: what changes on each node, why, and in which order. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Literal

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import EnvironmentFileError, ExlbError
from exlb_fab.facts import Facts, FileFact, Survey
from exlb_fab.platforms import KEEPALIVED_UNIT, can_validate
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.rendering import File

Action = Literal["none", "reload", "start", "restart"]
ROOT = "root:root"
CLOCK_SLACK_SECONDS = 1.5  # systemd tells times in whole seconds, and a reload follows the rename at once

_IDENTITY = re.compile(
    r"\s*(virtual_router_id|advert_int|auth_type|auth_pass|vrrp_version|version|unicast_src_ip|[0-9.]+(/[0-9]+)?\s*$)"
)


class PlanError(ExlbError):
    """A node is not fit for what is planned; nothing was changed anywhere."""


class NodeContradictionError(EnvironmentFileError):
    """The environment file says something that a node contradicts; nothing was changed anywhere."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file that differs: `reason` is `missing`, `content`, or `mode or owner`."""

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
class NodePlan:
    """What takes one node from what it has to what it should have; `serving` tells whether it serves clients now."""

    node: Node
    changes: tuple[Change, ...]
    proxy: UnitChange
    keepalived: UnitChange
    serving: bool = False

    @property
    def empty(self) -> bool:
        return not self.changes and self.proxy.action == "none" and self.keepalived.action == "none"

    def summary(self) -> str:
        """Return the plan in one line for people."""
        if self.empty:
            return "no changes"
        files = [f"write {change.file.path} ({change.reason})" for change in self.changes]
        units = [f"{unit.action} {unit.unit} ({unit.why})" for unit in self.units if unit.action != "none"]
        return ", ".join((*files, *units))

    @property
    def units(self) -> tuple[UnitChange, UnitChange]:
        return (self.proxy, self.keepalived)


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes' plans in the order of the environment file, and the waves in which they are carried out.

    `notice` is what the operator has to know of the cost beforehand.
    """

    proxy: Proxy
    nodes: tuple[NodePlan, ...]
    waves: tuple[tuple[NodePlan, ...], ...]
    notice: str | None = None

    @property
    def empty(self) -> bool:
        return not self.waves


def plan(cluster: Cluster, desired: Mapping[Node, Sequence[File]], survey: Survey) -> Plan:
    """Compare what is desired with what was found on the nodes that answered.

    Raises NodeContradictionError or PlanError, with every reason, before anything is changed.
    """
    proxy = PROXIES[cluster.proxy]
    chosen = {node: survey.facts[node] for node in desired}
    _refuse_contradictions(cluster, chosen)
    _refuse_unfit(cluster, proxy, chosen)
    nodes = tuple(_node_plan(node, desired[node], chosen[node], proxy) for node in cluster.nodes if node in desired)
    return Plan(proxy, nodes, waves([each for each in nodes if not each.empty], survey, cluster.vip.address))


def restart(cluster: Cluster, nodes: Sequence[Node], units: Sequence[str], survey: Survey) -> Plan:
    """Plan a restart of units on nodes, in the same order and with the same gates as a push."""
    proxy = PROXIES[cluster.proxy]
    _refuse_unfit(cluster, proxy, {node: survey.facts[node] for node in nodes})

    def change(unit: str) -> UnitChange:
        return UnitChange(unit, "restart", "asked for") if unit in units else UnitChange(unit, "none", "")

    plans = tuple(
        NodePlan(node, (), change(proxy.unit), change(KEEPALIVED_UNIT), _serving(survey.facts[node])) for node in nodes
    )
    return Plan(proxy, plans, waves(plans, survey, cluster.vip.address))


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


def identity(text: str) -> frozenset[str]:
    """Return the lines of a keepalived.conf that two nodes have to share in order to hear each other.

    VRID, interval, authentication, version, the addresses of peers and VIPs. Source: RFC 3768 7.1 (what a receiver
    discards), docs/findings.md, "Split brain comes late".
    """
    return frozenset(" ".join(line.split()) for line in text.splitlines() if _IDENTITY.match(line))


def together(plan: Plan, cluster: Cluster, texts: Mapping[Node, str], survey: Survey) -> Plan:
    """Return the plan with all nodes in one wave where old and new keepalived would not hear each other.

    `texts` are the active keepalived.conf files of nodes on which that file changes. Raises PlanError where such a
    change leaves out a node that runs keepalived: it and the others would all hold the VIP.
    """
    new = {
        each.node: change.file.text
        for each in plan.nodes
        for change in each.changes
        if change.file.kind == "keepalived"
    }
    deaf = [node for node, text in texts.items() if "vrrp_instance" in text and identity(text) != identity(new[node])]
    if not deaf:
        return plan
    changing = {each.node for each in plan.nodes if not each.empty}
    left = [n for n, facts in survey.facts.items() if n not in changing and facts.units[KEEPALIVED_UNIT].running]
    if left:
        raise PlanError(
            f"{', '.join(map(str, left))} would not hear {', '.join(map(str, deaf))} any more, and both sides would "
            f"hold {cluster.vip}: VRID, interval, peers and VIPs change on all nodes or on none",
            hint="exlb push-config without --nodes",
        )
    seconds = vrrp.election_seconds(vrrp.priorities(len(cluster.nodes)), cluster.vrrp.advert_interval_seconds)
    notice = (
        "old and new keepalived do not hear each other: all nodes change at once, "
        f"and clients may lose {cluster.vip} for one election, up to {seconds:.0f} s"
    )
    return replace(plan, waves=(tuple(each for each in plan.nodes if not each.empty),), notice=notice)


def _node_plan(node: Node, files: Sequence[File], facts: Facts, proxy: Proxy) -> NodePlan:
    changes = tuple(change for file in files if (change := _change(file, facts)))
    by_kind = {file.kind: file for file in files}
    return NodePlan(
        node,
        changes,
        _proxy_change(by_kind["proxy"], changes, facts, proxy),
        _unit_change(by_kind["keepalived"], changes, facts),
        _serving(facts),
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
    if (found.mode, found.owner) != (file.mode, ROOT):
        return Change(file, found, "mode or owner")
    return None


def _unit_change(file: File, changes: Sequence[Change], facts: Facts) -> UnitChange:
    unit, found = facts.units[file.unit], facts.files[file.path]
    if not unit.running:
        return UnitChange(file.unit, "start", f"it is {unit.active}")
    if any(each.file is file for each in changes):
        return UnitChange(file.unit, "reload", "its file changes")
    if found.changed and unit.changed and found.changed > unit.changed + CLOCK_SLACK_SECONDS:
        return UnitChange(file.unit, "reload", "its file is newer than what it runs")
    return UnitChange(file.unit, "none", "")


def _proxy_change(file: File, changes: Sequence[Change], facts: Facts, proxy: Proxy) -> UnitChange:
    change = _unit_change(file, changes, facts)
    if change.action == "none" and (facts.proxy_state is None or facts.proxy_state.digest != file.digest):
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


def _refuse_unfit(cluster: Cluster, proxy: Proxy, found: Mapping[Node, Facts]) -> None:
    """Refuse nodes that lack programs or cannot validate, and ports that somebody else listens on."""
    lacking = {node: facts.lacks(proxy) for node, facts in found.items()}
    incomplete = [f"{node}: not installed: {', '.join(programs)}" for node, programs in lacking.items() if programs]
    if incomplete:
        raise PlanError("\n".join(incomplete), hint="exlb install")
    masked = [f"{node}: {name}" for node, facts in found.items() for name, unit in facts.units.items() if unit.masked]
    if masked:
        name = masked[0].rpartition(" ")[2]
        raise PlanError(f"masked units: {', '.join(masked)}", hint=f"exlb exec --sudo -- systemctl unmask {name}")
    faults = [fault for node, facts in found.items() for fault in _unfit(cluster, proxy, node, facts)]
    if faults:
        raise PlanError("\n".join(faults), hint="exlb exec --sudo -- ss -ltnp shows who listens")


def _unfit(cluster: Cluster, proxy: Proxy, node: Node, facts: Facts) -> list[str]:
    faults = []
    if facts.keepalived_version and not can_validate(facts.keepalived_version):
        faults.append(
            f"{node}: keepalived {facts.keepalived_version} cannot validate a configuration (-t came with 2.0.4), "
            "and what is not validated on a node is not pushed to it"
        )
    wanted = [(listener.port, "0.0.0.0") for listener in cluster.listeners]  # noqa: S104 - what the proxy binds
    wanted.append((cluster.stats.port, cluster.stats.bind))
    for port, address in wanted:
        taken = [each for each in facts.sockets if each.process != proxy.process and each.covers(address, port)]
        faults.extend(f"{node}: port {port} is taken by {socket.process or 'another process'}" for socket in taken[:1])
    return faults
