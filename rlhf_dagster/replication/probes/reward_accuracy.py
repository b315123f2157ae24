"""A reward model on new pairs of responses of the policies that rounds have sampled from."""

from typing import Any

import numpy as np

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import draw_prompts, sample_policy
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.kinds import PAIR
from rlhf_dagster.records.tables import Row, records
from rlhf_dagster.replication.probes.models import reward_scores


def reward_accuracy(loop: LoopFolder, pairs: int) -> dict[str, Any]:
    """The newest reward model on so many ``pairs`` for each round, on prompts that nothing was trained on.

    Under ``rounds``, oldest first, lists with a number for each pair: ``agrees_with_gold`` and ``agrees_with_people``,
    1 where the reward model prefers the same response as the gold judge, or as the annotator who was asked (1/2 where
    one of the two is undecided), and ``strength`` of the annotator's preference, 0 for a tie. Loops of one seed whose
    rounds sample from one policy have the same pairs and answers.
    """
    keys = loop.rounds_with("round_manifest")
    return {"rounds": [{"round": key, **_of_round(loop, key, pairs)} for key in keys]}


def _of_round(loop: LoopFolder, key: str, pairs: int) -> dict[str, Any]:
    rows = _sampled(loop, key, pairs)
    scores = reward_scores(loop, [row["prompt"] for row in rows], [row["text"] for row in rows])
    gold = [loop.task.gold_score(row["prompt"], row["text"]) for row in rows]
    people = loop.annotators()
    judged = [_judged(people, rows[place], rows[place + 1]) for place in range(0, len(rows), 2)]
    preferred = np.array([side for side, _ in judged])
    return {
        "agrees_with_gold": _agreement(_sides(scores), _sides(gold)),
        "agrees_with_people": _agreement(_sides(scores), preferred),
        "strength": [strength for _, strength in judged],
    }


def _sampled(loop: LoopFolder, key: str, pairs: int) -> list[Row]:
    """Two responses to each prompt, one after the other."""
    manifest, prompts = loop.json("round_manifest", key), loop.table("prompts")
    if manifest is None or prompts is None:
        raise UserError(f"{loop.root}: {key} has no prompts or no policy that it samples from; run it first.")
    held_out = prompts[prompts["split"] != "train"]
    if len(held_out) < pairs:
        raise UserError(f"{loop.root}: {len(held_out)} prompts are held out, and {pairs} pairs need one each.")
    seed = loop.config.stage_seed("reward accuracy", key)
    drawn, policy = draw_prompts(held_out, pairs, seed), loop.policy(manifest["behaviour_policy"])
    return records(sample_policy(loop, policy, drawn, seed=seed, samples_per_prompt=2))


def _judged(people: Any, one: Row, other: Row) -> tuple[int, float]:
    """Which of two responses an annotator prefers (1 the first, -1 the second, 0 neither), and how strongly."""
    key = content_hash("pair", one["completion_id"], other["completion_id"])
    person = people[int(key[:8], 16) % len(people)]
    judgment = person.judge(one["prompt"], [one["text"], other["text"]], PAIR.name, key)
    side = 0 if judgment.ranks is None else int(np.sign(judgment.ranks[1] - judgment.ranks[0]))
    return side, float(judgment.strength or 0.0)


def _sides(scores: Any) -> np.ndarray:
    """1 for each pair whose first response scores higher, -1 whose second does, 0 otherwise."""
    pairs = np.asarray(scores, dtype=np.float64).reshape(-1, 2)
    found: np.ndarray = np.sign(pairs[:, 0] - pairs[:, 1])
    return found


def _agreement(own: np.ndarray, other: np.ndarray) -> list[float]:
    found: list[float] = ((own * other + 1) / 2).tolist()
    return found
