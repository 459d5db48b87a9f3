"""backend.sh, and what haproxy.sh tells of servers, run here by /bin/sh in a scratch root."""

from __future__ import annotations

import subprocess

import pytest

from exlb_fab.commands.backend import DONE
from exlb_fab.proxies import Admission, ProxyState
from tests.unit.node.machine import BACKEND, PROXY, TOKEN, Machine, proxy_file
from tests.unit.node.test_probe import probed

OTHER = "fedcba9876543210"


def told(machine: Machine, admission: str, *servers: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return machine.run(BACKEND, token, admission, *servers)


def state(text: str) -> ProxyState:
    return PROXY.parse_state(text.partition(f"{DONE}\n")[2])


@pytest.fixture
def two(machine: Machine) -> Machine:
    """A node whose proxy runs servers a and b."""
    machine.put("running-haproxy", proxy_file())
    return machine


@pytest.mark.parametrize("admission", ["ready", "drain", "disable"])
def test_servers_become_what_they_are_told_to_be_and_the_proxy_says_so(two: Machine, admission: Admission) -> None:
    two.put("admin/a", "1\n" if admission == "ready" else "0\n")
    done = told(two, admission, "kube/a", "kube/b")
    assert (done.returncode, done.stderr) == (0, "")
    assert {server.name: server.admission for server in state(done.stdout).servers} == dict.fromkeys("ab", admission)


def test_other_servers_stay_what_they_are(two: Machine) -> None:
    done = told(two, "drain", "kube/b")
    assert {server.name: server.admission for server in state(done.stdout).servers} == {"a": "ready", "b": "drain"}


def test_server_that_the_proxy_does_not_have_is_told_of(two: Machine) -> None:
    done = told(two, "drain", "kube/x", "kube/a")
    assert (done.returncode, done.stdout) == (1, "kube/x: No such server.\n")
    assert not (two.root / "admin/a").exists()


def test_proxy_that_does_not_run_is_told_of(two: Machine) -> None:
    (two.root / "running-haproxy").unlink()
    done = told(two, "drain", "kube/a")
    assert (done.returncode, done.stdout) == (1, "kube/a: socat: Connection refused\n")


def test_session_without_the_lock_changes_nothing(two: Machine) -> None:
    done = told(two, "drain", "kube/a", token=OTHER)
    assert (done.returncode, done.stdout) == (1, "this session has lost its lock on the node\n")
    two.release()
    assert told(two, "drain", "kube/a").returncode == 1
    assert not (two.root / "admin/a").exists()


def test_nothing_is_changed_while_another_change_runs(two: Machine) -> None:
    two.put("running-exlb-apply")
    done = told(two, "drain", "kube/a")
    assert (done.returncode, done.stdout) == (1, "another change runs on the node\n")
    assert not (two.root / "admin/a").exists()


def test_nothing_is_changed_while_the_fault_of_a_drill_is_there(two: Machine) -> None:
    two.put("running-exlb-drill")
    done = told(two, "drain", "kube/a")
    assert (done.returncode, done.stdout) == (1, "a drill on the node is not undone yet\n")
    assert not (two.root / "admin/a").exists()


def test_word_that_is_no_state_is_refused(two: Machine) -> None:
    assert told(two, "ready; shutdown", "kube/a").returncode == 1
    assert not (two.root / "admin/a").exists()


def test_connections_of_processes_from_before_a_reload_are_counted_and_no_others(two: Machine) -> None:
    connections = [
        ("198.51.100.11:40001", "198.51.100.1:6443", "haproxy", 6),
        ("198.51.100.11:40002", "198.51.100.1:6443", "haproxy", 6),
        ("198.51.100.11:40003", "198.51.100.1:6443", "haproxy", 5),
        ("198.51.100.11:40004", "198.51.100.1:6443", "haproxy", 7),  # the one that answers
        ("198.51.100.11:40005", "198.51.100.1:6443", "curl", 9),
        ("198.51.100.11:8443", "198.51.100.77:51000", "haproxy", 6),  # a client's
        ("198.51.100.11:40006", "198.51.100.2:6443", "haproxy", 77),
    ]
    lines = [f'ESTAB 0 0 {own} {peer} users:(("{name}",pid={pid},fd=9))\n' for own, peer, name, pid in connections]
    two.put("sockets/-Htnp", "TIME-WAIT 0 0 198.51.100.11:40007 198.51.100.1:6443\n" + "".join(lines))
    found = PROXY.parse_state(probed(two, "proxy-state")["proxy-state"].text)
    assert found.leaving == {"198.51.100.1:6443": 3, "198.51.100.2:6443": 1}
    assert [server.name for server in found.servers] == ["a", "b"]
