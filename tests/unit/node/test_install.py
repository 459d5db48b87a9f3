"""install.sh, run here by /bin/sh in a scratch root."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.unit.node.machine import INSTALL, Machine


def installed(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    return machine.run(INSTALL, *args)


def acts(machine: Machine) -> list[str]:
    """Return the calls that change something."""
    return [line for line in machine.log if line.startswith(("apt-get ", "dnf ", "systemctl enable ", "sleep "))]


def record(machine: Machine) -> list[str]:
    return (machine.state / "installed").read_text().splitlines()


def test_install_runs_the_manager_and_enables_the_units(machine: Machine) -> None:
    done = installed(machine, "apt-get", "5", "haproxy,keepalived", "haproxy", "socat")
    assert done.returncode == 0
    assert acts(machine) == [
        "apt-get -o DPkg::Lock::Timeout=5 update",
        "apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=5 -o Dpkg::Options::=--force-confdef"
        " -o Dpkg::Options::=--force-confold install haproxy socat",
        "systemctl enable haproxy.service",
        "systemctl enable keepalived.service",
    ]


def test_install_without_packages_runs_no_manager(machine: Machine) -> None:
    assert installed(machine, "apt-get", "5", "keepalived").returncode == 0
    assert acts(machine) == ["systemctl enable keepalived.service"]


def test_install_without_units_enables_none(machine: Machine) -> None:
    assert installed(machine, "dnf", "5", "", "socat").returncode == 0
    assert acts(machine) == ["dnf -y install socat"]


def test_upgrade_by_dnf_does_not_believe_what_it_remembers_of_the_repositories(machine: Machine) -> None:
    assert installed(machine, "dnf-upgrade", "5", "", "haproxy").returncode == 0
    assert acts(machine) == [
        "dnf -q clean expire-cache",
        "dnf -y upgrade haproxy",
    ]


@pytest.mark.parametrize(("manager", "fault"), [("apt-get", "apt-get-install"), ("dnf", "dnf")])
def test_failing_manager_is_heard_and_no_unit_is_enabled(machine: Machine, manager: str, fault: str) -> None:
    machine.put(f"fail/{fault}", "E: Unable to locate package haproxy\n")
    done = installed(machine, manager, "5", "haproxy", "haproxy")
    assert done.returncode == 1
    assert "E: Unable to locate package haproxy" in done.stdout
    assert not any(line.startswith("systemctl") for line in acts(machine))


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
    done = machine.run(INSTALL, "apt-get", "0", "haproxy", "haproxy")
    assert done.returncode == 75
    assert f"{lock} is held by process {os.getpid()} (" in done.stdout
    assert "for more than 0 s" in done.stdout
    assert not any(line.startswith("apt-get") for line in machine.log)


def test_install_goes_on_when_the_other_package_manager_has_ended(machine: Machine) -> None:
    lock = machine.root / "locks/lock-frontend"
    lock.touch()
    machine.put("proc-locks", f"1: POSIX  ADVISORY  WRITE {os.getpid()} 08:01:{lock.stat().st_ino} 0 EOF\n")
    machine.put("on-sleep", ': >"$ROOT/proc-locks"')
    done = machine.run(INSTALL, "apt-get", "60", "", "haproxy")
    assert done.returncode == 0
    assert [line.split()[0] for line in acts(machine)] == ["sleep", "apt-get", "apt-get"]


def test_what_comes_is_recorded_with_all_that_it_needs_and_the_units_as_they_were(machine: Machine) -> None:
    (machine.root / "enabled-keepalived").unlink()
    machine.put("packages", "coreutils\nsocat\n")
    assert installed(machine, "apt-get", "5", "haproxy,keepalived", "haproxy", "socat").returncode == 0
    assert record(machine) == [
        "unit haproxy enabled active",
        "unit keepalived disabled active",
        "package haproxy",
        "package libdep",
    ]
    assert [f"{path.stat().st_mode & 0o777:o}" for path in machine.state.iterdir()] == ["600"], "it is root's alone"


def test_later_install_adds_to_the_record_and_forgets_nothing(machine: Machine) -> None:
    (machine.root / "enabled-keepalived").unlink()
    installed(machine, "dnf", "5", "keepalived", "haproxy")
    installed(machine, "dnf", "5", "keepalived", "curl")
    assert record(machine) == ["unit keepalived disabled active", "package haproxy", "package curl"]
    assert sorted(path.name for path in machine.state.iterdir()) == ["installed"]


def test_units_that_the_first_push_found_are_not_recorded_as_that_push_has_left_them(machine: Machine) -> None:
    found = machine.state / "generations/0000/units"
    found.parent.mkdir(parents=True)
    found.write_text("haproxy disabled inactive\nkeepalived disabled inactive\n")
    assert installed(machine, "apt-get", "5", "haproxy,keepalived", "curl").returncode == 0
    assert record(machine) == ["package curl", "package libdep"]


def test_install_that_fails_has_recorded_what_was_to_come(machine: Machine) -> None:
    machine.put("fail/apt-get-install", "E: dpkg was interrupted\n")
    assert installed(machine, "apt-get", "5", "", "haproxy").returncode == 1
    assert record(machine) == ["package haproxy"]


def test_nothing_is_installed_where_it_cannot_be_recorded(machine: Machine) -> None:
    machine.state.write_text("a file in the place of the directory")
    done = installed(machine, "apt-get", "5", "haproxy", "haproxy")
    assert done.returncode == 1
    assert "what is installed cannot be recorded" in done.stdout
    assert acts(machine) == []
