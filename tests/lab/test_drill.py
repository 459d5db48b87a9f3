"""Drills on real nodes: what they measure is within the model, and whatever happens to them the fault is undone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from exlb_fab.drilling import COARSEST_SECONDS, FAULTS, Fault, plan
from exlb_fab.understanding import load
from tests.lab.bastion import Bastion
from tests.lab.conftest import AddDrilled
from tests.lab.table import DRILLED_TIMINGS, counts
from tests.lab.test_firewall import INSTALL
from tests.ran import Ran

pytestmark = pytest.mark.timeout(1800)  # beside other labs a drill may have to be made three times
slow = pytest.mark.slow

TIMES = 10
MOST_DRILLS = 3
BOOTED_SECONDS = 300
THERE_SECONDS = 120  # two looks of verify come before it
DRILL_SECONDS = 500  # a limit and no bound: at the documents' pace a drill with its looks takes one to two minutes
UNDONE_SECONDS = 30
SILENT_SECONDS = UNDONE_SECONDS + 20  # of node/lock.sh; less than the timer of the node takes
TIMED_SECONDS = 150
SETTLED_SECONDS = 120
# The lock of the node does not notice silence any more, because it stands still: only the timer is left.
LOCK_STANDS = """
for reader in $(pgrep -x -f 'timeout 20 sh -c IFS= read -r _'); do ps -o ppid= -p "$reader"; done >/run/standing
xargs kill -STOP </run/standing
"""
LOCK_GOES_ON = "xargs kill -CONT </run/standing; rm /run/standing"
# What each fault takes from the holder: a line of shell that succeeds while it is there.
THERE = {
    "proxy": "! systemctl is-active -q haproxy",
    "keepalived": "! systemctl is-active -q keepalived",
    "kill": "systemctl is-active -q exlb-drill",
    "partition": "nft list table inet exlb_drill >/dev/null 2>&1 || iptables -n -L exlb_drill >/dev/null 2>&1",
}
# As on a node that never had them, which is what nodes of the lab are unless a test before has installed them.
HIDDEN = """
for each in nft iptables ip6tables; do
    if found=$(command -v "$each"); then mv "$found" "$found.hidden" || exit; fi
done
"""
FOUND = 'for each in /usr/sbin/*.hidden; do if [ -e "$each" ]; then mv "$each" "${each%.hidden}" || exit; fi; done'
UNDONE = """
systemctl is-active -q haproxy && systemctl is-active -q keepalived && ! systemctl is-active -q exlb-drill &&
! nft list table inet exlb_drill >/dev/null 2>&1 && ! iptables -n -L exlb_drill >/dev/null 2>&1
"""


def words(green: Bastion, fault: str, *more: str) -> list[str]:
    return ["drill", fault, "--yes", "--reports", str(green.folder / "reports"), "-o", "json", *more]


def started(green: Bastion, fault: str, *more: str, env: Path | None = None) -> subprocess.Popen[bytes]:
    return green.start(*words(green, fault, *more), env=env)


def ended(process: subprocess.Popen[bytes]) -> Ran:
    output, errors = process.communicate(timeout=DRILL_SECONDS)
    return Ran(process.returncode, output.decode(), errors.decode())


def drilled(
    green: Bastion, fault: str, *more: str, env: Path | None = None, alone: bool = False
) -> list[dict[str, Any]]:
    """Drill, and return what the report says of each fault; the drill has to be a good one.

    Every fault is undone, whatever was measured. Beside other labs a client may be woken up too late to tell, and what
    is measured is theirs, too: there such a drill is made again.
    """
    for _ in range(MOST_DRILLS):
        process = started(green, fault, *more, env=env)
        try:
            ran = ended(process)
        finally:
            process.kill()
            process.wait()
        assert ran.stdout, ran.said
        drills: list[dict[str, Any]] = ran.json["drills"]
        if ran.status == 0 or (alone and all(map(measured, drills))):
            break
        assert all(map(went_well, drills)), ran.said
        green.wait_until(lambda: as_before(green, env), SETTLED_SECONDS)
    assert ran.status == 0, ran.said
    for row in drills:
        assert_measured(row)
    return drills


def measured(row: dict[str, Any]) -> bool:
    """Tell whether every client asked often enough; one that was lost is no matter of this host's speed."""
    return not any("sent no request" in (each["unmeasured"] or "") for each in row["watchers"])


def went_well(row: dict[str, Any]) -> bool:
    """Tell whether all was done and undone, whatever it took."""
    return (row["restored"], row["green"], row["cut_short"]) == (True, True, None)


def assert_measured(row: dict[str, Any]) -> None:
    """No watcher was too slow to tell; of a node without power nobody knows more than until then."""
    assert row["passed"], row
    for each in row["watchers"]:
        assert each["unmeasured"] is None, row
        if counts(row, each):
            assert each["resolution_seconds"] <= COARSEST_SECONDS, row
            assert each["last_seconds"] > row["undone_seconds"], row


def undone(green: Bastion, node: str) -> bool:
    return green.is_so(node, UNDONE)


def as_before(green: Bastion, env: Path | None = None) -> bool:
    """Tell whether every check passes again, and the master holds the VIP."""
    return green.exlb("verify", env=env, status=None).status == 0 and green.holders() == green.nodes[:1]


@contextmanager
def in_mid_drill(green: Bastion, fault: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Drill, and give the process and the holder once the fault is there; afterwards nothing of it is left."""
    (holder,) = green.holders()
    process = started(green, fault)
    try:
        there = f"systemctl is-active -q exlb-drill && {{ {THERE[fault]}; }}"
        green.wait_until(lambda: green.is_so(holder, there), THERE_SECONDS)
        yield process, holder
    finally:
        process.kill()
        process.communicate()
    green.wait_until(lambda: undone(green, holder), UNDONE_SECONDS)
    green.wait_until(lambda: as_before(green), SETTLED_SECONDS)


def cut_sessions(green: Bastion, node: str) -> None:
    """Kill the sshd processes of a node that serve a connection."""
    connections = green.inside(node, "ss", "-Htnp", "state", "established", "sport = :22")
    processes = sorted(set(re.findall(r"pid=(\d+)", connections)))
    assert processes
    green.inside(node, "kill", "-9", *processes)


@contextmanager
def having(green: Bastion, package: str) -> Iterator[None]:
    """Have a program on all nodes that can drop packets; they come without any."""
    for node in green.nodes:
        green.inside(node, "sh", "-c", f"{INSTALL} {package}")
    try:
        yield
    finally:
        for node in green.nodes:
            green.inside(node, "apt-get", "purge", "-y", "-qq", package, check=False)


# What is measured


@slow
@pytest.mark.parametrize("fault", ["proxy", "keepalived", "kill"])
def test_drill_moves_the_vip_there_and_back_and_leaves_all_as_it_was(green: Bastion, fault: Fault) -> None:
    before = {node: green.bytes_of(node) for node in green.nodes}
    (row,) = drilled(green, fault)
    assert (row["holder"], row["restored"], row["green"]) == ("lb1", True, True)
    assert {each["watcher"] for each in row["watchers"]} == {"the bastion", *green.nodes}
    if fault != "kill":  # that one may be back before anybody misses it
        assert row["new_holder"] == "lb2"
        assert row["moves"] in (2, 3), "of two backups the worse one may be the first, for a moment"
        assert 0 <= row["detection_seconds"] <= row["takeover_seconds"] + 0.1
    assert all(undone(green, node) for node in green.nodes)
    green.wait_until(lambda: as_before(green), SETTLED_SECONDS)
    assert {node: green.bytes_of(node) for node in green.nodes} == before


def assert_kept(green: Bastion, rows: list[dict[str, Any]]) -> None:
    """The report of the last drill is there: for people, for programs, and a picture of each fault."""
    folder = max((green.folder / "reports").iterdir())  # the time begins its name
    pictures = {f"{place}-{row['fault']}.svg" for place, row in enumerate(rows, 1)}
    assert {path.name for path in folder.iterdir()} == {"report.txt", "report.json", *pictures}
    assert json.loads((folder / "report.json").read_text())["drills"] == rows


@slow
@pytest.mark.parametrize("package", ["nftables", "iptables"])
def test_partition_has_two_holders_and_then_one(green: Bastion, package: str) -> None:
    with having(green, package):
        before = {node: green.bytes_of(node) for node in green.nodes}
        (row,) = drilled(green, "partition")
        assert undone(green, "lb1")
        assert_kept(green, [row])
        assert {node: green.bytes_of(node) for node in green.nodes} == before
    assert {each["watcher"] for each in row["watchers"]} == {"the bastion", *green.nodes}
    # lb3 may have been the master for a moment beside it.
    states = [(each["node"], each["state"]) for each in row["transitions"] if each["node"] != "lb3"]
    assert states[0] == ("lb2", "MASTER")
    assert ("lb2", "BACKUP") in states
    assert "lb1" not in dict(states), "it held the VIP all the while"
    assert row["moves"] >= 1
    green.wait_until(lambda: as_before(green), SETTLED_SECONDS)


@slow
def test_all_faults_but_the_power_are_drilled_in_one_go(green: Bastion) -> None:
    with having(green, "nftables"):
        rows = drilled(green, "all")
    assert [row["fault"] for row in rows] == [fault for fault in FAULTS if fault != "node"]
    assert_kept(green, rows)
    green.wait_until(lambda: as_before(green), SETTLED_SECONDS)


def poweroff(green: Bastion) -> list[str]:
    """Return the options that let the holder be powered off, and have the lab power it on again."""
    exlb = Path(sys.executable).parent / "exlb"
    # Where this test runs, and not in the bastion's network: there the lab is made.
    here = ["nsenter", f"--net=/proc/{os.getpid()}/ns/net", "--", str(exlb), "lab", "boot", "--name", green.lab.name]
    return ["--allow-poweroff", "--power-on", f'{shlex.join(here)} "$EXLB_NODE"']


@slow
def test_node_without_power_comes_back_by_the_command_of_the_operator(green: Bastion) -> None:
    (row,) = drilled(green, "node", *poweroff(green))
    assert (row["holder"], row["new_holder"], row["restored"], row["green"]) == ("lb1", "lb2", True, True)
    assert green.running == green.nodes
    green.wait_until(lambda: as_before(green), SETTLED_SECONDS)


@pytest.mark.timing
@slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("fault", "timing"), [(fault, timing) for fault in FAULTS for timing in DRILLED_TIMINGS])
def test_ten_drills_in_a_row_cost_no_more_than_the_model_says(
    green: Bastion, in_a_row: AddDrilled, fault: Fault, timing: str
) -> None:
    env = green.environment(TIMING=timing)
    # keepalived hears nothing of processes in the lab's containers.
    model = plan(load(env), fault, load(env).nodes[0], eventless=True)
    with ExitStack() as needed:
        if fault == "partition":
            needed.enter_context(having(green, "nftables"))
        needed.callback(green.exlb, "push-config", "--yes")
        green.exlb("push-config", "--yes", env=env)
        green.wait_until(lambda: as_before(green, env), SETTLED_SECONDS)
        reports = []
        for _ in range(TIMES):
            # That all is green again, the drill before has seen, and the next one refuses where it is not.
            green.wait_until(lambda: green.holders() == green.nodes[:1], SETTLED_SECONDS)
            (row,) = drilled(green, fault, *(poweroff(green) if fault == "node" else ()), env=env, alone=True)
            assert row["worst_seconds"] == pytest.approx(model.worst_seconds, abs=0.01)
            for each in row["watchers"]:
                if counts(row, each):
                    doubt = 2 * each["resolution_seconds"] + each["latency_seconds"]
                    assert each["outage_seconds"] <= row["worst_seconds"] + doubt, row
                    assert each["afterwards_seconds"] <= row["undone_worst_seconds"] + COARSEST_SECONDS, row
            reports.append(row)
    in_a_row(timing, fault, reports)


# What may happen to it: the fault is undone, by whoever is left


def end_by_ctrl_c(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    assert ran.status == 130, ran.said
    (row,) = ran.json["drills"]
    assert (row["cut_short"], row["restored"]) == ("interrupted", True)
    assert undone(green, holder), "it was undone before exlb ended"


def end_by_kill(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    process.kill()
    assert ended(process).status == -signal.SIGKILL


def end_by_hangup(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    process.send_signal(signal.SIGHUP)
    assert ended(process).status == -signal.SIGHUP


def end_by_cut_connection(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    cut_sessions(green, holder)
    ran = ended(process)
    assert ran.status == 1, ran.said
    (row,) = ran.json["drills"]
    assert "connection lost" in (row["cut_short"] or ""), ran.said
    assert (row["restored"], row["green"]) == (True, True)


def end_by_cut_connection_and_kill(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    process.send_signal(signal.SIGSTOP)
    cut_sessions(green, holder)
    process.kill()
    ended(process)


def end_by_kill_on_the_node(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    green.inside(holder, "systemctl", "kill", "-s", "KILL", "exlb-drill.service")
    green.wait_until(lambda: undone(green, holder), UNDONE_SECONDS)
    process.kill()
    ended(process)


def end_by_stop_on_the_node(green: Bastion, process: subprocess.Popen[bytes], holder: str) -> None:
    green.inside(holder, "systemctl", "stop", "exlb-drill.service")
    assert undone(green, holder)
    process.kill()
    ended(process)


ENDS = [
    end_by_ctrl_c,
    end_by_kill,
    end_by_hangup,
    end_by_cut_connection,
    end_by_cut_connection_and_kill,
    end_by_kill_on_the_node,
    end_by_stop_on_the_node,
]
KILL_ENDS = [end_by_ctrl_c, end_by_kill, end_by_cut_connection]
BRIEF = {("keepalived", "end_by_kill"), ("proxy", "end_by_cut_connection")}


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        pytest.param(fault, end, id=f"{fault}-{end.__name__}", marks=() if (fault, end.__name__) in BRIEF else slow)
        for fault, ends in {"proxy": ENDS, "keepalived": ENDS, "partition": ENDS, "kill": KILL_ENDS}.items()
        for end in ends
    ],
)
def test_fault_is_undone_whatever_ends_the_drill(
    green: Bastion, fault: str, end: Callable[[Bastion, subprocess.Popen[bytes], str], None]
) -> None:
    with ExitStack() as needed:
        if fault == "partition":
            needed.enter_context(having(green, "nftables"))
        process, holder = needed.enter_context(in_mid_drill(green, fault))
        end(green, process, holder)


@slow
def test_fault_is_undone_although_exlb_stands_still(green: Bastion) -> None:
    """It says nothing any more, and the node notices by the silence of its lock."""
    with in_mid_drill(green, "proxy") as (process, holder):
        process.send_signal(signal.SIGSTOP)
        green.wait_until(lambda: undone(green, holder), SILENT_SECONDS)


@slow
def test_fault_is_undone_by_the_timer_of_the_node_although_its_lock_is_held(green: Bastion) -> None:
    with in_mid_drill(green, "proxy") as (process, holder):
        process.send_signal(signal.SIGSTOP)
        with green.broken(holder, LOCK_STANDS, LOCK_GOES_ON):
            green.wait_until(lambda: undone(green, holder), TIMED_SECONDS)
            assert "drill proxy" in green.exlb("lock", "status").said


@slow
@pytest.mark.parametrize("fault", ["proxy", "keepalived", "partition"])
def test_reboot_of_the_holder_in_mid_drill_undoes_the_fault(green: Bastion, fault: str) -> None:
    with ExitStack() as needed:
        if fault == "partition":
            needed.enter_context(having(green, "nftables"))
        process, holder = needed.enter_context(in_mid_drill(green, fault))
        process.send_signal(signal.SIGSTOP)  # neither it nor its lock's end undoes anything before the power is gone
        assert green.is_so(holder, THERE[fault])
        green.lab.cut(holder)
        green.lab.boot(holder)


@slow
def test_node_without_power_is_powered_on_although_exlb_is_killed(green: Bastion) -> None:
    (holder,) = green.holders()
    process = started(green, "node", *poweroff(green))
    try:
        green.wait_until(lambda: holder not in green.running, SETTLED_SECONDS)
    finally:
        process.kill()
        process.communicate()
    green.wait_until(lambda: green.running == green.nodes, BOOTED_SECONDS)
    green.wait_until(lambda: as_before(green), SETTLED_SECONDS)
    assert undone(green, holder)


# What is refused


def test_red_cluster_is_not_drilled(green: Bastion) -> None:
    with green.broken("lb3", "systemctl stop haproxy", "systemctl start haproxy"):
        ran = green.exlb(*words(green, "proxy"), status=1)
    assert "verify is not green" in ran.said
    assert green.holders() == ["lb1"]


def test_partition_that_nothing_on_the_node_can_make_is_refused_with_the_reason(green: Bastion) -> None:
    with green.broken("lb1", HIDDEN, FOUND):
        ran = green.exlb(*words(green, "partition"), status=1)
    assert "lb1: neither nft nor iptables can drop VRRP on this node" in ran.said


@slow
def test_partition_after_which_nobody_would_announce_the_vip_is_refused(green: Bastion) -> None:
    env = green.environment(GARP_MASTER_REFRESH="0")
    with having(green, "nftables"):
        green.exlb("push-config", "--yes", env=env)
        ran = green.exlb(*words(green, "partition"), env=env, status=1)
        green.exlb("push-config", "--yes")
    assert "no node announces the VIP again" in ran.said
    assert "GARP_MASTER_REFRESH=5" in ran.said


@slow
def test_second_session_is_kept_out_while_a_drill_runs(green: Bastion) -> None:
    with in_mid_drill(green, "keepalived") as (process, _):
        assert "drill keepalived" in green.exlb("lock", "status").said
        ran = green.exlb("push-config", env=green.environment(BALANCE="leastconn"), status=5)
        assert "drill keepalived" in ran.said
        process.send_signal(signal.SIGINT)
        ended(process)
