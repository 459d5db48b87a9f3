"""What a cluster is made of: how its parts are called, and what they keep to themselves."""

import copy
import pickle
from ipaddress import IPv4Address

import pytest

from exlb_fab.cluster import Apiserver, Listener, Node, Secret, SshSettings, Stats, Sudo, Vip

ADDRESS = IPv4Address("10.0.0.1")


def test_a_node_is_labelled_with_its_name_and_its_address_once() -> None:
    named, unnamed = Node("a", ADDRESS, "eth0", 0), Node("10.0.0.1", ADDRESS, "eth0", 0)
    assert (str(named), named.label) == ("a", "a (10.0.0.1)")
    assert (str(unnamed), unnamed.label) == ("10.0.0.1", "10.0.0.1")


def test_the_statistics_page_is_for_the_node_itself_unless_it_has_a_password() -> None:
    assert Stats(10080, "admin", None).bind == "127.0.0.1"
    assert Stats(10080, "admin", Secret("secret")).bind == "0.0.0.0"


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
    backend = Apiserver("apiserver-1", "10.0.0.2", 6443)
    listener = Listener("kube-master", 8443, (backend,), "readyz", "source")
    assert [str(Vip(ADDRESS, 24)), str(listener), str(backend)] == ["10.0.0.1", "kube-master", "apiserver-1"]


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
