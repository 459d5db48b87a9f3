"""One value at a time: what a text means, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from exlb_fab import values
from exlb_fab.values import Extra, Wrong
from tests.unit.environments import Value, doubts, fault

TIME = "write a time, as in 500ms, 5s or 10m; a plain number is milliseconds"
SMALL = "write a whole number from 1 to 255"
MACHINE = "write the address of one machine on the network"
WEIGHT = "write a whole number from -253 to 253, as in -60"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\nx/Y+=\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIBszCCAVmgAwIBAgIU\n-----END PRIVATE KEY-----\n"
EXTRA = (
    'write EXTRA_LISTENERS=("NAME PORT BACKEND:PORT,BACKEND:PORT [CHECK]" ...), CHECK being tcp, none, ssl-hello, '
    "http:/PATH or https:/PATH"
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("0", 0), ("1500", 1500), ("1ms", 1), ("2s", 2000), ("10m", 600_000), ("1h", 3_600_000), ("24d", 2_073_600_000)],
)
def test_a_time_has_a_unit_or_is_milliseconds(text: str, milliseconds: int) -> None:
    assert values.milliseconds(text) == milliseconds


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.1", 0.1), ("40.95", 40.95), ("1.5", 1.5), ("255", 255)])
def test_seconds_have_up_to_two_decimals(text: str, seconds: float) -> None:
    assert values.seconds(text) == seconds


@pytest.mark.parametrize(("text", "weight"), [("-60", -60), ("60", 60), ("-253", -253), ("253", 253), ("1", 1)])
def test_a_weight_may_be_negative(text: str, weight: int) -> None:
    assert values.weight(text) == weight


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry 5000 10.0.0.31:5000", Extra("registry", 5000, (("10.0.0.31", 5000),), "tcp", "")),
        ("a 1 x.org:2,y.org:3 check", Extra("a", 1, (("x.org", 2), ("y.org", 3)), "tcp", "")),
        ("a 1 x.org:2 tcp", Extra("a", 1, (("x.org", 2),), "tcp", "")),
        ("a 1 x.org:2 none", Extra("a", 1, (("x.org", 2),), "none", "")),
        ("a 1 x.org:2 ssl-hello", Extra("a", 1, (("x.org", 2),), "ssl-hello", "")),
        ("a 1 x.org:2 http:/", Extra("a", 1, (("x.org", 2),), "http", "/")),
        (" a  1 x.org:2  https:/v2/?a=b ", Extra("a", 1, (("x.org", 2),), "https", "/v2/?a=b")),
        ("a 1 [2001:DB8::0:1]:2", Extra("a", 1, (("2001:db8::1", 2),), "tcp", "")),
        ("a 1 x.org:2,x.org:3", Extra("a", 1, (("x.org", 2), ("x.org", 3)), "tcp", "")),
    ],
)
def test_an_extra_listener_is_a_name_a_port_backends_and_how_they_are_checked(text: str, expected: Extra) -> None:
    assert values.extra(text) == expected


@pytest.mark.parametrize(
    ("text", "tracks"),
    [("script", ("script",)), ("port,apiserver", ("port", "apiserver")), ("process,port", ("process", "port"))],
)
def test_several_checks_have_commas_between_them(text: str, tracks: tuple[str, ...]) -> None:
    assert values.tracks(text) == tracks


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "127.0.0.1", "127.0.0.53", "::1", "10.0.0.1", "2001:db8::1"])
def test_a_program_may_listen_on_all_addresses_on_the_loopback_or_on_its_own(text: str) -> None:
    assert str(values.bind_address(text)) == text


@pytest.mark.parametrize(
    ("text", "vip"),
    [
        ("2001:db8::10", "2001:db8::10"),
        ("2001:DB8:0::10/64", "2001:db8::10/64"),
        ("2001:db8::/127", "2001:db8::/127"),
        ("2001:db8::10/128", "2001:db8::10/128"),
        ("fd00::10/64", "fd00::10/64"),
    ],
)
def test_an_ipv6_vip_is_read_in_any_spelling(text: str, vip: str) -> None:
    assert values.vip(text).interface == vip


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # Times
        *(
            ("BACKEND_SLOWSTART", text, f"{text} is not a time; {TIME}")
            for text in ("5sec", "1.5s", "-1", "+5s", "5S", "s", "05s", "5us")
        ),
        ("BACKEND_SLOWSTART", "5 s", f"'5 s' is not a time; {TIME}"),
        ("TIMEOUT_CLIENT", "25d", "25d is more than 24 days; write a shorter time"),
        ("TIMEOUT_CLIENT", "999999999d", "999999999d is more than 24 days; write a shorter time"),
        ("TIMEOUT_SERVER", "0", "0 would mean to wait for ever; write a time, as in 5s or 10m"),
        ("HARD_STOP_AFTER", "0s", "0s would mean to wait for ever; write a time, as in 5s or 10m"),
        ("TIMEOUT_QUEUE", "", f"is empty; {TIME}, or leave the line out"),
        ("TIMEOUT_CHECK", ["5s"], "is an array; write TIMEOUT_CHECK=5s"),
        # Seconds and weights
        ("ADVERT_INT", "0.05", "0.05 is not between 0.1 and 255; write seconds: "),
        ("ADVERT_INT", "256", "256 is not between 0.1 and 255; write seconds: "),
        ("ADVERT_INT", "0", "0 is not between 0.1 and 255; write seconds: "),
        ("ADVERT_INT", "0.333", "0.333 is not a number of seconds with up to two decimals; write seconds: "),
        ("ADVERT_INT", "1s", "1s is not a number of seconds with up to two decimals; write seconds: "),
        ("ADVERT_INT", ".5", ".5 is not a number of seconds with up to two decimals; write seconds: "),
        ("CHECK_WEIGHT", "0", "0 would take no part in any election; write -60, or FAILOVER=fault for a check without"),
        (
            "CHECK_WEIGHT",
            "-0",
            "0 would take no part in any election; write -60, or FAILOVER=fault for a check without",
        ),
        ("CHECK_WEIGHT", "-254", f"-254 is not between -253 and 253; {WEIGHT}"),
        ("CHECK_WEIGHT", "254", f"254 is not between -253 and 253; {WEIGHT}"),
        ("CHECK_WEIGHT", "+60", f"+60 is not a whole number in plain digits; {WEIGHT}"),
        ("CHECK_WEIGHT", "--60", f"--60 is not a whole number in plain digits; {WEIGHT}"),
        ("PRIORITIES", ["120", "110", "255"], "255 is not between 1 and 254; write PRIORITIES=(NUMBER ...)"),
        ("PROCESS_DELAY", "256", "256 is not between 0 and 255; write a whole number from 0 to 255"),
        ("BACKEND_FALL", "0", f"0 is not between 1 and 255; {SMALL}"),
        ("MAXCONN", "10000001", "10000001 is not between 1 and 10000000; write a whole number from 1 to 10000000"),
        ("GARP_MASTER_REPEAT", "0", f"0 is not between 1 and 255; {SMALL}"),
        # Choices
        ("LISTENER_LAYOUT", "backend", "backend is not a layout of listeners; write listen or frontend"),
        ("BIND", "0.0.0.0", "0.0.0.0 is not a choice of addresses; write all, vip or node"),
        ("LOG", "file", "file is not a place to log to; write journal or syslog"),
        ("INGRESS_PROXY_PROTOCOL", "yes", "yes is not a version of the PROXY protocol; write no, v1 or v2"),
        ("VRRP_MODE", "broadcast", "broadcast is not a mode of VRRP; write unicast or multicast"),
        ("VRRP_VERSION", "1", "1 is not between 2 and 3; write 2 or 3"),
        ("FAILOVER", "weight", "weight is not a way to fail over; write weighted or fault"),
        ("TIMING", "slow", "slow is not a set of timings; write default, documents or fast"),
        ("FIREWALL", "yes", "yes is not a choice; write check, manage or ignore"),
        ("STATS_ADMIN", "true", "true is not yes or no; write yes or no"),
        ("PREEMPT", "false", "false is not yes or no; write yes or no"),
        ("TRACK", "killall", "killall is not a check that keepalived makes; write process, script, apiserver or port"),
        ("TRACK", "port,", "'' is not a check that keepalived makes; write process, script, apiserver or port"),
        (
            "TRACK",
            "port, script",
            "'port, script' has a blank; write several with commas alone between them, as in process,port",
        ),
        ("TRACK", "port,port", "port,port has a check twice; write process, script, apiserver or port"),
        (
            "TRACK",
            "process,script",
            "process,script checks the process twice, by events and by a script; write one of the two",
        ),
        # Passwords
        (
            "AUTH_PASS",
            "k8s-lb@lab",
            "has 10 signs, and VRRP takes 8; write 1 to 8 letters, digits and . _ @ + -: VRRP cuts what is longer",
        ),
        (
            "AUTH_PASS",
            "a b",
            "has a sign that keepalived.conf could take for something else; write 1 to 8 letters, digits and . _ @ + -",
        ),
        ("AUTH_PASS", "", "is empty; write 1 to 8 letters, digits and . _ @ + -, or generate, or leave the line out"),
        # Addresses
        ("STATS_BIND", "localhost", "localhost is not an IP address; write 0.0.0.0 or :: for all addresses of a node"),
        ("STATS_BIND", "224.0.0.1", f"224.0.0.1 is a multicast address; {MACHINE}"),
        ("STATS_BIND", "::1%;", "'::1%;' is not an IP address; write "),
        (
            "NODE_IPS",
            ["fe80::1"],
            f"fe80::1 is a link-local address, which says nothing without an interface; {MACHINE}",
        ),
        ("NODE_IPS", ["fe80::1%eth0"], "fe80::1%eth0 is not an IP address; write four numbers from 0 to 255"),
        ("NODE_IPS", ["2001:db8::1%a b;"], "'2001:db8::1%a b;' is not an IP address; write four numbers from 0 to 255"),
        ("NODE_IPS", ["[2001:db8::1]"], "[2001:db8::1] is in brackets; write 2001:db8::1"),
        ("NODE_IPS", ["::1"], f"::1 is a loopback address; {MACHINE}"),
        ("NODE_IPS", ["::"], f":: is the unspecified address; {MACHINE}"),
        ("NODE_IPS", ["ff02::12"], f"ff02::12 is a multicast address; {MACHINE}"),
        (
            "MASTER_VIP",
            "2001:db8::10/129",
            "its prefix 129 is not between 1 and 128; write 2001:db8::10/64, with a prefix from 1 to 128",
        ),
        (
            "EXTRA_VIPS",
            ["10.0.1.0/24"],
            "10.0.1.0 is the network address of 10.0.1.0/24; write an address inside that network",
        ),
        ("EXTRA_VIPS", ["10.0.0.20", "10.0.0.20/24"], "has 10.0.0.20 2 times; write each only once"),
        ("APISERVER_IPS", ["[2001:db8::7]"], "[2001:db8::7] is in brackets; write 2001:db8::7"),
        ("APISERVER_IPS", ["2001:db8::7%x"], "2001:db8::7%x has a colon, and a port has a variable of its own; write "),
        ("NODE_NAMES", ["a", "b", "::1%;"], "'::1%;' is not a host name; write NODE_NAMES=(NAME ...), "),
        # Listeners
        ("EXTRA_LISTENERS", ["registry 5000"], f"'registry 5000' has 2 words; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 x.org:2 tcp tcp"], f"'a 1 x.org:2 tcp tcp' has 5 words; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a;b 1 x.org:2"], f"'a;b': 'a;b' is not a name that the proxy accepts; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 70000 x.org:2"], f"a: 70000 is not between 1 and 65535; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 x.org"], f"a: x.org is not BACKEND:PORT; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 2001:db8::1"], f"a: 2001:db8::1 is not BACKEND:PORT; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 x.org:0"], f"a: 0 is not between 1 and 65535; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 x.org:2,"], f"a: '' is not BACKEND:PORT; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 X.org:2,x.org:2"], f"a: X.org:2,x.org:2 has a backend twice; {EXTRA}"),
        *(
            ("EXTRA_LISTENERS", [f"a 1 x.org:2 {check}"], f"a: {check} is not a check; {EXTRA}")
            for check in ("http", "http://v2", "https:", "http:v2", "tcp:", "none:/", "readyz", "ftp:/")
        ),
        ("EXTRA_LISTENERS", ["a 1 x.org:2", "a 2 x.org:3"], "has a 2 times; write each only once"),
        ("EXTRA_LISTENERS", "a 1 x.org:2", f"is not an array; {EXTRA}"),
        ("EXTRA_LISTENERS", ["a 1 [2001:db8::1]"], f"a: [2001:db8::1] is not BACKEND:PORT; {EXTRA}"),
        ("EXTRA_LISTENERS", [], f"is empty; {EXTRA}, or leave the line out"),
    ],
)
def test_a_fault_of_a_value_says_what_would_be_right(name: str, value: Value, expected: str) -> None:
    assert fault(**{name: value}).startswith(f"{name}: {expected}")


@pytest.mark.parametrize("text", ["a" * 9, "a{b", "a#b", "a b", "é", '"', "!", "a\n"])
def test_a_wrong_password_of_vrrp_is_not_told(text: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.auth_pass(text)
    assert text not in f"{caught.value}{caught.value.right}"


@pytest.mark.parametrize("values", [{"NODE_IPS": ["::ffff:10.0.0.1"]}, {"STATS_BIND": "::ffff:127.0.0.1"}])
def test_an_ipv4_address_in_the_form_of_an_ipv6_one_is_refused(values: dict[str, Value]) -> None:
    assert f"is an IPv4 address in disguise; {MACHINE}" in fault(**values)


# A file with certificates


def test_only_the_certificates_of_a_file_are_taken_whatever_stands_around_them(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_text(f"Subject: CN = one\n{CERTIFICATE}# two\n{CERTIFICATE}end", newline="\r\n")
    assert values.ca(str(path)) == 2 * CERTIFICATE


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no certificate in it; write the path of a PEM file"),
        (b"-----BEGIN CERTIFICATE-----\nx\n", "has no certificate in it; write the path of a PEM file"),
        (
            b"-----BEGIN CERTIFICATE-----\na b\n-----END CERTIFICATE-----\n",
            "has no certificate in it; write the path of",
        ),
        (b"\xff\xfe", "has other signs than ASCII; write the path of a PEM file"),
        (f"{CERTIFICATE}{KEY}".encode(), "has a private key in it; write the path of a file with certificates only"),
        (KEY.encode(), "has no certificate in it; write the path of a PEM file"),
        (None, "No such file or directory; write the path of a PEM file"),
    ],
)
def test_a_file_without_certificates_or_with_a_key_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("ca.crt").write_bytes(content)
    found = fault(APISERVER_CA="ca.crt")
    assert found.removeprefix("APISERVER_CA: ca.crt").lstrip(": ").startswith(expected)
    assert "MII" not in found


def test_a_directory_has_no_certificates(tmp_path: Path) -> None:
    with pytest.raises(Wrong, match="Is a directory"):
        values.ca(str(tmp_path))


@pytest.mark.parametrize("check", ["ssl-hello", "tcp"])
def test_authorities_that_no_check_asks_for_are_a_doubt(tmp_path: Path, check: str) -> None:
    path = tmp_path / "ca.crt"
    path.write_text(CERTIFICATE)
    assert doubts(APISERVER_CA=str(path), HEALTH_CHECK=check) == [
        f"APISERVER_CA: has no effect with HEALTH_CHECK={check}; write HEALTH_CHECK=readyz"
    ]
    assert doubts(APISERVER_CA=str(path), HEALTH_CHECK="healthz") == []
