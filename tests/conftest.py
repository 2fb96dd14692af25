"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure: tests are not timed.
settings.register_profile("ticketguard", deadline=None)
settings.load_profile("ticketguard")
