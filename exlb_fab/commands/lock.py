"""lock status: who changes which node right now."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, select
from exlb_fab.fleet import Fleet
from exlb_fab.proxies import PROXIES


@dataclass(frozen=True, slots=True)
class LockOptions:
    """Whose lock is asked for."""

    nodes: tuple[str, ...] = ()


class LockRow(BaseModel):
    """The lock of one node; `who` is None where it is free."""

    model_config = ConfigDict(frozen=True)

    node: str
    who: str | None = None
    origin: str | None = None
    since: str | None = None
    what: str | None = None
    changing: bool = False


class LockReport(Report):
    """The locks of the nodes, and the nodes that could not be asked."""

    locks: tuple[LockRow, ...]
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def lock_status(cluster: Cluster, options: LockOptions, fleet: Fleet) -> LockReport:
    """Ask every node who holds it; nothing is changed."""
    proxy = PROXIES[cluster.proxy]
    survey = fleet.survey(select(cluster, options.nodes), proxy, lambda _: ["lock", "generation"])
    rows = []
    for node, found in survey.facts.items():
        changing, holder = found.generations.changing, found.holder
        if holder is None:
            rows.append(LockRow(node=node.name, changing=changing))
        else:
            rows.append(
                LockRow(
                    node=node.name,
                    who=holder.who,
                    origin=holder.origin,
                    since=holder.since,
                    what=holder.what,
                    changing=changing,
                )
            )
    return LockReport(locks=tuple(rows), nodes=tuple(failure(node, error) for node, error in survey.errors.items()))
