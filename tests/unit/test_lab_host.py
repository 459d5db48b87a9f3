"""What the lab says on a host that cannot run one, and its waiting and locking."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from exlb_fab.errors import EXIT_USAGE, LabError, LabUnavailable
from exlb_fab.lab import Lab, cgroups, host, labs, require_host
from exlb_fab.lab.files import write
from exlb_fab.lab.locks import locked
from exlb_fab.lab.waiting import until


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pretend that this host can run a lab."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "_present", lambda needed: True)
    monkeypatch.setattr(cgroups, "hierarchies", lambda: (tmp_path,))


@pytest.mark.usefixtures("able")
def test_a_host_that_has_everything_is_accepted() -> None:
    require_host()


@pytest.mark.usefixtures("able")
def test_another_system_is_told_to_use_a_virtual_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LabUnavailable, match=r"needs Linux.*darwin") as refusal:
        require_host()
    assert "virtual machine" in str(refusal.value.hint)


@pytest.mark.usefixtures("able")
def test_who_is_not_root_is_told_to_type_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabUnavailable, match="needs root") as refusal:
        require_host()
    assert refusal.value.hint == "sudo exlb lab up"
    assert refusal.value.exit_code == EXIT_USAGE


@pytest.mark.usefixtures("able")
def test_missing_programs_are_named_by_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"systemd-nspawn", "mmdebstrap", "nsenter", "unshare"}
    monkeypatch.setattr(host, "_present", lambda needed: needed not in missing)
    with pytest.raises(LabUnavailable, match="needs mmdebstrap, systemd-container, util-linux") as refusal:
        require_host()
    assert refusal.value.hint == "apt-get install -y mmdebstrap systemd-container util-linux"


@pytest.mark.usefixtures("able")
def test_a_host_without_control_groups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", tuple)
    with pytest.raises(LabUnavailable, match="control groups"):
        require_host()


def test_a_lab_that_there_is_not_names_the_command_that_makes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXLB_LAB_HOME", str(tmp_path / "home"))
    with pytest.raises(LabError, match="no lab 'elsewhere'") as refusal:
        Lab.open("elsewhere")
    assert refusal.value.hint == "exlb lab up --name elsewhere"
    assert labs() == ()


def test_a_lab_of_another_exlb_is_told_from_a_broken_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXLB_LAB_HOME", str(tmp_path))
    (tmp_path / "old").mkdir()
    description = tmp_path / "old/lab.json"
    description.write_text('{"nodes": 3, "release": "bookworm", "image": "/var/cache/image"}')
    with pytest.raises(LabError, match="'old' was made by an older exlb") as refusal:
        Lab.open("old")
    assert refusal.value.hint == "exlb lab down --name old"
    for broken in ("", "{", '{"releases": ["bookworm"]}', "[]"):
        description.write_text(broken)
        with pytest.raises(LabError, match=r"lab\.json: ") as fault:
            Lab.open("old")
        assert "older" not in str(fault.value)
        assert fault.value.hint == "exlb lab down --name old"


def test_half_made_labs_are_named_too_so_that_they_can_be_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXLB_LAB_HOME", str(tmp_path))
    for name in ("b", "a", "Not.A.Lab"):
        (tmp_path / name).mkdir()
    assert labs() == ("a", "b")


def test_more_nodes_than_the_host_can_watch_for_are_refused_with_the_remedy() -> None:
    host.require_watches(0)
    with pytest.raises(LabError, match=r"100000 more nodes need 1000.* inotify instances") as refusal:
        host.require_watches(100_000)
    assert str(refusal.value.hint).startswith("sysctl -w fs.inotify.max_user_instances=2000")


def test_a_failing_program_is_reported_by_its_own_last_line() -> None:
    with pytest.raises(LabError, match=r"^no bridge: told you so$"):
        host.run_program(["sh", "-c", "echo noise; echo told you so >&2; exit 3"], failure="no bridge")
    with pytest.raises(LabError, match="no end within 0 s"):
        host.run_program(["sleep", "60"], limit_s=0.05)


def test_waiting_ends_with_the_condition_or_the_limit() -> None:
    answers = iter([0, 0, 7])
    assert until(lambda: next(answers), limit_s=5, every_s=0.001) == 7
    assert until(lambda: None, limit_s=0) is None


def test_a_lock_is_waited_for_and_survives_the_removal_of_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "lab/lock"
    held, release = threading.Event(), threading.Event()

    def hold_and_remove() -> None:
        with locked(path, what="it", limit_s=1):
            held.set()
            release.wait(5)
            path.unlink()
            with suppress(OSError):  # the one who waits may have made a new one
                path.parent.rmdir()

    holder = threading.Thread(target=hold_and_remove)
    holder.start()
    held.wait(5)
    with pytest.raises(LabError, match="another exlb"), locked(path, what="it", limit_s=0):
        pass
    release.set()
    with locked(path, what="it", limit_s=5):
        assert path.parent.is_dir()
    holder.join()


def test_a_lock_outlives_its_holder_until_the_programs_that_it_ran_have_ended(tmp_path: Path) -> None:
    lock, fifo = tmp_path / "lock", tmp_path / "fifo"
    os.mkfifo(fifo)
    holding = (
        "import sys; from pathlib import Path\n"
        "from exlb_fab.lab.locks import locked; from exlb_fab.lab.host import run_program\n"
        "with locked(Path(sys.argv[1]), what='it', limit_s=5):\n"
        "    run_program(['sh', '-c', 'read -r word <\"$0\"', sys.argv[2]])\n"
    )
    with subprocess.Popen([sys.executable, "-c", holding, str(lock), str(fifo)]) as holder:
        writing = fifo.open("w")  # returns when the program has opened the other end
        holder.kill()
    with writing, pytest.raises(LabError, match="another exlb"), locked(lock, what="it", limit_s=0.2):
        pass
    with locked(lock, what="it", limit_s=5):
        pass


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "one")
    write(path, b"two", mode=0o644)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
