"""Rounds of verify -> what differs from one to the next, a line each: for logs, and where nothing is shown in place."""

from __future__ import annotations

from collections.abc import Iterator

from exlb_fab.checks.base import Status
from exlb_fab.commands.verify import VerifyReport

NOTABLE = ("warn", "fail")


class Changes:
    """What is known from the rounds so far; what is not asked in a round, as of a node that is away, is as it was."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Status] = {}
        self._word = ""

    def lines(self, now: VerifyReport) -> Iterator[str]:
        """Yield a line with the time for every warning or failure that has come or gone, then for another verdict.

        Before the first round nothing was wrong, and no verdict was there.
        """
        at = f"{now.at:%Y-%m-%dT%H:%M:%SZ}"
        for each in now.verdicts:
            earlier = self._known.get((each.check, each.node), "pass")
            self._known[each.check, each.node] = each.status
            if each.status != earlier and {each.status, earlier} & set(NOTABLE):
                on = f" {each.node}" if each.node else ""
                yield f"{at} {each.status} {each.check}{on}: {' '.join(each.text.split())}"
        if now.word != self._word:
            yield f"{at} {now.sentence}"
        self._word = now.word
