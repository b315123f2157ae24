"""Estimates against numbers worked by hand for a model of 2 layers of width 8, 100 tokens and 13 parameters."""

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_language import TINY, Tables

from rlhf_dagster.compute import memory
from rlhf_dagster.compute.free_memory import Free
from rlhf_dagster.compute.memory import BUFFERS, PROCESS, require_memory, required_bytes
from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    LoraSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
    TinyModelSettings,
)
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.footprint.activations import HOLES
from rlhf_dagster.training.footprint.shape import Shape
from rlhf_dagster.training.input_sizes import parameters_of, shape_of
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.ppo.memory import LONGEST_WINDOW
from rlhf_dagster.training.reward.memory import SCORED_AT_ONCE, scored_at_once
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, TinyModelSpec, spec_to_json
from rlhf_dagster.training.texts.tokens import PaddedBatch

CPU = ComputeSettings(device="cpu")
BF16 = ComputeSettings(device="cpu", precision="bf16")
TWO = ComputeSettings(device="cpu", launch="process", processes=2)
SAMPLING = SamplingSettings(prompt_tokens=6, response_tokens=4, batch_size=16)
LAYER = 2 * 4 * (16 * 8 + 10)
"""Bytes that the two layers keep of a token: of width 8, and of the 10 tokens that it may see."""
IN_TEXT = 2 * 4 * (16 * 8 + 12)
"""The same of a token of a window of 12."""
BACK = 4 * 2 * 32
"""Bytes of gradients of a token in the inner layer of the last layer, where they outweigh those of logits."""
PASSING = 4 * 12 * 8
STATES = 4 * 8
CACHE = 2 * 4 * 2 * 8
"""Bytes of a token's keys and values."""
LOGITS = 4 * 100
DRAWN = 40 * 100


def write_header(file: Path, header: dict) -> None:
    """A safetensors file without the tensors that its header promises."""
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"n_layer": 2, "n_embd": 8, "vocab_size": 100, "n_positions": 12, "activation_function": "gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}
    write_header(folder / "model-1.safetensors", {"__metadata__": {"format": "pt"}, **tensors})
    write_header(folder / "model-2.safetensors", {"b": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}})
    return folder


def sft_spec(model: Path, tables: Tables, compute: ComputeSettings = CPU) -> SftSpec:
    settings = SftSettings(batch_size=5, max_tokens=10)
    return SftSpec(model, tables.demonstrations, model / "out", settings, SAMPLING, compute=compute)


def reward_spec(model: Path, tables: Tables, compute: ComputeSettings = CPU, samples: int = 8) -> RewardModelSpec:
    settings = RewardModelSettings(batch_size=5, max_tokens=10, normalisation_samples=samples)
    paths = (model, tables.preferences, tables.prompts, model / "out")
    return RewardModelSpec(*paths, settings, SAMPLING, compute=compute)


def ppo_spec(model: Path, tables: Tables, compute: ComputeSettings = CPU, **changes: Any) -> PpoSpec:
    settings = PpoSettings(batch_size=9, minibatches=2).changed(**changes)
    paths = (model, model, model, tables.prompts, tables.text, model / "out")
    return PpoSpec(*paths, settings, SAMPLING, compute=compute)


def test_parameters_and_shape_are_read_from_headers_alone(model: Path) -> None:
    assert parameters_of(model) == 3 * 4 + 1
    assert shape_of(model) == Shape(layers=2, width=8, vocabulary=100, context=12, queries=8, keys=8, inner=32)


def test_they_are_those_of_the_model_that_transformers_opens(sft: Path, policy: Policy) -> None:
    assert parameters_of(sft) == policy.model.num_parameters()
    assert shape_of(sft) == Shape(1, 32, len(policy.tokenizer), 24, 32, 32, 4 * 32)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"text_config": {"num_hidden_layers": 3, "hidden_size": 16, "vocab_size": 9}}, (3, 16, 9, 0, 16, 16, 64)),
        ({"hidden_size": 16, "max_position_embeddings": 7, "hidden_act": "silu"}, (0, 16, 0, 7, 16, 16, 64)),
        ({"d_model": 16, "decoder_layers": 3, "encoder_layers": 9, "vocab_size": 9}, (3, 16, 9, 0, 16, 16, 64)),
        ({"d_model": 16, "n_layers": 3, "max_seq_len": 7, "vocab_size": 9}, (3, 16, 9, 7, 16, 16, 64)),
        ({"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}, (0, 16, 0, 0, 16, 8, 64)),
        (
            {"hidden_size": 16, "num_attention_heads": 4, "head_dim": 8, "intermediate_size": 40},
            (0, 16, 0, 0, 32, 32, 40),
        ),
        ({"n_embd": 16, "n_head": 4, "multi_query": True, "n_inner": None}, (0, 16, 0, 0, 16, 4, 64)),
        ({"hidden_size": 16, "intermediate_size": [24, 40]}, (0, 16, 0, 0, 16, 16, 40)),
        ({"hidden_size": 16, "intermediate_size": 24, "num_experts_per_tok": 2}, (0, 16, 0, 0, 16, 16, 48)),
        ([], (0,) * 7),
    ],
)
def test_configs_of_other_models(tmp_path: Path, config: object, shape: tuple[int, ...]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(tmp_path) == Shape(*shape)


def test_activation_functions_and_norms_of_several_operations_are_known(tmp_path: Path) -> None:
    for config, changed in (
        ({"activation_function": "quick_gelu"}, {"activation": "in_pieces"}),
        ({"activation_function": "relu"}, {"activation": "relu"}),
        ({"rms_norm_eps": 1e-6}, {"root_mean_square": True, "gated": True, "separate": True}),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"n_embd": 16, **config}))
        assert shape_of(tmp_path) == Shape(0, 16, 0, 0, 16, 16, 64)._replace(**changed)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"{"])
def test_what_cannot_be_read_is_left_to_the_training_to_refuse(tmp_path: Path, tables: Tables, damage: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(damage)
    (tmp_path / "config.json").write_text("{")
    missing = Tables(*(tmp_path / "none" for _ in range(4)))
    assert parameters_of(tmp_path) == parameters_of(tmp_path / "none") == 0
    for spec in (sft_spec(tmp_path, missing), reward_spec(tmp_path, missing), ppo_spec(tmp_path, missing)):
        assert required_bytes(spec) == BUFFERS


def test_sft(model: Path, tables: Tables) -> None:
    # 16 bytes a parameter, and 5 rows of 10 tokens, 4 of them a response's: three copies of logits.
    assert required_bytes(sft_spec(model, tables)) - BUFFERS == 16 * 13 + 50 * LAYER + 20 * 3 * LOGITS
    # Where lengths vary, a response may fill the row.
    spec = sft_spec(model, tables)
    varying = replace(spec, sampling=SAMPLING.changed(fixed_length=False))
    assert required_bytes(varying) - BUFFERS == 16 * 13 + 50 * (LAYER + 3 * LOGITS)


def test_a_batch_has_no_more_rows_than_the_table(model: Path, tables: Tables) -> None:
    spec = sft_spec(model, tables)
    spec = replace(spec, settings=spec.settings.changed(batch_size=10_000))
    assert required_bytes(spec) - BUFFERS == 16 * 13 + 80 * (10 * LAYER + 4 * 3 * LOGITS)


def test_bfloat16_keeps_copies_of_weights_and_less_of_layers(model: Path, tables: Tables) -> None:
    # Norms keep float32; what the maps read and give, and the mask, is in bfloat16.
    layer = 2 * (4 * 2 * 8 + 2 * (14 * 8 + 10))
    assert required_bytes(sft_spec(model, tables, BF16)) - BUFFERS == 18 * 13 + 50 * layer + 60 * LOGITS


def test_each_of_two_ranks_trains_its_rows_and_measures_all(model: Path, tables: Tables) -> None:
    spec = sft_spec(model, tables, TWO)
    # A pass over all 5 rows, whose logits outweigh what is kept of 3.
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 1000}))
    assert 50 * STATES + 20 * 30 * LOGITS > 30 * LAYER + 12 * 30 * LOGITS
    assert required_bytes(spec) - PROCESS - BUFFERS == 20 * 13 + 50 * STATES + 20 * 30 * LOGITS
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 10}))
    assert required_bytes(spec) - PROCESS - BUFFERS == 20 * 13 + 30 * (LAYER + BACK)


def test_reward_model(model: Path, tables: Tables) -> None:
    # Labels of the toy language compare up to 4 responses.
    assert required_bytes(reward_spec(model, tables)) - BUFFERS == 16 * 13 + 5 * 4 * 10 * (LAYER + BACK)
    # 3 of 5 labels on a rank, whose gradients have a copy.
    assert required_bytes(reward_spec(model, tables, TWO)) - PROCESS - BUFFERS == 20 * 13 + 3 * 4 * 10 * (LAYER + BACK)
    # 256 of 300 samples are scored at once.
    assert required_bytes(reward_spec(model, tables, samples=300)) - BUFFERS == 16 * 13 + 256 * 10 * PASSING


def test_a_reward_model_whose_samples_need_most(model: Path, tables: Tables) -> None:
    spec = reward_spec(model, tables, samples=64)
    spec = replace(spec, settings=spec.settings.changed(batch_size=1, max_tokens=2))
    # Two models that do not learn yet; 16 samples at once, whose tokens are drawn from 100.
    assert required_bytes(spec) - BUFFERS == 8 * 13 + 16 * (10 * CACHE + DRAWN)


def test_ppo(model: Path, tables: Tables) -> None:
    # Three models of which one learns. The rollout samples 9 episodes, then has 3 copies of 4 tokens' logits.
    rollout = 20 * 13 + 9 * (10 * CACHE + DRAWN + 4 * 3 * LOGITS)
    # A minibatch has up to 5 of them, here with fewer bytes.
    update = 24 * 13 + 5 * (10 * LAYER + 4 * 3 * LOGITS)
    assert required_bytes(ppo_spec(model, tables)) - BUFFERS == rollout > update
    whole = 24 * 13 + 9 * (10 * LAYER + 4 * 3 * LOGITS)
    assert required_bytes(ppo_spec(model, tables, minibatches=1)) - BUFFERS == max(whole, rollout)


def test_ppo_with_pretraining_text_has_a_window_for_each_episode(model: Path, tables: Tables) -> None:
    update = 24 * 13 + 5 * (10 * LAYER + 4 * 3 * LOGITS) + 5 * 12 * (IN_TEXT + 3 * LOGITS)
    assert required_bytes(ppo_spec(model, tables, pretraining_coef=1.0)) - BUFFERS == update


def test_ppo_with_several_windows_for_each_episode(model: Path, tables: Tables) -> None:
    one, three = (ppo_spec(model, tables, pretraining_coef=1.0, pretraining_examples=count) for count in (1, 3))
    assert required_bytes(three) - required_bytes(one) == 2 * 5 * 12 * (IN_TEXT + 3 * LOGITS)


def test_ppo_that_averages_its_weights_has_a_copy(model: Path, tables: Tables) -> None:
    averaged = ppo_spec(model, tables, ema_decay=0.99)
    assert required_bytes(averaged) - required_bytes(ppo_spec(model, tables)) == 4 * 13


def test_ppo_with_a_value_model_trains_two_models(model: Path, tables: Tables) -> None:
    # Of the two, one after the other is read and learns.
    update = 8 * 13 + 32 * 13 + 9 * (10 * LAYER + 4 * 3 * LOGITS)
    spec = ppo_spec(model, tables, minibatches=1, value="separate")
    rollout = 8 * 13 + 24 * 13 + 9 * (10 * CACHE + DRAWN + 4 * 3 * LOGITS)
    assert required_bytes(spec) - BUFFERS == max(update, rollout) == update


def test_ppo_with_adapters_has_one_model_less_and_trains_little(model: Path, tables: Tables) -> None:
    # Adapters of rank 2 on layers of 8: 2 x 16 x 8 x 2 numbers; policy and reward model are only read.
    spec = ppo_spec(model, tables, minibatches=1, lora={"rank": 2})
    # Of each token 4 adapters of a layer keep 2 numbers.
    inside = 2 * 4 * 4 * 2
    update = 8 * 13 + 16 * 512 + 9 * (10 * (LAYER + inside) * (1 + HOLES) + 4 * 3 * LOGITS)
    assert required_bytes(spec) - BUFFERS == update
    # From another start there is a copy of SFT as well.
    assert required_bytes(replace(spec, start=Path(shutil.copytree(model, model / "other")))) - BUFFERS == update + 52
    # In several passes less is kept than the rollout needs.
    rollout = 8 * 13 + 12 * 512 + 9 * (10 * CACHE + DRAWN + 4 * 3 * LOGITS)
    assert required_bytes(ppo_spec(model, tables, lora={"rank": 2}, accumulate=5)) - BUFFERS == rollout


def test_ppo_with_frozen_layers_keeps_their_states(model: Path, tables: Tables) -> None:
    # All 13 numbers count as embeddings, so that nothing is left to train.
    rollout = 8 * 13 + 4 * 8 * 9 * 10 + 9 * (10 * CACHE + DRAWN + 4 * 3 * LOGITS)
    assert required_bytes(ppo_spec(model, tables, frozen_layers=1)) - BUFFERS == rollout
    # One update ahead, those of the episodes that wait as well.
    ahead = required_bytes(ppo_spec(model, tables, frozen_layers=1, rollouts_ahead=1))
    assert ahead - BUFFERS == rollout + 4 * 8 * 9 * 10


def test_sft_in_several_passes_keeps_less(model: Path, tables: Tables) -> None:
    spec = sft_spec(model, tables)
    halves = required_bytes(replace(spec, settings=spec.settings.changed(batch_size=10, accumulate=2)))
    assert halves == required_bytes(replace(spec, settings=spec.settings.changed(batch_size=5)))


def test_ppo_in_several_passes_keeps_less(model: Path, tables: Tables) -> None:
    update = 24 * 13 + 5 * (10 * LAYER + 4 * 3 * LOGITS) + 5 * 12 * (IN_TEXT + 3 * LOGITS)
    spec = ppo_spec(model, tables, pretraining_coef=1.0, minibatches=1, accumulate=2)
    assert required_bytes(spec) - BUFFERS == update


def test_ppo_that_keeps_its_best_weights_has_a_copy(model: Path, tables: Tables) -> None:
    kept = ppo_spec(model, tables, validate_every=1, kl_budget=1.0)
    assert required_bytes(kept) - required_bytes(ppo_spec(model, tables)) == 4 * 13


def test_ppo_on_two_ranks(model: Path, tables: Tables) -> None:
    # 5 of 9 episodes; of a minibatch of 5, 3 rows.
    rollout = 20 * 13 + 5 * (10 * CACHE + DRAWN + 4 * 3 * LOGITS)
    assert required_bytes(ppo_spec(model, tables, TWO)) - PROCESS - BUFFERS == rollout


def dpo_spec(model: Path, tables: Tables, compute: ComputeSettings = CPU, **changes: Any) -> DpoSpec:
    settings = DpoSettings(batch_size=5).changed(**changes)
    return DpoSpec(model, tables.preferences, model / "out", settings, SAMPLING, compute=compute)


def test_dpo_has_one_model(model: Path, tables: Tables) -> None:
    # 5 comparisons of up to 4 responses, of 10 tokens with logits at 4.
    update = 16 * 13 + 20 * (10 * LAYER + 4 * 3 * LOGITS)
    assert required_bytes(dpo_spec(model, tables)) - BUFFERS == update
    # 3 of 5 comparisons on a rank, which measures all of them.
    reading = 20 * (10 * STATES + 4 * 3 * LOGITS)
    own = 12 * (10 * LAYER + 4 * 3 * LOGITS)
    assert required_bytes(dpo_spec(model, tables, TWO)) - PROCESS - BUFFERS == 20 * 13 + max(reading, own)


def test_adapters_are_all_that_is_trained(model: Path, tables: Tables) -> None:
    # 2 layers' maps have inputs and outputs of 16 widths together, and an adapter of rank 3 a row for each.
    spec, adapters = dpo_spec(model, tables), 3 * 16 * 8 * 2
    adapted = dpo_spec(model, tables, lora=LoraSettings(rank=3))
    more = (LAYER + 2 * 4 * 4 * 3) * (1 + HOLES) - LAYER
    assert required_bytes(spec) - required_bytes(adapted) == 12 * 13 - 16 * adapters - 200 * more
    sft = sft_spec(model, tables)
    adapted_sft = replace(sft, settings=sft.settings.changed(lora=LoraSettings(rank=3)))
    assert required_bytes(sft) - required_bytes(adapted_sft) == 12 * 13 - 16 * adapters - 50 * more
    reward = reward_spec(model, tables)
    adapted_reward = replace(reward, settings=reward.settings.changed(lora=LoraSettings(rank=3)))
    assert required_bytes(reward) - required_bytes(adapted_reward) == 12 * 13 - 16 * adapters - 200 * more


def test_pretraining_counts_the_parameters_of_the_model_that_it_makes(base: Path, tables: Tables) -> None:
    vocabulary = shape_of(base).vocabulary
    settings = TINY.changed(vocabulary=max(vocabulary, 32))
    parameters = parameters_of(base) + (settings.vocabulary - vocabulary) * 32
    tokens = 16 * 24
    spec = TinyModelSpec(tables.text, base / "out", settings, CPU)
    assert 3 * settings.vocabulary < 2 * 128
    activations = tokens * (4 * (16 * 32 + 24) + 4 * 2 * 128)
    assert required_bytes(spec) - BUFFERS == 16 * parameters + activations
    # Every rank trains the whole model.
    assert required_bytes(replace(spec, compute=TWO)) - PROCESS - BUFFERS == 16 * parameters + activations


@pytest.fixture
def gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda compute: Free(1_000_000_000, "this machine", shared=True))


@pytest.mark.usefixtures("gigabyte")
def test_what_does_not_fit_is_one_sentence(model: Path, tables: Tables) -> None:
    # 60 MB and 12 bytes for each logit of 10^4 tokens and 10^4 words.
    config = {"vocab_size": 10_000}
    (model / "config.json").write_text(json.dumps(config))
    spec = replace(
        sft_spec(model, tables, CPU.changed(logits_mib=1000)),
        settings=SftSettings(batch_size=50, max_tokens=200),
        sampling=SAMPLING.changed(fixed_length=False),
    )
    with pytest.raises(UserError) as refused:
        require_memory(spec)
    assert str(refused.value) == (
        "SFT needs about 1.3 GB and 1.0 GB are free on this machine; raise sft.accumulate, lower sft.max_tokens, or "
        "take a smaller base model."
    )
    require_memory(replace(spec, settings=SftSettings(batch_size=39, max_tokens=200)))
    # In pieces of 256 MiB the logits are fewer.
    require_memory(replace(spec, compute=CPU))


@pytest.mark.usefixtures("gigabyte")
@pytest.mark.parametrize(
    ("spec", "changes", "what", "needed"),
    [
        (sft_spec, {"max_tokens": 13}, "sft.max_tokens", 13),
        (reward_spec, {"max_tokens": 14}, "reward_model.max_tokens", 14),
        (ppo_spec, {}, "sampling.prompt_tokens + sampling.response_tokens", 16),
        (dpo_spec, {}, "sampling.prompt_tokens + sampling.response_tokens", 16),
    ],
)
def test_the_context_is_looked_at_before_memory(
    model: Path, tables: Tables, spec: Any, changes: dict[str, int], what: str, needed: int
) -> None:
    header = {"a": {"dtype": "F32", "shape": [10_000, 10_000], "data_offsets": [0, 400_000_000]}}
    write_header(model / "model.safetensors", header)
    too_long = spec(model, tables)
    if changes:
        too_long = replace(too_long, settings=too_long.settings.changed(**changes))
    else:
        too_long = replace(too_long, sampling=SAMPLING.changed(response_tokens=10))
    with pytest.raises(UserError) as refused:
        require_memory(too_long)
    assert str(refused.value) == f"{what} needs {needed} tokens but the model's context has 12; lower it."


@pytest.mark.usefixtures("gigabyte")
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            ppo_spec,
            "PPO needs about .* raise ppo.accumulate, lower ppo.batch_size or sampling.response_tokens, or take",
        ),
        (dpo_spec, "DPO needs about .* raise dpo.accumulate, lower sampling.batch_size or sampling.response_tokens"),
        (
            reward_spec,
            "Reward-model training needs .* raise reward_model.accumulate, lower reward_model.max_tokens",
        ),
    ],
)
def test_every_stage_says_what_to_lower(model: Path, tables: Tables, spec, sentence: str) -> None:
    header = {"a": {"dtype": "F32", "shape": [10_000, 10_000], "data_offsets": [0, 400_000_000]}}
    write_header(model / "model.safetensors", header)
    with pytest.raises(UserError, match=sentence):
        require_memory(spec(model, tables))


@pytest.mark.usefixtures("gigabyte")
def test_ranks_share_a_machine_and_not_a_gpu(tables: Tables, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = TinyModelSettings(batch_size=100, context=100, vocabulary=2000)
    spec = TinyModelSpec(tables.text, tmp_path, settings, TWO)
    assert 5e8 < required_bytes(spec) < 1e9
    with pytest.raises(UserError, match=r"Pretraining needs about 1\..* lower base_model\.tiny\.batch_size, or"):
        require_memory(spec)
    require_memory(replace(spec, compute=TWO.changed(processes=1)))
    monkeypatch.setattr(memory, "free_memory", lambda compute: Free(1_000_000_000, "the GPU G", shared=False))
    require_memory(spec)


def test_nothing_is_refused_where_free_memory_is_unknown(
    model: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda compute: Free(None, "this machine", shared=True))
    require_memory(ppo_spec(model, tables, batch_size=10**9))


def test_scores_are_made_in_batches_of_the_size_that_is_estimated(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_dagster.training.reward import scores

    def score(_: object, batch: PaddedBatch) -> scores.ScoresAndSpread:
        rows.append(len(batch.input_ids))
        return scores.ScoresAndSpread(*torch.zeros(2, len(batch.input_ids)))

    rows: list[int] = []
    monkeypatch.setattr(scores, "score_tokens_with_spread", score)
    monkeypatch.setattr(policy.model.config, "score_max_tokens", 16, raising=False)
    model = scores.RewardModel(policy.model, policy.tokenizer)
    scores.score_with_spread(model, ["red"] * 300, ["dog"] * 300, SAMPLING)
    assert rows == [SCORED_AT_ONCE, 300 - SCORED_AT_ONCE]
    rows.clear()
    monkeypatch.setattr("rlhf_dagster.training.reward.memory.SCORED_TOKENS", 100)
    longest = max(map(len, scores.encode_pairs(policy.tokenizer, ["red"], ["dog"], SAMPLING, 16)))
    scores.score_with_spread(model, ["red"] * 50, ["dog"] * 50, SAMPLING)
    assert rows[0] == 100 // longest
    assert sum(rows) == 50


def test_long_rows_are_scored_a_few_at_a_time() -> None:
    assert [scored_at_once(length) for length in (16, 64, 65, 1024, 100_000)] == [256, 256, 252, 16, 1]


def test_windows_of_text_are_as_long_as_is_estimated(
    model: Path, tables: Tables, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_dagster.training.ppo.opening import tables as opened

    lengths: list[int] = []
    monkeypatch.setattr(opened, "text_windows", lambda tokenizer, texts, context: lengths.append(context))
    for context in (0, 24, 5000):
        monkeypatch.setattr(opened, "context_of", lambda config, context=context: context)
        opened.pretraining_windows(ppo_spec(model, tables, pretraining_coef=1.0), policy)
    assert lengths == [LONGEST_WINDOW, 24, LONGEST_WINDOW]


def test_it_imports_no_torch() -> None:
    code = "import sys; import rlhf_dagster.compute.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MEASURE = """
import resource, sys
from pathlib import Path
from transformers import GPT2LMHeadModel, Trainer
from rlhf_dagster.training.pretraining import tiny_model
from rlhf_dagster.compute.memory import required_bytes
from rlhf_dagster.training.specs import TinyModelSpec, spec_from_json

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

spec = spec_from_json(TinyModelSpec, sys.argv[1], "spec")
before = resident()
tiny_model.train_tiny_model(spec)
print(required_bytes(spec), (resident() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's record of a process's peak")
def test_an_estimate_is_near_what_a_training_takes(tables: Tables, tmp_path: Path) -> None:
    # Words that the text lacks are not in the vocabulary, so that it hardly counts.
    settings = TinyModelSettings(vocabulary=32, layers=9, width=512, heads=8, context=24, steps=2, batch_size=8)
    spec = TinyModelSpec(tables.text, tmp_path / "model", settings, ComputeSettings(threads=1, device="cpu"))
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, spec_to_json(spec)], check=True, capture_output=True, text=True
    )
    estimate, measured = map(int, ran.stdout.split()[-2:])
    assert estimate > 16 * 28_000_000
    assert measured / 3 < estimate < 3 * measured


def test_vllm_keeps_a_copy_of_the_policy_and_a_cache_of_all_responses(model: Path, tables: Tables) -> None:
    for precision, number in (("fp32", 4), ("bf16", 2)):
        compute = CPU.changed(precision=precision)
        native = required_bytes(ppo_spec(model, tables, compute))
        engine = required_bytes(ppo_spec(model, tables, compute.changed(rollout_backend="vllm"))) - native
        # 9 episodes of 6 + 4 tokens, with keys and values of 2 layers of width 8.
        assert engine == number * (13 + 9 * 10 * 2 * 2 * 8)


def test_while_a_server_samples_ahead_its_weights_are_kept(model: Path, tables: Tables) -> None:
    server = CPU.changed(rollout_backend="vllm_server", rollout_server="http://127.0.0.1:8000")
    at_once, ahead = (required_bytes(ppo_spec(model, tables, server, rollouts_ahead=n)) for n in (0, 1))
    assert ahead - at_once == 4 * 13
    inside = [required_bytes(ppo_spec(model, tables, rollouts_ahead=n)) for n in (0, 1)]
    assert inside[0] == inside[1]


def test_logits_are_computed_in_pieces(model: Path, tables: Tables) -> None:
    # A MiB holds the logits of 2 tokens, of 16 that are predicted; the head's gradient of a piece is one more.
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 1 << 17}))
    spec = dpo_spec(model, tables, CPU.changed(logits_mib=1))
    head = 4 * 8 * (1 << 17)
    assert required_bytes(spec) - BUFFERS == 16 * 13 + 200 * LAYER + (3 << 20) + head
    # Adapters leave the head as it is.
    adapted = dpo_spec(model, tables, CPU.changed(logits_mib=1), lora=LoraSettings(rank=3))
    adapters = 3 * 16 * 8 * 2
    assert required_bytes(adapted) - BUFFERS == 4 * 13 + 16 * adapters + 200 * (LAYER + 2 * 4 * 4 * 3) * (1 + HOLES) + (
        3 << 20
    )


def test_gradient_checkpointing_keeps_inputs_and_one_layer(model: Path, tables: Tables) -> None:
    spec = sft_spec(model, tables, CPU.changed(gradient_checkpointing=True))
    inputs = 50 * 2 * 4 * 8
    assert required_bytes(spec) - BUFFERS == 16 * 13 + inputs + 50 * LAYER // 2 + 50 * BACK
    # While there are logits no layer is computed again.
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 1000}))
    assert required_bytes(spec) - BUFFERS == 16 * 13 + inputs + 60 * 10 * LOGITS


def test_weights_in_bfloat16_and_moments_in_eight_bits(model: Path, tables: Tables) -> None:
    plain = required_bytes(sft_spec(model, tables, BF16))
    eight = required_bytes(sft_spec(model, tables, BF16.changed(optimizer="adamw_8bit")))
    # Two bytes and two scales of 4 bytes for each 256, in place of 8.
    assert plain - eight == pytest.approx(13 * (8 - 2 * (1 + 4 / 256)), abs=1)
    compute = BF16.changed(trained_weights="bf16")
    # Weight and gradient in two bytes, moments in four, no copy of the weight, and a residual stream in bfloat16.
    layer = 2 * 2 * (16 * 8 + 10)
    assert required_bytes(sft_spec(model, tables, compute)) - BUFFERS == 12 * 13 + 50 * layer + 60 * LOGITS


def test_only_read_weights_are_in_the_precision(model: Path, tables: Tables) -> None:
    own = {"lora": {"rank": 2}, "minibatches": 1}
    fp32, bf16 = (required_bytes(ppo_spec(model, tables, compute, **own)) for compute in (CPU, BF16))
    # In multiples of the width: two inputs of norms, which stay in float32, two of maps, five of attention, two of the
    # inner layer.
    layer = 2 * 2 * ((2 * 2 + 2 + 5 + 2 * 4) * 8 + 10 + 4 * 2)
    # Two models of 13 numbers, and copies of 512 numbers of adapters.
    assert fp32 - bf16 == 2 * 2 * 13 - 2 * 512 + 90 * (LAYER + 2 * 4 * 4 * 2 - layer) * (1 + HOLES)


@pytest.fixture
def quantisable(model: Path) -> Path:
    """A model with two linear maps of 64 x 64 and 13 numbers besides."""
    tensor = {"dtype": "F32", "shape": [64, 64], "data_offsets": [0, 0]}
    write_header(model / "model-3.safetensors", {f"layers.{n}.attention.weight": tensor for n in range(2)})
    return model


def test_one_base_for_all_models_of_ppo(quantisable: Path, tables: Tables) -> None:
    parameters, adapters = 2 * 64 * 64 + 13, 2 * 2 * 128
    own = {"minibatches": 1, "value": "separate"}
    merged = ppo_spec(quantisable, tables, lora={"rank": 2}, **own)
    shared = ppo_spec(quantisable, tables, lora={"rank": 2, "merge": False}, **own)
    # Policy, reward model and value model are one; SFT's adapters and the reward model's stand beside those trained.
    assert required_bytes(merged) - required_bytes(shared) == 2 * 4 * parameters - 2 * 4 * adapters


@pytest.mark.parametrize(("bits", "packed"), [(4, 4.127 / 8), (8, 1)])
def test_a_quantised_base(quantisable: Path, tables: Tables, bits: int, packed: float) -> None:
    kept = sft_spec(quantisable, tables)
    # On a CPU the plain one has holes as well.
    kept = replace(kept, compute=kept.compute.changed(device="cuda"))
    plain, quantised = (
        replace(kept, settings=kept.settings.changed(lora={"rank": 2, "merge": False, "base_bits": which}))
        for which in (None, bits)
    )
    # The maps are packed, and one of them at a time is unpacked.
    saved = (4 - packed) * 2 * 64 * 64 - 4 * 64 * 64
    assert required_bytes(plain) - required_bytes(quantised) == pytest.approx(saved, abs=1)


def test_the_reward_model_is_trained_on_the_policy_s_base(quantisable: Path, tables: Tables) -> None:
    spec = reward_spec(quantisable, tables, samples=64)
    spec = replace(spec, settings=spec.settings.changed(batch_size=1, max_tokens=2, lora={"rank": 2}))
    shared = replace(spec, settings=spec.settings.changed(lora={"rank": 2, "merge": False}))
    parameters = 2 * 64 * 64 + 13
    assert required_bytes(spec) - BUFFERS == 2 * 4 * parameters + 16 * (10 * CACHE + DRAWN)
    assert required_bytes(shared) - BUFFERS == 4 * parameters + 16 * (10 * CACHE + DRAWN)


def test_several_heads_of_queries_share_a_cache(model: Path, tables: Tables) -> None:
    before = required_bytes(ppo_spec(model, tables))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"n_head": 4, "num_key_value_heads": 1}))
    assert before - required_bytes(ppo_spec(model, tables)) == 9 * 10 * (CACHE - CACHE // 4)
