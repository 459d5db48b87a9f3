"""The table of drills in a row: what of their reports it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.lab.records import Records
from tests.lab.table import Drilled, drills


def report(fault: str, **outages: float) -> dict[str, Any]:
    """Return what the report of a drill says of a fault on lb1: the longest outage of each client."""
    return {
        "fault": fault,
        "holder": "lb1",
        "worst_seconds": 5.57,
        "undone_worst_seconds": 1.0,
        "watchers": [
            {
                "watcher": name,
                "outage_seconds": each,
                "afterwards_seconds": each / 10,
                "resolution_seconds": each / 20,
                "latency_seconds": 0.02,
            }
            for name, each in outages.items()
        ],
    }


def test_client_that_waited_longest_counts() -> None:
    kept = Drilled.of("fast", "proxy", [report("proxy", lb1=4.0, lb2=5.0), report("proxy", lb1=3.0, lb2=1.0)], "0123")
    assert (kept.outages_seconds, kept.afterwards_seconds) == ([5.0, 3.0], [0.5, 0.3])
    assert kept.resolution_seconds == 0.25
    row = "| fast | proxy | 2 | 4.00 s | 3.00-5.00 s | 5.57 s | 0.25 s | 0.02 s | 0.30-0.50 s | 1.00 s | 0123 |"
    text = drills([kept])
    assert row in text.splitlines()
    assert "Not measured: `proxy` with `TIMING=documents`, `keepalived` with `TIMING=fast`" in text


def test_client_on_the_node_without_power_does_not_count() -> None:
    kept = Drilled.of("fast", "node", [report("node", lb1=600.0, lb2=2.0)], "0123")
    assert (kept.outages_seconds, kept.resolution_seconds) == ([2.0], 0.1)
    assert Drilled.of("fast", "kill", [report("kill", lb1=600.0, lb2=2.0)], "0123").outages_seconds == [600.0]


def test_drills_are_kept_until_all_are_there(tmp_path: Path) -> None:
    kept = Drilled.of("fast", "proxy", [report("proxy", lb1=4.0)], "0123")
    Records(tmp_path).rehearse("one", kept)
    assert Records(tmp_path).drilled() == {"one": kept}
