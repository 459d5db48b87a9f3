"""docs/doctor.md is about the doctor that there is."""

from __future__ import annotations

import re
from pathlib import Path

from exlb_fab.checks.doctor import CHECKS
from exlb_fab.ground import LISTEN_SECONDS, PROVIDERS

DOCUMENT = (Path(__file__).parents[2] / "docs/doctor.md").read_text()


def test_every_question_of_doctor_is_in_its_table() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([a-z]+\.[a-z-]+)`", row.split(" | ")[0])]
    assert named == [check.id for check in CHECKS]


def test_every_cloud_is_named_under_what_is_said_of_it() -> None:
    fails, _, warns = DOCUMENT.partition("## Clouds")[2].partition("Where a network may be")
    for provider in PROVIDERS:
        part = fails if provider.carries == "no" else warns
        assert provider.name in " ".join(part.split())


def test_the_time_to_listen_is_that_of_the_code() -> None:
    assert LISTEN_SECONDS == 4
    assert "listens for four seconds" in DOCUMENT
