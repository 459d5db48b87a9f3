"""The flag that rewrites what is expected: pytest tests/golden --update-golden, then read the diff."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the expected files of tests/golden anew")


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether to write what is expected instead of comparing with it."""
    return bool(request.config.getoption("--update-golden", default=False))
