"""What verify says of the apiservers' certificates, and every answer that each check can give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exlb_fab.certificates import Certificate
from exlb_fab.checks import Verdict, View
from exlb_fab.cluster import Backend
from exlb_fab.facts import System
from exlb_fab.questions import shown_to
from tests.fake import CERTIFICATE, NOW, cluster
from tests.unit.test_checks import KUBE, LB2, OTHER, THREE, VIP, verdict, view

DAY = 86_400
SECOND = "198.51.100.12:6443"


def seen(kube_apiserver: str | None = None, **changes: Any) -> View:
    """Return a view in which one apiserver's certificate differs."""
    other: Certificate = replace(CERTIFICATE, **changes)
    return view(of=replace(THREE, kube_apiserver=kube_apiserver), certificates={SECOND: other})


def names(of: View) -> Verdict:
    return verdict("certificate.names", None, of)


def dates(**changes: Any) -> Verdict:
    return verdict("certificate.dates", None, seen(**changes))


def test_certificates_that_name_the_vip_are_a_pass() -> None:
    assert (names(view()).status, names(view()).text) == ("pass", "3 of 3 seen")


@pytest.mark.parametrize("name", ["certificate.names", "certificate.dates"])
def test_apiserver_that_is_up_and_whose_certificate_nobody_saw_is_a_warning(name: str) -> None:
    found = verdict(name, None, view(certificates={}))
    assert (found.status, found.text) == ("warn", f"the certificate was not seen of {SECOND} by lb2")
    assert found.hint == f"exlb ssh lb2 -- openssl s_client -connect {SECOND}"


def test_certificate_without_the_vip_is_a_warning_with_the_way_to_add_it() -> None:
    found = names(seen(addresses=frozenset()))
    assert (found.status, found.text) == ("warn", f"{SECOND} lacks {VIP}")
    assert "certSANs" in str(found.hint)
    assert "MASTER_CERT_HOSTS" in str(found.hint)


def test_host_of_kube_apiserver_has_to_be_named_as_well() -> None:
    found = names(seen("https://k8s.example.org:8443", names=frozenset({"k8s.example.org"})))
    assert found.text == "198.51.100.11:6443 lacks k8s.example.org; 198.51.100.13:6443 lacks k8s.example.org"
    assert names(seen(f"https://{VIP}:8443")).status == "pass"


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"end": NOW + 400 * DAY}, "pass", "for 365 days"),
        ({"end": NOW + 29 * DAY}, "warn", f"{SECOND} expires in 29 days"),
        ({"end": NOW + 1}, "warn", f"{SECOND} expires in 0 days"),
        ({"end": NOW - DAY - 1}, "fail", f"{SECOND} expired 1 day ago"),
        ({"begin": NOW + 3 * DAY}, "fail", f"{SECOND} is not valid before 3 days have passed"),
    ],
)
def test_dates_are_judged_by_the_clocks_of_the_nodes(changes: dict[str, float], status: str, text: str) -> None:
    found = dates(**changes)
    assert (found.status, found.text) == (status, text)


def test_certificate_that_is_not_valid_yet_makes_one_look_at_the_clocks() -> None:
    assert "date" in str(dates(begin=NOW + DAY).hint)
    assert "renew" in str(dates(end=NOW - DAY).hint)


@pytest.mark.parametrize("name", ["certificate.names", "certificate.dates"])
def test_certificates_that_nobody_was_shown_are_no_finding(name: str) -> None:
    assert verdict(name, None, view(everywhere={"certificates": {}})).status == "skip"


@pytest.mark.parametrize("time", [-100 * DAY, NOW + 4000 * DAY])
def test_one_wrong_clock_makes_no_certificate_invalid(time: float) -> None:
    wrong = System("Debian", "lb2", None, 0, ("debian",), ("apt-get",), time)
    assert verdict("certificate.dates", None, view(system=wrong)).status == "pass"


def test_every_vip_has_to_be_named() -> None:
    found = names(view(of=replace(THREE, extra_vips=(OTHER,))))
    assert found.status == "warn"
    assert f"{SECOND} lacks {OTHER}" in found.text


def test_dates_need_a_clock() -> None:
    assert verdict("certificate.dates", None, view(everywhere={"system": None})).status == "skip"


def test_each_apiserver_is_asked_by_one_node() -> None:
    backends = tuple(Backend(f"api{number}", f"198.51.100.{number}", 6443) for number in range(31, 36))
    of = replace(cluster(2), listeners=(replace(KUBE, backends=backends),))
    asked = [shown_to(of, node) for node in of.nodes]
    assert [len(each) for each in asked] == [3, 2]
    assert {endpoint for each in asked for endpoint in each} == {each.endpoint for each in backends}


def test_answer_of_a_node_that_could_not_be_asked_is_missing_and_said_so() -> None:
    assert names(view(away=[LB2])).text == "2 of 3 seen"
