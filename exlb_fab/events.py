"""What a command tells while it runs: plain events, so that no layer above the report knows a screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["detail", "diff", "step", "done", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, on one node or (`node` is None) on all of them."""

    level: Level
    text: str
    node: str | None = None


Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """Drop the event."""
