"""restart: restart units the way a push would, one node at a time, the holder of the VIP last."""

from __future__ import annotations

from dataclasses import dataclass

from exlb_fab import planning, rollout
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, refuse_unreachable, rolled, select
from exlb_fab.errors import UsageError
from exlb_fab.facts import configuration_questions
from exlb_fab.fleet import Fleet
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES


@dataclass(frozen=True, slots=True)
class RestartOptions:
    """`unit` is a unit's name, None for all of them."""

    unit: str | None = None
    nodes: tuple[str, ...] = ()
    skip_unreachable: bool = False


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
    chosen = select(cluster, options.nodes)
    survey = fleet.survey(cluster.nodes, proxy, lambda _: configuration_questions(proxy))
    missing = {node: error for node, error in survey.errors.items() if node in chosen}
    if not options.skip_unreachable:
        refuse_unreachable(missing.values())
    reachable = [node for node in chosen if node not in missing]
    plan = planning.restart(cluster, reachable, units if options.unit is None else (options.unit,), survey)
    results = rollout.carry_out(cluster, plan, fleet)
    rows = {result.node: rolled(result) for result in results}
    rows |= {node: failure(node, error) for node, error in missing.items()}
    return RestartReport(nodes=tuple(rows[node] for node in chosen))
