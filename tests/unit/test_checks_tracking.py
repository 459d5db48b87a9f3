"""What verify says of keepalived's checks and complaints, and every answer that each check can give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exlb_fab.checks import Verdict
from exlb_fab.facts import System
from exlb_fab.host import Tracker
from tests.fake import NOW
from tests.unit.test_checks import LB1, LB2, RUNNING, STOPPED, THREE, verdict, view

KILLALL = "/usr/bin/killall"
SCRIPT = "/etc/keepalived/exlb-check-port-0123.sh"


def tracker(*trackers: Tracker, **more: Any) -> Verdict:
    return verdict("vrrp.tracker", LB2, view(trackers=trackers, **more))


def inside(container: str | None) -> System:
    return System("Debian", "lb2", container, 0, ("debian",), ("apt-get",), NOW)


def test_checks_that_can_be_made_are_named() -> None:
    found = tracker(Tracker(KILLALL, "there"), Tracker(SCRIPT, "there"))
    assert (found.status, found.text) == ("pass", "killall, exlb-check-port-0123.sh")


@pytest.mark.parametrize(
    ("found", "text", "hint"),
    [
        (Tracker(KILLALL, "missing"), f"{KILLALL} is not there", "exlb install"),
        (Tracker(SCRIPT, "missing"), f"{SCRIPT} is not there", "exlb push-config"),
        (Tracker(SCRIPT, "not-executable"), f"{SCRIPT} is not executable", "exlb push-config"),
        (Tracker(SCRIPT, "no-interpreter"), f"{SCRIPT} is written for a program that is not there", "exlb push-config"),
    ],
)
def test_check_that_cannot_be_made_is_red(found: Tracker, text: str, hint: str) -> None:
    seen = tracker(Tracker("/bin/true", "there"), found)
    assert (seen.status, seen.text, seen.hint) == ("fail", text, hint)
    assert "for one that passes" in str(seen.cause)


def test_file_without_any_check_is_red() -> None:
    found = tracker(instances=())
    assert (found.status, found.text) == ("fail", "/etc/keepalived/keepalived.conf has no check")


def test_checks_that_run_from_another_file_are_no_finding() -> None:
    assert tracker().status == "skip"


def test_process_that_is_tracked_in_a_container_is_red() -> None:
    process = Tracker("haproxy", "process")
    found = tracker(process, system=inside("systemd-nspawn"))
    assert (found.status, found.text) == ("fail", "would not notice that haproxy dies")
    assert "systemd-nspawn" in str(found.cause)
    assert tracker(process, system=inside(None)).status == "pass"


def test_process_that_the_kernel_does_not_tell_of_is_red() -> None:
    found = tracker(Tracker("haproxy", "deaf"), system=inside(None))
    assert (found.status, found.text) == ("fail", "would not notice that haproxy dies")
    assert "CONFIG_PROC_EVENTS" in str(found.cause)
    assert "TRACK=script" in str(found.hint)
    assert "systemd-nspawn" in str(tracker(Tracker("haproxy", "deaf"), system=inside("systemd-nspawn")).cause)


OTHER = ("4711 haproxy -f /root/other.cfg",)


def test_other_process_with_the_name_of_the_proxy_hides_its_death_from_who_asks_for_names() -> None:
    found = tracker(Tracker(KILLALL, "there"), strays=OTHER)
    assert (found.status, found.cause) == ("fail", "not of haproxy: 4711 haproxy -f /root/other.cfg")
    assert tracker(Tracker("haproxy", "process"), strays=OTHER).status == "fail"
    assert tracker(Tracker(KILLALL, "there"), Tracker(SCRIPT, "there"), strays=OTHER).status == "pass"


def test_dropped_adverts_are_a_warning_in_keepalived_s_own_words() -> None:
    found = verdict("vrrp.complaints", LB2, view(complaints=("bogus VRRP packet received on eth0 !!!",)))
    assert (found.status, found.cause) == ("warn", "bogus VRRP packet received on eth0 !!!")
    assert found.hint == "another cluster with VRID 68? exlb logs keepalived --nodes lb2"
    assert verdict("vrrp.complaints", LB2, view()).status == "pass"


LOWER = "(VI) Received advert from 198.51.100.{} with lower priority 50, ours 120, forcing new election"
DISCARDED = "(VI) received lower priority (50) advert from 198.51.100.{} - discarding"


@pytest.mark.parametrize("line", [LOWER, DISCARDED])
def test_stranger_of_a_lower_priority_is_a_warning_and_peers_are_none(line: str) -> None:
    found = verdict("vrrp.complaints", LB2, view(complaints=(line.format(11), line.format(66))))
    assert found.status == "warn"
    assert found.text.startswith("198.51.100.66 has sent adverts with VRID 68")
    assert str(found.cause).startswith(line.format(66))
    assert "exlb decommission 198.51.100.66;" in str(found.hint)
    assert verdict("vrrp.complaints", LB2, view(complaints=(line.format(11), line.format(13)))).status == "pass"


def test_dropped_adverts_are_told_before_those_of_peers() -> None:
    found = verdict("vrrp.complaints", LB2, view(complaints=("bogus VRRP packet received", LOWER.format(11))))
    assert (found.text, found.cause) == ("dropped adverts in the last minutes", "bogus VRRP packet received")


def test_sender_that_may_be_a_node_that_could_not_be_asked_is_no_stranger() -> None:
    line = LOWER.format(66).replace("198.51.100.66", "fe80::66")
    by_group = replace(THREE, vrrp=replace(THREE.vrrp, mode="multicast"))
    assert verdict("vrrp.complaints", LB2, view(of=by_group, complaints=(line,))).status == "warn"
    assert verdict("vrrp.complaints", LB2, view(of=by_group, away=[LB1], complaints=(line,))).status == "pass"
    assert verdict("vrrp.complaints", LB2, view(away=[LB1], complaints=(LOWER.format(66),))).status == "warn"


@pytest.mark.parametrize("name", ["vrrp.tracker", "vrrp.complaints"])
def test_keepalived_that_does_not_run_is_one_finding(name: str) -> None:
    units = {"haproxy": RUNNING, "keepalived": STOPPED}
    assert verdict(name, LB2, view(units=units, trackers=())).status == "skip"
