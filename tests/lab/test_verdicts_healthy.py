"""No false red: entrances in which nothing is wrong, however they are set up, are green."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exlb_fab.lab import Lab, down
from tests.lab.bastion import Bastion
from tests.lab.conditions.base import Condition
from tests.lab.conditions.healthy import CONDITIONS, LABS
from tests.lab.conftest import AddCell
from tests.lab.judging import judged, rows


@pytest.mark.parametrize("condition", rows(CONDITIONS))
def test_verify_of_a_healthy_entrance_is_green(green: Bastion, cell: AddCell, condition: Condition) -> None:
    look, wrong = judged(green, condition)
    cell(condition, look, wrong)
    assert not wrong


@pytest.fixture
def entrance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bastion]:
    """Nodes of some releases after `exlb deploy`; removed afterwards."""
    name = f"t-healthy-{os.getpid() % 10000}"
    try:
        bastion = Bastion(Lab.up(name, len(request.param), request.param), tmp_path)
        bastion.exlb("deploy")
        yield bastion
    finally:
        down(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entrance", "condition"), LABS, ids=[",".join(each) for each, _ in LABS], indirect=["entrance"]
)
def test_verify_of_other_labs_is_green(entrance: Bastion, cell: AddCell, condition: Condition) -> None:
    look, wrong = judged(entrance, condition)
    cell(condition, look, wrong)
    assert not wrong
