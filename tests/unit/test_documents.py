"""The documents agree with the code, and lead nowhere that is not there."""

import re
from pathlib import Path

import pytest

from exlb_fab.checks import CHECKS
from exlb_fab.understanding.election import TIMES
from exlb_fab.variables import VARIABLES, Spec

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if not target.startswith(("http:", "https:", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("spec", VARIABLES, ids=lambda spec: spec.name)
def test_the_table_of_variables_says_what_the_code_does(spec: Spec) -> None:
    optional = f"`{spec.default}`" if spec.default else spec.otherwise
    default = "**required**" if spec.required else optional
    unit = spec.unit or ("array" if spec.is_array else "")
    row = f"| `{spec.name}` | {spec.description} | {default} | {unit} |"
    assert row in (ROOT / "docs/environment.md").read_text().splitlines()


def test_the_tables_have_the_variables_in_the_order_and_under_the_headings_of_the_example() -> None:
    document = (ROOT / "docs/environment.md").read_text()
    example = (ROOT / "env.example.sh").read_text()
    assert re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| [^|]+ \|[^|]*\|$", document, re.MULTILINE) == [
        spec.name for spec in VARIABLES
    ]
    headings = [line.removeprefix("# ").rstrip("- ") for line in example.splitlines() if line.endswith("-----")]
    sections = [line.removeprefix("## ") for line in document.splitlines() if line.startswith("## ")]
    assert [each for each in sections if each in headings] == [each for each in headings if not each.endswith(".")]


def test_every_question_of_verify_is_in_its_table() -> None:
    table = [line for line in (ROOT / "docs/look.md").read_text().splitlines() if line.startswith("| `")]
    assert {name for row in table for name in re.findall(r"`([a-z]+\.[a-z-]+)`", row)} == {check.id for check in CHECKS}


@pytest.mark.parametrize("timing", TIMES)
def test_the_presets_of_timing_are_those_of_the_code(timing: str) -> None:
    row = f"| `{timing}` | {' | '.join(f'{value:g}' for value in TIMES[timing])} |"
    assert row in (ROOT / "docs/environment.md").read_text().splitlines()
