"""backend: one server drained on every node before its upgrade, and what the others keep."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.cli.conftest import Site
from tests.cli.test_locks import ANN, held, steps
from tests.fake import Clock

FIRST, SECOND, THIRD = (f"198.51.100.1{number}" for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tables room: their folds are not what is tested."""
    monkeypatch.setenv("COLUMNS", "120")


def admitted(site: Site) -> dict[str, dict[str, str]]:
    return {node.name: node.admitted for node in site.fleet}


def everywhere(name: str, admission: str) -> dict[str, dict[str, str]]:
    return {node: {name: admission} for node in ("lb1", "lb2", "lb3")}


@pytest.mark.parametrize("verb", ["drain", "disable"])
def test_server_is_held_back_on_every_node_and_comes_back(green: Site, verb: str) -> None:
    ran = green.exlb(f"backend {verb}", FIRST, "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    assert admitted(green) == everywhere(FIRST, verb)
    assert set(green.exlb("backend ready", FIRST, "-o", "json").results.values()) == {"changed"}
    assert admitted(green) == everywhere(FIRST, "ready")


def test_second_time_nothing_is_changed_and_no_lock_taken(green: Site) -> None:
    green.exlb("backend drain", FIRST)
    green.fleet.journal.clear()
    ran = green.exlb("backend drain", FIRST)
    assert "drained already, nothing was changed" in ran.said
    assert steps(green, "lock", "drain") == []


@pytest.mark.parametrize("pattern", [FIRST, f"{FIRST}:6443", "*.11", "198.51.100.1[1]*"])
def test_server_is_named_by_name_address_or_pattern(green: Site, pattern: str) -> None:
    green.exlb("backend drain", pattern)
    assert admitted(green) == everywhere(FIRST, "drain")


def test_server_is_named_by_the_host_of_the_environment_file(site: Callable[..., Site]) -> None:
    made = site(APISERVER_IPS="(api-1.example.org 198.51.100.12)").deploy()
    made.exlb("backend drain", "api-1.example.org")
    assert all(list(names) == ["api-1.example.org"] for names in admitted(made).values())


def test_unknown_server_is_a_usage_error_that_lists_those_there_are(green: Site) -> None:
    ran = green.exlb("backend drain", "198.51.100.99", status=2)
    assert "198.51.100.99: no such backend" in ran.said
    assert f"{FIRST} of kube-master, {SECOND} of kube-master, {THIRD} of kube-master" in ran.said
    ran = green.exlb("backend drain", FIRST, "--listener", "web", status=2)
    assert "--listener web: no such listener next: the listeners are: kube-master" in ran.said
    assert admitted(green) == {"lb1": {}, "lb2": {}, "lb3": {}}


@pytest.mark.parametrize("verb", ["drain", "disable"])
def test_last_server_that_is_up_needs_a_yes(green: Site, verb: str) -> None:
    green.exlb("backend drain", "198.51.100.1[12]")
    before = green.fleet.state
    ran = green.exlb(f"backend {verb}", THIRD, status=2)
    assert "lb2: no server of kube-master is left that is up: clients will be refused there" in ran.said
    assert "--yes goes on without asking" in ran.said
    assert green.fleet.state == before
    green.exlb(f"backend {verb}", THIRD, "--yes")
    assert {node.admitted[THIRD] for node in green.fleet} == {verb}


def test_server_that_is_the_last_one_on_a_single_node_needs_a_yes_too(green: Site) -> None:
    green.fleet["lb2"].admitted = {SECOND: "disable", THIRD: "drain"}
    ran = green.exlb("backend drain", FIRST, status=2)
    assert "lb2: no server of kube-master is left" in ran.said
    assert "lb1: no server" not in ran.said


def test_servers_that_are_down_anyway_need_no_yes(green: Site) -> None:
    for node in green.fleet:
        node.backends = "DOWN"
    green.exlb("backend drain", "*")


def test_dry_run_touches_nothing_and_says_what_it_would_cost(green: Site) -> None:
    before = green.fleet.state
    ran = green.exlb("backend drain", "*", "--dry-run")
    assert green.fleet.state == before
    assert "would be drained" in ran.said
    assert "clients will be refused" in ran.said
    assert steps(green, "lock") == []


def test_node_that_cannot_be_reached_is_named_and_the_next_run_finishes(green: Site) -> None:
    green.fleet.cut("lb2")
    ran = green.exlb("backend drain", FIRST, "-o", "json", status=4)
    assert ran.results == {"lb1": "changed", "lb2": "unreachable", "lb3": "changed"}
    green.fleet["lb2"].unreachable = None
    ran = green.exlb("backend drain", FIRST, "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert admitted(green) == everywhere(FIRST, "drain")


def test_node_whose_proxy_refuses_is_named_and_the_others_are_done(green: Site) -> None:
    green.fleet["lb2"].failing["admit"] = "No such server."
    ran = green.exlb("backend drain", FIRST, "-o", "json", status=1)
    assert ran.results == {"lb1": "changed", "lb2": "failed", "lb3": "changed"}
    assert "No such server." in ran.said


def test_node_whose_proxy_does_not_run_or_lacks_the_server_is_named(green: Site) -> None:
    green.fleet["lb1"].running = None
    running = green.fleet["lb2"].running
    assert running
    green.fleet["lb2"].running = "".join(line for line in running.splitlines(keepends=True) if FIRST not in line)
    ran = green.exlb("backend drain", FIRST, "-o", "json", status=1)
    assert ran.results == {"lb1": "failed", "lb2": "failed", "lb3": "changed"}
    assert "does not answer: socat: Connection refused" in ran.said
    assert f"its proxy does not have {FIRST} of kube-master" in ran.said


def test_node_that_another_session_holds_changes_nothing_anywhere(green: Site) -> None:
    green.fleet["lb2"].lock = dict(ANN)
    ran = green.exlb("backend drain", FIRST, status=5)
    assert "lb2 is locked by ann" in ran.said
    assert admitted(green) == {"lb1": {}, "lb2": {}, "lb3": {}}
    assert held(green) == ["lb2"]


def test_wait_ends_when_no_node_has_a_session_any_more_old_processes_included(green: Site, clock: Clock) -> None:
    green.fleet["lb1"].sessions = {FIRST: 3, SECOND: 9}
    green.fleet["lb3"].old_sessions = {FIRST: 1}

    def ended() -> None:
        assert held(green) == [], "others may work meanwhile"
        if clock.passed >= 10:
            green.fleet["lb1"].sessions = {SECOND: 9}
        if clock.passed >= 100:
            green.fleet["lb3"].old_sessions = {}

    clock.on_sleep = ended
    ran = green.exlb("backend drain", FIRST, "--wait", "-o", "json")
    assert ran.json["left"] == {"lb1": 0, "lb2": 0, "lb3": 0}
    assert 100 <= clock.passed <= 110
    assert "lb1 waits for 3 sessions to end" in ran.said
    assert "lb3 waits for 1 session, 1 of them of processes from before a reload to end" in ran.said


def test_wait_has_an_end_and_the_server_stays_drained(green: Site, clock: Clock) -> None:
    green.fleet["lb1"].sessions = {FIRST: 3}
    ran = green.exlb("backend drain", FIRST, "--wait", "--wait-limit", "20", "-o", "json", status=1)
    assert ran.results == {"lb1": "failed", "lb2": "changed", "lb3": "changed"}
    assert "3 sessions left after 20 s; it stays drained" in ran.said
    assert clock.passed == 20
    assert admitted(green) == everywhere(FIRST, "drain")


def test_interrupted_wait_leaves_the_server_drained_and_says_so(green: Site, clock: Clock) -> None:
    green.fleet["lb1"].sessions = {FIRST: 3}
    clock.on_sleep = lambda: signal.raise_signal(signal.SIGINT)
    ran = green.exlb("backend drain", FIRST, "--wait", status=130)
    assert f"interrupted: what is drained stays so; exlb backend ready {FIRST} ends it" in ran.said
    assert admitted(green) == everywhere(FIRST, "drain")


def test_wait_for_a_server_that_somebody_brings_back_ends_there(green: Site, clock: Clock) -> None:
    green.fleet["lb1"].sessions = {FIRST: 3}
    clock.on_sleep = lambda: green.fleet["lb1"].admitted.clear()
    ran = green.exlb("backend drain", FIRST, "--wait", status=1)
    assert f"{FIRST} is ready now" in ran.said


@pytest.mark.parametrize(
    ("value", "said"), [("no", "a push that reloads the proxy undoes this"), ("yes", "keeps this")]
)
def test_list_and_status_remind_of_what_is_drained_and_whether_a_push_keeps_it(
    site: Callable[..., Site], value: str, said: str
) -> None:
    made = site(SERVER_STATE=value).deploy()
    assert said in made.exlb("backend drain", FIRST).said
    for command in ("backend list", "status"):
        ran = made.exlb(command)
        assert f"{FIRST} of kube-master is drained" in ran.said
        assert said in ran.said
    made.fleet["lb2"].admitted.clear()
    assert f"{FIRST} of kube-master is drained on lb1, lb3 alone" in made.exlb("status").said


def test_list_shows_a_server_that_is_drained_and_down_as_both(green: Site) -> None:
    green.exlb("backend drain", FIRST)
    green.fleet["lb2"].backends = "DOWN"
    ran = green.exlb("backend list", "-o", "json")
    (first,) = [row for row in ran.json["servers"] if row["server"] == FIRST]
    assert {node: (seen["status"], seen["admission"]) for node, seen in first["seen"].items()} == {
        "lb1": ("DRAIN", "drain"),
        "lb2": ("DOWN", "drain"),
        "lb3": ("DRAIN", "drain"),
    }
    assert "drained, DOWN" in green.exlb("backend list").said


def test_list_goes_on_without_a_node_and_names_it(green: Site) -> None:
    green.fleet.cut("lb2")
    ran = green.exlb("backend list", status=4)
    assert "cannot connect: No route to host" in ran.said
    assert f"{FIRST}:6443 UP L7OK UP L7OK" in ran.said


@pytest.mark.parametrize("verb", ["drain", "disable"])
def test_verify_is_green_with_a_backend_held_back_on_purpose_and_names_it(green: Site, verb: str) -> None:
    green.exlb(f"backend {verb}", FIRST)
    ran = green.exlb("verify")
    assert f"{FIRST}: somebody told the proxy to {verb} it" in ran.said
    assert f"next: when its upgrade is done: exlb backend ready {FIRST}" in ran.said
    green.exlb("backend ready", FIRST)
    assert "somebody told" not in green.exlb("verify").said


def test_verify_is_red_where_all_backends_are_held_back(green: Site) -> None:
    green.exlb("backend disable", "*", "--yes")
    assert "somebody told the proxy to disable it" in green.exlb("verify", status=1).said
