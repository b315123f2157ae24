"""The trainings of this project, as a user calls them: a spec in, progress out."""

import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.training.machine import matmul_rates
from benchmarks.training.sides.measuring import Laps, main
from rlhf_dagster.config.training import (
    ComputeSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
)
from rlhf_dagster.training.specs import PpoSpec, RewardModelSpec, SftSpec

COMPUTE = ComputeSettings(threads=1, device="cpu")


def _compute(options: dict[str, Any]) -> ComputeSettings:
    """One thread of a CPU in fp32, unless a case says otherwise."""
    return COMPUTE.changed(**{name: options[name] for name in ("device", "precision") if name in options})


def ppo(inputs: Path, options: dict[str, Any], laps: Laps) -> dict[str, Any]:
    from rlhf_dagster.training.ppo.train import train_ppo

    sampling = SamplingSettings(prompt_tokens=options["prompt_tokens"], response_tokens=options["response_tokens"])
    settings = PpoSettings(
        updates=options["updates"],
        batch_size=options["batch_size"],
        epochs=options["epochs"],
        minibatches=options["minibatches"],
        learning_rate=options["learning_rate"],
        kl_coef=options["kl_coef"],
        kl_target=None,
        **options.get("ours", {}),
    )
    with _output() as output, _marking(laps) as progress:
        spec = PpoSpec(
            sft=inputs / "sft",
            start=inputs / "sft",
            reward_model=inputs / "reward",
            prompts=inputs / "prompts.parquet",
            pretraining_text=None,
            output=output,
            settings=settings,
            sampling=sampling,
            seed=options["seed"],
            compute=_compute(options),
        )
        result = train_ppo(spec, progress)
    # In the same process and minutes, on a machine that others may use too.
    return {"reward": result.curves["reward"], "kl": result.curves["kl"], "matmul_rates": matmul_rates()}


def reward_model(inputs: Path, options: dict[str, Any], laps: Laps) -> None:
    from rlhf_dagster.training.reward.train import train_reward_model

    settings = RewardModelSettings(
        epochs=1,
        batch_size=options["sequences"] // options["compared"],
        learning_rate=options["learning_rate"],
        max_tokens=options["max_tokens"],
        normalisation_samples=8,
    )
    sampling = SamplingSettings(prompt_tokens=options["prompt_tokens"], response_tokens=options["response_tokens"])
    with _output() as output, _marking(laps) as progress:
        spec = RewardModelSpec(
            sft=inputs / "sft",
            preferences=inputs / "preferences.parquet",
            prompts=inputs / "prompts.parquet",
            output=output,
            settings=settings,
            sampling=sampling,
            compute=COMPUTE,
        )
        train_reward_model(spec, progress)


def sft(inputs: Path, options: dict[str, Any], laps: Laps) -> None:
    from rlhf_dagster.training.sft.train import train_sft

    settings = SftSettings(
        epochs=1,
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        max_tokens=options["max_tokens"],
        **options.get("ours", {}),
    )
    sampling = SamplingSettings(
        prompt_tokens=options["prompt_tokens"], response_tokens=options["response_tokens"], fixed_length=False
    )
    with _output() as output, _marking(laps) as progress:
        spec = SftSpec(
            model=inputs / "sft",
            demonstrations=inputs / "demonstrations.parquet",
            output=output,
            settings=settings,
            sampling=sampling,
            compute=COMPUTE,
        )
        train_sft(spec, progress)


def rollouts(inputs: Path, options: dict[str, Any], laps: Laps) -> dict[str, Any]:
    import pandas as pd

    from rlhf_dagster.training.models.policies import load_policy
    from rlhf_dagster.training.sampling.sample import sample

    sampling = SamplingSettings(
        prompt_tokens=options["prompt_tokens"],
        response_tokens=options["response_tokens"],
        fixed_length=False,
        batch_size=options["batch_size"],
    )
    policy = load_policy(inputs / "sft", COMPUTE)
    prompts = pd.read_parquet(inputs / "prompts.parquet")["text"].tolist()[: options["batch_size"]]
    lengths: list[int] = []
    laps.mark()
    for seed in range(options["batches"]):
        lengths += [len(one.token_ids) for one in sample(policy, prompts, sampling, seed)]
        laps.mark()
    return {"mean_length": sum(lengths) / len(lengths)}


@contextmanager
def _output() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "model"


@contextmanager
def _marking(laps: Laps) -> Any:
    """Progress that marks the end of every step."""

    def progress(step: int, total: int, **numbers: float) -> None:
        laps.mark()

    yield progress


JOBS: dict[str, Callable[..., Any]] = {"ppo": ppo, "reward_model": reward_model, "sft": sft, "rollouts": rollouts}

if __name__ == "__main__":
    main(JOBS)
