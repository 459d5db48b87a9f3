"""The documents agree with the code, and lead nowhere that is not there."""

import re
from pathlib import Path

import pytest

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
