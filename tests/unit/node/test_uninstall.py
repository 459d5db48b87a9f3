"""uninstall.sh, run here by /bin/sh in a scratch root: every step, and from wherever an earlier run was killed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.unit.node.machine import LOCK, TOKEN, UNINSTALL, Machine

STEPS = ["step check", "step units", "step files", "step packages", "step state"]


def uninstalled(machine: Machine, *packages: str, units: str = "", manager: str = "apt-get") -> list[str]:
    """Run it to its end, and return what it printed."""
    done = run(machine, *packages, units=units, manager=manager)
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    return done.stdout.splitlines()


def run(
    machine: Machine, *packages: str, units: str = "", manager: str = "apt-get"
) -> subprocess.CompletedProcess[str]:
    return machine.run(UNINSTALL, manager, "5", units, *packages)


def packages_of(machine: Machine) -> list[str]:
    return (machine.root / "packages").read_text().split()


@pytest.fixture
def back(pushed: Machine) -> Machine:
    """A node that has had a generation of exlb, and is back on what was there before."""
    assert pushed.rollback(0).done
    pushed.put("packages", "coreutils\nhaproxy\nkeepalived\nlibdep\n")
    pushed.put("log")
    return pushed


def test_nothing_of_exlb_is_left(back: Machine) -> None:
    (back.root / "run/memory").write_text("1\n")
    assert uninstalled(back) == STEPS
    assert not back.state.exists()
    assert not (back.root / "run/memory").exists()
    assert (back.root / "run/exlb/gone").exists(), "for whoever holds the lock"
    assert back.running("haproxy"), "what ran before goes on"


def test_node_that_never_had_a_push_loses_its_record(machine: Machine) -> None:
    machine.state.mkdir()
    (machine.state / "installed").write_text("package haproxy\n")
    assert uninstalled(machine, units="disable=haproxy") == STEPS
    assert not machine.state.exists()
    assert not machine.enabled("haproxy")


def test_files_of_exlb_that_are_active_are_not_left_to_themselves(pushed: Machine) -> None:
    done = run(pushed, "haproxy")
    assert done.returncode == 1
    assert "the active files are not those from before exlb" in done.stdout
    assert pushed.current == 1
    assert not (pushed.state / "leaving").exists()


def test_change_that_was_interrupted_comes_first(back: Machine) -> None:
    (back.state / "intent").write_text("0002 0000 reload\n")
    assert run(back).returncode == 1
    assert back.current == 0


def test_units_are_brought_to_how_they_were(back: Machine) -> None:
    uninstalled(back, units="stop=keepalived,disable=keepalived")
    calls = [call for call in back.unit_calls if not call.startswith("cat ")]
    assert calls == ["stop keepalived.service", "disable keepalived.service"]
    assert back.enabled("haproxy")


def test_unit_that_went_with_its_package_is_no_hindrance(back: Machine) -> None:
    back.put("unit/haproxy.gone")
    back.put("fail/systemctl-stop-haproxy", "Unit haproxy.service not loaded.\n")
    assert uninstalled(back, units="stop=haproxy") == STEPS


def test_unit_that_does_not_stop_keeps_its_package(back: Machine) -> None:
    back.put("fail/systemctl-stop-haproxy", "Job for haproxy.service failed.\n")
    done = run(back, "haproxy", units="stop=haproxy")
    assert done.returncode == 1
    assert "Job for haproxy.service failed." in done.stdout
    assert "haproxy" in packages_of(back)
    assert back.state.exists()


def test_attachments_go_and_nothing_else_that_stands_beside_them(pushed: Machine) -> None:
    frame, path = pushed.attachment("#!/bin/sh\n")
    assert pushed.push(more=frame).done
    assert path.exists()
    other = path.with_name("own.sh")
    other.touch()
    assert pushed.rollback(0).done
    assert path.exists()
    uninstalled(pushed)
    assert not path.exists()
    assert other.exists()


@pytest.mark.parametrize("manager", ["apt-get", "dnf"])
def test_packages_go_and_what_was_there_before_stays(back: Machine, manager: str) -> None:
    assert uninstalled(back, "haproxy", "keepalived", "libdep", "never-came", manager=manager) == STEPS
    assert packages_of(back) == ["coreutils"]


@pytest.mark.parametrize("manager", ["apt-get", "dnf"])
def test_package_that_something_else_needs_stays_and_is_named(back: Machine, manager: str) -> None:
    back.put("needed/libdep")
    said = uninstalled(back, "haproxy", "keepalived", "libdep", manager=manager)
    assert "warning: libdep stays: something else that is installed needs it" in said
    assert packages_of(back) == ["coreutils", "libdep"]
    assert not back.state.exists()


@pytest.mark.parametrize(("manager", "fault"), [("apt-get", "dpkg"), ("dnf", "rpm-e")])
def test_database_that_fails_is_heard_and_the_next_run_ends_it(back: Machine, manager: str, fault: str) -> None:
    back.put(f"fail/{fault}", "error: no room for the database\n")
    done = run(back, "haproxy", manager=manager)
    assert done.returncode == 1
    assert "error: no room for the database" in done.stdout
    (back.root / "fail" / fault).unlink()
    assert uninstalled(back, "haproxy", manager=manager) == STEPS
    assert not back.state.exists()


def test_push_is_refused_until_it_has_ended(back: Machine) -> None:
    back.put("fail/dpkg", "error: no room\n")
    assert run(back, "haproxy").returncode == 1
    refused = back.stage()
    assert not refused.done
    assert "exlb was being removed from this node" in refused.said
    (back.root / "fail/dpkg").unlink()
    assert uninstalled(back, "haproxy") == STEPS
    assert not back.state.exists()


@pytest.mark.parametrize("gone", ["current", "generations", "installed"])
def test_state_that_is_gone_in_part_goes_whole(back: Machine, gone: str) -> None:
    (back.state / "installed").write_text("package haproxy\n")
    (back.state / "leaving").touch()
    (back.state / gone).rename(back.root / "elsewhere")
    assert uninstalled(back) == STEPS
    assert not back.state.exists()


def test_files_from_before_exlb_outlive_a_run_that_was_killed_while_it_removed_the_generations(back: Machine) -> None:
    (back.state / "leaving").touch()
    shutil.rmtree(back.state / "generations/0000")
    before = back.proxy.read_text()
    assert uninstalled(back) == STEPS
    assert back.proxy.read_text() == before


def test_attachment_that_was_only_staged_goes_as_well(back: Machine) -> None:
    frame, path = back.attachment("#!/bin/sh\n")
    assert back.stage(more=frame).done
    before = back.proxy.read_text()
    uninstalled(back)
    assert not path.exists()
    assert back.proxy.read_text() == before


def hold(machine: Machine) -> subprocess.Popen[str]:
    """Hold the node as a session does, until its stdin is closed."""
    words = [*machine.shell, "-c", machine.program(*LOCK), "exlb", TOKEN, "eva", "bastion", "uninstall"]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, env=machine.environment, text=True)


def test_session_takes_its_own_directory_along(back: Machine) -> None:
    back.release()
    with hold(back) as session:
        assert session.stdout
        assert session.stdout.readline() == "exlb-lock: held\n"
        uninstalled(back)
        session.communicate(timeout=30)
    assert not (back.root / "run/exlb").exists()


def test_session_after_one_that_was_killed_there_keeps_it(back: Machine) -> None:
    back.put("run/exlb/gone")
    back.release()
    with hold(back) as session:
        session.communicate(timeout=30)
    assert (back.root / "run/exlb/lock").exists()
