"""One fault of a drill -> a picture of what clients and keepalived did meanwhile: SVG that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from exlb_fab.commands.drill_report import DrillRow

WIDTH, LEFT, RIGHT, TOP = 960, 120, 20, 56
ROW, BAR, FOOT = 26, 16, 52
LEAD_SECONDS = 2.0
MOST_TICKS = 12
STEPS_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
SERVED, SILENT = "#4c9f70", "#c1272d"
STATES = {"MASTER": "#2f6db5", "BACKUP": "#c9d3dd", "FAULT": "#e09f3e", "STOPPED": "#6b6b6b"}


def timeline(row: DrillRow, nodes: Sequence[str]) -> str:
    """Return the picture: a bar for each client, one for the state of each node, and when the fault was there."""
    return "\n".join(_Picture(row, nodes).lines())


class _Picture:
    def __init__(self, row: DrillRow, nodes: Sequence[str]) -> None:
        self._row = row
        self._nodes = nodes
        self._end = max(row.ended_seconds, row.undone_seconds or 0.0, 1.0)
        self._rows = len(row.watchers) + len(nodes)
        self._height = TOP + ROW * self._rows + FOOT

    def lines(self) -> Iterator[str]:
        row = self._row
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._height}" width="{WIDTH}" '
            f'height="{self._height}" font-family="sans-serif" font-size="12" role="img">'
        )
        yield f"<title>{escape(f'exlb drill {row.fault} on {row.holder}, {row.at:%Y-%m-%d %H:%M:%S} UTC')}</title>"
        yield f"<desc>{escape(self._summary())}</desc>"
        yield f'<rect width="{WIDTH}" height="{self._height}" fill="#ffffff"/>'
        yield _text(LEFT, 20, f"{row.deed}, {row.at:%Y-%m-%d %H:%M:%S} UTC", weight="bold")
        yield _text(LEFT, 38, self._summary())
        yield from self._axis()
        yield from self._clients()
        yield from self._states()
        yield from self._marks()
        yield from self._legend()
        yield "</svg>"

    def _summary(self) -> str:
        row = self._row
        outage = "not seen" if row.outage_seconds is None else f"{row.outage_seconds:.2f} s"
        taken = f"; {row.new_holder} took over after {row.takeover_seconds:.2f} s" if row.takeover_seconds else ""
        return f"outage {outage}, by the model at most {row.worst_seconds:.2f} s{taken}; {row.moves} moves"

    def _x(self, seconds: float) -> float:
        share = (min(max(seconds, -LEAD_SECONDS), self._end) + LEAD_SECONDS) / (self._end + LEAD_SECONDS)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def _bar(self, place: int, begin: float, end: float, colour: str, title: str) -> str:
        y = TOP + ROW * place + (ROW - BAR) / 2
        width = max(1.0, self._x(end) - self._x(begin))
        return (
            f'<rect x="{self._x(begin):.1f}" y="{y:g}" width="{width:.1f}" height="{BAR}" fill="{colour}">'
            f"<title>{escape(title)}</title></rect>"
        )

    def _label(self, place: int, text: str) -> str:
        return _text(LEFT - 8, TOP + ROW * place + ROW / 2 + 4, text, anchor="end")

    def _clients(self) -> Iterator[str]:
        for place, each in enumerate(self._row.watchers):
            yield self._label(place, each.watcher)
            if each.requests:
                yield self._bar(place, -LEAD_SECONDS, each.last_seconds, SERVED, f"{each.watcher}: answered")
            for begin, end in each.silences:
                yield self._bar(place, begin, end, SILENT, f"{each.watcher}: no answer for {end - begin:.2f} s")

    def _states(self) -> Iterator[str]:
        for place, node in enumerate(self._nodes, len(self._row.watchers)):
            yield self._label(place, f"{node} VRRP")
            first = "MASTER" if node == self._row.holder else "BACKUP"
            changes = [(each.seconds, str(each.state)) for each in self._row.transitions if each.node == node]
            for (begin, state), (end, _) in pairwise([(-LEAD_SECONDS, first), *changes, (self._end, "")]):
                yield self._bar(place, begin, end, STATES[state], f"{node}: {state}")

    def _marks(self) -> Iterator[str]:
        bottom = TOP + ROW * self._rows
        marks = [(0.0, "fault")]
        if self._row.undone_seconds is not None:
            marks.append((self._row.undone_seconds, "undone"))
        for seconds, word in marks:
            x = self._x(seconds)
            ends = f'x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}"'
            yield f'<line {ends} stroke="#000000" stroke-dasharray="4 3"/>'
            yield _text(x + 3, TOP - 2, word)

    def _axis(self) -> Iterator[str]:
        bottom = TOP + ROW * self._rows
        for seconds in _ticks(self._end):
            x = self._x(seconds)
            yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom + 4}" stroke="#dddddd"/>'
            yield _text(x, bottom + 18, f"{seconds:g} s", anchor="middle")

    def _legend(self) -> Iterator[str]:
        x, y = float(LEFT), self._height - 10
        for word, colour in {"answered": SERVED, "no answer": SILENT, **STATES}.items():
            yield f'<rect x="{x:g}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
            yield _text(x + 16, y, word)
            x += 34 + 7.5 * len(word)


def _ticks(end: float) -> Iterable[float]:
    step = next((each for each in STEPS_SECONDS if end / each <= MOST_TICKS), end / MOST_TICKS)
    return (step * place for place in range(int(end / step) + 1))


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
