"""What `verify` and the others say when something is broken: never green while a client is refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from exlb_fab.lab import Lab
from tests.lab.bastion import Bastion

# A limit and no bound: what a takeover may cost is measured elsewhere, alone on the machine.
TAKEOVER_SECONDS = 90


def test_all_proxies_stopped_is_red_although_the_vip_pings(green: Bastion) -> None:
    for node in green.nodes:
        green.inside(node, "systemctl", "stop", "haproxy")
    ran = green.exlb("verify", "-o", "json", status=1)
    failed = green.verdicts(ran, "fail")
    assert {("vip.ping", node) for node in green.nodes} <= green.verdicts(ran, "pass")
    assert {("vip.request", node) for node in green.nodes} <= failed
    assert {("node.proxy", node) for node in green.nodes} <= failed


@pytest.mark.slow
def test_proxy_stopped_on_the_holder_is_red_until_clients_are_served_again(green: Bastion) -> None:
    (holder,) = green.holders()
    others = [node for node in green.nodes if node != holder]
    green.inside(holder, "systemctl", "stop", "haproxy")
    ran = green.exlb("verify", "-o", "json", status=1)
    assert ("node.proxy", holder) in green.verdicts(ran, "fail")
    green.wait_until(lambda: green.holders() == others[:1] and green.served(), TAKEOVER_SECONDS)
    ran = green.exlb("verify", "-o", "json", status=1)
    assert {("vip.request", node) for node in green.nodes} <= green.verdicts(ran, "pass")
    assert green.verdicts(ran, "pass") >= {("vip.single-holder", None), ("backend.any", None)}
    stopped = next(v for v in ran.json["verdicts"] if (v["check"], v["node"]) == ("node.proxy", holder))
    assert "haproxy" in stopped["cause"]
    assert stopped["hint"] == f"exlb restart haproxy --nodes {holder}"
    green.inside(holder, "systemctl", "start", "haproxy")
    green.wait_until(lambda: green.exlb("verify", status=None).status == 0, TAKEOVER_SECONDS)


@pytest.mark.parametrize("victim", ["lb3", pytest.param("lb1", marks=pytest.mark.slow)])
def test_one_node_without_power_is_named_and_the_others_are_looked_at(
    green: Bastion, deployed_lab: Lab, victim: str
) -> None:
    before = green.inside("lb2", "sha256sum", "/etc/haproxy/haproxy.cfg")
    deployed_lab.poweroff(victim)
    others = [node for node in green.nodes if node != victim]
    green.wait_until(lambda: len(green.holders()) == 1 and green.served(), TAKEOVER_SECONDS)
    green.wait_until(lambda: green.exlb("verify", status=None).status == 4, TAKEOVER_SECONDS)
    ran = green.exlb("verify", "-o", "json", status=4)
    assert green.verdicts(ran, "fail") == {("node.ssh", victim)}
    rows = {row["node"]: row["result"] for row in green.exlb("install", "-o", "json", status=4).json["nodes"]}
    assert rows == {victim: "unreachable", **dict.fromkeys(others, "unchanged")}
    ran = green.exlb("exec", "--", "hostname", status=4)
    assert [line for line in ran.stdout.splitlines() if line in green.nodes] == others
    assert f">>> {victim}: cannot connect" in ran.said
    env = green.environment(BALANCE="leastconn")
    ran = green.exlb("push-config", env=env, status=4)
    assert victim in ran.said
    assert "--skip-unreachable" in ran.said
    assert green.inside("lb2", "sha256sum", "/etc/haproxy/haproxy.cfg") == before
    deployed_lab.boot(victim)


@pytest.mark.slow
def test_skip_unreachable_pushes_to_the_others(green: Bastion, deployed_lab: Lab) -> None:
    deployed_lab.cut("lb3")
    # What the dead apiserver costs clients until the proxies see it is not what is asked here.
    green.wait_until(
        lambda: green.exlb("verify", status=None).said.count("2 of 3 up") == 2 and green.served(), TAKEOVER_SECONDS
    )
    env = green.environment(BALANCE="leastconn")
    with green.watched() as watch:
        ran = green.exlb("push-config", "--skip-unreachable", "-o", "json", env=env, status=4)
    assert watch.seen.failed == 0
    assert {row["node"]: row["result"] for row in ran.json["nodes"]} == {
        "lb1": "changed",
        "lb2": "changed",
        "lb3": "unreachable",
    }
    deployed_lab.boot("lb3")


@pytest.mark.slow
def test_failing_repository_shows_the_package_managers_own_last_lines(green: Bastion) -> None:
    green.inside("lb3", "apt-get", "purge", "-y", "socat")
    sources = Path("/etc/apt/sources.list")
    original = green.inside("lb3", "cat", str(sources))
    green.inside("lb3", "sh", "-c", f"echo 'deb [trusted=yes] file:/nowhere ./' >{sources}")
    ran = green.exlb("install", "-o", "json", status=1)
    rows = {row["node"]: row for row in ran.json["nodes"]}
    assert rows["lb3"]["result"] == "failed"
    assert "Unable to locate package socat" in rows["lb3"]["detail"]
    green.inside("lb3", "sh", "-c", f"printf '%s' '{original}' >{sources}")
    green.exlb("install")


def test_install_waits_for_another_package_manager(green: Bastion) -> None:
    green.inside("lb3", "apt-get", "purge", "-y", "socat")
    # Another apt-get, which holds the lock while its hook runs.
    hook = "DPkg::Pre-Invoke::=touch /run/locked; sleep 600"
    words = ["apt-get", "-y", "-o", hook, "install", "--reinstall", "psmisc"]
    green.inside("lb3", "systemd-run", "--unit=other-manager", *words)
    green.wait_until(lambda: "locked" in green.inside("lb3", "ls", "/run"))
    try:
        ran = green.exlb("install", "--package-lock-wait", "2", status=1)
        assert "/var/lib/dpkg/lock-frontend is held by process" in ran.said
    finally:
        green.inside("lb3", "systemctl", "stop", "other-manager")
    green.exlb("install")


def test_ctrl_c_lets_what_runs_end_and_exits_130(green: Bastion) -> None:
    # It ends when it is told to, or by itself after half a minute.
    waits = "echo began >/run/began; timeout 30 sh -c 'until [ -e /run/go ]; do sleep 0.1; done'; echo ended"
    process = green.start("exec", "--parallel", "1", "--", "sh", "-c", waits)
    green.wait_until(lambda: green.inside("lb1", "sh", "-c", "ls /run/began || true") != "")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"Ctrl-C again ends at once" in process.stderr.readline()
    green.inside("lb1", "touch", "/run/go")
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b">>> lb1\nended" in stdout
    assert b">>> lb3: not started: interrupted" in stdout
    assert "began" not in green.inside("lb3", "ls", "/run")
