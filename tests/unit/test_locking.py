"""The lock of a session: all nodes or none, in one order, for as long as somebody is there."""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from exlb_fab import locking
from exlb_fab import node as programs
from exlb_fab.errors import LockedError, RemoteError, UnreachableError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock, operator
from exlb_fab.remote import BEAT_SECONDS
from tests.fake import Clock, FakeChannel, FakeFleet, cluster

THREE = cluster()
ANN = {"token": "aa", "who": "ann", "from": "bastion-2", "what": "push-config", "since": "2027-01-02T03:04:05Z"}


@pytest.fixture
def fakes() -> FakeFleet:
    """Three nodes that nobody holds."""
    return FakeFleet(THREE)


@pytest.fixture
def fleet(fakes: FakeFleet) -> Iterator[Fleet]:
    """Their connections."""
    with Fleet(fakes.connect) as made:
        yield made


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let who waits for a lock wait without waiting."""
    made = Clock()
    monkeypatch.setattr(locking, "time", made)
    return made


def held(fakes: FakeFleet) -> list[str]:
    return [node.name for node in fakes if node.lock]


def taken(fleet: Fleet, wait_seconds: float = 0) -> None:
    """Take the lock of all nodes, and release it."""
    with Lock(THREE.nodes, fleet, "push-config", wait_seconds):
        pass


def test_all_nodes_are_held_until_the_end(fakes: FakeFleet, fleet: Fleet) -> None:
    with Lock(THREE.nodes, fleet, "push-config"):
        assert held(fakes) == ["lb1", "lb2", "lb3"]
    assert held(fakes) == []


def test_node_knows_who_holds_it_and_for_what(fakes: FakeFleet, fleet: Fleet) -> None:
    with Lock(THREE.nodes, fleet, "rollback") as lock:
        for node in fakes:
            assert node.lock is not None
            known = [node.lock[name] for name in ("token", "who", "from", "what")]
            assert known == [lock.token, getpass.getuser(), socket.gethostname(), "rollback"]


def test_operator_and_host_without_a_name_are_told_by_a_number_and_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(socket, "gethostname", str)
    assert operator() == (str(os.getuid()), "-")


def test_every_session_has_a_token_of_its_own(fleet: Fleet) -> None:
    assert len({Lock(THREE.nodes, fleet, "push-config").token for _ in range(20)}) == 20


def test_nodes_are_tried_in_the_order_of_their_addresses_whatever_the_file_says(fakes: FakeFleet, fleet: Fleet) -> None:
    with Lock(reversed(THREE.nodes), fleet, "push-config"):
        assert fakes.journal == ["lb1 lock push-config", "lb2 lock push-config", "lb3 lock push-config"]


def test_session_that_misses_one_node_holds_none_and_says_who_has_it(fakes: FakeFleet, fleet: Fleet) -> None:
    fakes["lb2"].lock = dict(ANN)
    with pytest.raises(LockedError) as caught:
        taken(fleet)
    assert caught.value.message == (
        "lb2 is locked by ann from bastion-2, since 2027-01-02T03:04:05Z: push-config\nnothing was changed on any node"
    )
    assert caught.value.hint is not None
    assert "exlb lock status" in caught.value.hint
    assert (caught.value.exit_code, held(fakes)) == (5, ["lb2"])
    assert fakes.journal == ["lb1 lock push-config", "lb2 lock push-config", "lb1 unlock"]


def test_lock_of_somebody_else_is_left_alone(fakes: FakeFleet, fleet: Fleet) -> None:
    fakes["lb1"].lock = dict(ANN)
    with pytest.raises(LockedError):
        taken(fleet)
    assert fakes["lb1"].lock == ANN


def test_who_waits_gets_the_lock_when_it_is_free(fakes: FakeFleet, fleet: Fleet, clock: Clock) -> None:
    fakes["lb2"].lock = dict(ANN)

    def freed() -> None:
        if clock.passed >= 7:
            fakes["lb2"].lock = None

    clock.on_sleep = freed
    taken(fleet, wait_seconds=30)
    assert clock.passed == 7


def test_who_waits_holds_nothing_meanwhile(fakes: FakeFleet, fleet: Fleet, clock: Clock) -> None:
    fakes["lb3"].lock = dict(ANN)
    seen: list[list[str]] = []
    clock.on_sleep = lambda: seen.append(held(fakes))
    with pytest.raises(LockedError):
        taken(fleet, wait_seconds=3)
    assert seen == [["lb3"]] * 3


def test_waiting_ends_at_its_limit_and_with_an_interrupt(fakes: FakeFleet, clock: Clock) -> None:
    fakes["lb2"].lock = dict(ANN)
    stop = threading.Event()
    with Fleet(fakes.connect, stop=stop) as fleet:
        with pytest.raises(LockedError):
            taken(fleet, wait_seconds=5)
        assert clock.passed == 5
        clock.on_sleep = stop.set
        with pytest.raises(LockedError):
            taken(fleet, wait_seconds=600)
    assert clock.passed == 6


def test_lock_is_released_after_an_error_and_after_an_interrupt(fakes: FakeFleet) -> None:
    stop = threading.Event()

    def fails(fleet: Fleet) -> None:
        with Lock(THREE.nodes, fleet, "push-config"):
            stop.set()
            raise KeyError

    with Fleet(fakes.connect, stop=stop) as fleet, pytest.raises(KeyError):
        fails(fleet)
    assert held(fakes) == []


def test_lock_is_taken_also_by_a_session_that_was_interrupted_before(fakes: FakeFleet) -> None:
    stop = threading.Event()
    stop.set()
    with Fleet(fakes.connect, stop=stop) as fleet, Lock(THREE.nodes, fleet, "recover"):
        assert held(fakes) == ["lb1", "lb2", "lb3"]


def test_unreachable_node_releases_the_others(fakes: FakeFleet, fleet: Fleet) -> None:
    fakes.cut("lb3")
    with pytest.raises(UnreachableError, match="lb3: cannot connect"):
        taken(fleet)
    assert held(fakes) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["exlb-lock: flock is not installed"], "lb2: cannot be locked: flock is not installed"),
        (["sh: mkdir: Read-only file system"], "lb2: cannot be locked: sh: mkdir: Read-only file system"),
        ([], "lb2: cannot be locked: no answer"),
    ],
    ids=["no flock", "no directory", "silent"],
)
def test_node_that_cannot_be_locked_says_why_and_releases_the_others(
    fakes: FakeFleet, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, lines: list[str], words: str
) -> None:
    answers(monkeypatch, fakes, lambda: list(lines))
    with pytest.raises(RemoteError) as caught:
        taken(fleet)
    assert caught.value.message == words
    assert [node.name for node in fakes if node.lock and node.name != "lb2"] == []


def test_lock_that_nobody_signed_is_another_sessions(
    fakes: FakeFleet, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, fakes, lambda: ["exlb-lock: busy"])
    with pytest.raises(LockedError, match="lb2 is locked by another session"):
        taken(fleet)


def test_node_that_does_not_answer_releases_the_others(
    fakes: FakeFleet, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(limit: float) -> str:
        raise RemoteError(f"lb2: no answer after {limit:.0f} s")

    monkeypatch.setattr(FakeChannel, "line", lambda self, limit: silent(limit))
    with pytest.raises(RemoteError, match="no answer after 20 s"):
        taken(fleet)
    assert held(fakes) == []


def answers(monkeypatch: pytest.MonkeyPatch, fakes: FakeFleet, lines: Callable[[], list[str]]) -> None:
    """Let lb2 answer this to whoever wants to hold it."""
    make = FakeChannel.__init__

    def made(self: FakeChannel, fake: object, note: Callable[[str], None], token: str, said: list[str]) -> None:
        make(self, fake, note, token, lines() if fake is fakes["lb2"] else said)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeChannel, "__init__", made)


# The heartbeat


def test_every_held_node_hears_that_we_are_there(
    fakes: FakeFleet, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    beaten = threading.Event()
    seen: set[str] = set()

    def heard(name: str) -> Callable[[str], None]:
        def note(call: str) -> None:
            if call == "beat":
                seen.add(name)
                if len(seen) == len(THREE.nodes):
                    beaten.set()

        return note

    for node in fakes:
        node.before = heard(node.name)
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.001)
    with Lock(THREE.nodes, fleet, "push-config"):
        assert beaten.wait(10)
    assert seen == {"lb1", "lb2", "lb3"}


def test_heart_beats_often_enough_for_one_beat_to_be_lost() -> None:
    program = programs.lock()
    limit = next(line for line in program.splitlines() if line.startswith("silence="))
    assert int(limit.split()[0].removeprefix("silence=")) >= 3 * BEAT_SECONDS


def test_who_asks_is_told_at_once_that_a_node_is_lost_and_stays_so(fakes: FakeFleet, fleet: Fleet) -> None:
    with Lock(THREE.nodes, fleet, "drill all") as lock:
        assert lock.lost() is None
        fakes.cut("lb2")
        assert lock.lost() == "lb2: cannot connect: No route to host"
        fakes["lb2"].unreachable = None
        assert lock.lost() is not None


def test_lost_connection_is_told_and_the_other_nodes_are_held_on(
    fakes: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    lost = threading.Event()

    def emit(event: Event) -> None:
        told.append(event)
        if "lock is lost" in event.text:
            lost.set()

    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.001)
    with Fleet(fakes.connect, emit) as fleet, Lock(THREE.nodes, fleet, "push-config"):
        fakes.cut("lb2")
        assert lost.wait(10)
        assert {"lb1", "lb3"} <= set(held(fakes))
    assert any("lb2: cannot connect" in event.text for event in told)
