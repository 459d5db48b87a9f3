"""lock.sh and launch.sh, with the real flock, timeout and tail; systemd-run is a fake that runs a program apart."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.node.machine import APPLY, KEEPALIVED_NEW, LAUNCH, LOCK, NEW, TOKEN, Machine

PATIENCE_SECONDS = 20


class Process:
    """A program that runs beside the test."""

    def __init__(self, machine: Machine, text: str, *args: str) -> None:
        self.process = subprocess.Popen(
            [*machine.shell, "-c", text, "exlb", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=machine.environment,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin = self.process.stdin
        self.stdout = self.process.stdout

    def line(self) -> str:
        """Return the next line, "" at the end."""
        assert select.select([self.stdout], [], [], PATIENCE_SECONDS)[0], "nothing came"
        data = b""
        while not data.endswith(b"\n") and (byte := os.read(self.stdout.fileno(), 1)):
            data += byte
        return data.decode().removesuffix("\n")

    def send(self, text: str) -> None:
        self.stdin.write(text.encode())
        self.stdin.flush()

    def rest(self) -> list[str]:
        """Close stdin, wait for the end; return the lines that came until then."""
        if not self.stdin.closed:
            self.stdin.close()
        lines = self.stdout.read().decode().splitlines()
        self.process.wait(PATIENCE_SECONDS)
        return lines

    def kill(self) -> None:
        """Kill the shell alone, as the loss of a session can; what it started goes on."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            stream.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)


class Sessions:
    """The programs of one test; all are ended after it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.started: list[Process] = []

    def start(self, text: str, *args: str) -> Process:
        self.started.append(Process(self.machine, text, *args))
        return self.started[-1]

    def lock(self, token: str = TOKEN, who: str = "eva", *, limit_seconds: int = 20) -> Process:
        text = self.machine.program(*LOCK)
        assert "\nsilence=20 " in text
        return self.start(
            text.replace("\nsilence=20 ", f"\nsilence={limit_seconds} "), token, who, "bastion", "push-config"
        )

    def launch(self, program: str, *args: str, token: str = TOKEN, data: str = "") -> Process:
        started = self.start(self.machine.program(*LAUNCH), "run", token, *args)
        with suppress(BrokenPipeError):  # it may have refused before it was given anything
            started.send(f"{len(program.encode())}\n{program}{data}")
        with suppress(BrokenPipeError):
            started.stdin.close()
        return started

    def follow(self) -> Process:
        return self.start(self.machine.program(*LAUNCH), "follow")

    def is_free(self) -> bool:
        done = subprocess.run(["flock", "-n", str(self.machine.root / "run/exlb/lock"), "true"], check=False)
        return done.returncode == 0

    def wait_until(self, condition: Callable[[], bool], limit_seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + limit_seconds
        while not condition():
            assert time.monotonic() < deadline, "it has not come"
            time.sleep(0.01)

    def wait_until_free(self) -> None:
        self.wait_until(self.is_free)


@pytest.fixture
def sessions(machine: Machine) -> Iterator[Sessions]:
    made = Sessions(machine)
    machine.release()
    os.mkfifo(machine.root / "gate")
    yield made
    for each in made.started:
        each.close()


# lock.sh


def test_session_holds_the_node_until_its_stdin_ends(sessions: Sessions) -> None:
    held = sessions.lock()
    assert held.line() == "exlb-lock: held"
    held.send("\n\n")
    assert not sessions.is_free()
    holder = (sessions.machine.root / "run/exlb/holder").read_text().splitlines()
    assert holder[:4] == [f"token={TOKEN}", "who=eva", "from=bastion", "what=push-config"]
    assert held.rest() == []
    assert held.process.returncode == 0
    assert sessions.is_free()
    assert not (sessions.machine.root / "run/exlb/holder").exists()


def test_second_session_is_told_who_holds_the_node(sessions: Sessions) -> None:
    held = sessions.lock()
    assert held.line() == "exlb-lock: held"
    second = sessions.lock("fedcba", "adam")
    assert second.line() == "exlb-lock: busy"
    assert second.rest()[1:4] == ["who=eva", "from=bastion", "what=push-config"]
    assert not sessions.is_free()
    held.rest()
    third = sessions.lock("fedcba", "adam")
    assert third.line() == "exlb-lock: held"


def test_of_two_sessions_at_once_exactly_one_wins(sessions: Sessions) -> None:
    rivals = [sessions.lock(f"token{number}") for number in range(4)]
    assert sorted(each.line() for each in rivals) == ["exlb-lock: busy"] * 3 + ["exlb-lock: held"]


def test_silence_ends_the_lock_although_the_session_is_there(sessions: Sessions) -> None:
    held = sessions.lock(limit_seconds=1)
    assert held.line() == "exlb-lock: held"
    sessions.wait_until_free()
    assert held.process.wait(PATIENCE_SECONDS) == 0


def test_killed_session_frees_the_node_although_its_reader_lives(sessions: Sessions) -> None:
    held = sessions.lock()
    assert held.line() == "exlb-lock: held"
    held.kill()
    # Long before a reader ends; one that has only just been forked has the lock for a moment.
    sessions.wait_until(sessions.is_free, limit_seconds=10)


def test_node_without_flock_says_so(sessions: Sessions, tmp_path: Path) -> None:
    machine = sessions.machine
    (tmp_path / "bin").mkdir()
    for name in ("mkdir", "chmod", "cat"):
        (tmp_path / "bin" / name).symlink_to((machine.bin / name).resolve())
    machine.bin = tmp_path / "bin"
    machine.shell = ("/bin/sh",)
    refused = sessions.lock()
    assert refused.line() == "exlb-lock: flock (util-linux) is not installed"
    assert refused.process.wait(PATIENCE_SECONDS) == 1


def test_node_that_cannot_keep_who_holds_it_is_not_held(sessions: Sessions) -> None:
    run = sessions.machine.root / "run/exlb"
    (run / "holder.new").symlink_to("/dev/full")
    refused = sessions.lock()
    assert refused.line() == f"exlb-lock: {run}/holder cannot be written: is {run} full?"
    assert refused.process.wait(PATIENCE_SECONDS) == 1
    assert sessions.is_free()


def test_who_only_asks_is_never_taken_for_a_holder(sessions: Sessions) -> None:
    program = sessions.machine.program("session.sh")
    asks = f"{program}\nfor each in 1 2 3 4 5 6 7 8 9 10; do if is_locked; then echo held; fi; done"
    (sessions.machine.root / "run/exlb/lock").touch()
    asking = [sessions.start(asks) for _ in range(3)]
    locks = sessions.lock()
    assert locks.line() == "exlb-lock: held"
    locks.rest()
    for each in asking:
        each.rest()
    asking = [sessions.start(asks) for _ in range(3)]
    assert [each.rest() for each in asking] == [[], [], []]


# launch.sh


WAITING = 'echo "first $1"; read -r word <"$ROOT/gate"; echo "second $word"; exit 3\n'


def test_program_gets_its_arguments_and_its_stdin_and_is_followed_to_its_end(sessions: Sessions) -> None:
    sessions.machine.take()
    program = 'read -r word\necho "$# $2 $word \u00e9"\necho loud >&2\nexit 7\n'
    ran = sessions.launch(program, "one", "two words", data="data\n")
    assert ran.rest() == ["2 two words data \u00e9", "loud", "exlb-ended 7"]
    assert ran.process.returncode == 0
    assert not (sessions.machine.root / "run/exlb/input").exists()


def test_progress_is_seen_as_it_comes_by_whoever_follows(sessions: Sessions) -> None:
    sessions.machine.take()
    ran = sessions.launch(WAITING, "x")
    assert ran.line() == "first x"
    other = sessions.follow()
    assert other.line() == "first x"
    (sessions.machine.root / "gate").write_text("go\n")
    assert ran.rest() == ["second go", "exlb-ended 3"]
    assert other.rest() == ["second go", "exlb-ended 3"]
    assert sessions.follow().rest() == ["first x", "second go", "exlb-ended 3"]


def test_program_goes_on_when_the_session_is_gone(sessions: Sessions) -> None:
    sessions.machine.take()
    ran = sessions.launch(WAITING, "x")
    assert ran.line() == "first x"
    os.killpg(ran.process.pid, signal.SIGKILL)
    sessions.machine.release()
    later = sessions.follow()
    assert later.line() == "first x"
    (sessions.machine.root / "gate").write_text("go\n")
    assert later.rest() == ["second go", "exlb-ended 3"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signal_for_the_session_does_not_end_the_program(sessions: Sessions, number: signal.Signals) -> None:
    sessions.machine.take()
    ran = sessions.launch(WAITING, "x")
    assert ran.line() == "first x"
    os.kill(int((sessions.machine.root / "pid-exlb-apply").read_text()), number)
    (sessions.machine.root / "gate").write_text("go\n")
    assert ran.rest() == ["second go", "exlb-ended 3"]


def test_killed_program_ends_without_a_last_word(sessions: Sessions) -> None:
    sessions.machine.take()
    ran = sessions.launch(WAITING, "x")
    assert ran.line() == "first x"
    os.kill(int((sessions.machine.root / "pid-exlb-apply").read_text()), signal.SIGKILL)
    assert ran.rest() == []
    assert sessions.follow().rest() == ["first x"]


def test_end_of_a_killed_program_is_awaited_until_its_unit_has_ended_too(sessions: Sessions) -> None:
    sessions.machine.take()
    ran = sessions.launch(WAITING, "x")
    assert ran.line() == "first x"
    what_it_started = sessions.machine.root / "running-exlb-apply"
    what_it_started.touch()
    os.kill(int((sessions.machine.root / "pid-exlb-apply").read_text()), signal.SIGKILL)
    later = sessions.follow()
    assert later.line() == "first x"
    for process in (ran, later):
        with pytest.raises(subprocess.TimeoutExpired):
            process.process.wait(1)
    what_it_started.unlink()
    assert ran.rest() == later.rest() == []
    assert sessions.launch("exit 7\n").rest() == ["exlb-ended 7"]


def test_second_program_is_refused_while_one_runs(sessions: Sessions) -> None:
    sessions.machine.take()
    ran = sessions.launch(WAITING, "x")
    assert ran.line() == "first x"
    second = sessions.launch("echo never\n")
    assert second.rest() == ["another change runs on the node"]
    assert second.process.returncode == 1
    (sessions.machine.root / "gate").write_text("go\n")
    assert ran.rest() == ["second go", "exlb-ended 3"]


def test_program_is_refused_while_the_fault_of_a_drill_is_being_undone(sessions: Sessions) -> None:
    sessions.machine.take()
    sessions.machine.put("running-exlb-drill")
    refused = sessions.launch("echo never\n")
    assert refused.rest() == ["a drill on the node is not undone yet"]
    assert refused.process.returncode == 1


@pytest.mark.parametrize("token", ["another", "", ".*"])
def test_session_that_does_not_hold_the_node_can_run_nothing(sessions: Sessions, token: str) -> None:
    sessions.machine.take()
    refused = sessions.launch("echo never\n", token=token)
    assert refused.rest() == ["this session has lost its lock on the node"]
    assert refused.process.returncode == 1
    sessions.machine.release()
    assert sessions.launch("echo never\n").rest() == ["this session has lost its lock on the node"]


def test_program_that_did_not_arrive_whole_is_not_run(sessions: Sessions) -> None:
    sessions.machine.take()
    started = sessions.start(sessions.machine.program(*LAUNCH), "run", TOKEN)
    started.send("100\necho never\n")
    assert started.rest() == [f"the program did not arrive whole: is {sessions.machine.root}/run/exlb full?"]
    assert started.process.returncode == 1
    assert not any(line.startswith("systemd-run") for line in sessions.machine.log)


def test_program_that_would_find_no_room_for_its_words_is_not_run(sessions: Sessions) -> None:
    sessions.machine.take()
    run = sessions.machine.root / "run/exlb"
    (run / "room").symlink_to("/dev/full")
    assert sessions.launch("echo never\n").rest() == [f"the program did not arrive whole: is {run} full?"]
    assert not any(line.startswith("systemd-run") for line in sessions.machine.log)


def test_program_that_systemd_does_not_start_is_a_failure(sessions: Sessions) -> None:
    sessions.machine.take()
    sessions.machine.put("fail/systemd-run", "Failed to start transient service unit.\n")
    refused = sessions.launch("echo never\n")
    assert refused.rest() == ["Failed to start transient service unit."]
    assert refused.process.returncode == 1


def test_nothing_to_follow_prints_nothing(sessions: Sessions) -> None:
    assert sessions.follow().rest() == []


def test_whole_push_runs_through_the_launch(sessions: Sessions) -> None:
    machine = sessions.machine
    machine.take()
    assert machine.stage().done
    program = machine.program(*APPLY)
    words = ("activate", "0001", "0000", "reload", "reload", "3", "https://198.51.100.11:8443/")
    said = sessions.launch(program, *words).rest()
    assert said[-2:] == ["exlb-apply: done", "exlb-ended 0"]
    assert machine.is_on(1)


def test_files_that_arrive_after_another_session_has_taken_over_are_not_mixed_with_its_own(sessions: Sessions) -> None:
    machine = sessions.machine
    machine.take()
    late = sessions.start(machine.program(*APPLY), "stage", TOKEN)
    arriving = machine.root / f"run/exlb/arrived.{TOKEN}"
    frames = machine.frames("late\n" + NEW, "late\n" + KEEPALIVED_NEW)
    arrived = frames.index("file keepalived")
    late.send(frames[:arrived])
    sessions.wait_until(lambda: arriving.exists() and arriving.stat().st_size == arrived)
    machine.release()  # the connection is silent for too long: the lock ends, the program waits on
    machine.take("another")
    assert machine.apply("stage", "another", stdin=machine.frames()).done
    staged = (machine.state / "staging/manifest").read_text()
    late.send(frames[arrived:])
    assert late.rest()[-2:] == ["this session has lost its lock on the node", "exlb-apply: failed start"]
    assert (machine.state / "staging/manifest").read_text() == staged
    assert machine.activate().done
    assert [each.text for each in machine.active.values()] == [NEW, KEEPALIVED_NEW]
    assert not list((machine.root / "run/exlb").glob("arrived.*"))
