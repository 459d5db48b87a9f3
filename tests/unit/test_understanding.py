"""What is understood of an environment file, and how every fault of it is told."""

import dataclasses
import itertools
import pickle
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab.cluster import (
    MASK,
    Backend,
    Cluster,
    Garp,
    HealthCheck,
    Listener,
    Node,
    ProxySettings,
    Secret,
    SshSettings,
    Stats,
    Timeouts,
    Vip,
    Vrrp,
)
from exlb_fab.environment import Environment, Location
from exlb_fab.errors import EXIT_ENVIRONMENT
from exlb_fab.understanding import InvalidEnvironment, load, understand
from exlb_fab.variables import KNOWN, UNRELATED, VARIABLES
from tests.fake import PROXYING, STATS, VRRP
from tests.unit.environments import FILE, REQUIRED, Value, cluster, fault, faults, sets

# What is understood


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n"
CHECK = HealthCheck("https", "/readyz", interval_ms=2000, fall=2, rise=2, slowstart_ms=0)


def test_three_required_lines_make_a_whole_cluster() -> None:
    found = cluster()
    assert found.nodes == tuple(
        Node(str(address), address, "eth0", place, priority, address)
        for place, (address, priority) in enumerate(
            [
                (IPv4Address("10.0.0.1"), 120),
                (IPv4Address("10.0.0.2"), 110),
                (IPv4Address("10.0.0.3"), 105),
            ]
        )
    )
    assert (found.vip, found.extra_vips) == (Vip(IPv4Address("10.0.0.10"), None), ())
    backends = tuple(Backend(f"10.0.0.{n}", f"10.0.0.{n}", 6443) for n in (1, 2, 3))
    assert found.listeners == (Listener("kube-master", 8443, backends, CHECK, "source", "no", "https"),)
    assert found.apiserver_listener == found.listeners[0]
    # What tests/fake.py builds its clusters of is what a file of three lines says.
    assert (found.proxying, found.stats, found.vrrp) == (PROXYING, STATS, VRRP)
    assert found.ssh == SshSettings("root", 22, None, None, None, "auto")
    assert (found.proxy, found.firewall, found.kube_apiserver, found.warnings) == ("haproxy", "check", None, ())


def test_every_variable_reaches_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    ca = tmp_path / "ca.crt"
    ca.write_text(f"Subject: ours\n{CERTIFICATE}")
    values: dict[str, Value] = {
        "NODE_IPS": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        "VIP_IF": "auto",
        "MASTER_VIP": "10.0.0.10/24",
        "NODE_NAMES": ["a", "B-2", "c.example.org"],
        "NODE_VIP_IFS": ["bond0", "auto", "eth1"],
        "EXTRA_VIPS": ["10.0.0.20/24", "2001:db8::20"],
        "APISERVER_IPS": ["10.0.0.7", "api.example.org"],
        "APISERVER_NAMES": ["seven", "api_1"],
        "APISERVER_SRC_PORT": "443",
        "APISERVER_DEST_PORT": "6443",
        "KUBE_APISERVER": "https://10.0.0.10:6443",
        "HEALTH_CHECK": "livez",
        "APISERVER_CA": str(ca),
        "BACKEND_INTER": "1500ms",
        "BACKEND_FALL": "3",
        "BACKEND_RISE": "4",
        "BACKEND_SLOWSTART": "1m",
        "BALANCE": "leastconn",
        "LISTENER_LAYOUT": "frontend",
        "BIND": "node",
        "TIMEOUT_CONNECT": "4s",
        "TIMEOUT_CLIENT": "11m",
        "TIMEOUT_SERVER": "12m",
        "TIMEOUT_CHECK": "3s",
        "TIMEOUT_QUEUE": "20s",
        "MAXCONN": "4000",
        "LOG": "syslog",
        "HARD_STOP_AFTER": "24h",
        "SERVER_STATE": "yes",
        "INGRESS_NODE_IPS": ["10.0.0.21", "ingress.example.org"],
        "INGRESS_HTTP_NODEPORT": "23456",
        "INGRESS_HTTPS_NODEPORT": "23457",
        "INGRESS_HTTP_PORT": "8080",
        "INGRESS_HTTPS_PORT": "8444",
        "INGRESS_PROXY_PROTOCOL": "v2",
        "EXTRA_LISTENERS": ["registry 5000 10.0.0.31:5000,[2001:db8::32]:5001 https:/v2/"],
        "STATS_BIND": "127.0.0.1",
        "STATS_PORT": "9000",
        "STATS_USER": "ann@ops",
        "STATS_PASSWORD": "s'p\"a c$e;",
        "STATS_ADMIN": "yes",
        "EXPORTER": "yes",
        "ROUTER_ID": "255",
        "VRRP_MODE": "unicast",
        "VRRP_IPS": ["10.1.0.1", "10.1.0.2", "10.1.0.3"],
        "VRRP_VERSION": "2",
        "AUTH_PASS": "k8s-lb@a",
        "PRIORITIES": ["200", "190", "180"],
        "PREEMPT": "yes",
        "FAILOVER": "weighted",
        "TRACK": "apiserver,port",
        "TIMING": "documents",
        "ADVERT_INT": "4",
        "CHECK_INTERVAL": "6",
        "CHECK_TIMEOUT": "3",
        "CHECK_FALL": "4",
        "CHECK_RISE": "5",
        "CHECK_WEIGHT": "-100",
        "PROCESS_DELAY": "0",
        "GARP_MASTER_DELAY": "1",
        "GARP_MASTER_REPEAT": "2",
        "GARP_MASTER_REFRESH": "3",
        "GARP_MASTER_REFRESH_REPEAT": "4",
        "FIREWALL": "manage",
        "SSH_USER": "ann",
        "SSH_PORT": "2222",
        "SSH_KEY": "~/.ssh/my key",
        "SSH_GATEWAY": "ann@bastion.example.org:22",
        "SSH_KNOWN_HOSTS": "/etc/known_hosts",
        "SUDO": "no",
    }
    assert tuple(values) == KNOWN, "a variable that this test does not follow to its place"
    found = cluster(**values)
    assert found.nodes == (
        Node("a", IPv4Address("10.0.0.1"), "bond0", 0, 200, IPv4Address("10.1.0.1")),
        Node("B-2", IPv4Address("10.0.0.2"), None, 1, 190, IPv4Address("10.1.0.2")),
        Node("c.example.org", IPv4Address("10.0.0.3"), "eth1", 2, 180, IPv4Address("10.1.0.3")),
    )
    assert found.vip == Vip(IPv4Address("10.0.0.10"), 24)
    assert found.extra_vips == (Vip(IPv4Address("10.0.0.20"), 24), Vip(IPv6Address("2001:db8::20"), None))
    assert found.kube_apiserver == "https://10.0.0.10:6443"
    times = HealthCheck("tcp", "", interval_ms=1500, fall=3, rise=4, slowstart_ms=60_000)
    apiservers = (Backend("seven", "10.0.0.7", 443), Backend("api_1", "api.example.org", 443))
    ingress = [
        tuple(Backend(host, host, port) for host in ("10.0.0.21", "ingress.example.org")) for port in (23456, 23457)
    ]
    registry = (
        Backend("10.0.0.31:5000", "10.0.0.31", 5000),
        Backend("2001:db8::32:5001", "2001:db8::32", 5001),
    )
    assert found.listeners == (
        Listener(
            "kube-master",
            6443,
            apiservers,
            dataclasses.replace(times, method="https", path="/livez", ca=CERTIFICATE),
            "leastconn",
            scheme="https",
        ),
        Listener("ingress-node", 8080, ingress[0], times, "leastconn", "v2", "http"),
        Listener("ingress-node-tls", 8444, ingress[1], times, "leastconn", "v2", "https"),
        Listener(
            "registry",
            5000,
            registry,
            dataclasses.replace(times, method="https", path="/v2/"),
            "leastconn",
            scheme="https",
        ),
    )
    assert found.proxying == ProxySettings(
        "frontend",
        "node",
        Timeouts(connect_ms=4000, client_ms=660_000, server_ms=720_000, check_ms=3000, queue_ms=20_000),
        maxconn=4000,
        log="syslog",
        hard_stop_after_ms=86_400_000,
        keeps_drains=True,
    )
    assert found.stats == Stats(
        IPv4Address("127.0.0.1"), 9000, "ann@ops", Secret("s'p\"a c$e;"), admin=True, exporter=True
    )
    assert found.vrrp == Vrrp(
        router_id=255,
        version=2,
        mode="unicast",
        auth_pass=Secret("k8s-lb@a"),
        advert_seconds=4,
        track=("apiserver", "port"),
        check_interval_seconds=6,
        check_timeout_seconds=3,
        check_fall=4,
        check_rise=5,
        check_weight=-100,
        process_delay_seconds=0,
        failover="weighted",
        preempt=True,
        garp=Garp(1, 2, 3, 4),
    )
    assert found.firewall == "manage"
    assert found.ssh == SshSettings(
        "ann", 2222, Path("/home/ann/.ssh/my key"), "ann@bastion.example.org:22", Path("/etc/known_hosts"), "no"
    )


CHOICES = {
    "HEALTH_CHECK": ["readyz", "healthz", "livez", "ssl-hello", "tcp"],
    "BALANCE": ["source", "roundrobin", "leastconn", "static-rr", "first"],
    "LISTENER_LAYOUT": ["listen", "frontend"],
    "BIND": ["all", "vip", "node"],
    "LOG": ["journal", "syslog"],
    "VRRP_MODE": ["unicast", "multicast"],
    "VRRP_VERSION": ["2", "3"],
    "FAILOVER": ["weighted", "fault"],
    "TRACK": ["process", "script", "apiserver", "port", "script,apiserver,port"],
    "TIMING": ["default", "documents", "fast"],
    "FIREWALL": ["check", "manage", "ignore"],
    "SUDO": ["auto", "yes", "no"],
}


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_may_be_made_and_makes_a_difference(name: str) -> None:
    found = [cluster(**{name: choice}) for choice in CHOICES[name]]
    if name != "TIMING":
        assert [{each.name: each.value for each in made.settings}[name] for made in found] == CHOICES[name]
    different = [dataclasses.replace(made, settings=()) for made in found]
    assert all(one != other for one, other in itertools.combinations(different, 2))


def test_a_cluster_travels_between_processes() -> None:
    found = cluster(STATS_PASSWORD="secret", SSH_KEY="/key")
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert again.settings == found.settings
    assert again.stats.password.reveal() == "secret"


def test_nothing_of_a_cluster_can_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        cluster().vip.prefix = 3  # type: ignore[misc]


# Secrets


def test_neither_a_cluster_nor_its_description_nor_a_fault_shows_a_password() -> None:
    found = cluster(STATS_PASSWORD="hush", AUTH_PASS="hush")
    assert "hush" not in f"{found!r}{found.settings}{dataclasses.asdict(found)}"
    for name in ("STATS_PASSWORD", "AUTH_PASS"):
        for value in ("hush\n", "hush" * 100, ["hush"], ["hush", "hush"]):
            assert "hush" not in fault(**{name: value})


def test_a_password_that_exlb_makes_is_asked_for_once_and_described_by_the_file_that_keeps_it() -> None:
    found = cluster(STATS_PASSWORD="generate", AUTH_PASS="generate")
    assert found.stats.password == Secret("madeByExlbSTATS_PASSWORD")
    assert found.vrrp.auth_pass == Secret("madeByEx")
    told = {setting.name: setting.value for setting in found.settings}
    assert told["STATS_PASSWORD"] == told["AUTH_PASS"] == "generate, kept in environment.sh.secrets"
    assert "madeBy" not in f"{found!r}{told}"


def test_a_password_of_the_file_is_never_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert understand(sets({**REQUIRED, "STATS_PASSWORD": "own", "AUTH_PASS": "own"})).stats.password == Secret("own")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_faults_gets_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidEnvironment):
        understand(sets({**REQUIRED, "STATS_PASSWORD": "generate", "ROUTER_ID": "0"}))
    assert list(tmp_path.iterdir()) == []


def test_a_made_password_stays_the_same_and_lies_beside_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    said = sets({**REQUIRED, "STATS_PASSWORD": "generate", "AUTH_PASS": "generate"})
    first, second = understand(said), understand(said)
    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == ["environment.sh.secrets"]
    assert first.stats.password is not None
    assert len(first.stats.password.reveal()) == 24
    assert first.vrrp.auth_pass is not None
    assert len(first.vrrp.auth_pass.reveal()) == 8


# What `exlb config` tells


def test_a_description_has_every_variable_with_its_value_and_its_source() -> None:
    found = cluster(STATS_PASSWORD="hush", APISERVER_IPS=["10.0.0.7", "10.0.0.8"]).settings
    assert [setting.name for setting in found] == [spec.name for spec in VARIABLES]
    lines = {setting.name: (setting.value, setting.source) for setting in found}
    assert lines["NODE_IPS"] == ("10.0.0.1 10.0.0.2 10.0.0.3", "environment.sh:1")
    assert lines["STATS_PASSWORD"] == (MASK, "environment.sh:4")
    assert lines["APISERVER_IPS"] == ("10.0.0.7 10.0.0.8", "environment.sh:5")
    assert lines["APISERVER_NAMES"] == ("10.0.0.7 10.0.0.8", "default")
    assert lines["NODE_NAMES"] == ("10.0.0.1 10.0.0.2 10.0.0.3", "default")
    assert lines["ROUTER_ID"] == ("68", "default")
    assert lines["SSH_KEY"] == ("", "default")


def test_a_description_does_not_show_that_there_is_no_password_as_a_password() -> None:
    assert {setting.name: setting.value for setting in cluster().settings}["STATS_PASSWORD"] == ""


# Faults of one value


ADDRESS = "write four numbers from 0 to 255, as in 192.0.2.10, or an IPv6 address, as in 2001:db8::10"
MACHINE = "write the address of one machine on the network"
PORT = "write a port from 1 to 65535"
SMALL = "write a whole number from 1 to 255"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MASTER_VIP", "10.0.0.300", f"10.0.0.300 is not an IP address; {ADDRESS}"),
        ("MASTER_VIP", "10.0.0.010", f"10.0.0.010 is not an IP address; {ADDRESS}"),
        ("MASTER_VIP", "10.0.0.10\n", f"'10.0.0.10\\n' is not an IP address; {ADDRESS}"),
        ("MASTER_VIP", "vip.example.org", f"vip.example.org is not an IP address; {ADDRESS}"),
        ("MASTER_VIP", "127.0.0.1", f"127.0.0.1 is a loopback address; {MACHINE}"),
        ("MASTER_VIP", "224.0.0.18", f"224.0.0.18 is a multicast address; {MACHINE}"),
        ("MASTER_VIP", "0.0.0.0", f"0.0.0.0 is the unspecified address; {MACHINE}"),
        ("MASTER_VIP", "255.255.255.255", f"255.255.255.255 is the broadcast address; {MACHINE}"),
        ("MASTER_VIP", "240.0.0.1", f"240.0.0.1 is a reserved address; {MACHINE}"),
        ("MASTER_VIP", "0.1.2.3", f"0.1.2.3 is a reserved address; {MACHINE}"),
        (
            "MASTER_VIP",
            "10.0.0.10/33",
            "its prefix 33 is not between 1 and 32; write 10.0.0.10/24, with a prefix from 1 to 32",
        ),
        (
            "MASTER_VIP",
            "10.0.0.10/",
            "its prefix '' is not a whole number in plain digits; write 10.0.0.10/24, with a prefix from 1 to 32",
        ),
        (
            "MASTER_VIP",
            "10.0.1.0/24",
            "10.0.1.0 is the network address of 10.0.1.0/24; write an address inside that network",
        ),
        (
            "MASTER_VIP",
            "10.0.1.255/24",
            "10.0.1.255 is the broadcast address of 10.0.1.0/24; write an address inside that network",
        ),
        ("MASTER_VIP", "", "is empty; write MASTER_VIP=ADDRESS or MASTER_VIP=ADDRESS/PREFIX"),
        ("MASTER_VIP", ["10.0.0.10"], "is an array; write MASTER_VIP=10.0.0.10"),
        ("MASTER_VIP", ["10.0.0.10", "10.0.0.11"], "is an array; write MASTER_VIP=VALUE"),
        (
            "VIP_IF",
            "eth0; reboot",
            "'eth0; reboot' is not the name of a network interface; "
            "write VIP_IF=INTERFACE, a name that `ip -br link` shows on the nodes",
        ),
        ("NODE_IPS", "10.0.0.1 10.0.0.2", "is not an array; write NODE_IPS=(10.0.0.1 10.0.0.2)"),
        ("NODE_IPS", "10.0.0.1,10.0.0.2", "is not an array; write NODE_IPS=(10.0.0.1 10.0.0.2)"),
        ("NODE_IPS", "$(reboot)", "is not an array; write NODE_IPS=(ADDRESS ...)"),
        ("NODE_IPS", "", "is not an array; write NODE_IPS=(ADDRESS ...)"),
        ("NODE_IPS", [], "is empty; write NODE_IPS=(ADDRESS ...)"),
        ("NODE_IPS", ["10.0.0.1", ""], "is empty in place 2; write NODE_IPS=(ADDRESS ...)"),
        ("NODE_IPS", ["10.0.0.1", "10.0.0.2", "10.0.0.1"], "has 10.0.0.1 2 times; write each only once"),
        ("NODE_IPS", ["node-1"], f"node-1 is not an IP address; {ADDRESS}"),
        ("NODE_IPS", ["10.0.0.1 10.0.0.2"], f"'10.0.0.1 10.0.0.2' is not an IP address; {ADDRESS}"),
        (
            "NODE_NAMES",
            ["a", "b", "c d"],
            "'c d' is not a host name; write NODE_NAMES=(NAME ...), names made of letters, digits, dots and dashes",
        ),
        (
            "NODE_NAMES",
            ["a", "b", "10.0.0.2"],
            "10.0.0.2 is not a host name; write NODE_NAMES=(NAME ...), names made of letters, digits, dots and dashes",
        ),
        ("NODE_NAMES", ["a", "b", "A"], "has a 2 times; write each only once"),
        (
            "NODE_NAMES",
            ["a", "b"],
            "has a length of 2, and NODE_IPS (environment.sh:1) of 3; "
            "write one name for each of NODE_IPS, in the same order",
        ),
        (
            "APISERVER_IPS",
            ["10.0.0.1:6443"],
            "10.0.0.1:6443 has a colon, and a port has a variable of its own; "
            "write APISERVER_IPS=(ADDRESS ...), addresses or DNS names without a port",
        ),
        ("APISERVER_IPS", ["10.0.0.300"], f"10.0.0.300 is not an IP address; {ADDRESS}"),
        ("APISERVER_IPS", ["127.0.0.1"], f"127.0.0.1 is a loopback address; {MACHINE}"),
        (
            "APISERVER_IPS",
            ["api_1"],
            "api_1 is neither an IP address nor a DNS name; "
            "write APISERVER_IPS=(ADDRESS ...), addresses or DNS names without a port",
        ),
        ("APISERVER_IPS", ["api.x", "API.x"], "has api.x 2 times; write each only once"),
        (
            "APISERVER_NAMES",
            ["a", "b", "c", "d"],
            "has a length of 4, and NODE_IPS (environment.sh:1) of 3; "
            "write one name for each of NODE_IPS, in the same order",
        ),
        (
            "APISERVER_NAMES",
            ["a", "b", "c check"],
            "'c check' is not a name that the proxy accepts; "
            "write APISERVER_NAMES=(NAME ...), names made of letters, digits and . _ : -",
        ),
        ("APISERVER_DEST_PORT", "70000", f"70000 is not between 1 and 65535; {PORT}"),
        ("APISERVER_DEST_PORT", "0", f"0 is not between 1 and 65535; {PORT}"),
        ("APISERVER_DEST_PORT", "0x20", f"0x20 is not a whole number in plain digits; {PORT}"),
        ("APISERVER_DEST_PORT", "٨٤٤٣", rf"'\u0668\u0664\u0664\u0663' is not a whole number in plain digits; {PORT}"),
        ("APISERVER_DEST_PORT", "+1", f"+1 is not a whole number in plain digits; {PORT}"),
        ("APISERVER_SRC_PORT", "9" * 5000, f"'{'9' * 57}...' is not a whole number in plain digits; {PORT}"),
        ("ROUTER_ID", "068", f"068 is not a whole number in plain digits; {SMALL}"),
        ("ROUTER_ID", "256", f"256 is not between 1 and 255; {SMALL}"),
        (
            "HEALTH_CHECK",
            "health",
            "health is not a health check; write readyz, healthz, livez, ssl-hello or tcp",
        ),
        (
            "BALANCE",
            "Source",
            "Source is not a way to balance; write source, roundrobin, leastconn, static-rr or first",
        ),
        ("SUDO", "true", "true is not a choice; write auto, yes or no"),
        (
            "STATS_USER",
            "a:b",
            "a:b is not a name for the statistics page; write up to 32 letters, digits and . _ @ -",
        ),
        ("STATS_PASSWORD", "", "is empty; write 1 to 128 printable signs, or generate, or leave the line out"),
        ("STATS_PASSWORD", "a\tb", "has a sign that is not printable; write 1 to 128 printable signs"),
        ("STATS_PASSWORD", "a" * 129, "has 129 signs; write 1 to 128 printable signs"),
        ("SSH_USER", "-oProxyCommand=x", "-oProxyCommand=x is not a user name; "),
        ("SSH_KEY", "/a\nb", "'/a\\nb' is not a path; write the path of a private key"),
        ("SSH_KEY", "~no-such-user-at-all/key", "~no-such-user-at-all/key is in the home directory of a user who "),
        ("SSH_KNOWN_HOSTS", "", "is empty; write the path of a known_hosts file, or leave the line out"),
        ("SSH_GATEWAY", "me@", "me@ does not name a host to jump through; write [USER@]HOST[:PORT]"),
        ("SSH_GATEWAY", "a@b@c", "a@b@c does not name a host to jump through; write [USER@]HOST[:PORT]"),
        ("SSH_GATEWAY", "a b@c", "'a b' is not a user name; write [USER@]HOST[:PORT]"),
        ("SSH_GATEWAY", "b:port", "port is not a whole number in plain digits; write [USER@]HOST[:PORT]"),
        ("SSH_GATEWAY", "-J", "-J is neither an IP address nor a DNS name; write [USER@]HOST[:PORT]"),
        ("KUBE_APISERVER", "https://:8443", "https://:8443 has no host: a variable may be missing; write https://"),
        ("KUBE_APISERVER", "https://10.0.0.10", "https://10.0.0.10 has no port; write https://HOST:PORT"),
        ("KUBE_APISERVER", "https://10.0.0.10:", "https://10.0.0.10: has no port; write https://HOST:PORT"),
        (
            "KUBE_APISERVER",
            "https://10.0.0.10/24:8443",
            "https://10.0.0.10/24:8443 has the prefix of MASTER_VIP in it; write https://${MASTER_VIP%/*}:PORT",
        ),
        ("KUBE_APISERVER", "https://10.0.0.10:8443/", "https://10.0.0.10:8443/ is not https://HOST:PORT; write https"),
        ("KUBE_APISERVER", "http://10.0.0.10:8443", "http://10.0.0.10:8443 is not https://HOST:PORT; write "),
        (
            "KUBE_APISERVER",
            "https://10.0.0.10:6443",
            "its port is 6443, and APISERVER_DEST_PORT is 8443; write https://10.0.0.10:8443",
        ),
        (
            "KUBE_APISERVER",
            "https://10.0.0.1:8443",
            "its host is 10.0.0.1, and MASTER_VIP is 10.0.0.10; write https://10.0.0.10:8443",
        ),
        ("KUBE_APISERVER", "https://a b:8443", "'a b' is neither an IP address nor a DNS name; "),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_would_be_right(name: str, value: Value, expected: str) -> None:
    assert fault(**{name: value}).startswith(f"{name}: {expected}")


# Faults between values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"MASTER_VIP": "10.0.0.2"}, "MASTER_VIP: 10.0.0.2 is the address of a node; "),
        (
            {"APISERVER_IPS": ["10.0.0.7", "10.0.0.10"]},
            "MASTER_VIP: 10.0.0.10 is the address of an apiserver; write an address that no machine has",
        ),
        ({"STATS_PORT": "8443"}, "STATS_PORT: 8443 is APISERVER_DEST_PORT already; write another port"),
        (
            {"STATS_PORT": "9000", "APISERVER_DEST_PORT": "9000"},
            "APISERVER_DEST_PORT: 9000 is STATS_PORT already; write another port",
        ),
        (
            {"APISERVER_DEST_PORT": "6443"},
            "APISERVER_DEST_PORT: 6443 is APISERVER_SRC_PORT already, and apiservers run on the nodes; ",
        ),
        (
            {"NODE_NAMES": ["a", "b", "c"], "APISERVER_IPS": ["x", "B"], "APISERVER_DEST_PORT": "6443"},
            "APISERVER_DEST_PORT: 6443 is APISERVER_SRC_PORT already, and apiservers run on the nodes; ",
        ),
        ({"SSH_PORT": "8443"}, "SSH_PORT: 8443 is APISERVER_DEST_PORT already; write another port"),
        (
            {"APISERVER_IPS": ["10.0.0.7"], "APISERVER_NAMES": ["a", "b"]},
            "APISERVER_NAMES: has a length of 2, and APISERVER_IPS (environment.sh:4) of 1; write one name for each",
        ),
        (
            {"NODE_IPS": [f"10.0.1.{number}" for number in range(1, 52)]},
            "NODE_IPS: has 51 nodes; write at most 50: each needs a priority of its own",
        ),
    ],
)
def test_values_that_do_not_go_together_are_a_fault_of_the_later_one(values: dict[str, Value], expected: str) -> None:
    assert fault(**values).startswith(expected)


def test_apiservers_elsewhere_may_have_the_proxys_port() -> None:
    found = cluster(APISERVER_IPS=["10.0.0.7"], APISERVER_DEST_PORT="6443")
    assert found.apiserver_listener.port == found.apiserver_listener.backends[0].port == 6443


@pytest.mark.parametrize("vip", ["10.0.0.10/32", "10.0.1.0/31", "10.0.1.1/31", "10.0.1.0", "10.0.1.1/1"])
def test_an_address_that_only_looks_like_a_networks_own_may_be_the_vip(vip: str) -> None:
    assert str(cluster(MASTER_VIP=vip).vip) == vip.partition("/")[0]


def test_fifty_nodes_are_a_cluster_and_so_is_one() -> None:
    assert len(cluster(NODE_IPS=[f"10.0.1.{number}" for number in range(1, 51)]).nodes) == 50
    assert len(cluster(NODE_IPS=["10.0.1.1"]).nodes) == 1


# What is not set


def test_a_missing_variable_is_a_fault_without_a_line() -> None:
    assert faults(NODE_IPS=None) == ["environment.sh: NODE_IPS: is not set; write NODE_IPS=(ADDRESS ...)"]


@pytest.mark.parametrize("name", ["NODES_IPS", "node_ips", "NODEIPS", "NODE_IP"])
def test_a_missing_variable_is_looked_for_among_the_names_that_nobody_knows(name: str) -> None:
    assert faults(NODE_IPS=None, **{name: "x"}) == [
        "environment.sh: NODE_IPS: is not set; write NODE_IPS=(ADDRESS ...), "
        f"or did you mean NODE_IPS where line 3 says {name}?"
    ]


def test_a_misspelt_name_in_another_file_is_named_with_that_file() -> None:
    names = {"NODES_IPS": Location(Path("common.sh"), 7)}
    with pytest.raises(InvalidEnvironment, match=r"where common\.sh:7 says NODES_IPS\?"):
        understand(Environment(FILE, {}, names))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'KUBE_APISERVER="https://${VIP}:8443"',
            "refers to $VIP, which is not set; set VIP in the file: it is read in an empty environment",
        ),
        (
            "KUBE_APISERVER=https://$MASTER_VPI:8443",
            "refers to $MASTER_VPI, which is not set; did you mean $MASTER_VIP?",
        ),
        ("KUBE_APISERVER=https://$LATER:8443", "refers to $LATER, which is not set before line 5; set LATER above it"),
    ],
)
def test_a_reference_that_leaves_a_hole_is_the_only_fault_of_its_variable(text: str, expected: str) -> None:
    found = fault({"KUBE_APISERVER": text}, KUBE_APISERVER="https://:8443", LATER="x")
    assert found == f"KUBE_APISERVER: {expected}"


@pytest.mark.parametrize(
    "text",
    [
        "KUBE_APISERVER=https://$MASTER_VIP:8443",
        "KUBE_APISERVER=https://${host:-10.0.0.10}:8443",
        "KUBE_APISERVER='https://$host:8443'",
        "KUBE_APISERVER=$HOME",
        "KUBE_APISERVER=$(for host in a; do echo $host; done)",
        "KUBE_APISERVER+=$KUBE_APISERVER",
    ],
)
def test_a_reference_that_leaves_no_hole_is_no_fault(text: str) -> None:
    values: Mapping[str, Value] = {**REQUIRED, "KUBE_APISERVER": "https://10.0.0.10:8443"}
    assert understand(sets(values, texts={"KUBE_APISERVER": text})).kube_apiserver == "https://10.0.0.10:8443"


def test_the_hole_that_an_unset_name_leaves_in_an_array_does_not_go_unseen() -> None:
    found = fault({"NODE_IPS": "NODE_IPS=(10.0.0.1 $second)"}, NODE_IPS=["10.0.0.1"])
    assert found.startswith("NODE_IPS: refers to $second, which is not set; ")


# All together


def test_all_faults_of_a_file_are_told_at_once_in_the_order_of_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FILE.write_text(
        """# nine faults
        export NODE_IPS=(10.0.0.1
            10.0.0.300 10.0.0.1)
        MASTER_VPI=10.0.0.10
        NODE_NAMES=(a b)
        STATS_PORT=99999
        BALANCE=random
        KUBE_APISERVER="https://${MASTER_VIP}:8443"
        ROUTER_ID=
        """
    )
    FILE.chmod(0o600)
    with pytest.raises(InvalidEnvironment) as caught:
        load(FILE)
    lines = caught.value.message.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["environment.sh", "VIP_IF"],
        ["environment.sh", "MASTER_VIP"],
        ["environment.sh:2", "NODE_IPS"],
        ["environment.sh:2", "NODE_IPS"],
        ["environment.sh:5", "NODE_NAMES"],
        ["environment.sh:6", "STATS_PORT"],
        ["environment.sh:7", "BALANCE"],
        ["environment.sh:8", "KUBE_APISERVER"],
        ["environment.sh:9", "ROUTER_ID"],
    ]
    assert "or did you mean MASTER_VIP where line 4 says MASTER_VPI?" in lines[1]
    assert caught.value.exit_code == EXIT_ENVIRONMENT


def test_the_error_has_its_faults_and_the_warnings_that_may_explain_them_and_travels() -> None:
    said = Environment(FILE, {}, {}, ("environment.sh:1: get-ips: command not found",))
    with pytest.raises(InvalidEnvironment) as caught:
        understand(said)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.faults == caught.value.faults
    assert [found.name for found in again.faults] == ["NODE_IPS", "VIP_IF", "MASTER_VIP"]
    assert again.warnings == said.warnings
    assert str(again) == str(caught.value)


# Warnings


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SSH_USR", "SSH_USER"), ("Sudo", "SUDO"), ("BALLANCE", "BALANCE"), ("CHECKFALL", "CHECK_FALL")],
)
def test_a_name_that_looks_like_a_known_one_is_a_warning(name: str, meant: str) -> None:
    assert cluster(**{name: "x"}).warnings == (
        f"environment.sh:4: {name}: exlb does not know this name; did you mean {meant}?",
    )


@pytest.mark.parametrize("name", [*sorted(UNRELATED), "KUBECONFIG", "i", "PS1", "GREETING"])
def test_names_that_such_files_always_have_are_no_warning(name: str) -> None:
    assert cluster(**{name: "x"}).warnings == ()


def test_a_name_that_the_file_uses_itself_is_no_misspelling() -> None:
    values = {**REQUIRED, "NODE_IPS_A": "10.0.0.1"}
    said = sets({"NODE_IPS_A": "10.0.0.1", **values}, texts={"NODE_IPS": "NODE_IPS=($NODE_IPS_A)"})
    assert understand(said).warnings == ()


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (["10.0.0.10"], None),
        (["10.0.0.10", "10.0.0.11"], None),
        ([], "api.example.org does not resolve; it should resolve to the VIP 10.0.0.10"),
        (["10.0.0.9"], "api.example.org resolves to 10.0.0.9; it should resolve to the VIP 10.0.0.10"),
    ],
)
def test_a_name_for_clients_that_does_not_lead_to_the_vip_is_a_warning(addresses: list[str], said: str | None) -> None:
    found = cluster(addresses, KUBE_APISERVER="https://api.example.org:8443")
    assert found.warnings == (() if said is None else (f"environment.sh:4: KUBE_APISERVER: {said}",))


def test_the_resolver_is_asked_about_names_only() -> None:
    def refuse(name: str) -> Collection[str]:
        raise AssertionError(name)

    said = sets({**REQUIRED, "KUBE_APISERVER": "https://10.0.0.10:8443", "APISERVER_IPS": ["api.example.org"]})
    assert understand(said, resolve=refuse).warnings == ()


def test_the_hosts_own_resolver_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.9", 0))]

    def nothing(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    said = sets({**REQUIRED, "KUBE_APISERVER": "https://api.example.org:8443"})
    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert "resolves to 10.0.0.9" in understand(said).warnings[0]
    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    assert "does not resolve" in understand(said).warnings[0]


def test_a_user_without_a_password_is_a_warning() -> None:
    assert cluster(STATS_USER="ann").warnings == (
        "environment.sh:4: STATS_USER: has no effect; set STATS_PASSWORD as well",
    )
    assert cluster(STATS_USER="ann", STATS_PASSWORD="x").warnings == ()


# Values are data


SAFE = re.compile(r"[A-Za-z0-9_.:@-]+")
PATH = re.compile(r"/[A-Za-z0-9_.~/%=&?-]*")
URL = re.compile(r"https://([A-Za-z0-9.-]+|\[[0-9a-f:]+\]):[0-9]+")
NASTY = [
    "%",
    "\n",
    " ",
    "'",
    '"',
    "$",
    ";",
    "{",
    "}",
    "#",
    "\\",
    "`",
    "\0",
    "/",
    "\u2028",
    "é",
    "\udcff",
    "-",
    "|",
    "\x85",
]
PLAUSIBLE = [
    *(value for value in REQUIRED.values() if isinstance(value, str)),
    *(spec.default for spec in VARIABLES),
    *("10.0.0.1", "10.0.0.10/24", "node-1", "api.example.org", "me@bastion:22", "https://10.0.0.10:8443", "auto"),
    *("2001:db8::1", "2001:db8::1%", "::1%", "[2001:db8::1]", "/etc/hostname", "generate", "80", "3", "fast", "fault"),
    *("registry 5000 10.0.0.31:5000", "dns 53 [2001:db8::31]:53 check", "web 80 a.example.org:80 http:/", "1.5", "-3"),
]
texts = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=10),
    st.sampled_from(PLAUSIBLE),
    st.lists(st.sampled_from([*PLAUSIBLE, *NASTY]), min_size=1, max_size=4).map("".join),
)
anything = st.one_of(texts, st.lists(texts, max_size=4))
some_variables = st.dictionaries(st.sampled_from(KNOWN), anything, max_size=6)


def strings(value: object) -> Iterator[str]:
    """Yield every string of a value and its parts, but for what is no data of a file on a node or of a command."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, IPv4Address | IPv6Address):
        yield str(value)
    elif isinstance(value, tuple):
        for each in value:
            yield from strings(each)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in ("path", "settings", "warnings", "kube_apiserver"):
                yield from strings(getattr(value, field.name))


def paths_and_authorities(found: Cluster) -> set[str | None]:
    """Return what a health check asks for, and the certificates that it accepts, which have signs of their own."""
    return {text for each in found.listeners for text in (each.check.path, each.check.ca)}


def outcome(values: Mapping[str, Value]) -> Cluster | InvalidEnvironment:
    try:
        return cluster(**values)
    except InvalidEnvironment as error:
        return error


@given(some_variables)
def test_any_text_in_any_variable_is_a_fault_or_harmless(values: dict[str, Value]) -> None:
    found = outcome(values)
    if isinstance(found, InvalidEnvironment):
        lines = found.message.split("\n")
        assert 1 <= len(lines) == len(found.faults)
        assert all(line.isprintable() for line in lines)
        return
    special = paths_and_authorities(found)
    assert [text for text in strings(found) if not SAFE.fullmatch(text) and text not in special] == []
    assert all(not each.check.path or PATH.fullmatch(each.check.path) for each in found.listeners)
    assert all(each.check.ca is None for each in found.listeners), "none of the texts is a file with certificates"
    assert not any(text.startswith("-") for text in (found.ssh.user, found.ssh.gateway or ""))
    assert found.kube_apiserver is None or URL.fullmatch(found.kube_apiserver)
    if found.stats.password is not None:
        assert found.stats.password.reveal().isprintable()
    if found.vrrp.auth_pass is not None:
        assert re.fullmatch(r"[A-Za-z0-9._@+-]{1,8}", found.vrrp.auth_pass.reveal())
    for path in (found.ssh.key, found.ssh.known_hosts):
        assert path is None or str(path).isprintable()
    assert all(warning.isprintable() for warning in found.warnings)


GOOD: Mapping[str, Sequence[str]] = {
    "NODE_IPS": ["10.0.0.1", "2001:db8::1"],
    "VIP_IF": ["eth0", "bond0.12", "br-lan", "auto"],
    "MASTER_VIP": ["10.0.0.10", "10.0.0.10/24", "2001:db8::10/64"],
    "NODE_NAMES": ["a", "node-1.example.org"],
    "NODE_VIP_IFS": ["eth0", "auto"],
    "EXTRA_VIPS": ["10.0.0.20/24", "2001:db8::20"],
    "APISERVER_IPS": ["10.0.0.7", "api.example.org", "2001:db8::7"],
    "APISERVER_NAMES": ["a", "api_1"],
    "APISERVER_SRC_PORT": ["6443"],
    "APISERVER_DEST_PORT": ["8443"],
    "KUBE_APISERVER": ["https://10.0.0.10:8443", "https://api.example.org:8443"],
    **CHOICES,
    "APISERVER_CA": ["/nowhere/ca.crt"],
    "BACKEND_INTER": ["2s"],
    "BACKEND_FALL": ["2"],
    "BACKEND_RISE": ["2"],
    "BACKEND_SLOWSTART": ["0", "1m"],
    **{f"TIMEOUT_{name}": ["10m"] for name in ("CONNECT", "CLIENT", "SERVER", "CHECK", "QUEUE")},
    "MAXCONN": ["4000"],
    "HARD_STOP_AFTER": ["24h"],
    "SERVER_STATE": ["yes"],
    "INGRESS_NODE_IPS": ["10.0.0.21", "ingress.example.org"],
    **{f"INGRESS_{name}": ["30080"] for name in ("HTTP_NODEPORT", "HTTPS_NODEPORT", "HTTP_PORT", "HTTPS_PORT")},
    "INGRESS_PROXY_PROTOCOL": ["v2"],
    "STATS_BIND": ["127.0.0.1", "::"],
    "STATS_PORT": ["10080"],
    "STATS_USER": ["admin"],
    "STATS_ADMIN": ["no"],
    "EXPORTER": ["no"],
    "ROUTER_ID": ["68"],
    "VRRP_IPS": ["10.1.0.1", "2001:db8::1"],
    "AUTH_PASS": ["k8s-lb"],
    "PRIORITIES": ["120"],
    "PREEMPT": ["no"],
    "ADVERT_INT": ["1", "0.25"],
    "CHECK_INTERVAL": ["2"],
    "CHECK_TIMEOUT": ["2"],
    "CHECK_FALL": ["2"],
    "CHECK_RISE": ["2"],
    "CHECK_WEIGHT": ["-60", "60"],
    "PROCESS_DELAY": ["1"],
    **{f"GARP_MASTER_{name}": ["1"] for name in ("DELAY", "REPEAT", "REFRESH", "REFRESH_REPEAT")},
    "SSH_USER": ["root"],
    "SSH_PORT": ["22"],
    "SSH_GATEWAY": ["bastion", "me@bastion:22"],
}
# Any printable text is a password or a path, and the words of a listener stand apart by blanks.
ANY_TEXT = {"STATS_PASSWORD", "SSH_KEY", "SSH_KNOWN_HOSTS", "EXTRA_LISTENERS"}


def test_every_variable_is_spoilt_by_one_nasty_sign_or_takes_any() -> None:
    assert {*GOOD, *ANY_TEXT} == set(KNOWN)


NASTY_SIGNS = "\n \t'\"$;{}#\\`|&()%\0\u2028é\udcff"


@pytest.mark.parametrize("name", GOOD)
def test_one_nasty_sign_anywhere_in_a_good_value_is_always_a_fault(name: str) -> None:
    is_array = next(spec.is_array for spec in VARIABLES if spec.name == name)
    for good in GOOD[name]:
        for at, sign in itertools.product(range(len(good) + 1), NASTY_SIGNS):
            spoilt = good[:at] + sign + good[at:]
            assert any(f": {name}: " in line for line in faults(**{name: [spoilt] if is_array else spoilt})), spoilt


@pytest.mark.parametrize("good", ["registry 5000 10.0.0.31:5000 http:/v2", "dns 53 [2001:db8::31]:53,a.example.org:53"])
@pytest.mark.parametrize("sign", "'\"$;{}#\\`|()\0é\udcff")
def test_one_nasty_sign_anywhere_in_an_extra_listener_is_a_fault(good: str, sign: str) -> None:
    for at in range(len(good) + 1):
        spoilt = good[:at] + sign + good[at:]
        assert any(": EXTRA_LISTENERS: " in line for line in faults(EXTRA_LISTENERS=[spoilt])), spoilt
