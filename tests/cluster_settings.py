"""The settings of a qcluster that works on the database of the running tests."""

import json
import os
from typing import Any

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, Q_CLUSTER

DATABASES = {"default": {**DATABASES["default"], "NAME": os.environ["CLUSTER_DATABASE"]}}

_lease = int(os.environ["CLUSTER_LEASE_SECONDS"])
# What a test asks for beside the lease, as JSON.
_own_settings = json.loads(os.environ.get("CLUSTER_POWERCRUD_SETTINGS", "{}"))
_own_q_cluster = json.loads(os.environ.get("CLUSTER_Q_CLUSTER", "{}"))
_settings: dict[str, Any] = {
    "ASYNC_ENABLED": True,
    "QUEUE": "django-q2",
    "LEASE_SECONDS": _lease,
    "HEARTBEAT_SECONDS": max(1, _lease // 4),
    **_own_settings,
}
POWERCRUD_SETTINGS = _settings

Q_CLUSTER = {
    **Q_CLUSTER,
    "poll": 0.05,
    # Between two tests nobody but the tests may use the database.
    "scheduler": False,
    **_own_q_cluster,
}
