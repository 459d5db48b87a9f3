"""Carry one fault of a drill out on the node that holds the VIP, and undo it, whatever happens in between."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exlb_fab import drilling
from exlb_fab import node as programs
from exlb_fab.cluster import Node
from exlb_fab.drilling import DrillRefusedError, Plan
from exlb_fab.errors import ExlbError, RemoteError, UnreachableError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock
from exlb_fab.remote import Completed

STEP_SECONDS = 0.5
RETRY_SECONDS = 2.0
START_SECONDS = 60.0
END_SECONDS = 180.0  # to start a unit may take as long as systemd lets it
MILLISECONDS = 1000
DONE = "exlb-drill: done"
REFUSED = "exlb-drill: "
# The words that `--power-on` finds in its environment.
POWER_NODE, POWER_ADDRESS = "EXLB_NODE", "EXLB_ADDRESS"


@dataclass(slots=True)
class Course:
    """How a fault went: what the node told, by its clock, and the rest by ours."""

    told: dict[str, float]
    began: float
    cut_short: str | None = None
    restored: bool = False
    error: ExlbError | None = None
    undone: float | None = None


def carry_out(plan: Plan, fleet: Fleet, lock: Lock, power: str | None, lost: Callable[[], str | None]) -> Course:
    """Do what the plan says and undo it, whatever happens in between."""
    course = Course({}, time.time())
    if fleet.stopped:
        course.cut_short, course.restored = "interrupted before the fault", True
        return course
    guard = Power(power, plan.holder) if plan.fault == "node" and power is not None else None
    injected = True
    try:
        course.told |= _start(plan, fleet, lock)
        course.cut_short = hold(plan.hold_seconds, fleet, (lambda: None) if guard else lost)
    except DrillRefusedError as error:
        injected = False
        course.error, course.cut_short = error, "the fault could not be injected"
    except ExlbError as error:
        # It may be there all the same; a node that is powered off is lost as it should be.
        course.cut_short = hold(plan.hold_seconds, fleet, lambda: None) if guard else error.message
    finally:
        _undo(plan, fleet, lock, course, guard, injected=injected)
    return course


def _undo(plan: Plan, fleet: Fleet, lock: Lock, course: Course, guard: Power | None, *, injected: bool) -> None:
    fleet.emit(Event("step", f"drill {plan.fault}: undoes it"))
    try:
        if guard is not None and injected:
            course.told |= _powered_on(plan, fleet, lock, guard)
        elif guard is not None:
            course.told |= _spared(plan, fleet, lock, guard)
        else:
            course.told |= _end(plan, fleet, lock)
        course.restored = True
    except ExlbError as error:
        course.error = error
    course.undone = time.time()


def _powered_on(plan: Plan, fleet: Fleet, lock: Lock, guard: Power) -> dict[str, float]:
    """Power the node on, and wait for it."""
    guard.on()
    fleet.forget([plan.holder])
    return _end(plan, fleet, lock, drilling.BOOT_SECONDS)


def _spared(plan: Plan, fleet: Fleet, lock: Lock, guard: Power) -> dict[str, float]:
    """Leave the power alone, once the node has said again that it does not go."""
    try:
        told = _end(plan, fleet, lock)
    except ExlbError:
        return _powered_on(plan, fleet, lock, guard)
    guard.spare()
    return told


def hold(seconds: float, fleet: Fleet, lost: Callable[[], str | None]) -> str | None:
    """Let time pass; return why it was cut short, None where it was not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if fleet.stopped:
            return "interrupted"
        if (reason := lost()) is not None:
            return reason
        fleet.wait(STEP_SECONDS)
    return None


def run_program(node: Node, fleet: Fleet, args: Sequence[str], limit_seconds: float, data: str = "") -> Completed:
    """Run the program of drills on one node, also after Ctrl-C. Raises what the node raises."""
    done = fleet.tidy(
        [node], lambda _, remote: remote.run(programs.drill(), args, data=data, limit_seconds=limit_seconds)
    )
    for error in done.errors.values():
        raise error
    return done.values[node]


def last_words(done: Completed) -> str:
    """Return what the program of drills said last: why it refused, or failed."""
    lines = [line for line in done.said.splitlines() if line.strip()]
    return lines[-1].removeprefix(REFUSED) if lines else f"status {done.status}"


def _times(said: str) -> dict[str, float]:
    """Return when it was what, by the clock of the node: `WORD MILLISECONDS` lines."""
    pairs = (line.split(" ") for line in said.splitlines())
    return {pair[0]: int(pair[1]) / MILLISECONDS for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _start(plan: Plan, fleet: Fleet, lock: Lock) -> dict[str, float]:
    """Inject the fault. Raises DrillRefusedError where the node says that it is not there."""
    text = programs.drill()
    args = ["start", lock.token, str(plan.limit_seconds), str(len(text.encode())), plan.fault, plan.unit]
    done = run_program(plan.holder, fleet, args, START_SECONDS, data=text)
    if not done.stdout.rstrip("\n").endswith(DONE):
        raise DrillRefusedError(
            f"{plan.holder}: {last_words(done)}", hint=f"exlb ssh {plan.holder} -- journalctl -n 20"
        )
    return _times(done.stdout)


def _end(plan: Plan, fleet: Fleet, lock: Lock, boot_seconds: float = 0.0) -> dict[str, float]:
    """Undo the fault, and return when it was what; a connection that was lost is made again.

    Raises RemoteError where the node could not undo it, and UnreachableError where it does not answer for longer than
    it would let the fault last, and than it takes to boot.
    """
    deadline = time.monotonic() + plan.limit_seconds + boot_seconds
    while True:
        try:
            done = run_program(plan.holder, fleet, ["end", lock.token], END_SECONDS)
        except UnreachableError:
            if time.monotonic() >= deadline:
                raise
            fleet.forget([plan.holder])
            time.sleep(RETRY_SECONDS)
            continue
        if not done.stdout.rstrip("\n").endswith(DONE):
            raise RemoteError(f"{plan.holder}: {last_words(done)}", hint=repair(plan))
        return _times(done.stdout)


def repair(plan: Plan) -> str:
    """Return what to type where a node could not undo the fault."""
    if plan.unit == drilling.NO_UNIT:
        return f"exlb ssh {plan.holder} -- journalctl -u exlb-drill; exlb verify"
    return f"exlb restart {plan.unit} --nodes {plan.holder}"


class Power:
    """Runs the operator's command that powers a node on: when it is told to, or when exlb ends, however that ends."""

    def __init__(self, command: str, node: Node) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the command may run
        self._process = subprocess.Popen(
            # Its stdin ends with us, also where we are killed; a signal for our terminal is not for it.
            ["sh", "-c", 'cat >/dev/null; exec sh -c "$0"', command],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, POWER_NODE: node.name, POWER_ADDRESS: str(node.address)},
        )

    def on(self) -> None:
        """Run it now and wait for its end. Raises ExlbError where it fails."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(timeout=drilling.BOOT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ExlbError(
                f"--power-on has not ended after {drilling.BOOT_SECONDS} s", hint="power the node on, then: exlb verify"
            ) from error
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.close()
        if status:
            last = f": {lines[-1]}" if lines else ""
            raise ExlbError(f"--power-on ended with status {status}{last}", hint="power the node on, then: exlb verify")

    def spare(self) -> None:
        """Do not run it: the node was never powered off."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._said.close()
