"""One function over many nodes: all finish, all failures are told, and Ctrl-C starts nothing new."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from exlb_fab.cluster import Node
from exlb_fab.errors import AuthenticationError, ExlbError, FactsError, UnreachableError
from exlb_fab.events import Event
from exlb_fab.fleet import PROBE_SECONDS, Fleet, NotStartedError, limit_seconds
from exlb_fab.proxies import PROXIES
from exlb_fab.questions import service_questions
from exlb_fab.remote import Channel, Completed, Remote
from tests.fake import FakeFleet, cluster

SIX = cluster(6)


class Wire:
    """A connection that does nothing but say whether it is open."""

    def __init__(self) -> None:
        self.alive = True

    def run(self, program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
        raise AssertionError("nothing is run here")

    def execute(self, command: Sequence[str], *, sudo: bool, limit_seconds: float) -> Completed:
        raise AssertionError("nothing is run here")

    def open(self, program: str, args: Sequence[str] = ()) -> Channel:
        raise AssertionError("nothing is run here")

    def close(self) -> None:
        self.alive = False


class Exchange:
    """Counts connections, and refuses some nodes."""

    def __init__(self, *refused: Node) -> None:
        self.refused = refused
        self.tried: list[str] = []
        self.wires: list[Wire] = []

    def __call__(self, node: Node) -> Remote:
        self.tried.append(node.name)
        if node in self.refused:
            raise UnreachableError(f"{node}: cannot connect")
        self.wires.append(Wire())
        return self.wires[-1]


def name_of(node: Node, remote: Remote) -> str:
    return node.name


def test_values_come_in_the_order_of_the_nodes_whoever_ends_first() -> None:
    turns = {node: threading.Event() for node in SIX.nodes}
    turns[SIX.nodes[-1]].set()

    def last_first(node: Node, remote: Remote) -> str:
        assert turns[node].wait(10)
        if node.index:
            turns[SIX.nodes[node.index - 1]].set()
        return node.name

    with Fleet(Exchange()) as fleet:
        assert list(fleet.each(SIX.nodes, last_first).values) == list(SIX.nodes)


def test_failing_worker_stops_no_other_and_all_failures_are_told() -> None:
    def odd_fails(node: Node, remote: Remote) -> str:
        if node.index % 2:
            raise ExlbError(f"{node}: odd")
        return node.name

    with Fleet(Exchange(SIX.nodes[0])) as fleet:
        found = fleet.each(SIX.nodes, odd_fails)
    assert list(found.values.values()) == ["lb3", "lb5"]
    assert [str(error) for error in found.errors.values()] == [
        "lb1: cannot connect",
        "lb2: odd",
        "lb4: odd",
        "lb6: odd",
    ]


def test_bug_in_a_worker_is_not_hidden() -> None:
    def broken(node: Node, remote: Remote) -> None:
        raise KeyError(node.name)

    with Fleet(Exchange()) as fleet, pytest.raises(KeyError):
        fleet.each(SIX.nodes, broken)


def test_node_is_connected_once_however_often_it_is_used() -> None:
    exchange = Exchange(SIX.nodes[1])
    with Fleet(exchange) as fleet:
        for _ in range(3):
            fleet.each(SIX.nodes, name_of)
    assert sorted(exchange.tried) == [node.name for node in SIX.nodes]


def test_connections_are_closed_at_the_end_even_after_a_bug() -> None:
    exchange = Exchange()

    def broken(fleet: Fleet) -> None:
        with fleet:
            fleet.each(SIX.nodes, name_of)
            raise KeyError

    with pytest.raises(KeyError):
        broken(Fleet(exchange))
    assert [wire.alive for wire in exchange.wires] == [False] * 6


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (32, 6)])
def test_no_more_nodes_than_allowed_are_worked_on_at_once(parallel: int, most: int) -> None:
    busy, seen, lock = 0, 0, threading.Lock()
    full = threading.Barrier(most)

    def work(node: Node, remote: Remote) -> None:
        nonlocal busy, seen
        with lock:
            busy += 1
            seen = max(seen, busy)
        full.wait(10)
        with lock:
            busy -= 1

    with Fleet(Exchange(), parallel=parallel) as fleet:
        assert not fleet.each(SIX.nodes, work).errors
    assert seen == most


def test_nothing_begins_after_an_interrupt_and_what_runs_ends() -> None:
    stop = threading.Event()

    def work(node: Node, remote: Remote) -> str:
        stop.set()
        return node.name

    with Fleet(Exchange(), stop=stop, parallel=1) as fleet:
        found = fleet.each(SIX.nodes, work)
        assert list(found.values.values()) == ["lb1"]
        assert {type(error) for error in found.errors.values()} == {NotStartedError}
        assert {error.exit_code for error in found.errors.values()} == {130}
        assert fleet.stopped


def test_tidying_is_done_after_an_interrupt_too() -> None:
    stop = threading.Event()
    stop.set()
    with Fleet(Exchange(), stop=stop) as fleet:
        assert len(fleet.tidy(SIX.nodes, name_of).values) == 6


def test_interrupted_command_does_not_connect_any_more() -> None:
    stop, exchange = threading.Event(), Exchange()
    stop.set()
    with Fleet(exchange, stop=stop) as fleet:
        fleet.each(SIX.nodes, name_of)
    assert exchange.tried == []


def test_no_node_is_no_work() -> None:
    with Fleet(Exchange()) as fleet:
        assert fleet.each([], name_of).values == {}


def test_connecting_is_told_once_per_node() -> None:
    told: list[Event] = []
    with Fleet(Exchange(), told.append) as fleet:
        fleet.each(SIX.nodes, name_of)
        fleet.each(SIX.nodes, name_of)
    assert sorted(event.node or "" for event in told) == [node.name for node in SIX.nodes]


def test_survey_is_one_exec_per_node_and_keeps_the_errors_apart() -> None:
    fakes = FakeFleet(SIX)
    fakes.cut("lb2")
    fakes["lb3"].answers["addresses"] = (0, "what?")
    with Fleet(fakes.connect) as fleet:
        found = fleet.survey(SIX.nodes, PROXIES["haproxy"], lambda _: ["addresses"])
    assert [node.name for node in found.facts] == ["lb1", "lb4", "lb5", "lb6"]
    assert {node.name: type(error) for node, error in found.errors.items()} == {
        "lb2": UnreachableError, "lb3": FactsError,
    }  # fmt: skip
    assert set(fakes.count("probe").values()) == {0, 1}


def test_facts_say_when_they_were_asked_for() -> None:
    fakes = FakeFleet(SIX)
    before = time.time()
    with Fleet(fakes.connect) as fleet:
        found = fleet.survey(SIX.nodes, PROXIES["haproxy"], lambda _: ["clock"])
    for facts in found.facts.values():
        assert facts.asked is not None
        assert before <= facts.asked.begin <= facts.asked.end <= time.time()


def test_forgotten_node_is_connected_to_anew_and_its_old_connection_is_closed() -> None:
    one, two, *_ = SIX.nodes
    exchange = Exchange(two)
    with Fleet(exchange) as fleet:
        fleet.each([one, two], name_of)
        fleet.each([one, two], name_of)
        assert sorted(exchange.tried) == ["lb1", "lb2"], "who refused once is not asked again"
        exchange.refused = ()
        fleet.forget([one, two])
        assert [wire.alive for wire in exchange.wires] == [False]
        assert fleet.each([one, two], name_of).errors == {}
        assert sorted(exchange.tried) == ["lb1", "lb1", "lb2", "lb2"]


def test_who_has_refused_a_login_is_not_forgotten() -> None:
    fakes = FakeFleet(SIX)
    fakes["lb1"].unreachable = AuthenticationError("lb1: no key is accepted")
    with Fleet(fakes.connect) as fleet:
        fleet.each(SIX.nodes, name_of)
        fleet.forget(SIX.nodes)
        fakes["lb1"].unreachable = None
        assert [str(node) for node in fleet.each(SIX.nodes, name_of).errors] == ["lb1"]


def waiting(answer: threading.Event) -> Callable[[str], None]:
    """Have a fake node say nothing until it may."""

    def before(call: str) -> None:
        answer.wait(30)

    return before


class TestGlance:
    """A look for a screen: a node that is slow keeps nobody waiting."""

    patience = 2.0

    def seen(self, fleet: Fleet) -> tuple[list[str], dict[str, str]]:
        """Return who answered, and the errors of the others."""
        found = fleet.glance(SIX.nodes, PROXIES["haproxy"], lambda _: ["addresses"], self.patience)
        return [node.name for node in found.facts], {node.name: str(error) for node, error in found.errors.items()}

    def test_node_that_says_nothing_is_told_and_is_not_asked_again_until_it_has_answered(self) -> None:
        fakes, answer = FakeFleet(SIX), threading.Event()
        fakes["lb2"].before = waiting(answer)
        with Fleet(fakes.connect, parallel=1) as fleet:
            for _ in range(2):
                assert self.seen(fleet) == (["lb1", "lb3", "lb4", "lb5", "lb6"], {"lb2": "lb2: says nothing for 2 s"})
                fleet.forget(SIX.nodes[1:2])
            assert fakes.count("probe")["lb2"] == 1
            answer.set()
            assert "lb2" in self.seen(fleet)[1], "what it says is of then"
            assert self.seen(fleet) == ([node.name for node in SIX.nodes], {})
        assert fakes.count("probe")["lb2"] == 2
        assert fakes.count("probe")["lb1"] == 4

    def test_reason_that_is_known_stays_while_a_node_is_tried_anew(self) -> None:
        fakes, answer = FakeFleet(SIX), threading.Event()
        fakes.cut("lb2")
        with Fleet(fakes.connect) as fleet:
            _, first = self.seen(fleet)
            fakes["lb2"].unreachable = None
            fakes["lb2"].before = waiting(answer)
            fleet.forget(SIX.nodes[1:2])
            assert self.seen(fleet)[1] == first == {"lb2": "lb2: cannot connect: No route to host"}
            answer.set()

    def test_interrupt_ends_the_wait_and_nothing_begins_after_it(self) -> None:
        self.patience = 600
        fakes, answer, stop = FakeFleet(SIX), threading.Event(), threading.Event()

        def interrupted(call: str) -> None:
            stop.set()
            answer.wait(30)

        fakes["lb2"].before = interrupted
        with Fleet(fakes.connect, stop=stop) as fleet:
            assert "lb2" in self.seen(fleet)[1]
            assert self.seen(fleet) == ([], {})
            answer.set()
        assert max(fakes.count("probe").values()) == 1

    def test_bug_is_not_hidden(self) -> None:
        def broken(node: Node) -> list[str]:
            raise KeyError(node.name)

        with Fleet(FakeFleet(SIX).connect) as fleet, pytest.raises(KeyError):
            fleet.glance(SIX.nodes, PROXIES["haproxy"], broken, None)


def test_long_interval_between_adverts_is_waited_for() -> None:
    slow = replace(SIX, vrrp=replace(SIX.vrrp, advert_seconds=40.0))
    usual = limit_seconds(service_questions(SIX, SIX.nodes[0]))
    assert limit_seconds(service_questions(slow, SIX.nodes[0])) >= usual + 70


def test_proxy_that_hangs_with_many_listeners_is_waited_for() -> None:
    usual = limit_seconds(service_questions(SIX, SIX.nodes[0]))
    assert usual >= PROBE_SECONDS + 3 * 4, "a ping and two requests, each of which nobody may answer"
    more = [f"request https://198.51.100.11:{port}/" for port in range(8443, 8455)]
    assert limit_seconds([*service_questions(SIX, SIX.nodes[0]), *more]) == usual + 12 * 4
    assert limit_seconds(["system", "addresses"]) == PROBE_SECONDS


def test_time_limit_of_a_probe_is_that_of_its_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes, limits = FakeFleet(SIX), list[float]()
    connect = fakes.connect

    def timed(node: Node) -> Remote:
        remote = connect(node)
        run = remote.run

        def limited(program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
            limits.append(limit_seconds)
            return run(program, args, data, limit_seconds)

        monkeypatch.setattr(remote, "run", limited)
        return remote

    with Fleet(timed) as fleet:
        fleet.survey(SIX.nodes[:1], PROXIES["haproxy"], lambda _: ["addresses", "ping 198.51.100.100"])
    assert limits == [PROBE_SECONDS + 4]
