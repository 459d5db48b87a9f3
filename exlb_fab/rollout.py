"""Carries a plan out: stage and validate everywhere, then apply wave by wave with a gate after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from exlb_fab import facts, vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import ExlbError, RemoteError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet, NotStartedError
from exlb_fab.node import program
from exlb_fab.planning import NodePlan, Plan
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.remote import Remote

GATE_SECONDS = 15
APPLY_SECONDS = 120
MARGIN_SECONDS = 5
PAUSE_SECONDS = 0.5
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
            if fleet.stopped or not roll.apply(wave) or not roll.gate(wave):
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

    def gate(self, wave: Sequence[NodePlan]) -> bool:
        """Wait until the nodes of a wave serve, if they did before, and exactly one node holds the VIP.

        After a change of keepalived one holder counts only once it has been seen for longer than two nodes that do not
        hear each other could hide it.
        """
        cluster = self._cluster
        priorities = vrrp.priorities(len(cluster.nodes))
        advert = cluster.vrrp.advert_interval_seconds
        steady = 0.0
        if any(each.keepalived.action != "none" for each in wave):
            steady = vrrp.settle_seconds(priorities, advert)
        limit = vrrp.election_seconds(priorities, advert) + MARGIN_SECONDS + steady
        serving = [each.node for each in wave if each.serving]
        faults = wait_for_steady(lambda: self._faults(serving), steady, limit)
        if not faults:
            return True
        for node, result in list(self.results.items()):
            fault = faults.get(node) or faults.get(None)
            if result.result == "changed" and fault:
                detail = f"changed, but after {limit:.0f} s {fault}"
                self.results[node] = NodeResult(
                    node, "failed", detail, result.seconds, RemoteError(f"{node}: {detail}")
                )
        for where, said in faults.items():
            self._fleet.emit(Event("failure", said, where.name if where else None))
        return False

    def _faults(self, serving: Sequence[Node]) -> dict[Node | None, str]:
        """Look at all nodes and return what is wrong, by node; None stands for all of them."""
        cluster = self._cluster
        urls = {node: facts.node_url(cluster, node) for node in serving}

        def questions(node: Node) -> list[str]:
            asked = ["addresses", f"ping {cluster.vip}"]
            return [*asked, f"request {urls[node]}"] if node in urls else asked

        seen = self._fleet.look(cluster.nodes, self._proxy, questions)
        faults: dict[Node | None, str] = {}
        for node, url in urls.items():
            reply = seen.facts[node].replies[url] if node in seen.facts else None
            if reply is None or reply.code is None:
                faults[node] = f"it does not serve: {reply.error if reply else seen.errors[node].message}"
        holders = seen.holders(cluster.vip.address)
        # A node that cannot be asked may be the holder, and then the VIP answers.
        elsewhere = seen.errors and all(found.pings[str(cluster.vip)] for found in seen.facts.values())
        if len(holders) > 1 or (not holders and not elsewhere):
            verb = "hold" if len(holders) > 1 else "holds"
            faults[None] = f"{', '.join(map(str, holders)) or 'no node'} {verb} {cluster.vip}, not exactly one"
        return faults

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


def wait_for_steady(
    look: Callable[[], Mapping[Node | None, str]], steady_seconds: float, limit_seconds: float
) -> Mapping[Node | None, str]:
    """Look until nothing has been wrong for a while, or the limit is over; return what was wrong last."""
    deadline = time.monotonic() + limit_seconds
    good_since: float | None = None
    while True:
        faults = look()
        now = time.monotonic()
        good_since = None if faults else good_since or now
        if (good_since is not None and now - good_since >= steady_seconds) or now >= deadline:
            return faults
        time.sleep(PAUSE_SECONDS)


def _framed(plan: NodePlan) -> str:
    """Return the changed files as apply.sh reads them: a line `KIND MODE LINES PATH`, then the lines."""
    return "".join(
        f"{file.kind} {file.mode:04o} {lines} {file.path}\n{file.text}"
        for file, lines in ((change.file, change.file.text.count("\n")) for change in plan.changes)
    )
