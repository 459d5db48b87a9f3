"""restart: restart units the way a push would, one node at a time, the holder of the VIP last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exlb_fab import planning, transitions
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of
from exlb_fab.commands.changing import ChangeOptions, change
from exlb_fab.errors import UsageError
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import Plan
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.rollout import Task


@dataclass(frozen=True, slots=True)
class RestartOptions(ChangeOptions):
    """`unit` is a unit's name, None for all of them."""

    unit: str | None = None


class RestartReport(Report):
    """What was restarted where."""

    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def restart(cluster: Cluster, options: RestartOptions, fleet: Fleet) -> RestartReport:
    """Restart the proxy, keepalived or both, with the same order and gates as a push."""
    proxy = PROXIES[cluster.proxy]
    units = (proxy.unit, KEEPALIVED_UNIT)
    if options.unit is not None and options.unit not in units:
        raise UsageError(f"restart {options.unit}: no such unit", hint=f"exlb restart {' | '.join(units)}")
    chosen = units if options.unit is None else (options.unit,)

    def plan_for(nodes: Sequence[Node], survey: Survey) -> Plan:
        plan = planning.restart(cluster, nodes, chosen, survey)
        read = fleet.survey(nodes, proxy, lambda _: [f"read {KEEPALIVED_PATH}"]) if KEEPALIVED_UNIT in chosen else None
        found = read.facts if read else {}
        texts = {node: each.texts[KEEPALIVED_PATH] for node, each in found.items() if each.texts}
        return transitions.announced(plan, cluster, texts, survey)

    changed = change(cluster, options, fleet, Task(f"restart {' '.join(chosen)}"), plan_for)
    return RestartReport(nodes=changed.rows)
