"""What verify says of nodes that hold the VIP side by side, or of none: the cause, as far as it can be shown."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from exlb_fab.checks import Verdict, View
from exlb_fab.cluster import Node
from exlb_fab.dump import RECEIVED, SENT, UNWRITABLE
from exlb_fab.facts import Address, Survey
from exlb_fab.firewall import Chain, Firewall, Table
from exlb_fab.platforms import KEEPALIVED_UNIT
from tests.unit.test_checks import LB1, LB2, OTHER, RUNNING, STOPPED, THREE, VIP, holding_both, verdict, view
from tests.unit.test_checks_election import changed

HOLDS_BACK = Firewall((Table("inet", "f", {"out": Chain("output", "drop", ())}),))
ON_LOOPBACK = Address("lo", ip_interface(f"{VIP}/32"))
WIDER = Address("eth0", ip_interface(f"{VIP}/24"))
UNHEARD: dict[str, Any] = {"counters": {RECEIVED: 9, SENT: 9}, "earlier": {RECEIVED: 9, SENT: 9}}


def both(**lb2: Any) -> View:
    """Return a view in which lb1 and lb2 hold the VIP."""
    return view(holders=(LB1, LB2), **lb2)


def judged(seen: View) -> Verdict:
    found = verdict("vip.single-holder", None, seen)
    assert (found.status, found.text) == ("fail", f"split brain: lb1, lb2 all hold {VIP}")
    return found


def counted(seen: View, lb1: dict[str, int], lb2: dict[str, int]) -> View:
    """Return a view in which two nodes have counted something of late."""
    seen = changed(seen, LB1, counters=lb1, earlier=dict.fromkeys(lb1, 0))
    return changed(seen, LB2, counters=lb2, earlier=dict.fromkeys(lb2, 0))


def test_address_that_a_dead_keepalived_has_left_behind_is_the_cause() -> None:
    found = judged(both(units={"haproxy": RUNNING, KEEPALIVED_UNIT: STOPPED}, instances=()))
    assert found.cause == "keepalived on lb2 is not MASTER, and has left the address behind"
    assert found.hint == "exlb push-config"


def test_address_that_a_backup_still_has_is_the_cause() -> None:
    found = judged(changed(both(), LB2, state="BACKUP"))
    assert "lb2 is not MASTER" in str(found.cause)
    assert found.hint == "exlb restart keepalived --nodes lb2"


BY_HAND = "somebody else than keepalived has added"


def added_to_lb2(seen: View, *added: Address) -> View:
    """Return a view in which somebody has added addresses to lb2."""
    facts = seen.facts(LB2)
    found = {LB2: replace(facts, addresses=(*facts.addresses, *added))}
    return replace(seen, survey=replace(seen.survey, facts={**seen.survey.facts, **found}))


@pytest.mark.parametrize(
    ("added", "dev"), [(ON_LOOPBACK, "lo"), (Address("eth1", ON_LOOPBACK.address), "eth1"), (WIDER, "eth0")]
)
@pytest.mark.parametrize("units", [{}, {"units": {"haproxy": RUNNING, KEEPALIVED_UNIT: STOPPED}, "instances": ()}])
def test_address_that_keepalived_would_not_have_added_is_not_its_own(
    added: Address, dev: str, units: dict[str, Any]
) -> None:
    seen = added_to_lb2(view(**units), added)
    found = judged(seen)
    assert found.cause == f"{BY_HAND} {added.address} on {dev} of lb2: it stays when the VIP moves"
    assert found.hint == f"exlb exec --sudo --nodes lb2 -- ip addr del {added.address} dev {dev}"
    if not units:
        state = verdict("vrrp.state", LB2, seen)
        assert (state.status, state.cause, state.hint) == ("fail", found.cause, found.hint)


@pytest.mark.parametrize(("added", "dev"), [(ON_LOOPBACK, "lo"), (WIDER, "eth0")])
def test_vip_that_is_on_its_holder_twice_would_stay_there(added: Address, dev: str) -> None:
    assert verdict("vip.once", None, view(holders=(LB2,))).status == "pass"
    found = verdict("vip.once", None, added_to_lb2(view(holders=(LB2,)), added))
    assert (found.status, found.text) == ("fail", f"{VIP} is on lb2 twice: {VIP}/32 on eth0, {added}")
    assert found.cause == f"{BY_HAND} {added.address} on {dev} of lb2: it stays when the VIP moves"
    assert found.hint == f"exlb exec --sudo --nodes lb2 -- ip addr del {added.address} dev {dev}"


def test_which_of_two_is_keepalived_s_is_not_guessed() -> None:
    found = verdict("vip.once", None, added_to_lb2(view(), ON_LOOPBACK, WIDER))
    assert (found.status, found.cause) == ("fail", "keepalived removes only what it has added itself")
    assert "keepalived.conf" in str(found.hint)


def test_second_vip_that_somebody_has_added_is_not_restarted_away() -> None:
    seen = holding_both(view(of=replace(THREE, extra_vips=(OTHER,))))
    found = verdict("vip.extra", None, added_to_lb2(seen, Address("lo", ip_interface(f"{OTHER}/32"))))
    assert (found.status, found.text) == ("fail", f"{OTHER} is on lb1, lb2, {VIP} on lb1")
    assert found.hint == f"exlb exec --sudo --nodes lb2 -- ip addr del {OTHER}/32 dev lo"
    own = verdict("vip.extra", None, added_to_lb2(seen, Address("eth0", ip_interface(f"{OTHER}/32"))))
    assert str(own.hint).endswith("exlb restart keepalived --nodes lb2")


def test_address_of_a_master_with_another_file_is_its_own() -> None:
    seen = changed(added_to_lb2(view(), WIDER), LB2, state="MASTER")
    assert judged(seen).cause == "they do not hear each other's adverts"


def test_stale_address_beside_one_by_hand_is_keepalived_s() -> None:
    seen = added_to_lb2(changed(both(), LB2, state="BACKUP"), ON_LOOPBACK)
    assert "has left the address behind" in str(judged(seen).cause)
    assert BY_HAND in str(verdict("vip.once", None, seen).cause)


SILENT: dict[str, Any] = {"instances": (), "keepalived_silence": "keepalived does not write down its state"}


def test_keepalived_that_hangs_while_it_has_the_address_is_the_cause() -> None:
    found = judged(both(**SILENT))
    assert found.cause == "keepalived on lb2 runs, and does not tell how: it hangs"
    assert found.hint == "exlb restart keepalived --nodes lb2"


def test_keepalived_that_has_nowhere_to_write_is_no_cause() -> None:
    (said, *_) = UNWRITABLE
    assert judged(both(instances=(), keepalived_silence=said)).cause == "they do not hear each other's adverts"


def test_keepalived_that_tells_nothing_anywhere_is_no_cause() -> None:
    seen = view(holders=(LB1, LB2), everywhere=SILENT)
    assert judged(seen).cause == "they do not hear each other's adverts"


def test_other_interface_than_that_of_the_vip_is_the_cause() -> None:
    found = judged(changed(both(), LB2, interface="eth9"))
    assert (found.cause, found.hint) == ("lb2 runs on eth9 instead of eth0", "exlb push-config")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"router_id": 69}, "VRID: 68 on lb1, 69 on lb2"),
        ({"authenticated": True}, "password: no on lb1, yes on lb2"),
        ({"version": 3}, "VRRP version: 2 on lb1, 3 on lb2"),
        ({"peers": frozenset({THREE.nodes[2].source})}, "lb2 does not have lb1 among its peers"),
    ],
)
def test_what_differs_between_them_is_the_cause(changes: dict[str, Any], cause: str) -> None:
    found = judged(changed(both(), LB2, **changes))
    assert (found.cause, found.hint) == (cause, "exlb push-config")


@pytest.mark.parametrize(
    ("counter", "why"),
    [
        ("Authentication Errors: Failure", "the passwords differ"),
        ("Packet Errors: Advertisement Interval", "the advert intervals differ"),
        ("Packet Errors: Address List", "the VIPs differ"),
    ],
)
def test_adverts_that_are_dropped_tell_the_cause(counter: str, why: str) -> None:
    found = judged(counted(both(), {RECEIVED: 4}, {RECEIVED: 4, counter: 4}))
    assert found.cause == f"lb2 drops adverts of the others: {why}"


def test_old_errors_are_no_cause() -> None:
    old = {"Authentication Errors: Failure": 7}
    assert judged(changed(both(), LB2, counters=old, earlier=old)).cause == "they do not hear each other's adverts"


def test_one_way_that_is_cut_is_told() -> None:
    found = judged(counted(both(), {RECEIVED: 5}, {RECEIVED: 0}))
    assert found.cause == "adverts reach lb1, and do not reach lb2: one way is cut"
    assert "between lb1 and lb2" in str(found.hint)


def test_both_ways_cut_and_no_counters_tell_no_more_than_they_know() -> None:
    assert judged(counted(both(), {RECEIVED: 0}, {RECEIVED: 0})).cause == "they do not hear each other's adverts"
    assert judged(counted(both(), {}, {})).cause == "they do not hear each other's adverts"


def test_no_holder_because_all_are_in_fault_says_so() -> None:
    seen = changed(view(holders=()), *THREE.nodes, state="FAULT", passing=frozenset())
    found = verdict("vip.single-holder", None, seen)
    assert (found.text, found.cause) == (f"no node holds {VIP}", "keepalived is in FAULT on lb1, lb2, lb3")


# A backup that hears nobody does not show it by its state, until its timer has ended.


def adverts(seen: View, node: Node = LB2) -> Verdict:
    return verdict("vrrp.adverts", node, seen)


def test_adverts_that_are_sent_and_heard_pass() -> None:
    assert [adverts(view(), node).text for node in THREE.nodes] == ["sends", "hears", "hears"]


def test_backup_that_hears_nothing_is_red_before_it_takes_the_vip() -> None:
    found = adverts(changed(view(), LB2, **UNHEARD))
    assert (found.status, found.text, found.cause) == ("fail", "hears no adverts, and will take the VIP", None)
    assert "between lb1 and lb2 and lb3" in str(found.hint)


def test_adverts_that_a_backup_drops_say_why() -> None:
    drops = "Authentication Errors: Failure"
    counts = {"counters": {RECEIVED: 9, drops: 4}, "earlier": {RECEIVED: 9, drops: 2}}
    assert adverts(changed(view(), LB2, **counts)).cause == "lb2 drops adverts of the others: the passwords differ"


def test_filter_of_the_master_that_holds_its_adverts_back_is_the_cause() -> None:
    seen = changed(view(), LB2, **UNHEARD)
    closed = {node: replace(found, firewall=HOLDS_BACK) for node, found in seen.survey.facts.items() if node == LB1}
    found = adverts(replace(seen, survey=Survey({**seen.survey.facts, **closed}, {})))
    assert found.cause == "nftables on lb1 does not let VRRP (protocol 112) out"
    assert found.hint == "on lb1: nft insert rule inet f out meta l4proto 112 accept"
    assert adverts(replace(seen, survey=Survey({**closed, **seen.survey.facts}, {}))).cause is None


def test_filters_of_the_holders_are_the_cause_of_a_split() -> None:
    found = judged(view(holders=(LB1, LB2), everywhere={"firewall": HOLDS_BACK}))
    assert found.cause == "nftables on lb1 and lb2 does not let VRRP (protocol 112) out"
    assert str(found.hint).startswith("on lb1: nft insert rule")


def test_nobody_who_sends_is_the_cause() -> None:
    seen = changed(changed(view(), LB1, state="FAULT"), LB2, **UNHEARD)
    assert adverts(seen).cause == "no node that was asked is MASTER"
    assert adverts(seen, LB1).status == "skip"


def test_master_that_sends_nothing_is_red() -> None:
    assert adverts(changed(view(), LB1, **UNHEARD), LB1).text == "is MASTER, and sends no adverts"


def test_master_whose_adverts_are_put_off_by_those_that_it_drops_says_so() -> None:
    drops = "Authentication Errors: Failure"
    found = adverts(changed(view(), LB1, counters={SENT: 9, drops: 2}, earlier={SENT: 9, drops: 0}), LB1)
    assert found.cause == "lb1 drops adverts of the others: the passwords differ, and each of them puts its own off"
    assert found.hint == "exlb push-config"


def test_what_was_not_listened_to_for_long_enough_is_not_judged() -> None:
    assert adverts(changed(view(), LB2, earlier={})).status == "skip"
    assert adverts(changed(view(), LB2, **UNHEARD, advert_seconds=5.0)).status == "skip"
