"""`exlb lab` as it is typed, and what it shows; no lab is made here."""

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from exlb_fab.cli import lab as command
from exlb_fab.errors import LabError
from exlb_fab.lab import Lab, LabStatus, NodeStatus
from exlb_fab.report.labs import lab_table

NODES = (
    NodeStatus("lb1", "198.51.100.11", "bullseye", "running", partitioned=False, ssh=True, apiserver="ok"),
    NodeStatus("lb2", "198.51.100.12", "el9-like", "off", partitioned=False, ssh=False, apiserver="off"),
)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], ("default", None, ["bookworm"])),
        (["--releases", "bullseye,bookworm,trixie"], ("default", None, ["bullseye", "bookworm", "trixie"])),
        (["--name", "a", "--nodes", "4", "--releases", "trixie,el9-like"], ("a", 4, ["trixie", "el9-like"])),
    ],
)
def test_up_asks_for_the_releases_in_order(
    monkeypatch: pytest.MonkeyPatch, words: list[str], asked: tuple[object, ...]
) -> None:
    seen: list[tuple[object, ...]] = []

    def up(*arguments: object) -> None:
        seen.append(arguments[:3])
        raise LabError("not today", hint="tomorrow")

    monkeypatch.setattr(Lab, "up", up)
    done = CliRunner().invoke(command.app, ["up", *words])
    assert done.exit_code == LabError.exit_code
    assert seen == [asked]


@pytest.mark.parametrize(("names", "said"), [((), "there is no lab\n"), (("a", "b"), "a\nb\n")])
def test_list_names_every_lab(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], said: str) -> None:
    monkeypatch.setattr("exlb_fab.lab.labs", lambda: names)
    assert CliRunner().invoke(command.app, ["list"]).stdout == said


def test_status_shows_what_each_node_runs() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(lab_table(LabStatus("a", Path("/lab"), "198.51.100.100", NODES)))
    lines = captured.get().splitlines()
    assert "Lab a, VIP 198.51.100.100" in lines[0]
    first, second = (next(line.split() for line in lines if line.split()[:1] == [name]) for name in ("lb1", "lb2"))
    assert first == ["lb1", "198.51.100.11", "bullseye", "running", "plugged", "in", "answers", "ok"]
    assert second == ["lb2", "198.51.100.12", "el9-like", "off", "-", "silent", "off"]
