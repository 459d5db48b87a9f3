"""Progress, warnings and errors: everything that goes to stderr, one line at a time; and a place that is refreshed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from exlb_fab.errors import ExlbError
from exlb_fab.events import Event

_STYLES = {"detail": "dim", "diff": "", "step": "", "done": "green", "warning": "yellow", "failure": "bold red"}


class Screen:
    """The operator's terminal: stdout takes the answer, stderr everything else."""

    def __init__(self, *, verbose: bool) -> None:
        self.stdout = Console(highlight=False, soft_wrap=False)
        self.stderr = Console(stderr=True, highlight=False)
        self._verbose = verbose
        self._lock = threading.Lock()
        self._place: Place | None = None

    def emit(self, event: Event) -> None:
        """Print one event; safe to call from any thread."""
        if event.level == "detail" and not self._verbose:
            return
        with self._lock:
            if self._place is not None:
                self._place.remark(Text(f"{event.node or ''}  {event.text}".strip(), _STYLES[event.level]))
                return
            if event.level == "diff":
                self.stderr.print(Text(event.node or "", "cyan"), soft_wrap=True)
                self.stderr.print(colored_diff(event.text), soft_wrap=True)
                return
            prefix = Text.assemble((event.node, "cyan"), "  ") if event.node else Text()
            self.stderr.print(prefix.append(event.text, _STYLES[event.level]), soft_wrap=True)

    def error(self, error: ExlbError) -> None:
        """Print what failed and what to type next."""
        with self._lock:
            self.stderr.print(Text.assemble(("error:", "bold red"), f" {error.message}"), soft_wrap=True)
            if error.hint:
                self.stderr.print(Text.assemble(("next:", "bold"), f"  {error.hint}"), soft_wrap=True)

    def raw(self, text: str) -> None:
        """Print machine-readable output, untouched by width or colour."""
        self.stdout.out(text, highlight=False)

    @property
    def can_refresh(self) -> bool:
        """Tell whether stdout can show one thing in the place of another."""
        return self.stdout.is_terminal and not self.stdout.is_dumb_terminal

    @contextmanager
    def place(self, remark: str) -> Iterator[Place]:
        """Take the whole terminal for things that replace each other; what is told meanwhile stands above them.

        `remark` stands there where nothing is told. Afterwards the terminal is as it was before.
        """
        with Live(console=self.stdout, screen=True, auto_refresh=False) as live:
            made = Place(live, Text(remark, "dim"))
            with self._lock:
                self._place = made
            try:
                yield made
            finally:
                with self._lock:
                    self._place = None


class Place:
    """What a refreshed terminal shows: one thing, and above it one line about what goes on."""

    def __init__(self, live: Live, idle: Text) -> None:
        self._live = live
        self._idle = self._remark = idle
        self._shown: RenderableType = Text()
        self._refresh()

    def show(self, renderable: RenderableType) -> None:
        """Show one thing in the place of the one before."""
        self._shown, self._remark = renderable, self._idle
        self._refresh()

    def remark(self, text: Text) -> None:
        """Say what goes on, until something is shown or said."""
        self._remark = text
        self._refresh()

    def _refresh(self) -> None:
        self._live.update(Group(self._remark, self._shown), refresh=True)


def colored_diff(diff: str) -> Text:
    """Return a unified diff with the usual colours."""
    text = Text(no_wrap=True, overflow="ignore")
    for line in diff.splitlines():
        style = "bold" if line.startswith(("---", "+++")) else {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        text.append(line + "\n", style)
    text.rstrip()
    return text
