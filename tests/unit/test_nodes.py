"""The nodes and the virtual addresses of an environment file, and what they contradict each other in."""

from __future__ import annotations

import pytest

from tests.unit.environments import NODES_V6, Value, cluster, fault, faults

OTHER_FAMILY = "write VRRP_IPS=(ADDRESS ...), the IPv{} addresses of the nodes, or VRRP_MODE=multicast"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        *(
            (
                {name: value},
                f"{name}: has a length of {len(value)}, and NODE_IPS (environment.sh:1) of 3; "
                f"write one {'name' if name == 'NODE_NAMES' else 'element'} for each of NODE_IPS, in the same order",
            )
            for name, value in {
                "NODE_NAMES": ["a", "b"],
                "NODE_VIP_IFS": ["eth0"],
                "VRRP_IPS": ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"],
                "PRIORITIES": ["120", "110"],
            }.items()
        ),
        (
            {"NODE_NAMES": ["a", "b", "2001:db8::3"]},
            "NODE_NAMES: 2001:db8::3 is not a host name; write NODE_NAMES=(NAME ...), ",
        ),
        ({"MASTER_VIP": "10.0.0.1"}, "MASTER_VIP: 10.0.0.1 is the address of a node; write an address that no machine"),
        (
            {"EXTRA_VIPS": ["10.0.0.20", "10.0.0.2/24"]},
            "EXTRA_VIPS: 10.0.0.2 is the address of a node; write an address that no machine has",
        ),
        (
            {"VRRP_IPS": ["10.1.0.1", "10.1.0.2", "10.1.0.3"], "MASTER_VIP": "10.1.0.2"},
            "MASTER_VIP: 10.1.0.2 is the address of a node; write an address that no machine has",
        ),
        (
            {"EXTRA_VIPS": ["10.0.0.10/24"]},
            "EXTRA_VIPS: 10.0.0.10 is MASTER_VIP already; write each address only once",
        ),
        (
            {"VRRP_IPS": ["10.1.0.1", "10.1.0.2", "10.1.0.2"]},
            "VRRP_IPS: has 10.1.0.2 2 times; write each only once",
        ),
        (
            {"MASTER_VIP": "2001:db8::10"},
            "NODE_IPS: 10.0.0.1, 10.0.0.2, 10.0.0.3: not of the family of MASTER_VIP (IPv6), which adverts are of; "
            + OTHER_FAMILY.format(6),
        ),
        (
            {"NODE_IPS": ["10.0.0.1", "2001:db8::2", "10.0.0.3"]},
            "NODE_IPS: 2001:db8::2: not of the family of MASTER_VIP (IPv4), which adverts are of; "
            + OTHER_FAMILY.format(4),
        ),
        (
            {"VRRP_IPS": ["10.1.0.1", "2001:db8::2", "10.1.0.3"]},
            "VRRP_IPS: 2001:db8::2: not of the family of MASTER_VIP (IPv4), which adverts are of; "
            + OTHER_FAMILY.format(4),
        ),
        (
            {"VRRP_MODE": "multicast", "VRRP_IPS": ["2001:db8::1", "2001:db8::2", "2001:db8::3"]},
            "VRRP_IPS: 2001:db8::1, 2001:db8::2, 2001:db8::3: not of the family of MASTER_VIP (IPv4), which adverts "
            "are of; write VRRP_IPS=(ADDRESS ...), the IPv4 addresses of the nodes, or leave the line out",
        ),
        (
            {**NODES_V6, "KUBE_APISERVER": "https://[2001:db8::10]:6443"},
            "KUBE_APISERVER: its port is 6443, and APISERVER_DEST_PORT is 8443; write https://[2001:db8::10]:8443",
        ),
        (
            {**NODES_V6, "KUBE_APISERVER": "https://[2001:db8::1]:8443"},
            "KUBE_APISERVER: its host is 2001:db8::1, and MASTER_VIP is 2001:db8::10; "
            "write https://[2001:db8::10]:8443",
        ),
        (
            {"KUBE_APISERVER": "https://10.0.0.20:8443", "EXTRA_VIPS": ["10.0.0.21"]},
            "KUBE_APISERVER: its host is 10.0.0.20, and MASTER_VIP is 10.0.0.10; write https://10.0.0.10:8443",
        ),
    ],
)
def test_nodes_and_addresses_that_do_not_go_together_are_a_fault(values: dict[str, Value], expected: str) -> None:
    assert fault(**values).startswith(expected)


def test_an_address_of_both_lists_of_vips_and_of_a_node_is_told_for_each() -> None:
    found = faults(MASTER_VIP="10.0.0.1", EXTRA_VIPS=["10.0.0.1"])
    assert [line.split(": ")[1] for line in found] == ["MASTER_VIP", "EXTRA_VIPS", "EXTRA_VIPS"]


def test_a_cluster_may_be_all_ipv6() -> None:
    found = cluster(**NODES_V6, KUBE_APISERVER="https://[2001:db8:0::10]:8443")
    assert [str(node.source) for node in found.nodes] == ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
    assert [backend.endpoint for backend in found.apiserver_listener.backends] == [
        f"[2001:db8::{number}]:6443" for number in (1, 2, 3)
    ]
    assert found.vrrp.version == 3


def test_nodes_are_reached_by_one_family_and_send_adverts_in_the_other() -> None:
    sources = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
    found = cluster(MASTER_VIP="2001:db8::10", VRRP_IPS=sources)
    assert [str(node.source) for node in found.nodes] == sources
    assert [str(node.address) for node in found.nodes] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_multicast_asks_no_address_of_the_nodes() -> None:
    found = cluster(MASTER_VIP="2001:db8::10", VRRP_MODE="multicast")
    assert {node.source for node in found.nodes} == {None}


def test_an_extra_vip_may_be_of_the_other_family_and_clients_may_use_it() -> None:
    found = cluster(EXTRA_VIPS=["2001:db8::20/64"], KUBE_APISERVER="https://[2001:db8::20]:8443")
    assert [vip.interface for vip in found.vips] == ["10.0.0.10", "2001:db8::20/64"]
    assert found.vrrp.version == 2


def test_each_node_may_have_an_interface_of_its_own_or_find_it() -> None:
    assert {node.interface for node in cluster(VIP_IF="auto").nodes} == {None}
    assert [node.interface for node in cluster(NODE_VIP_IFS=["eth0", "auto", "bond0"]).nodes] == ["eth0", None, "bond0"]


def test_the_own_address_of_a_node_may_be_its_name_in_any_family() -> None:
    names = ["a", "2001:db8::2", "c"]
    assert [node.name for node in cluster(**NODES_V6, NODE_NAMES=names).nodes] == names
