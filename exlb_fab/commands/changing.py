"""What the commands that change nodes share: look, plan, lock, look again, and carry out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from exlb_fab import questions, rollout
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, failure, refuse_unreachable, rolled, select
from exlb_fab.errors import EXIT_UNREACHABLE, ExlbError, UnreachableError, UsageError
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock
from exlb_fab.planning import Plan
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.rollout import NodeResult, OnFailure, Task


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """What every command that changes nodes can be told; `yes` answers what it would ask."""

    nodes: tuple[str, ...] = ()
    skip_unreachable: bool = False
    lock_wait_seconds: int = 0
    yes: bool = False
    on_failure: OnFailure = "stop"


@dataclass(frozen=True, slots=True)
class Changed:
    """What was planned, and how it ended on every chosen node."""

    plan: Plan
    rows: tuple[NodeRow, ...]


def change(
    cluster: Cluster,
    options: ChangeOptions,
    fleet: Fleet,
    task: Task,
    plan_for: Callable[[Sequence[Node], Survey], Plan],
    *,
    dry_run: bool = False,
    show: Callable[[Plan], None] = lambda _: None,
) -> Changed:
    """Plan a change of the chosen nodes, and carry it out under their locks.

    A first look tells whether there is anything to do at all: where there is not, that is all that it costs. The
    plan that counts is made under the lock, once every node stands on one complete generation.
    """
    chosen = select(cluster, options.nodes)
    survey, missing = look(cluster, chosen, options, fleet)
    reachable = [node for node in chosen if node not in missing]
    settled = all(survey.facts[node].generations.settled for node in reachable)
    # What a change has left half way is no ground for a plan; for a dry run it has to be.
    if dry_run or settled:
        plan = plan_for(reachable, survey)
        if dry_run or plan.empty:
            _tell(plan, fleet)
            return Changed(plan, _rows(chosen, _pending(plan), missing))
    silent = missing

    def looked_again() -> tuple[Survey, Mapping[Node, ExlbError]]:
        # A node that answers only now is not locked: it stays out.
        survey, missing = look(cluster, chosen, options, fleet)
        return survey, {**missing, **silent}

    with Lock(reachable, fleet, task.what, options.lock_wait_seconds) as lock:
        survey, missing = looked_again()
        if rollout.settle(cluster, reachable, survey, fleet, lock):
            survey, missing = looked_again()
        plan = plan_for([node for node in reachable if node not in missing], survey)
        _tell(plan, fleet)
        show(plan)
        leaving = _leaving(plan, options, fleet)
        if plan.asks and not options.yes:
            ask(fleet)
        if leaving:
            with Lock(leaving, fleet, task.what, options.lock_wait_seconds) as theirs:
                rollout.retire(cluster, leaving, fleet, theirs, plan.advert_seconds)
            survey, missing = looked_again()
            plan = plan_for([node for node in reachable if node not in missing], survey)
        results = rollout.carry_out(cluster, plan, fleet, lock, task)
    return Changed(plan, _rows(chosen, results, missing))


def look(
    cluster: Cluster, chosen: Sequence[Node], options: ChangeOptions, fleet: Fleet
) -> tuple[Survey, Mapping[Node, ExlbError]]:
    """Probe all nodes, and return which of the chosen ones cannot be asked, where that is allowed."""
    proxy = PROXIES[cluster.proxy]
    survey = fleet.survey(cluster.nodes, proxy, lambda _: questions.configuration_questions(cluster))
    missing = {node: error for node, error in survey.errors.items() if node in chosen}
    if not options.skip_unreachable:
        refuse_unreachable(missing.values())
    return survey, missing


def _leaving(plan: Plan, options: ChangeOptions, fleet: Fleet) -> list[Node]:
    """Return the nodes that leave and have a keepalived that runs, or would at boot.

    Raises UnreachableError where one cannot be asked: nobody knows then whether it would hold the VIP too.
    """
    found = fleet.survey(plan.leaving, plan.proxy, lambda _: [f"unit {KEEPALIVED_UNIT}"])
    for node, error in found.errors.items():
        if error.exit_code != EXIT_UNREACHABLE:
            raise error
        if not options.skip_unreachable:
            raise UnreachableError(
                f"{error.message}\n{node} leaves, and must not run keepalived any more\n"
                "nothing was changed on any node",
                hint="--skip-unreachable goes on without it: it must not come back with its keepalived",
            )
        fleet.emit(Event("warning", "cannot be asked: it must not come back with its keepalived", node.name))
    units = {node: each.units[KEEPALIVED_UNIT] for node, each in found.facts.items()}
    return [node for node, unit in units.items() if unit.running or unit.enabled]


def _tell(plan: Plan, fleet: Fleet) -> None:
    for notice in plan.notices:
        fleet.emit(Event("warning", notice))


def ask(fleet: Fleet) -> None:
    """Ask whether to go on. Raises UsageError where the answer is no, or nobody can be asked."""
    if fleet.confirm is None:
        raise UsageError("there is no terminal to ask whether to go on", hint="--yes goes on without asking")
    if not fleet.confirm("Go on?"):
        raise UsageError("nothing was changed on any node")


def _pending(plan: Plan) -> tuple[NodeResult, ...]:
    """Return what a roll-out of this plan would begin with: the dry run is the same plan, told and not done."""
    return tuple(
        NodeResult(each.node, "unchanged" if each.empty else "pending", each.summary(), 0.0) for each in plan.nodes
    )


def _rows(
    chosen: Sequence[Node], results: Sequence[NodeResult], missing: Mapping[Node, ExlbError]
) -> tuple[NodeRow, ...]:
    rows = {result.node: rolled(result) for result in results}
    rows |= {node: failure(node, error) for node, error in missing.items()}
    return tuple(rows[node] for node in chosen)
