"""What people read: tables that lose nothing, text that is not taken for markup, and one line at a time."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from rich.console import Console

from exlb_fab.commands.base import NodeRow, Report
from exlb_fab.commands.config import ConfigReport, OutageRow, SettingRow
from exlb_fab.commands.deploy import DeployReport
from exlb_fab.commands.diff import DiffReport
from exlb_fab.commands.differences import FileDiff
from exlb_fab.commands.execute import ExecReport, ExecRow
from exlb_fab.commands.history import GenerationRow, HistoryReport
from exlb_fab.commands.install import InstallReport
from exlb_fab.commands.lock import LockReport, LockRow
from exlb_fab.commands.push_config import PushReport
from exlb_fab.commands.questionnaire import CheckRow, VerdictRow
from exlb_fab.commands.recover import RecoverReport
from exlb_fab.commands.render import RenderedFile, RenderReport
from exlb_fab.commands.restart import RestartReport
from exlb_fab.commands.rollback import RollbackReport
from exlb_fab.commands.verify import BackendRow, VerifyReport
from exlb_fab.errors import ExlbError
from exlb_fab.events import Event, Level
from exlb_fab.report import Screen, answer
from exlb_fab.report.tables import round_of_verify

WIDTH = 80
NAMES = tuple(f"control-plane-{number:02}.rack-{chr(96 + number)}.example.org" for number in range(1, 11))
RESULTS = ("changed", "unchanged", "failed", "unreachable", "not started", "pending")
WHEN = "2027-01-02T03:04:05Z"


def shown(report: Report, width: int = WIDTH) -> str:
    """Return what stands on a terminal of a width."""
    console = Console(file=io.StringIO(), width=width, highlight=False, legacy_windows=False)
    console.print(answer(report), crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows() -> tuple[NodeRow, ...]:
    return tuple(
        NodeRow(
            node=name,
            address=f"198.51.100.{number}",
            result=RESULTS[number % len(RESULTS)],  # type: ignore[arg-type]
            detail="write /etc/haproxy/haproxy.cfg (content), reload haproxy (its file changes)",
            seconds=number,
            hint="exlb verify" if number % 2 else None,
        )
        for number, name in enumerate(NAMES)
    )


def verify_report(names: tuple[str, ...] = NAMES) -> VerifyReport:
    checks = [f"node.{name}" for name in ("ssh", "packages", "proxy", "keepalived", "ports", "files", "running")]
    checks += ["vip.single-holder", "vip.role", "vip.ping", "vip.request", "backend.servers"]
    verdicts = [
        VerdictRow(
            check=check,
            node=None if check == "vip.single-holder" else name,
            status="fail" if number % 3 == 0 else "warn" if number % 3 == 1 else "pass",
            text=f"{check} of {name}",
            cause="first line\nsecond line",
            hint="exlb verify",
            unreachable=False,
        )
        for number, name in enumerate(names)
        for check in checks
    ]
    backends = tuple(
        BackendRow(listener="kube-master", server=name, address=f"{name}:6443", seen=dict.fromkeys(names, "UP L7OK"))
        for name in names
    )
    return VerifyReport(
        at=datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC),
        nodes=names,
        vip="198.51.100.100",
        holders=names[:2],
        not_asked=(),
        expect_no_apiserver=False,
        checks=tuple(CheckRow(id=check, title=check) for check in checks),
        verdicts=tuple(verdicts),
        backends=backends,
        interrupted=False,
    )


DIFF = FileDiff(
    nodes=NAMES, path="/etc/haproxy/haproxy.cfg", reason="content", diff="--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y"
)


def push_report(*, dry_run: bool, nodes: Sequence[NodeRow] = (), number: int | None = 7) -> PushReport:
    found = tuple(nodes or rows())
    return PushReport(dry_run=dry_run, pending_exit_code=False, number=number, diffs=(DIFF,), notices=(), nodes=found)


def rollback_report(*, dry_run: bool) -> RollbackReport:
    return RollbackReport(to=7, dry_run=dry_run, diffs=(DIFF,), notices=(), nodes=rows())


def history_report() -> HistoryReport:
    what = ("found on the node", "push-config", "restart haproxy keepalived")
    files = (
        "/etc/haproxy/haproxy.cfg",
        "/etc/keepalived/keepalived.conf",
        "/usr/local/libexec/exlb/check-0123456789ab.sh",
    )
    return HistoryReport(
        generations=tuple(
            GenerationRow(
                node=name, number=number, active=number == 2, when=WHEN, who="operations-team", origin=NAMES[0],
                what=what[number], changed=files[:number + 1],
            )
            for name in NAMES
            for number in range(3)
        ),
        unfinished={NAMES[0]: "files were edited by hand since"},
        journal={},
        nodes=rows()[3:4],
    )  # fmt: skip


def lock_report() -> LockReport:
    held = [
        LockRow(node=name, who="operations-team", origin=name, since=WHEN, what="install --upgrade", changing=True)
        for name in NAMES[1:]
    ]
    return LockReport(locks=(LockRow(node=NAMES[0]), *held), nodes=rows()[3:4])


def exec_report() -> ExecReport:
    return ExecReport(
        nodes=tuple(
            ExecRow(
                node=name, address="", status=None if number == 3 else number, stdout="out [bold]\n", stderr="x" * 200,
                seconds=1, error="cannot connect", hint="is it up?",
            )
            for number, name in enumerate(NAMES)
        ),
        failures=4,
    )  # fmt: skip


REPORTS: dict[str, Callable[[], Report]] = {
    "install": lambda: InstallReport(nodes=rows()),
    "restart": lambda: RestartReport(nodes=rows()),
    "rollback": lambda: rollback_report(dry_run=False),
    "dry run of a rollback": lambda: rollback_report(dry_run=True),
    "recover": lambda: RecoverReport(nodes=rows()),
    "history": history_report,
    "lock": lock_report,
    "diff": lambda: DiffReport(diffs=(DIFF,), nodes=rows()),
    "push": lambda: push_report(dry_run=False),
    "dry run": lambda: push_report(dry_run=True),
    "exec": exec_report,
    "verify": verify_report,
    "deploy": lambda: DeployReport(
        install=InstallReport(nodes=rows()), push=push_report(dry_run=False), verify=verify_report()
    ),
    "render": lambda: RenderReport(
        files=tuple(
            RenderedFile(node=name, path="/etc/x", mode="0600", sha256="", text="[red]\n", written=None)
            for name in NAMES
        ),
        notes=("[red]",),
    ),
    "config": lambda: ConfigReport(
        path="environment.sh",
        settings=(SettingRow(name="NODE_NAMES", value=" ".join(NAMES), source="environment.sh:1"),),
        outages=(OutageRow(event="the holder dies", seconds=3.57), OutageRow(event="another", seconds=None)),
    ),
}


def columns(text: str) -> set[str]:
    """Return the words of a table's columns, folded lines joined: what stands below one another belongs together."""
    lines = text.splitlines()
    joined = set()
    for at, line in enumerate(lines):
        for found in re.finditer(r"\S+", line):
            word, below = found[0], at + 1
            joined.add(word)
            while below < len(lines) and (more := re.match(r"\S+", lines[below][found.start() :])):
                if lines[below][found.start() - 1 : found.start()].strip():
                    break
                word, below = word + more[0], below + 1
                joined.add(word)
    return joined


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [40, 80])
def test_large_report_keeps_the_name_of_every_node(name: str, width: int) -> None:
    text = shown(REPORTS[name](), width)
    found = columns(text) | {word.strip(",:") for word in text.split()}
    assert [node for node in NAMES if not any(node in word for word in found)] == []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_table_of_backends_keeps_every_node_that_sees_them(width: int) -> None:
    text = shown(verify_report(), width)
    table = text[text.index("Backends, as the proxy") :]
    found = columns(table[: table.index("FAIL")])
    assert [node for node in NAMES if not any(node in word for word in found)] == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (InstallReport(nodes=rows()[1:2]), "everything is installed"),
        (InstallReport(nodes=rows()[:1]), "installed"),
        (InstallReport(nodes=rows()), "2 failed; 2 unreachable; 1 not started; of 10"),
        (push_report(dry_run=True), "dry run: nothing was touched"),
        (push_report(dry_run=True, nodes=rows()[1:2]), "no changes"),
        (push_report(dry_run=False, nodes=rows()[:1]), "generation 7 is active"),
        (push_report(dry_run=False, nodes=rows()[:1], number=None), "no file changed"),
        (RestartReport(nodes=rows()[:1]), "restarted"),
        (rollback_report(dry_run=True), "dry run: nothing was touched"),
        (RollbackReport(to=7, dry_run=True, diffs=(), notices=(), nodes=rows()[1:2]), "no changes"),
        (RollbackReport(to=7, dry_run=False, diffs=(), notices=(), nodes=rows()[1:2]), "no changes"),
        (RollbackReport(to=7, dry_run=False, diffs=(), notices=(), nodes=rows()[:1]), "generation 7 is active again"),
        (RecoverReport(nodes=rows()[:1]), "recovered"),
        (RecoverReport(nodes=rows()[1:2]), "there was nothing to recover"),
        (DiffReport(diffs=(), nodes=()), "no differences"),
        (DiffReport(diffs=(DIFF,), nodes=()), "the active files differ from the rendered ones"),
        (RestartReport(nodes=(rows()[0].model_copy(update={"result": "restored"}),)), "1 restored; of 1"),
    ],
)
def test_last_line_sums_up(report: Report, words: str) -> None:
    assert shown(report, 200).rstrip().splitlines()[-1] == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "RED: a client may not be served, or may not be after a failure (36 pass, 36 warn, 48 fail)"),
        ({"verdicts": ()}, "GREEN: a client that connects to 198.51.100.100 is served"),
        ({"verdicts": (), "expect_no_apiserver": True}, "no apiserver is expected yet"),
        ({"verdicts": (), "interrupted": True}, "INTERRUPTED: no verdict"),
        (
            {"verdicts": (), "left_out": ("vip.extra", "config.unmanaged")},
            "GREEN as far as asked; left out: vip.extra, ",
        ),
        (
            {"left_out": ("config.unmanaged", "config.as-asked")},
            "or may not be after a failure; left out: config.* (36",
        ),
    ],
)
def test_verdict_is_the_last_word(changes: dict[str, object], words: str) -> None:
    last = shown(verify_report().model_copy(update=changes), 200).rstrip().splitlines()[-1]
    assert words in last


@pytest.mark.parametrize(
    ("holders", "not_asked", "words"),
    [
        (("lb1",), ("lb2",), "VIP 198.51.100.100: held by lb1"),
        ((), (), "VIP 198.51.100.100: held by nobody"),
        ((), ("lb1", "lb2"), "VIP 198.51.100.100: held by nobody or lb1 or lb2"),
    ],
)
def test_node_that_could_not_be_asked_may_hold_the_vip(holders: Sequence[str], not_asked: object, words: str) -> None:
    report = verify_report().model_copy(update={"holders": holders, "not_asked": not_asked})
    assert words in shown(report).splitlines()


def test_screen_that_is_too_low_shows_the_verdict_and_the_findings_first() -> None:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    console.print(round_of_verify(verify_report()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.startswith("2027-01-02 03:04:05 UTC  RED: ")
    assert text.index("FAIL") < text.index("Nodes")


def test_what_was_not_asked_has_no_table() -> None:
    report = verify_report()
    some = tuple(check for check in report.checks if check.id in ("node.ssh", "vip.ping"))
    text = shown(report.model_copy(update={"checks": some}))
    assert "Nodes" in text
    assert "VIP 198.51.100.100: held by" in text
    assert "Backends, as the proxy" not in text


def test_drop_ins_of_different_units_are_told_apart() -> None:
    units = ("/etc/systemd/system/haproxy.service.d/exlb.conf", "/etc/systemd/system/keepalived.service.d/exlb.conf")
    report = history_report()
    (row, *_) = report.generations
    text = shown(report.model_copy(update={"generations": (row.model_copy(update={"changed": units}),)}), 120)
    assert {"haproxy.service.d", "keepalived.service.d"} <= columns(text)


def test_column_of_times_is_there_only_with_a_time_in_it() -> None:
    still = tuple(row.model_copy(update={"seconds": 0}) for row in rows()[:2])
    assert "time" not in shown(push_report(dry_run=True, nodes=still))
    assert "time" in shown(push_report(dry_run=False))


@pytest.mark.parametrize("width", [80, 120])
def test_history_keeps_times_and_numbers_whole_and_loses_no_file(width: int) -> None:
    text = shown(history_report(), width)
    assert text.count("2027-01-02 03:04:05") == 3 * len(NAMES)
    assert text.count("2 active") == len(NAMES)
    found = columns(text)
    assert {"haproxy.cfg", "keepalived.conf"} <= found
    assert "files were edited by hand since" in text


def test_diff_that_is_not_of_all_nodes_does_not_speak_for_the_others() -> None:
    text = shown(DiffReport(diffs=(), nodes=rows()[3:4]))
    assert text.rstrip().endswith("no differences on the nodes that were compared")


@pytest.mark.parametrize("width", [80, 120])
def test_locks_keep_their_times_whole(width: int) -> None:
    assert shown(lock_report(), width).count("2027-01-02 03:04:05") == len(NAMES) - 1


def test_what_a_node_printed_is_never_folded_nor_taken_for_markup() -> None:
    lines = shown(exec_report()).splitlines()
    assert "x" * 200 in lines
    assert "out [bold]" in lines
    assert "[red]" in shown(REPORTS["render"]()).splitlines()


def test_report_without_a_table_is_a_bug_and_not_silence() -> None:
    with pytest.raises(TypeError, match="no table for Report"):
        answer(Report())


# Events


def screen(*, verbose: bool = False) -> tuple[Screen, io.StringIO]:
    made = Screen(verbose=verbose)
    made.stderr.file = io.StringIO()
    return made, made.stderr.file


@pytest.mark.parametrize("level", ["step", "done", "warning", "failure"])
@pytest.mark.parametrize(
    "text", ["[bold]not markup[/bold]", "a\\", "[/red]", ":smile: 12:30:00", "two\nlines", "[ALERT] (12) : x", "\\[x]"]
)
def test_event_is_told_as_it_is(level: Level, text: str) -> None:
    made, stream = screen()
    made.emit(Event(level, text, "lb[1]"))
    assert stream.getvalue() == f"lb[1]  {text}\n"


def test_detail_is_told_only_to_those_who_want_it() -> None:
    for verbose in (False, True):
        made, stream = screen(verbose=verbose)
        made.emit(Event("detail", "connecting", "lb1"))
        assert (stream.getvalue() != "") is verbose


def test_event_while_the_terminal_is_refreshed_stands_in_its_place() -> None:
    made, stream = screen()
    terminal = io.StringIO()
    made.stdout = Console(file=terminal, force_terminal=True, highlight=False, _environ={"TERM": "xterm"})
    with made.place("every 2 s") as place:
        made.emit(Event("step", "VRRP is not settled [x]", "lb1"))
        assert "lb1  VRRP is not settled [x]" in terminal.getvalue()
        terminal.truncate(0)
        place.show("the next round")
        assert "every 2 s" in terminal.getvalue()
        assert "not settled" not in terminal.getvalue()
    made.emit(Event("step", "afterwards"))
    assert stream.getvalue() == "afterwards\n"


def test_diff_is_told_as_it_is_under_its_title() -> None:
    made, stream = screen()
    diff = "--- active\n+++ rendered\n@@ -1,2 +1,2 @@\n-    bind [::]:80\n+    " + "x" * 200
    made.emit(Event("diff", diff, "lb1, lb2: /etc/haproxy/haproxy.cfg"))
    assert stream.getvalue() == f"lb1, lb2: /etc/haproxy/haproxy.cfg\n{diff}\n"


def test_error_is_told_with_what_to_type_next() -> None:
    made, stream = screen()
    made.error(ExlbError("lb1: [ALERT] it failed\nin two lines", hint="exlb exec -- 'ls [a-z]*'"))
    assert stream.getvalue() == "error: lb1: [ALERT] it failed\nin two lines\nnext:  exlb exec -- 'ls [a-z]*'\n"


def test_long_lines_are_left_to_the_terminal() -> None:
    made, stream = screen()
    made.emit(Event("step", "word " * 100))
    assert stream.getvalue().count("\n") == 1


def test_events_of_many_threads_come_out_whole() -> None:
    made, stream = screen(verbose=True)
    begin = threading.Barrier(8)
    levels: tuple[Level, ...] = ("detail", "step", "done", "warning", "failure", "diff")

    def tell(number: int) -> None:
        begin.wait(10)
        for count in range(20):
            made.emit(Event(levels[count % 6], f"thread {number} event {count} end", f"lb{number}"))

    errors: list[BaseException] = []

    def told(number: int) -> None:
        try:
            tell(number)
        except BaseException as error:  # noqa: BLE001 - the test is that there is none
            errors.append(error)

    threads = [threading.Thread(target=told, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    lines = stream.getvalue().splitlines()
    whole = [re.fullmatch(r"(?:lb\d  )?thread (\d) event (\d+) end|lb\d", line) for line in lines]
    assert all(whole)
    assert len({(found[1], found[2]) for found in whole if found and found[1]}) == 8 * 20
