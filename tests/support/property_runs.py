"""How long property tests run: short and the same every time by default, longer and different by POSTSEAL_EXAMPLES."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

FACTOR = float(os.environ.get("POSTSEAL_EXAMPLES", "1"))


def examples(count: int, **more: Any) -> settings:
    """``count`` examples, times POSTSEAL_EXAMPLES. Only the short run repeats itself, so that nobody is surprised by it."""
    return settings(
        max_examples=max(1, int(count * FACTOR)),
        deadline=None,
        derandomize=FACTOR == 1,
        suppress_health_check=list(HealthCheck),
        **more,
    )
