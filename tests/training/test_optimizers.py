"""AdamW with narrow weights and moments: steps below the last digit count, and a state goes on bit for bit."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_language import COMPUTE, FIXED, Tables, sft_spec

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import ComputeSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.optimizers import SmallAdamW, optimizer_class, rounded_stochastically
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, TrainingStopped
from rlhf_dagster.training.specs import PpoSpec, silent

NARROW = COMPUTE.changed(precision="bf16", trained_weights="bf16")
EIGHT = COMPUTE.changed(optimizer="adamw_8bit")
BOTH = NARROW.changed(optimizer="adamw_8bit")


def weight(dtype: torch.dtype = torch.float32, numbers: int = 8192) -> Tensor:
    return torch.nn.Parameter(torch.randn(numbers // 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype))


def steps(optimizer: torch.optim.Optimizer, parameter: Tensor, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(step)
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()


def test_float32_is_pytorchs_own() -> None:
    assert optimizer_class(ComputeSettings()) == (torch.optim.AdamW, {"fused": True})


def test_with_wide_weights_and_moments_it_is_adamw() -> None:
    ours, theirs = weight(), weight()
    steps(SmallAdamW([ours], lr=0.01, weight_decay=0.1), ours, 5)
    steps(torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1), theirs, 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_rounding_is_right_on_average_and_to_a_neighbour() -> None:
    number = 1 + 0.3 * 2**-7
    rounded = rounded_stochastically(torch.full((100_000,), number), torch.Generator().manual_seed(0)).double()
    assert set(rounded.tolist()) == {1.0, 1 + 2**-7}
    assert rounded.mean().item() == pytest.approx(number, abs=4 * 2**-7 * (0.3 * 0.7 / 100_000) ** 0.5)
    exact = torch.tensor([1.0, -0.5, 0.0])
    assert torch.equal(rounded_stochastically(exact, torch.Generator().manual_seed(0)).float(), exact)
    negative = rounded_stochastically(torch.full((1000,), -number), torch.Generator().manual_seed(0)).double()
    assert set(negative.tolist()) == {-1.0, -1 - 2**-7}


@pytest.mark.parametrize("bits", [32, 8])
def test_steps_smaller_than_the_last_digit_are_not_lost(bits: int) -> None:
    """At 1, bfloat16 has steps of 2^-8 below; 100 steps of 2^-13 each, rounded to the nearest, would go nowhere."""
    parameter = torch.nn.Parameter(torch.ones(64, 128).bfloat16())
    optimizer = SmallAdamW([parameter], lr=2**-13, bits=bits)
    for _ in range(100):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.tensor(1 - 2**-13).item() == 1 - 2**-13 and torch.tensor(1 - 2**-13).bfloat16() == 1
    assert parameter.float().mean().item() == pytest.approx(1 - 100 * 2**-13, rel=2e-4)


def test_eight_bits_follow_adamw_in_a_quarter_of_the_memory() -> None:
    ours, theirs = weight(), weight()
    small, plain = SmallAdamW([ours], lr=0.01, bits=8), torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.0)
    before = ours.detach().clone()
    steps(small, ours, 20)
    steps(plain, theirs, 20)
    moved, expected = ours - before, theirs - before
    assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.99
    sizes = [sum(t.nbytes for t in each.state[p].values()) for each, p in ((small, ours), (plain, theirs))]
    assert sizes[0] < 0.27 * sizes[1]


def test_moments_of_small_tensors_stay_in_float32() -> None:
    parameter = weight(numbers=2048)
    optimizer = SmallAdamW([parameter], bits=8)
    steps(optimizer, parameter, 1)
    assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [32, 8])
def test_a_saved_state_goes_on_bit_for_bit(bits: int, dtype: torch.dtype, tmp_path: Path) -> None:
    whole, resumed = weight(dtype), weight(dtype)
    steps(SmallAdamW([whole], lr=0.01, bits=bits), whole, 6)
    begun = SmallAdamW([resumed], lr=0.01, bits=bits)
    steps(begun, resumed, 3)
    torch.save([begun.state_dict(), resumed.detach()], tmp_path / "state")
    state, kept = torch.load(tmp_path / "state", weights_only=True)
    other = torch.nn.Parameter(kept)
    optimizer = SmallAdamW([other], lr=0.01, bits=bits)
    optimizer.load_state_dict(state)
    torch.rand(3)  # what others draw changes nothing
    steps(optimizer, other, 3, first=3)
    assert torch.equal(other, whole)


def test_without_bitsandbytes_a_stage_says_what_to_install(
    base: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("rlhf_dagster.training.runtime.optimizers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs bitsandbytes; .*pip install 'rlhf-dagster\[quantised\]'"):
        train_here("sft", replace(sft_spec(base, tables, tmp_path / "out"), compute=EIGHT), silent, KEEP_NOTHING)


def test_narrow_weights_need_narrow_products() -> None:
    with pytest.raises(ValueError, match=r"`compute.trained_weights: bf16` needs `compute.precision: bf16`"):
        ComputeSettings(trained_weights="bf16")


def spec_of(stage: str, base: Path, tables: Tables, output: Path, compute: ComputeSettings) -> Any:
    if stage == "sft":
        return replace(sft_spec(base, tables, output), compute=compute)
    settings = PpoSettings(updates=4, batch_size=16, learning_rate=1e-3)
    spec = PpoSpec(base, base, None, tables.prompts, None, output, settings, FIXED, compute=compute)
    return replace(spec, reward_function=f"{__file__}:by_length")


def by_length(prompts: list[str], responses: list[str]) -> list[float]:
    return [len(response) / 10 for response in responses]


@pytest.mark.parametrize("stage", ["sft", "ppo"])
@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(NARROW, id="bf16 weights", marks=pytest.mark.long),
        pytest.param(EIGHT, id="8 bits", marks=pytest.mark.long),
        pytest.param(BOTH, id="both"),
    ],
)
def test_a_stage_learns_as_with_adamw_and_resumes_bit_for_bit(
    stage: str, compute: ComputeSettings, sft: Path, tables: Tables, tmp_path: Path
) -> None:
    def train(name: str, compute: ComputeSettings, checkpointing: Checkpointing = KEEP_NOTHING) -> Any:
        return train_here(stage, spec_of(stage, sft, tables, tmp_path / name, compute), silent, checkpointing)

    plain, whole = train("plain", compute.changed(trained_weights="fp32", optimizer="adamw")), train("whole", compute)
    curve = "loss" if stage == "sft" else "reward"
    assert whole.curves[curve] == pytest.approx(plain.curves[curve], rel=0.1, abs=0.1)
    turns = iter(["", "enough"])
    with pytest.raises(TrainingStopped):
        train("resumed", compute, Checkpointing(tmp_path / "states", 0.0, lambda: next(turns, "")))
    train("resumed", compute, Checkpointing(tmp_path / "states", 0.0))
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(torch.equal(weights[name], others[name]) for name in weights)
