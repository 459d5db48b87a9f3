"""A report of drill -> tables, and a folder that keeps it: the tables as text, JSON, and a picture of each fault."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from exlb_fab.commands.drill_report import DrillReport, DrillRow
from exlb_fab.errors import ExlbError, UsageError
from exlb_fab.report.tables import answer, bare_table, titled
from exlb_fab.report.timeline import timeline

TEXT, JSON = "report.txt", "report.json"
TEXT_COLUMNS = 120


@answer.register
def _drill(report: DrillReport) -> RenderableType:
    table = bare_table("fault", "on", "detected", "taken over", "moves", "outage", "afterwards")
    for each in report.drills:
        table.add_row(
            Text(each.fault, "cyan"),
            each.holder,
            _seconds(each.detection_seconds),
            f"{_seconds(each.takeover_seconds)} {each.new_holder or ''}".rstrip(),
            str(each.moves),
            Text(_bounded(each.outage_seconds, each.worst_seconds), "bold red" if each.overlong else ""),
            _bounded(_afterwards(each), each.undone_worst_seconds),
        )
    parts: list[RenderableType] = [titled(f"Drill of {report.vip}", table)]
    parts += [titled(f"{each.fault}: what clients saw", _clients(each)) for each in report.drills if each.watchers]
    for each in report.drills:
        parts += [Text(f"{each.fault} on {each.holder}: ").append(_result(each)), *_remarks(each)]
    parts += [Text(f"left out: {each}", "dim") for each in report.left_out]
    if report.stopped:
        parts.append(Text(f"not all were drilled: {report.stopped}", "yellow"))
    return Group(*parts, _verdict(report))


def _afterwards(row: DrillRow) -> float | None:
    """Return the longest outage once the fault was undone."""
    return max((each.afterwards_seconds for each in row.watchers if each.afterwards_seconds is not None), default=None)


def _clients(row: DrillRow) -> Table:
    table = bare_table("client on", "requests", "unanswered", "outage", "resolution", "afterwards")
    for each in row.watchers:
        table.add_row(
            Text(each.watcher, "cyan"),
            str(each.requests),
            str(each.unanswered),
            Text(_seconds(each.outage_seconds if each.requests else None), "" if each.within else "bold red"),
            Text(_seconds(each.resolution_seconds), "" if each.unmeasured is None else "bold red"),
            _seconds(each.afterwards_seconds),
        )
    return table


def _remarks(row: DrillRow) -> list[Text]:
    """Return a paragraph for each thing that is not as it was planned."""
    said = []
    if row.overlong:
        said.append(f"{row.fault}: clients were without the VIP for longer than the model's worst case")
    if row.unmeasured:
        said.append(f"{row.fault}: could not be measured: {'; '.join(row.unmeasured)}")
    if row.ineffective and not row.cut_short:
        said.append(f"{row.fault}: nobody took over, by the journals of all nodes: it shows nothing of a failover")
    if row.cut_short:
        said.append(f"{row.fault}: cut short: {row.cut_short}")
    if not row.restored:
        said.append(f"{row.fault}: it is not known whether the fault is undone on {row.holder}")
    if row.problem:
        said.append(f"{row.fault}: {row.problem}" + (f"\nnext: {row.hint}" if row.hint else ""))
    return [Text(each, "bold red" if not row.restored else "yellow") for each in said]


def _result(row: DrillRow) -> Text:
    if row.passed:
        return Text("as the model says", "green")
    if not row.restored:
        return Text("NOT RESTORED", "bold red")
    if row.cut_short:
        return Text("cut short", "yellow")
    if row.overlong:
        return Text("outage too long", "bold red")
    if row.within and row.ineffective:
        return Text("nobody took over", "bold red")
    return Text("not measured" if not row.within else "not green afterwards", "bold red")


def _verdict(report: DrillReport) -> Text:
    restored = (
        "everything is restored" if all(each.restored for each in report.drills) else "NOT EVERYTHING IS RESTORED"
    )
    if report.interrupted:
        return Text(f"interrupted; {restored}", "bold yellow")
    if report.passed:
        return Text(f"every failover was within the model's worst case; {restored}, and verify is green", "bold green")
    return Text(f"the drill failed; {restored}", "bold red")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _bounded(value: float | None, most_seconds: float) -> str:
    """Return an outage, and which one passes."""
    return f"{'-' if value is None else f'{value:.2f}'} <= {most_seconds:.2f} s"


def check_folder(folder: Path) -> None:
    """Make the folder that a report will be kept in: better before a fault than after it. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}", hint="--reports DIR names another place") from error


def keep(report: DrillReport, folder: Path) -> None:
    """Write a report into its folder. Raises ExlbError where that cannot be done."""
    text = Console(file=io.StringIO(), width=TEXT_COLUMNS, highlight=False, force_terminal=False)
    text.print(answer(report))
    assert isinstance(text.file, io.StringIO)
    files = {TEXT: text.file.getvalue(), JSON: report.model_dump_json(indent=2) + "\n"}
    files |= {f"{place}-{each.fault}.svg": timeline(each, report.nodes) for place, each in enumerate(report.drills, 1)}
    try:
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ExlbError(f"cannot write to {folder}: {error.strerror}") from error
