"""Simulated annotators at work in a label store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.forms import is_ab, result_of
from rlhf_dagster.labeling.store import LabelStore, Submission
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.kinds import PAIR, problem_with
from rlhf_dagster.records.machines import is_machine
from rlhf_dagster.records.outcome import OVERALL, to_display
from rlhf_dagster.records.tables import records
from rlhf_dagster.tasks.base import Judgment, SimulatedAnnotator

BATCH = 100
"""Labels recorded in one transaction."""


@dataclass(frozen=True)
class AnnotationSummary:
    comparisons: int
    made: int
    """Labels made now."""
    already_there: int
    """Labels that these or other annotators had given before."""
    annotators: int
    """People who gave a label now."""


@dataclass(frozen=True)
class SimulatedWork:
    """What simulated annotators still have to do in a round."""

    comparisons: int
    missing: list[tuple[SimulatedAnnotator, dict[str, Any]]]
    """A label each: who gives it, and the comparison (a row of COMPARISONS)."""
    already_there: int
    """Labels that the comparisons have."""


def simulate_annotators(
    store: LabelStore,
    annotators: Sequence[SimulatedAnnotator],
    round_key: str,
    purpose: str,
    seed: int,
    *,
    progress: Callable[..., None] | None = None,
    settings: LabelingSettings | None = None,
) -> AnnotationSummary:
    """Give every comparison of a round the labels it wants and does not have yet.

    Who judges what depends on ``seed`` and the comparisons alone, not on what is done already, so that work which was
    stopped and taken up again ends with the same labels. Annotators judge what is shown, in the order shown.
    ``progress(step, total)`` counts labels. ``settings`` say whether the strength of a preference is asked and which
    axes are rated; without them annotators say all that they know.
    """
    work = find_work(store, annotators, round_key, purpose, seed)
    todo = work.missing
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        store.submit_many([judgment(annotator, row, settings) for annotator, row in batch])
        if progress:
            progress(start + len(batch), len(todo))
    return AnnotationSummary(
        work.comparisons, len(todo), work.already_there, len({annotator.name for annotator, _ in todo})
    )


def find_work(
    store: LabelStore, annotators: Sequence[SimulatedAnnotator], round_key: str, purpose: str, seed: int
) -> SimulatedWork:
    """The labels that a round wants and does not have yet, and who gives them; see :func:`simulate_annotators`."""
    by_name = {annotator.name: annotator for annotator in annotators}
    if not by_name:
        raise UserError("There are no simulated annotators for this task; let people annotate, or choose another task.")
    rows = {row["comparison_id"]: row for row in records(store.comparisons(round_key, purpose))}
    repeats = {key: row["repeat_of"] for key, row in rows.items() if row["role"] == "repeat"}
    wanted = {key: row["labels_wanted"] for key, row in rows.items()}
    submitted, seen = _done(store, round_key, purpose)
    missing = [
        (by_name[name], rows[comparison])
        for comparison, ranking in assignment(wanted, by_name, seed, repeats)
        for name in _missing(ranking, rows[comparison]["labels_wanted"], submitted.get(comparison, 0), seen, comparison)
    ]
    return SimulatedWork(len(rows), missing, sum(submitted.values()))


def assignment(
    wanted: Mapping[str, int],
    names: Sequence[str] | Mapping[str, Any],
    seed: int,
    repeats: Mapping[str, str] | None = None,
) -> list[tuple[str, list[str]]]:
    """For each comparison id all annotators in an order, of whom the first ``wanted[id]`` should judge it.

    Annotators with the fewest comparisons so far come first, equals in the order of a hash of comparison and name: so
    the numbers of two annotators differ by at most one, and any two judge some comparisons together. ``repeats`` maps
    comparisons to those that they repeat: the same people judge them, after all others, so that the rest of the plan
    does not depend on them.
    """
    repeats = repeats or {}
    again = {repeat: first for repeat, first in repeats.items() if first in wanted and first not in repeats}
    load = dict.fromkeys(sorted(names), 0)
    plan = {}
    order = sorted(wanted, key=lambda key: content_hash("assignment", seed, key))
    for comparison in (key for key in order if key not in again):
        ranking = sorted(load, key=lambda name: (load[name], content_hash("annotator", seed, comparison, name)))
        for name in ranking[: wanted[comparison]]:
            load[name] += 1
        plan[comparison] = ranking
    return [*plan.items(), *((key, plan[again[key]]) for key in order if key in again)]


def _done(store: LabelStore, round_key: str, purpose: str) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """How many labels each comparison has by people, and which (comparison, annotator) have any annotation."""
    annotations, _ = store.read(round_key, purpose)
    newest = {(annotation.comparison_id, annotation.annotator): annotation.status for annotation in annotations}
    submitted: dict[str, int] = {}
    for (comparison, name), status in newest.items():
        submitted[comparison] = submitted.get(comparison, 0) + (status == "submitted" and not is_machine(name))
    return submitted, set(newest)


def _missing(ranking: Sequence[str], wanted: int, have: int, seen: set[tuple[str, str]], comparison: str) -> list[str]:
    """Who should still judge a comparison; never somebody who did, or who skipped it."""
    return [name for name in ranking if (comparison, name) not in seen][: max(0, wanted - have)]


def judgment(annotator: SimulatedAnnotator, row: Mapping[str, Any], settings: LabelingSettings | None) -> Submission:
    """What an annotator answers to a comparison (a row of COMPARISONS); always the same."""
    shown = to_display(row["responses"], row["display_order"])
    judged = annotator.judge(row["prompt"], shown, row["kind"], row["comparison_id"])
    problem = _problem(judged.ranks, len(shown), row["kind"])
    if problem:
        raise UserError(f"Simulated annotator {annotator.name} gave {judged.ranks}: {problem}; correct its judge().")
    result = result_of(judged.ranks, row["kind"], _ratings(judged, settings))
    if is_ab(row["kind"], row["purpose"]) and (by_axis := _choices(judged, settings)):
        result["axes"] = by_axis
    if _asks_strength(row, settings) and judged.strength is not None:
        result["strength"] = judged.strength
    return Submission(row["comparison_id"], annotator.name, result, float(judged.seconds))


def _asks_strength(row: Mapping[str, Any], settings: LabelingSettings | None) -> bool:
    return row["kind"] == PAIR.name and row["purpose"] == "train" and (settings is None or settings.strength)


def _ratings(judgment: Judgment, settings: LabelingSettings | None) -> Mapping[str, Sequence[int]] | None:
    """Ratings on the axes asked; on one that the annotator does not know, those of ``overall``."""
    given = judgment.ratings
    if not given or not settings:
        return given
    return {axis: given[axis] if axis in given else given[OVERALL] for axis in settings.rating_axes}


def _choices(judgment: Judgment, settings: LabelingSettings | None) -> dict[str, Any]:
    """The better one of a pair on each axis asked that the annotator tells apart."""
    asked, by_axis = settings.evaluation_axes if settings else [], judgment.axes or {}
    return {axis: PAIR.write(by_axis[axis]) for axis in asked if axis in by_axis}


def _problem(ranks: Sequence[int] | None, k: int, kind: str) -> str:
    if ranks is None:
        return ""
    return problem_with(ranks, kind) if len(ranks) == k else f"{k} responses need {k} ranks"
