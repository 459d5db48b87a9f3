"""Two rounds of verify -> what differs, a line each: for logs, and wherever nothing can be shown in place."""

from __future__ import annotations

from collections.abc import Iterator

from exlb_fab.commands.verify import VerifyReport

NOTABLE = ("warn", "fail")


def changes(before: VerifyReport | None, now: VerifyReport) -> Iterator[str]:
    """Yield a line with the time for every warning or failure that has come or gone, then for another verdict of all.

    Without a round before, all that is found has come.
    """
    at = f"{now.at:%Y-%m-%dT%H:%M:%SZ}"
    was = {(each.check, each.node): each.status for each in before.verdicts} if before else {}
    for each in now.verdicts:
        earlier = was.get((each.check, each.node), "pass")
        if each.status != earlier and {each.status, earlier} & set(NOTABLE):
            on = f" {each.node}" if each.node else ""
            yield f"{at} {each.status} {each.check}{on}: {' '.join(each.text.split())}"
    if before is None or before.word != now.word:
        yield f"{at} {now.sentence}"
