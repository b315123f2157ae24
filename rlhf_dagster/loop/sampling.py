"""Completions for labelling and for evaluation."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from rlhf_dagster.compute.shards.on_ray import is_on_ray, rows_on_ray
from rlhf_dagster.compute.shards.task import OpenModels, PartRows, ShardTask, plain_prompts, rows_of_part
from rlhf_dagster.compute.work import Work
from rlhf_dagster.data.imported import imported, is_imported
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of, require_one_tokenizer
from rlhf_dagster.loop.selection import selecting_model
from rlhf_dagster.records.chats import Prompt, messages_of, prompts_of
from rlhf_dagster.records.ids import completion_id, content_hash
from rlhf_dagster.records.round_keys import IMPORT_ROUND, IMPORTED_POLICY
from rlhf_dagster.records.schemas import COMPLETIONS
from rlhf_dagster.training.specs import OnStep, silent
from rlhf_dagster.training.texts.cuts import Cuts

if TYPE_CHECKING:
    from rlhf_dagster.training.sampling.best_of_n import Best
    from rlhf_dagster.training.sampling.sample import Sample

SPARE = 1.05
"""Prompts sampled for each comparison wanted: some samples of a prompt are equal and cannot be compared."""


def pin_round(loop: LoopFolder, round_key: str) -> dict[str, str]:
    """Which policy a round samples from. Chosen once: asking again, after a promotion too, gives the same answer.

    Raises UserError, and pins nothing, where the champion cannot be opened.
    """
    if round_key == IMPORT_ROUND:
        return {"round": round_key, "behaviour_policy": IMPORTED_POLICY, "checkpoint": ""}
    pinned, champion = loop.registry.pinned(round_key), loop.registry.champion()
    if policy_id := pinned or (champion.policy_id if champion else None):
        _require_whole(loop, round_key, policy_id, pinned is not None)
    policy_id = loop.registry.pin(round_key)
    return {"round": round_key, "behaviour_policy": policy_id, "checkpoint": loop.policy(policy_id).path}


def _require_whole(loop: LoopFolder, round_key: str, policy_id: str, is_pinned: bool) -> None:
    """Raise UserError where a policy to sample from cannot be opened."""
    try:
        _ = loop.policy(policy_id).folder
    except UserError as error:
        then = (
            f"{round_key} is pinned to it: bring it back, or delete the round"
            if is_pinned
            else f"{round_key} is not pinned to it"
        )
        raise UserError(f"{str(error).rstrip('.')}. {then}.") from None


def sample_completions(
    loop: LoopFolder,
    manifest: dict[str, str],
    prompts: pd.DataFrame,
    cuts: Cuts | None = None,
    progress: OnStep = silent,
) -> pd.DataFrame:
    """K samples of the pinned policy for each chosen training prompt (schema COMPLETIONS).

    ``cuts`` counts prompts that are cut and responses that do not end, and ``progress`` is told of the samples, here
    and in :func:`sample_policy`.
    """
    round_key, policy_id = manifest["round"], manifest["behaviour_policy"]
    if policy_id == IMPORTED_POLICY:
        return imported_table(loop, "completions", COMPLETIONS)
    labeling, seed = loop.config.labeling, loop.config.stage_seed("completions", round_key)
    train = prompts[prompts["split"] == "train"]
    if train.empty:
        raise UserError(
            "No prompt is in the train split; give more prompts, or lower `data.validation` and `data.test`."
        )
    pool = labeling.selection_pool if selecting_model(loop, round_key) else 1
    wanted = math.ceil(labeling.comparisons_per_round * pool)
    chosen = draw_prompts(train, math.ceil(wanted * SPARE), seed)
    per_prompt = labeling.responses * math.ceil(wanted / len(chosen))
    policy = loop.policy(policy_id)
    return sample_policy(loop, policy, chosen, seed=seed, samples_per_prompt=per_prompt, cuts=cuts, progress=progress)


def sample_evaluation(
    loop: LoopFolder,
    manifest: dict[str, str],
    policy: Checkpoint,
    sft: Checkpoint,
    prompts: pd.DataFrame,
    cuts: Cuts | None = None,
) -> pd.DataFrame:
    """One response of policy, SFT and behaviour policy for each test prompt (schema EVALUATION_COMPLETIONS)."""
    test = prompts[prompts["split"] == "test"]
    if test.empty:
        raise UserError(
            "No prompt is in the test split, so nothing can be measured; give more prompts or raise `data.test`."
        )
    most = loop.config.evaluation.prompts
    return sample_roles(loop, manifest, {"policy": policy}, sft, test, most, "evaluation", cuts)


def sample_roles(
    loop: LoopFolder,
    manifest: dict[str, str],
    policies: dict[str, Checkpoint],
    sft: Checkpoint,
    prompts: pd.DataFrame,
    most: int,
    purpose: str,
    cuts: Cuts | None = None,
) -> pd.DataFrame:
    """One response of ``policies`` by role, of SFT and of the behaviour policy for each of at most ``most`` prompts.

    PartRows of the schema EVALUATION_COMPLETIONS. Prompts and responses are drawn for the ``purpose``.
    """
    config, round_key = loop.config, manifest["round"]
    chosen = draw_prompts(prompts, most, config.stage_seed(purpose, round_key))
    started_from_sft = manifest["behaviour_policy"] in (sft.model_id, IMPORTED_POLICY)
    behaviour = sft if started_from_sft else loop.policy(manifest["behaviour_policy"])
    require_base_of(loop, sft)
    require_one_tokenizer(sft, *policies.values(), behaviour)
    sampled: dict[str, pd.DataFrame] = {}
    roles = {**policies, "sft": sft, "behaviour": behaviour}
    for role, model in roles.items():
        if model.model_id not in sampled:
            # With random numbers of its own, so that the responses compared are independent.
            role_seed = config.stage_seed(f"{purpose} of {role}", round_key)
            sampled[model.model_id] = sample_policy(loop, model, chosen, seed=role_seed, reference=sft, cuts=cuts)
    return pd.concat([sampled[model.model_id].assign(role=role) for role, model in roles.items()], ignore_index=True)


def sample_policy(
    loop: LoopFolder,
    policy: Checkpoint,
    prompts: pd.DataFrame,
    *,
    seed: int,
    samples_per_prompt: int = 1,
    reference: Checkpoint | None = None,
    cuts: Cuts | None = None,
    progress: OnStep = silent,
) -> pd.DataFrame:
    """Samples of one policy, with log-probabilities under it and, where given, under a reference policy."""
    sampling = loop.config.sampling
    decoding = sampling.model_dump(exclude={"batch_size"})
    asked, tokenizer = prompts_of(prompts, "text"), tokenizer_digest(policy.folder)
    samples = _samples(loop, policy, asked, seed, samples_per_prompt, cuts, progress)
    rows = list(zip(prompts["prompt_id"].astype(str), asked, strict=True))
    keys = [(*row, index) for row in rows for index in range(samples_per_prompt)]
    reference_log_probs: list[list[float]] = [[] for _ in samples]
    if reference is not None:
        repeated, tokens = [prompt for _, prompt, _ in keys], [sample.token_ids for sample in samples]
        reference_log_probs = _log_probs(loop, reference, repeated, tokens)
    records = [
        {
            "completion_id": completion_id(prompt_id, policy.model_id, decoding, seed, index),
            "prompt_id": prompt_id,
            "prompt": str(prompt),
            "messages": messages_of(prompt),
            "policy_id": policy.model_id,
            "index": index,
            "text": sample.text,
            "token_ids": sample.token_ids,
            "log_probs": sample.log_probs,
            "reference_log_probs": reference,
            "decoding": json.dumps(decoding, sort_keys=True),
            "seed": seed,
            "tokenizer": tokenizer,
        }
        for (prompt_id, prompt, index), sample, reference in zip(keys, samples, reference_log_probs, strict=True)
    ]
    return pd.DataFrame(records, columns=COMPLETIONS.names)


def _samples(
    loop: LoopFolder,
    policy: Checkpoint,
    prompts: list[Prompt],
    seed: int,
    n: int,
    cuts: Cuts | None,
    progress: OnStep,
) -> "list[Sample]":
    """``n`` samples for each prompt: here, or in parts on Ray."""
    from rlhf_dagster.training.models.log_probs import decoding_of
    from rlhf_dagster.training.models.policies import load_tokenizer
    from rlhf_dagster.training.sampling.sample import Sample, count_unended, sample
    from rlhf_dagster.training.texts.tokens import encode_prompts

    sampling, compute = loop.config.sampling, loop.config.compute
    task = ShardTask("samples", policy.folder, plain_prompts(prompts), sampling, compute, seed, n)
    if not is_on_ray(task):
        return sample(policy.folder, prompts, sampling, seed, n, compute=compute, cuts=cuts, progress=progress)
    samples = [Sample(*row) for row in shard_rows(loop, task, progress)]
    if cuts is not None:
        tokenizer = load_tokenizer(policy.folder)
        encode_prompts(tokenizer, prompts, sampling.prompt_tokens, cuts)
        count_unended(cuts, samples, sampling, decoding_of(tokenizer, sampling))
    return samples


def _log_probs(
    loop: LoopFolder, policy: Checkpoint, prompts: list[Prompt], responses: list[list[int]]
) -> list[list[float]]:
    """Log-probs of given responses: here, or in parts on Ray."""
    from rlhf_dagster.training.sampling.sample import response_log_probs

    sampling, compute = loop.config.sampling, loop.config.compute
    plain = plain_prompts(prompts)
    task = ShardTask("log_probs", policy.folder, plain, sampling, compute, responses=responses)
    if is_on_ray(task):
        return shard_rows(loop, task)
    return response_log_probs(policy.folder, prompts, responses, sampling, compute)


def shard_rows(loop: LoopFolder, task: ShardTask, progress: OnStep = silent) -> PartRows:
    """A task's rows, which parts of a Ray job give; raises what :func:`rows_on_ray` does."""
    folder = loop.models.work_folder(f"shards-{task.identity[:16]}")
    work = Work(folder, loop.store, project=loop.config.name)
    return rows_on_ray(task, work, progress)


def best_responses(
    loop: LoopFolder, policy: Checkpoint, reward_model: Checkpoint, prompts: Sequence[Prompt], n: int, seed: int
) -> "list[Best]":
    """For each prompt the one of ``n`` samples of a policy that a reward model scores highest: here, or on Ray."""
    from rlhf_dagster.training.sampling.best_of_n import Best
    from rlhf_dagster.training.sampling.sample import Sample

    sampling, compute, asked = loop.config.sampling, loop.config.compute, plain_prompts([*prompts])
    task = ShardTask("best", policy.folder, asked, sampling, compute, seed, n, reward_model=reward_model.folder)
    rows = shard_rows(loop, task) if is_on_ray(task) else rows_of_part(task, range(len(asked)), OpenModels(task))
    return [Best(Sample(*row[:3]), *row[3:]) for row in rows]


def as_prompts(answered: pd.DataFrame) -> pd.DataFrame:
    """Columns of PROMPTS that sampling needs, of rows whose prompt is in the column `prompt`."""
    columns = ["prompt_id", "prompt", "messages"]
    return answered.reindex(columns=columns).rename(columns={"prompt": "text"})


def draw_prompts(prompts: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """``n`` prompts in an order that depends on the seed and the prompts' ids alone."""
    order = prompts["prompt_id"].map(lambda prompt_id: content_hash("draw", seed, prompt_id)).sort_values().index
    return prompts.loc[order[:n]]


def require_judgments(loop: LoopFolder) -> None:
    """Raise UserError where no judgments are imported, which are the round of that name."""
    if not is_imported(loop.store, "comparisons"):
        raise _no_judgments(loop)


def imported_table(loop: LoopFolder, name: str, schema: pa.Schema) -> pd.DataFrame:
    found = imported(loop.store, name, schema)
    if found is None:
        raise _no_judgments(loop)
    return found.to_pandas()


def _no_judgments(loop: LoopFolder) -> UserError:
    command = "run prepare" if loop.config.data.judgments_dataset else "import judgments FILE"
    return UserError(
        f"{IMPORT_ROUND} holds imported judgments, and there are none; run `rlhf {command} {loop.option}` first."
    )
