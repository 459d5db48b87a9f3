"""What a node's system says of space, neighbours and keepalived's checks, and garbage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab.host import (
    Neighbour,
    Space,
    Tracker,
    parse_arp_answers,
    parse_down,
    parse_macs,
    parse_neighbours,
    parse_spaces,
    parse_trackers,
)

MAC = "02:00:00:00:00:0b"


def test_space_is_counted_in_bytes() -> None:
    text = "/etc yes 4096 1000 10 500 50 /\n/run no 4096 20 2 0 0 /mnt/a b\n"
    assert parse_spaces(text) == (
        Space("/etc", "/", True, 40_960, 4_096_000, 50, 500),
        Space("/run", "/mnt/a b", False, 8_192, 81_920, 0, 0),
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("198.51.100.100 dev eth0 lladdr 02:00:00:00:00:0B REACHABLE", Neighbour("eth0", MAC, "REACHABLE")),
        ("dev eth0 lladdr 02:00:00:00:00:0b router STALE", Neighbour("eth0", MAC, "STALE")),
        ("2001:db8::100 dev eth0 FAILED", Neighbour("eth0", None, "FAILED")),
        ("198.51.100.100 dev eth0 INCOMPLETE ", Neighbour("eth0", None, "INCOMPLETE")),
    ],
)
def test_neighbour_is_known_by_its_mac_or_not_at_all(line: str, found: Neighbour) -> None:
    assert parse_neighbours(f"{line}\n") == (found,)


def test_who_answers_is_known_by_the_mac_in_one_case() -> None:
    assert parse_arp_answers("02:00:00:00:00:0B\n02:00:00:00:00:0c\n") == {MAC, "02:00:00:00:00:0c"}
    assert parse_arp_answers("") == frozenset()


def test_nobody_asked_is_no_neighbour() -> None:
    assert parse_neighbours("") == ()


def test_macs_are_those_of_ethernet_interfaces() -> None:
    text = (
        "1: lo: <LOOPBACK,UP> mtu 65536 state UNKNOWN \\    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n"
        "2: host0@if7: <BROADCAST,UP> mtu 1500 state UP \\    link/ether 02:00:00:00:00:0b brd ff:ff:ff:ff:ff:ff\n"
        "3: bond0.7: <BROADCAST,UP> mtu 1500 \\    link/ether 02:00:00:00:00:0c brd ff:ff:ff:ff:ff:ff\n"
    )
    assert parse_macs(text) == {"host0": "02:00:00:00:00:0b", "bond0.7": "02:00:00:00:00:0c"}


@pytest.mark.parametrize(
    ("flags", "down"),
    [
        ("BROADCAST,MULTICAST,UP,LOWER_UP", False),
        ("NO-CARRIER,BROADCAST,MULTICAST,UP", True),
        ("BROADCAST,MULTICAST", True),
    ],
)
def test_interface_is_down_that_is_switched_off_or_has_nothing_plugged_in(flags: str, down: bool) -> None:
    text = f"1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536\n2: host0@if7: <{flags}> mtu 1500 state X \\    link/ether {MAC}\n"
    assert parse_down(text) == ({"host0"} if down else set())


def test_checks_are_told_with_their_state() -> None:
    text = "there /usr/bin/killall\nmissing /etc/keepalived/my check.sh\nprocess haproxy\n"
    assert parse_trackers(text) == (
        Tracker("/usr/bin/killall", "there"),
        Tracker("/etc/keepalived/my check.sh", "missing"),
        Tracker("haproxy", "process"),
    )


@pytest.mark.parametrize(
    ("parse", "line"),
    [
        (parse_spaces, "/etc yes 4096 1000 10"),
        (parse_spaces, "/etc yes 4096 1000 many 500 50 /"),
        (parse_neighbours, "Error: what"),
        (parse_arp_answers, "02:00:00:00:00"),
        (parse_macs, "Cannot open netlink socket"),
        (parse_trackers, "perhaps /usr/bin/killall"),
        (parse_trackers, "there"),
    ],
)
def test_line_that_is_not_understood_is_named(parse: Callable[[str], object], line: str) -> None:
    with pytest.raises(ValueError, match=line.split(" ")[0]):
        parse(f"{line}\n")


PIECES = (
    "dev ",
    "lladdr ",
    "REACHABLE",
    "2: eth0: ",
    "link/ether 02:00",
    "there ",
    "process ",
    "/etc yes 1 2 3 4 5 /",
    "\n",
)
GARBAGE = st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join)


@given(GARBAGE)
def test_any_text_is_understood_or_refused_as_not_understood(text: str) -> None:
    for parser in (parse_spaces, parse_arp_answers, parse_neighbours, parse_macs, parse_trackers):
        with contextlib.suppress(ValueError):
            parser(text)
