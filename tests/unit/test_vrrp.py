"""The arithmetic of VRRP: priorities, who wins, and how long it takes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab.variables import MOST_NODES
from exlb_fab.vrrp import (
    CHECK_WEIGHT,
    Router,
    election_seconds,
    lawful,
    master_down_seconds,
    priorities,
    roles,
    settle_seconds,
    skew_seconds,
    winner,
)


def routers(*values: int) -> tuple[Router, ...]:
    """Return routers a, b, c ... with rising addresses."""
    return tuple(Router("abcdefgh"[place], value, place) for place, value in enumerate(values))


def stuck(values: tuple[int, ...], weight: int) -> set[frozenset[str]]:
    """Return the sets of failing routers with which the VIP can stay on one of them although another is healthy."""
    all_routers = routers(*values)
    names = [router.name for router in all_routers]
    failing = [frozenset(some) for count in range(1, len(names)) for some in combinations(names, count)]
    return {some for some in failing if any(winner(all_routers, weight, some, holder) in some for holder in some)}


# Priorities


@pytest.mark.parametrize("count", range(1, MOST_NODES + 1))
def test_priorities_of_every_allowed_number_of_nodes_are_distinct_falling_and_lawful(count: int) -> None:
    values = priorities(count)
    assert len(values) == count
    assert list(values) == sorted(set(values), reverse=True)
    assert values[0] == 120
    assert lawful(values, CHECK_WEIGHT)
    assert 1 <= min(values) + CHECK_WEIGHT <= max(values) <= 254


def test_priorities_of_the_first_nodes_do_not_depend_on_how_many_follow() -> None:
    assert priorities(5)[:3] == priorities(3) == (120, 110, 109)


def test_more_nodes_than_there_are_lawful_priorities_are_refused() -> None:
    with pytest.raises(ValueError, match="too many for distinct priorities"):
        priorities(MOST_NODES + 2)


# Who wins


@given(st.integers(1, 6), st.sets(st.integers(0, 5)), st.none() | st.sampled_from("abcdef"))
def test_winner_is_healthy_whenever_one_is_healthy(count: int, failing: set[int], holder: str | None) -> None:
    all_routers = routers(*priorities(count))
    names = frozenset(router.name for place, router in enumerate(all_routers) if place in failing)
    found = winner(all_routers, CHECK_WEIGHT, names, holder)
    assert found is not None
    if len(names) < count:
        assert found not in names


@given(st.lists(st.integers(100, 160), min_size=2, max_size=5, unique=True), st.integers(-90, -1))
def test_law_holds_exactly_where_no_failing_router_can_keep_the_vip(values: list[int], weight: int) -> None:
    assert lawful(values, weight) == (not stuck(tuple(values), weight))


@pytest.mark.parametrize(
    ("weight", "values", "expected"),
    [
        (-30, (120, 110, 110), set()),
        (-60, (120, 118, 61), set()),
        (-60, (120, 110, 109), set()),
        # 103 - 2 = 101 still beats 100: with the two best failing the third, healthy one never gets the VIP.
        (-2, (103, 102, 100), {frozenset("ab")}),
        (2, (101, 100), set()),
        # 99 + 2 only equals 101, and a backup that hears an equal priority stays a backup.
        (2, (101, 100, 99), {frozenset("ab")}),
    ],
    ids=str,
)
def test_combinations_come_out_as_they_were_seen(
    weight: int, values: tuple[int, ...], expected: set[frozenset[str]]
) -> None:
    assert stuck(values, weight) == expected


def test_spread_as_large_as_the_weight_is_against_the_law() -> None:
    assert lawful((120, 91), -30)
    assert not lawful((120, 90), -30)
    assert lawful((101, 100), 2)
    assert not lawful((101, 99), 2)


def test_holder_and_then_the_highest_address_breaks_a_tie() -> None:
    tied = (Router("low", 110, 1), Router("high", 110, 2))
    assert winner(tied, -30, frozenset()) == "high"
    assert winner(tied, -30, frozenset(), holder="low") == "low"


def test_vip_stays_with_somebody_when_every_check_fails() -> None:
    assert winner(routers(120, 110, 109), CHECK_WEIGHT, frozenset("abc")) == "a"


def test_nobody_wins_among_none() -> None:
    assert winner((), CHECK_WEIGHT, frozenset()) is None


@pytest.mark.parametrize(
    ("priority", "weight", "failing", "effective"),
    [
        (110, -60, True, 50),
        (110, -60, False, 110),
        (110, 5, False, 115),
        (110, 5, True, 110),
        (50, -60, True, 1),
        (253, 5, False, 254),
    ],
)
def test_effective_priority_follows_the_sign_of_the_weight_and_stays_in_range(
    priority: int, weight: int, failing: bool, effective: int
) -> None:
    assert Router("a", priority, 1).effective(weight, failing=failing) == effective


# Timings


@pytest.mark.parametrize(
    ("priority", "advert", "skew", "down"),
    [
        # RFC 3768: Skew_Time = (256 - Priority) / 256, Master_Down_Interval = 3 * Advertisement_Interval + Skew_Time.
        (100, 1, 0.609375, 3.609375),
        (254, 1, 0.0078125, 3.0078125),
        (1, 1, 0.99609375, 3.99609375),
        (128, 1, 0.5, 3.5),
        # keepalived scales the skew to the interval of the adverts.
        (128, 3, 1.5, 10.5),
    ],
)
def test_timers_of_a_backup_are_those_of_the_rfc(priority: int, advert: float, skew: float, down: float) -> None:
    assert skew_seconds(priority, advert) == pytest.approx(skew)
    assert master_down_seconds(priority, advert) == pytest.approx(down)


def test_election_ends_with_the_slowest_timer() -> None:
    assert election_seconds((120, 110, 109), 1) == pytest.approx(3 + 147 / 256)
    assert election_seconds((), 1) == 0


def test_change_of_keepalived_counts_only_after_the_slowest_timer_and_a_second() -> None:
    assert settle_seconds((120, 110), 1) == pytest.approx(3 + 146 / 256 + 1)


def test_first_node_is_the_master_and_all_others_are_backups() -> None:
    assert roles(["a", "b", "c"]) == {"a": "MASTER", "b": "BACKUP", "c": "BACKUP"}
