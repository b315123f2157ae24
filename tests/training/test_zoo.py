"""Twenty models of different architectures go through the stages: every number is that of plain transformers."""

from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from zoo.models import NOT_MADE, ZOO

from benchmarks.models.matrix import CELLS, try_model

FAST = [cell for cell in CELLS if cell.fast]
RIGHT = (
    "gpt2",  # learned positions, turned weights
    "llama",  # rotary positions, a head of its own
    "opt-350m",  # positions with an offset, narrower embeddings, norms behind the layers
    "bloom",  # positions as slopes
    "gemma3_text",  # sliding windows, scaled embeddings
    "granite",  # scaled logits
    "mixtral-jitter",  # experts, noise in training
    "phi3-longrope",  # positions that depend on the length of a row
    "mamba",  # no attention
    "rwkv",  # weights that differ between training and evaluation
    "bart",  # a decoder that was made for an encoder
)
ALIKE = ("opt", "gpt_neox", "falcon-alibi", "qwen3_moe-tied", "deepseek_v3", "cohere", "jamba", "bert")
"""Each mixes what the others have one of; `make test-long` tries them."""
REFUSED = ("bert-bidirectional",)
"""At `base_model` already."""


@pytest.mark.parametrize("name", [*RIGHT, *(pytest.param(name, marks=pytest.mark.long) for name in ALIKE)])
def test_every_stage_is_right(name: str, tmp_path: Path) -> None:
    outcomes = try_model(name, tmp_path, FAST)
    assert [outcome for outcome in outcomes if outcome.verdict != "right"] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_language_model_is_refused_at_once(name: str, tmp_path: Path) -> None:
    first, *others = try_model(name, tmp_path, FAST)
    assert first.verdict == "refused"
    assert {outcome.verdict for outcome in others} == {"not reached"}


def test_every_architecture_is_in_the_zoo_or_there_is_a_reason() -> None:
    made = {model.model_type for model in ZOO.values()}
    assert made.isdisjoint(NOT_MADE)
    assert made | set(NOT_MADE) >= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert len(made) >= 90
