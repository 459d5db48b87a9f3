"""Carrying a plan out: stage everywhere, apply wave by wave, a gate after each, stop at the first failure."""

from __future__ import annotations

import getpass
import re
import socket
import threading

import pytest

from exlb_fab import __version__, locking, planning, rollout, vrrp
from exlb_fab.cluster import Node
from exlb_fab.errors import RemoteError, UnreachableError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock
from exlb_fab.planning import Desired, NodePlan, Plan
from exlb_fab.proxies import PROXIES
from exlb_fab.questions import configuration_questions, node_url
from exlb_fab.remote import Completed
from exlb_fab.rendering import Target, Templates, render
from exlb_fab.rollout import UNHEARD, NodeResult, Task, carry_out, wait_for_steady
from tests.fake import APPLY, KEEPALIVED_PATH, Clock, FakeFile, FakeFleet, FakeRemote, cluster

PROXY = PROXIES["haproxy"]
THREE = cluster()
TEMPLATES = Templates()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the roll-out, and of who waits for a lock."""
    made = Clock()
    monkeypatch.setattr(rollout, "time", made)
    monkeypatch.setattr(locking, "time", made)
    return made


@pytest.fixture
def fakes() -> FakeFleet:
    """Three nodes with everything installed and nothing configured."""
    made = FakeFleet(THREE)
    for node in made:
        node.programs = {"haproxy", "keepalived", "killall", "curl", "socat", "ip", "ss", "ping"}
    return made


def plan_for(fakes: FakeFleet) -> Plan:
    desired = {node: Desired(render(THREE, node, TEMPLATES, Target()).files) for node in THREE.nodes}
    with Fleet(fakes.connect) as fleet:
        survey = fleet.survey(THREE.nodes, PROXY, lambda _: configuration_questions(THREE))
    return planning.plan(THREE, desired, survey)


def carried_out(
    fakes: FakeFleet, plan: Plan, stop: threading.Event | None = None, told: list[Event] | None = None
) -> dict[str, NodeResult]:
    for node in fakes:
        node.calls.clear()
    fakes.journal.clear()
    reachable = [each.node for each in fakes if not each.unreachable]
    with (
        Fleet(fakes.connect, (told if told is not None else []).append, stop) as fleet,
        Lock(reachable, fleet, "test") as lock,
    ):
        results = carry_out(THREE, plan, fleet, lock, Task("test"))
    assert [each.node for each in results] == list(THREE.nodes)
    return {each.node.name: each for each in results}


def words(results: dict[str, NodeResult]) -> list[str]:
    return [each.result for each in results.values()]


def deployed(fakes: FakeFleet) -> FakeFleet:
    assert words(carried_out(fakes, plan_for(fakes))) == ["changed"] * 3
    return fakes


def edited(fakes: FakeFleet, *names: str) -> FakeFleet:
    """Return nodes of which some have another proxy file than they should."""
    for name in names:
        fakes[name].files[PROXY.path].text += "# edited\n"
    return fakes


def test_empty_plan_runs_nothing(fakes: FakeFleet) -> None:
    plan = plan_for(deployed(fakes))
    assert plan.empty
    results = carried_out(fakes, plan)
    assert words(results) == ["unchanged"] * 3
    assert {entry.split()[1] for entry in fakes.journal} == {"lock", "unlock"}


def test_nodes_that_need_no_file_are_not_staged(fakes: FakeFleet) -> None:
    deployed(fakes)["lb2"].units["keepalived"].active = "inactive"
    results = carried_out(fakes, plan_for(fakes))
    assert words(results) == ["unchanged", "changed", "unchanged"]
    others = ("probe", "lock", "unlock", "close")
    assert [call for call in fakes["lb2"].calls if not call.startswith(others)] == ["units none start"]


def test_gate_waits_for_exactly_one_holder_before_the_next_node(fakes: FakeFleet, clock: Clock) -> None:
    edited(deployed(fakes), "lb1", "lb2")
    plan = plan_for(fakes)
    keepalived = {node.name: node.units["keepalived"] for node in fakes}

    def vip_gone(call: str) -> None:
        if call.startswith("activate"):
            for unit in keepalived.values():
                unit.active = "inactive"

    def vip_back() -> None:
        for unit in keepalived.values():
            unit.active = "active"

    fakes["lb2"].before = vip_gone
    clock.on_sleep = vip_back
    assert words(carried_out(fakes, plan)) == ["changed", "changed", "unchanged"]
    steps = [entry.split()[:2] for entry in fakes.journal]
    between = steps[steps.index(["lb2", "activate"]) : steps.index(["lb1", "activate"])]
    assert [step[1] for step in between].count("probe") == 6, "two looks at three nodes"


def test_change_of_the_proxy_alone_needs_one_look(fakes: FakeFleet, clock: Clock) -> None:
    edited(deployed(fakes), "lb1", "lb2")
    begin = clock.now
    assert words(carried_out(fakes, plan_for(fakes))) == ["changed", "changed", "unchanged"]
    assert clock.now == begin


def test_change_of_keepalived_counts_only_when_one_holder_was_seen_for_as_long_as_a_split_can_hide(
    fakes: FakeFleet, clock: Clock
) -> None:
    deployed(fakes)["lb2"].files[KEEPALIVED_PATH].mode = 0o600
    begin = clock.now
    assert words(carried_out(fakes, plan_for(fakes))) == ["unchanged", "changed", "unchanged"]
    assert 0 <= clock.now - begin - vrrp.settle_seconds((120, 110, 109), 1) < rollout.PAUSE_SECONDS


def test_split_brain_that_comes_late_is_seen(fakes: FakeFleet, clock: Clock) -> None:
    deployed(fakes)["lb2"].files[KEEPALIVED_PATH].mode = 0o600
    plan, begin = plan_for(fakes), clock.now

    def split() -> None:
        if clock.now - begin > 4:
            fakes["lb3"].answers["addresses"] = (0, "2: eth0    inet 198.51.100.100/32 scope global eth0")

    clock.on_sleep = split
    results = carried_out(fakes, plan)
    assert words(results) == ["unchanged", "failed", "unchanged"]
    assert "lb1, lb3 hold 198.51.100.100, not exactly one" in results["lb2"].detail


def test_node_after_which_nobody_holds_the_vip_stops_the_roll_out(fakes: FakeFleet, clock: Clock) -> None:
    edited(deployed(fakes), "lb1", "lb2", "lb3")

    def die(call: str) -> None:
        if call.startswith("activate"):
            for node in fakes:
                node.units["keepalived"].active = "failed"

    plan, told, begin = plan_for(fakes), list[Event](), clock.now
    fakes["lb2"].before = die
    results = carried_out(fakes, plan, told=told)
    assert words(results) == ["not started", "failed", "not started"]
    assert results["lb2"].detail == "changed, but after 9 s no node holds 198.51.100.100, not exactly one"
    assert isinstance(results["lb2"].error, RemoteError)
    limit = vrrp.election_seconds((120, 110, 109), 1) + rollout.MARGIN_SECONDS
    assert 0 <= clock.now - begin - limit < rollout.PAUSE_SECONDS
    assert any(event.level == "failure" and "no node holds" in event.text for event in told)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((7, "curl: (7) refused\n000 0"), "refused"),
        ((0, "200 1\nbody Welcome to nginx!"), "something that is no apiserver answers with status 200"),
    ],
    ids=["nothing answers", "something else answers"],
)
def test_node_that_served_and_does_not_any_more_stops_the_roll_out(
    fakes: FakeFleet, answer: tuple[int, str], said: str
) -> None:
    edited(deployed(fakes), "lb1", "lb2", "lb3")
    plan = plan_for(fakes)
    fakes["lb2"].answers[f"request {node_url(THREE, THREE.nodes[1])}"] = answer
    results = carried_out(fakes, plan)
    assert words(results) == ["not started", "failed", "not started"]
    assert results["lb2"].detail == f"changed, but after 9 s it does not serve: {said}"


def test_node_whose_apiserver_is_not_ready_serves(fakes: FakeFleet) -> None:
    edited(deployed(fakes), "lb2")
    plan = plan_for(fakes)
    unready = "[-]etcd failed: reason withheld"
    fakes["lb2"].answers[f"request {node_url(THREE, THREE.nodes[1])}"] = (0, f"500 1\nbody {unready}")
    assert words(carried_out(fakes, plan)) == ["unchanged", "changed", "unchanged"]


def test_node_that_served_nobody_before_need_not_serve_afterwards(fakes: FakeFleet) -> None:
    deployed(fakes)
    for node in fakes:
        node.backends = "DOWN"
    edited(fakes, "lb1", "lb2", "lb3")
    assert words(carried_out(fakes, plan_for(fakes))) == ["changed"] * 3


@pytest.mark.parametrize(("status", "result"), [(0, "changed"), (1, "failed")], ids=["it answers", "it does not"])
def test_holder_that_cannot_be_asked_is_taken_for_one_while_the_vip_answers(
    fakes: FakeFleet, status: int, result: str
) -> None:
    edited(deployed(fakes), "lb2")
    plan = plan_for(fakes)
    vip = f"ping {THREE.vip}"
    fakes.cut("lb1")
    fakes["lb2"].answers |= {"addresses": (0, "2: eth0    inet 198.51.100.12/24 scope global eth0"), vip: (0, "")}
    fakes["lb3"].answers |= {"addresses": (0, "2: eth0    inet 198.51.100.13/24 scope global eth0"), vip: (status, "")}
    assert carried_out(fakes, plan)["lb2"].result == result


def test_failure_says_the_step_and_the_words_of_the_node(fakes: FakeFleet) -> None:
    edited(deployed(fakes), "lb2")
    plan = plan_for(fakes)
    fakes["lb2"].failing["stage"] = "[ALERT] parsing [/etc/haproxy/haproxy.cfg:7]\nunknown keyword 'balanze'"
    error = carried_out(fakes, plan)["lb2"].error
    assert error is not None
    assert error.message == (
        "lb2: failed stage\n[ALERT] parsing [/etc/haproxy/haproxy.cfg:7]\nunknown keyword 'balanze'"
    )
    assert error.hint == "exlb push-config --dry-run"


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (Completed(0, "", ""), "lb2: did not begin (status 0)"),
        (Completed(127, "", "sh: eval: not found\n"), "lb2: did not begin (status 127)\nsh: eval: not found"),
        (Completed(UNHEARD, "", ""), "lb2: ended early, without a word"),
        (Completed(0, "step stage\n", ""), "lb2: ended early, after step stage"),
        (Completed(1, "exlb-apply: done\n", ""), "lb2: done, but ended with status 1"),
    ],
    ids=["silent", "no shell", "unheard", "cut short", "a contradiction"],
)
def test_only_the_programs_own_end_with_status_0_is_success(
    fakes: FakeFleet, done: Completed, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(deployed(fakes), "lb2")
    plan = plan_for(fakes)
    run = FakeRemote.run
    monkeypatch.setattr(
        FakeRemote,
        "run",
        lambda self, program, args=(), data="", limit_seconds=60: (
            done if program == APPLY and args[0] == "stage" else run(self, program, args, data, limit_seconds)
        ),
    )
    result = carried_out(fakes, plan)["lb2"]
    assert (result.result, result.detail) == ("failed", message)


def test_node_that_is_lost_while_it_changes_is_failed_and_the_rest_not_started(fakes: FakeFleet) -> None:
    edited(deployed(fakes), "lb1", "lb2", "lb3")
    plan = plan_for(fakes)

    def lose(call: str) -> None:
        if call.startswith(("activate", "discard")):
            raise UnreachableError("lb2: connection lost")

    fakes["lb2"].before = lose
    results = carried_out(fakes, plan)
    assert words(results) == ["not started", "failed", "not started"]
    assert isinstance(results["lb2"].error, UnreachableError)
    assert results["lb2"].detail.endswith("what has begun there ends by itself; the next push tells how")
    assert fakes.count("discard") == {"lb1": 1, "lb2": 1, "lb3": 1}


def test_interrupt_while_staging_changes_nothing_and_forgets_what_was_staged(fakes: FakeFleet) -> None:
    edited(deployed(fakes), "lb1", "lb2", "lb3")
    before, plan, stop = [node.files[PROXY.path].text for node in fakes], plan_for(fakes), threading.Event()
    fakes["lb1"].before = lambda call: stop.set() if call == "stage" else None
    assert words(carried_out(fakes, plan, stop)) == ["not started"] * 3
    assert [node.files[PROXY.path].text for node in fakes] == before
    assert [node.staged for node in fakes] == [None, None, None]


def test_interrupt_between_nodes_ends_the_one_that_runs_with_its_gate_and_starts_no_other(
    fakes: FakeFleet, clock: Clock
) -> None:
    edited(deployed(fakes), "lb1", "lb2", "lb3")
    plan, stop = plan_for(fakes), threading.Event()
    fakes["lb2"].before = lambda call: stop.set() if call.startswith("activate") else None
    told, begin = list[Event](), clock.now
    assert words(carried_out(fakes, plan, stop, told)) == ["not started", "changed", "not started"]
    assert not fakes["lb2"].files[PROXY.path].text.endswith("# edited\n")
    assert not [event for event in told if event.level == "failure"]
    assert (clock.now, fakes.count("probe")) == (begin, {"lb1": 1, "lb2": 1, "lb3": 1})
    assert fakes.count("discard") == {"lb1": 1, "lb2": 0, "lb3": 1}


def test_generation_tells_who_made_it_and_when_and_has_all_files_also_those_that_stay(fakes: FakeFleet) -> None:
    edited(deployed(fakes), "lb2")
    plan = plan_for(fakes)
    assert [change.file.path for change in plan.nodes[1].changes] == [PROXY.path]
    carried_out(fakes, plan)
    made = fakes["lb2"].generations[3]
    assert made.files == {file.path: FakeFile(file.text, file.mode) for file in plan.nodes[1].desired.files}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made.meta["when"])
    assert made.meta["who"] == getpass.getuser()
    assert made.meta["from"] == socket.gethostname()
    assert made.meta["tool"] == f"exlb {__version__}"
    assert (made.meta["what"], made.meta["previous"]) == ("test", "0002")


def test_waiting_looks_at_least_once_and_starts_anew_after_every_fault(clock: Clock) -> None:
    seen: list[float] = []

    def look(*faults: float) -> dict[Node | None, str]:
        """Tell a fault at these times after the begin."""
        seen.append(clock.passed)
        return {None: "split"} if clock.passed in faults else {}

    assert wait_for_steady(lambda: look(), 0, 0) == {}
    assert seen == [0.0]
    assert wait_for_steady(lambda: look(1.0), 2, 10) == {}
    assert clock.passed == 3.5
    assert wait_for_steady(lambda: look(*seen, 3.5, 4.0, 4.5), 5, 1) == {None: "split"}
    assert clock.passed == 4.5


def test_result_of_a_node_that_the_roll_out_did_not_come_to_is_its_plan(fakes: FakeFleet) -> None:
    edited(deployed(fakes), "lb2", "lb3")
    plan = plan_for(fakes)
    fakes["lb2"].failing["activate"] = "no"
    results = carried_out(fakes, plan)
    waiting: NodePlan = plan.nodes[2]
    assert results["lb3"].detail == waiting.summary()
