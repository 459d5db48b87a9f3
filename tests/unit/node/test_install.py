"""install.sh, run here by /bin/sh in a scratch root."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.unit.node.machine import Machine


def installed(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    machine.put("proc-locks")
    return machine.run(("install.sh",), *args)


def test_install_runs_the_manager_and_enables_the_units(machine: Machine) -> None:
    done = installed(machine, "apt-get", "5", "haproxy,keepalived", "haproxy", "socat")
    assert done.returncode == 0
    assert [line for line in machine.log if line.startswith(("apt-get", "systemctl"))] == [
        "apt-get -o DPkg::Lock::Timeout=5 update",
        "apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=5 -o Dpkg::Options::=--force-confdef"
        " -o Dpkg::Options::=--force-confold install haproxy socat",
        "systemctl enable haproxy.service",
        "systemctl enable keepalived.service",
    ]


def test_install_without_packages_runs_no_manager(machine: Machine) -> None:
    assert installed(machine, "apt-get", "5", "keepalived").returncode == 0
    assert machine.log == ["systemctl enable keepalived.service"]


def test_install_without_units_enables_none(machine: Machine) -> None:
    assert installed(machine, "dnf", "5", "", "socat").returncode == 0
    assert [line for line in machine.log if not line.startswith("stat ")] == ["dnf -y install socat"]


def test_upgrade_by_dnf_does_not_believe_what_it_remembers_of_the_repositories(machine: Machine) -> None:
    assert installed(machine, "dnf-upgrade", "5", "", "haproxy").returncode == 0
    assert [line for line in machine.log if not line.startswith("stat ")] == [
        "dnf -q clean expire-cache",
        "dnf -y upgrade haproxy",
    ]


@pytest.mark.parametrize(("manager", "fault"), [("apt-get", "apt-get-install"), ("dnf", "dnf")])
def test_failing_manager_is_heard_and_no_unit_is_enabled(machine: Machine, manager: str, fault: str) -> None:
    machine.put(f"fail/{fault}", "E: Unable to locate package haproxy\n")
    done = installed(machine, manager, "5", "haproxy", "haproxy")
    assert done.returncode == 1
    assert "E: Unable to locate package haproxy" in done.stdout
    assert not any(line.startswith("systemctl") for line in machine.log)


def test_repository_that_fails_does_not_matter_if_the_packages_can_be_had(machine: Machine) -> None:
    machine.put("fail/apt-get-update", "E: The repository does not have a Release file.\n")
    assert installed(machine, "apt-get", "5", "haproxy", "haproxy").returncode == 0


def test_unit_that_cannot_be_enabled_is_a_failure(machine: Machine) -> None:
    machine.put("fail/systemctl-enable-haproxy", "Unit file haproxy.service does not exist.\n")
    done = installed(machine, "dnf", "5", "haproxy,keepalived", "haproxy")
    assert done.returncode == 1
    assert "Unit file haproxy.service does not exist." in done.stdout


def test_unknown_manager_is_refused(machine: Machine) -> None:
    done = installed(machine, "pacman", "5", "haproxy", "haproxy")
    assert done.returncode == 64
    assert "unknown package manager pacman" in done.stdout
    assert machine.log == []


def test_manager_that_another_process_keeps_waiting_names_it(machine: Machine) -> None:
    lock = machine.root / "locks/lock-frontend"
    lock.touch()
    line = f"1: POSIX  ADVISORY  WRITE {os.getpid()} 08:01:{lock.stat().st_ino} 0 EOF\n"
    machine.put("proc-locks", line)
    done = machine.run(("install.sh",), "apt-get", "0", "haproxy", "haproxy")
    assert done.returncode == 75
    assert f"{lock} is held by process {os.getpid()} (" in done.stdout
    assert "for more than 0 s" in done.stdout
    assert not any(line.startswith("apt-get") for line in machine.log)


def test_install_goes_on_when_the_other_package_manager_has_ended(machine: Machine) -> None:
    lock = machine.root / "locks/lock-frontend"
    lock.touch()
    machine.put("proc-locks", f"1: POSIX  ADVISORY  WRITE {os.getpid()} 08:01:{lock.stat().st_ino} 0 EOF\n")
    machine.put("on-sleep", ': >"$ROOT/proc-locks"')
    done = machine.run(("install.sh",), "apt-get", "60", "", "haproxy")
    assert done.returncode == 0
    calls = [line.split()[0] for line in machine.log if not line.startswith("stat ")]
    assert calls == ["sleep", "apt-get", "apt-get"]
