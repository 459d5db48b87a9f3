"""Carries a plan out: stage and validate everywhere, then apply wave by wave with a gate after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import ExlbError, RemoteError
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet, NotStartedError
from exlb_fab.node import program
from exlb_fab.planning import NodePlan, Plan
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.remote import Remote

GATE_SECONDS = 15
APPLY_SECONDS = 120
MARGIN_SECONDS = 5
PAUSE_SECONDS = 0.3
RESULT_MARK = "exlb-apply: "

Result = Literal["unchanged", "pending", "changed", "failed", "not started"]


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How the roll-out ended on one node."""

    node: Node
    result: Result
    detail: str
    seconds: float
    error: ExlbError | None = None


def carry_out(cluster: Cluster, plan: Plan, fleet: Fleet) -> tuple[NodeResult, ...]:
    """Carry a plan out and say how each node of it ended; stop at the first failure.

    Nothing active is touched anywhere before every node that changes has validated its new files.
    """
    roll = _RollOut(cluster, fleet)
    changing = [each for wave in plan.waves for each in wave]
    if roll.stage(changing):
        for wave in plan.waves:
            if fleet.stopped or not roll.apply(wave) or not roll.gate():
                break
    roll.discard(each for each in changing if not roll.changed(each.node))
    return tuple(roll.result(each) for each in plan.nodes)


class _RollOut:
    """The state of one roll-out: what has happened on which node so far."""

    def __init__(self, cluster: Cluster, fleet: Fleet) -> None:
        self.results: dict[Node, NodeResult] = {}
        self._cluster = cluster
        self._proxy: Proxy = PROXIES[cluster.proxy]
        self._fleet = fleet

    def stage(self, plans: Sequence[NodePlan]) -> bool:
        """Bring the new files to the nodes and validate them there, all nodes at once."""
        return self._all([each for each in plans if each.changes], self._stage_one, "validated its new files")

    def apply(self, wave: Sequence[NodePlan]) -> bool:
        """Make the staged files the active ones on the nodes of one wave."""
        return self._all(wave, self._apply_one, "done")

    def gate(self) -> bool:
        """Wait until exactly one node holds the VIP; True at once where only the proxy changed and nothing moved."""
        cluster = self._cluster
        priorities = vrrp.priorities(len(cluster.nodes))
        limit = vrrp.election_seconds(priorities, cluster.vrrp.advert_interval_seconds) + MARGIN_SECONDS
        survey = wait_for(self._look, lambda seen: len(seen.holders(cluster.vip.address)) == 1, limit)
        holders = survey.holders(cluster.vip.address)
        if len(holders) == 1:
            self._fleet.emit(Event("step", f"holds {cluster.vip}", holders[0].name))
            return True
        named = ", ".join(map(str, holders)) or "no node"
        self._fleet.emit(Event("failure", f"after {limit:.0f} s {named} holds {cluster.vip}, not exactly one"))
        for node, result in list(self.results.items()):
            if result.result == "changed":
                detail = f"changed, but {named} holds {cluster.vip}"
                self.results[node] = NodeResult(
                    node, "failed", detail, result.seconds, RemoteError(f"{node}: {detail}")
                )
        return False

    def discard(self, plans: Iterable[NodePlan]) -> None:
        """Take the staged files away from nodes that will not use them."""
        self._fleet.tidy(
            [each.node for each in plans if each.changes],
            lambda node, remote: self._finished(node, remote, ("discard",), ""),
        )

    def result(self, plan: NodePlan) -> NodeResult:
        """Return how a node ended; one that the roll-out did not come to was not started."""
        if plan.empty:
            return NodeResult(plan.node, "unchanged", "no changes", 0.0)
        return self.results.get(plan.node) or NodeResult(plan.node, "not started", plan.summary(), 0.0)

    def changed(self, node: Node) -> bool:
        return node in self.results and self.results[node].result == "changed"

    @property
    def _program(self) -> str:
        return program(self._proxy.program, "apply.sh")

    def _all(self, plans: Sequence[NodePlan], work: Callable[[NodePlan, Remote], NodeResult | None], done: str) -> bool:
        by_node = {each.node: each for each in plans}
        outcomes = self._fleet.each(by_node, lambda node, remote: work(by_node[node], remote))
        for node, value in outcomes.values.items():
            if value is not None:
                self.results[node] = value
            self._fleet.emit(Event("done", done, node.name))
        for node, error in outcomes.errors.items():
            if not isinstance(error, NotStartedError):
                self.results[node] = NodeResult(node, "failed", error.message, 0.0, error)
                self._fleet.emit(Event("failure", error.message, node.name))
        return not outcomes.errors

    def _stage_one(self, plan: NodePlan, remote: Remote) -> None:
        self._finished(plan.node, remote, ("stage",), _framed(plan))

    def _apply_one(self, plan: NodePlan, remote: Remote) -> NodeResult:
        self._fleet.emit(Event("step", plan.summary(), plan.node.name))
        began = time.monotonic()
        what = "activate" if plan.changes else "units"
        self._finished(plan.node, remote, (what, plan.proxy.action, plan.keepalived.action, str(GATE_SECONDS)), "")
        return NodeResult(plan.node, "changed", plan.summary(), time.monotonic() - began)

    def _finished(self, node: Node, remote: Remote, args: Sequence[str], data: str) -> None:
        """Run apply.sh; raises RemoteError with the step and the program's own words where it fails."""
        done = remote.run(self._program, args, data, limit_seconds=APPLY_SECONDS)
        lines = done.stdout.splitlines()
        last = lines[-1].removeprefix(RESULT_MARK) if lines else f"status {done.status}"
        if done.status == 0 and last == "done":
            return
        said = "\n".join(line for line in lines if not line.startswith(("step ", RESULT_MARK))).strip()
        # A validator quotes the line that it does not like, password and all.
        words = self._proxy.mask(said or done.stderr.strip())
        raise RemoteError(f"{node}: {last}\n{words}".rstrip(), hint="exlb push-config --dry-run")

    def _look(self) -> Survey:
        return self._fleet.survey(self._cluster.nodes, self._proxy, lambda _: ["addresses"])


def wait_for(look: Callable[[], Survey], satisfied: Callable[[Survey], bool], limit_seconds: float) -> Survey:
    """Look again and again until satisfied or the limit is over; return what was seen last."""
    deadline = time.monotonic() + limit_seconds
    while not satisfied(seen := look()) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    return seen


def _framed(plan: NodePlan) -> str:
    """Return the changed files as apply.sh reads them: a line `KIND MODE LINES PATH`, then the lines."""
    return "".join(
        f"{file.kind} {file.mode:04o} {lines} {file.path}\n{file.text}"
        for file, lines in ((change.file, change.file.text.count("\n")) for change in plan.changes)
    )
