"""The lines of many journals: a colour per node."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.text import Text

from exlb_fab.commands.logs import LogLine, LogsReport
from exlb_fab.report.tables import answer, nodes_table

COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


@answer.register
def _logs(report: LogsReport) -> RenderableType:
    styles = _Styles()
    failed = [nodes_table("Not read", report.nodes)] if report.nodes else []
    return Group(*(_text(line, styles) for line in report.lines), *failed)


def printer() -> Callable[[LogLine], None]:
    """Return what prints a line on stdout as it comes."""
    console, styles = Console(highlight=False), _Styles()
    return lambda line: console.print(_text(line, styles), soft_wrap=True)


class _Styles(dict[str, str]):
    """The colour of each node, in the order in which they are first seen."""

    def __missing__(self, node: str) -> str:
        self[node] = COLOURS[len(self) % len(COLOURS)]
        return self[node]


def _text(line: LogLine, styles: _Styles) -> Text:
    when = datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    text = Text(no_wrap=True, overflow="ignore")
    text.append(f"{when} ", "dim").append(f"{line.node} ", styles[line.node]).append(f"{line.source}: ", "bold")
    return text.append(line.text.replace("\n", "\n    "))
