"""exlb ssh: what the system's ssh is told, and what it makes of it."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exlb_fab.commands.ssh_into import SshIntoOptions, ssh_into
from exlb_fab.errors import UsageError
from tests.fake import cluster

STRICT = ["ssh", "-o", "StrictHostKeyChecking=yes"]


def words(node: str = "lb1", *command: str, check: str = "strict", **settings: Any) -> list[str]:
    plain = cluster()
    return ssh_into(replace(plain, ssh=replace(plain.ssh, **settings)), SshIntoOptions(node, command, check))


def understood(words: list[str]) -> dict[str, str]:
    """Return what ssh itself says that it would do; nothing is connected to."""
    done = subprocess.run([words[0], "-F", "none", "-G", *words[1:]], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_options_are_those_of_the_environment_file() -> None:
    found = words(user="eva", port=2222, key=Path("/keys/a key"), known_hosts=Path("/keys/known hosts"))
    assert found == [
        *STRICT,
        "-o", 'UserKnownHostsFile="/keys/known hosts"', "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", 'IdentityFile="/keys/a key"', "-l", "eva", "-p", "2222", "198.51.100.11",
    ]  # fmt: skip
    said = understood(found)
    assert (said["user"], said["port"], said["hostname"]) == ("eva", "2222", "198.51.100.11")
    assert said["stricthostkeychecking"] == "true"
    assert said["userknownhostsfile"] == "/keys/known hosts"
    assert said["identityfile"] == "/keys/a key"


@pytest.mark.parametrize("node", ["lb2", "198.51.100.12", "*2"])
def test_node_is_named_as_everywhere(node: str) -> None:
    assert words(node)[-1] == "198.51.100.12"


def test_name_of_none_or_of_several_nodes_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^web: no such node") as raised:
        words("web")
    assert "lb1" in str(raised.value.hint)
    with pytest.raises(UsageError, match="are several nodes: lb1"):
        words("lb*")


def test_command_arrives_with_the_words_that_it_was_typed_in() -> None:
    assert shlex.split(words("lb1", "echo", "a  b", "$HOME; false")[-1]) == ["echo", "a  b", "$HOME; false"]


@pytest.mark.parametrize(("check", "said"), [("strict", "true"), ("accept-new", "accept-new"), ("no", "false")])
def test_host_keys_are_checked_as_exlb_does(check: str, said: str) -> None:
    found = understood(words(check=check, known_hosts=Path("/keys/known_hosts")))
    assert found["stricthostkeychecking"] == said
    assert found["userknownhostsfile"] == ("/dev/null" if check == "no" else "/keys/known_hosts")


def test_gateway_gets_the_same_key_and_the_same_checks() -> None:
    found = words(gateway="ann@gate.example.org:2200", key=Path("/keys/50%"), known_hosts=Path("/keys/known hosts"))
    (way,) = [word.removeprefix("ProxyCommand=") for word in found if word.startswith("ProxyCommand=")]
    # What ssh does with it: tokens, then a shell.
    hop = shlex.split(way.replace("%h", "198.51.100.11").replace("%p", "22").replace("%%", "%"))
    assert hop == [
        *STRICT,
        "-o", 'UserKnownHostsFile="/keys/known hosts"', "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", 'IdentityFile="/keys/50%%"',
        "-W", "[198.51.100.11]:22", "ssh://ann@gate.example.org:2200",
    ]  # fmt: skip
    said = understood(hop)
    assert (said["hostname"], said["port"], said["user"]) == ("gate.example.org", "2200", "ann")
    assert said["userknownhostsfile"] == "/keys/known hosts"


def test_second_gateway_is_reached_through_the_first() -> None:
    found = understood(words(gateway="one.example.org,two.example.org"))
    outer = shlex.split(found["proxycommand"].replace("%%", "%"))
    assert outer[-1] == "two.example.org"
    assert "one.example.org" in next(word for word in outer if word.startswith("ProxyCommand="))


def test_gateway_with_an_ipv6_address_is_not_taken_for_one_with_a_port() -> None:
    (way,) = [word for word in words(gateway="ann@2001:db8::1") if word.startswith("ProxyCommand=")]
    assert way.endswith(" ann@2001:db8::1")
