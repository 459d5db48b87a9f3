"""recover: bring every node with an unfinished change to one complete generation."""

from __future__ import annotations

from collections.abc import Mapping

from exlb_fab import facts, rollout
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, row, select
from exlb_fab.commands.changing import ChangeOptions, look
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock
from exlb_fab.proxies import PROXIES


class RecoverReport(Report):
    """How every node stands."""

    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def recover(cluster: Cluster, options: ChangeOptions, fleet: Fleet) -> RecoverReport:
    """Wait for changes that still run, and take back those that were interrupted."""
    proxy = PROXIES[cluster.proxy]
    chosen = select(cluster, options.nodes)
    survey, missing = look(cluster, chosen, options, fleet)
    unsettled = [node for node in chosen if node in survey.facts and not survey.facts[node].generations.settled]
    if unsettled:
        with Lock(unsettled, fleet, "recover", options.lock_wait_seconds) as lock:
            rollout.settle(cluster, unsettled, look(cluster, unsettled, options, fleet)[0], fleet, lock)
        after = fleet.look(unsettled, proxy, lambda _: ["generation"]).facts
    rows = {node: row(node, "unchanged", "stands on a complete generation") for node in survey.facts}
    for node in unsettled:
        rows[node] = row(node, "changed", _told(node, after))
    rows |= {node: failure(node, error) for node, error in missing.items()}
    return RecoverReport(nodes=tuple(rows[node] for node in chosen))


def _told(node: Node, after: Mapping[Node, facts.Facts]) -> str:
    current = after[node].generations.current if node in after else None
    return f"stands on generation {current}"
