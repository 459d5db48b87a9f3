"""push-config: bring every node to the configuration that the environment file describes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exlb_fab import planning, rendering
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, refuse_unreachable, select
from exlb_fab.commands.changing import ChangeOptions, change
from exlb_fab.errors import EXIT_OK, EXIT_PENDING
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import Change, Desired, Plan
from exlb_fab.platforms import KEEPALIVED_PATH
from exlb_fab.rollout import Task


@dataclass(frozen=True, slots=True)
class PushOptions(ChangeOptions):
    """What the command line of push-config says."""

    dry_run: bool = False
    pending_exit_code: bool = False
    templates: Path | None = None
    unvalidated: bool = False


class FileDiff(BaseModel):
    """How a file changes, the same way on each of `nodes`; secrets are masked."""

    model_config = ConfigDict(frozen=True)

    nodes: tuple[str, ...]
    path: str
    reason: str
    diff: str


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
    desired = {node: Desired(rendering.render(cluster, node, templates)) for node in select(cluster, options.nodes)}
    active: dict[Node, Mapping[str, str]] = {}

    def plan_for(nodes: Sequence[Node], survey: Survey) -> Plan:
        wanted = {node: desired[node] for node in nodes}
        plan = planning.plan(cluster, wanted, survey, unvalidated=options.unvalidated)
        active.clear()
        active.update(active_texts(plan, survey, fleet))
        return planning.announced(plan, cluster, keepalived_texts(active), survey)

    def show(plan: Plan) -> None:
        for diff in diffs_of(plan, active):
            fleet.emit(Event("diff", diff.diff or diff.reason, f"{', '.join(diff.nodes)}: {diff.path}"))

    task = Task("push-config", options.on_failure, options.unvalidated)
    changed = change(cluster, options, fleet, task, plan_for, dry_run=options.dry_run, show=show)
    return PushReport(
        dry_run=options.dry_run,
        pending_exit_code=options.pending_exit_code,
        number=next((each.number for each in changed.plan.nodes if each.number is not None), None),
        diffs=diffs_of(changed.plan, active),
        notices=changed.plan.notices,
        nodes=changed.rows,
    )


def active_texts(plan: Plan, survey: Survey, fleet: Fleet) -> dict[Node, Mapping[str, str]]:
    """Fetch the texts of files whose content changes: one more exec, on those nodes only.

    Where keepalived starts somewhere, also the keepalived.conf files of those who have to send to it. Raises the error
    of a node that is lost meanwhile: without its files nobody knows what the change is.
    """
    reads = {
        each.node: [f"read {one.file.path}" for one in each.changes if not one.found.absent] for each in plan.nodes
    }
    if any(each.keepalived.action == "start" for each in plan.nodes):
        reads |= {node: [f"read {KEEPALIVED_PATH}"] for node in planning.outside(plan, survey)}
    asked = {node: questions for node, questions in reads.items() if questions}
    if not asked:
        return {}
    found = fleet.survey(asked, plan.proxy, lambda node: asked[node])
    refuse_unreachable(found.errors.values())
    return {node: each.texts for node, each in found.facts.items()}


def keepalived_texts(active: Mapping[Node, Mapping[str, str]]) -> dict[Node, str]:
    """Return the active keepalived.conf of the nodes of which it was fetched."""
    return {node: texts[KEEPALIVED_PATH] for node, texts in active.items() if KEEPALIVED_PATH in texts}


def diffs_of(plan: Plan, active: Mapping[Node, Mapping[str, str]]) -> tuple[FileDiff, ...]:
    """Return how the files change, each difference once for all nodes that have it."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for each in plan.nodes:
        for one in each.changes:
            text = active.get(each.node, {}).get(one.file.path, "")
            alike.setdefault((one.file.path, one.reason, _diff(one, text)), []).append(each.node.name)
    return tuple(
        FileDiff(nodes=tuple(nodes), path=path, reason=reason, diff=diff)
        for (path, reason, diff), nodes in alike.items()
    )


def _diff(change: Change, old: str) -> str:
    file = change.file
    if change.reason == "mode or owner":
        return ""
    new = "" if change.reason == "to be removed" else file.text
    names = ("nothing" if change.found.absent else "active", "nothing" if change.reason == "to be removed" else "new")
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=2)
    return file.mask("\n".join(lines))
