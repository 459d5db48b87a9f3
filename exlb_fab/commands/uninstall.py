"""uninstall: bring the nodes back to what they were before exlb, and leave nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from exlb_fab import departure
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, answered, exit_code_of
from exlb_fab.commands.changing import ChangeOptions, change
from exlb_fab.commands.differences import Differences, FileDiff
from exlb_fab.commands.rollback import fetched
from exlb_fab.departure import Before
from exlb_fab.errors import UsageError
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import Plan
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.rollout import Task

Allow = Callable[[Survey, Mapping[Node, Before]], Mapping[Node, Before]]


@dataclass(frozen=True, slots=True)
class UninstallOptions(ChangeOptions):
    """With `purge` the packages that exlb installed go as well."""

    purge: bool = False
    dry_run: bool = False


class UninstallReport(Report):
    """What was taken off the nodes (or would be, `dry_run`), node by node."""

    dry_run: bool
    purge: bool
    diffs: tuple[FileDiff, ...]
    notices: tuple[str, ...]
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def uninstall(cluster: Cluster, options: UninstallOptions, fleet: Fleet) -> UninstallReport:
    """End the entrance: what was there before exlb is put back, backups first, and all else of it goes."""

    def allow(survey: Survey, befores: Mapping[Node, Before]) -> Mapping[Node, Before]:
        _refuse_to_part(cluster, survey, befores)
        return befores

    return leave(cluster, options, fleet, "uninstall", allow)


def leave(cluster: Cluster, options: UninstallOptions, fleet: Fleet, what: str, allow: Allow) -> UninstallReport:
    """Take exlb off the chosen nodes of a cluster, if `allow`, which may correct what they were, does not refuse it."""
    proxy = PROXIES[cluster.proxy]
    differences = Differences(cluster, fleet)

    def plan_for(nodes: Sequence[Node], survey: Survey) -> Plan:
        told = answered(fleet.survey(nodes, proxy, lambda _: departure.questions()))
        befores = allow(survey, {node: departure.before(node, found) for node, found in told.items()})
        originals = {node: was.found for node, was in befores.items() if was.found and not was.leaving}
        desired, survey = fetched(cluster, fleet, originals, survey)
        desired = {node: replace(each, idle=befores[node].idle) for node, each in desired.items()}
        plan = departure.plan(cluster, desired, befores, survey, purge=options.purge)
        plan = differences.announced(plan, survey)
        return replace(plan, vacant=plan.vacant or _vacant(cluster, plan, survey))

    task = Task(f"{what} --purge" if options.purge else what, options.on_failure)
    changed = change(cluster, options, fleet, task, plan_for, dry_run=options.dry_run, show=differences.show)
    return UninstallReport(
        dry_run=options.dry_run,
        purge=options.purge,
        diffs=differences.of(changed.plan),
        notices=changed.plan.notices,
        nodes=changed.rows,
    )


def _vacant(cluster: Cluster, plan: Plan, survey: Survey) -> bool:
    """Tell whether nobody holds the VIP, and nobody is to begin."""
    starts = any(each.keepalived.action in ("start", "restart") for each in plan.nodes)
    running = any(found.units[KEEPALIVED_UNIT].running for found in survey.facts.values())
    return not (starts or running or survey.errors or survey.holders(cluster.vip.address))


def _refuse_to_part(cluster: Cluster, survey: Survey, befores: Mapping[Node, Before]) -> None:
    """Refuse to take exlb off some nodes only, while the others go on sending to them."""
    leaving = [node for node, was in befores.items() if was.touched]
    staying = [
        node
        for node, found in survey.facts.items()
        if node not in befores and found.generations.current not in (None, 0) and found.units[KEEPALIVED_UNIT].running
    ]
    if leaving and staying:
        names = ", ".join(map(str, leaving))
        raise UsageError(
            f"{', '.join(map(str, staying))} would go on with {names} as a peer",
            hint=f"take {names} out of NODE_IPS in {cluster.path}, exlb push-config, then exlb decommission {names}",
        )
