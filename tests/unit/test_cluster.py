"""What a cluster is made of: how its parts are called, and what they keep to themselves."""

import copy
import pickle
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from exlb_fab.cluster import Backend, Bind, Node, Secret, SshSettings, Sudo, Vip, bracketed
from tests.fake import PROXYING, VRRP, cluster

ADDRESS = IPv4Address("10.0.0.1")


def test_a_node_is_labelled_with_its_name_and_its_address_once() -> None:
    named, unnamed = Node("a", ADDRESS, "eth0", 0, 120, None), Node("10.0.0.1", ADDRESS, "eth0", 0, 120, None)
    assert (str(named), named.label) == ("a", "a (10.0.0.1)")
    assert (str(unnamed), unnamed.label) == ("10.0.0.1", "10.0.0.1")


@pytest.mark.parametrize(
    ("sudo", "user", "expected"),
    [
        ("auto", "root", False),
        ("auto", "ann", True),
        ("yes", "root", True),
        ("yes", "ann", True),
        ("no", "root", False),
        ("no", "ann", False),
    ],
)
def test_sudo_is_used_by_everyone_but_root_unless_told_otherwise(sudo: Sudo, user: str, expected: bool) -> None:
    assert SshSettings(user, 22, None, None, None, sudo).uses_sudo is expected


def test_things_are_called_by_what_people_call_them() -> None:
    listener = cluster().apiserver_listener
    backend = Backend("apiserver-1", "10.0.0.2", 6443)
    assert [str(Vip(ADDRESS, 24)), str(listener), str(backend)] == ["10.0.0.1", "kube-master", "apiserver-1"]


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [("10.0.0.1", "10.0.0.1:1"), ("api.example.org", "api.example.org:1"), ("2001:db8::1", "[2001:db8::1]:1")],
)
def test_only_an_ipv6_address_is_in_brackets_before_a_port(host: str, endpoint: str) -> None:
    assert Backend("a", host, 1).endpoint == f"{bracketed(host)}:1" == endpoint


def test_keepalived_gets_a_vip_with_its_prefix_where_it_has_one() -> None:
    assert [Vip(ADDRESS, 24).interface, Vip(ADDRESS, None).interface] == ["10.0.0.1/24", "10.0.0.1"]
    assert Vip(IPv6Address("2001:db8::1"), 64).interface == "2001:db8::1/64"


FOUR, SIX = Vip(IPv4Address("198.51.100.100"), None), Vip(IPv6Address("2001:db8::100"), None)


@pytest.mark.parametrize(
    ("bind", "vips", "expected"),
    [
        ("all", (FOUR,), ["0.0.0.0"]),
        ("all", (SIX,), ["0.0.0.0", "::"]),
        ("all", (FOUR, SIX), ["0.0.0.0", "::"]),
        ("vip", (FOUR, SIX), ["198.51.100.100", "2001:db8::100", "127.0.0.1"]),
        ("node", (FOUR, SIX), ["198.51.100.100", "2001:db8::100", "198.51.100.11"]),
    ],
)
def test_the_proxy_listens_on_what_bind_says_in_every_family_that_is_needed(
    bind: Bind, vips: tuple[Vip, ...], expected: list[str]
) -> None:
    found = cluster(proxying=replace(PROXYING, bind=bind), vip=vips[0], extra_vips=vips[1:])
    assert list(map(str, found.addresses(found.nodes[0]))) == expected


@pytest.mark.parametrize("bind", ["all", "vip", "node"])
@pytest.mark.parametrize("address", ["198.51.100.11", "2001:db8::11"])
def test_a_node_reaches_its_own_proxy_by_an_address_that_this_listens_on(bind: Bind, address: str) -> None:
    made = cluster(proxying=replace(PROXYING, bind=bind))
    node = replace(made.nodes[0], address=(IPv6Address if ":" in address else IPv4Address)(address))
    own = made.own_address(node)
    assert any(each == own or (each.is_unspecified and each.version == own.version) for each in made.addresses(node))


def test_the_highest_priority_is_the_master_and_the_first_of_equal_ones() -> None:
    made = cluster(3)
    roles = [made.role(node) for node in made.nodes]
    assert roles == ["MASTER", "BACKUP", "BACKUP"]
    turned = tuple(replace(node, priority=priority) for node, priority in zip(made.nodes, (100, 110, 110), strict=True))
    found = replace(made, nodes=turned)
    assert [found.role(node) for node in turned] == ["BACKUP", "MASTER", "BACKUP"]
    assert found.priorities == (100, 110, 110)


def test_without_preemption_all_nodes_begin_as_backups() -> None:
    made = cluster(vrrp=replace(VRRP, preempt=False))
    assert {made.role(node) for node in made.nodes} == {"BACKUP"}


def test_a_secret_is_shown_by_nothing_but_reveal() -> None:
    secret = Secret("hush")
    shown = [str(secret), repr(secret), f"{secret}", f"{secret:>20}", "%s %r" % (secret, secret), repr([secret])]  # noqa: UP031
    assert not [text for text in shown if "hush" in text]
    assert secret.reveal() == "hush"
    assert not hasattr(secret, "__dict__")


def test_secrets_are_equal_when_their_texts_are_and_survive_copies() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert copy.deepcopy(Secret("a")) == pickle.loads(pickle.dumps(Secret("a"))) == Secret("a")
