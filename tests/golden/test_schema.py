"""The published schemas of JSON: they are those of the code, and real answers of verify keep to theirs."""

from __future__ import annotations

import json
import signal
from typing import Any

import jsonschema
import pytest

from exlb_fab.commands.base import Report
from exlb_fab.commands.doctor import DoctorReport
from exlb_fab.commands.drill_report import DrillReport
from exlb_fab.commands.verify import VerifyReport
from tests.cli.conftest import Site, clock, green, made_once
from tests.fake import Clock
from tests.schemas import FOLDER, published, validate

__all__ = ["clock", "green", "made_once"]  # fixtures

SCHEMAS: dict[str, type[Report]] = {"verify-1": VerifyReport, "doctor-1": DoctorReport, "drill-1": DrillReport}


def generated(report: type[Report]) -> str:
    """Return the schema of what is printed, as a document of its own."""
    dialect = {"$schema": jsonschema.Draft202012Validator.META_SCHEMA["$id"]}
    return json.dumps({**dialect, **report.model_json_schema(mode="serialization")}, indent=2) + "\n"


def test_every_schema_is_published() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == SCHEMAS.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_published_schema_is_that_of_the_code(update: bool, name: str) -> None:
    text = generated(SCHEMAS[name])
    if update:
        published(name).write_text(text)
    assert published(name).read_text() == text, "pytest tests/golden --update-golden, and see the rule in docs/look.md"


@pytest.mark.parametrize("name", SCHEMAS)
def test_published_schema_is_a_schema_that_explains_every_field(name: str) -> None:
    schema = json.loads(published(name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    fields = {
        f"{part['title']}.{field}": each
        for part in (schema, *schema["$defs"].values())
        for field, each in part.get("properties", {}).items()
    }
    assert [field for field, each in fields.items() if "description" not in each] == []


def test_green_answer_keeps_to_the_schema(green: Site) -> None:
    answer = green.exlb("verify", "-o", "json").json
    assert answer["green"] is True
    validate("verify-1", answer)


def test_red_answer_of_some_checks_without_a_node_keeps_to_the_schema(green: Site) -> None:
    green.fleet.cut("lb3")
    green.fleet["lb2"].running = None
    green.fleet["lb2"].units["haproxy"].active = "failed"
    answer = green.exlb("verify", "-o", "json", "--skip", "firewall", status=1).json
    assert (answer["green"], answer["not_asked"], len(answer["left_out"])) == (False, ["lb3"], 3)
    validate("verify-1", answer)


def test_answer_that_was_cut_short_keeps_to_the_schema(green: Site, clock: Clock) -> None:
    green.fleet["lb2"].before = lambda call: signal.raise_signal(signal.SIGINT)
    answer = green.exlb("verify", "-o", "json", "--parallel", "1", "--nodes", "lb2", status=130).json
    assert (answer["green"], answer["interrupted"]) == (False, True)
    validate("verify-1", answer)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "exlb/verify/2"},
        {"green": "yes"},
        {"verdicts": [{"check": "node.ssh", "status": "pass"}]},
        {"nodes": None},
    ],
    ids=str,
)
def test_answer_of_another_shape_does_not(green: Site, changes: dict[str, Any]) -> None:
    answer = green.exlb("verify", "-o", "json").json
    with pytest.raises(jsonschema.ValidationError):
        validate("verify-1", {**answer, **changes})


def test_answer_without_one_of_its_fields_does_not(green: Site) -> None:
    answer = green.exlb("verify", "-o", "json").json
    for name in answer:
        with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required property"):
            validate("verify-1", {key: value for key, value in answer.items() if key != name})
