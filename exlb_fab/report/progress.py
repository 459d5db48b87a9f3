"""Progress, warnings and errors: everything that goes to stderr, one line at a time."""

from __future__ import annotations

import threading

from rich.console import Console
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

    def emit(self, event: Event) -> None:
        """Print one event; safe to call from any thread."""
        if event.level == "detail" and not self._verbose:
            return
        with self._lock:
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

    def json(self, text: str) -> None:
        """Print machine-readable output, untouched by width or colour."""
        self.stdout.out(text, highlight=False)


def colored_diff(diff: str) -> Text:
    """Return a unified diff with the usual colours."""
    text = Text(no_wrap=True, overflow="ignore")
    for line in diff.splitlines():
        style = "bold" if line.startswith(("---", "+++")) else {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        text.append(line + "\n", style)
    text.rstrip()
    return text
