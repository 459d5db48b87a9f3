"""The matrix of verdicts: what doctor says of nodes on which nothing is installed yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from exlb_fab.lab import Lab
from tests.lab.bastion import Bastion
from tests.lab.conditions.base import Condition
from tests.lab.conditions.doctor import CONDITIONS, prepare
from tests.lab.conftest import AddCell
from tests.lab.judging import judged, rows


@pytest.fixture(scope="module")
def ground(fresh_lab: Lab) -> Lab:
    """Fresh nodes that can hear adverts, have a firewall without rules, and know their repositories."""
    prepare(fresh_lab)
    return fresh_lab


@pytest.mark.parametrize("condition", rows(CONDITIONS))
def test_doctor_says_what_is_wrong_and_nothing_else(
    ground: Lab, tmp_path: Path, cell: AddCell, condition: Condition
) -> None:
    look, wrong = judged(Bastion(ground, tmp_path), condition)
    cell(condition, look, wrong)
    assert not wrong
