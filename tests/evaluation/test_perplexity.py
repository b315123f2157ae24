"""The alignment tax: a ratio of perplexities by hand, and on two models that differ."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import checkpoint

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.evaluation.perplexity import alignment_tax, document_losses, perplexity_ratio

COMPUTE = ComputeSettings(threads=1)


def test_a_ratio_by_hand() -> None:
    """Losses rise by 1 nat on each of 4 + 6 tokens: e times the perplexity, and no document disagrees."""
    found = perplexity_ratio([12.0, 15.0], [8.0, 9.0], [4, 6])
    assert found.value == pytest.approx(math.e)
    assert (found.low, found.high, found.n) == (pytest.approx(math.e), pytest.approx(math.e), 2)


def test_the_interval_by_hand() -> None:
    """Two documents of one token with differences 0 and 2: mean 1, standard error 1, t of one degree 12.706."""
    found = perplexity_ratio([1.0, 3.0], [1.0, 1.0], [1, 1])
    assert math.log(found.value) == pytest.approx(1.0)
    assert math.log(found.high) - 1 == pytest.approx(12.706, abs=1e-3)
    assert 1 - math.log(found.low) == pytest.approx(12.706, abs=1e-3)


def test_one_document_says_nothing_about_others() -> None:
    found = perplexity_ratio([2.0], [1.0], [4])
    assert (found.value, found.low, found.high) == (pytest.approx(math.exp(0.25)), 0.0, math.inf)
    assert found.as_dict()["high"] is None
    with pytest.raises(ValueError, match="at least one document"):
        perplexity_ratio([], [], [])


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.integers(1, 30)), min_size=2, max_size=20))
def test_swapping_the_models_inverts_the_ratio(documents: list[tuple[float, float, int]]) -> None:
    own, other, tokens = (np.array(column) for column in zip(*documents, strict=True))
    there, back = perplexity_ratio(own, other, tokens), perplexity_ratio(other, own, tokens)
    assert there.value * back.value == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)


@pytest.fixture(scope="module")
def texts(stages) -> list[str]:
    frame = pd.read_parquet(stages.prepared / "assets" / "pretraining_text.parquet")
    return frame["text"].head(20).tolist()


@pytest.fixture(scope="module")
def models(stages) -> tuple[Path, Path]:
    from rlhf_dagster.loop.folder import LoopFolder

    loop = LoopFolder.open(stages.prepared)
    return checkpoint(loop, "base_model").folder, checkpoint(loop, "sft_checkpoint").folder


def test_losses_are_those_of_the_language_model(models, texts) -> None:
    """Of each document by itself, as transformers counts them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    losses, tokens = document_losses(models[0], texts[:3], COMPUTE)
    model, tokenizer = (kind.from_pretrained(models[0]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    for text, loss, n in zip(texts, losses, tokens, strict=False):
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            expected = float(model.eval()(input_ids=ids, labels=ids).loss)
        assert n == ids.shape[1] - 1
        assert loss / n == pytest.approx(expected, rel=1e-5)


def test_a_policy_that_is_sft_pays_no_tax(models, texts) -> None:
    tax = alignment_tax(models[1], models[1], texts, COMPUTE)
    assert (tax.ratio.value, tax.ratio.low, tax.ratio.high, tax.ratio.n) == (1.0, 1.0, 1.0, 20)
    assert tax.policy == tax.sft > 1


def test_another_model_has_another_perplexity(models, texts) -> None:
    tax = alignment_tax(*models, texts, COMPUTE)
    assert tax.ratio.value == pytest.approx(tax.policy / tax.sft)
    assert tax.ratio.value != 1.0
    assert tax.as_dict().keys() == {"value", "low", "high", "n", "policy", "sft", "tokens"}
