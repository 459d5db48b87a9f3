"""Carries a plan out: stage and validate everywhere, then apply wave by wave with a gate after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from exlb_fab import __version__, firewall, planning, questions, selinux, vrrp
from exlb_fab import node as programs
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import ExlbError, RemoteError
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet, NotStartedError, Outcomes
from exlb_fab.locking import Lock, operator
from exlb_fab.planning import Change, NodePlan, Plan
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.remote import Completed, Remote
from exlb_fab.rendering import mask_keepalived

GATE_SECONDS = 15
APPLY_SECONDS = 120
UPGRADE_SECONDS = 900
MARGIN_SECONDS = 5
PAUSE_SECONDS = 0.5
RESULT_MARK = "exlb-apply: "
END_MARK = "exlb-ended "
UNHEARD = 255  # the status of a program that began, and whose end nobody has heard of

Result = Literal["unchanged", "pending", "changed", "restored", "failed", "not started"]
OnFailure = Literal["stop", "rollback-all"]


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How the roll-out ended on one node."""

    node: Node
    result: Result
    detail: str
    seconds: float
    error: ExlbError | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a roll-out is for: `what` goes into the generations and the journal of the nodes."""

    what: str
    on_failure: OnFailure = "stop"
    unvalidated: bool = False


class UnfinishedError(RemoteError):
    """A node's own program has ended half way: it was killed there."""


class TakenBackError(RemoteError):
    """A node's own program failed, and has put back whatever it had touched."""


def carry_out(cluster: Cluster, plan: Plan, fleet: Fleet, lock: Lock, task: Task) -> tuple[NodeResult, ...]:
    """Carry a plan out and say how each node of it ended; stop at the first failure.

    Nothing active is touched anywhere before every node that changes has validated its new files. A node that fails
    is back on the bytes that it had, by its own program; one that fails only the gate between nodes is taken back.
    """
    roll = _RollOut(cluster, plan, fleet, lock, task)
    changing = [each for each in plan.nodes if not each.empty]
    if roll.stage(changing) and roll.admit(changing):
        for wave in plan.waves:
            if fleet.stopped:
                break
            if not roll.apply(wave) or not roll.gate(wave):
                roll.retreat(wave)
                break
        else:
            # The record of what is open goes with exlb: a node that could not be closed keeps it, and so do the others.
            if roll.shut(changing):
                roll.remove()
    roll.resume()
    roll.discard(each for each in changing if not roll.changed(each.node))
    return tuple(roll.result(each) for each in plan.nodes)


def settle(cluster: Cluster, nodes: Iterable[Node], survey: Survey, fleet: Fleet, lock: Lock) -> bool:
    """Bring nodes with an unfinished change to one complete generation; tell whether there were any.

    `nodes` are those that the lock holds. A change that still runs is waited for. Raises RemoteError where that takes
    too long, or a node cannot be brought back.
    """
    proxy = PROXIES[cluster.proxy]
    unsettled = [node for node in nodes if node in survey.facts and not survey.facts[node].generations.settled]
    follow = [node for node in unsettled if survey.facts[node].generations.changing]
    followed = fleet.tidy(follow, lambda _, remote: _follow(remote))
    for node, done in followed.values.items():
        said = _outcome(done) or _last_word(done)
        fleet.emit(Event("warning", f"an earlier change was still under way; it ended: {said}", node.name))
    for error in followed.errors.values():
        raise error
    # The change that ran may have ended well: only a node that still has an intent then is taken back.
    again = fleet.look(unsettled, proxy, lambda _: ["generation"])
    for node, found in again.facts.items():
        if found.generations.unfinished is None:
            continue
        number, previous = found.generations.unfinished
        way = "on to it" if found.generations.current == number else f"back to {previous}"
        fleet.emit(Event("warning", f"a change to generation {number} was interrupted: {way}", node.name))
        args = ("recover", str(GATE_SECONDS), questions.node_url(cluster, node))
        taken_back = fleet.tidy([node], partial(_launch, proxy=proxy, lock=lock, args=args))
        for error in taken_back.errors.values():
            raise error
    return bool(unsettled)


def retire(cluster: Cluster, leaving: Sequence[Node], fleet: Fleet, lock: Lock, advert_seconds: float) -> None:
    """Stop keepalived for good on nodes that are peers no more, and see that another one holds the VIP then.

    `lock` holds those nodes. Raises RemoteError, where that is not so, once it runs there again.
    """
    proxy = PROXIES[cluster.proxy]
    everybody = (*cluster.nodes, *leaving)

    def launched(action: str) -> Outcomes[Completed]:
        for node in leaving:
            fleet.emit(Event("step", f"{action} keepalived: it is no peer any more", node.name))

        def launch_one(node: Node, remote: Remote) -> Completed:
            args = ("units", "none", action, str(GATE_SECONDS), questions.node_url(cluster, node))
            return _launch(node, remote, proxy, lock, args)

        return fleet.tidy(leaving, launch_one)

    held = fleet.look(everybody, proxy, lambda _: ["addresses"]).holders(cluster.vip.address)
    failures = list(launched("retire").errors.values())
    if held and not failures:
        limit = vrrp.election_seconds(cluster.priorities, advert_seconds, cluster.vrrp.version) + MARGIN_SECONDS
        faults = wait_for_steady(lambda: _faults(cluster, fleet, everybody), 0, limit)
        failures = [RemoteError(f"after {limit:.0f} s {fault}") for fault in faults.values()]
    if failures:
        launched("recall")
        raise RemoteError(
            f"{failures[0].message}\n{', '.join(map(str, leaving))}: keepalived runs again; nothing else was changed",
            hint="exlb verify",
        )


def admit(node: Node, remote: Remote, lock: Lock, doors: Sequence[str], rights: Sequence[str]) -> None:
    """Have a node's own programs carry out directives for its firewall, and for SELinux.

    Raises RemoteError where one cannot be carried out; those before it are.
    """
    for program, what, directives in (
        (programs.firewall(), "firewall", doors),
        (programs.selinux(), "SELinux", rights),
    ):
        if directives:
            done = launch(remote, program, lock, directives, limit_seconds=APPLY_SECONDS)
            if done.status != 0:
                raise RemoteError(f"{node}: {what}: {last_lines(done.stdout).strip() or done.stderr.strip()}")


class _RollOut:
    """The state of one roll-out: what has happened on which node so far."""

    def __init__(self, cluster: Cluster, plan: Plan, fleet: Fleet, lock: Lock, task: Task) -> None:
        self.results: dict[Node, NodeResult] = {}
        self._cluster = cluster
        self._plan = plan
        self._proxy: Proxy = PROXIES[cluster.proxy]
        self._fleet = fleet
        self._lock = lock
        self._task = task
        self._unvalidated = ("unvalidated",) if task.unvalidated else ()
        self._waiting: list[Node] = []  # their keepalived stands still until the holder has changed
        self._active: set[Node] = set()  # the new files are active there
        self._unknown: set[Node] = set()  # they may be: we have lost it while its own program went on
        self._removed: set[Node] = set()  # nothing of exlb is left there

    def stage(self, plans: Sequence[NodePlan]) -> bool:
        """Bring the new files to the nodes and validate them there, all nodes at once."""
        return self._all([each for each in plans if each.changes], self._stage_one, "validated its new files")

    def admit(self, plans: Sequence[NodePlan]) -> bool:
        """Open what the nodes need, all nodes at once, before anything else: it cannot break what works."""
        opening = [each for each in plans if each.opens or each.allows]
        if not self._all(opening, self._admit_one, "opened"):
            return False
        # Where more is to change, the gates of that come.
        alone = not self._plan.waves and any(each.moves_keepalived for each in opening)
        return self.gate(opening) if alone else True

    def shut(self, plans: Sequence[NodePlan]) -> bool:
        """Close what nobody needs any more, at the very end."""
        closing = [each for each in plans if each.closes or each.forbids]
        return self._all(closing, self._shut_one, "closed what nobody needs")

    def apply(self, wave: Sequence[NodePlan]) -> bool:
        """Make the staged files the active ones on the nodes of one wave."""
        return self._all(wave, self._apply_one, "done")

    def gate(self, wave: Sequence[NodePlan]) -> bool:
        """Wait until the nodes of a wave serve, if they did before, and exactly one node holds the VIP.

        After a change of keepalived one holder counts only once it has been seen for longer than two nodes that do not
        hear each other could hide it.
        """
        cluster = self._cluster
        priorities = cluster.priorities
        advert = self._plan.advert_seconds
        steady = 0.0
        if any(each.moves_keepalived for each in wave):
            steady = vrrp.settle_seconds(priorities, advert, cluster.vrrp.version)
        limit = vrrp.election_seconds(priorities, advert, cluster.vrrp.version) + MARGIN_SECONDS + steady
        if steady:
            self._fleet.emit(Event("step", f"watching for {steady:.0f} s that one node holds {cluster.vip}"))
        serving = [each.node for each in wave if each.serving]
        vacant = self._plan.vacant and wave is self._plan.waves[-1]
        faults = wait_for_steady(
            lambda: _faults(cluster, self._fleet, cluster.nodes, serving, vacant=vacant), steady, limit
        )
        if not faults:
            return True
        for node, result in list(self.results.items()):
            fault = faults.get(node) or faults.get(None)
            if result.result == "changed" and fault and any(each.node == node for each in wave):
                detail = f"changed, but after {limit:.0f} s {fault}"
                self.results[node] = NodeResult(
                    node, "failed", detail, result.seconds, RemoteError(f"{node}: {detail}")
                )
        for where, said in faults.items():
            self._fleet.emit(Event("failure", said, where.name if where else None))
        return False

    def remove(self) -> None:
        """End exlb on the nodes whose plan says so, all at once: what serves there by now is not exlb's.

        From here no node goes back: one on which it fails is ended by the next run.
        """
        self._all([each for each in self._plan.nodes if each.removal], self._remove_one, "nothing of exlb is left")

    def retreat(self, wave: Sequence[NodePlan]) -> None:
        """After a failure, take back what did not restore itself: the wave, or with `rollback-all` every node."""
        changed = [each for each in self._plan.nodes if each.node in self._active]
        failed = [each for each in wave if each in changed and self.results[each.node].result == "failed"]
        back = changed if self._task.on_failure == "rollback-all" else failed
        # The same way back: the others stand still while the holder changes, and begin again on the old files.
        others = [each for each in back if self._plan.apart and each.keepalived.action == "start"]
        self._tidy(others, ("units", "none", "stop"))
        for each in sorted(back, key=lambda each: each in others):
            back_to = f"back to generation {each.previous}" if each.changes else "keepalived stops again"
            self._fleet.emit(Event("step", back_to, each.node.name))
            outcome = self._fleet.tidy([each.node], partial(self._back_one, each))
            failure = outcome.errors.get(each.node)
            before = self.results[each.node]
            if failure:
                detail = f"{before.detail}; it could not be taken back: {failure.message}"
                error = RemoteError(f"{each.node}: {detail}", hint="exlb recover")
                self.results[each.node] = NodeResult(each.node, "failed", detail, before.seconds, error)
                continue
            self._active.remove(each.node)
            if before.error:
                before.error.message += "; back on the bytes that it had"
            else:
                detail = f"{back_to}, because another node failed"
                self.results[each.node] = NodeResult(each.node, "restored", detail, before.seconds)

    def resume(self) -> None:
        """Let keepalived run again where it still stands still for a change that did not come.

        On the old files it would not hear a node that has the new ones, and both would hold the VIP.
        """
        waiting = [each for each in self._plan.nodes if each.node in self._waiting and each.node not in self._active]
        if not self._active and not self._unknown:
            self._tidy(waiting, ("units", "none", "start"))
            return
        deaf = ", ".join(map(str, (node for node in self._cluster.nodes if node in self._active | self._unknown)))
        for each in waiting:
            text = f"keepalived stays stopped: on its old file it would not hear {deaf}; push again to end the change"
            self._fleet.emit(Event("warning", text, each.node.name))

    def discard(self, plans: Iterable[NodePlan]) -> None:
        """Take the staged files away from nodes that will not use them."""
        self._fleet.tidy(
            [each.node for each in plans if each.changes],
            lambda node, remote: self._direct(node, remote, ("discard", self._lock.token), ""),
        )

    def result(self, plan: NodePlan) -> NodeResult:
        """Return how a node ended; one that the roll-out did not come to was not started."""
        if plan.empty:
            return NodeResult(plan.node, "unchanged", "no changes", 0.0)
        found = self.results.get(plan.node) or NodeResult(plan.node, "not started", plan.summary(), 0.0)
        if plan.removal and found.result == "changed" and plan.node not in self._removed:
            done = replace(plan, removal=None).summary()
            return replace(found, result="not started", detail=f"{done}; not yet: {plan.removal}")
        return found

    def changed(self, node: Node) -> bool:
        return node in self.results and self.results[node].result == "changed"

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
                self._fleet.emit(Event("failure", error.message.removeprefix(f"{node}: "), node.name))
        return not outcomes.errors

    def _tidy(self, plans: Sequence[NodePlan], action: Sequence[str]) -> None:
        by_node = {each.node: each for each in plans}
        outcomes = self._fleet.tidy(
            by_node, lambda node, remote: self._launched(node, remote, (*action, str(GATE_SECONDS), self._url(node)))
        )
        for node, error in outcomes.errors.items():
            self._fleet.emit(Event("failure", error.message.removeprefix(f"{node}: "), node.name))

    def _stage_one(self, plan: NodePlan, remote: Remote) -> None:
        if plan.desired.number is not None:
            kept = _name(plan.desired.number)
            unread = sorted(f"idle-{kind}" for kind in plan.desired.unread)
            self._direct(plan.node, remote, ("prepare", self._lock.token, kept, *self._unvalidated, *unread), "")
            return
        self._direct(plan.node, remote, ("stage", self._lock.token, *self._unvalidated), self._framed(plan))

    def _admit_one(self, plan: NodePlan, remote: Remote) -> NodeResult | None:
        began = time.monotonic()
        for what in (*(f"open {each}" for each in firewall.told(plan.opens)), *map(selinux.told, plan.allows)):
            self._fleet.emit(Event("step", what, plan.node.name))
        admit(plan.node, remote, self._lock, [f"open {each.line}" for each in plan.opens], plan.allows)
        if not plan.still:
            return None
        return NodeResult(plan.node, "changed", plan.summary(), time.monotonic() - began)

    def _shut_one(self, plan: NodePlan, remote: Remote) -> NodeResult | None:
        began = time.monotonic()
        for what in firewall.told(plan.closes):
            self._fleet.emit(Event("step", f"close {what}", plan.node.name))
        undone = [f"undo {each}" for each in plan.forbids]
        admit(plan.node, remote, self._lock, [f"close {each.line}" for each in plan.closes], undone)
        if plan.node in self.results:
            return None
        return NodeResult(plan.node, "changed", plan.summary(), time.monotonic() - began)

    def _apply_one(self, plan: NodePlan, remote: Remote) -> NodeResult | None:
        self._fleet.emit(Event("step", plan.summary(), plan.node.name))
        began = time.monotonic()
        actions = (plan.proxy.action, plan.keepalived.action)
        gate = (str(GATE_SECONDS), self._url(plan.node))
        if plan.upgrade:
            self._upgrade(plan.node, remote, plan.upgrade)
        elif plan.changes:
            self._activate(plan, remote, (*actions, *gate))
        elif plan.keepalived.action == "stop":
            self._waiting.append(plan.node)
            self._launched(plan.node, remote, ("units", *actions, *gate))
            return None
        else:
            self._launched(plan.node, remote, ("units", *actions, *gate))
            if self._plan.apart:
                self._active.add(plan.node)  # its file was the new one already
        return NodeResult(plan.node, "changed", plan.summary(), time.monotonic() - began)

    def _activate(self, plan: NodePlan, remote: Remote, words: Sequence[str]) -> None:
        assert plan.number is not None
        assert plan.previous is not None
        self._unknown.add(plan.node)
        try:
            self._launched(plan.node, remote, ("activate", _name(plan.number), _name(plan.previous), *words))
        except TakenBackError:
            self._unknown.remove(plan.node)
            raise
        except UnfinishedError:
            raise
        except ExlbError as error:
            error.message += "\nwhat has begun there ends by itself; the next push tells how"
            raise
        self._unknown.remove(plan.node)
        self._active.add(plan.node)

    def _back_one(self, plan: NodePlan, node: Node, remote: Remote) -> None:
        gate = (str(GATE_SECONDS), self._url(node))
        if not plan.changes:
            self._launched(node, remote, ("units", "none", _back((), plan.keepalived), *gate))
            return
        assert plan.number is not None
        assert plan.previous is not None
        previous, found = _name(plan.previous), _name(max(plan.number, plan.previous) + 1)
        self._direct(node, remote, ("prepare", self._lock.token, previous, *self._unvalidated), "")
        actions = (_back(plan.changes, plan.proxy), _back(plan.changes, plan.keepalived))
        self._launched(node, remote, ("activate", previous, found, *actions, *gate))

    def _upgrade(self, node: Node, remote: Remote, upgrade: planning.Upgrade) -> None:
        args = (f"{upgrade.manager}-upgrade", str(APPLY_SECONDS), "", *upgrade.packages)
        done = launch(remote, programs.install(), self._lock, args, limit_seconds=UPGRADE_SECONDS)
        if done.status != 0:
            words = masked(last_lines(done.stdout), self._proxy)
            raise RemoteError(f"{node}: {upgrade.manager} failed:\n{words}")

    def _remove_one(self, plan: NodePlan, remote: Remote) -> NodeResult:
        assert plan.removal
        node, removal = plan.node, plan.removal
        self._fleet.emit(Event("step", str(removal), node.name))
        began = time.monotonic()
        units = ",".join("=".join(each) for each in removal.units)
        args = (removal.manager or "none", str(APPLY_SECONDS), units, *removal.packages)
        program = programs.uninstall(self._proxy.program)
        done = launch(remote, program, self._lock, args, limit_seconds=UPGRADE_SECONDS)
        if done.status != 0:
            words = masked(last_lines(done.stdout), self._proxy)
            raise RemoteError(f"{node}: exlb is not removed:\n{words}", hint="the same command again ends it")
        self._warn(node, done)
        self._removed.add(node)
        before = self.results[node].seconds if node in self.results else 0.0
        return NodeResult(node, "changed", plan.summary(), before + time.monotonic() - began)

    def _launched(self, node: Node, remote: Remote, args: Sequence[str]) -> None:
        self._warn(node, _launch(node, remote, self._proxy, self._lock, args))

    def _warn(self, node: Node, done: Completed) -> None:
        for line in done.stdout.splitlines():
            if line.startswith("warning: "):
                self._fleet.emit(Event("warning", line.removeprefix("warning: "), node.name))

    def _direct(self, node: Node, remote: Remote, args: Sequence[str], data: str) -> None:
        done = remote.run(programs.apply(self._proxy.program), args, data, limit_seconds=APPLY_SECONDS)
        _refuse_failure(node, done, self._proxy)

    def _url(self, node: Node) -> str:
        return questions.node_url(self._cluster, node)

    def _framed(self, plan: NodePlan) -> str:
        """Return a generation as apply.sh reads it: who and when, what it listens on, and every file."""
        who, host = operator()
        meta = {
            "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "who": who,
            "from": host,
            "tool": f"exlb {__version__}",
            "what": self._task.what,
        }
        lines = [f"meta {name} {value}\n" for name, value in meta.items()]
        lines += [f"bind {address} {port}\n" for address, port in planning.binds(self._cluster, plan.node)]
        lines += [f"absent {file.kind} {file.path}\n" for file in plan.desired.absent]
        lines += [
            f"file {file.kind} {file.mode:o} {file.owner} {file.text.count(chr(10))} {file.path}\n{file.text}"
            for file in plan.desired.files
        ]
        return "".join(lines)


def _faults(
    cluster: Cluster, fleet: Fleet, nodes: Sequence[Node], serving: Sequence[Node] = (), *, vacant: bool = False
) -> dict[Node | None, str]:
    """Look at nodes and return what is wrong, by node; None stands for all of them.

    Those that are `serving` have to lead to an apiserver. `vacant` tells that nobody is to hold the VIP any more.
    """
    urls = {node: questions.node_url(cluster, node) for node in serving}

    def asked(node: Node) -> list[str]:
        asked = ["addresses", f"ping {cluster.vip}"]
        return [*asked, f"request {urls[node]}"] if node in urls else asked

    seen = fleet.look(nodes, PROXIES[cluster.proxy], asked)
    faults: dict[Node | None, str] = {}
    for node, url in urls.items():
        reply = seen.facts[node].replies[url] if node in seen.facts else None
        if reply is None:
            faults[node] = f"it does not serve: {seen.errors[node].message}"
        elif not reply.of_apiserver:
            foreign = f"something that is no apiserver answers with status {reply.code}"
            faults[node] = f"it does not serve: {foreign if reply.foreign else reply.error}"
    holders = seen.holders(cluster.vip.address)
    # A node that cannot be asked may be the holder, and then the VIP answers.
    elsewhere = seen.errors and all(found.pings[str(cluster.vip)] for found in seen.facts.values())
    verb = "hold" if len(holders) > 1 else "holds"
    said = f"{', '.join(map(str, holders)) or 'no node'} {verb} {cluster.vip}"
    if vacant and holders:
        faults[None] = f"{said}, although keepalived is stopped"
    elif not vacant and (len(holders) > 1 or (not holders and not elsewhere)):
        faults[None] = f"{said}, not exactly one"
    return faults


def _name(number: int) -> str:
    """Return the name of a generation's directory."""
    return f"{number:04d}"


def _back(changes: Sequence[Change], unit: planning.UnitChange) -> str:
    """Return what takes a unit back to the old file, or to standing still where it did before."""
    main = [change for change in changes if change.file.kind in ("proxy", "keepalived")]
    if any(change.file.unit == unit.unit and change.found.absent for change in main):
        return "stop"
    return {"stop": "start", "start": "stop"}.get(unit.action, unit.action)


def _follow(remote: Remote) -> Completed:
    return remote.run(programs.launch(), ("follow",), limit_seconds=APPLY_SECONDS)


def launch(remote: Remote, program: str, lock: Lock, args: Sequence[str], *, limit_seconds: float) -> Completed:
    """Run a program of ours so that it ends whatever happens to us.

    Its status is UNHEARD where it began and did not say how it ended: it was killed, or had no room for its words.
    """
    data = f"{len(program.encode())}\n{program}"
    done = remote.run(programs.launch(), ("run", lock.token, *args), data, limit_seconds=limit_seconds)
    lines = done.stdout.splitlines()
    ended = [line.removeprefix(END_MARK) for line in lines if line.startswith(END_MARK)]
    said = "".join(f"{line}\n" for line in lines if not line.startswith(END_MARK))
    return Completed(int(ended[-1]) if ended else done.status or UNHEARD, said, done.stderr)


def _launch(node: Node, remote: Remote, proxy: Proxy, lock: Lock, args: Sequence[str]) -> Completed:
    """Run apply.sh so that it ends whatever happens to us; raises RemoteError where it does not end well."""
    done = launch(remote, programs.apply(proxy.program), lock, args, limit_seconds=APPLY_SECONDS)
    _refuse_failure(node, done, proxy)
    return done


def _last_word(done: Completed) -> str:
    """Return how a program that is not apply.sh says that it ended."""
    said = [line for line in done.stdout.splitlines() if line.startswith(END_MARK)]
    return f"status {said[-1].removeprefix(END_MARK)}" if said else "without a word"


def _outcome(done: Completed) -> str | None:
    """Return how apply.sh says that it ended, None where it does not say."""
    said = [line for line in done.stdout.splitlines() if line.startswith(RESULT_MARK)]
    return said[-1].removeprefix(RESULT_MARK) if said else None


def last_lines(text: str, count: int = 15) -> str:
    """Return the end of what a program printed: where it says what went wrong."""
    return "\n".join(text.splitlines()[-count:])


def masked(text: str, proxy: Proxy) -> str:
    """Return what a program printed without the passwords that it quotes of the files."""
    return mask_keepalived(proxy.mask(text))


def _refuse_failure(node: Node, done: Completed, proxy: Proxy) -> None:
    """Raise RemoteError with the step and the program's own words, unless apply.sh ended well.

    A TakenBackError where it says that it failed, or did not begin: then nothing of its work is left.
    """
    outcome = _outcome(done)
    if outcome == "done" and done.status == 0:
        return
    marks = ("step ", RESULT_MARK, END_MARK)
    said = "\n".join(line for line in done.stdout.splitlines() if not line.startswith(marks)).strip()
    # A validator quotes the line that it does not like, password and all.
    words = masked(said or done.stderr.strip(), proxy)
    steps = [line.removeprefix("step ") for line in done.stdout.splitlines() if line.startswith("step ")]
    if outcome is None and (steps or done.status == UNHEARD):
        last = f"after step {steps[-1]}" if steps else "without a word"
        raise UnfinishedError(f"{node}: ended early, {last}\n{words}".rstrip(), hint="exlb recover")
    if outcome == "done":
        raise RemoteError(f"{node}: done, but ended with status {done.status}", hint="exlb recover")
    ended = outcome or f"did not begin (status {done.status})"
    if "restore" in steps:
        ended += "; back on the bytes that it had"
    raise TakenBackError(f"{node}: {ended}\n{words}".rstrip(), hint="exlb push-config --dry-run")


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
