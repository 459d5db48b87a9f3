"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes says something of the host, not of the code.
settings.register_profile("exlb", deadline=None)
settings.load_profile("exlb")
