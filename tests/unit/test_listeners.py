"""What the proxy listens on and sends to: what the variables contradict each other in, and what has no effect."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from exlb_fab.cluster import HealthCheck
from exlb_fab.environment import Location, Variable
from exlb_fab.node import program
from exlb_fab.understanding import InvalidEnvironment, understand
from tests.unit.environments import FILE, NODES_V6, REQUIRED, Value, cluster, doubts, fault, faults, sets

INGRESS: dict[str, Value] = {
    "INGRESS_NODE_IPS": ["10.0.0.21"],
    "INGRESS_HTTP_NODEPORT": "23456",
    "INGRESS_HTTPS_NODEPORT": "23457",
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"INGRESS_NODE_IPS": ["10.0.0.21"]},
            "INGRESS_NODE_IPS: no port of these nodes is set; set INGRESS_HTTP_NODEPORT or INGRESS_HTTPS_NODEPORT, or",
        ),
        (
            {"INGRESS_HTTP_NODEPORT": "23456"},
            "INGRESS_HTTP_NODEPORT: no node is said to have it; set INGRESS_NODE_IPS, or leave the line out",
        ),
        (
            {"INGRESS_HTTPS_NODEPORT": "23457"},
            "INGRESS_HTTPS_NODEPORT: no node is said to have it; set INGRESS_NODE_IPS, or leave the line out",
        ),
        *(
            (
                {"EXTRA_LISTENERS": [f"{name} 5000 10.0.0.31:5000"]},
                f"EXTRA_LISTENERS: {name} is the name of a listener of exlb's; write another name",
            )
            for name in ("kube-master", "admin_stats", "ingress-node", "ingress-node-tls")
        ),
        ({**INGRESS, "INGRESS_HTTP_PORT": "8443"}, "INGRESS_HTTP_PORT: 8443 is APISERVER_DEST_PORT already; write "),
        ({**INGRESS, "INGRESS_HTTP_PORT": "443"}, "INGRESS_HTTP_PORT: 443 is INGRESS_HTTPS_PORT already; write "),
        ({**INGRESS, "INGRESS_HTTPS_PORT": "22"}, "INGRESS_HTTPS_PORT: 22 is SSH_PORT already; write another port"),
        (
            {**INGRESS, "INGRESS_HTTPS_PORT": "6443"},
            "INGRESS_HTTPS_PORT: 6443 is APISERVER_SRC_PORT already, and apiservers run on the nodes; write another",
        ),
        (
            {"EXTRA_LISTENERS": ["a 8443 x.org:1"]},
            "EXTRA_LISTENERS: 8443 is APISERVER_DEST_PORT already; write another port",
        ),
        (
            {"EXTRA_LISTENERS": ["a 10080 x.org:1"]},
            "EXTRA_LISTENERS: 10080 is STATS_PORT already; write another port",
        ),
        (
            {"EXTRA_LISTENERS": ["a 9000 x.org:1", "b 9000 x.org:1"]},
            "EXTRA_LISTENERS: 9000 is EXTRA_LISTENERS (a) already; write another port",
        ),
        (
            {"EXTRA_LISTENERS": ["a 9000 x.org:1"], "STATS_PORT": "9000"},
            "STATS_PORT: 9000 is EXTRA_LISTENERS (a) already; write another port",
        ),
        (
            {"APISERVER_IPS": ["10.0.0.7", "10.0.0.20"], "EXTRA_VIPS": ["10.0.0.20"]},
            "EXTRA_VIPS: 10.0.0.20 is the address of an apiserver; write an address that no machine has",
        ),
        (
            {**NODES_V6, "APISERVER_DEST_PORT": "6443"},
            "APISERVER_DEST_PORT: 6443 is APISERVER_SRC_PORT already, and apiservers run on the nodes; write another",
        ),
        ({"STATS_ADMIN": "yes"}, "STATS_ADMIN: would let everybody disable the backends; set STATS_PASSWORD as well"),
        (
            {"STATS_BIND": "10.0.0.2"},
            "STATS_BIND: 10.0.0.2 is the address of one node, and the proxy of each would listen on it; "
            "write 0.0.0.0 or :: for all addresses of a node, or 127.0.0.1",
        ),
    ],
)
def test_listeners_that_do_not_go_together_are_a_fault(values: dict[str, Value], expected: str) -> None:
    assert fault(**values).startswith(expected)


@pytest.mark.parametrize(
    ("stats", "port", "blamed"),
    [
        (Location(FILE, 2), Location(Path("common.sh"), 99), "STATS_PORT"),
        (Location(Path("common.sh"), 2), Location(FILE, 99), "STATS_PORT"),
        (Location(Path("common.sh"), 99), Location(Path("common.sh"), 2), "STATS_PORT"),
        (Location(Path("common.sh"), 2), None, "STATS_PORT"),
        (None, Location(Path("common.sh"), 2), "APISERVER_DEST_PORT"),
    ],
)
def test_lines_of_different_files_have_no_order(stats: Location | None, port: Location | None, blamed: str) -> None:
    places = {"STATS_PORT": (stats, "8443"), "APISERVER_DEST_PORT": (port, "10080")}
    if stats and port:
        places = {name: (place, "9000") for name, (place, _) in places.items()}
    environment = sets(REQUIRED)
    variables = {
        name: Variable(name, (value,), is_array=False, location=place)
        for name, (place, value) in places.items()
        if place
    }
    with pytest.raises(InvalidEnvironment) as caught:
        understand(replace(environment, variables={**environment.variables, **variables}), resolve=lambda name: ())
    assert [fault.name for fault in caught.value.faults] == [blamed]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"EXTRA_LISTENERS": ["registry 5000 10.0.0.31:5000,10.0.0.2:5000"]},
            "EXTRA_LISTENERS: registry: 10.0.0.2:5000 is the proxy itself; write another port, or BIND=vip",
        ),
        (
            {"EXTRA_LISTENERS": ["registry 5000 LB2:5000"], "NODE_NAMES": ["lb1", "lb2", "lb3"]},
            "EXTRA_LISTENERS: registry: LB2:5000 is the proxy itself; write another port, or BIND=vip",
        ),
        (
            {"EXTRA_LISTENERS": ["registry 5000 [2001:db8::20]:5000"], "EXTRA_VIPS": ["2001:db8::20"], "BIND": "vip"},
            "EXTRA_LISTENERS: registry: [2001:db8::20]:5000 is the proxy itself; write another port",
        ),
        (
            {"INGRESS_NODE_IPS": ["10.0.0.2"], "INGRESS_HTTP_NODEPORT": "80"},
            "INGRESS_HTTP_NODEPORT: 10.0.0.2:80 is the proxy itself; write another port, or BIND=vip",
        ),
    ],
)
def test_a_listener_that_would_be_its_own_backend_is_a_fault(values: dict[str, Value], expected: str) -> None:
    assert fault(**values) == expected


def test_a_listener_may_lead_to_another_port_of_the_nodes_or_to_the_same_one_that_it_does_not_bind_there() -> None:
    assert cluster(EXTRA_LISTENERS=["old 9443 10.0.0.1:8443", "git 2222 10.0.0.1:22"]).listeners[1].port == 9443
    assert cluster(EXTRA_LISTENERS=["registry 5000 10.0.0.1:5000"], BIND="vip").listeners[1].port == 5000
    assert cluster(INGRESS_NODE_IPS=["10.0.0.1"], INGRESS_HTTP_NODEPORT="80", BIND="vip").listeners[1].port == 80


def test_a_password_that_is_wrong_is_no_reason_to_ask_for_one() -> None:
    assert [line.split(": ")[1] for line in faults(STATS_ADMIN="yes", STATS_PASSWORD="")] == ["STATS_PASSWORD"]


def test_an_ingress_port_that_is_wrong_is_no_reason_to_ask_for_one() -> None:
    found = faults(INGRESS_NODE_IPS=["10.0.0.21"], INGRESS_HTTP_NODEPORT="0")
    assert [line.split(": ")[1] for line in found] == ["INGRESS_HTTP_NODEPORT"]
    found = faults(INGRESS_NODE_IPS=["x y"], INGRESS_HTTP_NODEPORT="80")
    assert [line.split(": ")[1] for line in found] == ["INGRESS_NODE_IPS"]


def test_a_port_of_an_ingress_that_is_not_there_collides_with_nothing() -> None:
    found = cluster(INGRESS_NODE_IPS=["10.0.0.21"], INGRESS_HTTP_NODEPORT="23456", STATS_PORT="443")
    assert [each.name for each in found.listeners] == ["kube-master", "ingress-node"]


def test_bound_to_the_vips_alone_the_proxy_may_have_the_port_of_apiservers_on_the_nodes() -> None:
    found = cluster(APISERVER_DEST_PORT="6443", BIND="vip").apiserver_listener
    assert found.port == found.backends[0].port == 6443
    found = cluster(APISERVER_DEST_PORT="6443", APISERVER_IPS=["10.0.0.7"]).apiserver_listener
    assert found.port == found.backends[0].port == 6443
    assert "apiservers run on the nodes" in fault(APISERVER_DEST_PORT="6443", BIND="node")


def test_the_gate_of_a_node_knows_the_listener_of_the_apiservers_by_its_name() -> None:
    assert f"\napiservers={cluster().apiserver_listener.name}\n" in program("apply.sh")


def test_an_ingress_is_checked_by_tcp_and_an_extra_listener_as_it_says() -> None:
    found = cluster(**INGRESS, EXTRA_LISTENERS=["a 5000 x.org:1 http:/v2/", "b 5001 x.org:1 none"])
    assert [(each.name, each.check.method, each.check.path) for each in found.listeners] == [
        ("kube-master", "https", "/readyz"),
        ("ingress-node", "tcp", ""),
        ("ingress-node-tls", "tcp", ""),
        ("a", "http", "/v2/"),
        ("b", "none", ""),
    ]


@pytest.mark.parametrize(
    ("value", "method", "path"),
    [
        ("readyz", "https", "/readyz"),
        ("healthz", "https", "/healthz"),
        ("livez", "https", "/livez"),
        ("ssl-hello", "ssl-hello", ""),
        ("tcp", "tcp", ""),
    ],
)
def test_an_apiserver_is_asked_over_https_or_greeted_or_connected_to(value: str, method: str, path: str) -> None:
    check = cluster(HEALTH_CHECK=value).apiserver_listener.check
    assert check == HealthCheck(method, path, interval_ms=2000, fall=2, rise=2, slowstart_ms=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "bind"),
    [
        ({}, "127.0.0.1"),
        ({"STATS_PASSWORD": "x"}, "0.0.0.0"),
        ({"STATS_PASSWORD": "generate"}, "0.0.0.0"),
        ({"STATS_BIND": "0.0.0.0"}, "0.0.0.0"),
        ({"STATS_BIND": "::", "STATS_PASSWORD": "x"}, "::"),
        ({"STATS_BIND": "127.0.0.1", "STATS_PASSWORD": "x"}, "127.0.0.1"),
        ({"STATS_BIND": "10.0.0.1", "NODE_IPS": ["10.0.0.1"]}, "10.0.0.1"),
    ],
)
def test_the_statistics_page_is_for_the_node_itself_unless_it_has_a_password_or_is_told(
    values: dict[str, Value], bind: str
) -> None:
    found = cluster(**values)
    assert found.stats.bind == ip_address(bind)
    assert {setting.name: setting.value for setting in found.settings}["STATS_BIND"] == bind


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"STATS_USER": "ann"}, ["STATS_USER: has no effect; set STATS_PASSWORD as well"]),
        ({"STATS_USER": "ann", "STATS_PASSWORD": "x"}, []),
        *(
            (
                {name: "599999"},
                [f"{name}: less than 10m cuts watches and `kubectl logs -f`; write {name}=10m"],
            )
            for name in ("TIMEOUT_CLIENT", "TIMEOUT_SERVER")
        ),
        (
            {"BACKEND_SLOWSTART": "30s"},
            ["BACKEND_SLOWSTART: has no effect with BALANCE=source; write roundrobin or leastconn"],
        ),
        ({"BACKEND_SLOWSTART": "30s", "BALANCE": "leastconn"}, []),
        ({"BACKEND_SLOWSTART": "0"}, []),
        ({"TIMEOUT_CLIENT": "10m", "TIMEOUT_SERVER": "600000", "TIMEOUT_CONNECT": "1s"}, []),
        ({"INGRESS_PROXY_PROTOCOL": "v2"}, ["INGRESS_PROXY_PROTOCOL: has no effect; set INGRESS_NODE_IPS as well"]),
        ({"INGRESS_HTTP_PORT": "81"}, ["INGRESS_HTTP_PORT: has no effect; set INGRESS_HTTP_NODEPORT as well"]),
        (
            {"INGRESS_NODE_IPS": ["x.org"], "INGRESS_HTTP_NODEPORT": "1", "INGRESS_HTTPS_PORT": "444"},
            ["INGRESS_HTTPS_PORT: has no effect; set INGRESS_HTTPS_NODEPORT as well"],
        ),
        ({**INGRESS, "INGRESS_PROXY_PROTOCOL": "v1", "INGRESS_HTTP_PORT": "81", "INGRESS_HTTPS_PORT": "444"}, []),
    ],
)
def test_what_has_no_effect_or_a_bad_one_is_a_doubt(values: dict[str, Value], expected: list[str]) -> None:
    assert doubts(**values) == expected
