"""One cell of the matrix of verdicts: bring a condition about, look until it is called what it is, mend it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from exlb_fab.understanding import load
from tests.lab.bastion import PAUSE_SECONDS, Bastion
from tests.lab.conditions.base import (
    Condition,
    Look,
    due_seconds,
    first_of_each_family,
    healthy,
    limit_seconds,
    mended_seconds,
)

# A verdict that comes and goes is none.
LOOKS = 2
CHANGING = ("push-config", "restart")


def rows(conditions: Sequence[Condition]) -> list[Any]:
    """Return a parameter for each condition; `make test` runs one of each family."""
    brief = first_of_each_family(conditions)
    return [
        pytest.param(each, id=str(each), marks=() if each.name in brief else pytest.mark.slow) for each in conditions
    ]


def judged(bastion: Bastion, condition: Condition) -> tuple[Look, list[str]]:
    """Return what a command said of a condition, and in what that is wrong; that it was not mended is wrong, too.

    The lab is green when this begins. Raises AssertionError where it is not with the variables of the condition.
    """
    with (condition.needs or _nothing)(bastion):
        cluster = load(bastion.environment(**condition.variables))
        green = healthy("as before", command=condition.command, variables=condition.variables)
        mended = mended_seconds(cluster)
        if condition.variables:
            bastion.exlb("push-config", "--yes", env=bastion.environment(**condition.variables))
            if condition.fault:
                _, wrong = looked_at(bastion, green, limit=mended, looks=1)
                assert not wrong, f"not green before {condition.name}: {wrong}"
        with (condition.fault or _nothing)(bastion):
            due, limit = due_seconds(cluster), limit_seconds(cluster, condition.takes)
            look, wrong = looked_at(bastion, condition, due=due, limit=limit)
            if condition.typed and not wrong:
                bastion.exlb(*_words(condition.typed), env=bastion.environment(**condition.variables))
                _, left = looked_at(bastion, green, limit=mended, looks=1)
                wrong += [f"not mended by `{condition.typed}`: {each}" for each in left]
        if condition.fault:
            _, left = looked_at(bastion, green, limit=mended, looks=1)
            wrong += [f"not mended: {each}" for each in left]
    return look, wrong


def looked_at(
    bastion: Bastion, condition: Condition, *, limit: float, due: float = 0, looks: int = LOOKS
) -> tuple[Look, list[str]]:
    """Look until all is said and nothing else, `looks` times running; return the last look, and what is wrong in it.

    What a look says that begins within `limit` seconds may not be all yet; of a later one everything counts. The last
    look begins after `due` seconds at the earliest: what follows from a condition may take as long.
    """
    return settled(lambda: _look(bastion, condition), condition.wrong, due, limit, looks)


def settled(
    see: Callable[[], Look],
    wrong: Callable[[Look], list[str]],
    due: float,
    limit: float,
    looks: int = LOOKS,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[Look, list[str]]:
    """Return the last of the looks that were needed, and what is wrong in it."""
    start = clock()
    right = 0
    while True:
        began = clock() - start
        seen = see()
        found = wrong(seen)
        right = 0 if found else right + 1
        if (right >= looks and began >= due) or (found and began > limit):
            return seen, found
        # Once all is said, nothing new is learnt before what follows from the condition may have come.
        pause(max(PAUSE_SECONDS, due - (clock() - start) if right else 0))


def _look(bastion: Bastion, condition: Condition) -> Look:
    env = bastion.environment(**{**condition.variables, **condition.asked})
    return Look.of(bastion.exlb(condition.command, "-o", "json", *condition.options, env=env, status=None))


def _words(typed: str) -> list[str]:
    """Return the words of a command line behind `exlb`; nobody is asked whether what it costs may be."""
    name, *words = shlex.split(typed)
    assert name == "exlb"
    return [*words, "--yes"] if words[0] in CHANGING else words


def _nothing(_: Bastion) -> nullcontext[None]:
    return nullcontext()
