"""The conditions of the matrix in docs/verdicts.md: what is done to a lab, and what it has to be called."""

from __future__ import annotations

from tests.lab.conditions import backends, files, keepalived, nodes, proxies, segment, split
from tests.lab.conditions.base import Condition, torn

VERIFY: tuple[Condition, ...] = tuple(
    torn(each)
    for each in (
        *proxies.CONDITIONS,
        *keepalived.CONDITIONS,
        *split.CONDITIONS,
        *segment.CONDITIONS,
        *backends.CONDITIONS,
        *files.CONDITIONS,
        *nodes.CONDITIONS,
    )
)
