"""keepalived.sh, run here by /bin/sh against a process that answers the signals as keepalived does."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlb_fab.answers import Answer
from exlb_fab.dump import UNWRITABLE, parse
from tests.unit.node.machine import Machine, require_mounts
from tests.unit.node.test_probe import probed
from tests.unit.test_dump import DUMPS

RECORDED = DUMPS / "2.2.7-backup.txt"
# As in keepalived, one signal is handled to its end before the next, the lower number first.
PROGRAM = """
import pathlib, signal, sys, time
folder, recorded, deaf = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text(), int(sys.argv[3])
data, _, stats = recorded.partition("------< Statistics >------\\n")
data = "------< Global definitions >------\\n Router ID = lb\\n" + data + "------< Interfaces >------\\n Name = lo\\n"
data = data.replace("   Virtual IP", "   Password = s3cret\\n   Virtual IP")
signals = {signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("ready", flush=True)
asked = 0
while True:
    number = signal.sigwait(signals)
    asked += number == signal.SIGUSR1
    if deaf and asked <= deaf:
        continue
    if number == signal.SIGUSR2:
        (folder / "keepalived.stats").write_text(stats)
        continue
    with (folder / "keepalived.data").open("w") as file:
        file.write(data[:900])
        file.flush()
        time.sleep(0.2)
        file.write(data[900:])
"""


@contextmanager
def keepalived(machine: Machine, *, deaf: int = 0, recorded: Path = RECORDED) -> Iterator[Path]:
    """Run a keepalived that does not answer the first `deaf` times; return where it writes."""
    words = [sys.executable, "-c", PROGRAM]
    folder = machine.root / "dumps"
    folder.mkdir()
    with subprocess.Popen([*words, folder, recorded, str(deaf)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            tmp = machine.root / "proc" / str(process.pid) / "root/tmp"
            tmp.parent.mkdir(parents=True)
            tmp.symlink_to(folder)
            machine.put("on-sleep", f'{shutil.which("sleep")} "$1"\n')
            machine.put("pid-keepalived", f"{process.pid}\n")
            yield folder
        finally:
            process.kill()


def state(machine: Machine) -> Answer:
    return probed(machine, "keepalived-state")["keepalived-state"]


def test_state_is_told_whole_and_without_the_password(machine: Machine) -> None:
    with keepalived(machine) as folder:
        # What another has left there, a moment ago or to deceive.
        (folder / "keepalived.stats").write_text("Priority Zero:\n    Sent: 0\n")
        (folder / "keepalived.data").symlink_to("/nonexistent")
        found = state(machine)
    assert found.status == 0
    assert parse(found.text) == parse(RECORDED.read_text())
    assert "s3cret" not in found.text
    assert "Router ID = lb" not in found.text


def test_nothing_of_what_keepalived_wrote_down_is_left(machine: Machine) -> None:
    with keepalived(machine) as folder:
        probed(machine, "keepalived-counters", "keepalived-state")
        assert list(folder.iterdir()) == []


def test_keepalived_that_does_not_answer_is_asked_again(machine: Machine) -> None:
    with keepalived(machine, deaf=2):
        assert state(machine).status == 0


def test_keepalived_that_never_answers_is_told_of(machine: Machine) -> None:
    with keepalived(machine, deaf=99):
        assert state(machine) == Answer("keepalived does not write down its state", 1)


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("size=4k $folder && head -c 4096 /dev/zero >$folder/fill", "no space in the /tmp of keepalived"),
        ("ro $folder", "the /tmp of keepalived cannot be written to"),
    ],
)
def test_keepalived_that_has_nowhere_to_write_is_told_from_one_that_hangs(
    machine: Machine, mount: str, said: str
) -> None:
    require_mounts()
    assert said in UNWRITABLE
    with keepalived(machine) as folder:
        line = f'folder={folder}; mount -t tmpfs tmpfs -o {mount} && exec /bin/sh "$@"'
        machine.shell = ("unshare", "-m", "sh", "-c", line, "sh")
        assert state(machine) == Answer(said, 1)


def test_two_probes_at_once_do_not_take_each_other_s_answer_away(machine: Machine) -> None:
    with keepalived(machine), ThreadPoolExecutor() as pool:
        found = list(pool.map(state, [machine, machine]))
    assert [(answer.status, parse(answer.text)) for answer in found] == [(0, parse(RECORDED.read_text()))] * 2


def test_probe_waits_while_another_one_reads_what_keepalived_has_written(machine: Machine) -> None:
    with keepalived(machine) as folder, ThreadPoolExecutor() as pool:
        theirs = folder / "keepalived.data"
        theirs.write_text("of another probe")
        inode = folder.stat().st_ino
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        asked = pool.submit(state, machine)
        try:
            limit = time.monotonic() + 20
            while not waits_for(inode):
                assert time.monotonic() < limit, "it does not wait"
            assert theirs.read_text() == "of another probe"
        finally:
            os.close(lock)
        assert asked.result().status == 0


def waits_for(inode: int) -> bool:
    """Tell whether somebody waits for a lock on a file. Source: proc_locks(5)."""
    return any("-> FLOCK" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def test_process_that_keepalived_tracks_is_told_also_where_there_is_no_script(machine: Machine) -> None:
    recorded = machine.root / "recorded"
    text = RECORDED.read_text().replace("Tracked scripts :", "Tracked processes :")
    text = text.replace("check-haproxy weight -60", "check-haproxy, weight -60")
    text = text.replace("VRRP Scripts", "VRRP Track processes").replace(" VRRP Script =", " VRRP Track process =")
    recorded.write_text(text.replace("   Status = GOOD", "   Have quorum = true"))
    with keepalived(machine, recorded=recorded):
        (found,) = parse(state(machine).text)
    assert (found.weights, found.failing) == ({"check-haproxy": -60}, ())


def test_keepalived_that_does_not_run_is_told_of(machine: Machine) -> None:
    assert state(machine) == Answer("keepalived does not run", 1)


def test_counters_alone_are_told_without_the_rest(machine: Machine) -> None:
    with keepalived(machine):
        found = probed(machine, "keepalived-counters")["keepalived-counters"]
    assert found.status == 0
    assert found.text.startswith("VRRP Instance: ")


def test_state_is_not_asked_before_its_time(machine: Machine) -> None:
    began = time.monotonic()
    with keepalived(machine):
        assert probed(machine, "keepalived-counters", "keepalived-state 1500")["keepalived-state 1500"].status == 0
    assert time.monotonic() - began >= 1.5


def test_state_waits_from_when_the_counters_were_read_and_not_from_the_beginning(machine: Machine) -> None:
    began = time.monotonic()
    with keepalived(machine):
        probed(machine, "keepalived-state 700", "keepalived-counters", "keepalived-state 701")
    assert time.monotonic() - began >= 1.401
