"""How long verify watches VRRP before it judges what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from exlb_fab.dump import RECEIVED
from exlb_fab.errors import UnreachableError
from exlb_fab.facts import Facts, Reply, Survey, System, Unit
from exlb_fab.questions import vip_url
from exlb_fab.settling import restless, unsettled_seconds
from exlb_fab.vrrp import settle_seconds
from tests.fake import cluster, converged, holding, instance
from tests.unit.test_checks import DESIRED, STOPPED

THREE = cluster()
SETTLE = settle_seconds(THREE.priorities, 1.0)
NOW = 10_000.0
LONG_AGO = 1000.0
SILENT_VIP: dict[str, Any] = {
    "pings": {str(THREE.vip): False},
    "replies": {vip_url(THREE): Reply(None, "No route to host", accepted=False)},
}
RUNNING = Unit("loaded", "active", "running", "enabled", changed=LONG_AGO)


def facts(number: int, *, holds: bool | None = None, **changes: Any) -> Facts:
    """Return the facts of a node on which all has stood still for long; the first one holds the VIP."""
    node = THREE.nodes[number - 1]
    system = System("Debian", node.name, None, 0, ("debian",), ("apt-get",), NOW)
    units = {"haproxy": RUNNING, "keepalived": RUNNING}
    found = converged(THREE, node, DESIRED[node].files, **{"system": system, "units": units, **changes})
    return holding(THREE, found) if holds or (holds is None and number == 1) else found


def seconds(*found: Facts) -> float:
    errors = {node: UnreachableError(f"{node}: cannot connect") for node in THREE.nodes[len(found) :]}
    return unsettled_seconds(THREE, Survey(dict(zip(THREE.nodes, found, strict=False)), errors))


def since(at: float, number: int = 2, **changes: Any) -> dict[str, Any]:
    return {"instances": (instance(THREE, THREE.nodes[number - 1], since=at, **changes),)}


def test_what_has_stood_still_for_long_counts_at_once() -> None:
    assert seconds(facts(1), facts(2), facts(3)) == 0


def test_state_that_a_node_came_to_a_moment_ago_does_not_count_yet() -> None:
    assert seconds(facts(1), facts(2, **since(NOW - 1)), facts(3)) == pytest.approx(SETTLE - 1)
    assert seconds(facts(1), facts(2, **since(NOW - SETTLE)), facts(3)) == 0


def test_keepalived_that_was_reloaded_a_moment_ago_does_not_count_yet() -> None:
    reloaded: dict[str, Any] = {"units": {"haproxy": RUNNING, "keepalived": replace(RUNNING, changed=NOW - 2)}}
    assert seconds(facts(1), facts(2), facts(3, **reloaded)) == pytest.approx(SETTLE - 2)


def test_slower_adverts_that_run_are_waited_for() -> None:
    slow = settle_seconds(THREE.priorities, 3.0)
    assert seconds(facts(1), facts(2, **since(NOW, advert_seconds=3.0)), facts(3)) == pytest.approx(slow)


def test_clock_of_a_node_that_goes_backwards_does_not_make_it_longer() -> None:
    assert seconds(facts(1), facts(2, **since(NOW + 3600)), facts(3)) == SETTLE


@pytest.mark.parametrize("holders", [(), (1, 2)])
def test_other_than_one_holder_is_looked_at_twice(holders: tuple[int, ...]) -> None:
    assert seconds(*(facts(number, holds=number in holders) for number in (1, 2, 3))) == SETTLE


@pytest.mark.parametrize("silent", [(), ("pings",), ("replies",)])
def test_holder_that_cannot_be_asked_is_not_waited_for_where_the_vip_answers(silent: tuple[str, ...]) -> None:
    assert seconds(facts(1, holds=False), facts(2, **{name: SILENT_VIP[name] for name in silent})) == 0


def test_holder_that_has_just_died_is_waited_for_until_another_one_may_have_taken_over() -> None:
    assert seconds(facts(1, holds=False), facts(2, **SILENT_VIP)) == SETTLE
    assert seconds(facts(1, holds=False, **SILENT_VIP), facts(2, **SILENT_VIP)) == SETTLE


def test_node_that_cannot_be_asked_is_not_waited_for_where_another_holds_the_vip() -> None:
    assert seconds(facts(1, **SILENT_VIP), facts(2, **SILENT_VIP)) == 0


def test_nothing_is_to_be_watched_where_keepalived_does_not_run() -> None:
    stopped = {"units": {"haproxy": RUNNING, "keepalived": replace(STOPPED, changed=NOW)}, "instances": ()}
    assert seconds(*(facts(number, holds=False, **stopped) for number in (1, 2, 3))) == 0


def test_node_that_does_not_tell_its_times_settles_nothing() -> None:
    dumb: dict[str, Any] = {"system": None, "instances": ()}
    assert seconds(*(facts(number, **dumb) for number in (1, 2, 3))) == 0


def test_backup_that_hears_nothing_is_looked_at_again() -> None:
    silent: dict[str, Any] = {"counters": {RECEIVED: 9}, "earlier": {RECEIVED: 9}}
    assert seconds(facts(1), facts(2, **since(LONG_AGO, **silent)), facts(3)) == SETTLE


def moved(before: Sequence[Facts], now: Sequence[Facts]) -> list[str]:
    """Return the nodes that do not come to rest between two looks at the first nodes."""
    first, second = (Survey(dict(zip(THREE.nodes, found, strict=False)), {}) for found in (before, now))
    return [node.name for node in restless(THREE, first, second)]


def test_node_that_has_changed_again_since_the_look_before_does_not_come_to_rest() -> None:
    restarted: dict[str, Any] = {"units": {"haproxy": RUNNING, "keepalived": replace(RUNNING, changed=NOW - 2)}}
    assert moved([facts(1), facts(2), facts(3)], [facts(1), facts(2, **since(NOW - 1)), facts(3)]) == ["lb2"]
    assert moved([facts(1), facts(2), facts(3)], [facts(1), facts(2), facts(3, **restarted)]) == ["lb3"]


def test_election_that_has_ended_by_the_last_look_is_at_rest() -> None:
    held = [facts(1), facts(2, **since(NOW - SETTLE)), facts(3)]
    assert moved([facts(1), facts(2, **since(NOW - SETTLE - 1)), facts(3)], held) == []


def test_change_that_both_looks_have_seen_is_at_rest() -> None:
    # The clock of a node tells whole seconds: what has stood still for long enough may seem to lack a part of one.
    seen = [facts(1), facts(2, **since(NOW - SETTLE + 0.5)), facts(3)]
    assert moved(seen, seen) == []


def test_two_holders_that_have_long_been_so_are_at_rest() -> None:
    split = [facts(1), facts(2, holds=True), facts(3)]
    assert seconds(*split) == SETTLE
    assert moved(split, split) == []


def test_node_of_which_one_look_tells_nothing_does_not_move() -> None:
    stopped: dict[str, Any] = {
        "units": {"haproxy": RUNNING, "keepalived": replace(STOPPED, changed=NOW)},
        "instances": (),
    }
    assert moved([facts(1)], [facts(1), facts(2, **since(NOW - 1))]) == []
    assert moved([facts(1), facts(2)], [facts(1), facts(2, **stopped)]) == []
    assert moved([facts(1), facts(2)], [facts(1), facts(2, system=None, **since(NOW - 1))]) == []
