"""Checks that stop nothing: what each says of figures made by hand, and how Dagster has them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from gate_figures import report as figures
from gate_figures import reward_drift
from loops import ROUND, small
from rounds_on_disk import keep

from rlhf_dagster.assets.checks.declare import look_name
from rlhf_dagster.assets.checks.known import LOOKS
from rlhf_dagster.assets.rounds import rounds
from rlhf_dagster.build import build_loop
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.labeling.store import LabelCounts, LabelStoreUnavailable
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.checks import data, labels, models
from rlhf_dagster.loop.checks.outcome import CheckOutcome, NotMadeYet
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import LoopNames
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import DEMONSTRATIONS, LABELS, PREFERENCES, PROMPTS, QUARANTINE, table

EVERY = [look for one in LOOKS for look in one.looks]
NAMES = LoopNames(("nlp", "mine"))


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """A loop whose rounds compare 40 responses, and whose evaluation is content with ten test prompts."""
    return loop_of(tmp_path)


def loop_of(folder: Path, **sections: Any) -> LoopFolder:
    settings = {"evaluation": {"precision": 0.4}, "label_store": {"simulated_annotators": False}}
    return LoopFolder(LoopConfig.parse(small(**settings | sections), "test"), folder)


def write(loop: LoopFolder, asset: str, schema: Any, rows: list[dict[str, Any]], key: str = "") -> None:
    """A table with the columns that matter, the others empty or 0."""
    blank = {field.name: {"bool": True, "int64": 0, "double": 0.0}.get(str(field.type), "") for field in schema}
    blank |= {field.name: [] for field in schema if str(field.type).startswith("list")}
    blank |= {field.name: datetime.now(UTC) for field in schema if "timestamp" in str(field.type)}
    blank = {name: None if schema.field(name).nullable and value == "" else value for name, value in blank.items()}
    loop.store.put(loop.asset_key(asset, key), to_parquet(table([blank | row for row in rows], schema)))


def prompts(loop: LoopFolder, *texts: str, **splits: int) -> None:
    """As many prompts in each split, all of other words, and ``texts`` as `split: text`."""
    rows = [
        {"text": f"film {split} {chr(97 + number // 26)}{chr(97 + number % 26)}", "split": split}
        for split, count in splits.items()
        for number in range(count)
    ]
    rows += [dict(zip(("split", "text"), text.split(": ", 1), strict=True)) for text in texts]
    write(loop, "prompts", PROMPTS, [row | {"prompt_id": str(number)} for number, row in enumerate(rows)])


def rate(value: float, low: float, high: float, n: int = 50, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n} | more


def quality(loop: LoopFolder, key: str = ROUND, **summary: Any) -> None:
    found = {"labels": 100, "quarantined": {}} | summary
    loop.write_json("label_quality", key, {"summary": found, "annotators": [], "labels_read": {"position": 0}})


def test_every_check_explains_itself_and_waits_for_its_asset(loop: LoopFolder) -> None:
    assert len({look_name(look) for look in EVERY}) == len(EVERY) == 14
    for one in LOOKS:
        for look in one.looks:
            assert look.__doc__ and look.__doc__.startswith("Whether ")
            with pytest.raises(NotMadeYet, match=f"^{one.asset}.* is not there yet; materialise it first"):
                look(loop, ROUND if one.by_round else "")


def test_a_round_wants_prompts_that_it_has_not_asked_about(loop: LoopFolder, tmp_path: Path) -> None:
    prompts(loop, train=40, test=24)
    found = data.prompts_are_enough(loop, "")
    assert (found.passed, found.figures) == (True, {"train_prompts": 40, "test_prompts": 24})
    assert found.sentence == "40 prompts to train on, of which a round compares 40, and 24 to measure on."
    prompts(loop, train=15, test=24)
    found = data.prompts_are_enough(loop, "")
    assert not found.passed
    assert found.sentence.startswith("A round compares responses to 40 prompts, and the train split has 15: a round ")
    assert "asks about each 3 times" in found.sentence
    precise = loop_of(tmp_path, evaluation={"precision": 0.1, "prompts": 100, "human_judgments": None})
    assert "evaluation.precision 0.1 takes 97 prompts" in data.prompts_are_enough(precise, "").sentence


def test_nearly_equal_prompts_are_counted_and_a_leak_is_wrong(loop: LoopFolder) -> None:
    prompts(loop, train=199, test=1)
    assert data.prompts_are_distinct(loop, "") == CheckOutcome(
        True, "All prompts differ in their words.", {"nearly_equal": 0, "share": 0, "test_seen_in_train": 0}
    )
    prompts(loop, "train: A good film!", "train: a  good, film", train=198)
    found = data.prompts_are_distinct(loop, "")
    assert (found.passed, found.figures["share"], found.wrong) == (True, 0.005, False)
    prompts(loop, "train: A good film!", "train: a  good, film", "train: a good FILM", train=7)
    found = data.prompts_are_distinct(loop, "")
    assert (found.passed, found.wrong) == (False, False)
    assert found.sentence.startswith(
        "2 of 10 prompts equal another one but for case, spaces and punctuation, more than"
    )
    prompts(loop, "train: A good film!", "test: a good film", train=198)
    found = data.prompts_are_distinct(loop, "")
    assert (found.passed, found.wrong) == (False, True)
    assert "1 of the test split stand in the train split so" in found.sentence


def test_a_split_without_a_row_is_said(loop: LoopFolder) -> None:
    prompts(loop, train=3, test=3)
    assert (
        data.prompts_fill_splits(loop, "").sentence == "None of 6 prompts is in the validation split (data.validation)."
    )
    prompts(loop, train=3, validation=1, test=3)
    assert data.prompts_fill_splits(loop, "").passed
    write(loop, "demonstrations", DEMONSTRATIONS, [{"split": "train"}])
    assert not data.demonstrations_fill_splits(loop, "").passed
    write(loop, "demonstrations", DEMONSTRATIONS, [{"split": "train"}, {"split": "validation"}])
    assert data.demonstrations_fill_splits(loop, "").figures == {"train_rows": 1, "validation_rows": 1}
    write(loop, "preference_dataset", PREFERENCES, [{"split": "train"}], ROUND)
    found = labels.labels_fill_splits(loop, ROUND)
    assert (found.passed, found.figures) == (False, {"train_labels": 1})


def test_demonstrations_that_are_cut_are_counted_by_the_training(loop: LoopFolder) -> None:
    loop.write_json("sft_checkpoint", "", Checkpoint("sft", "models/sft", "digest").as_pointer())
    keep(loop, "sft", "sft", "", metrics={})
    assert data.demonstrations_are_whole(loop, "").sentence == "No demonstration was cut."
    keep(loop, "sft", "sft", "", metrics={"cut_responses": 1.0, "cut_response_share": 0.01})
    assert data.demonstrations_are_whole(loop, "").passed
    keep(loop, "sft", "sft", "", metrics={"cut_responses": 12.0, "cut_response_share": 0.1})
    found = data.demonstrations_are_whole(loop, "")
    assert (found.passed, found.figures) == (False, {"cut": 12, "share": 0.1})
    assert found.sentence.startswith("12 demonstrations (10.0%) are longer than sft.max_tokens (")


RATES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "alpha": (
        labels.people_agree,
        rate(0.1, -0.1, 0.3),
        rate(0.05, -0.1, 0.19),
        "Alpha is 0.05 (-0.10 to 0.19) on 50 comparisons that several people judged: below 0.2 (`checks.min_alpha`). "
        "Talk about the instructions.",
    ),
    "gold": (
        labels.gold_answers_are_right,
        rate(0.6, 0.4, 0.75),
        rate(0.5, 0.36, 0.64),
        "50% (36% to 64%) of 50 gold questions were answered right: below 70% (`checks.min_gold_accuracy`).",
    ),
    "first_position": (
        labels.no_side_is_preferred,
        rate(0.6, 0.54, 0.66, chance=0.5),
        rate(0.7, 0.56, 0.8, chance=0.5),
        "The response shown first was chosen in 70% (56% to 80%) of 50 labels (chance: 50%): further from chance than "
        "5% (`checks.max_position_bias`).",
    ),
}
"""By figure: the check, a rate that may be chance, one that is not, and what is said of that one."""


@pytest.mark.parametrize("name", RATES)
def test_a_rate_of_the_labels_warns_where_it_is_known_to_be_bad(loop: LoopFolder, tmp_path: Path, name: str) -> None:
    look, may_be, bad, sentence = RATES[name]
    quality(loop)
    assert look(loop, ROUND).passed
    quality(loop, **{name: may_be})
    assert look(loop, ROUND).passed
    quality(loop, **{name: bad})
    assert look(loop, ROUND) == CheckOutcome(False, sentence, {key: bad[key] for key in ("value", "low", "high", "n")})
    off = {"min_alpha": None, "min_gold_accuracy": None, "max_position_bias": None}
    assert look(loop_of(tmp_path, checks=off), ROUND).passed


def test_a_few_labels_say_nothing_about_agreement(loop: LoopFolder) -> None:
    quality(loop, alpha=rate(-0.08, -0.2, 0.0, n=6))
    found = labels.people_agree(loop, ROUND)
    assert (found.passed, found.sentence.split(" on ")[1]) == (
        True,
        "6 comparisons that several people judged, too few to tell.",
    )


def test_the_last_side_is_a_side_too(loop: LoopFolder) -> None:
    quality(loop, first_position=rate(0.3, 0.2, 0.44, chance=0.5))
    assert not labels.no_side_is_preferred(loop, ROUND).passed


def test_people_who_answer_the_same_question_otherwise_are_noticed(loop: LoopFolder) -> None:
    quality(loop, "round-0002", drift=rate(0.9, 0.8, 0.95, n=40))
    assert labels.annotators_are_steady(loop, "round-0002").sentence.startswith("No earlier round asked")
    quality(loop, drift=rate(0.5, 0.4, 0.6, n=100))
    found = labels.annotators_are_steady(loop, "round-0002")
    assert (found.passed, found.figures) == (False, {"now": 0.9, "before": 0.5})
    assert found.sentence == (
        "Demonstrations are preferred to SFT in 90% (80% to 95%), in the rounds before in 50% (40% to 60%): people "
        "judge otherwise now."
    )
    quality(loop, "round-0002", drift=rate(0.6, 0.55, 0.7, n=40))
    assert labels.annotators_are_steady(loop, "round-0002").passed


def test_quarantined_annotations_are_a_share_of_all(loop: LoopFolder) -> None:
    reason = "it names a response that is not there"
    quality(loop, labels=98, quarantined={reason: 2})
    assert labels.few_are_quarantined(loop, ROUND).passed
    rows = table([{field.name: "x" for field in QUARANTINE}] * 3, QUARANTINE)
    loop.store.put(f"quarantine/train-{ROUND}.parquet", to_parquet(rows))
    found = labels.few_are_quarantined(loop, ROUND)
    assert (found.passed, found.figures["quarantined"]) == (False, 3)
    assert found.sentence == (
        f"3 of 101 annotations (3.0%) cannot be read, more than 2.0% (`checks.max_quarantined`). Most often: {reason}"
    )


def labelled(loop: LoopFolder, days: float) -> None:
    at = datetime.now(UTC) - timedelta(days=days)
    write(loop, "preference_labels", LABELS, [{"updated_at": at, "created_at": at}], ROUND)


def test_labels_that_are_old_or_not_read_are_noticed(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> LabelCounts:
        raise LabelStoreUnavailable("Label Studio does not answer.")

    def none(*_: Any, **__: Any) -> LabelCounts:
        return LabelCounts(40, 40, 50, 50, 0, 40, new=0)

    monkeypatch.setattr(LoopFolder, "label_store", SimpleNamespace(count=none))
    quality(loop)
    labelled(loop, 2)
    found = labels.labels_are_fresh(loop, ROUND)
    assert (found.passed, found.figures["new_labels"]) == (True, 0)
    assert found.sentence == "All usable labels of the round are read, the newest 2.0 days old."
    labelled(loop, 100)
    found = labels.labels_are_fresh(loop, ROUND)
    assert found.sentence == "The newest label is 100 days old, more than 90 (`checks.max_label_age_days`)."
    labelled(loop, 2)
    monkeypatch.setattr(LoopFolder, "label_store", SimpleNamespace(count=away))
    found = labels.labels_are_fresh(loop, ROUND)
    assert (found.passed, found.figures["new_labels"]) == (False, None)
    assert found.sentence == "Whether new labels have come in is not known: Label Studio does not answer."


def test_new_labels_are_noticed(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    assert labels.labels_are_fresh(runner.loop, ROUND).figures["new_labels"] == 0
    read = runner.loop.json("label_quality", ROUND)
    assert read
    runner.loop.write_json("label_quality", ROUND, read | {"labels_read": {"position": 0}})
    found = labels.labels_are_fresh(runner.loop, ROUND)
    assert found.figures["new_labels"] == read["labels_read"]["usable"]
    assert found.sentence.startswith(f"{read['labels_read']['usable']} usable labels have come in since; `train_round`")


def accuracy(loop: LoopFolder, error: float | None, *bins: tuple[float, float, float, float]) -> None:
    """``bins`` are predicted, came true, and its interval."""
    curve = [{"confidence": sure, "accuracy": rate(true, low, high)} for sure, true, low, high in bins]
    splits = {} if error is None else {"validation": {"calibration_error": error}}
    loop.write_json("reward_model_accuracy", ROUND, {"splits": splits, "calibration": {"validation": curve}})


def test_probabilities_that_do_not_come_true_are_noticed(loop: LoopFolder) -> None:
    accuracy(loop, None)
    assert models.is_calibrated(loop, ROUND).passed
    accuracy(loop, 0.15, (0.9, 0.75, 0.6, 0.91), (0.6, 0.5, 0.4, 0.6))
    assert models.is_calibrated(loop, ROUND).sentence.endswith("which may be chance with so few labels.")
    accuracy(loop, 0.09, (0.9, 0.6, 0.5, 0.7))
    assert models.is_calibrated(loop, ROUND).passed
    accuracy(loop, 0.2, (0.9, 0.6, 0.5, 0.7), (0.6, 0.45, 0.4, 0.55))
    found = models.is_calibrated(loop, ROUND)
    assert (found.passed, found.figures) == (False, {"calibration_error": 0.2})
    assert found.sentence == (
        "Predicted probabilities are off by 20.0% on average, more than 10% (`checks.max_calibration_error`): of "
        "predictions with 90% 60% came true (50% to 70%)."
    )


def test_reward_models_that_drift_apart_are_noticed_as_the_gate_does(loop: LoopFolder) -> None:
    loop.write_json("eval_report", ROUND, figures())
    assert models.reward_models_agree(loop, ROUND).passed
    loop.write_json("eval_report", ROUND, figures() | {"reward_drift": reward_drift(0.3, 0.2)})
    found = models.reward_models_agree(loop, ROUND)
    assert (found.passed, found.figures) == (False, {"reward_drift": 0.3})
    assert found.sentence.startswith("Over-optimisation: ")
    unmeasured = {"reward_drift": None, "unmeasured": {"max_reward_drift": "A half would hold too few."}}
    loop.write_json("eval_report", ROUND, figures() | unmeasured)
    assert models.reward_models_agree(loop, ROUND) == CheckOutcome(
        True, "A half would hold too few.", {"reward_drift": None}
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions(NAMES.rounds, [ROUND])
        yield found


def run_checks(
    instance: dg.DagsterInstance, loop: LoopFolder, asset: str, *names: str, key: str | None = None
) -> dict[str, dg.AssetCheckEvaluation]:
    """Run checks by themselves, as *Execute* in the UI does."""
    job = build_loop(loop.config, loop.root, names=NAMES).resolve_implicit_global_asset_job_def()
    keys = frozenset(dg.AssetCheckKey(dg.AssetKey(NAMES.path(asset)), name) for name in names)
    done = job.get_subset(asset_check_selection=keys).execute_in_process(instance=instance, partition_key=key)
    assert done.success
    return {found.check_name: found for found in done.get_asset_check_evaluations()}


def test_dagster_has_them_with_severity_and_figures(instance, loop: LoopFolder) -> None:
    prompts(loop, "train: A good film!", "test: a good film", train=10)
    found = run_checks(instance, loop, "prompts", "prompts_are_distinct", "prompts_are_enough")
    assert [*found] == ["prompts_are_enough", "prompts_are_distinct"]
    leak, few = found["prompts_are_distinct"], found["prompts_are_enough"]
    assert (leak.passed, leak.severity, leak.blocking) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert (few.passed, few.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (few.metadata["train_prompts"].value, few.description is not None) == (11.0, True)


def test_a_check_of_a_round_looks_at_its_round_and_what_is_not_there_stops_nothing(instance, loop) -> None:
    found = run_checks(instance, loop, "label_quality", "people_agree", key=ROUND)
    sentence = f"label_quality of {ROUND} is not there yet; materialise it first."
    assert (found["people_agree"].passed, found["people_agree"].description) == (False, sentence)
    quality(loop, alpha=rate(0.5, 0.4, 0.6))
    assert run_checks(instance, loop, "label_quality", "people_agree", key=ROUND)["people_agree"].passed


def test_checks_of_rounds_are_by_round(tmp_path: Path) -> None:
    built = build_loop(LoopConfig(), tmp_path)
    specs = {spec.name: spec for check in built.asset_checks or [] for spec in check.check_specs}
    for one in LOOKS:
        for look in one.looks:
            spec = specs[look_name(look)]
            assert (spec.asset_key.to_user_string(), spec.blocking) == (one.asset, False)
            assert spec.partitions_def == (rounds if one.by_round else None)
            assert spec.description and spec.description.startswith("Whether ")
