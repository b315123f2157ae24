"""What a round asks its annotators: comparisons of its samples, with gold questions, repeats and others mixed in."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd

from rlhf_dagster.data.imported import imported, imported_key
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_comparisons, candidates, comparison_row
from rlhf_dagster.labeling.gold import clear_answers, known_answers
from rlhf_dagster.labeling.quality.label_quality import DEMONSTRATION_POLICY
from rlhf_dagster.labeling.selection import both_orders, disagreement, repeated, score_gap, spread
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.inference.reward_scores import ScoredTogether, scores_by_heads, scores_of
from rlhf_dagster.loop.sampling import as_prompts, sample_policy
from rlhf_dagster.loop.selection import selecting_model
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.ids import completion_id, content_hash
from rlhf_dagster.records.schemas import COMPARISONS, IMPORTED_GOLD, table
from rlhf_dagster.records.tables import Row, records


def training_comparisons(loop: LoopFolder, round_key: str, completions: pd.DataFrame) -> pd.DataFrame:
    """A round's comparisons (schema COMPARISONS) in the order in which they should be judged.

    Where comparisons of these completions were sent before, they are the result, even if the reward model has changed.
    """
    labeling, seed = loop.config.labeling, loop.config.stage_seed("comparisons", round_key)
    before = loop.ledger.comparisons(round_key, "train")
    if _is_about(before, completions):
        return before
    reward_model = selecting_model(loop, round_key)
    gaps = reward_gaps(loop, candidates(completions, labeling, round_key, seed), reward_model) if reward_model else None
    rows = records(build_comparisons(completions, labeling, round_key, seed, gaps=gaps))
    if labeling.both_orders:
        rows = both_orders(rows)
    extras = [
        *_gold_questions(loop, round_key, completions, _share(loop, labeling.gold_share), seed),
        *_challenges(loop, round_key, completions, _share(loop, labeling.challenger_share), seed),
        *_drift_guards(loop, round_key, _share(loop, labeling.drift_share), seed),
        *repeated(rows, _share(loop, labeling.repeat_share), seed),
    ]
    mixed = sorted(extras, key=lambda row: content_hash("mixed in", seed, row["comparison_id"]))
    return table(spread(rows, mixed, seed), COMPARISONS).to_pandas()


def reward_gaps(loop: LoopFolder, rows: Sequence[Row], reward_model: Checkpoint) -> dict[str, float]:
    """How sure the reward model is, by comparison id, as :func:`select` reads it: by margin, or by its heads."""
    from rlhf_dagster.training.models.responses import own_ids

    own = tokenizer_digest(reward_model.folder)
    answers = ScoredTogether(
        [prompt_of_row(row) for row in rows for _ in row["responses"]],
        [text for row in rows for text in row["responses"]],
        [ids for row in rows for ids in own_ids(row, own)],
    )
    if loop.config.labeling.selection == "disagreement":
        scale = read_manifest(reward_model.folder)["metrics"].get("score_scale", 1.0)
        by_heads = iter(scores_by_heads(loop, reward_model, answers))
        found = {row["comparison_id"]: np.stack(list(islice(by_heads, len(row["responses"])))) for row in rows}
        return {comparison: -disagreement(scores, scale) for comparison, scores in found.items()}
    scores = iter(scores_of(loop, reward_model, [answers])[0].tolist())
    return {row["comparison_id"]: score_gap(list(islice(scores, len(row["responses"])))) for row in rows}


def _share(loop: LoopFolder, share: float) -> int:
    return round(share * loop.config.labeling.comparisons_per_round)


def _is_about(comparisons: pd.DataFrame, completions: pd.DataFrame) -> bool:
    """Whether there are comparisons to learn from (role `label`), all of them of these completions."""
    asked = comparisons.loc[comparisons["role"] == "label", "completion_ids"].explode()
    return len(asked) > 0 and bool(asked.isin(completions["completion_id"]).all())


def _gold_questions(loop: LoopFolder, round_key: str, completions: pd.DataFrame, n: int, seed: int) -> list[Row]:
    """Imported gold questions; without any, comparisons of samples whose answer the task's gold judge is sure about."""
    gold = imported(loop.store, "gold", IMPORTED_GOLD)
    if n and gold is not None:
        _require_room(gold.to_pylist(), loop.config.labeling.responses)
        return known_answers(gold.to_pylist(), n, loop.config.labeling.kind, round_key, seed)
    if not n or not loop.config.has_task:
        return []
    task = loop.task
    rows = candidates(completions, loop.config.labeling, round_key, seed)
    scores = {row["comparison_id"]: [task.gold_score(row["prompt"], text) for text in row["responses"]] for row in rows}
    return clear_answers(rows, scores, n, seed)


def _require_room(gold: Sequence[Row], room: int) -> None:
    """Raise UserError where a gold question has more responses than the round's pages show."""
    most = max((len(row["responses"]) for row in gold), default=0)
    if most > room:
        raise UserError(
            f"{imported_key('gold')}: a gold question has {most} responses, and the pages of this loop show {room}; "
            "import gold questions with fewer, or change `labeling.kind` or `labeling.responses_per_prompt`."
        )


def _challenges(loop: LoopFolder, round_key: str, completions: pd.DataFrame, n: int, seed: int) -> list[Row]:
    """The champion's responses against those of the newest policy never promoted; empty if there is no such policy."""
    challenger = challenger_id(loop) if n else None
    if challenger is None:
        return []
    firsts = completions.drop_duplicates("prompt_id")
    drawn = _drawn(as_prompts(firsts), n, seed)
    sampling_seed = loop.config.stage_seed("challenger", round_key)
    others = records(sample_policy(loop, loop.policy(challenger), drawn, seed=sampling_seed))
    champions = {row["prompt_id"]: row for row in records(firsts)}
    pairs = [(champions[other["prompt_id"]], other) for other in others]
    return _pairs(loop, round_key, pairs, "challenger", seed)


def _drift_guards(loop: LoopFolder, round_key: str, n: int, seed: int) -> list[Row]:
    """SFT responses against demonstrations of the same prompts, validation prompts first."""
    if not n:
        return []
    demonstrations, sft = loop.table("demonstrations"), loop.checkpoint("sft_checkpoint")
    if demonstrations is None or sft is None:
        raise UserError("`labeling.drift_share` needs demonstrations and the SFT checkpoint; run `prepare` to its end.")
    frame = demonstrations.drop_duplicates("prompt_id")
    held_out = frame[frame["split"] == "validation"]
    drawn = _drawn(held_out if len(held_out) >= n else frame, n, seed)
    prompts = as_prompts(drawn)
    written = {row["prompt_id"]: row for row in records(drawn)}
    pairs = [
        (_demonstrated(written[row["prompt_id"]]), row)
        for row in records(sample_policy(loop, sft, prompts, seed=loop.config.stage_seed("drift", round_key)))
    ]
    return _pairs(loop, round_key, pairs, "drift", seed)


def _demonstrated(row: Row) -> Row:
    """A demonstration as a completion."""
    identity = completion_id(row["prompt_id"], DEMONSTRATION_POLICY, {"text": row["response"]}, 0, 0)
    return {
        "completion_id": identity,
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "messages": row.get("messages"),
        "policy_id": DEMONSTRATION_POLICY,
        "text": row["response"],
    }


def _pairs(loop: LoopFolder, round_key: str, pairs: Sequence[tuple[Row, Row]], role: str, seed: int) -> list[Row]:
    """Comparisons of two responses each, of the round's kind; pairs of equal responses are left out."""
    return [
        comparison_row(pair, loop.config.labeling.kind, round_key, "train", seed, role=role)
        for pair in pairs
        if pair[0]["text"].strip() != pair[1]["text"].strip()
    ]


def challenger_id(loop: LoopFolder) -> str | None:
    """Id of the newest policy that was never champion; None where every policy was."""
    champions, deleted = {record.policy_id for record in loop.registry.history()}, loop.deletions.deleted()
    others = [loop.registry.get(name) for name in loop.registry.policies() if name not in champions]
    others = [record for record in others if record.round_key not in deleted]
    newest = max(((record.round_key, record.policy_id) for record in others), default=None)
    return newest[1] if newest else None


def _drawn(frame: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    order = frame["prompt_id"].map(lambda prompt: content_hash("extra", seed, prompt)).sort_values().index
    return frame.loc[order[:n]]
