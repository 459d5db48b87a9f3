"""exlb ssh, up to the point where ssh takes the place of exlb."""

from __future__ import annotations

import os

import pytest

from tests.cli.conftest import Site


class ReplacedError(Exception):
    """The process is another program from here on."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect what would take the place of exlb."""
    found: list[list[str]] = []

    def execvp(program: str, words: list[str]) -> None:
        assert program == words[0]
        found.append(words)
        raise ReplacedError

    monkeypatch.setattr(os, "execvp", execvp)
    return found


def test_ssh_takes_the_place_of_exlb_and_no_node_was_contacted(green: Site, started: list[list[str]]) -> None:
    with pytest.raises(ReplacedError):
        green.exlb("ssh", "lb2", "--host-key-check", "accept-new", "--", "uptime", "-p")
    assert started == [
        ["ssh", "-o", "StrictHostKeyChecking=accept-new", "-l", "root", "-p", "22", "198.51.100.12", "uptime -p"]
    ]
    assert not any(node.calls for node in green.fleet)


def test_host_without_ssh_is_told_of(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(program: str, words: list[str]) -> None:
        raise FileNotFoundError(2, "No such file or directory", program)

    monkeypatch.setattr(os, "execvp", absent)
    assert "there is no ssh on this host" in green.exlb("ssh", "lb1", status=2).said


def test_node_is_the_argument(green: Site, started: list[list[str]]) -> None:
    assert "no such node" in green.exlb("ssh", "web", status=2).said
    green.exlb("ssh", "lb1", "--nodes", "lb2", status=2)
    assert started == []
