"""doctor on fresh nodes: what it leaves untouched, and what the matrix of verdicts (conditions/doctor.py) lacks."""

from __future__ import annotations

import pytest

from exlb_fab.lab import Lab
from exlb_fab.lab.layout import LAB_BRIDGE, NODE_INTERFACE
from tests.lab.bastion import Bastion
from tests.lab.conditions.base import ALL, Look
from tests.lab.conditions.doctor import prepare
from tests.ran import Ran

Finding = tuple[str, str | None, str]  # check, node (None: all together), status

OTHER_NETWORK = "2001:db8:7::1/64"


def findings(ran: Ran) -> set[Finding]:
    """Return the verdicts that are no pass."""
    look = Look.of(ran)
    assert not look.words
    return {(each.check, each.node, each.status) for each in (*look.said, *look.skipped)}


def everywhere(check: str, status: str) -> frozenset[Finding]:
    return frozenset((check, node, status) for node in ALL)


@pytest.fixture(scope="module")
def watched_lab(fresh_lab: Lab) -> Lab:
    """Three nodes on which exlb has not been, and that can be asked all."""
    prepare(fresh_lab)
    return fresh_lab


@pytest.fixture
def watched(watched_lab: Lab, bastion: Bastion) -> Bastion:
    """exlb on the bastion of a lab whose nodes can be asked all."""
    assert bastion.lab is watched_lab
    return bastion


STATE = """
{ dpkg-query -W; systemctl list-unit-files --no-legend; ip -o addr show; nft list ruleset 2>/dev/null
find /etc /usr/local /var/lib /var/cache /root -xdev -type f -newer /run/mark; } | sort
"""


def state(bastion: Bastion, node: str) -> frozenset[str]:
    return frozenset(bastion.inside(node, "sh", "-c", STATE).splitlines())


# Before the others, which bring what it says is not there.
def test_fresh_nodes_are_green_and_nothing_of_them_is_changed(bastion: Bastion) -> None:
    for node in ALL:
        # What still starts may write something of its own.
        bastion.inside(node, "sh", "-c", "systemctl is-system-running --wait >/dev/null; touch /run/mark")
    # An address is tentative at first. Source: RFC 4862 2.
    bastion.wait_until(lambda: not any(bastion.inside(node, "ip", "-o", "addr", "show", "tentative") for node in ALL))
    before = {node: state(bastion, node) for node in ALL}
    sessions = {node: bastion.sessions(node) for node in ALL}
    ran = bastion.exlb("doctor", "-o", "json")
    # Their image has no lists of the repository and no tcpdump.
    assert findings(ran) == everywhere("system.packages", "warn") | everywhere("segment.vrid", "warn")
    assert {node: state(bastion, node) ^ before[node] for node in ALL} == dict.fromkeys(ALL, frozenset())
    assert {node: bastion.sessions(node) for node in ALL} == {node: count + 1 for node, count in sessions.items()}


def test_versions_that_would_be_installed_are_those_that_are(watched: Bastion) -> None:
    ran = watched.exlb("doctor", "-o", "json", "--only", "system.packages")
    said = next(each["text"] for each in ran.json["verdicts"] if each["check"] == "system.packages")
    candidate = watched.inside("lb1", "sh", "-c", "apt-cache policy keepalived | sed -n 's/^  Candidate: //p'").strip()
    assert candidate
    assert f"keepalived {candidate}" in said


@pytest.mark.slow
def test_vip_if_of_one_node_has_no_network_with_the_vip(watched: Bastion) -> None:
    env = watched.environment(NODE_VIP_IFS=f"(other0 {NODE_INTERFACE} {NODE_INTERFACE})")
    with watched.broken(
        "lb1",
        "ip link add other0 type veth peer name other1 && ip link set other0 up && ip link set other1 up && "
        f"ip addr add {OTHER_NETWORK} dev other0",
        "ip link del other0",
    ):
        ran = watched.exlb("doctor", "-o", "json", env=env, status=1)
    assert findings(ran) == {("network.interface", "lb1", "fail")}
    assert "other0 has no network with 198.51.100.100" in ran.stdout
    assert f"VIP_IF={NODE_INTERFACE}" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["IPv6", "both families", "interfaces that are found", "as operator"])
def test_other_healthy_nodes_are_green_too(watched: Bastion, variant: str) -> None:
    sources = f"({' '.join(node.address6 for node in watched.lab.nodes)})"
    variables = {
        "IPv6": {"MASTER_VIP": f"{watched.lab.vip6}/64", "VRRP_IPS": sources, "KUBE_APISERVER": ""},
        "both families": {"EXTRA_VIPS": f"({watched.lab.vip6}/64)"},
        "interfaces that are found": {"VIP_IF": "auto"},
        "as operator": {"SSH_USER": "operator"},
    }
    assert findings(watched.exlb("doctor", "-o", "json", env=watched.environment(**variables[variant]))) == set()


@pytest.mark.slow
def test_vip6_that_another_host_has_is_found_by_ndp(watched: Bastion) -> None:
    sources = f"({' '.join(node.address6 for node in watched.lab.nodes)})"
    env = watched.environment(MASTER_VIP=f"{watched.lab.vip6}/64", VRRP_IPS=sources, KUBE_APISERVER="")
    words = [f"{watched.lab.vip6}/128", "dev", LAB_BRIDGE]
    assert watched.lab.run(["ip", "addr", "add", *words, "nodad"], capture=True).returncode == 0
    try:
        ran = watched.exlb("doctor", "-o", "json", env=env, status=1)
    finally:
        watched.lab.run(["ip", "addr", "del", *words], capture=True)
    assert findings(ran) == everywhere("segment.vip", "fail")
    assert findings(watched.exlb("doctor", "-o", "json", env=env)) == set()
