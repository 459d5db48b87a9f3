"""`exlb config --example` prints a file to start from, wherever exlb came from and whatever there is already."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from exlb_fab.cli.app import app

EXAMPLE = Path(__file__).parents[2] / "env.example.sh"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EXLB_ENV", raising=False)
    return tmp_path


@pytest.mark.parametrize("words", [["--example"], ["--env", "missing.sh", "--example"]])
def test_the_example_is_printed_as_it_is_without_an_environment_file(nowhere: Path, words: list[str]) -> None:
    ran = CliRunner().invoke(app, ["config", *words])
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, EXAMPLE.read_text(encoding="utf-8"), "")


def test_whoever_has_no_environment_file_is_told_how_to_make_one(nowhere: Path) -> None:
    ran = CliRunner().invoke(app, ["config"])
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "next:  exlb config --example > environment.sh, then edit its three required lines" in ran.stderr


def test_what_was_printed_is_understood(nowhere: Path) -> None:
    path = nowhere / "environment.sh"
    path.write_text(CliRunner().invoke(app, ["config", "--example"]).stdout, encoding="utf-8")
    path.chmod(0o600)
    assert CliRunner().invoke(app, ["config"]).exit_code == 0
