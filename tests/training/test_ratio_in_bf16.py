"""In bfloat16 the alarm about ratios tells rounding from a sampler that is another policy."""

import copy
from typing import Any

import pytest
import torch
from architectures import tiny
from toy_language import COMPUTE

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.models.log_probs import Decoding, policy_log_softmax
from rlhf_dagster.training.ppo.alarms import BF16_LOG_RATIO, alarms
from rlhf_dagster.training.ppo.policy import PolicyWithValue
from rlhf_dagster.training.ppo.rollout import Episodes
from rlhf_dagster.training.ppo.train import run_ppo
from rlhf_dagster.training.runtime.device import precision
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.native import NativeRollouts
from rlhf_dagster.training.texts.tokens import PaddedBatch

BF16 = COMPUTE.changed(precision="bf16")
SETTINGS = PpoSettings(updates=2, batch_size=16, learning_rate=1e-4)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]
DECODING = Decoding(1.0, 12, True, 0, 1, (0, 1))


class Forgetful(NativeRollouts):
    """Draws each token from what the model says of the one before it alone."""

    @torch.no_grad()
    def generate(self, model: Any, prompts: PaddedBatch, uniforms: Any, decoding: Decoding, *_: Any) -> Responses:
        last, drawn, log_probs = prompts.input_ids[:, -1:], [], []
        for _ in range(decoding.max_tokens):
            logits = model(input_ids=last, attention_mask=torch.ones_like(last), use_cache=False).logits[:, -1]
            distribution = policy_log_softmax(logits, decoding)
            last = torch.multinomial(distribution.exp(), 1)
            drawn.append(last)
            log_probs.append(distribution.gather(1, last))
        tokens = torch.cat(drawn, dim=1)
        return Responses(tokens, torch.ones_like(tokens), torch.cat(log_probs, dim=1), torch.zeros(tokens.shape))


def curves_of(architecture: str, backend: NativeRollouts) -> dict[str, list[float]]:
    model = tiny(architecture)
    with torch.no_grad():  # so that it is as sure of its tokens as a trained model
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    episodes = Episodes(
        PROMPTS, copy.deepcopy(model), lambda batch: (batch.input_ids == 7).sum(1).float(), DECODING, backend=backend
    )
    with precision(BF16):
        return run_ppo(PolicyWithValue(model), episodes, SETTINGS, seed=0)


def about_the_ratio(curves: dict[str, list[float]], in_precision: str) -> list[str]:
    return [sentence for sentence in alarms(curves, in_precision) if "do not agree" in sentence]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma", "gpt_neox"])
def test_rounding_raises_no_alarm(architecture: str) -> None:
    curves = curves_of(architecture, NativeRollouts())
    assert 1e-5 < max(curves["log_ratio_first"]) < BF16_LOG_RATIO
    assert about_the_ratio(curves, "bf16") == []


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma", "gpt_neox"])
def test_a_sampler_that_forgets_its_past_raises_it(architecture: str) -> None:
    curves = curves_of(architecture, Forgetful())
    (sentence,) = about_the_ratio(curves, "bf16")
    assert "at the first step of update" in sentence.lower()
    assert "more than bfloat16 explains" in sentence
