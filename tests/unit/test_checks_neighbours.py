"""What verify says of the MACs behind the VIP and of the bastion's request, and every answer that each check gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exlb_fab.checks import Verdict
from exlb_fab.facts import Reply
from exlb_fab.host import Neighbour
from tests.fake import mac
from tests.unit.test_checks import (
    EMPTY,
    LB1,
    LB2,
    LB3,
    OK,
    OTHER,
    REFUSED,
    THREE,
    VIP,
    holding_both,
    replies,
    verdict,
    view,
)

FOREIGN = "02:00:00:00:00:99"


def answered(*macs: str, **more: Any) -> Verdict:
    """Return the verdict on lb2, which sends to the holder, when MACs have answered its question."""
    return verdict("vip.mac", LB2, view(arp_answers={VIP: frozenset(macs)}, **more))


def knows(*found: tuple[str | None, str], **more: Any) -> Verdict:
    """Return the verdict on lb2 that knows neighbours, each by MAC and state."""
    return verdict("vip.mac", LB2, view(neighbours={VIP: tuple(Neighbour("eth0", *each) for each in found)}, **more))


def test_the_holder_is_its_own_neighbour_and_that_of_the_others() -> None:
    assert [verdict("vip.mac", node, view()).text for node in (LB1, LB2)] == ["its own", "lb1's"]


def test_mac_behind_every_vip_is_judged_and_the_wrong_one_is_named() -> None:
    of = replace(THREE, extra_vips=(OTHER,))
    known = {VIP: (Neighbour("eth0", mac(LB1), "REACHABLE"),), str(OTHER): (Neighbour("eth0", FOREIGN, "REACHABLE"),)}
    seen = holding_both(view(of=of, neighbours=known))
    assert (verdict("vip.mac", LB3, seen).status, verdict("vip.mac", LB3, seen).text) == ("pass", "lb1's")
    found = verdict("vip.mac", LB2, seen)
    assert (found.status, found.cause) == ("fail", "another host has the same address")
    assert found.text == f"{OTHER}: lb2 sends to {FOREIGN}, which is no node's, and lb1 holds {OTHER}"


@pytest.mark.parametrize("state", ["REACHABLE", "DELAY", "PROBE"])
def test_node_that_sends_to_another_one_than_the_holder_is_red(state: str) -> None:
    found = knows((mac(LB3), state))
    assert (found.status, found.text) == ("fail", f"lb2 sends to {mac(LB3)}, which is lb3's, and lb1 holds {VIP}")
    assert found.hint == f"exlb exec --sudo --nodes lb2 -- ip neigh flush to {VIP}"


STATIC = "a static entry, which no announcement (gratuitous ARP) changes"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        (mac(LB1), f"lb2 sends to {mac(LB1)}, which is lb1's, and still will once another node holds {VIP}"),
        (mac(LB3), f"lb2 sends to {mac(LB3)}, which is lb3's, and lb1 holds {VIP}"),
        (FOREIGN, f"lb2 sends to {FOREIGN}, which is no node's, and lb1 holds {VIP}"),
    ],
)
def test_static_entry_is_red_wherever_it_leads(to: str, said: str) -> None:
    found = knows((to, "PERMANENT"), arp_answers={VIP: frozenset({mac(LB1)})})
    assert (found.status, found.text, found.cause) == ("fail", said, STATIC)
    assert found.hint == f"exlb exec --sudo --nodes lb2 -- ip neigh del {VIP} dev eth0"


def test_static_entry_of_a_stranger_is_red_where_a_node_could_not_be_asked() -> None:
    assert (knows((FOREIGN, "PERMANENT"), away=[LB3]).status, knows((FOREIGN, "PERMANENT")).cause) == ("fail", STATIC)


def test_static_entry_of_the_holder_is_red_before_it_is_used() -> None:
    found = knows((mac(LB1), "PERMANENT"), holders=[LB2])
    said = f"lb2 holds {VIP}, and will send to {mac(LB1)}, which is lb1's, once another node does"
    assert (found.status, found.text, found.cause) == ("fail", said, STATIC)


def test_another_host_with_the_vip_is_red() -> None:
    found = knows((FOREIGN, "REACHABLE"))
    assert (found.status, found.cause) == ("fail", "another host has the same address")
    assert f"lb2 sends to {FOREIGN}, which is no node's" in found.text


def test_mac_of_a_node_that_could_not_be_asked_or_of_a_stranger_is_a_warning() -> None:
    found = knows((mac(LB3), "REACHABLE"), away=[LB3])
    assert (found.status, found.cause) == ("warn", "it may be lb3, which could not be asked, or another host")
    assert f"lb2 sends to {mac(LB3)}, which is no node's" in found.text


@pytest.mark.parametrize("found", [(), ((None, "FAILED"),), ((None, "INCOMPLETE"),), ((FOREIGN, "STALE"),)])
def test_node_that_knows_no_mac_in_use_is_no_finding(found: tuple[tuple[str | None, str], ...]) -> None:
    assert knows(*found).status == "skip"


def test_another_host_that_answers_after_the_holder_is_red() -> None:
    assert (answered(mac(LB1)).status, answered(mac(LB1)).text) == ("pass", "lb1's")
    found = answered(mac(LB1), FOREIGN)
    assert found.status == "fail"
    assert found.text == f"{FOREIGN}, which is no node's, answers lb2 for {VIP} as well as lb1, which holds it"
    assert str(found.cause).startswith("another host has the same address")
    assert FOREIGN in str(found.hint)


def test_node_that_answers_for_the_vip_of_another_is_red() -> None:
    found = answered(mac(LB1), mac(LB3))
    assert (found.status, found.cause) == ("fail", "lb3 answers for addresses that it does not have (proxy ARP)")
    assert found.hint == "exlb exec --nodes lb3 -- sysctl -a -r proxy_arp"


def test_answer_of_a_node_that_could_not_be_asked_or_of_a_stranger_is_a_warning() -> None:
    found = answered(mac(LB1), mac(LB3), away=[LB3])
    assert (found.status, found.cause) == ("warn", "it may be lb3, which could not be asked, or another host")


def test_arp_answers_count_where_the_kernel_knows_nothing() -> None:
    assert knows(arp_answers={VIP: frozenset({mac(LB1)})}).status == "pass"
    assert knows(arp_answers={VIP: frozenset({mac(LB1), FOREIGN})}).status == "fail"


def test_any_interface_of_the_holder_may_answer() -> None:
    seen = view(neighbours={VIP: (Neighbour("eth0", FOREIGN, "REACHABLE"),)})
    facts = dict(seen.survey.facts)
    facts[LB1] = replace(facts[LB1], macs={"eth0": mac(LB1), "eth1": FOREIGN})
    assert verdict("vip.mac", LB2, replace(seen, survey=replace(seen.survey, facts=facts))).status == "pass"


@pytest.mark.parametrize("holders", [[], [LB1, LB3]])
def test_without_one_holder_no_mac_is_right_or_wrong(holders: list[Any]) -> None:
    assert knows((FOREIGN, "REACHABLE"), holders=holders).status == "skip"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (OK, "pass"),
        (Reply(401, "", accepted=True), "pass"),
        (Reply(500, "", accepted=True), "fail"),
        (REFUSED, "fail"),
        (EMPTY, "fail"),
        (None, "skip"),
    ],
)
def test_request_of_the_bastion_counts_where_it_reaches_the_vip(reply: Reply | None, status: str) -> None:
    found = verdict("vip.bastion", None, replace(view(), bastion=reply))
    assert found.status == status
    if reply is None:
        assert found.text == f"the bastion does not reach {VIP}"


@pytest.mark.parametrize(("own", "status"), [(OK, "fail"), (EMPTY, "fail"), (REFUSED, "skip"), (None, "skip")])
def test_bastion_that_reaches_the_holder_and_not_the_vip_is_red(own: Reply | None, status: str) -> None:
    found = verdict("vip.bastion", None, replace(view(), bastion=None, past_vip=own))
    assert found.status == status
    if status == "fail":
        assert found.text == f"the bastion reaches lb1, and not {VIP}"
        assert f"ip neigh flush to {VIP} nud all" in str(found.hint)


def test_bastion_alone_that_something_else_answers_points_at_what_is_between() -> None:
    found = verdict("vip.bastion", None, replace(view(), bastion=Reply(404, "", accepted=True, body="<html>")))
    assert "answers with status 404" in found.text
    assert found.cause == f"it says '<html>', and every node is served: it is between the bastion and {VIP}"


def test_bastion_alone_that_is_not_served_points_at_what_is_between() -> None:
    found = verdict("vip.bastion", None, replace(view(), bastion=REFUSED))
    assert found.cause == f"{REFUSED.error}, and every node is served: it is between the bastion and {VIP}"
    assert "firewall" in str(found.hint)
    assert f"ip neigh flush to {VIP} nud all" in str(found.hint)


def test_another_host_that_answers_the_bastion_as_well_is_red() -> None:
    found = verdict("vip.bastion", None, replace(view(), heard=frozenset({mac(LB1), FOREIGN})))
    assert found.status == "fail"
    assert found.text == f"{FOREIGN}, which is no node's, answers the bastion for {VIP} as well as lb1, which holds it"
    assert FOREIGN in str(found.hint)
    away = verdict("vip.bastion", None, replace(view(away=[LB3]), heard=frozenset({mac(LB1), mac(LB3)})))
    assert (away.status, away.cause) == ("warn", "it may be lb3, which could not be asked, or another host")


@pytest.mark.parametrize(
    "heard",
    [
        (),
        (mac(LB1),),
        (mac(LB1), mac(LB2)),  # which has taken it over since it was asked
        (FOREIGN,),  # a router in between, which answers for all that is behind it
    ],
)
def test_what_the_bastion_hears_without_another_host_is_no_finding(heard: tuple[str, ...]) -> None:
    assert verdict("vip.bastion", None, replace(view(), heard=frozenset(heard))).status == "pass"


def test_bastion_that_is_not_served_says_that_first() -> None:
    found = verdict("vip.bastion", None, replace(view(), bastion=REFUSED, heard=frozenset({mac(LB1), FOREIGN})))
    assert "not served" in found.text


def test_bastion_that_is_not_served_like_a_node_leads_to_the_holder() -> None:
    found = verdict("vip.bastion", None, replace(view(replies=replies(REFUSED, OK)), bastion=REFUSED))
    assert (found.cause, found.hint) == (REFUSED.error, "exlb restart haproxy --nodes lb1")
