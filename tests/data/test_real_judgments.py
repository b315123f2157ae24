"""UKPConvArg1 (Habernal and Gurevych, ACL 2016), where it lies beside the checkout."""

from pathlib import Path

import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.labeling.dataset import build_preferences
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.labeling.splits import HELD_OUT_ANNOTATORS
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.storage.local import LocalStore

DATA = Path(__file__).parents[3] / "shared" / "data" / "ukp_arguments"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real judgments are not there: {DATA}")


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    root = tmp_path_factory.mktemp("loop")
    store = EmbeddedLabelStore(root / "labels.sqlite")
    names = {"prompts": "prompts.jsonl", "demonstrations": "demonstrations.jsonl", "judgments": "judgments.jsonl.gz"}
    reports = {kind: import_file(kind, DATA / name, LocalStore(root), store) for kind, name in names.items()}
    comparisons = store.comparisons(IMPORT_ROUND, "train")
    labels, quarantine = labels_table(store.read(IMPORT_ROUND, "train")[0], comparisons)
    assert quarantine.empty
    return reports, labels, comparisons


def test_every_judgment_arrives_also_those_between_equal_texts(loop) -> None:
    reports, labels, comparisons = loop
    # 7 of the 8,158 pairs, judged five times each, hold the same text twice.
    report = reports["judgments"]
    assert (report.read, report.added, report.already_there) == (40_699, 40_699, 0)
    assert not report.refused
    equal = comparisons["responses"].map(lambda texts: texts[0] == texts[1])
    assert (len(labels), len(comparisons), int(equal.sum())) == (40_699, 8_158, 7)
    assert (reports["prompts"].added, reports["demonstrations"].read) == (16, 516)


def test_workers_agree_about_as_published(loop) -> None:
    _, labels, comparisons = loop
    quality, summary = measure_quality(labels, comparisons)
    assert summary["annotators"] == len(quality) == 3465
    # 73.1% over all 32 topics; these are 16 of them.
    assert abs(summary["agreement"]["value"] - 0.731) < 0.04
    assert summary["first_position"]["low"] < 0.5 < summary["first_position"]["high"]


def test_a_crowd_leaves_most_labels_for_training(loop) -> None:
    _, labels, comparisons = loop
    settings = LabelingSettings(kind="pair", held_out_annotators=0.2, validation=0.1)
    frame, summary = build_preferences(labels, comparisons, settings, seed=0)
    assert summary["train"] > 0.5 * summary["labels"]
    assert summary[HELD_OUT_ANNOTATORS] > 1000
    train, held_out = (frame[frame["split"] == name] for name in ("train", HELD_OUT_ANNOTATORS))
    assert not set(train["annotator"]) & set(held_out["annotator"])
    texts = [set(map(tuple, rows["responses"])) for rows in (train, held_out)]
    assert not texts[0] & texts[1]
