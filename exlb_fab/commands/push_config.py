"""push-config: bring every node to the configuration that the environment file describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exlb_fab import planning, rendering
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of
from exlb_fab.commands.changing import ChangeOptions, change
from exlb_fab.commands.differences import Differences, FileDiff
from exlb_fab.errors import EXIT_OK, EXIT_PENDING
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import Desired, Plan
from exlb_fab.rollout import Task


@dataclass(frozen=True, slots=True)
class PushOptions(ChangeOptions):
    """What the command line of push-config says."""

    dry_run: bool = False
    pending_exit_code: bool = False
    templates: Path | None = None
    unvalidated: bool = False


class PushReport(Report):
    """What changes (`dry_run`) or changed, node by node; `number` is the generation's, None where no file changes."""

    dry_run: bool
    pending_exit_code: bool
    number: int | None
    diffs: tuple[FileDiff, ...]
    notices: tuple[str, ...]
    nodes: tuple[NodeRow, ...]

    @property
    def changes(self) -> bool:
        return any(row.result not in ("unchanged", "unreachable") for row in self.nodes)

    @property
    def exit_code(self) -> int:
        code = exit_code_of([row.result for row in self.nodes])
        if code == EXIT_OK and self.dry_run and self.pending_exit_code and self.changes:
            return EXIT_PENDING
        return code


def push_config(cluster: Cluster, options: PushOptions, fleet: Fleet) -> PushReport:
    """Render, compare, show, validate on every node, and roll out: backups first, the holder last."""
    templates = rendering.Templates(options.templates)
    # A template that is broken is found before a node is contacted.
    for node in cluster.nodes:
        rendering.render(cluster, node, templates, rendering.Target(interface="any"))
    differences = Differences(cluster, fleet)

    def plan_for(nodes: Sequence[Node], survey: Survey) -> Plan:
        planning.refuse_contradictions(cluster, {node: survey.facts[node] for node in nodes})
        rendered = {
            node: rendering.render(cluster, node, templates, survey.facts[node].target(cluster)) for node in nodes
        }
        wanted = {node: Desired(each.files, each.absent) for node, each in rendered.items()}
        plan = planning.plan(cluster, wanted, survey, unvalidated=options.unvalidated)
        plan = planning.admitted(plan, cluster, survey)
        if not plan.empty:
            notes = tuple(f"{node}: {note}" for node, each in rendered.items() for note in each.notes)
            others = {node: ", ".join(survey.facts[node].unmanaged) for node in nodes}
            notes += tuple(f"{node}: the proxy also reads {found}" for node, found in others.items() if found)
            plan = replace(plan, notices=(*plan.notices, *notes))
        return differences.announced(plan, survey)

    task = Task("push-config", options.on_failure, options.unvalidated)
    changed = change(cluster, options, fleet, task, plan_for, dry_run=options.dry_run, show=differences.show)
    return PushReport(
        dry_run=options.dry_run,
        pending_exit_code=options.pending_exit_code,
        number=next((each.number for each in changed.plan.nodes if each.number is not None), None),
        diffs=differences.of(changed.plan),
        notices=changed.plan.notices,
        nodes=changed.rows,
    )
