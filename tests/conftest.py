"""What all tests share."""

from __future__ import annotations

import gc

from hypothesis import settings

# How long one example takes says something of the host, not of the code. `make test-all` asks for the thorough one.
settings.register_profile("exlb", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("exlb")


def pytest_collection_finish() -> None:
    """Keep the collector of garbage from walking all the tests again and again: a sixth of the time of `make check`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
