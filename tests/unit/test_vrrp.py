"""The model of VRRP: who holds the VIP in every world, which weights are right, and how long clients wait."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exlb_fab.variables import MOST_NODES
from exlb_fab.vrrp import (
    CHECK_WEIGHT,
    Check,
    Group,
    Router,
    Timing,
    World,
    election_seconds,
    group_of,
    healthy,
    holders,
    lawful,
    least_weight,
    master_down_seconds,
    outages,
    priorities,
    settle_seconds,
    skew_seconds,
    stranded,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "vrrp.md"


def group(values: tuple[int, ...], *weights: int, preempt: bool = True) -> Group:
    """Return routers lb1, lb2 ... with checks a, b ..."""
    checks = tuple(Check("abc"[place], weight) for place, weight in enumerate(weights))
    return replace(group_of(values, checks), preempt=preempt)


def fails(*pairs: str) -> frozenset[tuple[str, str]]:
    """Return failing checks from words like `lb1:a`."""
    return frozenset((router, check) for router, check in (pair.split(":") for pair in pairs))


# Every world, one event after the other: what `stranded` says without looking at them


def neighbours(each: Group, world: World) -> Iterator[World]:
    """Yield the worlds that one event away: a router dies or returns, a check fails or succeeds."""
    for router in each.routers:
        yield replace(world, dead=world.dead ^ {router.name})
        for check in each.checks:
            yield replace(world, failing=world.failing ^ {(router.name, check.name)})


def histories(each: Group) -> set[World]:
    """Return every world that a sequence of events can lead to, with everybody who may hold the VIP in it."""
    everybody = frozenset(router.name for router in each.routers)
    waiting = [World(), World(dead=everybody)]
    found: set[World] = set()
    while waiting:
        world = waiting.pop()
        for held in holders(each, world) or {None}:
            settled = replace(world, held=held)
            if settled not in found:
                found.add(settled)
                waiting.extend(neighbours(each, settled))
    return found


def strandings(each: Group) -> set[World]:
    """Return the worlds in which some router is healthy, and none of the healthy ones holds the VIP."""
    found = histories(each)
    return {world for world in found if healthy(each, world) and world.held not in healthy(each, world)}


def failures(each: Group, world: World) -> int:
    return len(world.dead) + sum(router not in world.dead for router, _ in world.failing)


SMALL = st.builds(
    lambda values, weights, preempt: group(tuple(values), *weights, preempt=preempt),
    st.lists(st.integers(1, 8) | st.integers(247, 254) | st.integers(1, 254), min_size=1, max_size=3),
    st.lists(st.just(0) | st.integers(-6, 6) | st.integers(-253, 253), max_size=2),
    st.booleans(),
)


@given(SMALL)
def test_stranding_is_found_exactly_where_a_sequence_of_failures_leads_to_one(each: Group) -> None:
    seen, found = strandings(each), stranded(each)
    assert (found is not None) == bool(seen)
    if found is not None:
        assert found.world in seen
        assert failures(each, found.world) == min(failures(each, world) for world in seen)


@given(SMALL)
def test_only_one_holds_the_vip_and_it_is_alive(each: Group) -> None:
    for world in histories(each):
        assert world.held is None or world.held not in world.dead
        if not any(check.weight == 0 for check in each.checks):
            assert (world.held is None) == (len(world.dead) == len(each.routers))


@given(st.integers(1, 6), st.sets(st.integers(1, 6)), st.none() | st.integers(1, 6))
def test_default_priorities_and_weight_give_the_vip_to_a_healthy_router(
    count: int, failing: set[int], held: int | None
) -> None:
    each = group(priorities(count), CHECK_WEIGHT)
    world = World(failing=fails(*(f"lb{place}:a" for place in failing)), held=f"lb{held}")
    found = holders(each, world)
    assert found
    assert found <= set(healthy(each, world)) or not healthy(each, world)


def test_fifty_routers_are_judged_at_once() -> None:
    assert stranded(group(priorities(MOST_NODES), CHECK_WEIGHT, -70, 0)) is None
    found = stranded(group(tuple(range(100, 50, -1)), -30))
    assert found is not None
    assert found.world.held == "lb1"
    assert len(found.world.failing) == 30  # lb1 falls to 70, and lb2 to lb30 stand above it
    assert str(found) == (
        "where the check fails on lb1, lb2, lb3 and 27 more, lb31, lb32, lb33 and 17 more are healthy, "
        "and lb1 keeps the VIP: 100 - 30 = 70 is not below 70"
    )


# The rows of the table "VRRP arithmetic"


def test_weight_minus_30_with_priorities_120_110_110_is_right() -> None:
    assert stranded(group((120, 110, 110), -30)) is None


def test_weight_minus_60_with_priorities_120_118_61_is_right() -> None:
    assert stranded(group((120, 118, 61), -60)) is None


def test_weight_minus_2_with_priorities_103_102_100_leaves_the_vip_on_a_failed_node() -> None:
    found = stranded(group((103, 102, 100), -2))
    assert found is not None
    assert found.world == World(failing=fails("lb1:a", "lb2:a"), held="lb1")
    assert str(found) == (
        "where the check fails on lb1 and lb2, lb3 is healthy, and lb1 keeps the VIP: 103 - 2 = 101 is not below 100"
    )
    assert found.remedy == "the least weight that is right for these priorities is -4"


def test_weight_2_with_priorities_101_100_is_right() -> None:
    assert stranded(group((101, 100), 2)) is None


def test_weight_2_with_priorities_101_100_99_leaves_the_vip_on_a_failed_node() -> None:
    found = stranded(group((101, 100, 99), 2))
    assert found is not None
    assert str(found) == (
        "where the check fails on lb1 and lb2, lb3 is healthy, and lb1 keeps the VIP: 101 is not below 99 + 2 = 101"
    )
    assert found.remedy == "the least weight that is right for these priorities is 3"


@pytest.mark.parametrize("weight", [-60, 60, -253])
def test_nopreempt_with_a_weight_never_fails_over(weight: int) -> None:
    found = stranded(group((120, 110, 109), weight, preempt=False))
    assert found is not None
    assert str(found) == (
        "where the check fails on lb1, lb2 and lb3 are healthy, and lb1 keeps the VIP: "
        "with nopreempt no backup replaces a holder that still advertises, whatever its priority"
    )
    assert found.remedy == "PREEMPT=no wants FAILOVER=fault"
    assert least_weight(found.group) is None


@pytest.mark.parametrize("preempt", [True, False])
def test_without_weight_the_vip_fails_over_and_nobody_has_it_when_all_checks_fail(preempt: bool) -> None:
    each = group((120, 110, 109), 0, preempt=preempt)
    assert stranded(each) is None
    assert holders(each, World(failing=fails("lb1:a"), held="lb1")) == {"lb2"}
    assert holders(each, World(failing=fails("lb1:a", "lb2:a", "lb3:a"), held="lb2")) == frozenset()


# Who holds the VIP


def test_holder_stays_in_a_tie_and_tied_backups_race() -> None:
    each = group((110, 110, 100), -30)
    assert holders(each, World()) == {"lb1", "lb2"}
    assert holders(each, World(held="lb2")) == {"lb2"}
    assert holders(each, World(held="lb3")) == {"lb1", "lb2"}


def test_better_router_that_returns_preempts_and_with_nopreempt_does_not() -> None:
    returned = World(held="lb3")
    assert holders(group((120, 110, 109), -60), returned) == {"lb1"}
    assert holders(group((120, 110, 109), 0, preempt=False), returned) == {"lb3"}


def test_holder_that_was_in_fault_does_not_get_the_vip_back_with_nopreempt() -> None:
    each = group((120, 110, 109), 0, preempt=False)
    fault = World(failing=fails("lb1:a"), held="lb1")
    (held,) = holders(each, fault)
    assert holders(each, World(held=held)) == {"lb2"}


def test_vip_stays_with_somebody_when_every_weighted_check_fails() -> None:
    assert holders(group((120, 110, 109), -60), World(failing=fails("lb1:a", "lb2:a", "lb3:a"))) == {"lb1"}


def test_nobody_holds_the_vip_where_all_are_dead() -> None:
    assert holders(group((120, 110), -60), World(dead=frozenset({"lb1", "lb2"}), held="lb1")) == frozenset()
    assert holders(group(()), World()) == frozenset()


@pytest.mark.parametrize(
    ("priority", "weights", "failing", "effective"),
    [
        (110, (-60,), "a", 50),
        (110, (-60,), "", 110),
        (110, (5,), "", 115),
        (110, (5,), "a", 110),
        (50, (-60,), "a", 1),
        (253, (5,), "", 254),
        (110, (-60, -20), "ab", 30),
        (110, (5, -20), "ab", 90),
        (110, (5, -20), "b", 95),
        # The sum is complete before it is cut: 250 + 60 - 60, and not 254 - 60.
        (250, (60, -60), "b", 250),
        (110, (0,), "a", 110),
    ],
)
def test_effective_priority_adds_up_all_weights_and_stays_in_range(
    priority: int, weights: tuple[int, ...], failing: str, effective: int
) -> None:
    each = group((priority,), *weights)
    assert each.effective(each.routers[0], set(failing)) == effective


# The law


def test_with_several_checks_each_alone_has_to_be_large_enough() -> None:
    found = stranded(group((120, 110), -60, -10))
    assert found is not None
    assert str(found) == (
        "where the check b fails on lb1, lb2 is healthy, and lb1 keeps the VIP: 120 - 10 = 110 is not below 110"
    )
    assert stranded(group((120, 110), -60, -11)) is None


def test_priorities_at_the_end_of_the_range_are_cut_and_become_equal() -> None:
    low, high = stranded(group((2, 1), -30)), stranded(group((254, 250), 30))
    assert low is not None
    assert high is not None
    assert str(low).endswith("2 - 30 = -28 (kept at 1) is not below 1")
    assert str(high).endswith("254 is not below 250 + 30 = 280 (kept at 254)")
    assert low.remedy == high.remedy
    assert low.remedy.startswith("no weight is right for these priorities")


@given(st.lists(st.integers(91, 160), min_size=1, max_size=5), st.integers(1, 90), st.sampled_from([-1, 1]))
def test_law_is_the_spread_wherever_nothing_is_cut(values: list[int], size: int, sign: int) -> None:
    assert lawful(values, sign * size) == (len(values) < 2 or size > max(values) - min(values))


@given(st.lists(st.integers(1, 254), min_size=2, max_size=4), st.sampled_from([-1, 1]))
def test_least_weight_is_lawful_and_no_smaller_one_is(values: list[int], sign: int) -> None:
    least = least_weight(group(tuple(values), sign))
    right = [size for size in range(1, 254) if lawful(values, sign * size)]
    assert least == (right[0] if right else None)


def test_without_a_weighted_check_there_is_no_least_weight() -> None:
    assert least_weight(group((120, 110), 0)) is None


@pytest.mark.parametrize(
    ("values", "weights", "said"),
    [((255, 100), (-2,), "priority 255"), ((0,), (), "priority 0"), ((100,), (-254,), "weight -254")],
)
def test_what_keepalived_does_not_take_is_refused(values: tuple[int, ...], weights: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        group(values, *weights)


def test_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        Group((Router("a", 1), Router("a", 2)), (), preempt=True)


# What exlb configures


@pytest.mark.parametrize("count", range(1, MOST_NODES + 1))
def test_priorities_of_every_allowed_number_of_nodes_are_distinct_and_lawful(count: int) -> None:
    values = priorities(count)
    assert len(values) == count
    assert len(set(values)) == count
    assert values[0] == max(values) == 120
    assert lawful(values, CHECK_WEIGHT)
    assert 1 <= min(values) + CHECK_WEIGHT <= max(values) <= 254


def test_priorities_of_the_first_nodes_do_not_depend_on_how_many_follow() -> None:
    assert priorities(50)[:5] == priorities(5) == (120, 110, 105, 100, 95)


@pytest.mark.parametrize("count", [MOST_NODES + 2, 200])
def test_more_nodes_than_there_are_lawful_priorities_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="too many for distinct priorities"):
        priorities(count)


# Timers


@pytest.mark.parametrize(
    ("version", "priority", "advert", "skew", "down"),
    [
        # RFC 3768: Skew_Time = (256 - Priority) / 256, Master_Down_Interval = 3 * Advertisement_Interval + Skew_Time.
        (2, 100, 1, 0.609375, 3.609375),
        (2, 254, 1, 0.0078125, 3.0078125),
        (2, 1, 1, 0.99609375, 3.99609375),
        (2, 128, 1, 0.5, 3.5),
        (2, 128, 3, 0.5, 9.5),
        # RFC 5798: Skew_Time = (256 - Priority) * Master_Adver_Interval / 256.
        (3, 128, 3, 1.5, 10.5),
        (3, 128, 0.2, 0.1, 0.7),
    ],
)
def test_timers_of_a_backup_are_those_of_the_rfc(
    version: int, priority: int, advert: float, skew: float, down: float
) -> None:
    assert skew_seconds(priority, advert, version) == pytest.approx(skew)
    assert master_down_seconds(priority, advert, version) == pytest.approx(down)


def test_election_ends_with_the_slowest_timer() -> None:
    assert election_seconds((120, 110, 109), 1) == pytest.approx(3 + 147 / 256)
    assert election_seconds((120, 110, 109), 0.2, version=3) == pytest.approx(0.2 * (3 + 147 / 256))
    assert election_seconds((), 1) == 0


def test_change_of_keepalived_counts_only_after_the_slowest_timer_and_a_second() -> None:
    assert settle_seconds((120, 110), 1) == pytest.approx(3 + 146 / 256 + 1)


# What clients notice

DOCUMENTS = Timing(2, 3, 5, 0, 1, 1, 5, math.inf)
SECONDS = Timing(2, 1, 1, 0, 2, 2, 5, 5)
FAST = Timing(3, 0.3, 1, 0, 2, 2, 5, 1)
SKEW = 146 / 256  # of the best backup, priority 110


def test_dead_proxy_costs_its_detection_and_with_a_weight_the_master_down_timer() -> None:
    assert outages(group((120, 110, 109), -60), SECONDS).proxy_dead == pytest.approx(2 + 3 + SKEW)
    assert outages(group((120, 110, 109), 0), SECONDS).proxy_dead == pytest.approx(2 + SKEW)
    assert outages(group((120, 110, 109), 0, -60), SECONDS).proxy_dead == pytest.approx(2 + 3 + SKEW)


def test_check_that_takes_its_time_adds_it_once() -> None:
    slow = replace(SECONDS, check_run_seconds=0.5)
    assert outages(group((120, 110, 109), -60), slow).proxy_dead == pytest.approx(2.5 + 3 + SKEW)


def test_dead_or_cut_off_node_costs_the_master_down_timer_of_the_best_other() -> None:
    costs = outages(group((120, 110, 109), -60), SECONDS)
    assert costs.node_dead == costs.partition == pytest.approx(3 + SKEW)
    assert outages(group((120, 110, 109), -60), FAST).node_dead == pytest.approx(0.3 * (3 + SKEW))


def test_positive_weights_of_healthy_routers_shorten_the_skew() -> None:
    assert outages(group((101, 100), 2), SECONDS).node_dead == pytest.approx(3 + (256 - 102) / 256)


def test_tied_backups_cost_the_delay_of_the_second_announcement() -> None:
    assert outages(group((120, 110, 110), -60), SECONDS).node_dead == pytest.approx(3 + SKEW + 5)
    # Two routers of which one is away are no tie.
    assert outages(group((110, 110), -60), SECONDS).node_dead == pytest.approx(3 + SKEW)


def test_stopped_keepalived_costs_the_skew_time_alone() -> None:
    assert outages(group((120, 110, 109), -60), SECONDS).keepalived_stopped == pytest.approx(SKEW)


def test_healed_partition_costs_until_the_next_refresh() -> None:
    assert outages(group((120, 110, 109), -60), SECONDS).partition_healed == 5
    assert outages(group((120, 110, 109), -60), DOCUMENTS).partition_healed == math.inf


def test_first_proxy_to_return_serves_after_its_check_rose_and_an_election() -> None:
    assert outages(group((120, 110, 109), 0), SECONDS).last_proxy_back == pytest.approx(2 + 3 + 147 / 256)


def test_what_does_not_end_by_itself_is_infinite() -> None:
    alone = outages(group((120,), -60), SECONDS)
    assert alone.node_dead == alone.proxy_dead == alone.keepalived_stopped == math.inf
    for each in (group((120, 90), -30), group((120, 110), -60, preempt=False), group((120, 110))):
        assert outages(each, SECONDS).proxy_dead == math.inf
        assert outages(each, SECONDS).node_dead < math.inf


def test_timing_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no VRRP version 4"):
        replace(SECONDS, version=4)
    with pytest.raises(ValueError, match="a check of 1 s does not end within its interval, 1 s"):
        replace(SECONDS, check_run_seconds=1)


SECONDS_OF_ANY_SIZE = st.floats(0.01, 60, allow_nan=False)
TIMINGS = st.builds(
    lambda version, advert, interval, part, fall, rise, delay, refresh: Timing(
        version, advert, interval, interval * part, fall, rise, delay, refresh
    ),
    st.sampled_from([2, 3]),
    SECONDS_OF_ANY_SIZE,
    SECONDS_OF_ANY_SIZE,
    st.floats(0, 0.9),
    st.integers(1, 10),
    st.integers(1, 10),
    SECONDS_OF_ANY_SIZE,
    SECONDS_OF_ANY_SIZE | st.just(math.inf),
)


@given(TIMINGS, st.sampled_from([each.name for each in fields(Timing) if each.name != "version"]), st.integers(1, 9))
def test_outages_do_not_shrink_when_anything_takes_longer(timing: Timing, name: str, more: int) -> None:
    longer = getattr(timing, name) + more
    assume(name != "check_run_seconds" or longer < timing.check_interval_seconds)
    for each in (group((120, 110, 109), -60), group((120, 110, 110), 0)):
        before, after = outages(each, timing), outages(each, replace(timing, **{name: longer}))
        assert all(getattr(after, event.name) >= getattr(before, event.name) for event in fields(before))


@given(st.lists(st.integers(100, 150), min_size=2, max_size=4, unique=True), st.integers(0, 3), st.integers(1, 50))
def test_outages_do_not_grow_when_a_priority_does(values: list[int], place: int, more: int) -> None:
    assume(place < len(values))
    higher = [value + more * (index == place) for index, value in enumerate(values)]
    assume(len(set(higher)) == len(higher))
    before, after = (outages(group(tuple(each), 0), SECONDS) for each in (values, higher))
    assert all(getattr(after, event.name) <= getattr(before, event.name) for event in fields(before))


# docs/vrrp.md says what the code says


CASES = (
    ((120, 110, 110), -30),
    ((120, 118, 61), -60),
    ((103, 102, 100), -2),
    ((101, 100), 2),
    ((101, 100, 99), 2),
    ((120, 110, 105), -60),
)


def verdict(values: tuple[int, ...], weight: int) -> str:
    found = stranded(group(values, weight))
    says = "right" if found is None else f"wrong: {found}; {found.remedy}"
    return f"| {weight} | {', '.join(map(str, values))} | {says} |"


@pytest.mark.parametrize(("values", "weight"), CASES, ids=str)
def test_document_says_of_each_weight_what_the_model_says(values: tuple[int, ...], weight: int) -> None:
    assert verdict(values, weight) in DOCUMENT.read_text().splitlines()


PACES = (
    ("documents: advert 3, check 5, fall 1, priorities 120/110/110, no refresh", DOCUMENTS, (120, 110, 110)),
    ("advert 3, check 5, fall 1", replace(DOCUMENTS, garp_refresh_seconds=5), (120, 110, 105)),
    ("advert 1, check 1, fall 2", SECONDS, (120, 110, 105)),
    ("fast: VRRPv3 advert 0.3, check 1, fall 2, refresh 1", FAST, (120, 110, 105)),
)


def pace(said: str, timing: Timing, values: tuple[int, ...]) -> str:
    weighted, fault = (outages(group(values, weight), timing) for weight in (CHECK_WEIGHT, 0))
    costs = (
        weighted.proxy_dead,
        fault.proxy_dead,
        weighted.node_dead,
        weighted.partition_healed,
        weighted.keepalived_stopped,
        weighted.last_proxy_back,
    )
    return f"| {said} | {' | '.join('unbounded' if cost == math.inf else f'{cost:.2f}' for cost in costs)} |"


@pytest.mark.parametrize(("said", "timing", "values"), PACES, ids=lambda each: str(each)[:25])
def test_document_says_of_each_pace_what_the_model_says(said: str, timing: Timing, values: tuple[int, ...]) -> None:
    assert pace(said, timing, values) in DOCUMENT.read_text().splitlines()
