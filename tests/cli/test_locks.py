"""Two operators at once: one wins everywhere, the other changes nothing anywhere and hears who it is."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Site
from tests.fake import Clock

CHANGE = {"BALANCE": "leastconn"}
ANN = {"token": "aa", "who": "ann", "from": "bastion-2", "what": "restart haproxy", "since": "2027-01-02T03:04:05Z"}
CHANGING = (
    ("push-config",),
    ("restart", "haproxy"),
    ("install", "--upgrade"),
    ("rollback", "--to", "0", "--yes"),
)


def spelled(words: tuple[str, ...]) -> str:
    return " ".join(words)


def steps(site: Site, *kinds: str) -> list[str]:
    """Return what happened on the nodes, in its order, of some kinds."""
    return [entry for entry in site.fleet.journal if entry.split()[1] in kinds]


def held(site: Site) -> list[str]:
    return [node.name for node in site.fleet if node.lock]


def test_converged_push_takes_no_lock(green: Site) -> None:
    green.fleet["lb2"].lock = dict(ANN)
    assert "no changes" in green.exlb("push-config").said
    assert steps(green, "lock") == []


def test_all_nodes_are_held_before_the_first_change_and_until_the_last(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    order = [entry.split()[:2] for entry in steps(green, "lock", "stage", "activate", "unlock")]
    assert order[:3] == [["lb1", "lock"], ["lb2", "lock"], ["lb3", "lock"]]
    assert sorted(order[-3:]) == [["lb1", "unlock"], ["lb2", "unlock"], ["lb3", "unlock"]]
    assert sum("lock" in kind for _, kind in order) == 6


@pytest.mark.parametrize("action", ["stage", "activate"])
def test_locks_are_released_after_a_failure(green: Site, action: str) -> None:
    green.change(**CHANGE)
    green.fleet["lb3"].failing[action] = "no"
    green.exlb("push-config", status=1)
    assert held(green) == []


def test_locks_are_released_after_a_refusal_that_comes_late(green: Site) -> None:
    green.change(ROUTER_ID="69")
    green.exlb("push-config", status=2)
    assert len(steps(green, "lock")) == len(steps(green, "unlock")) == 3


@pytest.mark.parametrize("words", CHANGING, ids=spelled)
def test_node_that_somebody_else_holds_changes_nothing_anywhere(words: tuple[str, ...], green: Site) -> None:
    green.change(**CHANGE)
    green.fleet["lb2"].lock = dict(ANN)
    before = green.fleet.state
    ran = green.exlb(*words, status=5)
    assert (
        "lb2 is locked by ann from bastion-2, since 2027-01-02T03:04:05Z: restart haproxy "
        "nothing was changed on any node next: --lock-wait SECONDS waits for it"
    ) in ran.said
    assert ran.stdout == ""
    assert green.fleet.state == before
    assert steps(green, "lock", "unlock") == [
        f"lb1 lock {' '.join(words[:2]) if words[0] in ('restart', 'install') else words[0]}",
        f"lb2 lock {' '.join(words[:2]) if words[0] in ('restart', 'install') else words[0]}",
        "lb1 unlock",
    ]


def test_install_holds_the_nodes_that_lack_something(green: Site) -> None:
    green.fleet["lb2"].programs.remove("socat")
    green.exlb("install")
    assert steps(green, "lock", "install", "unlock") == ["lb2 lock install", "lb2 install apt-get socat", "lb2 unlock"]
    green.fleet["lb2"].programs.remove("socat")
    green.fleet["lb2"].lock = dict(ANN)
    green.exlb("install", status=5)


def test_deploy_that_meets_a_lock_ends_there(fresh: Site) -> None:
    fresh.fleet["lb3"].lock = dict(ANN)
    fresh.exlb("deploy", status=5)
    assert steps(fresh, "install", "stage") == []


def test_who_waits_goes_on_when_the_other_session_has_ended(green: Site, clock: Clock) -> None:
    green.change(**CHANGE)
    green.fleet["lb2"].lock = dict(ANN)

    def ended() -> None:
        if clock.passed >= 12:
            green.fleet["lb2"].lock = None

    clock.on_sleep = ended
    ran = green.exlb("push-config", "--lock-wait", "60", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    assert clock.passed >= 12


def test_waiting_has_an_end(green: Site, clock: Clock) -> None:
    green.change(**CHANGE)
    green.fleet["lb2"].lock = dict(ANN)
    green.exlb("push-config", "--lock-wait", "5", status=5)
    assert clock.passed == 5


def test_what_the_other_session_did_is_seen_by_the_one_that_waited_for_it(green: Site, clock: Clock) -> None:
    green.change(**CHANGE)
    green.fleet["lb1"].lock = dict(ANN)
    mine, green.fleet = green.fleet, green.twin()
    green.exlb("push-config")
    theirs, green.fleet = green.fleet, mine

    def ended() -> None:
        green.fleet.become(theirs)
        green.fleet["lb1"].lock = None

    clock.on_sleep = ended
    assert "no changes" in green.exlb("push-config", "--lock-wait", "60").said
    assert steps(green, "stage", "activate") == []


@pytest.mark.parametrize("lost", ["to nobody", "to another"])
def test_session_that_has_lost_a_lock_is_refused_by_the_node_and_leaves_nothing_half_done(
    green: Site, lost: str
) -> None:
    green.change(**CHANGE)
    node = green.fleet["lb3"]

    def lose(call: str) -> None:
        if call.startswith("activate"):
            node.lock = dict(ANN) if lost == "to another" else None

    green.fleet["lb2"].before = lose
    before = [green.fleet[name].files for name in ("lb1", "lb3")]
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "changed", "lb3": "failed"}
    assert "this session has lost its lock on the node" in ran.said
    assert [green.fleet[name].files for name in ("lb1", "lb3")] == before
    assert [entry.split()[0] for entry in steps(green, "activate")] == ["lb2"]
    assert node.lock == (ANN if lost == "to another" else None)


def test_lock_status_shows_who_holds_what(green: Site) -> None:
    green.fleet["lb2"].lock = dict(ANN)
    green.fleet["lb2"].change = lambda: ""
    ran = green.exlb("lock status")
    assert "lb1 free" in ran.said
    assert "lb2 ann from bastion-2 2027-01-02 03:04:05 restart haproxy runs" in ran.said
    rows = green.exlb("lock status", "-o", "json").json["locks"]
    assert rows[0] == {
        "node": "lb1", "who": None, "origin": None, "since": None, "what": None, "changing": False,
    }  # fmt: skip
    assert rows[1] == {
        "node": "lb2", "who": "ann", "origin": "bastion-2", "since": "2027-01-02T03:04:05Z", "what": "restart haproxy",
        "changing": True,
    }  # fmt: skip


def test_lock_status_never_shows_the_token(green: Site) -> None:
    green.fleet["lb2"].lock = dict(ANN, token="a-token-of-ann")
    for output in ("table", "json"):
        assert "a-token-of-ann" not in green.exlb("lock status", "-v", "-o", output).said


def test_lock_status_goes_on_without_an_unreachable_node_and_names_it(green: Site) -> None:
    green.fleet.cut("lb2")
    ran = green.exlb("lock status", status=4)
    assert "lb1 free" in ran.said
    assert "cannot connect: No route to host" in ran.said
    assert green.exlb("lock status", "--nodes", "lb3", "-o", "json").json["locks"][0]["node"] == "lb3"
