"""status: who holds the VIP since when, what each node is, and how its backends are; it judges nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.backend import ServerRow, held_back, kept, server_rows
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, select
from exlb_fab.facts import Facts, Survey
from exlb_fab.fleet import Fleet
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.rollout import masked

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """Which nodes are asked; who holds a VIP is known of these alone."""

    nodes: tuple[str, ...] = ()


class HolderRow(BaseModel):
    """One VIP: the nodes that have it, and for how many seconds, where keepalived tells."""

    model_config = ConfigDict(frozen=True)

    vip: str
    holders: tuple[str, ...]
    seconds: dict[str, float]


class StandingRow(BaseModel):
    """One node: its role as configured, what its keepalived runs as, and whether the proxy runs.

    `seconds` is how long the VRRP state is what it is, by the node's own clock.
    """

    model_config = ConfigDict(frozen=True)

    node: str
    address: str
    role: str
    state: str | None
    seconds: float | None
    priority: int | None
    effective_priority: int | None
    failing: tuple[str, ...]
    keepalived: str
    proxy: str
    sessions: int
    generation: int | None
    note: str


class StatusReport(Report):
    """How the entrance is right now, and the nodes that could not be asked."""

    vips: tuple[HolderRow, ...]
    standing: tuple[StandingRow, ...]
    names: tuple[str, ...]
    servers: tuple[ServerRow, ...]
    held_back: tuple[str, ...]
    kept: str
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def status(cluster: Cluster, options: StatusOptions, fleet: Fleet) -> StatusReport:
    """Ask every node once how it is; nothing is changed."""
    proxy = PROXIES[cluster.proxy]
    return _report(cluster, fleet.survey(select(cluster, options.nodes), proxy, lambda _: status_questions(proxy)))


def _report(cluster: Cluster, survey: Survey) -> StatusReport:
    proxy = PROXIES[cluster.proxy]
    states = {node: found.proxy_state for node, found in survey.facts.items() if found.proxy_state}
    servers = server_rows(cluster, states)
    return StatusReport(
        vips=_holders(cluster, survey),
        standing=tuple(_standing(cluster, node, found, proxy) for node, found in survey.facts.items()),
        names=tuple(node.name for node in survey.facts),
        servers=tuple(servers),
        held_back=held_back(servers),
        kept=kept(cluster),
        nodes=tuple(failure(node, error) for node, error in survey.errors.items()),
    )


def watch(cluster: Cluster, options: StatusOptions, fleet: Fleet, pause_seconds: float) -> Iterator[StatusReport]:
    """Ask again and again until Ctrl-C, over the same connections; a round that was cut short is not told.

    A node that did not answer is connected to anew in the next round. Only the first one waits for all nodes as long as
    they take: to connect may ask for a passphrase.
    """
    nodes, proxy = select(cluster, options.nodes), PROXIES[cluster.proxy]
    patience: float | None = None
    while True:
        survey = fleet.glance(nodes, proxy, lambda _: status_questions(proxy), patience)
        if fleet.stopped:
            return
        yield _report(cluster, survey)
        fleet.forget(survey.errors)
        fleet.wait(pause_seconds)
        patience = PATIENCE_SECONDS


def status_questions(proxy: Proxy) -> list[str]:
    """Return what `status` has to know of a node."""
    units = [f"unit {proxy.unit}", f"unit {KEEPALIVED_UNIT}"]
    return ["system", *units, "addresses", "proxy-state", "keepalived-state", "generation"]


def _holders(cluster: Cluster, survey: Survey) -> tuple[HolderRow, ...]:
    rows = []
    for vip in cluster.vips:
        holders = survey.holders(vip.address)
        instances = {node: survey.facts[node].instance(vip) for node in holders}
        seconds = {node.name: _age(survey.facts[node], each.since) for node, each in instances.items() if each}
        rows.append(
            HolderRow(
                vip=str(vip),
                holders=tuple(node.name for node in holders),
                seconds={name: age for name, age in seconds.items() if age is not None},
            )
        )
    return tuple(rows)


def _age(found: Facts, since: float) -> float | None:
    """Return how long ago something was, by the clock of the node that says so."""
    return max(0.0, found.system.time - since) if found.system else None


def _standing(cluster: Cluster, node: Node, found: Facts, proxy: Proxy) -> StandingRow:
    instance = found.instance(cluster.vip)
    state = found.proxy_state
    return StandingRow(
        node=node.name,
        address=str(node.address),
        role=cluster.role(node),
        state=instance.state if instance else None,
        seconds=_age(found, instance.since) if instance else None,
        priority=instance.priority if instance else None,
        effective_priority=instance.effective_priority if instance else None,
        failing=instance.failing if instance else (),
        keepalived=found.units[KEEPALIVED_UNIT].active,
        proxy=found.units[proxy.unit].active,
        sessions=sum(server.sessions for server in state.servers) if state else 0,
        generation=found.generations.current,
        note="; ".join(_notes(found, proxy)),
    )


def _notes(found: Facts, proxy: Proxy) -> Sequence[str]:
    """Return what else there is to know of a node."""
    notes = []
    if found.generations.unfinished:
        notes.append("a change was interrupted: exlb recover")
    if found.generations.changing:
        notes.append("a change runs")
    if found.generations.edited:
        notes.append("its files were edited: exlb diff")
    if found.proxy_state is None and found.units[proxy.unit].running:
        said = masked(found.proxy_silence, proxy).strip().splitlines()[-1:]
        notes.append(" ".join([f"{proxy.name} does not answer:", *said]))
    if not found.instances and found.units[KEEPALIVED_UNIT].running:
        notes.append(f"the VRRP state is not told: {found.keepalived_silence or 'no instance'}")
    return notes
