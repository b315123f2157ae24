"""Whether a model in parts computes and samples what it does whole: over NCCL on GPUs, of which one is enough."""

import os
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.gpu.cases import CASE, SMALL, made

TOKENS = 8


def sharded(device: str) -> dict[str, Any]:
    """Ranks, as many as there are GPUs (2 on a CPU), and the largest difference of log-probs of sampled responses.

    Outputs and gradients are compared where the model is cut, which fails where they differ.
    """
    ranks = torch.cuda.device_count() if device == "cuda" else 2
    case = CASE | SMALL["tiny"] | {"key_value_heads": 4, "stages": ("sft",)}
    with made(case) as (model, _), TemporaryDirectory() as name:
        torch.multiprocessing.spawn(_rank, (ranks, str(model), name, device), nprocs=ranks)
        differences = [float(Path(name, str(rank)).read_text()) for rank in range(ranks)]
    return {"ranks": ranks, "log_prob_difference": max(differences)}


def _rank(rank: int, ranks: int, model: str, folder: str, device: str) -> None:
    """On a rank: write by how much log-probs differ."""
    from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
    from rlhf_dagster.training.models.policies import load_policy
    from rlhf_dagster.training.models.sharding.opening import sharding_models
    from rlhf_dagster.training.models.sharding.weights import whole_weights
    from rlhf_dagster.training.runtime.device import training_on
    from rlhf_dagster.training.sampling.sample import sample

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, f"file://{folder}/meeting", rank=rank, world_size=ranks)
    compute = ComputeSettings(threads=1, device=device)
    sampling = SamplingSettings(prompt_tokens=TOKENS, response_tokens=TOKENS)
    with training_on(compute):
        whole = load_policy(Path(model), compute, trained=True)
        with sharding_models(compute, wanted=True) as sharding:
            cut = load_policy(Path(model), sharding.opening, trained=True)
            sharding.shard(cut.model)
        prompts = [whole.tokenizer.decode(range(8 + row, 8 + row + TOKENS)) for row in range(4)]
        expected = sample(whole, prompts, sampling, seed=0)
        with whole_weights(cut.model):
            found = sample(cut, prompts, sampling, seed=0)
    numbers = (list(chain.from_iterable(drawn.log_probs for drawn in samples)) for samples in (found, expected))
    Path(folder, str(rank)).write_text(str(max(abs(one - other) for one, other in zip(*numbers, strict=True))))
    dist.destroy_process_group()
