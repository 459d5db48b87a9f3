"""drill.sh, run here by /bin/sh in a scratch root: every fault, and all that a drill can end by.

systemd is a fake that keeps its promises on a unit: what ExecStopPost= says is run when the unit has ended, whatever it
ended by. curl, sleep and nft are the real ones, on the loopback interface or in a namespace of the test's own.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exlb_fab import drilling
from exlb_fab.errors import RemoteError
from exlb_fab.node import program
from exlb_fab.watching import NodeWatch
from tests.fake import cluster
from tests.unit.node.machine import HARMLESS, TOKEN, Machine, folder_of_programs, require_nft

DRILL = ("session.sh", "drill.sh")
DONE = "exlb-drill: done"
LIMIT_SECONDS = 30
WAIT_SECONDS = 20
# What the fakes of the other tests do not know. A unit is active while its supervisor is alive; $ROOT/main-exlb-drill
# has its main process. journalctl, curl and the rest are not needed, but by who watches.
FAKES = {
    "systemd-run": """
        if [ -e "$ROOT/fail/systemd-run" ]; then cat "$ROOT/fail/systemd-run"; exit 1; fi
        while :; do
            case $1 in
            --unit=*) unit=${1#*=} ;;
            -p) shift; case $1 in ExecStopPost=*) post=${1#*=} ;; RuntimeMaxSec=*) limit=${1#*=} ;; esac ;;
            --*) ;;
            *) break ;;
            esac
            shift
        done
        export unit post limit
        setsid sh -c '
            echo $$ >"$ROOT/pid-$unit"
            setsid "$@" &
            main=$!
            echo "$main" >"$ROOT/main-$unit"
            { sleep "$limit"; kill "$main"; } &
            clock=$!
            wait "$main"
            kill "$clock"
            $post
            rm -f "$ROOT/pid-$unit"
        ' sh "$@" </dev/null >/dev/null 2>&1 &
        timeout 20 sh -c 'until [ -e "$ROOT/main-$unit" ]; do sleep 0.02; done'
    """,
    "systemctl": """
        case "$*" in
        'stop exlb-drill.service')
            kill "$(cat "$ROOT/main-exlb-drill")"
            timeout 60 sh -c 'while [ -e "$ROOT/pid-exlb-drill" ]; do sleep 0.02; done'
            exit ;;
        kill*) echo "systemctl $*" >>"$ROOT/log"; rm -f "$ROOT/running-keepalived"; exit ;;
        poweroff*) echo "systemctl $*" >>"$ROOT/log"; exit ;;
        esac
        exec OWN/systemctl "$@"
    """,
    # Its chains are files; a jump is a line of the chain that it stands in.
    "iptables": """
        me=${0##*/}
        if [ -e "$ROOT/fail/$me" ]; then exit 3; fi
        echo "$me $*" >>"$ROOT/log"
        if [ "$1 $2" != '-w 5' ]; then echo "an unlimited wait: $*" >&2; exit 2; fi
        shift
        if [ "$2" = -n ]; then [ "$4" = INPUT ] || [ -e "$ROOT/$me-$4" ]; exit; fi
        chain=$ROOT/$me-$3
        case $2 in
        -N) [ ! -e "$chain" ] && : >"$chain" ;;
        -A | -I) shift 3; echo "$*" >>"$chain" ;;
        -D) shift 3; grep -v -x -F -e "$*" "$chain" >"$chain.new"; mv "$chain.new" "$chain" ;;
        -F) [ -e "$chain" ] && : >"$chain" ;;
        -X) [ -e "$chain" ] && ! grep -q -s -e "-j $3" "$ROOT/$me-INPUT" "$ROOT/$me-OUTPUT" && rm "$chain" ;;
        esac
    """,
}
RAW = """
import socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
raw.settimeout(0.3)
try:
    raw.sendto(b"advert", ("127.0.0.1", 0))
    print(raw.recv(100)[-6:].decode())
except OSError:
    print("dropped")
"""


@pytest.fixture
def drilled(machine: Machine, tmp_path: Path) -> Iterator[Machine]:
    """A node on which a drill can run; whatever of one is left at the end is ended."""
    own = tmp_path / "bin"
    own.mkdir()
    for name in [*HARMLESS, "sleep", "curl"]:
        found = shutil.which(name)
        assert found, name
        (own / name).symlink_to(found)
    for name in ("systemd-run", "systemctl"):
        fake(own, name, FAKES[name])
    machine.bin = own
    yield machine
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((machine.root / "main-exlb-drill").read_text()), signal.SIGKILL)
    until(lambda: not (machine.root / "pid-exlb-drill").exists())


def fake(folder: Path, name: str, text: str) -> None:
    # Never through a link: that would write over a program of this host.
    with (folder / name).open("x") as file:
        file.write("#!/bin/sh\n" + text.replace("OWN", str(folder_of_programs(watched=False))))
    (folder / name).chmod(0o755)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(
    machine: Machine, fault: str, unit: str, *, limit: int = LIMIT_SECONDS, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    text = machine.program(*DRILL)
    return machine.run(DRILL, "start", token, str(limit), str(len(text.encode())), fault, unit, stdin=text)


def started(machine: Machine, fault: str, unit: str, *, limit: int = LIMIT_SECONDS) -> None:
    done = start(machine, fault, unit, limit=limit)
    assert done.stdout.splitlines()[-1:] == [DONE], (done.stdout, done.stderr)


def words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what it told, without the times, in its order."""
    return [line.split(" ")[0] for line in done.stdout.splitlines() if line != DONE]


def runs(machine: Machine, unit: str) -> bool:
    return (machine.root / f"running-{unit}").exists()


def told(machine: Machine) -> str:
    return (machine.root / "run/exlb/drill-told").read_text()


@pytest.mark.parametrize(
    ("fault", "unit"), [("proxy", "haproxy"), ("keepalived", "keepalived"), ("kill", "keepalived")]
)
def test_unit_that_a_fault_ended_runs_again_at_the_end(drilled: Machine, fault: str, unit: str) -> None:
    before = time.time() * 1000
    started(drilled, fault, unit)
    assert not runs(drilled, unit)
    done = drilled.run(DRILL, "end", TOKEN)
    assert runs(drilled, unit)
    assert done.stdout.splitlines()[-1] == DONE
    assert words(done) == ["begun", "injected", "undoing", "undone"]
    times = [int(line.split(" ")[1]) for line in done.stdout.splitlines()[:-1]]
    assert times == sorted(times)
    assert before - 50 <= times[0] <= times[-1] <= time.time() * 1000 + 50
    assert not (drilled.root / "run/exlb/drill").exists()


def test_killed_keepalived_is_killed_with_all_its_processes(drilled: Machine) -> None:
    started(drilled, "kill", "keepalived")
    assert "systemctl kill -s KILL keepalived.service" in drilled.log


def test_fault_is_undone_when_the_session_is_gone(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    drilled.release()
    until(lambda: "undone" in told(drilled))
    assert runs(drilled, "haproxy")


def test_fault_is_undone_when_another_session_has_the_node(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    drilled.take("fedcba9876543210")
    until(lambda: "undone" in told(drilled))
    assert runs(drilled, "haproxy")


def test_fault_is_undone_when_its_process_is_killed(drilled: Machine) -> None:
    started(drilled, "keepalived", "keepalived")
    os.kill(int((drilled.root / "main-exlb-drill").read_text()), signal.SIGKILL)
    until(lambda: "undone" in told(drilled))
    assert runs(drilled, "keepalived")


def test_fault_is_undone_at_its_limit_although_the_session_is_there(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy", limit=3)
    until(lambda: "undone" in told(drilled))
    assert runs(drilled, "haproxy")


def test_fault_that_ended_by_itself_can_be_ended_once_more(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy", limit=3)
    until(lambda: "undone" in told(drilled))
    assert words(drilled.run(DRILL, "end", TOKEN)) == ["begun", "injected", "undoing", "undone"]


def test_end_where_nothing_was_begun_is_an_end(drilled: Machine) -> None:
    assert drilled.run(DRILL, "end", TOKEN).stdout == f"{DONE}\n"


def test_drill_of_another_session_is_left_alone(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    assert drilled.run(DRILL, "end", "fedcba9876543210").stdout == f"{DONE}\n"
    assert not runs(drilled, "haproxy")
    assert words(drilled.run(DRILL, "end", TOKEN))[-1] == "undone"


def test_drill_that_is_refused_does_not_tell_of_the_last_one(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    assert words(drilled.run(DRILL, "end", TOKEN))[-1] == "undone"
    drilled.put("running-exlb-apply")
    assert start(drilled, "proxy", "haproxy").stdout == "exlb-drill: a change runs on the node\n"
    assert drilled.run(DRILL, "end", TOKEN).stdout == f"{DONE}\n"


def test_drill_that_is_refused_beside_another_leaves_what_that_one_tells(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    assert start(drilled, "keepalived", "keepalived").returncode == 1
    assert words(drilled.run(DRILL, "end", TOKEN)) == ["begun", "injected", "undoing", "undone"]


def test_unit_that_does_not_start_again_is_told_of(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    drilled.put("fail/systemctl-start-haproxy", "Job failed\n")
    done = drilled.run(DRILL, "end", TOKEN)
    assert words(done)[:4] == ["begun", "injected", "undoing", "stuck"]
    assert done.returncode == 1
    assert "the fault could not be undone" in done.stdout


def test_undoing_that_was_cut_off_is_told_of_as_well(drilled: Machine) -> None:
    drilled.put("run/exlb/drill-session", f"{TOKEN}\n")
    drilled.put("run/exlb/drill-told", "begun 1000\ninjected 2000\nundoing 3000\n")
    done = drilled.run(DRILL, "end", TOKEN)
    assert done.returncode == 1
    assert "the fault could not be undone" in done.stdout


def test_unit_that_starts_at_the_second_try_is_started(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    path = drilled.put("fail/systemctl-start-haproxy", "Job failed\n")
    drilled.release()
    until(lambda: "undoing" in told(drilled))
    path.unlink()
    until(lambda: "undone" in told(drilled))
    assert runs(drilled, "haproxy")


# What is refused, and changes nothing


def test_session_without_the_lock_injects_nothing(drilled: Machine) -> None:
    done = start(drilled, "proxy", "haproxy", token="fedcba9876543210")
    assert (done.returncode, done.stdout) == (1, "exlb-drill: this session has lost its lock on the node\n")
    assert runs(drilled, "haproxy")


def test_program_that_did_not_arrive_whole_is_not_run(drilled: Machine) -> None:
    text = drilled.program(*DRILL)
    args = ["start", TOKEN, "30", str(len(text.encode())), "proxy", "haproxy"]
    done = drilled.run(DRILL, *args, stdin=text[:-10])
    assert "did not arrive whole" in done.stdout
    assert runs(drilled, "haproxy")


def test_fault_that_nobody_would_undo_is_not_injected(drilled: Machine) -> None:
    drilled.put("fail/systemd-run", "Unknown assignment ExecStopPost\n")
    done = start(drilled, "proxy", "haproxy")
    assert done.stdout.splitlines() == [
        "Unknown assignment ExecStopPost",
        "exlb-drill: systemd refuses the unit that would undo the fault; nothing was done",
    ]
    assert runs(drilled, "haproxy")


def test_second_drill_beside_the_first_is_refused(drilled: Machine) -> None:
    started(drilled, "proxy", "haproxy")
    assert start(drilled, "keepalived", "keepalived").stdout == "exlb-drill: a drill runs on the node already\n"
    assert runs(drilled, "keepalived")


@pytest.mark.parametrize(
    ("words_", "said"),
    [
        (("proxy", "haproxy"), DONE),
        (("keepalived", "keepalived"), DONE),
        (("node", "-"), DONE),
        (("flood", "-"), "exlb-drill: flood: no such fault"),
        (("partition", "-"), "exlb-drill: neither nft nor iptables can drop VRRP on this node"),
    ],
)
def test_check_says_whether_a_fault_can_be_injected(drilled: Machine, words_: tuple[str, str], said: str) -> None:
    assert drilled.run(DRILL, "check", *words_).stdout == f"{said}\n"


def test_unit_that_does_not_run_is_no_drill(drilled: Machine) -> None:
    (drilled.root / "running-haproxy").unlink()
    assert drilled.run(DRILL, "check", "proxy", "haproxy").stdout == "exlb-drill: haproxy does not run\n"


def test_node_where_a_change_runs_is_no_drill(drilled: Machine) -> None:
    drilled.put("running-exlb-apply")
    assert drilled.run(DRILL, "check", "proxy", "haproxy").stdout == "exlb-drill: a change runs on the node\n"


def test_power_goes_after_that_was_told(drilled: Machine) -> None:
    done = start(drilled, "node", "-")
    assert words(done) == ["begun", "injected"]
    assert not any("poweroff" in line for line in drilled.log)
    until(lambda: "systemctl poweroff --force --force" in drilled.log)


# The partition

FAMILIES = ("iptables", "ip6tables")


@pytest.fixture
def with_iptables(drilled: Machine) -> Machine:
    for name in FAMILIES:
        fake(drilled.bin, name, FAKES["iptables"])
    return drilled


def chains(machine: Machine) -> dict[str, str]:
    return {path.name: path.read_text() for path in machine.root.glob("ip*tables-*")}


def test_partition_without_nft_is_a_chain_of_its_own_both_ways(with_iptables: Machine) -> None:
    for name in FAMILIES:
        with_iptables.put(f"{name}-INPUT", "-j theirs\n")
    started(with_iptables, "partition", "-")
    for name in FAMILIES:
        assert chains(with_iptables)[f"{name}-exlb_drill"] == "-p 112 -j DROP\n"
        assert chains(with_iptables)[f"{name}-INPUT"] == "-j theirs\n-j exlb_drill\n"
        assert chains(with_iptables)[f"{name}-OUTPUT"] == "-j exlb_drill\n"
    with_iptables.release()
    until(lambda: "undone" in told(with_iptables))
    assert chains(with_iptables) == {
        f"{name}-{chain}": text for name in FAMILIES for chain, text in (("INPUT", "-j theirs\n"), ("OUTPUT", ""))
    }


def test_kernel_without_ipv6_is_parted_all_the_same(with_iptables: Machine) -> None:
    with_iptables.put("fail/ip6tables")
    started(with_iptables, "partition", "-")
    assert set(chains(with_iptables)) == {"iptables-exlb_drill", "iptables-INPUT", "iptables-OUTPUT"}


def test_partition_that_fails_half_way_is_undone(with_iptables: Machine) -> None:
    with_iptables.put("ip6tables-exlb_drill", "left by somebody\n")
    done = start(with_iptables, "partition", "-")
    assert "it could not be done" in done.stdout
    until(lambda: "undone" in told(with_iptables))
    assert "exlb_drill" not in "".join(chains(with_iptables).values())


def test_partition_that_may_still_be_there_because_somebody_has_the_lock_is_no_end(with_iptables: Machine) -> None:
    started(with_iptables, "partition", "-")
    held = with_iptables.put("fail/ip6tables")
    with_iptables.release()
    until(lambda: "undoing" in told(with_iptables))
    until(lambda: "iptables-exlb_drill" not in chains(with_iptables))
    assert "undone" not in told(with_iptables)
    held.unlink()
    until(lambda: "undone" in told(with_iptables))
    assert not any("exlb_drill" in name for name in chains(with_iptables))


@pytest.fixture
def parted(drilled: Machine) -> Iterator[Machine]:
    """A node in a network namespace of its own, with the real nft."""
    require_nft()
    nft, nsenter, unshare = (shutil.which(name) for name in ("nft", "nsenter", "unshare"))
    assert nft and nsenter and unshare  # noqa: PT018 - which says all
    (drilled.bin / "nft").symlink_to(nft)
    keeps = "ip link set lo up; echo up; read -r _"
    pipe = subprocess.PIPE
    with subprocess.Popen([unshare, "-n", "sh", "-c", keeps], stdin=pipe, stdout=pipe, text=True) as space:
        assert space.stdout is not None
        assert space.stdout.readline() == "up\n"
        drilled.shell = (nsenter, "-t", str(space.pid), "-n", "/bin/sh")
        yield drilled
        drilled.release()
        until(lambda: not (drilled.root / "pid-exlb-drill").exists())
        assert space.stdin is not None
        space.stdin.close()


def inside(machine: Machine, *command: str) -> str:
    return subprocess.run([*machine.shell[:-1], *command], check=True, capture_output=True, text=True).stdout


def test_real_partition_drops_vrrp_and_nothing_else_and_leaves_nothing(parted: Machine) -> None:
    assert inside(parted, sys.executable, "-c", RAW) == "advert\n"
    assert parted.run(DRILL, "check", "partition", "-").stdout == f"{DONE}\n"
    assert inside(parted, "nft", "list", "ruleset") == ""
    started(parted, "partition", "-")
    assert inside(parted, sys.executable, "-c", RAW) == "dropped\n"
    assert inside(parted, sys.executable, "-c", RAW.replace("112", "113")) == "advert\n"
    assert words(parted.run(DRILL, "end", TOKEN))[-1] == "undone"
    assert inside(parted, "nft", "list", "ruleset") == ""
    assert inside(parted, sys.executable, "-c", RAW) == "advert\n"


def test_iptables_is_not_asked_where_nft_can_do_it(parted: Machine) -> None:
    for name in FAMILIES:
        fake(parted.bin, name, 'echo "$0 $*" >>"$ROOT/asked"')
    started(parted, "partition", "-")
    assert words(parted.run(DRILL, "end", TOKEN))[-1] == "undone"
    assert not (parted.root / "asked").exists()


def test_real_partition_is_healed_when_the_session_is_gone(parted: Machine) -> None:
    started(parted, "partition", "-")
    parted.release()
    until(lambda: "undone" in told(parted))
    assert inside(parted, "nft", "list", "ruleset") == ""


# Who watches


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def watching(machine: Machine, url: str, limit: int = LIMIT_SECONDS) -> Iterator[subprocess.Popen[str]]:
    command = ["/bin/sh", "-c", machine.program(*DRILL), "exlb", "watch", url, "0.05", str(limit)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=machine.environment) as process:
        assert process.stdin is not None
        yield process
        process.stdin.close()
        process.wait(timeout=WAIT_SECONDS)


def lines(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    assert process.stdout is not None
    return [process.stdout.readline().split() for _ in range(count)]


def test_client_asks_every_50_ms_and_tells_answers_from_silence(drilled: Machine) -> None:
    with serving() as port, watching(drilled, f"http://127.0.0.1:{port}/readyz") as process:
        before = time.time() * 1000
        answered = lines(process, 10)
    with watching(drilled, f"http://127.0.0.1:{port}/readyz") as process:
        refused = lines(process, 5)
    assert {each[0] for each in answered} == {"request"}
    assert {each[3] for each in answered} == {"0"}
    assert {each[3] for each in refused} == {"7"}, "curl's word for a connection that nobody takes"
    begins = sorted(int(each[1]) for each in answered)
    assert before - 1000 <= begins[0]
    assert all(int(each[1]) <= int(each[2]) for each in answered)
    assert begins[-1] - begins[0] + 20 >= 9 * 50


def test_request_that_hangs_keeps_no_other_one_waiting(drilled: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hung:
        url = f"http://127.0.0.1:{hung.getsockname()[1]}/"
        with watching(drilled, url) as process:
            seen = lines(process, 12)
    begins = sorted(int(each[1]) for each in seen)
    assert {each[3] for each in seen} == {"28"}, "curl's word for a limit that came"
    assert begins[-1] - begins[0] < 12 * 1000 / 2


def test_clock_is_told_when_it_is_asked_for(drilled: Machine) -> None:
    with serving() as port, watching(drilled, f"http://127.0.0.1:{port}/") as process:
        assert process.stdin is not None
        before = time.time() * 1000
        process.stdin.write("\n")
        process.stdin.flush()
        said = next(each for each in iter(lambda: lines(process, 1)[0], []) if each[0] == "clock")
    assert before - 30 <= int(said[1]) <= time.time() * 1000 + 30


class Pipe:
    """A program on this host as the channel of a node."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.rstrip("\n"))
        self._said.put(None)

    def line(self, limit_seconds: float) -> str | None:
        try:
            return self._said.get(timeout=limit_seconds)
        except queue.Empty:
            raise RemoteError("no answer") from None

    def send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


def test_exlb_reads_of_the_client_what_happened_and_when_by_its_own_clock(drilled: Machine) -> None:
    with contextlib.ExitStack() as server, contextlib.ExitStack() as client:
        port = server.enter_context(serving())
        process = client.enter_context(watching(drilled, f"http://127.0.0.1:{port}/"))
        watch = NodeWatch(cluster().nodes[0], Pipe(process))
        watch.start()
        until(lambda: len([each for each in watch.samples if each.answered]) >= 10)
        server.close()
        gone = time.time()
        until(lambda: len([each for each in watch.samples if not each.answered]) >= 10)
        watch.end()
        watch.join()
    ahead = drilling.offset(watch.readings)
    assert abs(ahead.seconds) <= ahead.doubt_seconds + 0.03
    silence = drilling.silences(watch.samples)[-1]
    assert ahead.ours(silence.begin) <= gone + ahead.doubt_seconds + 0.03
    assert watch.lost is None


def test_client_ends_with_the_session(drilled: Machine) -> None:
    with serving() as port, watching(drilled, f"http://127.0.0.1:{port}/") as process:
        lines(process, 3)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=WAIT_SECONDS) == 0
        assert process.stdout is not None
        process.stdout.read()  # ends only when nobody of it is left


def test_client_ends_at_its_limit_and_the_session_goes_on(drilled: Machine) -> None:
    with serving() as port, watching(drilled, f"http://127.0.0.1:{port}/", limit=1) as process:
        counts = [1]

        def silent() -> bool:
            """Tell whether it has begun, and nothing was asked since the last look, a few times the pause ago."""
            assert process.stdin is not None
            time.sleep(0.3)
            process.stdin.write("\n")
            process.stdin.flush()
            counts.append(0)
            while lines(process, 1)[0][0] != "clock":
                counts[-1] += 1
            return sum(counts) > 1 and counts[-1] == 0

        until(silent)
        assert sum(counts) <= 1.2 * 20


def test_program_says_in_its_head_what_it_is_called_with() -> None:
    text = program("drill.sh")
    for mode in ("check", "start", "end", "watch"):
        assert f"#   {mode} " in text or f"#   {mode}\n" in text
