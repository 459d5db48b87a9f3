"""What SELinux has to be told, from answers as a RHEL 9 gives them; there is no SELinux in the lab."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exlb_fab import planning, selinux
from exlb_fab.errors import FactsError
from exlb_fab.facts import Facts, Survey
from exlb_fab.planning import NodePlan, Plan, nothing
from tests import fake

# As `getsebool haproxy_connect_any` and `semanage port -l` print them on RHEL 9, in the form of the probe.
PORTS = """\
port commplex_main_port_t 5000
port ephemeral_port_t 32768-60999
port http_cache_port_t 8080, 8118, 8123, 10001-10010
port http_port_t 80, 81, 443, 488, 8008, 8009, 8443, 9000
port hi_reserved_port_t 512-1023
port unreserved_port_t 61000-65535, 1024-32767
"""
OFF = f"mode Enforcing\nboolean haproxy_connect_any --> off\n{PORTS}"
ON = "mode Enforcing\nboolean haproxy_connect_any --> on\n"
WITHOUT_BOOLEAN = f"mode Enforcing\n{PORTS}"
PROXY = fake.PROXY


def directives(text: str, binds: list[int], connects: list[int]) -> tuple[str, ...]:
    return selinux.directives(selinux.parse(text), PROXY, binds, connects)


def test_enforcing_with_the_boolean_off_needs_it_for_an_apiserver() -> None:
    assert directives(OFF, [8443], [6443]) == ("boolean haproxy_connect_any",)


def test_port_to_bind_that_is_not_for_the_proxy_needs_it_as_well() -> None:
    assert directives(OFF, [6444], [443]) == ("boolean haproxy_connect_any",)


def test_ports_that_the_policy_gives_the_proxy_anyway_need_nothing() -> None:
    assert directives(OFF, [8443, 80, 10001, 5000], [443, 8080]) == ()


@pytest.mark.parametrize("text", ["", ON, "mode Permissive\n"])
def test_nothing_is_needed_where_nothing_is_forbidden(text: str) -> None:
    assert directives(text, [8443], [6443]) == ()


def test_policy_without_the_boolean_gets_a_label_for_every_port_that_needs_one() -> None:
    assert directives(WITHOUT_BOOLEAN, [8443, 10080], [6443, 6443]) == (
        "label 10080 http_port_t",
        "label 6443 http_port_t",
    )


def test_boolean_is_set_even_where_nothing_can_list_the_ports() -> None:
    found = "mode Enforcing\nboolean haproxy_connect_any --> off\nlacks semanage\n"
    assert directives(found, [8443], [443]) == ("boolean haproxy_connect_any",)
    assert selinux.lacking(selinux.parse(found)) is None


def test_without_boolean_and_semanage_the_package_is_named() -> None:
    assert selinux.lacking(selinux.parse("mode Enforcing\nlacks semanage\n")) == "policycoreutils-python-utils"
    assert selinux.lacking(selinux.parse("")) is None


def test_narrowest_range_gives_a_port_its_type() -> None:
    found = selinux.parse(OFF)
    assert [found.label(port) for port in (10005, 6443, 22)] == ["http_cache_port_t", "unreserved_port_t", None]


@pytest.mark.parametrize("text", ["port http_port_t eighty", "getsebool: SELinux is disabled"])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(FactsError):
        selinux.parse(text)


@pytest.mark.parametrize(
    ("directive", "command"),
    [
        ("boolean haproxy_connect_any", "setsebool -P haproxy_connect_any 1"),
        ("label 6443 http_port_t", "semanage port -a -t http_port_t -p tcp 6443"),
    ],
)
def test_plan_tells_the_commands(directive: str, command: str) -> None:
    assert selinux.told(directive) == command


def test_push_lets_the_proxy_in_whatever_firewall_says() -> None:
    cluster = replace(fake.cluster(1), firewall="ignore")
    node = cluster.nodes[0]
    plan = Plan(PROXY, (NodePlan(node, (), nothing("haproxy"), nothing("keepalived")),), (), 1.0)
    made = planning.admitted(plan, cluster, Survey({node: Facts(selinux=selinux.parse(OFF))}, {}))
    assert made.nodes[0].allows == ("boolean haproxy_connect_any",)
    assert made.nodes[0].summary() == "setsebool -P haproxy_connect_any 1"
    assert made.waves == ()


def test_what_exlb_has_set_is_known_for_the_way_back() -> None:
    assert selinux.parse(f"kept boolean haproxy_connect_any\n{ON}").kept == ("boolean haproxy_connect_any",)
