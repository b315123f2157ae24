"""Tokens a second of sampling and of whole PPO updates, and the shares of the card's rates that they use."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.gpu.cases import ADAPTERS, CASE, made, sizes_on
from benchmarks.gpu.rates import rates, timed, wait
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.records.schemas import PROMPTS
from rlhf_dagster.records.tables import read_table
from rlhf_dagster.training.input_sizes import parameters_of
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import silent


def speed(device: str) -> dict[str, Any]:
    """By size of the model."""
    found: dict[str, Any] = {}
    for name, sizes in sizes_on(device).items():
        found[name] = _speed(sizes, device)
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def _speed(sizes: dict[str, Any], device: str) -> dict[str, Any]:
    tokens = (128, 64) if device == "cuda" else (16, 16)
    case = (
        CASE | {"device": device} | {"rows": 64, "prompt": tokens[0], "response": tokens[1], "stages": ("ppo",)} | sizes
    )
    case |= {"key_value_heads": sizes["heads"], "set": [f"compute.device={device}", "compute.precision=bf16", ADAPTERS]}
    with made(case) as (model, specs):
        asked = model, specs["ppo"].prompts, specs["ppo"]
        rollout = {kind: rollout_seconds(*asked, kind, device) for kind in ("fp32", "bf16")}
        generated = generate_seconds(*asked, device)
        TRAININGS["reward_model"].load()(specs["reward_model"], silent, KEEP_NOTHING)
        update = _update_seconds(specs["ppo"], device)
        parameters, drawn = parameters_of(model), case["rows"] * tokens[1]
    read = case["rows"] * sum(tokens)
    # A forward pass is 2 operations for each parameter and token; an update samples, reads twice and trains (3 passes
    # but for the weights' gradients, which adapters do not need).
    work = 2.0 * parameters * read
    bound = rates(device)
    return {
        "parameters": parameters,
        "rollout tokens a second": drawn / rollout["bf16"],
        "in fp32": drawn / rollout["fp32"],
        "by generate(), in bf16": drawn / generated,
        "update tokens a second": read / update,
        # Each token that is drawn reads all weights once for all rows, in bf16.
        "share of the memory rate in rollouts": 2 * parameters * tokens[1] / rollout["bf16"] / bound["copies"],
        "share of the matrix rate in updates": 5 * work / update / bound["matrix products"],
    }


def rollout_seconds(model: Path, prompts: Path, spec: Any, precision: str, device: str = "cpu") -> float:
    """Of responses to ``prompts`` with the sampling of ``spec``, as rollouts draw them, once all is warm."""
    compute = spec.compute.changed(precision=precision)
    policy = load_policy(model, compute)
    draw = lambda: sample(policy, _texts(prompts), spec.sampling, 0, compute=compute)  # noqa: E731
    draw()
    return timed(draw, device)


def generate_seconds(model: Path, prompts: Path, spec: Any, device: str = "cpu") -> float:
    """Of transformers' ``generate`` from the same prompts, with weights in bf16; it returns no log-probs."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).to(device).eval()
    tokenizer = load_policy(model, spec.compute).tokenizer
    tokens = {"truncation": True, "max_length": spec.sampling.prompt_tokens, "padding_side": "left"}
    batch = tokenizer(_texts(prompts), return_tensors="pt", padding=True, **tokens).to(device)
    count = spec.sampling.response_tokens
    settings: dict[str, Any] = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
    settings |= {"max_new_tokens": count, "min_new_tokens": count}

    @torch.no_grad()
    def draw() -> None:
        policy.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings)

    draw()
    return timed(draw, device)


def _texts(prompts: Path) -> list[str]:
    texts: list[str] = read_table(prompts, PROMPTS)["text"].tolist()
    return texts


def _update_seconds(spec: Any, device: str) -> float:
    """The second of two updates: the first one has what is done once."""
    ends: list[float] = []

    def note(step: int, total: int, **numbers: float) -> None:
        wait(device)
        ends.append(time.perf_counter())

    TRAININGS["ppo"].load()(spec, note, KEEP_NOTHING)
    return ends[-1] - ends[-2]
