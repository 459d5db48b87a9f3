"""logs.sh, run here by /bin/sh: what it asks of the journal, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.unit.node.machine import LOGS, Machine

ENTRIES = '{"MESSAGE":"Entering MASTER STATE"}\n{"MESSAGE":"odd"}\n{"MESSAGE":"newest"}\n'
PATTERN = "(Entering|Transition to) [A-Z]+ STATE"


@pytest.fixture
def logging(machine: Machine) -> Machine:
    """A node whose journal has three entries."""
    machine.put("entries", ENTRIES)
    machine.put("coming", '{"MESSAGE":"new"}\n')
    return machine


def asked(machine: Machine) -> list[str]:
    return [line for line in (machine.root / "log").read_text().splitlines() if line.startswith("journalctl")]


def test_units_time_and_number_reach_the_journal(logging: Machine) -> None:
    done = logging.run(LOGS, "print", "", "7", "", "haproxy", "keepalived")
    assert (done.returncode, done.stdout, done.stderr) == (0, ENTRIES, "")
    logging.run(LOGS, "print", "2 days ago", "", "", "keepalived")
    assert asked(logging) == [
        "journalctl -q -o json --no-pager -u haproxy.service -u keepalived.service -n 7",
        "journalctl -q -o json --no-pager -u keepalived.service --since 2 days ago",
    ]


def test_number_of_those_since_a_time_is_that_of_the_newest(logging: Machine) -> None:
    done = logging.run(LOGS, "print", "2 days ago", "1", "", "keepalived")
    assert done.stdout == '{"MESSAGE":"odd"}\n{"MESSAGE":"newest"}\n', (
        "one more, which may be there for its cursor alone"
    )
    assert "-n" not in asked(logging)[0].split()


def test_pattern_leaves_what_matches_and_the_newest_entry_to_go_on_from(logging: Machine) -> None:
    done = logging.run(LOGS, "print", "", "1", PATTERN, "keepalived")
    assert done.stdout.splitlines() == ['{"MESSAGE":"Entering MASTER STATE"}', '{"MESSAGE":"newest"}']
    assert "-n" not in asked(logging)[0].split(), "those that match are not the newest"


def test_newest_entry_that_matches_is_printed_once(logging: Machine) -> None:
    done = logging.run(LOGS, "print", "", "", "newest", "keepalived")
    assert done.stdout == '{"MESSAGE":"newest"}\n'


def test_empty_journal_is_no_entry(logging: Machine) -> None:
    logging.put("entries")
    assert logging.run(LOGS, "print", "", "1", PATTERN, "keepalived").stdout == ""


def test_journal_that_refuses_says_why(logging: Machine) -> None:
    logging.put("fail/journalctl", "Failed to parse timestamp: soon\n")
    done = logging.run(LOGS, "print", "soon", "", "", "haproxy")
    assert (done.stdout, done.stderr) == ("", "Failed to parse timestamp: soon\n")


def test_who_follows_a_journal_hears_of_its_end(logging: Machine) -> None:
    text = logging.program(*LOGS)
    environment = {**logging.environment, "PATH": str(logging.bin)}
    words = ["/bin/sh", "-c", text, "logs", "follow", "", "", "haproxy"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while '"new"' not in (line := process.stdout.readline()):
            assert line, "it ended"
        os.kill(int((logging.root / "pid-journalctl").read_text()), signal.SIGKILL)
        process.stdin.write("\n")  # the next beat
        process.stdin.flush()
        process.stdout.read()
        assert process.wait(timeout=10) is not None


@pytest.mark.parametrize(
    ("cursor", "since", "from_where"),
    [
        ("s=1;i=2", "2 days ago", " --after-cursor s=1;i=2"),
        ("", "2 days ago", " --since 2 days ago"),
        ("", "", ""),
    ],
)
def test_followed_journal_ends_with_the_session(logging: Machine, cursor: str, since: str, from_where: str) -> None:
    text = logging.program(*LOGS)
    environment = {**logging.environment, "PATH": str(logging.bin)}
    words = ["/bin/sh", "-c", text, "logs", "follow", cursor, since, "haproxy"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == [
            *ENTRIES.splitlines(keepends=True),
            '{"MESSAGE":"new"}\n',
        ]
        pid = int((logging.root / "pid-journalctl").read_text())
        process.stdin.close()
        assert process.wait(timeout=10) == 0
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}/exe"):  # noqa: PTH110 - a zombie has no exe
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}/exe")  # noqa: PTH110
    assert asked(logging) == [f"journalctl -q -o json --no-pager -u haproxy.service{from_where} -f --no-tail"]
