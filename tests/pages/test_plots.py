"""Pictures: small, the same each time, and honest about gaps."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from rlhf_dagster.pages.plots import markdown_image, running_mean, training_curves


def noisy(points: int, curves: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=points).tolist() for name in "abcdefghij"[:curves]}


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


@pytest.mark.parametrize(("points", "curves"), [(1, 1), (60, 4), (200, 4), (2000, 4), (60, 10)])
def test_pictures_are_small_png(points: int, curves: int) -> None:
    png = training_curves(noisy(points, curves))
    assert png.startswith(b"\x89PNG")
    assert len(png) < 40_000


def test_the_same_curves_give_the_same_bytes() -> None:
    curves = noisy(30, 2)
    assert training_curves(curves) == training_curves(curves)
    assert training_curves(curves) != training_curves(curves, {"a": "Another title"})


def test_panels_are_laid_out_in_columns() -> None:
    (width, height), (wide, _), (_, high) = (size(training_curves(noisy(5, curves))) for curves in (1, 2, 3))
    assert (wide, high) == (2 * width, 2 * height)


def test_empty_curves_are_left_out_and_gaps_are_drawn() -> None:
    assert size(training_curves({"kl": [], "reward": [1.0, math.nan, math.inf, 2.0]})) == size(
        training_curves(noisy(4, 1))
    )
    training_curves({"reward": [math.nan] * 40, "kl": [math.inf] * 40})
    with pytest.raises(ValueError, match="no curve"):
        training_curves({"kl": []})


def test_running_mean() -> None:
    assert running_mean([1, 2, 6, 7], 1) == [1.5, 3, 5, 6.5]
    assert running_mean([1, math.nan, 3], 1) == [1, 2, 3]
    assert math.isnan(running_mean([math.nan], 2)[0])


def test_markdown_image_holds_the_picture() -> None:
    assert markdown_image(b"png", "curves") == f"![curves](data:image/png;base64,{base64.b64encode(b'png').decode()})"
