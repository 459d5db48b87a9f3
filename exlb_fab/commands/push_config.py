"""push-config: bring every node to the configuration that the environment file describes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exlb_fab import facts, planning, rendering, rollout
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, refuse_unreachable, rolled, select
from exlb_fab.errors import EXIT_OK, EXIT_PENDING
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from exlb_fab.planning import Change, Plan
from exlb_fab.platforms import KEEPALIVED_PATH
from exlb_fab.proxies import PROXIES
from exlb_fab.rollout import NodeResult


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What the command line of push-config says."""

    nodes: tuple[str, ...] = ()
    dry_run: bool = False
    pending_exit_code: bool = False
    skip_unreachable: bool = False
    templates: Path | None = None


class FileDiff(BaseModel):
    """How a file changes, the same way on each of `nodes`; secrets are masked."""

    model_config = ConfigDict(frozen=True)

    nodes: tuple[str, ...]
    path: str
    reason: str
    diff: str


class PushReport(Report):
    """What changes (`dry_run`) or changed, node by node."""

    dry_run: bool
    pending_exit_code: bool
    diffs: tuple[FileDiff, ...]
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
    proxy = PROXIES[cluster.proxy]
    chosen = select(cluster, options.nodes)
    templates = rendering.Templates(options.templates)
    desired = {node: rendering.render(cluster, node, templates) for node in chosen}
    survey = fleet.survey(cluster.nodes, proxy, lambda _: facts.configuration_questions(proxy))
    missing = {node: error for node, error in survey.errors.items() if node in chosen}
    if not options.skip_unreachable:
        refuse_unreachable(missing.values())
    reachable = {node: files for node, files in desired.items() if node not in missing}
    plan = planning.plan(cluster, reachable, survey)
    active = _active_texts(plan, fleet)
    keepalived = {node: texts[KEEPALIVED_PATH] for node, texts in active.items() if KEEPALIVED_PATH in texts}
    plan = planning.together(plan, cluster, keepalived, survey)
    diffs = _diffs(plan, active)
    if plan.notice:
        fleet.emit(Event("warning", plan.notice))
    if not options.dry_run:
        for diff in diffs:
            fleet.emit(Event("diff", diff.diff or diff.reason, f"{', '.join(diff.nodes)}: {diff.path}"))
    results = _pending(plan) if options.dry_run else rollout.carry_out(cluster, plan, fleet)
    rows = {result.node: rolled(result) for result in results}
    rows |= {node: failure(node, error) for node, error in missing.items()}
    return PushReport(
        dry_run=options.dry_run,
        pending_exit_code=options.pending_exit_code,
        diffs=diffs,
        nodes=tuple(rows[node] for node in chosen),
    )


def _pending(plan: Plan) -> tuple[NodeResult, ...]:
    """Return what a roll-out of this plan would begin with: the dry run is the same plan, told and not done."""
    return tuple(
        NodeResult(each.node, "unchanged" if each.empty else "pending", each.summary(), 0.0) for each in plan.nodes
    )


def _active_texts(plan: Plan, fleet: Fleet) -> dict[Node, Mapping[str, str]]:
    """Fetch the texts of files whose content changes: one more exec, on those nodes only."""
    reads = {
        each.node: [f"read {change.file.path}" for change in each.changes if change.reason == "content"]
        for each in plan.nodes
    }
    asked = {node: questions for node, questions in reads.items() if questions}
    if not asked:
        return {}
    return {n: found.texts for n, found in fleet.survey(asked, plan.proxy, lambda node: asked[node]).facts.items()}


def _diffs(plan: Plan, active: Mapping[Node, Mapping[str, str]]) -> tuple[FileDiff, ...]:
    alike: dict[tuple[str, str, str], list[str]] = {}
    for each in plan.nodes:
        for change in each.changes:
            text = active.get(each.node, {}).get(change.file.path, "")
            alike.setdefault((change.file.path, change.reason, _diff(change, text)), []).append(each.node.name)
    return tuple(
        FileDiff(nodes=tuple(nodes), path=path, reason=reason, diff=diff)
        for (path, reason, diff), nodes in alike.items()
    )


def _diff(change: Change, old: str) -> str:
    file = change.file
    if change.reason == "mode or owner":
        return ""
    names = ("nothing" if change.found.absent else "active", "rendered")
    lines = difflib.unified_diff(old.splitlines(), file.text.splitlines(), *names, lineterm="", n=2)
    return file.mask("\n".join(lines))
