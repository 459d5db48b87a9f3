"""Nodes that join a live entrance, and nodes that leave it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.bastion import KEEPALIVED_PATH, Bastion
from tests.lab.conftest import AddRow


def only(green: Bastion, *names: str) -> Path:
    """Return the environment file of a cluster of some of the nodes."""
    backends = " ".join(map(green.address, green.nodes))
    return green.environment(
        NODE_IPS=f"({' '.join(map(green.address, names))})",
        NODE_NAMES=f"({' '.join(names)})",
        APISERVER_IPS=f"({backends})",
    )


@contextmanager
def joined_again(green: Bastion) -> Iterator[None]:
    """Bring all nodes back into the cluster, whatever happens."""
    try:
        yield
    finally:
        green.exlb("install")
        green.exlb("push-config", "--yes")


@pytest.mark.parametrize("leaver", ["lb3", pytest.param("lb1", marks=pytest.mark.slow)])
def test_peer_that_leaves(green: Bastion, row: AddRow, leaver: str) -> None:
    holder = green.holders() == [leaver]
    stay = [name for name in green.nodes if name != leaver]
    env = only(green, *stay)
    with joined_again(green):
        before = green.bytes_of(leaver)
        asked = green.exlb("push-config", env=env, status=2)
        assert f"{green.address(leaver)} is no peer any more: keepalived is stopped there first" in asked.said
        assert green.bytes_of(leaver) == before
        with green.watched() as watch:
            green.exlb("push-config", "--yes", env=env)
        green.exlb("verify", env=env)
        assert green.inside(leaver, "systemctl", "is-enabled", "keepalived", check=False) == "disabled\n"
        assert green.inside(leaver, "systemctl", "is-active", "keepalived", check=False) == "inactive\n"
        assert green.holders() == stay[:1]
        assert "no changes" in green.exlb("push-config", env=env).said
    if holder:
        assert (watch.seen.moves, watch.seen.most_holders) == (1, 1), watch.seen
    else:
        assert watch.seen.harmless, watch.seen
    row(
        f"a node leaves NODE_IPS: {'the holder' if holder else 'a backup'}",
        "its keepalived is stopped first; never two holders" + ("; one move" if holder else "; 0 failed, 0 moves"),
        watch,
        f"{green.address(leaver)} is no peer any more: keepalived is stopped there first, and stays off at boot",
    )


@pytest.mark.slow
def test_peer_that_joins(green: Bastion, row: AddRow) -> None:
    env = only(green, "lb1", "lb2")
    with joined_again(green):
        green.exlb("push-config", "--yes", env=env)
        assert "198.51.100.13" not in green.inside("lb1", "cat", KEEPALIVED_PATH)
        green.exlb("install")
        with green.watched() as watch:
            ran = green.exlb("push-config", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    assert watch.seen.harmless, watch.seen
    green.exlb("verify")
    row("a node joins NODE_IPS", "never two holders; 0 failed, 0 moves", watch, "changed")
