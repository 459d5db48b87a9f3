"""What exlb sets on a node's system, on real machines: drop-ins, kernel settings, and the guard against networkd."""

from __future__ import annotations

from pathlib import Path

import pytest

from exlb_fab.proxies import PROXIES
from exlb_fab.system import NETWORKD, SYSCTL_PATH, drop_in_path
from tests.lab.bastion import Bastion

NETWORK_PARTS = f"{NETWORKD}/10-lab.network.d"
GUARD = f"{NETWORK_PARTS}/exlb.conf"
DROPS = f"{NETWORK_PARTS}/00-drops.conf"  # the lab's own .network file keeps foreign addresses
SMALL = "/etc/systemd/system/haproxy.service.d/00-small.conf"
CANARY = "198.51.100.201"
# Within what a machine of the lab may open: 20,000 files where its host has no CAP_SYS_RESOURCE.
MAXCONN = 9000
LIMIT_SECONDS = 90


def exists(green: Bastion, node: str, path: str) -> bool:
    return green.inside(node, "sh", "-c", f"if [ -e {path} ]; then echo yes; fi") != ""


def main_pid(green: Bastion, node: str, unit: str) -> str:
    return green.inside(node, "systemctl", "show", "-p", "MainPID", "--value", unit).strip()


def has_address(green: Bastion, node: str, address: str) -> bool:
    return f" {address}/" in green.inside(node, "ip", "-o", "addr", "show")


def file_limit(green: Bastion, node: str) -> int:
    """Return the hard limit of open files that the proxy runs with."""
    limits = green.inside(node, "cat", f"/proc/{main_pid(green, node, 'haproxy')}/limits")
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    return int(line.split()[4])


def passes(green: Bastion, env: Path) -> bool:
    return green.exlb("verify", env=env, status=None).status == 0


def test_proxy_of_a_backup_listens_on_the_vip_before_it_holds_it_and_binding_all_takes_the_setting_away(
    green: Bastion,
) -> None:
    env = green.environment(BIND="vip")
    with green.watched() as watch:
        green.exlb("push-config", "--yes", env=env)
    assert watch.seen.harmless, watch.seen
    green.wait_until(lambda: passes(green, env), LIMIT_SECONDS)
    assert green.holders() == ["lb1"]
    for node in green.nodes:
        listening = green.inside(node, "ss", "-Hltn").split()
        assert f"{green.lab.vip}:8443" in listening
        assert "0.0.0.0:8443" not in listening
        assert green.inside(node, "cat", "/proc/sys/net/ipv4/ip_nonlocal_bind") == "1\n"
    assert "no changes" in green.exlb("push-config", env=env).said
    # A start has no old process to take the sockets from.
    green.inside("lb2", "systemctl", "restart", "haproxy")
    green.wait_until(lambda: passes(green, env), LIMIT_SECONDS)
    green.exlb("push-config", "--yes")
    assert not any(exists(green, node, SYSCTL_PATH) for node in green.nodes)
    green.wait_until(green.all_pass, LIMIT_SECONDS)


@pytest.mark.slow
def test_drift_of_a_file_of_the_system_is_found_and_mended(green: Bastion) -> None:
    path = drop_in_path("keepalived")
    green.inside("lb2", "rm", path)
    assert ("node.files", "lb2") in green.verdicts(green.exlb("verify", "-o", "json", status=1), "fail")
    green.exlb("push-config")
    assert exists(green, "lb2", path)
    assert green.inside("lb2", "systemctl", "show", "-p", "NeedDaemonReload", "--value", "keepalived").strip() == "no"
    green.wait_until(green.all_pass, LIMIT_SECONDS)


@pytest.mark.slow
def test_maxconn_raises_the_file_limit_of_a_unit_that_has_too_small_a_one(green: Bastion) -> None:
    wanted = PROXIES["haproxy"].file_limit(MAXCONN)
    folder = SMALL.rpartition("/")[0]
    put = f"mkdir -p {folder} && printf '[Service]\\nLimitNOFILE=5000\\n' >{SMALL} && systemctl daemon-reload"
    env = green.environment(MAXCONN=str(MAXCONN))
    with green.broken("lb3", put, f"rm {SMALL} && systemctl daemon-reload"):
        green.exlb("push-config", "--yes", env=env)
        assert not exists(green, "lb2", drop_in_path("haproxy"))  # what every unit gets is enough
        assert exists(green, "lb3", drop_in_path("haproxy"))
        green.inside("lb3", "systemctl", "restart", "haproxy")
        assert file_limit(green, "lb3") == wanted
        green.wait_until(lambda: passes(green, env), LIMIT_SECONDS)
    # Without the small limit nothing is missing any more.
    green.exlb("push-config", "--yes", env=env)
    assert not exists(green, "lb3", folder)
    assert file_limit(green, "lb3") == wanted  # until its next start


@pytest.mark.parametrize("unit", [pytest.param("haproxy", marks=pytest.mark.slow), "keepalived"])
def test_unit_whose_main_process_is_killed_runs_again(green: Bastion, unit: str) -> None:
    before = main_pid(green, "lb3", unit)
    green.inside("lb3", "kill", "-KILL", before)
    green.wait_until(lambda: main_pid(green, "lb3", unit) not in ("0", before), LIMIT_SECONDS)
    green.wait_until(green.all_pass, LIMIT_SECONDS)


def reconfigured(green: Bastion, node: str) -> None:
    """Restart networkd, and have it set up the node's interface anew; return when it has done so."""
    green.inside(node, "systemctl", "restart", "systemd-networkd")
    networkctl = "networkctl --no-pager -n 0 status host0"
    green.wait_until(lambda: "10-lab.network" in green.inside(node, "sh", "-c", networkctl), LIMIT_SECONDS)
    index = green.inside(node, "cat", "/sys/class/net/host0/ifindex").strip()
    state = ("stat", "-c", "%.Y", f"/run/systemd/netif/links/{index}")
    before = green.inside(node, *state)
    green.inside(node, "networkctl", "reconfigure", "host0")
    green.wait_until(lambda: green.inside(node, *state, check=False) not in (before, ""), LIMIT_SECONDS)


def test_networkd_that_sets_the_interface_anew_leaves_the_vip_where_it_is(green: Bastion) -> None:
    put = f"mkdir -p {NETWORK_PARTS} && printf '[Network]\\nKeepConfiguration=no\\n' >{DROPS}"
    # What is no longer guarded takes the VIP away from nobody: the machine that is left has the lab's own file.
    with green.broken("lb1", put, f"rm {DROPS}"), green.broken("lb3", put, f"rm {DROPS}"):
        # Without a guard it takes away what it did not set.
        green.inside("lb3", "ip", "addr", "add", f"{CANARY}/32", "dev", "host0")
        reconfigured(green, "lb3")
        green.wait_until(lambda: not has_address(green, "lb3", CANARY), LIMIT_SECONDS)
        green.exlb("push-config")
        assert exists(green, "lb1", GUARD)
        assert not exists(green, "lb2", GUARD)
        with green.watched() as watch:
            reconfigured(green, "lb1")
            green.wait_until(green.served)
        # A packet may be lost while networkd sets the node's own address again: a request then waits for the next one.
        seen = watch.seen
        assert (seen.moves, seen.most_holders, seen.long_lived) == (0, 1, True), seen
        green.wait_until(green.all_pass, LIMIT_SECONDS)
    # The lab's own file says so again: the guard is needed no more.
    green.exlb("push-config")
    assert not any(exists(green, node, NETWORK_PARTS) for node in green.nodes)
    green.wait_until(green.all_pass, LIMIT_SECONDS)


@pytest.mark.slow
def test_rollback_to_0_leaves_nothing_of_ours_on_the_system(green: Bastion) -> None:
    env = green.environment(BIND="vip")
    green.exlb("push-config", "--yes", env=env)
    green.exlb("rollback", "--to", "0", "--yes")
    for node in green.nodes:
        for path in (SYSCTL_PATH, *(drop_in_path(unit).rpartition("/")[0] for unit in ("haproxy", "keepalived"))):
            assert not exists(green, node, path), (node, path)
        assert green.inside(node, "systemctl", "show", "-p", "Restart", "--value", "keepalived").strip() == "no"
