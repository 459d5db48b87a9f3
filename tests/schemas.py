"""The published schemas of what is printed as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

FOLDER = Path(__file__).parents[1] / "docs/schema"


def published(name: str) -> Path:
    """Return the file of a schema: `verify-1` and so on."""
    return FOLDER / f"{name}.json"


def validate(name: str, answer: object) -> None:
    """Raise jsonschema.ValidationError where an answer does not keep to a schema."""
    jsonschema.Draft202012Validator(json.loads(published(name).read_text())).validate(answer)
