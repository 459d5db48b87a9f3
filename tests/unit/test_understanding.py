"""What is understood of an environment file, and how every fault of it is told."""

import dataclasses
import itertools
import pickle
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exlb_fab.cluster import MASK, Apiserver, Cluster, Node, Secret, SshSettings, Stats, Vip, Vrrp
from exlb_fab.environment import Environment, Location, Variable
from exlb_fab.errors import EXIT_ENVIRONMENT
from exlb_fab.understanding import InvalidEnvironment, load, understand
from exlb_fab.variables import KNOWN, UNRELATED, VARIABLES

Value = str | Sequence[str] | None
FILE = Path("environment.sh")
REQUIRED: Mapping[str, Value] = {
    "NODE_IPS": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
    "VIP_IF": "eth0",
    "MASTER_VIP": "10.0.0.10",
}


def sets(values: Mapping[str, Value], *, texts: Mapping[str, str] | None = None) -> Environment:
    """Return what a file sets that has each value on a line of its own; None leaves a value out."""
    kept = {name: value for name, value in values.items() if value is not None}
    places = {name: Location(FILE, line) for line, name in enumerate(kept, 1)}
    variables = {
        name: Variable(
            name,
            (value,) if isinstance(value, str) else tuple(value),
            is_array=not isinstance(value, str),
            location=places[name],
            text=(texts or {}).get(name, ""),
        )
        for name, value in kept.items()
        if name in KNOWN
    }
    return Environment(FILE, variables, places, (), frozenset({"HOME"}))


def cluster(resolve: Collection[str] = (), /, **values: Value) -> Cluster:
    return understand(sets({**REQUIRED, **values}), resolve=lambda name: resolve)


def faults(texts: Mapping[str, str] | None = None, /, **values: Value) -> list[str]:
    with pytest.raises(InvalidEnvironment) as caught:
        understand(sets({**REQUIRED, **values}, texts=texts), resolve=lambda name: ())
    return caught.value.message.splitlines()


def fault(texts: Mapping[str, str] | None = None, /, **values: Value) -> str:
    """Return the only fault, without its place."""
    found = faults(texts, **values)
    assert len(found) == 1, found
    return re.sub(r"^environment\.sh:\d+: ", "", found[0])


# What is understood


def test_three_required_lines_make_a_whole_cluster() -> None:
    found = cluster()
    assert found.nodes == tuple(
        Node(f"10.0.0.{number}", IPv4Address(f"10.0.0.{number}"), "eth0", number - 1) for number in (1, 2, 3)
    )
    assert found.vip == Vip(IPv4Address("10.0.0.10"), None)
    assert found.listeners == (found.apiserver_listener,)
    listener = found.apiserver_listener
    assert (listener.name, listener.port, listener.health_check, listener.balance) == (
        "kube-master",
        8443,
        "readyz",
        "source",
    )
    assert listener.backends == tuple(Apiserver(f"10.0.0.{n}", f"10.0.0.{n}", 6443) for n in (1, 2, 3))
    assert found.stats == Stats(10080, "admin", None)
    assert found.vrrp == Vrrp(68, 1, 2, 2, 2)
    assert found.ssh == SshSettings("root", 22, None, None, None, "auto")
    assert (found.proxy, found.kube_apiserver, found.warnings) == ("haproxy", None, ())


def test_every_variable_reaches_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    found = cluster(
        NODE_NAMES=["a", "B-2", "c.example.org"],
        APISERVER_IPS=["10.0.0.7", "api.example.org"],
        APISERVER_NAMES=["seven", "api_1"],
        APISERVER_SRC_PORT="443",
        APISERVER_DEST_PORT="6443",
        MASTER_VIP="10.0.0.10/24",
        KUBE_APISERVER="https://10.0.0.10:6443",
        ROUTER_ID="255",
        HEALTH_CHECK="tcp",
        STATS_PORT="9000",
        STATS_USER="ann@ops",
        STATS_PASSWORD="s'p\"a c$e;",
        BALANCE="leastconn",
        ADVERT_INT="3",
        CHECK_INTERVAL="5",
        CHECK_FALL="4",
        CHECK_RISE="6",
        SSH_USER="ann",
        SSH_PORT="2222",
        SSH_KEY="~/.ssh/my key",
        SSH_GATEWAY="ann@bastion.example.org:22",
        SSH_KNOWN_HOSTS="/etc/known_hosts",
        SUDO="no",
    )
    assert [str(node) for node in found.nodes] == ["a", "B-2", "c.example.org"]
    assert found.vip == Vip(IPv4Address("10.0.0.10"), 24)
    assert found.kube_apiserver == "https://10.0.0.10:6443"
    listener = found.apiserver_listener
    assert listener.backends == (Apiserver("seven", "10.0.0.7", 443), Apiserver("api_1", "api.example.org", 443))
    assert (listener.port, listener.health_check, listener.balance) == (6443, "tcp", "leastconn")
    assert found.stats == Stats(9000, "ann@ops", Secret("s'p\"a c$e;"))
    assert found.vrrp == Vrrp(255, 3, 5, 4, 6)
    assert found.ssh == SshSettings(
        "ann", 2222, Path("/home/ann/.ssh/my key"), "ann@bastion.example.org:22", Path("/etc/known_hosts"), "no"
    )


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("HEALTH_CHECK", ["readyz", "tcp"]),
        ("BALANCE", ["source", "roundrobin", "leastconn"]),
        ("SUDO", ["auto", "yes", "no"]),
    ],
)
def test_every_choice_may_be_made(name: str, choices: list[str]) -> None:
    for choice in choices:
        found = cluster(**{name: choice})
        listener = found.apiserver_listener
        assert choice in (listener.health_check, listener.balance, found.ssh.sudo)


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
    found = cluster(STATS_PASSWORD="hush")
    assert "hush" not in f"{found!r}{found.settings}{dataclasses.asdict(found)}"
    for value in ("hush\n", "hush" * 100, ["hush"], ["hush", "hush"]):
        assert "hush" not in fault(STATS_PASSWORD=value)


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


ADDRESS = "write four numbers from 0 to 255, as in 192.0.2.10"
MACHINE = "write the address of one machine on the network"
PORT = "write a port from 1 to 65535"
SMALL = "write a whole number from 1 to 255"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MASTER_VIP", "10.0.0.300", f"10.0.0.300 is not an IPv4 address; {ADDRESS}"),
        ("MASTER_VIP", "10.0.0.010", f"10.0.0.010 is not an IPv4 address; {ADDRESS}"),
        ("MASTER_VIP", "10.0.0.10\n", f"'10.0.0.10\\n' is not an IPv4 address; {ADDRESS}"),
        ("MASTER_VIP", "vip.example.org", f"vip.example.org is not an IPv4 address; {ADDRESS}"),
        (
            "MASTER_VIP",
            "2001:db8::1",
            "2001:db8::1 is an IPv6 address, and only IPv4 is supported so far; write an IPv4 address",
        ),
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
        ("NODE_IPS", ["node-1"], f"node-1 is not an IPv4 address; {ADDRESS}"),
        ("NODE_IPS", ["10.0.0.1 10.0.0.2"], f"'10.0.0.1 10.0.0.2' is not an IPv4 address; {ADDRESS}"),
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
        ("APISERVER_IPS", ["10.0.0.300"], f"10.0.0.300 is not an IPv4 address; {ADDRESS}"),
        ("APISERVER_IPS", ["127.0.0.1"], f"127.0.0.1 is a loopback address; {MACHINE}"),
        (
            "APISERVER_IPS",
            ["api_1"],
            "api_1 is neither an IPv4 address nor a DNS name; "
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
        ("ADVERT_INT", "0.5", f"0.5 is not a whole number in plain digits; {SMALL}"),
        ("HEALTH_CHECK", "healthz", "healthz is not a health check; write readyz or tcp"),
        ("BALANCE", "Source", "Source is not a way to balance; write source, roundrobin or leastconn"),
        ("SUDO", "true", "true is not a choice; write auto, yes or no"),
        (
            "STATS_USER",
            "a:b",
            "a:b is not a name for the statistics page; write up to 32 letters, digits and . _ @ -",
        ),
        ("STATS_PASSWORD", "", "is empty; write 1 to 128 printable signs, or leave the line out"),
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
        ("SSH_GATEWAY", "-J", "-J is neither an IPv4 address nor a DNS name; write [USER@]HOST[:PORT]"),
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
        ("KUBE_APISERVER", "https://a b:8443", "'a b' is neither an IPv4 address nor a DNS name; "),
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
    def found(*_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.9", 0))]

    def nothing(*_: object) -> list[tuple[object, ...]]:
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
URL = re.compile(r"https://[A-Za-z0-9.-]+:[0-9]+")
NASTY = ["\n", " ", "'", '"', "$", ";", "{", "}", "#", "\\", "`", "\0", "/", "\u2028", "é", "\udcff", "-", "|", "\x85"]
PLAUSIBLE = [
    *(value for value in REQUIRED.values() if isinstance(value, str)),
    *(spec.default for spec in VARIABLES),
    *("10.0.0.1", "10.0.0.10/24", "node-1", "api.example.org", "me@bastion:22", "https://10.0.0.10:8443", "auto"),
]
texts = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=10),
    st.sampled_from(PLAUSIBLE),
    st.lists(st.sampled_from([*PLAUSIBLE, *NASTY]), min_size=1, max_size=4).map("".join),
)
anything = st.one_of(texts, st.lists(texts, max_size=4))
some_variables = st.dictionaries(st.sampled_from(KNOWN), anything, max_size=4)


def rendered(found: Cluster) -> list[str]:
    """Return every string of a cluster that reaches a file on a node, or an argument of ssh."""
    listener = found.apiserver_listener
    return [
        *(text for node in found.nodes for text in (node.name, str(node.address), node.interface)),
        *(text for backend in listener.backends for text in (backend.name, backend.host)),
        *(listener.name, listener.health_check, listener.balance),
        *(str(found.vip), found.stats.user, found.stats.bind, found.ssh.user, found.ssh.sudo),
        *([found.ssh.gateway] if found.ssh.gateway is not None else []),
    ]


def outcome(values: Mapping[str, Value]) -> Cluster | InvalidEnvironment:
    try:
        return cluster(**values)
    except InvalidEnvironment as error:
        return error


@settings(max_examples=250, deadline=None)
@given(some_variables)
def test_any_text_in_any_variable_is_a_fault_or_harmless(values: dict[str, Value]) -> None:
    found = outcome(values)
    if isinstance(found, InvalidEnvironment):
        lines = found.message.split("\n")
        assert 1 <= len(lines) == len(found.faults)
        assert all(line.isprintable() for line in lines)
        return
    assert [text for text in rendered(found) if not SAFE.fullmatch(text)] == []
    assert not any(text.startswith("-") for text in (found.ssh.user, found.ssh.gateway or ""))
    assert found.kube_apiserver is None or URL.fullmatch(found.kube_apiserver)
    if found.stats.password is not None:
        assert found.stats.password.reveal().isprintable()
    for path in (found.ssh.key, found.ssh.known_hosts):
        assert path is None or str(path).isprintable()
    assert all(warning.isprintable() for warning in found.warnings)


GOOD: Mapping[str, Sequence[str]] = {
    "NODE_IPS": ["10.0.0.1"],
    "VIP_IF": ["eth0", "bond0.12", "br-lan"],
    "MASTER_VIP": ["10.0.0.10", "10.0.0.10/24"],
    "NODE_NAMES": ["a", "node-1.example.org"],
    "APISERVER_IPS": ["10.0.0.7", "api.example.org"],
    "APISERVER_NAMES": ["a", "api_1"],
    "APISERVER_SRC_PORT": ["6443"],
    "APISERVER_DEST_PORT": ["8443"],
    "KUBE_APISERVER": ["https://10.0.0.10:8443", "https://api.example.org:8443"],
    "ROUTER_ID": ["68"],
    "HEALTH_CHECK": ["readyz", "tcp"],
    "BALANCE": ["source", "leastconn"],
    "STATS_PORT": ["10080"],
    "STATS_USER": ["admin"],
    "ADVERT_INT": ["1"],
    "CHECK_INTERVAL": ["2"],
    "CHECK_FALL": ["2"],
    "CHECK_RISE": ["2"],
    "SSH_USER": ["root"],
    "SSH_PORT": ["22"],
    "SSH_GATEWAY": ["bastion", "me@bastion:22"],
    "SUDO": ["auto", "yes"],
}


@pytest.mark.parametrize("name", GOOD)
def test_one_nasty_sign_anywhere_in_a_good_value_is_always_a_fault(name: str) -> None:
    is_array = next(spec.is_array for spec in VARIABLES if spec.name == name)
    for good in GOOD[name]:
        for at, sign in itertools.product(range(len(good) + 1), "\n \t'\"$;{}#\\`|&()\0\u2028é\udcff"):
            spoilt = good[:at] + sign + good[at:]
            assert any(f": {name}: " in line for line in faults(**{name: [spoilt] if is_array else spoilt})), spoilt
