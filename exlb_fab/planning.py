"""Desired files + what the nodes have -> a plan: what changes on each node, why, and in which order. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, get_args

from exlb_fab import firewall, keepalived, selinux
from exlb_fab.cluster import Address, Cluster, Listener, Node, Vip
from exlb_fab.errors import EnvironmentFileError, ExlbError
from exlb_fab.facts import Facts, FileFact, KeptFile, Survey
from exlb_fab.firewall import Directive, Firewall, Opening
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

    `number` is that of a generation which the node keeps, None where the files are brought to it. `idle` are units that
    are not to run on them.
    """

    files: tuple[File, ...]
    absent: tuple[File, ...] = ()
    number: int | None = None
    idle: frozenset[str] = frozenset()

    @property
    def unread(self) -> frozenset[Kind]:
        """Return the kinds of files that no unit will read: of what was found they may be wrong."""
        return frozenset(file.kind for file in self.files if file.unit in self.idle)


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
class Removal:
    """What ends exlb on a node: `units` are (`stop` or `disable`, unit), `packages` go with their configuration.

    `manager` is the node's, "" where no package goes.
    """

    manager: str
    units: tuple[tuple[str, str], ...]
    packages: tuple[str, ...]

    def __str__(self) -> str:
        units = [f"{action} {unit}" for action, unit in self.units]
        packages = [f"purge {len(self.packages)} package{'s' * (len(self.packages) > 1)}"] if self.packages else []
        return ", ".join((*units, *packages, "remove what exlb kept"))


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What takes one node from what it has to what it should have.

    `serving` tells whether it serves clients now, and has to afterwards.
    `number` is the generation that this makes active, `previous` the one to go back to, which keeps what is active
    now. Both are None where no file changes. `opens` and `closes` are for the firewall, `allows` and `forbids`
    (what exlb has allowed, and nobody needs any more) for SELinux.
    `removal` comes after all else, on all nodes.
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
    removal: Removal | None = None
    opens: tuple[Directive, ...] = ()
    closes: tuple[Directive, ...] = ()
    allows: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        around = (self.opens, self.closes, self.allows, self.forbids, self.removal)
        return self.still and not any(around)

    @property
    def still(self) -> bool:
        """Tell whether no file and no unit of the node changes, whatever is done around them."""
        return not (self.changes or self.upgrade) and all(unit.action == "none" for unit in self.units)

    def summary(self) -> str:
        """Return the plan in one line for people."""
        if self.empty:
            return "no changes"
        # What another file names comes and goes with that one.
        files = [_told(change) for change in self.changes if change.file.kind != "attachment"]
        files = files or [_told(change) for change in self.changes]
        units = [f"{unit.action} {unit.unit} ({unit.why})" for unit in self.units if unit.action != "none"]
        upgrade = [f"upgrade {', '.join(self.upgrade.packages)}"] if self.upgrade else []
        back = [f"back to generation {self.desired.number}"] if self.desired.number is not None else []
        before = [*(f"open {each}" for each in firewall.told(self.opens)), *map(selinux.told, self.allows)]
        after = [f"close {each}" for each in firewall.told(self.closes)]
        removal = [str(self.removal)] if self.removal else []
        return ", ".join((*back, *before, *files, *units, *upgrade, *after, *removal))

    @property
    def units(self) -> tuple[UnitChange, UnitChange]:
        return (self.proxy, self.keepalived)

    @property
    def moves_keepalived(self) -> bool:
        """Tell whether the holder may change by it, so that one holder counts only after a while."""
        heard = any(each.opening.port is None for each in self.opens)
        return self.upgrade is not None or heard or self.keepalived.action not in ("none", "stop")


def _told(change: Change) -> str:
    verb = "remove" if change.reason == "to be removed" else "write"
    return f"{verb} {change.file.path} ({change.reason})"


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes' plans in the order of the environment file, and the waves in which they are carried out.

    `notices` are what the operator has to know of the cost beforehand, `asks` that a yes to them is needed.
    `apart` tells that old and new keepalived do not hear each other, `vacant` that nobody is to hold the VIP in the
    end. `leaving` are peers until now that are in the environment file no more: their keepalived has to stop first.
    `advert_seconds` is the largest interval, old or new.
    """

    proxy: Proxy
    nodes: tuple[NodePlan, ...]
    waves: tuple[tuple[NodePlan, ...], ...]
    advert_seconds: float
    notices: tuple[str, ...] = ()
    asks: bool = False
    apart: bool = False
    vacant: bool = False
    leaving: tuple[Node, ...] = ()

    @property
    def empty(self) -> bool:
        return all(each.empty for each in self.nodes)


def plan(cluster: Cluster, desired: Mapping[Node, Desired], survey: Survey, *, unvalidated: bool = False) -> Plan:
    """Compare what is desired with what was found on the nodes that answered.

    `unvalidated` lets a keepalived pass that cannot validate. Raises NodeContradictionError or PlanError, with every
    reason, before anything is changed.
    """
    chosen = {node: survey.facts[node] for node in desired}
    refuse_contradictions(cluster, chosen)
    _refuse_unfit(cluster, PROXIES[cluster.proxy], chosen, unvalidated=unvalidated)
    return compared(cluster, desired, survey)


def compared(cluster: Cluster, desired: Mapping[Node, Desired], survey: Survey) -> Plan:
    """Compare in the same way, and ask nothing of the nodes: what was there before exlb may have been as it liked."""
    proxy = PROXIES[cluster.proxy]
    listener = cluster.apiserver_listener
    nodes = tuple(
        _node_plan(node, desired[node], survey.facts[node], proxy, listener)
        for node in cluster.nodes
        if node in desired
    )
    nodes = _numbered(nodes, survey)
    notices = _closing(nodes, survey, proxy)
    return replace(_ordered(cluster, nodes, survey), notices=notices, asks=bool(notices))


def admitted(plan: Plan, cluster: Cluster, survey: Survey) -> Plan:
    """Return the plan with what has to be opened and closed around it, and warnings of what stays closed.

    The firewall with FIREWALL=manage alone, SELinux always: without it the proxy could neither bind nor connect. Raises
    PlanError where a node lacks the program for that.
    """
    _refuse_unlabelled({each.node: survey.facts[each.node] for each in plan.nodes})
    nodes = tuple(_admitted(each, cluster, survey.facts[each.node], plan.proxy) for each in plan.nodes)
    made = replace(_ordered(cluster, nodes, survey), notices=plan.notices, asks=plan.asks)
    if made.empty or cluster.firewall == "ignore":
        return made
    told = _shut(made, cluster, survey) if cluster.firewall == "check" else _passing(made)
    return replace(made, notices=(*made.notices, *told))


def _admitted(plan: NodePlan, cluster: Cluster, facts: Facts, proxy: Proxy) -> NodePlan:
    ports = [port for _, port in binds(cluster, plan.node)]
    servers = [server.port for listener in cluster.listeners for server in listener.backends]
    plan = replace(plan, allows=selinux.directives(facts.selinux, proxy, ports, servers))
    if cluster.firewall != "manage" or facts.firewall is None:
        return plan
    needed = _needed(plan, cluster, proxy)
    missing = firewall.missing(facts.firewall, cluster, plan.node, facts.carrier(cluster, plan.node), needed)
    return replace(plan, opens=missing, closes=firewall.spare(facts.firewall, needed))


def _needed(plan: NodePlan, cluster: Cluster, proxy: Proxy) -> tuple[Opening, ...]:
    """Return what has to come in; a kept generation says so itself, because the environment file is of another one."""
    if plan.desired.number is None:
        return (*firewall.adverts(cluster, plan.node), *firewall.ports(cluster))
    texts = {file.kind: file.text for file in plan.desired.files}
    local = {cluster.stats.port} if cluster.stats.bind.is_loopback else set[int]()
    peers = sorted(keepalived.peers(texts.get("keepalived", "")), key=int)
    group = Opening(destination=firewall.GROUPS[cluster.vip.address.version])
    heard = [Opening(source=each) for each in peers] or ([group] if "keepalived" in texts else [])
    return (*heard, *(Opening(port=port) for port in sorted(proxy.ports(texts.get("proxy", "")) - local)))


def _refuse_unlabelled(found: Mapping[Node, Facts]) -> None:
    lacking = {node: package for node, facts in found.items() if (package := selinux.lacking(facts.selinux))}
    if lacking:
        raise PlanError(
            "\n".join(
                f"{node}: SELinux is enforcing, and there is no semanage to let the proxy in" for node in lacking
            ),
            hint=f"install {', '.join(dict.fromkeys(lacking.values()))} there",
        )


def _shut(plan: Plan, cluster: Cluster, survey: Survey) -> tuple[str, ...]:
    """Say what the firewalls do not let in, and nobody opens."""
    told = []
    for each in plan.nodes:
        facts = survey.facts[each.node]
        found = facts.firewall or Firewall()
        needed = _needed(each, cluster, plan.proxy)
        shut = firewall.missing(found, cluster, each.node, facts.carrier(cluster, each.node), needed)
        told += [f"{each.node} does not let in {what}; {firewall.MANAGE_HINT}" for what in firewall.told(shut)]
    return tuple(told)


def _passing(plan: Plan) -> tuple[str, ...]:
    """Say what is opened for the time until the next boot alone."""
    gone = {str(each.node): programs for each in plan.nodes if (programs := firewall.passing(each.opens))}
    return tuple(
        f"what is opened in {', '.join(programs)} on {node} is gone when its rules are loaded anew, at boot at the "
        "latest: write it where they are loaded from, or push again then"
        for node, programs in gone.items()
    )


def _closing(nodes: Sequence[NodePlan], survey: Survey, proxy: Proxy) -> tuple[str, ...]:
    """Say which ports nobody will listen on any more: a valid change, and the end of the entrance for their clients."""
    closing: dict[int, list[str]] = {}
    for each in nodes:
        for file in (change.file for change in each.changes if change.file.kind == "proxy"):
            listens = {
                socket.port
                for socket in survey.facts[each.node].sockets
                if socket.process == proxy.process and not socket.local
            }
            ends = proxy.unit in each.desired.idle
            for port in listens - (frozenset() if ends else proxy.ports(file.text)):
                closing.setdefault(port, []).append(str(each.node))
    return tuple(
        f"nobody will listen on port {port} of {', '.join(names)} any more: clients that connect to it are refused"
        for port, names in sorted(closing.items())
    )


def kept_file(cluster: Cluster, found: KeptFile, text: str) -> File:
    """Return a file of a generation that a node keeps; `text` is "" for one that was not there.

    Raises PlanError where it is of a kind that this exlb does not know.
    """
    proxy = PROXIES[cluster.proxy]
    kinds: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    if found.kind not in kinds:
        raise PlanError(
            f"{found.path}: this exlb knows no file of the kind {found.kind!r}",
            hint="a newer one has written that generation: use that",
        )
    kind = kinds[found.kind]
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
        return UnitChange(unit, "restart", "asked for") if unit in units else nothing(unit)

    listener = cluster.apiserver_listener
    plans = tuple(
        NodePlan(node, (), change(proxy.unit), change(KEEPALIVED_UNIT), _serving(survey.facts[node], listener))
        for node in nodes
    )
    return _ordered(cluster, plans, survey)


def upgrade(cluster: Cluster, packages: Mapping[Node, Upgrade], survey: Survey) -> Plan:
    """Plan an upgrade of packages, which restarts services, in the same order and with the same gates as a push."""
    proxy = PROXIES[cluster.proxy]
    plans = tuple(
        NodePlan(
            node,
            (),
            nothing(proxy.unit),
            nothing(KEEPALIVED_UNIT),
            _serving(survey.facts[node], cluster.apiserver_listener),
            upgrade=packages[node],
        )
        for node in cluster.nodes
        if node in packages
    )
    return _ordered(cluster, plans, survey)


def nothing(unit: str) -> UnitChange:
    """Return the change of a unit that needs none."""
    return UnitChange(unit, "none", "")


def _ordered(cluster: Cluster, nodes: tuple[NodePlan, ...], survey: Survey) -> Plan:
    changing = [each for each in nodes if not each.still]
    order = waves(changing, survey, cluster.vip.address)
    return Plan(PROXIES[cluster.proxy], nodes, order, cluster.vrrp.advert_seconds)


def waves(changing: Sequence[NodePlan], survey: Survey, vip: Address) -> tuple[tuple[NodePlan, ...], ...]:
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


# One node


def _node_plan(node: Node, desired: Desired, facts: Facts, proxy: Proxy, listener: Listener) -> NodePlan:
    changes = differences(desired.files, desired.absent, facts)
    by_kind = {file.kind: file for file in (*desired.files, *desired.absent)}

    def unless_idle(change: UnitChange) -> UnitChange:
        if change.unit not in desired.idle:
            return change
        if not changes or not facts.units[change.unit].running:
            return nothing(change.unit)
        return UnitChange(change.unit, "stop", "it did not run before exlb" if change.action != "stop" else change.why)

    return NodePlan(
        node,
        changes,
        unless_idle(_proxy_change(by_kind["proxy"], changes, facts, proxy)),
        unless_idle(_unit_change(by_kind["keepalived"], changes, facts)),
        # What was there before exlb may have served nobody, or not on this port.
        _serving(facts, listener)
        and proxy.unit not in desired.idle
        and listener.port in proxy.ports(by_kind["proxy"].text),
        desired,
    )


def _serving(facts: Facts, listener: Listener) -> bool:
    """Tell whether the node's proxy has an apiserver to give a connection to; other listeners may be up without one."""
    servers = facts.proxy_state.servers if facts.proxy_state else ()
    # What exlb did not write has names of its own.
    asked = [server for server in servers if server.listener == listener.name] or servers
    return any(server.judged and server.up for server in asked)


def differences(files: Sequence[File], absent: Sequence[File], facts: Facts) -> tuple[Change, ...]:
    """Return what differs on a node: files that are not as they should be, and those that should not be there."""
    changes = [change for file in files if (change := _change(file, facts))]
    unwanted = [Change(file, facts.files[file.path], "to be removed") for file in absent]
    return (*changes, *(each for each in unwanted if not each.found.absent))


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
        return UnitChange(file.unit, "stop", "its file goes") if unit.running else nothing(file.unit)
    if not file.text:
        return nothing(file.unit)
    if not unit.running:
        return UnitChange(file.unit, "start", f"it is {unit.active}")
    if reason:
        return UnitChange(file.unit, "reload", "its file changes")
    if found.changed and unit.changed and found.changed > unit.changed + CLOCK_SLACK_SECONDS:
        return UnitChange(file.unit, "reload", "its file is newer than what it runs")
    return nothing(file.unit)


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


def refuse_contradictions(cluster: Cluster, found: Mapping[Node, Facts]) -> None:
    """Refuse an interface that is not there, and a VIP outside of its network: only the nodes can tell.

    Raises NodeContradictionError.
    """
    faults = [fault for node, facts in found.items() if (fault := _interface_fault(cluster, node, facts))]
    if faults:
        raise NodeContradictionError("\n".join(faults), hint=f"correct VIP_IF or the VIPs in {cluster.path}")


def _interface_fault(cluster: Cluster, node: Node, facts: Facts) -> str | None:
    interfaces = dict.fromkeys(each.interface for each in facts.addresses if each.interface != "lo")
    interface = facts.carrier(cluster, node)
    if interface is None:
        return _no_interface(cluster, node, facts)
    if interface not in interfaces:
        return f"{node}: VIP_IF={interface}: no such interface with an address; it has {', '.join(interfaces)}"
    for name, vip in (("MASTER_VIP", cluster.vip), *(("EXTRA_VIPS", each) for each in cluster.extra_vips)):
        found = _networks(facts, vip, cluster, interface)
        if not any(vip.address in network for network in found):
            said = ", ".join(map(str, found)) or f"no IPv{vip.address.version} network"
            return f"{node}: {name}={vip} is outside of the network of {interface} ({said})"
    return None


def _networks(facts: Facts, vip: Vip, cluster: Cluster, interface: str | None) -> list[IPv4Network | IPv6Network]:
    """Return the networks of a VIP's family that a node is in by an address of its own; on every interface for None."""
    own = {each.address for each in cluster.vips}
    return [
        each.address.network
        for each in facts.addresses
        if each.address.version == vip.address.version
        and each.address.ip not in own
        and (each.interface == interface or (interface is None and each.interface != "lo"))
    ]


def _no_interface(cluster: Cluster, node: Node, facts: Facts) -> str:
    found = ", ".join(map(str, _networks(facts, cluster.vip, cluster, None)))
    said = found or f"no IPv{cluster.vip.address.version} network"
    return f"{node}: VIP_IF=auto: not one interface whose network contains {cluster.vip}; it is in {said}"


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


def binds(cluster: Cluster, node: Node) -> tuple[tuple[Address, int], ...]:
    """Return the addresses and ports that the proxy of a node listens on."""
    wanted = [(address, each.port) for each in cluster.listeners for address in cluster.addresses(node)]
    return (*wanted, (cluster.stats.bind, cluster.stats.port))


def _taken(cluster: Cluster, proxy: Proxy, node: Node, facts: Facts) -> list[str]:
    faults: list[str] = []
    for address, port in binds(cluster, node):
        taken = [each for each in facts.sockets if each.process != proxy.process and each.covers(address, port)]
        faults.extend(f"{node}: port {port} is taken by {socket.process or 'another process'}" for socket in taken[:1])
    return list(dict.fromkeys(faults))
