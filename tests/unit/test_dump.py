"""What keepalived writes down of itself, as recorded in the lab of 2.1.5, 2.2.7 and 2.3.3."""

from __future__ import annotations

from dataclasses import asdict, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from exlb_fab.dump import RECEIVED, SENT, Instance, Script, parse

DUMPS = Path(__file__).parent / "dumps"
RECORDED = sorted(path.stem for path in DUMPS.iterdir())
ADDRESSES = {number: ip_address(f"198.51.100.{number}") for number in (11, 12, 13, 14, 100)}
MASTER = Instance(
    name="VI-kube-master",
    state="MASTER",
    since=1795272932.219257,
    version=2,
    router_id=68,
    interface="host0",
    source=ADDRESSES[11],
    priority=120,
    effective_priority=120,
    advert_seconds=1.0,
    preempts=True,
    authenticated=False,
    master=None,
    vips=frozenset({ADDRESSES[100]}),
    peers=frozenset({ADDRESSES[12], ADDRESSES[13], ADDRESSES[14]}),
    weights={"check-haproxy": -60},
    passing=frozenset({"check-haproxy"}),
    scripts={"check-haproxy": Script(("/usr/bin/killall", "-0", "haproxy"), 1, 2, 2, 2)},
)


def text(name: str) -> str:
    return (DUMPS / f"{name}.txt").read_text()


def instance(name: str) -> Instance:
    (found,) = parse(text(name))
    return found


def test_master_is_read_whole() -> None:
    found = instance("2.1.5-master")
    assert replace(found, counters={}) == MASTER
    assert {name: count for name, count in found.counters.items() if count} == {
        "Advertisements: Sent": 13,
        "Became master": 1,
    }
    assert found.counters["Authentication Errors: Failure"] == 0


@pytest.mark.parametrize(
    ("name", "priority", "number"), [("2.3.3-backup", 105, 13), ("2.2.7-backup", 100, 14)], ids=lambda each: str(each)
)
def test_backup_knows_whose_adverts_it_hears(name: str, priority: int, number: int) -> None:
    found = instance(name)
    assert (found.state, found.priority, found.source) == ("BACKUP", priority, ADDRESSES[number])
    assert found.master == ADDRESSES[11]
    assert found.counters[RECEIVED] > 0


def test_backup_that_has_heard_nobody_takes_no_group_for_its_master() -> None:
    dump = text("2.2.7-backup").replace("Master router = 198.51.100.11", "Master router = ff02::12")
    assert parse(dump)[0].master is None


def test_counters_tell_what_came_since_an_earlier_look() -> None:
    now = text("2.2.7-backup")
    (_, _, before) = now.partition("------< Statistics >------\n")
    (found,) = parse(now, before.replace("Received: 14", "Received: 9"))
    assert (found.counted(RECEIVED), found.counted(SENT)) == (5, 0)
    assert found.counted("Packet Errors: Colour") is None
    (restarted,) = parse(now, before.replace("Received: 14", "Received: 99"))
    assert restarted.counted(RECEIVED) is None
    assert instance("2.2.7-backup").counted(RECEIVED) is None


def test_failing_check_takes_its_weight_from_the_effective_priority() -> None:
    found = instance("2.2.7-failing")
    assert (found.state, found.priority, found.effective_priority) == ("BACKUP", 110, 50)
    assert found.failing == ("check-haproxy",)


def test_failing_check_without_a_weight_is_a_fault() -> None:
    found = instance("2.2.7-fault")
    assert (found.state, found.effective_priority, found.weights) == ("FAULT", 110, {"check-haproxy": 0})
    assert found.failing == ("check-haproxy",)


@pytest.mark.parametrize("name", ["2.2.7-fault", "2.1.5-multicast"])
def test_multicast_has_no_peers(name: str) -> None:
    found = instance(name)
    assert (found.peers, found.advert_seconds, found.authenticated) == (frozenset(), 3.0, True)


@pytest.mark.parametrize("name", ["2.3.3-fast", "2.1.5-fast"])
def test_version_3_tells_its_interval_in_milliseconds(name: str) -> None:
    found = instance(name)
    assert (found.version, found.advert_seconds, found.preempts) == (3, 0.3, False)


@pytest.mark.parametrize("name", RECORDED)
def test_every_release_tells_what_its_script_is_and_how_often_it_runs(name: str) -> None:
    slow = name in ("2.1.5-multicast", "2.2.7-fault")
    times = (5, 2, 1, 1) if slow else (1, 2, 2, 2)
    assert instance(name).scripts == {"check-haproxy": Script(("/usr/bin/killall", "-0", "haproxy"), *times)}


@pytest.mark.parametrize(
    ("old", "new", "field", "expected"),
    [
        ("Interval = 1 sec", "Interval = 3600 sec", "interval", 3600),
        ("Interval = 1 sec", "Interval = 300 milli-sec", "interval", None),
        ("   Rise = 2\n", "", "rise", None),
        ("'/usr/bin/killall' '-0' 'haproxy'", "'/bin/true'", "command", ("/bin/true",)),
        ("'/usr/bin/killall' '-0' 'haproxy'", "'/bin/sh' '-c' 'echo 'quoted''", "command", None),
    ],
)
def test_of_a_script_only_what_is_understood_is_told(old: str, new: str, field: str, expected: object) -> None:
    dump = text("2.2.7-backup")
    assert old in dump
    (found,) = parse(dump.replace(old, new))
    script, recorded = found.scripts["check-haproxy"], MASTER.scripts["check-haproxy"]
    assert asdict(script) == {**asdict(recorded), field: expected}


PROCESS = """\
------< VRRP Track processes >------
 VRRP Track process = check-haproxy
   Process = haproxy
   Min processes = 1
   Current processes = 0
   Have quorum = false
   Weight = -60
   Terminate delay = 0.000000s
   Full command = false
"""


def tracking(quorum: str) -> Instance:
    """Return the recorded instance, as it were one that tracks a process instead of its script.

    Source: keepalived vrrp/vrrp_data.c dump_vprocess, vrrp/vrrp_track.c dump_track_process.
    """
    dump = text("2.2.7-failing").replace("Tracked scripts :", "Tracked processes :")
    dump = dump.replace("check-haproxy weight -60", "check-haproxy, weight -60")
    head, _, rest = dump.partition("------< VRRP Scripts >------\n")
    (found,) = parse(head + PROCESS.replace("false", quorum, 1) + rest[rest.index("------< Interfaces >------") :])
    return found


def test_tracked_process_is_a_check_like_any() -> None:
    found = tracking("false")
    assert (found.weights, found.failing) == ({"check-haproxy": -60}, ("check-haproxy",))
    assert tracking("true").failing == ()
    assert found.scripts == {}


def test_nothing_was_said() -> None:
    assert parse("") == ()


@pytest.mark.parametrize("field", ["State", "Virtual Router ID", "Effective priority", "Last transition", "Preempt"])
def test_what_keepalived_does_not_tell_is_named(field: str) -> None:
    lines = [line for line in text("2.2.7-backup").splitlines() if not line.startswith(f"   {field} = ")]
    with pytest.raises(ValueError, match=f"VI-kube-master: keepalived does not tell its {field}"):
        parse("\n".join(lines))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("State = BACKUP", "State = DELETED"),
        ("Priority = 100", "Priority = high"),
        ("198.51.100.100 dev", "198.51.100.1000 dev"),
        ("weight -60", "weight heavy"),
    ],
)
def test_what_is_not_understood_is_an_error(old: str, new: str) -> None:
    dump = text("2.2.7-backup")
    assert old in dump
    with pytest.raises(ValueError, match="VI-kube-master: keepalived tells what exlb does not understand"):
        parse(dump.replace(old, new))


@pytest.mark.parametrize("name", RECORDED)
def test_every_recording_is_understood_and_holds_no_password(name: str) -> None:
    assert len(parse(text(name))) == 1
    assert "Password" not in text(name)


def test_two_instances_are_told_apart() -> None:
    other = (
        text("2.2.7-backup")
        .replace("VI-kube-master", "VI-other")
        .replace("Virtual Router ID = 68", "Virtual Router ID = 69")
    )
    found = parse(text("2.2.7-backup") + "\n" + other)
    assert [(each.name, each.router_id) for each in found] == [("VI-kube-master", 68), ("VI-other", 69)]
