"""What the gold judges of several tasks count in the same way."""

import math

KNEE = 4.0
"""Value beyond which more of it counts clearly less."""


def saturate(value: float) -> float:
    """``sign(v) KNEE ln(1 + |v| / KNEE)``: slope 1 at 0, 1/2 at the knee, never flat."""
    return math.copysign(KNEE * math.log1p(abs(value) / KNEE), value)


def grammar_error(length: int, legal: int) -> float:
    """How wrong a sentence of ``length`` tokens is whose first ``legal`` ones can begin one: 0 where all can."""
    return 0.5 + 0.12 * (length - legal) if legal < length else 0.0
