"""The matrix of verdicts: what verify says of everything that can be wrong; docs/verdicts.md has all of it.

Each condition is brought about on real machines, has to be called what it is and nothing else, and is mended again.
"""

from __future__ import annotations

import pytest

from tests.lab.bastion import Bastion
from tests.lab.conditions import VERIFY
from tests.lab.conditions.base import HOLDER, SECOND, Condition, Look
from tests.lab.conditions.split import LOST_ON_THEIR_WAY
from tests.lab.conftest import AddCell
from tests.lab.judging import judged, rows


@pytest.mark.parametrize("condition", rows(VERIFY))
def test_verify_says_what_is_wrong_and_nothing_else(green: Bastion, cell: AddCell, condition: Condition) -> None:
    look, wrong = judged(green, condition)
    cell(condition, look, wrong)
    assert not wrong


def test_adverts_that_were_cut_a_moment_ago_are_not_green(green: Bastion) -> None:
    with LOST_ON_THEIR_WAY(green):
        look = Look.of(green.exlb("verify", "-o", "json", status=1))
    (said,) = (each for each in look.said if each.check == "vip.single-holder")
    assert said.status == "fail"
    assert f"adverts reach {HOLDER}, and do not reach {SECOND}: one way is cut" in said.text
