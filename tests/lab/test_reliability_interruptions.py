"""A change that is interrupted: exlb killed, its connection cut, its node without power, Ctrl-C, another operator.

Whatever is interrupted, a node ends on one complete generation, at once by itself or by the next run, and no second
change begins beside one that runs.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from exlb_fab import vrrp
from tests.lab.bastion import Bastion
from tests.lab.conftest import AddRow
from tests.lab.watching import Watch
from tests.ran import Ran

UNIT = "exlb-apply"
VICTIM = "lb2"  # the first node of the roll-out: a backup, while lb1 holds the VIP
SWAP = ("mv", "keepalived.conf.exlb-new")  # the proxy's file is in its place, keepalived's is not yet
TARGET = ("awk", "path=/etc/haproxy/haproxy.cfg")
COMPLETE = re.compile(r"generation \d+")
REST_CHANGED = {"lb1": "changed", VICTIM: "unchanged", "lb3": "changed"}
LOCK_SECONDS = 20  # silence that long ends a session's lock
MARGIN_SECONDS = 10
CLIENT_SECONDS = 1.0  # a request that was under way waits that long

slow = pytest.mark.slow

# Where a change is while it is being staged, and nothing is active yet: (step, program, its arguments).
STAGING = [("receive", "mkdir", "staging/files"), ("target", *TARGET), ("validate", "keepalived", "-t")]

# Where it is while it is activated, in its unit. What has begun there ends with the new files.
ACTIVATING = [
    ("target", *TARGET),
    ("validate", "haproxy", "-c"),
    ("ports", "ss", "sport = :8443"),
    ("snapshot", "touch", "was-active"),
    ("record", "mv", "intent.new"),
    ("write", "cp", "keepalived.conf.exlb-new"),
    ("remember", "socat", "UNIX-CONNECT"),
    ("swap", *SWAP),
    ("reload-proxy", "systemctl", "reload haproxy"),
    ("gate-proxy", "curl", "8443"),
    ("reload-keepalived", "systemctl", "reload keepalived"),
    ("gate-keepalived", "systemctl", "is-active -q keepalived"),
    ("commit", "mv", "current.new"),
]

# Where a node loses its power: (what was done by then, program, its arguments, whether the change is complete).
CUTS = [
    ("while the new files are written beside the old ones", "cp", "keepalived.conf.exlb-new", False),
    ("between the two renames", *SWAP, False),
    ("after the renames, before the reload", "systemctl", "reload haproxy", False),
    ("in the gate", "curl", "8443", False),
    ("before the rename of `current`", "mv", "current.new", False),
    ("after the rename of `current`", "rm", "haproxy.cfg.exlb-new /etc/haproxy/haproxy.cfg.exlb-old", True),
]


def change(green: Bastion) -> Path:
    """Return an environment file with a change of both files, of which clients notice nothing."""
    return green.environment(BALANCE="leastconn", CHECK_FALL="3")


@contextmanager
def frozen(
    green: Bastion, node: str, program: str, words: str, env: Path, *options: str, unit: str = UNIT
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a push, and stop its change of a node where that runs a program with words; leaving this lets it go on."""
    with green.held(node, program, words, unit) as stands:
        process = green.start("push-config", *options, env=env)
        try:
            green.wait_until(stands)
            yield process
        except BaseException:
            process.kill()
            process.communicate()
            raise


def ended(process: subprocess.Popen[bytes]) -> Ran:
    """Wait for the end of a push."""
    output, errors = process.communicate(timeout=300)
    return Ran(process.returncode, output.decode(), errors.decode())


def kill(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
    process.send_signal(number)
    assert ended(process).status == -number


def changing(green: Bastion, node: str) -> str:
    """Return the main process of a change that runs on a node, "" if none does."""
    said = green.inside(node, "systemctl", "show", "-p", "ActiveState", "-p", "MainPID", UNIT)
    values = dict(line.split("=", 1) for line in said.splitlines())
    return "" if values["ActiveState"] in ("inactive", "failed") else values["MainPID"]


def complete(green: Bastion, node: str) -> bool:
    return changing(green, node) == "" and COMPLETE.fullmatch(green.states()[node]) is not None


def goes_on(green: Bastion, env: Path) -> Ran:
    """Run the same push once more: it ends what is left to do, and then all is well."""
    ran = green.exlb("push-config", "-o", "json", env=env)
    assert all(COMPLETE.fullmatch(state) for state in green.states().values())
    green.wait_until(lambda: green.exlb("verify", env=env, status=None).status == 0, 90)
    assert set(green.exlb("push-config", "-o", "json", env=env).results.values()) == {"unchanged"}
    return ran


def changes_made(green: Bastion, node: str) -> int:
    """Return how many changes the node's journal has."""
    return len(green.inside(node, "cat", "/var/lib/exlb/journal").splitlines())


# exlb killed


def killed_at(green: Bastion, program: str, words: str, unit: str) -> tuple[Watch, list[list[str]], Ran]:
    """Kill exlb where a node is in its change, and push once more when the node has ended.

    Returns the bytes of the node before it, after it had ended by itself, and at the end.
    """
    env = change(green)
    made = changes_made(green, VICTIM)
    found = [green.bytes_of(VICTIM)]
    with green.watched() as watch:
        with frozen(green, VICTIM, program, words, env, unit=unit) as process:
            kill(process)
        green.wait_until(lambda: complete(green, VICTIM))
        found.append(green.bytes_of(VICTIM))
        ran = goes_on(green, env)
    found.append(green.bytes_of(VICTIM))
    assert changes_made(green, VICTIM) == made + 1
    assert watch.seen.harmless, watch.seen
    return watch, found, ran


@pytest.mark.slow
@pytest.mark.parametrize(("step", "program", "words"), STAGING, ids=[each[0] for each in STAGING])
def test_killed_while_staging(green: Bastion, row: AddRow, step: str, program: str, words: str) -> None:
    watch, (before, then, _), ran = killed_at(green, program, words, unit="")
    assert then == before
    assert set(ran.results.values()) == {"changed"}
    row(f"kill -9 of exlb while it stages, at {step}", "the old files stay; the next run changes", watch, "changed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "program", "words"),
    [pytest.param(*each, id=each[0]) for each in ACTIVATING],
)
def test_killed_while_activating(green: Bastion, row: AddRow, step: str, program: str, words: str) -> None:
    watch, (before, then, after), ran = killed_at(green, program, words, unit=UNIT)
    assert then == after
    assert not set(then) & set(before)
    assert ran.results == REST_CHANGED
    required = "the node ends by itself with the new files; the next run goes on with the others"
    row(f"kill -9 of exlb while it activates, at {step}", required, watch, "no changes")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_by_another_signal(green: Bastion, row: AddRow, number: signal.Signals) -> None:
    env = change(green)
    with green.watched() as watch:
        with frozen(green, VICTIM, *SWAP, env) as process:
            kill(process, number)
        green.wait_until(lambda: complete(green, VICTIM))
        ran = goes_on(green, env)
    assert ran.results == REST_CHANGED
    assert watch.seen.harmless, watch.seen
    row(f"{number.name} of exlb between two renames", "as with kill -9", watch, "no changes")


# Another operator


@pytest.mark.parametrize(
    ("step", "program", "words", "options"),
    [
        pytest.param("swap", *SWAP, (), id="swap"),
        pytest.param("swap", *SWAP, ("--lock-wait", "60"), id="swap-lock-wait", marks=slow),
        pytest.param("gate-proxy", "curl", "8443", (), id="gate", marks=slow),
        pytest.param("commit", "mv", "current.new", (), id="commit", marks=slow),
    ],
)
def test_second_operator_waits_for_a_change_whose_exlb_was_killed(
    green: Bastion, row: AddRow, step: str, program: str, words: str, options: tuple[str, ...]
) -> None:
    made = changes_made(green, VICTIM)
    before = {node: green.bytes_of(node) for node in green.nodes}
    with green.watched() as watch:
        with frozen(green, VICTIM, program, words, change(green)) as process:
            kill(process)
            runs = changing(green, VICTIM)
            # The other operator's file says what was there before.
            second = green.start("push-config", "-o", "json", *options)
            green.wait_until(lambda: "push-config" in green.exlb("lock", "status", status=None).said)
            status = {each["node"]: each for each in green.exlb("lock", "status", "-o", "json").json["locks"]}
            assert {node for node in green.nodes if status[node]["changing"]} == {VICTIM}
            assert changing(green, VICTIM) == runs
            assert second.poll() is None
        ran = ended(second)
        said = "an earlier change was still under way; it ended: done"
        assert f"{VICTIM} {said}" in ran.said
        assert ran.results == {"lb1": "unchanged", VICTIM: "changed", "lb3": "unchanged"}
    assert {node: green.bytes_of(node) for node in green.nodes} == before
    assert changes_made(green, VICTIM) == made + 2
    assert watch.seen.harmless, watch.seen
    green.exlb("verify")
    event = f"a second operator while a change, its exlb killed, is at {step} {' '.join(options)}".rstrip()
    row(event, "waits, reports the outcome, then makes its own change", watch, said)


# The connection lost


def cut_sessions(green: Bastion, node: str) -> None:
    """Kill the sshd processes of a node that serve a connection."""
    connections = green.inside(node, "ss", "-Htnp", "state", "established", "sport = :22")
    processes = sorted(set(re.findall(r"pid=(\d+)", connections)))
    assert processes
    green.inside(node, "kill", "-9", *processes)


def locked(green: Bastion, node: str) -> bool:
    return green.inside(node, "sh", "-c", "flock -n /run/exlb/lock true || echo locked") != ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "program", "words"),
    [
        pytest.param("swap", *SWAP, id="swap"),
        pytest.param("gate-proxy", "curl", "8443", id="gate", marks=slow),
    ],
)
def test_connection_cut(green: Bastion, row: AddRow, step: str, program: str, words: str) -> None:
    before = green.bytes_of(VICTIM)
    with green.watched() as watch:
        with frozen(green, VICTIM, program, words, change(green), "-o", "json") as process:
            cut_sessions(green, VICTIM)
            cut = ended(process)
            assert cut.status == 4, cut
            assert cut.results == {"lb1": "not started", VICTIM: "unreachable", "lb3": "not started"}
            said = f"{VICTIM} connection lost"
            assert said in cut.said
            assert not locked(green, VICTIM)
        green.wait_until(lambda: complete(green, VICTIM))
        assert not set(green.bytes_of(VICTIM)) & set(before)
        # To what was there before: the node alone has anything else.
        ran = green.exlb("push-config", "-o", "json")
    assert ran.results == {"lb1": "unchanged", VICTIM: "changed", "lb3": "unchanged"}
    assert watch.seen.harmless, watch.seen
    green.exlb("verify")
    required = "exlb says so and stops; the node ends by itself; the next run goes on"
    row(f"SSH connection cut at {step}", required, watch, said)


@contextmanager
def parted(green: Bastion, node: str) -> Iterator[None]:
    """Cut the bastion off from a node silently, in both directions; the nodes go on hearing each other."""
    nobody = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
    address = green.address(node)
    route = green.lab.run(["ip", "route", "get", address], capture=True).stdout.decode()
    device = route.split(" dev ")[1].split()[0]
    away = ["ip", "neigh", "replace", address, "dev", device, *nobody]
    back = ["ip", "neigh", "del", address, "dev", device]
    there = ("dev", "host0")
    with green.broken(
        node,
        shlex.join(["ip", "neigh", "replace", green.lab.gateway, *there, *nobody]),
        shlex.join(["ip", "neigh", "del", green.lab.gateway, *there]),
    ):
        assert green.lab.run(away).returncode == 0
        try:
            yield
        finally:
            assert green.lab.run(back).returncode == 0


@pytest.mark.timing
@pytest.mark.slow
def test_bastion_partitioned_and_gone(green: Bastion, row: AddRow) -> None:
    env = change(green)
    with green.watched() as watch:
        with ExitStack() as cut:
            with frozen(green, VICTIM, *SWAP, env) as process:
                cut.enter_context(parted(green, VICTIM))
                began = time.monotonic()
                kill(process)
            assert locked(green, VICTIM)  # sshd has not heard that its client is gone
            green.wait_until(lambda: not locked(green, VICTIM), LOCK_SECONDS + MARGIN_SECONDS)
            assert time.monotonic() - began <= LOCK_SECONDS + MARGIN_SECONDS
            assert complete(green, VICTIM)
        ran = goes_on(green, env)
    assert ran.results == REST_CHANGED
    assert watch.seen.harmless, watch.seen
    row(
        "the bastion is partitioned from the node at swap, and exlb killed",
        f"the node ends by itself; its lock ends within {LOCK_SECONDS} s; the next run goes on",
        watch,
        "no changes",
    )


@pytest.mark.slow
def test_bastion_partitioned_for_a_while(green: Bastion, row: AddRow) -> None:
    env = change(green)
    with green.watched() as watch:
        with frozen(green, VICTIM, *SWAP, env, "-o", "json") as process, parted(green, VICTIM):
            green.wait_until(lambda: not locked(green, VICTIM), LOCK_SECONDS + MARGIN_SECONDS)
        first = ended(process)
        assert first.status == 0, first
        ran = goes_on(green, env)
    assert set(first.results.values()) == {"changed"}
    assert set(ran.results.values()) == {"unchanged"}
    assert watch.seen.harmless, watch.seen
    row(
        "the bastion is partitioned from the node at swap, until the lock has ended there",
        "the node ends by itself; exlb hears of it, and goes on with the others",
        watch,
        "changed",
    )


@pytest.mark.slow
def test_bastion_partitioned_for_good(green: Bastion, row: AddRow) -> None:
    env = change(green)
    with green.watched() as watch:
        with ExitStack() as cut:
            with frozen(green, VICTIM, *SWAP, env, "-o", "json") as process:
                cut.enter_context(parted(green, VICTIM))
            first = ended(process)
            assert first.status == 4, first
            assert first.results == {"lb1": "not started", VICTIM: "unreachable", "lb3": "not started"}
            said = f"{VICTIM} connection lost"
            assert said in first.said
            assert complete(green, VICTIM)
        ran = goes_on(green, env)
    assert ran.results == REST_CHANGED
    assert watch.seen.harmless, watch.seen
    row(
        "the bastion is partitioned from the node at swap, for good",
        "exlb gives up, says so and starts nothing more; the node ends by itself; the next run goes on",
        watch,
        said,
    )


# Power


def spare(green: Bastion, watch: Watch) -> str:
    """Return a node that can lose its power: neither the VIP nor the open connection is on it."""
    return next(node for node in green.nodes if node not in (*green.holders(), watch.server))


def cut_at(green: Bastion, node: str, program: str, words: str, env: Path, *options: str, killed: bool = False) -> Ran:
    """Push, cut the power of a node where it is in its change, and boot it; return what the push said."""
    # Booted before the other is left: its disk keeps the program that stands in for the held one.
    with frozen(green, node, program, words, env, "-o", "json", *options) as process:
        if killed:
            process.kill()
        green.lab.cut(node)
        green.lab.boot(node)
        ran = ended(process)
    assert "unfinished" in green.states()[node]
    return ran


def test_power_cut_between_two_renames_is_taken_back_by_recover(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        node = spare(green, watch)
        before = green.bytes_of(node)
        cut = cut_at(green, node, *SWAP, change(green), "--nodes", node)
        assert cut.status == 4, cut
        assert "connection lost" in cut.said
        proxy, keepalived = green.bytes_of(node)
        assert proxy != before[0]
        assert keepalived == before[1]
        assert "was interrupted" in green.exlb("history", "--nodes", node).said
        ran = green.exlb("recover")
        assert f"{node} a change to generation" in ran.said
        assert "was interrupted: back to" in ran.said
    assert green.bytes_of(node) == before
    assert COMPLETE.fullmatch(green.states()[node])
    assert "no changes" in green.exlb("push-config").said
    assert watch.seen.harmless, watch.seen
    green.wait_until(lambda: green.exlb("verify", status=None).status == 0, 90)
    row("power cut between two renames", "recover repairs", watch, "was interrupted: back to")


@pytest.mark.slow
@pytest.mark.parametrize(("when", "program", "words", "is_complete"), CUTS, ids=[each[0] for each in CUTS])
def test_power_cut(green: Bastion, row: AddRow, when: str, program: str, words: str, is_complete: bool) -> None:
    env = change(green)
    with green.watched() as watch:
        node = spare(green, watch)
        cut_at(green, node, program, words, env)
        ran = goes_on(green, env)
        said = "was interrupted: on to it" if is_complete else "was interrupted: back to"
        assert said in ran.said
    assert ran.results[node] == ("unchanged" if is_complete else "changed")
    assert watch.seen.harmless, watch.seen
    row(f"power cut {when}", "the next run repairs; all files from one generation", watch, said)


@pytest.mark.slow
def test_power_cut_and_exlb_killed(green: Bastion, row: AddRow) -> None:
    env = change(green)
    with green.watched() as watch:
        node = spare(green, watch)
        cut_at(green, node, *SWAP, env, killed=True)
        ran = goes_on(green, env)
        said = "was interrupted: back to"
        assert said in ran.said
    assert ran.results[node] == "changed"
    assert watch.seen.harmless, watch.seen
    row("power cut between two renames, and kill -9 of exlb", "the next run repairs", watch, said)


@pytest.mark.timing
@pytest.mark.slow
def test_power_cut_of_the_holder(green: Bastion, row: AddRow) -> None:
    env = change(green)
    (holder,) = green.holders()
    with frozen(green, holder, *SWAP, env) as process:
        with green.watched() as watch:
            assert watch.server != holder, "its apiserver dies too, and that costs more"
            green.lab.cut(holder)
            green.wait_until(lambda: len(green.holders()) == 1 and green.served())
        green.lab.boot(holder)
        ended(process)
    assert "unfinished" in green.states()[holder]
    green.wait_until(lambda: green.holders() == [holder])
    with green.watched() as repair:
        ran = green.exlb("push-config", "-o", "json", env=env)
        said = "was interrupted: back to"
        assert said in ran.said
    assert ran.results[holder] == "changed"
    assert repair.seen.harmless, repair.seen
    assert set(goes_on(green, env).results.values()) == {"unchanged"}
    takeover = vrrp.election_seconds(vrrp.priorities(len(green.nodes)), advert_seconds=1)
    assert watch.seen.longest_gap_seconds <= takeover + watch.seen.delay_seconds + CLIENT_SECONDS
    assert (watch.seen.moves, watch.seen.most_holders) == (1, 1)
    required = "clients lose the VIP for a takeover, because of the power and not of exlb; the next run repairs"
    row("power cut of the holder between two renames", required, watch, said)


# Ctrl-C


def hears(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Read what a push says until it has said these words."""
    assert process.stderr is not None
    while words not in (line := process.stderr.readline()):
        assert line, "it has ended"


def test_ctrl_c(green: Bastion, row: AddRow) -> None:
    before = {node: green.bytes_of(node) for node in green.nodes}
    with green.watched() as watch:
        with frozen(green, VICTIM, *SWAP, change(green), "-o", "json") as process:
            process.send_signal(signal.SIGINT)
            hears(process, b"Ctrl-C again ends at once")
        ran = ended(process)
    assert ran.status == 130
    assert ran.results == {"lb1": "not started", VICTIM: "changed", "lb3": "not started"}
    changed = {node for node in green.nodes if green.bytes_of(node) != before[node]}
    assert changed == {VICTIM}
    assert complete(green, VICTIM)
    assert watch.seen.harmless, watch.seen
    # Another push is not in the way of what has not begun.
    again = green.exlb("push-config", "-o", "json")
    assert again.results == {"lb1": "unchanged", VICTIM: "changed", "lb3": "unchanged"}
    row("Ctrl-C during the roll-out", "the running node finishes, nothing new starts", watch, "not started")


@pytest.mark.slow
def test_ctrl_c_twice(green: Bastion, row: AddRow) -> None:
    env = change(green)
    with green.watched() as watch:
        with frozen(green, VICTIM, *SWAP, env) as process:
            process.send_signal(signal.SIGINT)
            hears(process, b"Ctrl-C again ends at once")
            process.send_signal(signal.SIGINT)
            ran = ended(process)
            assert ran.status == 130
            assert changing(green, VICTIM)
        green.wait_until(lambda: complete(green, VICTIM))
        assert goes_on(green, env).results == REST_CHANGED
    assert watch.seen.harmless, watch.seen
    row("Ctrl-C twice", "exlb ends at once, the node finishes by itself", watch, "Ctrl-C again ends at once")


# The node's own program killed


@pytest.mark.slow
def test_apply_killed_on_the_node(green: Bastion, row: AddRow) -> None:
    before = green.bytes_of(VICTIM)
    with green.watched() as watch:
        with frozen(green, VICTIM, *SWAP, change(green), "--nodes", VICTIM) as process:
            green.inside(VICTIM, "kill", "-9", changing(green, VICTIM))
        first = ended(process)
        assert first.status == 1, first
        told = "ended early, after step swap"
        assert told in first.said
        ran = green.exlb("push-config")
        said = "was interrupted: back to"
        assert said in ran.said
        assert "no changes" in ran.said
    assert green.bytes_of(VICTIM) == before
    assert complete(green, VICTIM)
    assert watch.seen.harmless, watch.seen
    green.exlb("verify")
    event = "kill -9 of the change itself on the node, between two renames"
    row(event, "exlb says so; the next run repairs", watch, f"{told}; {said}")


@pytest.mark.slow
def test_apply_and_exlb_killed_while_a_program_of_it_lives_on(green: Bastion, row: AddRow) -> None:
    env = change(green)
    with green.watched() as watch:
        with frozen(green, VICTIM, *SWAP, env) as process:
            kill(process)
            green.inside(VICTIM, "kill", "-9", changing(green, VICTIM))
            second = green.start("push-config", "-o", "json", env=env)
            green.wait_until(lambda: "push-config" in green.exlb("lock", "status", status=None).said)
            assert changing(green, VICTIM)
        ran = ended(second)
        said = "it ended: without a word"
        assert said in ran.said, ran
        assert "was interrupted: back to" in ran.said
        assert set(ran.results.values()) == {"changed"}
        goes_on(green, env)
    assert watch.seen.harmless, watch.seen
    event = "kill -9 of the change itself and of exlb, while a program that it has started still runs"
    row(event, "the next run waits for that, says so, repairs, and goes on", watch, said)
