"""install: what the nodes need, by their own package manager."""

from __future__ import annotations

import time
from dataclasses import dataclass

from exlb_fab import facts
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, row, select
from exlb_fab.errors import ExlbError, RemoteError
from exlb_fab.events import Event
from exlb_fab.facts import Facts
from exlb_fab.fleet import Fleet
from exlb_fab.node import program
from exlb_fab.platforms import KEEPALIVED_UNIT, PLATFORMS
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.remote import Remote

LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """`lock_seconds` is how long to wait for another package manager, `limit_seconds` how long one may run."""

    nodes: tuple[str, ...] = ()
    limit_seconds: float = 600
    lock_seconds: int = 120


class InstallReport(Report):
    """What was installed where."""

    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def install(cluster: Cluster, options: InstallOptions, fleet: Fleet) -> InstallReport:
    """Install the proxy, keepalived and the tools that exlb asks with; enable the units at boot.

    Where all is there, no package manager is run.
    """
    proxy = PROXIES[cluster.proxy]
    chosen = select(cluster, options.nodes)
    survey = fleet.survey(chosen, proxy, lambda _: facts.installation_questions(proxy))
    rows = {node: failure(node, error) for node, error in survey.errors.items()}
    work = {}
    for node, found in survey.facts.items():
        try:
            work[node] = lacking(node, found, proxy)
        except ExlbError as error:
            rows[node] = failure(node, error)
    rows |= {node: row(node, "unchanged", "installed already") for node, need in work.items() if not need}
    needs = {node: need for node, need in work.items() if need}

    def carry_out(node: Node, remote: Remote) -> NodeRow:
        return _install(node, remote, needs[node], options, fleet)

    done = fleet.each(needs, carry_out)
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


def _install(node: Node, remote: Remote, needs: Needs, options: InstallOptions, fleet: Fleet) -> NodeRow:
    began = time.monotonic()
    fleet.emit(Event("step", str(needs), node.name))
    args = (needs.manager, str(options.lock_seconds), ",".join(needs.units), *needs.packages)
    done = remote.run(program("install.sh"), args, limit_seconds=options.limit_seconds)
    if done.status != 0:
        raise _failed(node, needs, done.said)
    fleet.emit(Event("done", "installed", node.name))
    return row(node, "changed", str(needs), time.monotonic() - began)


def _failed(node: Node, needs: Needs, said: str) -> RemoteError:
    last = "\n".join(said.splitlines()[-LAST_LINES:])
    what = needs.manager if needs.packages else "systemctl enable"
    look = f"{needs.manager} check" if needs.packages else f"systemctl status {' '.join(needs.units)}"
    return RemoteError(f"{node}: {what} failed:\n{last}", hint=f"exlb exec --sudo --nodes {node} -- {look}")
