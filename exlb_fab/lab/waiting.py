"""Waiting for a condition, with a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], *, limit_s: float, every_s: float = 0.02) -> T | None:
    """Ask until the answer is true; return that answer, or None when the limit is reached.

    The condition is asked at least once, and once more after the limit.
    """
    deadline = time.monotonic() + limit_s
    while True:
        late = time.monotonic() >= deadline
        if answer := condition():
            return answer
        if late:
            return None
        time.sleep(every_s)
