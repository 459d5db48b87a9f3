"""How the entrance is right now: the tables of `status` and `backend`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exlb_fab.commands.backend import WORDS, BackendListReport, BackendReport, Seen, ServerRow
from exlb_fab.commands.base import NodeRow
from exlb_fab.commands.status import HolderRow, StandingRow, StatusReport
from exlb_fab.report.tables import answer, bare_table, nodes_table, sentence, titled

STATE_STYLES = {"MASTER": "bold green", "BACKUP": "green", "FAULT": "bold red", "INIT": "yellow"}
MINUTE, HOUR, DAY = 60, 3600, 86400
KIB = 1024


@answer.register
def _status(report: StatusReport) -> RenderableType:
    parts: list[RenderableType] = [_vip(row) for row in report.vips]
    table = bare_table("node", "role", "VRRP", "since", "priority", "proxy", "sessions", "gen.", "note")
    for row in report.standing:
        table.add_row(*_standing(row))
    parts += [titled("Nodes", table), *_servers(report.names, report.servers)]
    return Group(*parts, *_ending(report.held_back, report.kept, report.nodes))


@answer.register
def _backend_list(report: BackendListReport) -> RenderableType:
    parts = _servers(report.names, report.servers)
    return Group(*parts, *_ending(report.held_back, report.kept, report.nodes))


@answer.register
def _backend(report: BackendReport) -> RenderableType:
    word = WORDS[report.admission]
    table = nodes_table(f"Backend {', '.join(report.servers)}", report.nodes)
    if report.dry_run:
        return Group(table, Text("dry run: nothing was touched", "bold"))
    verdict = sentence(report.nodes, f"{word} already, nothing was changed", word)
    return Group(table, verdict, *([Text(report.kept, "dim")] if report.kept else []))


def _ending(held_back: Sequence[str], kept: str, failed: Sequence[NodeRow]) -> list[RenderableType]:
    """Return what must not be forgotten: what is drained, and who could not be asked."""
    parts: list[RenderableType] = [Text(each, "bold yellow") for each in held_back]
    if held_back:
        parts.append(Text(f"{kept}; exlb backend ready NAME ends it", "dim"))
    if failed:
        parts.append(nodes_table("Not asked", failed))
    return parts


def _vip(row: HolderRow) -> Text:
    if not row.holders:
        return Text(f"VIP {row.vip}: no node that was asked holds it", "bold red")
    named = [f"{name} for {span(row.seconds[name])}" if name in row.seconds else name for name in row.holders]
    style = "bold green" if len(named) == 1 else "bold red"
    return Text(f"VIP {row.vip}: held by {', '.join(named)}", style)


def _standing(row: StandingRow) -> Iterable[Text]:
    priority = "" if row.priority is None else str(row.priority)
    if row.effective_priority != row.priority:
        priority = f"{row.effective_priority} of {row.priority}"
    notes = [*(f"{name} fails" for name in row.failing), row.note]
    return (
        Text(row.node, "cyan"),
        Text(row.role.lower()),
        Text(row.state, STATE_STYLES[row.state]) if row.state else Text(f"keepalived {row.keepalived}", "bold red"),
        Text("" if row.seconds is None else span(row.seconds)),
        Text(priority, "" if row.effective_priority == row.priority else "yellow"),
        Text(row.proxy, "green" if row.proxy == "active" else "bold red"),
        Text(str(row.sessions)),
        Text("" if row.generation is None else str(row.generation)),
        Text("; ".join(filter(None, notes)), "yellow"),
    )


def _servers(names: Sequence[str], rows: Sequence[ServerRow]) -> list[RenderableType]:
    """Return a table per listener: how each node sees a server, and what all of them together have with it."""
    return [
        titled(f"Backends of {listener}", _of_one([row for row in rows if row.listener == listener], names))
        for listener in dict.fromkeys(row.listener for row in rows)
    ]


def _of_one(rows: Iterable[ServerRow], names: Sequence[str]) -> Table:
    table = bare_table("backend", *names, "sessions", "in", "out", "changed")
    table.columns[0].no_wrap = True
    for row in rows:
        backend = row.address if row.server in row.address else f"{row.server} {row.address}"
        seen = row.seen.values()
        leaving = sum(each.leaving for each in seen)
        changes = [each.changed_seconds for each in seen if each.changed_seconds is not None]
        table.add_row(
            Text(backend, "cyan"),
            *(_cell(row.seen.get(name)) for name in names),
            str(sum(each.sessions for each in seen)) + (f" + {leaving} old" if leaving else ""),
            amount(sum(each.bytes_in for each in seen)),
            amount(sum(each.bytes_out for each in seen)),
            span(min(changes)) if changes else "",
        )
    return table


def _cell(seen: Seen | None) -> Text:
    if seen is None:
        return Text("-", "dim")
    if seen.admission != "ready":
        down = seen.status.startswith("DOWN")
        return Text(f"{WORDS[seen.admission]}{', DOWN' if down else ''}", "yellow")
    good = seen.status.startswith("UP") or seen.status == "no check"
    return Text(f"{seen.status} {seen.check}".strip(), "green" if good else "bold red")


def span(seconds: float) -> str:
    """Return a time in its two largest units, as kubectl does."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE}m"
    return f"{whole // DAY}d{whole % DAY // HOUR}h"


def amount(count: int) -> str:
    """Return a number of bytes in the largest unit, of 1024 each, that leaves a digit in front of the point."""
    size = float(count)
    for unit in "BKMG":
        if size < KIB:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= KIB
    return f"{size:.1f}T"
