"""rollback: bring the nodes back to a generation that they keep, with the order and the gates of a push."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exlb_fab import departure, planning
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, answered, exit_code_of
from exlb_fab.commands.changing import ChangeOptions, change
from exlb_fab.commands.differences import Differences, FileDiff
from exlb_fab.errors import UsageError
from exlb_fab.facts import Facts, Kept, KeptFile, Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import ADOPTED, Desired, Plan
from exlb_fab.proxies import PROXIES
from exlb_fab.rollout import Task


@dataclass(frozen=True, slots=True)
class RollbackOptions(ChangeOptions):
    """`to` is the number of a generation, None for the one before the active one."""

    to: int | None = None
    dry_run: bool = False
    unvalidated: bool = False


class RollbackReport(Report):
    """Where the nodes went back to (or would, `dry_run`), node by node; `to` is None where there is nothing before."""

    to: int | None
    dry_run: bool
    diffs: tuple[FileDiff, ...]
    notices: tuple[str, ...]
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def rollback(cluster: Cluster, options: RollbackOptions, fleet: Fleet) -> RollbackReport:
    """Make a kept generation the active one again: on each node the newest that is not newer than the one asked for."""
    proxy = PROXIES[cluster.proxy]
    differences = Differences(cluster, fleet)
    target: list[int] = []

    def plan_for(nodes: Sequence[Node], survey: Survey) -> Plan:
        told = answered(fleet.survey(nodes, proxy, lambda _: ["history", f"read {departure.FOUND_UNITS}"]))
        histories = {node: found.history.kept if found.history else () for node, found in told.items()}
        to = _before(histories, survey) if options.to is None else _existing(histories, options.to)
        target[:] = [max(to.values(), default=0)]
        chosen = {node: _newest(node, kept, to[node], survey.facts[node]) for node, kept in histories.items()}
        desired, survey = fetched(cluster, fleet, chosen, survey)
        # What did not run on its file then must not begin to now: it may be a sample that came with the package.
        desired = {
            node: replace(each, idle=departure.idle_as_found(told[node])) if each.number == ADOPTED else each
            for node, each in desired.items()
        }
        plan = planning.plan(cluster, desired, survey, unvalidated=options.unvalidated)
        return differences.announced(planning.admitted(plan, cluster, survey), survey)

    task = Task("rollback", options.on_failure, options.unvalidated)
    changed = change(cluster, options, fleet, task, plan_for, dry_run=options.dry_run, show=differences.show)
    return RollbackReport(
        to=next(iter(target), None),
        dry_run=options.dry_run,
        diffs=differences.of(changed.plan),
        notices=changed.plan.notices,
        nodes=changed.rows,
    )


def fetched(
    cluster: Cluster, fleet: Fleet, chosen: Mapping[Node, Kept], survey: Survey
) -> tuple[dict[Node, Desired], Survey]:
    """Return kept generations as what the nodes should have, and the survey with what is at the places of their files.

    Raises the error of a node that is lost meanwhile.
    """
    asked = {
        node: [question for file in kept.files for question in _questions(kept, file)] for node, kept in chosen.items()
    }
    texts = answered(fleet.survey(chosen, PROXIES[cluster.proxy], lambda node: asked[node]))
    # Of another configuration are other paths than the survey knows of.
    known = {
        node: replace(found, files={**found.files, **texts[node].files})
        for node, found in survey.facts.items()
        if node in texts
    }
    desired = {node: _desired(cluster, kept, texts[node].texts) for node, kept in chosen.items()}
    return desired, replace(survey, facts={**survey.facts, **known})


def _before(histories: Mapping[Node, Sequence[Kept]], survey: Survey) -> dict[Node, int]:
    """Return for each node what was active before the newest generation of all came; what is, where it did not come.

    So a second rollback changes nothing. Raises UsageError where there is nothing before.
    """
    newest = max((each.number for kept in histories.values() for each in kept), default=0)
    before = {}
    for node, kept in histories.items():
        current = survey.facts[node].generations.current
        if kept and kept[-1].number == newest:
            said = kept[-1].meta.get("previous", "")
            current = int(said) if said.isdigit() else next((each.number for each in reversed(kept[:-1])), None)
        if current is None:
            raise UsageError(
                f"{node}: there is no generation to go back to", hint="exlb history shows what the nodes keep"
            )
        before[node] = current
    return before


def _existing(histories: Mapping[Node, Sequence[Kept]], to: int) -> dict[Node, int]:
    """Return a number for every node. Raises UsageError where no generation of any has reached it yet."""
    newest = max((each.number for kept in histories.values() for each in kept), default=None)
    if newest is None or to > newest:
        told = "no generation yet" if newest is None else f"generation {newest}"
        raise UsageError(f"--to {to}: the newest on any node is {told}", hint="exlb history shows what they keep")
    return dict.fromkeys(histories, to)


def _newest(node: Node, kept: Sequence[Kept], to: int, found: Facts) -> Kept:
    """Return the newest kept generation that is not newer than `to`: what was active on the node in its time.

    Raises UsageError where that may be one that is no longer kept, or where the node keeps none.
    """
    fitting = [each for each in kept if each.number <= to]
    pruned = found.generations.pruned
    numbers = ", ".join(str(each.number) for each in kept) or "none"
    if not fitting or (pruned is not None and fitting[-1].number < pruned and to != fitting[-1].number):
        raise UsageError(f"{node}: generation {to} is not kept; kept: {numbers}", hint="exlb history")
    return fitting[-1]


def _questions(kept: Kept, file: KeptFile) -> list[str]:
    """Return what has to be known of a file of a generation: its text there, and what is at its place now."""
    return [f"file {file.path}", *([f"read {_path(kept, file.number)}"] if file.sha256 else [])]


def _path(kept: Kept, number: str) -> str:
    return f"/var/lib/exlb/generations/{kept.number:04d}/files/{number}"


def _desired(cluster: Cluster, kept: Kept, texts: Mapping[str, str]) -> Desired:
    files = [planning.kept_file(cluster, file, texts.get(_path(kept, file.number), "")) for file in kept.files]
    return Desired(
        tuple(file for file in files if file.known_sha256),
        tuple(file for file in files if not file.known_sha256),
        kept.number,
    )
