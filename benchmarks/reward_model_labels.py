"""What a reward model learns from labels: real judgments of arguments, and synthetic ones whose truth is known.

    python benchmarks/reward_model_labels.py arguments --data UKP_ARGUMENTS --text FILE [--out FILE]
    python benchmarks/reward_model_labels.py synthetic [--comparisons 500 2000 8000] [--out FILE]

`arguments`: UKPConvArg1 (Habernal and Gurevych 2016), five workers a pair, with ties. A tiny model is pretrained on the
text and on the arguments of the prompts that are trained on, fine-tuned on the latter, and becomes a reward model by
the judgments of some number of pairs. Accuracy is on labels of other pairs, of known prompts or of new ones.

`synthetic`: rankings of four samples of an SFT policy for the embedded task, drawn from the Plackett-Luce model with
the gold score as utility, so that the best possible accuracy and calibration are known.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.config.training import (
    ComputeSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
    TinyModelSettings,
)
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.evaluation.reward_accuracy import reward_accuracy
from rlhf_dagster.labeling.dataset import build_preferences
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id
from rlhf_dagster.records.outcome import target
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PROMPTS, table
from rlhf_dagster.tasks.known import get_task
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.reward.scores import score_responses
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import RewardModelSpec, SftSpec, TrainingResult

COMPUTE = ComputeSettings(threads=2, device="cpu")
STEPS, MOST_EPOCHS = 100, 4
"""A reward model of few labels has more epochs, for this many optimiser steps, but not so many that it overfits."""
ARGUMENTS = TinyModelSettings(
    tokenizer="bpe", vocabulary=1024, layers=2, width=64, heads=4, context=176, steps=600, learning_rate=3e-3
)
ARGUMENT_SAMPLING = SamplingSettings(prompt_tokens=32, response_tokens=128, fixed_length=False, batch_size=64)
REVIEWS = TinyModelSettings(layers=2, width=64, heads=4, context=64, steps=500)
REVIEW_SAMPLING = SamplingSettings()
ARMS: dict[str, dict[str, Any]] = {
    "share": {},
    "davidson": {"ties": "davidson"},
    "5 heads": {"heads": 5},
    "plackett_luce": {},
    "pairs": {"ranking": "pairs"},
    "best of 4": {},
}
"""Settings compared; the labels of `best of 4` lose what they say beyond the best."""


class Made(NamedTuple):
    """What reward models start from."""

    folder: Path
    sft: Path
    prompts: Path
    sampling: SamplingSettings
    settings: RewardModelSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("arguments", "synthetic"))
    parser.add_argument("--data", type=Path, help="folder of prompts.jsonl, demonstrations.jsonl, judgments.jsonl.gz")
    parser.add_argument("--text", type=Path, help="plain text for pretraining")
    parser.add_argument("--comparisons", type=int, nargs="+", help="label budgets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="the rows as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.study == "arguments":
            if options.data is None or options.text is None:
                parser.error("`arguments` needs --data and --text")
            rows = arguments(
                Path(name), options.data, options.text, options.comparisons or [250, 1000, 6000], options.seeds
            )
        else:
            rows = synthetic(Path(name), options.comparisons or [500, 2000, 8000], options.seeds)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def arguments(folder: Path, data: Path, text: Path, budgets: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """A row for each way to hold out, budget, settings and seed."""
    store = EmbeddedLabelStore(folder / "labels.sqlite")
    import_file("judgments", data / "judgments.jsonl.gz", folder, store)
    comparisons = store.comparisons(IMPORT_ROUND, "train")
    labels, _ = labels_table(store.read(IMPORT_ROUND, "train")[0], comparisons)
    agreement = measure_quality(labels, comparisons)[1]["agreement"]
    print(f"two annotators agree on {agreement['value']:.3f} ({agreement['low']:.3f} to {agreement['high']:.3f})")
    rows = []
    for held_out in ("comparison", "prompt"):
        settings = LabelingSettings(kind="pair", held_out_annotators=0, validation=0.15, validation_by=held_out)
        frame, _ = build_preferences(labels, comparisons, settings, seed=0)
        made = _argument_policy(folder / held_out, frame, text)
        for budget, arm, seed in _trainings(budgets, ("share", "davidson", "5 heads"), seeds):
            changed = made.settings.changed(**ARMS[arm])
            figures = _measured(made, _budget(frame, budget, seed), changed, seed)
            rows.append({"held out": held_out, "comparisons": budget, "settings": arm, "seed": seed} | figures)
            print(rows[-1], flush=True)
    return rows


def _trainings(budgets: Sequence[int], arms: Sequence[str], seeds: int) -> list[tuple[int, str, int]]:
    """The first arm with every budget, the others with the largest."""
    chosen = [(budget, arms[0]) for budget in budgets] + [(max(budgets), arm) for arm in arms[1:]]
    return [(budget, arm, seed) for budget, arm in chosen for seed in range(seeds)]


def _argument_policy(folder: Path, frame: pd.DataFrame, text: Path) -> Made:
    """Pretrained on the text and on what is trained on, so that new prompts are new to the language model too."""
    folder.mkdir()
    train = frame[frame["split"] == "train"]
    pairs = sorted(
        {(prompt, text) for prompt, texts in zip(train["prompt"], train["responses"], strict=True) for text in texts}
    )
    documents = [f"{prompt} {response}" for prompt, response in pairs]
    plain = text.read_text(encoding="utf-8").split("\n\n")
    base = make_tiny_model([*documents * 4, *plain], ARGUMENTS, folder / "base", COMPUTE).folder
    settings = RewardModelSettings(
        epochs=2, batch_size=16, learning_rate=1e-3, max_tokens=161, normalisation_samples=128
    )
    return _made(folder, base, pairs, ARGUMENT_SAMPLING, SftSettings(max_tokens=161, epochs=1), settings)


def synthetic(folder: Path, budgets: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """A row for each budget, kind of loss and seed."""
    task = get_task("sentiment")
    pairs = task.demonstrations(2000, 0, "train")
    base = make_tiny_model(task.pretraining_text(6000, 0, "train"), REVIEWS, folder / "base", COMPUTE).folder
    made = _made(folder, base, pairs, REVIEW_SAMPLING, SftSettings(), RewardModelSettings())
    held_out = _rankings(made, 1000, "validation", seed=100)
    train = _rankings(made, max(budgets), "train", seed=0)
    rows = [{"comparisons": 0, "settings": "truth", "seed": 0} | _truth(held_out)]
    for budget, arm, seed in _trainings(budgets, ("plackett_luce", "pairs", "best of 4"), seeds):
        chosen = _budget(pd.concat([train, held_out], ignore_index=True), budget, seed)
        if arm == "best of 4":
            chosen = chosen.assign(kind="best_of_k")
        figures = _measured(made, chosen, made.settings.changed(**ARMS[arm]), seed)
        rows.append({"comparisons": budget, "settings": arm, "seed": seed} | figures)
        print(rows[-1], flush=True)
    return rows


def _rankings(made: Made, count: int, split: str, seed: int) -> pd.DataFrame:
    """Rows of PREFERENCES, with the gold scores of the responses as `ratings`."""
    rng, task = np.random.default_rng(seed), get_task("sentiment")
    prompts = task.prompts(count, seed, split)
    samples = iter(sample(made.sft, prompts, made.sampling, seed, 4, compute=COMPUTE))
    rows = []
    for number, prompt in enumerate(prompts):
        responses = [drawn.text for drawn in islice(samples, 4)]
        gold = [task.gold_score(prompt, response) for response in responses]
        order = np.argsort(-(np.array(gold) + rng.gumbel(size=4)))
        ranks = (np.argsort(order) + 1).tolist()
        rows.append(
            {
                "label_id": f"{split}-{number}",
                "comparison_id": f"{split}-{number}",
                "round": "synthetic",
                "kind": "ranking",
                "prompt_id": prompt_id(prompt),
                "prompt": prompt,
                "responses": responses,
                "policy_ids": ["sft"] * 4,
                "ranks": ranks,
                "target": target(ranks),
                "annotator": "synthetic",
                "weight": 1.0,
                "split": split,
                "ratings": gold,
            }
        )
    return table(rows, PREFERENCES).to_pandas()


def _made(
    folder: Path,
    base: Path,
    pairs: Sequence[tuple[str, str]],
    sampling: SamplingSettings,
    sft_settings: SftSettings,
    settings: RewardModelSettings,
) -> Made:
    """The SFT policy of some demonstrations."""
    demonstrations, prompts = folder / "demonstrations.parquet", folder / "prompts.parquet"
    rows = [
        {
            "demonstration_id": demonstration_id(prompt, response),
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "response": response,
            "source": "benchmark",
            "split": "train",
        }
        for prompt, response in pairs
    ]
    pq.write_table(table(rows, DEMONSTRATIONS), demonstrations)
    texts = sorted({prompt for prompt, _ in pairs})
    asked = [{"prompt_id": prompt_id(text), "text": text, "source": "", "user": "", "split": "train"} for text in texts]
    pq.write_table(table(asked, PROMPTS), prompts)
    spec = SftSpec(base, demonstrations, folder / "sft", sft_settings, sampling, compute=COMPUTE)
    return Made(folder, train_sft(spec).folder, prompts, sampling, settings)


def _budget(frame: pd.DataFrame, comparisons: int, seed: int) -> pd.DataFrame:
    """The labels of that many comparisons of the training split, drawn by a hash, and all others."""
    train = frame["split"] == "train"
    ids = sorted(frame.loc[train, "comparison_id"].unique(), key=lambda name: content_hash("budget", seed, name))
    return frame[~train | frame["comparison_id"].isin(ids[:comparisons])]


def _measured(made: Made, frame: pd.DataFrame, settings: RewardModelSettings, seed: int) -> dict[str, Any]:
    """Train a reward model on the training split and measure it on the other."""
    preferences = made.folder / "preferences.parquet"
    pq.write_table(table(frame, PREFERENCES), preferences)
    comparisons = frame.loc[frame["split"] == "train", "comparison_id"].nunique()
    epochs = max(settings.epochs, min(MOST_EPOCHS, STEPS * settings.batch_size / comparisons))
    spec = RewardModelSpec(
        made.sft,
        preferences,
        made.prompts,
        made.folder / "reward",
        settings.changed(epochs=epochs),
        made.sampling,
        seed,
        COMPUTE,
    )
    result = train_reward_model(spec)
    held_out = frame[frame["split"] == "validation"]
    scores = _scores(result, held_out, made.sampling)
    scale = result.metrics["score_scale"]
    return _figures(held_out, scores, scale) | (
        {} if held_out["ratings"].isna().all() else _order(held_out, scores, scale)
    )


def _scores(result: TrainingResult, frame: pd.DataFrame, sampling: SamplingSettings) -> list[list[float]]:
    prompts = [prompt for prompt, texts in zip(frame["prompt"], frame["responses"], strict=True) for _ in texts]
    flat = iter(score_responses(result.folder, prompts, [t for texts in frame["responses"] for t in texts], sampling))
    return [list(islice(flat, len(texts))) for texts in frame["responses"]]


def _figures(frame: pd.DataFrame, scores: Sequence[Sequence[float]], scale: float) -> dict[str, Any]:
    found = reward_accuracy(frame, scores, scale)["splits"]["validation"]
    return {
        "accuracy": found["accuracy"]["value"],
        "low": found["accuracy"]["low"],
        "high": found["accuracy"]["high"],
        "longest wins": found["length_baseline"]["value"],
        "log-likelihood": found["log_likelihood"],
        "calibration error": found["calibration_error"],
        "n": found["accuracy"]["n"],
    }


def _order(frame: pd.DataFrame, scores: Sequence[Sequence[float]], scale: float) -> dict[str, float]:
    """How well scores give the order of the truth, and the slope of true differences over theirs (aim: 1)."""
    true = np.array(frame["ratings"].tolist())
    own = scale * np.array(scores)
    true, own = (values - values.mean(axis=1, keepdims=True) for values in (true, own))
    return {
        "order": float(spearmanr(true.ravel(), own.ravel()).statistic),
        "slope": float((true * own).sum() / (own * own).sum()),
    }


def _truth(frame: pd.DataFrame) -> dict[str, Any]:
    """The figures of the scores that made the labels: the best there can be."""
    scores = frame["ratings"].tolist()
    return _figures(frame, scores, 1.0) | _order(frame, scores, 1.0)


if __name__ == "__main__":
    main()
