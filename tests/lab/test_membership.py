"""Nodes and backends that come and go by an edit of environment.sh, seen by clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.bastion import Bastion

LEAVER = "lb3"


def without(green: Bastion, leaver: str) -> Path:
    """Return the environment file of a cluster that one node has left; its apiserver stays."""
    stay = [name for name in green.nodes if name != leaver]
    return green.environment(
        NODE_IPS=f"({' '.join(map(green.address, stay))})",
        NODE_NAMES=f"({' '.join(stay)})",
        APISERVER_IPS=f"({' '.join(map(green.address, green.nodes))})",
    )


@pytest.mark.slow
def test_node_that_leaves_is_cleaned_and_can_come_back(green: Bastion) -> None:
    address, env = green.address(LEAVER), without(green, LEAVER)
    assert "is still in NODE_IPS" in green.exlb("decommission", address, "--yes", status=2).said
    assert (
        f"{address} is still a peer of lb1, lb2" in green.exlb("decommission", address, "--yes", env=env, status=1).said
    )
    with green.watched() as left:
        green.exlb("push-config", "--yes", env=env)
        ran = green.exlb("decommission", address, "--purge", "--yes", "-o", "json", env=env)
    assert ran.results == {address: "changed"}
    assert left.seen.harmless, left.seen
    assert "haproxy" not in green.inside(LEAVER, "dpkg-query", "-W")
    assert green.inside(LEAVER, "find", "/etc", "/var/lib", "-name", "*exlb*") == ""
    assert "nothing to do" in green.exlb("decommission", address, "--purge", env=env).said
    green.exlb("verify", env=env)
    with green.watched() as came:
        green.exlb("install")
        green.exlb("push-config", "--yes")
    assert came.seen.harmless, came.seen
    green.exlb("verify")


@pytest.mark.slow
def test_node_that_cannot_be_reached_is_not_decommissioned(green: Bastion) -> None:
    env = without(green, LEAVER)
    green.exlb("push-config", "--yes", env=env)
    green.lab.cut(LEAVER)
    refused = green.exlb("decommission", green.address(LEAVER), "--yes", env=env, status=4)
    assert "nothing was changed on any node" in refused.said


def test_backends_that_go_and_come_cost_clients_nothing(green: Bastion) -> None:
    with green.watched() as watch:
        gone = next(node for node in green.nodes if node != watch.server)
        stay = [green.address(node) for node in green.nodes if node != gone]
        fewer = green.environment(APISERVER_IPS=f"({' '.join(stay)})")
        assert set(green.exlb("push-config", "-o", "json", env=fewer).results.values()) == {"changed"}
        assert green.exlb("verify", env=fewer).said.count("UP L7OK") == 2 * len(green.nodes)
        assert set(green.exlb("push-config", "-o", "json").results.values()) == {"changed"}
        assert green.exlb("verify").said.count("UP L7OK") == 3 * len(green.nodes)
    assert watch.seen.harmless, watch.seen
