"""What an apiserver's certificate says, read from PEM as openssl prints it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from exlb_fab.certificates import Certificate, parse
from tests.certificates import certificate


def found(*names: str) -> Certificate:
    made = parse(certificate(*names))
    assert made is not None
    return made


def test_names_and_addresses_are_told_apart() -> None:
    made = found("api.example.org", "198.51.100.100", "2001:db8::1")
    assert made.names == {"api.example.org"}
    assert made.addresses == {ip_address("198.51.100.100"), ip_address("2001:db8::1")}


def test_common_name_alone_names_nobody() -> None:
    made = parse(certificate(days=3))
    assert made is not None
    assert not made.covers("198.51.100.100")
    assert (made.begin, made.end) == (0, 3 * 86_400)


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("198.51.100.100", True),
        ("198.51.100.10", False),
        ("2001:db8:0::1", True),
        ("API.example.org", True),
        ("a.k8s.example.org", True),
        ("b.a.k8s.example.org", False),
        ("k8s.example.org", False),
        ("other.example.org", False),
    ],
)
def test_host_is_covered_as_clients_see_it(host: str, covered: bool) -> None:
    made = found("api.example.org", "*.k8s.example.org", "198.51.100.100", "2001:db8::1")
    assert made.covers(host) is covered


@pytest.mark.parametrize(
    "text", ["", "connect:errno=111", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate_is_none(text: str) -> None:
    assert parse(text) is None
