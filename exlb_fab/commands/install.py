"""install: what the nodes need, by their own package manager."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exlb_fab import facts, planning, questions, rollout, transitions
from exlb_fab import node as programs
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, row, select
from exlb_fab.commands.changing import ChangeOptions, change
from exlb_fab.errors import ExlbError, OverdueError, RemoteError
from exlb_fab.events import Event
from exlb_fab.facts import Facts, Survey
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock
from exlb_fab.planning import Plan, PlanError, Upgrade
from exlb_fab.platforms import KEEPALIVED_PACKAGE, KEEPALIVED_UNIT, PLATFORMS
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.remote import Remote
from exlb_fab.rollout import Task


@dataclass(frozen=True, slots=True)
class InstallOptions(ChangeOptions):
    """`package_lock_seconds` is how long to wait for another package manager, `limit_seconds` how long one may run."""

    limit_seconds: float = 600
    package_lock_seconds: int = 120
    upgrade: bool = False


class InstallReport(Report):
    """What was installed where."""

    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def install(cluster: Cluster, options: InstallOptions, fleet: Fleet) -> InstallReport:
    """Install the proxy, keepalived and the tools that exlb asks with; enable the units at boot.

    Where all is there, no package manager is run. With `upgrade`, the packages are brought to their newest versions,
    one node at a time as in a push, because their scripts restart services.
    """
    if options.upgrade:
        return _upgrade(cluster, options, fleet)
    proxy = PROXIES[cluster.proxy]
    chosen = select(cluster, options.nodes)
    survey = fleet.survey(chosen, proxy, lambda _: questions.installation_questions(proxy))
    rows = {node: failure(node, error) for node, error in survey.errors.items()}
    work = {}
    for node, found in survey.facts.items():
        try:
            work[node] = lacking(node, found, proxy)
        except ExlbError as error:
            rows[node] = failure(node, error)
    rows |= {node: row(node, "unchanged", "installed already") for node, need in work.items() if not need}
    needs = {node: need for node, need in work.items() if need}

    if needs:
        with Lock(needs, fleet, "install", options.lock_wait_seconds) as lock:
            done = fleet.each(
                needs, lambda node, remote: _install(node, remote, needs[node], options, fleet, lock, proxy)
            )
        rows |= done.values
        rows |= {node: failure(node, error) for node, error in done.errors.items()}
    return InstallReport(nodes=tuple(rows[node] for node in chosen))


@dataclass(frozen=True, slots=True)
class Needs:
    """What a node still needs, and which package manager brings it."""

    manager: str
    packages: tuple[str, ...]
    units: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.packages or self.units)

    def __str__(self) -> str:
        packages = [f"{self.manager} install {' '.join(self.packages)}"] if self.packages else []
        return ", ".join((*packages, *(f"enable {unit}" for unit in self.units)))


def lacking(node: Node, found: Facts, proxy: Proxy) -> Needs:
    """Return what a node lacks. Raises RemoteError where it has no package manager that exlb knows."""
    system = found.system
    if system is None or system.platform is None:
        name = system.name if system else "unknown"
        raise RemoteError(
            f"{node}: {name}: no package manager that exlb knows ({', '.join(each.manager for each in PLATFORMS)})"
        )
    masked = [name for name, unit in found.units.items() if unit.masked]
    if masked:
        raise RemoteError(
            f"{node}: masked units: {', '.join(masked)}", hint=f"exlb exec --sudo -- systemctl unmask {masked[0]}"
        )
    packages = facts.missing_packages(proxy, system.platform, found.programs)
    units = tuple(unit for unit in (proxy.unit, KEEPALIVED_UNIT) if not found.units[unit].enabled)
    return Needs(system.platform.manager, packages, units)


def _upgrade(cluster: Cluster, options: InstallOptions, fleet: Fleet) -> InstallReport:
    proxy = PROXIES[cluster.proxy]
    packages = (*proxy.packages, KEEPALIVED_PACKAGE)
    before: dict[Node, Mapping[str, str]] = {}

    def plan_for(nodes: Sequence[Node], survey: Survey) -> Plan:
        upgrades = {}
        for node in nodes:
            found = survey.facts[node]
            if need := lacking(node, found, proxy).packages:
                raise PlanError(f"{node}: not installed: {', '.join(need)}", hint="exlb install")
            assert found.system is not None
            assert found.system.platform is not None
            before[node] = found.packages
            upgrades[node] = Upgrade(found.system.platform.manager, packages)
        return transitions.announced(planning.upgrade(cluster, upgrades, survey), cluster, {}, survey)

    changed = change(cluster, options, fleet, Task("install --upgrade"), plan_for)
    after = fleet.look(before, proxy, lambda _: [" ".join(("packages", *packages))]).facts
    rows = {each.node: each for each in changed.rows}
    for node in before:
        if rows[node.name].result == "changed" and node in after:
            rows[node.name] = _upgraded(rows[node.name], before[node], after[node].packages)
    return InstallReport(nodes=tuple(rows.values()))


def _upgraded(row: NodeRow, before: Mapping[str, str], after: Mapping[str, str]) -> NodeRow:
    """Return the row of a node with what the upgrade brought."""
    newer = [
        f"{name} {before.get(name)} -> {version}" for name, version in after.items() if before.get(name) != version
    ]
    if newer:
        return row.model_copy(update={"detail": ", ".join(newer)})
    versions = ", ".join(f"{name} {version}" for name, version in after.items())
    return row.model_copy(update={"result": "unchanged", "detail": f"newest already: {versions}"})


def _install(
    node: Node, remote: Remote, needs: Needs, options: InstallOptions, fleet: Fleet, lock: Lock, proxy: Proxy
) -> NodeRow:
    began = time.monotonic()
    fleet.emit(Event("step", str(needs), node.name))
    args = (needs.manager, str(options.package_lock_seconds), ",".join(needs.units), *needs.packages)
    try:
        done = rollout.launch(remote, programs.install(), lock, args, limit_seconds=options.limit_seconds)
    except OverdueError as error:
        error.hint = "--timeout SECONDS gives more time"
        raise
    if done.status != 0:
        raise _failed(node, needs, rollout.masked(done.said, proxy))
    fleet.emit(Event("done", "installed", node.name))
    return row(node, "changed", str(needs), time.monotonic() - began)


def _failed(node: Node, needs: Needs, said: str) -> RemoteError:
    what = needs.manager if needs.packages else "systemctl enable"
    look = f"{needs.manager} check" if needs.packages else f"systemctl status {' '.join(needs.units)}"
    return RemoteError(
        f"{node}: {what} failed:\n{rollout.last_lines(said)}", hint=f"exlb exec --sudo --nodes {node} -- {look}"
    )
