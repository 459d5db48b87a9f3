"""Which package manager a node lives by, what it calls the packages, and what versions can do."""

from __future__ import annotations

import pytest

from exlb_fab.facts import missing_packages
from exlb_fab.platforms import PLATFORMS, PROGRAMS, Version, can_validate, parse_version, platform
from exlb_fab.proxies import PROXIES

PROXY = PROXIES["haproxy"]


@pytest.mark.parametrize(
    ("families", "managers", "expected"),
    [
        (["debian"], ["apt-get"], "apt-get"),
        (["ubuntu", "debian"], ["apt-get"], "apt-get"),
        (["rocky", "rhel", "centos", "fedora"], ["dnf", "yum"], "dnf"),
        (["centos", "rhel", "fedora"], ["yum"], "yum"),
        (["debian"], ["apt-get", "dnf"], "apt-get"),
        (["rhel", "fedora"], ["apt-get", "dnf"], "dnf"),
        (["debian"], ["dnf"], None),
        (["alpine"], ["apk"], None),
        ([], ["apt-get"], None),
        (["debian"], [], None),
    ],
)
def test_package_manager_follows_the_distribution_and_not_what_lies_around(
    families: list[str], managers: list[str], expected: str | None
) -> None:
    found = platform(families, managers)
    assert (found.manager if found else None) == expected


def test_every_platform_has_a_package_for_every_program_that_exlb_needs() -> None:
    for each in PLATFORMS:
        assert set(each.packages) == set(PROGRAMS)


@pytest.mark.parametrize(
    ("manager", "missing", "packages"),
    [
        (
            "apt-get",
            {"haproxy", *PROGRAMS},
            ["haproxy", "keepalived", "psmisc", "curl", "socat", "iproute2", "iputils-ping"],
        ),
        ("dnf", {"haproxy", *PROGRAMS}, ["haproxy", "keepalived", "psmisc", "curl", "socat", "iproute", "iputils"]),
        ("apt-get", {"ip", "ss"}, ["iproute2"]),
        ("dnf", {"killall"}, ["psmisc"]),
        ("apt-get", set(), []),
    ],
)
def test_missing_programs_become_packages_each_once(manager: str, missing: set[str], packages: list[str]) -> None:
    found = next(each for each in PLATFORMS if each.manager == manager)
    assert list(missing_packages(PROXY, found, {"haproxy", *PROGRAMS} - missing)) == packages


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Keepalived v2.2.7 (01/16,2022)", (2, 2, 7)),
        ("Keepalived v1.3.5 (03/19,2017), git commit v1.3.5-6-g6fa32f2", (1, 3, 5)),  # from memory, not seen
        ("HAProxy version 3.0.11-1+deb13u5 2026/11/18 - https://haproxy.org/", (3, 0, 11)),
        ("HA-Proxy version 2.2.9-2+deb11u7 2025/04/23 - https://haproxy.org/", (2, 2, 9)),
        ("HA-Proxy version 1.8.27-493ce0b 2020/11/06", (1, 8, 27)),  # from memory, not seen
        ("1:2.1.5-0.2+deb11u1", (2, 1, 5)),
    ],
)
def test_version_is_read_from_what_programs_print(text: str, numbers: tuple[int, ...]) -> None:
    found = parse_version(text)
    assert found is not None
    assert found.numbers == numbers
    assert str(found) == ".".join(map(str, numbers))


@pytest.mark.parametrize("text", ["", "sh: 1: haproxy: not found", "version 7", "2026/11/18"])
def test_text_without_a_dotted_number_has_no_version(text: str) -> None:
    assert parse_version(text) is None


def test_versions_are_compared_as_numbers() -> None:
    assert Version((2, 10), "2.10") > Version((2, 9, 1), "2.9.1")
    assert not Version((2, 2), "2.2") > Version((2, 10), "2.10")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((1, 3, 5), False), ((2, 0, 3), False), ((2, 0, 4), True), ((2, 0, 10), True), ((3, 0), True)],
)
def test_validation_came_with_keepalived_2_0_4(numbers: tuple[int, ...], expected: bool) -> None:
    assert can_validate(Version(numbers, "")) is expected
