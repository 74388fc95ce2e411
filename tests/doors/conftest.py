"""Every door is opened on real transactions, with a queue whose cluster is down."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _real_transactions(transactional_db: None, queued: None) -> None:
    """What a door commits is committed, and its tasks wait until the test delivers them."""
