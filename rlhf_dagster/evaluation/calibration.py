"""Whether a reward model's probabilities come true: the reliability curve, and its error in one number."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, clustered_rate

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions whose predicted probability is above ``low`` and at most ``high``."""

    low: float
    high: float
    confidence: float
    """Their mean predicted probability."""
    accuracy: Rate
    """The share that came true, with its 95% Wilson interval; ``n`` counts comparisons."""
    labels: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"accuracy": self.accuracy.as_dict()}


def calibration_curve(
    confidence: ArrayLike, correct: ArrayLike, clusters: Sequence[Any], bins: int = CALIBRATION_BINS
) -> list[CalibrationBin]:
    """The bins that hold predictions, from the least certain to the most (Guo et al. 2017, section 2).

    ``confidence`` (shape [n], in 0..1) is the predicted probability of the prediction made, ``correct`` (shape [n], in
    0..1) whether it came true, ``clusters`` what each is about: predictions about the same thing are not independent
    (:func:`~rlhf_dagster.common.intervals.clustered_rate`). Bins are equally wide.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    bin_of, about = _bins_of(sure, bins), np.asarray(clusters)
    return [
        CalibrationBin(
            low=number / bins,
            high=(number + 1) / bins,
            confidence=float(sure[inside].mean()),
            accuracy=clustered_rate(right[inside], about[inside].tolist()),
            labels=int(inside.sum()),
        )
        for number in sorted(set(bin_of.tolist()))
        for inside in [bin_of == number]
    ]


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Mean over predictions of |accuracy - mean confidence| of their bin (Guo et al. 2017, section 2, equation 3).

    ``confidence`` and ``correct`` are those of :func:`calibration_curve`. Chance alone makes it positive: for a
    calibrated model with n predictions in each bin it is about 0.4 / sqrt(n) where accuracy is one half.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    gaps = np.bincount(_bins_of(sure, bins), weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / sure.size)


def _bins_of(sure: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each prediction; bins are closed on the right."""
    return np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
