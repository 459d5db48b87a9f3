"""What a change that is right costs clients: nothing, or what the plan has announced."""

from __future__ import annotations

from tests.lab.bastion import Bastion
from tests.lab.conftest import AddRow


def test_valid_change_of_the_proxy(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        ran = green.exlb("push-config", "-o", "json", env=green.environment(BALANCE="leastconn"))
    assert set(ran.results.values()) == {"changed"}
    assert watch.seen.requests > 5
    assert watch.seen.harmless, watch.seen
    row("valid haproxy change on a live cluster", "0 failed, 0 moves, the open connection lives", watch, "changed")
