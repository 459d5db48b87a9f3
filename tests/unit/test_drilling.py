"""The plan of a drill, and what samples and journals say of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab import drilling, vrrp
from exlb_fab.drilling import DrillRefusedError, Entry, Fault, Sample, Transition
from exlb_fab.host import Span
from tests.fake import VRRP, cluster

CLUSTER = cluster()
LB1, LB2, LB3 = CLUSTER.nodes
PERIOD = 0.05


def samples(begin: float, end: float, silent: tuple[float, float] = (0, 0), period: float = PERIOD) -> list[Sample]:
    """Return requests that are answered at once, but for those that begin in a silent span."""
    begins = [begin + period * place for place in range(round((end - begin) / period))]
    return [Sample(at, at + 0.01, not silent[0] <= at < silent[1]) for at in begins]


# The plan


@pytest.mark.parametrize("fault", drilling.FAULTS)
def test_fault_lasts_longer_than_its_worst_case_and_undoes_itself_only_later(fault: Fault) -> None:
    plan = drilling.plan(CLUSTER, fault, LB1, eventless=False)
    assert plan.hold_seconds > plan.worst_seconds
    if fault != "node":
        assert plan.limit_seconds >= plan.hold_seconds + drilling.SPARE_SECONDS


def test_worst_cases_are_those_of_the_model() -> None:
    found = vrrp.outages(CLUSTER.group, CLUSTER.vrrp.timing("script"))
    worst = {fault: drilling.plan(CLUSTER, fault, LB1, eventless=False).worst_seconds for fault in drilling.FAULTS}
    assert worst == {
        "proxy": found.proxy_dead,
        "keepalived": found.keepalived_stopped,
        "kill": found.node_dead,
        "partition": found.partition,
        "node": 6.0,  # the apiserver of the node is missed later than the node
    }
    elsewhere = replace(CLUSTER.apiserver_listener, backends=())
    alone = drilling.plan(replace(CLUSTER, listeners=(elsewhere,)), "node", LB1, eventless=False)
    assert alone.worst_seconds == found.node_dead
    undone = {fault: drilling.plan(CLUSTER, fault, LB1, eventless=False).undone_worst_seconds for fault in worst}
    assert undone == {**worst, "partition": found.partition_healed}


def test_proxy_without_events_is_missed_by_a_script() -> None:
    tracking = replace(CLUSTER, vrrp=replace(VRRP, track=("process",)))
    event = drilling.plan(tracking, "proxy", LB1, eventless=False).worst_seconds
    script = drilling.plan(tracking, "proxy", LB1, eventless=True).worst_seconds
    assert event == vrrp.outages(tracking.group, tracking.vrrp.timing("process")).proxy_dead
    assert script == vrrp.outages(tracking.group, tracking.vrrp.timing("script")).proxy_dead
    assert event < script


def test_first_of_several_checks_counts() -> None:
    both = replace(CLUSTER, vrrp=replace(VRRP, track=("script", "process")))
    alone = replace(CLUSTER, vrrp=replace(VRRP, track=("process",)))
    found = vrrp.outages(both.group, both.vrrp.timing("process")).proxy_dead
    assert drilling.plan(both, "proxy", LB1, eventless=False).worst_seconds == found
    assert found == vrrp.outages(alone.group, alone.vrrp.timing("process")).proxy_dead


def test_units_are_those_of_the_fault() -> None:
    units = {fault: drilling.plan(CLUSTER, fault, LB1, eventless=False).unit for fault in drilling.FAULTS}
    assert units == {
        "proxy": "haproxy",
        "keepalived": "keepalived",
        "kill": "keepalived",
        "partition": "-",
        "node": "-",
    }


def test_plan_says_what_is_done_what_it_costs_and_when_it_ends() -> None:
    said = str(drilling.plan(CLUSTER, "proxy", LB1, eventless=False))
    assert said == (
        "stops haproxy on lb1; clients are without the VIP for at most 5.6 s by the model; undoes it after 10 s"
    )
    assert "powers it on" in str(drilling.plan(CLUSTER, "node", LB1, eventless=False))


def test_cluster_that_would_not_fail_over_is_not_drilled_for_it() -> None:
    stuck = replace(CLUSTER, vrrp=replace(VRRP, preempt=False))
    assert math.isinf(vrrp.outages(stuck.group, stuck.vrrp.timing("script")).proxy_dead)
    with pytest.raises(DrillRefusedError, match="would not fail over"):
        drilling.plan(stuck, "proxy", LB1, eventless=False)
    drilling.plan(stuck, "keepalived", LB1, eventless=False)


def test_partition_whose_end_nobody_announces_is_refused() -> None:
    quiet = replace(CLUSTER, vrrp=replace(VRRP, garp=VRRP.garp._replace(refresh_seconds=0)))
    with pytest.raises(DrillRefusedError, match="afterwards") as refused:
        drilling.plan(quiet, "partition", LB1, eventless=False)
    assert refused.value.hint is not None
    assert "GARP_MASTER_REFRESH" in refused.value.hint


def test_single_node_has_nobody_to_take_over() -> None:
    alone = cluster(1)
    for fault in drilling.FAULTS:
        with pytest.raises(DrillRefusedError, match="no other node"):
            drilling.plan(alone, fault, alone.nodes[0], eventless=False)
    with pytest.raises(DrillRefusedError, match="no other node"):
        drilling.plannable(alone, alone.nodes[0], eventless=False, poweroff=True)


def test_all_leaves_out_what_would_do_harm_and_says_why() -> None:
    quiet = replace(CLUSTER, vrrp=replace(VRRP, garp=VRRP.garp._replace(refresh_seconds=0)))
    plans, left = drilling.plannable(quiet, LB1, eventless=False, poweroff=False)
    assert [plan.fault for plan in plans] == ["proxy", "keepalived", "kill"]
    assert [each.partition(":")[0] for each in left] == ["partition", "node"]
    plans, left = drilling.plannable(CLUSTER, LB1, eventless=False, poweroff=True)
    assert [plan.fault for plan in plans] == list(drilling.FAULTS)
    assert left == []


# What the watchers saw


def test_outage_is_the_longest_time_between_two_answers() -> None:
    seen = drilling.watched(samples(0, 30, silent=(10, 15)), Span(10, 20))
    assert seen is not None
    assert seen.outage.begin == pytest.approx(9.96)
    assert seen.outage.end == pytest.approx(15.01)
    assert seen.outage_seconds == pytest.approx(5.05)
    assert seen.unanswered == 100
    assert seen.resolution_seconds == pytest.approx(PERIOD)


def test_outage_counts_to_the_first_answer_after_the_span() -> None:
    seen = drilling.watched(samples(0, 30, silent=(19, 25)), Span(10, 20))
    assert seen is not None
    assert seen.outage_seconds == pytest.approx(6.05)


def test_silence_that_a_span_begins_with_counts_from_then_on() -> None:
    seen = drilling.watched(samples(0, 30, silent=(15, 23)), Span(20, 30))
    assert seen is not None
    assert seen.outage_seconds == pytest.approx(3.01)


def test_silence_that_comes_with_the_end_of_a_span_is_of_the_next_one() -> None:
    seen = samples(0, 30, silent=(20, 23))
    fault, after = drilling.watched(seen, Span(10, 20)), drilling.watched(seen, Span(20, 30))
    assert fault is not None
    assert after is not None
    assert fault.outage_seconds == pytest.approx(PERIOD)
    assert after.outage_seconds == pytest.approx(3.05)


def test_request_that_hangs_over_the_end_of_a_span_tells_of_a_silence_in_it() -> None:
    hanging = [replace(each, end=each.begin + 1) for each in samples(18, 19, silent=(18, 19))]
    seen = drilling.watched([*samples(0, 18), *hanging, *samples(19, 30)], Span(10, 18.5))
    assert seen is not None
    assert seen.outage_seconds == pytest.approx(1.05)


def test_outage_without_an_end_counts_to_the_last_request() -> None:
    seen = drilling.watched(samples(0, 30, silent=(12, 99)), Span(10, 40))
    assert seen is not None
    assert seen.outage_seconds == pytest.approx(18, abs=0.1)


def test_outage_before_the_fault_is_none_of_it() -> None:
    seen = drilling.watched(samples(0, 30, silent=(2, 8)), Span(10, 20))
    assert seen is not None
    assert seen.outage_seconds == pytest.approx(PERIOD)
    assert seen.unanswered == 0


def test_watcher_that_asked_nothing_has_seen_nothing() -> None:
    assert drilling.watched(samples(0, 5), Span(10, 20)) is None
    assert drilling.watched([], Span(10, 20)) is None


def test_watcher_that_was_late_can_tell_no_shorter_outage() -> None:
    late = [*samples(0, 12), *samples(13, 30)]
    seen = drilling.watched(late, Span(10, 20))
    assert seen is not None
    assert seen.resolution_seconds == pytest.approx(1.05)
    assert seen.outage_seconds == pytest.approx(1.05)
    assert seen.within(0.0)
    assert not replace(seen, outage=Span(0, 2.3)).within(0.1)


def test_outage_may_look_longer_by_two_intervals_and_an_answer() -> None:
    """The VIP is gone right after an answer, or right before the next request, and back right after a request."""
    seen = drilling.watched(samples(0, 30, silent=(10, 15)), Span(10, 20))
    assert seen is not None
    assert seen.latency_seconds == pytest.approx(0.01)
    assert seen.within(5.05 - 2 * PERIOD - 0.01 + 0.001)
    assert not seen.within(5.05 - 2 * PERIOD - 0.01 - 0.001)


def test_answer_that_waited_for_the_vip_is_no_measure_of_an_answer() -> None:
    usual = samples(0, 30)
    waited = [replace(each, end=each.begin + 1) for each in usual[:20]]
    seen = drilling.watched([*waited, *usual[20:]], Span(10, 20))
    assert seen is not None
    assert seen.latency_seconds == pytest.approx(0.01)


def test_gap_is_the_longest_time_without_a_new_request_up_to_both_ends_of_a_span() -> None:
    assert drilling.gap_seconds(samples(0, 30), Span(10, 20)) == pytest.approx(PERIOD)
    assert drilling.gap_seconds([*samples(0, 12), *samples(13, 30)], Span(10, 20)) == pytest.approx(1.05)
    assert drilling.gap_seconds(samples(12, 30), Span(10, 20)) == pytest.approx(2)
    assert drilling.gap_seconds(samples(0, 17), Span(10, 20)) == pytest.approx(3.04)
    assert drilling.gap_seconds(samples(0, 5), Span(10, 20)) == 10
    assert drilling.gap_seconds([], Span(10, 20)) == 10


def test_request_that_hangs_at_the_end_of_a_span_leaves_no_gap() -> None:
    hanging = [replace(each, end=each.begin + 1, answered=False) for each in samples(18, 19.1)]
    assert drilling.gap_seconds([*samples(0, 18), *hanging], Span(10, 20)) == pytest.approx(PERIOD)


def test_request_that_hangs_into_a_span_makes_no_watcher_late() -> None:
    seen = drilling.watched([*samples(0, 30), Sample(9.0, 10.5, answered=False)], Span(10, 20))
    assert seen is not None
    assert seen.resolution_seconds == pytest.approx(PERIOD)


def test_answer_that_overtakes_another_is_counted_when_it_came() -> None:
    slow = Sample(10.0, 11.0, answered=False)
    seen = drilling.watched([*samples(0, 30), slow], Span(9, 20))
    assert seen is not None
    assert seen.outage_seconds == pytest.approx(PERIOD)
    assert seen.unanswered == 1


def test_silences_are_where_requests_failed_and_not_where_none_was_sent() -> None:
    found = drilling.silences([*samples(0, 5, silent=(1, 2)), *samples(8, 10, silent=(9, 99))])
    assert [(round(each.begin, 2), round(each.end, 2)) for each in found] == [(0.96, 2.01), (8.96, 9.96)]
    assert drilling.silences(samples(0, 5)) == ()
    assert drilling.silences([]) == ()


@given(st.floats(0.1, 8), st.floats(0, 8))
def test_no_outage_is_told_shorter_than_it_was(length: float, begin: float) -> None:
    begin += 10
    seen = drilling.watched(samples(0, 30, silent=(begin, begin + length)), Span(9, 29))
    assert seen is not None
    assert length - PERIOD - 0.001 <= seen.outage_seconds <= length + 2 * PERIOD


# Clocks


@given(st.floats(-1e6, 1e6), st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_offset_is_right_within_its_doubt(ahead: float, looks: list[tuple[float, float, float]]) -> None:
    """Each look began at a time, the clock was read a while later, and the answer came a while after that."""
    readings = [(at + there + ahead, Span(at, at + there + back)) for at, there, back in looks]
    found = drilling.offset(readings)
    assert abs(found.seconds - ahead) <= found.doubt_seconds + 1e-6
    assert found.doubt_seconds <= min((there + back) / 2 for _, there, back in looks) + 1e-6


def test_clock_that_was_set_meanwhile_is_told_by_the_narrowest_look() -> None:
    assert drilling.offset([(100.0, Span(0, 2)), (5.0, Span(5, 5.5))]) == drilling.Offset(-0.25, 0.25)


def test_clock_that_was_never_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="never read"):
        drilling.offset([])


# What keepalived logged

STOPPED_PROXY = [
    Entry("lb1", 11.0, "Script `check-haproxy` now returning 1"),
    Entry("lb1", 12.0, "VRRP_Script(check-haproxy) failed (exited with status 1)"),
    Entry("lb1", 12.0, "(VI-kube-master) Changing effective priority from 120 to 60"),
    Entry("lb2", 15.6, "(VI-kube-master) Entering MASTER STATE"),
    Entry("lb1", 15.7, "(VI-kube-master) Entering BACKUP STATE"),
    Entry("lb1", 25.0, "(VI-kube-master) Entering MASTER STATE"),
    Entry("lb2", 25.1, "(VI-kube-master) Entering BACKUP STATE"),
]


def test_failover_and_the_way_back_are_two_moves() -> None:
    changes = drilling.transitions(STOPPED_PROXY)
    assert drilling.moves(changes, "lb1") == 2
    assert drilling.taken_over(changes, Span(10, 20), "lb1") == Transition("lb2", 15.6, "MASTER")
    noticed = drilling.noticed(STOPPED_PROXY)
    assert noticed is not None
    assert (noticed.node, noticed.time) == ("lb1", 11.0)


def test_master_that_takes_over_beside_the_holder_is_one_move() -> None:
    changes = [Transition("lb2", 5, "MASTER"), Transition("lb2", 15, "BACKUP")]
    assert drilling.moves(changes, "lb1") == 1


def test_race_of_two_backups_is_two_moves() -> None:
    changes = [Transition("lb2", 5, "MASTER"), Transition("lb3", 5, "MASTER"), Transition("lb2", 6, "BACKUP")]
    assert drilling.moves(changes, "lb1") == 2


def test_backup_that_is_first_and_gives_way_has_not_taken_over() -> None:
    changes = [
        Transition("lb3", 3.0, "MASTER"),
        Transition("lb3", 3.1, "BACKUP"),
        Transition("lb2", 3.2, "MASTER"),
        Transition("lb1", 9.0, "MASTER"),
        Transition("lb3", 30.0, "MASTER"),
    ]
    assert drilling.taken_over(changes, Span(0, 20), "lb1") == Transition("lb2", 3.2, "MASTER")


@pytest.mark.parametrize(
    "text",
    [
        "Stopping",
        "Stopping keepalived.service - Keepalive Daemon (LVS and VRRP)...",
        "Stopped Keepalived v2.3.3 (03/30,2025)",
        "keepalived.service: Main process exited, code=killed, status=9/KILL",
    ],
)
def test_keepalived_that_ends_is_no_holder_any_more(text: str) -> None:
    changes = drilling.transitions([Entry("lb1", 1.0, text), Entry("lb1", 2.0, "(VI) Entering MASTER STATE")])
    assert [each.state for each in changes] == ["STOPPED", "MASTER"]
    assert drilling.moves(changes, "lb1") == 1


def test_old_words_of_keepalived_are_known() -> None:
    (found,) = drilling.transitions([Entry("lb1", 1.0, "VRRP_Instance(VI_1) Transition to MASTER STATE")])
    assert found.state == "MASTER"


def test_what_says_nothing_of_a_fault_is_no_detection() -> None:
    entries = [
        Entry("lb1", 11.0, "VRRP_Script(check-haproxy) succeeded"),
        Entry("lb1", 11.0, "(VI) Entering BACKUP STATE"),
    ]
    assert drilling.noticed(entries) is None
    assert drilling.taken_over((), Span(0, 1), "lb1") is None


@pytest.mark.parametrize(
    "text",
    [
        "(VI_1) Backup received priority 0 advertisement",
        "(VI_1) Receive advertisement timeout",
        "(VI_1) sent 0 priority",
        "(VI_1) Entering FAULT STATE",
        "(VI_1) Entering MASTER STATE",
        "VRRP_Script(check-haproxy) timed out",
    ],
)
def test_words_by_which_a_fault_is_noticed(text: str) -> None:
    assert drilling.noticed([Entry("lb2", 1.0, text)]) is not None
