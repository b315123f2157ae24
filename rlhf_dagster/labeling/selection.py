"""Which comparisons are worth an annotator's time, and what is mixed in to measure the annotators themselves."""

from collections.abc import Mapping, Sequence

import numpy as np

from rlhf_dagster.records.ids import comparison_id, content_hash
from rlhf_dagster.records.tables import Row


def select(rows: Sequence[Row], n: int, gaps: Mapping[str, float] | None, random_share: float, seed: int) -> list[Row]:
    """At most ``n`` of the ``rows``, which are in a random order, in the order in which they should be judged.

    Without ``gaps`` they are the first ones. ``gaps`` says by comparison id how sure the reward model is: the
    difference of its two best scores, or minus the disagreement of its heads. Then a ``random_share`` of the selection
    is random, so that figures without bias can be measured on it; the others have the smallest gaps, the smallest
    first, and the random ones are spread evenly among them.
    """
    if gaps is None:
        return list(rows[:n])
    n = min(n, len(rows))
    random_rows = list(rows[: round(n * random_share)])
    close = sorted(rows[len(random_rows) :], key=lambda row: gaps[row["comparison_id"]])[: n - len(random_rows)]
    return spread(close, random_rows, seed)


def spread(rows: Sequence[Row], extras: Sequence[Row], seed: int) -> list[Row]:
    """``rows`` in their order with ``extras`` at even distances among them, each at a random place of its stretch.

    An extra that repeats one of the rows comes after it.
    """
    if not extras:
        return list(rows)
    place = {row["comparison_id"]: float(index) for index, row in enumerate(rows)}
    stretch = len(rows) / len(extras)
    for number, row in enumerate(extras):
        jitter = int(content_hash("spread", seed, row["comparison_id"])[:8], 16) / 0xFFFFFFFF
        place[row["comparison_id"]] = max((number + jitter) * stretch - 0.5, place.get(row["repeat_of"], -1.0) + 0.5)
    return sorted([*rows, *extras], key=lambda row: place[row["comparison_id"]])


def repeated(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """Repeats of ``n`` of the rows, drawn from their first half, so that time passes before the second showing.

    The responses are in another order than the first time.
    """
    first_half = range(max(1, len(rows) // 2)) if rows else range(0)
    drawn = sorted(first_half, key=lambda index: content_hash("repeat", seed, rows[index]["comparison_id"]))[:n]
    return [_again(rows[index], "repeat") for index in sorted(drawn)]


def both_orders(rows: Sequence[Row]) -> list[Row]:
    """Each row and, half the batch later, the same comparison with the responses in the opposite order."""
    half = len(rows) // 2
    others = [_again(row, "label") for row in rows]
    mixed: list[Row] = []
    for index in range(len(rows) + half):
        mixed += rows[index : index + 1]
        mixed += others[index - half : index - half + 1] if index >= half else []
    return mixed


def score_gap(scores: Sequence[float]) -> float:
    """The difference of the two best scores; the smaller, the less sure the model is which response is best."""
    first, second = sorted(scores, reverse=True)[:2]
    return first - second


def disagreement(scores: np.ndarray, scale: float = 1.0) -> float:
    """How much the heads of a reward model disagree about which response is best.

    ``scores`` has shape [K, H], by each of H heads; the softmax over responses of ``scale`` times a head's scores is
    how probable it finds each to be the best. The result is the variance of that probability across heads, summed over
    responses: Christiano et al. 2017 (section 2.2.4) label the pairs whose predictions vary most across an ensemble.
    What a head adds to all scores alike does not count, and neither does by how much it prefers what it is sure about.
    """
    odds = scale * (scores - scores.max(axis=0))
    chances = np.exp(odds) / np.exp(odds).sum(axis=0)
    return float(chances.var(axis=1).sum())


def _again(row: Row, role: str) -> Row:
    identity = comparison_id(row["completion_ids"], row["kind"], row["round"], f"{role} again")
    return row | {
        "comparison_id": identity,
        "role": role,
        "repeat_of": row["comparison_id"],
        "display_order": list(reversed(row["display_order"])),
        "labels_wanted": 1 if role == "repeat" else row["labels_wanted"],
    }
