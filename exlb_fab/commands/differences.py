"""The texts that a change replaces: what the change is by them, and how it is shown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from exlb_fab import transitions
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import answered
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import Change, Plan
from exlb_fab.platforms import KEEPALIVED_PATH


class FileDiff(BaseModel):
    """How a file changes, the same way on each of `nodes`; secrets are masked."""

    model_config = ConfigDict(frozen=True)

    nodes: tuple[str, ...]
    path: str
    reason: str
    diff: str


class Differences:
    """The active texts of the files that a plan changes, as they were fetched for the newest one."""

    def __init__(self, cluster: Cluster, fleet: Fleet) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._active: Mapping[Node, Mapping[str, str]] = {}

    def announced(self, plan: Plan, survey: Survey) -> Plan:
        """Fetch the texts, and return the plan in the order that its changes of keepalived need, with their cost."""
        self._active = _active_texts(plan, survey, self._fleet)
        keepalived = {node: texts[KEEPALIVED_PATH] for node, texts in self._active.items() if KEEPALIVED_PATH in texts}
        return transitions.announced(plan, self._cluster, keepalived, survey)

    def show(self, plan: Plan) -> None:
        """Tell how the files change."""
        for diff in self.of(plan):
            self._fleet.emit(Event("diff", diff.diff or diff.reason, f"{', '.join(diff.nodes)}: {diff.path}"))

    def of(self, plan: Plan) -> tuple[FileDiff, ...]:
        """Return how the files change, each difference once for all nodes that have it."""
        alike: dict[tuple[str, str, str], list[str]] = {}
        for each in plan.nodes:
            for one in each.changes:
                text = self._active.get(each.node, {}).get(one.file.path, "")
                alike.setdefault((one.file.path, one.reason, _diff(one, text)), []).append(each.node.name)
        return tuple(
            FileDiff(nodes=tuple(nodes), path=path, reason=reason, diff=diff)
            for (path, reason, diff), nodes in alike.items()
        )


def _active_texts(plan: Plan, survey: Survey, fleet: Fleet) -> dict[Node, Mapping[str, str]]:
    """Fetch the texts of files whose content changes: one more exec, on those nodes only.

    Where keepalived starts somewhere, also the keepalived.conf files of those who have to send to it. Raises the error
    of a node that is lost meanwhile: without its files nobody knows what the change is.
    """
    reads = {
        each.node: [f"read {one.file.path}" for one in each.changes if not one.found.absent] for each in plan.nodes
    }
    if any(each.keepalived.action == "start" for each in plan.nodes):
        reads |= {node: [f"read {KEEPALIVED_PATH}"] for node in transitions.outside(plan, survey)}
    asked = {node: questions for node, questions in reads.items() if questions}
    if not asked:
        return {}
    found = answered(fleet.survey(asked, plan.proxy, lambda node: asked[node]))
    return {node: each.texts for node, each in found.items()}


def _diff(change: Change, old: str) -> str:
    file = change.file
    if change.reason == "mode or owner":
        return ""
    new = "" if change.reason == "to be removed" else file.text
    names = ("nothing" if change.found.absent else "active", "nothing" if change.reason == "to be removed" else "new")
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=2)
    return file.mask("\n".join(lines))
