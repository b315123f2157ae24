from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language import COMPUTE, FIXED, VARIABLE
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import Decoding, decoding_of, policy_log_softmax, token_log_probs
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.sampling import steps
from rlhf_dagster.training.sampling.native import draw_uniforms, generate
from rlhf_dagster.training.sampling.sample import Sample, response_log_probs, sample
from rlhf_dagster.training.sampling.steps import draw
from rlhf_dagster.training.texts.tokens import encode_prompts, encode_responses, pad, position_ids

PROMPTS = ["red dog .", "good", "blue cat bad bad dog red green red good", "cat cat"]


def sharpened(policy: Policy, factor: float = 8.0) -> Policy:
    """The same policy with far apart logits, so that rounding cannot change which token is likeliest."""
    with torch.no_grad():
        policy.model.transformer.ln_f.weight.mul_(factor)
    return policy


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_greedy_sampling_equals_generate(policy: Policy, sampling: SamplingSettings) -> None:
    policy = sharpened(policy)
    samples = sample(policy, PROMPTS, sampling, seed=0, greedy=True)
    for prompt, drawn in zip(encode_prompts(policy.tokenizer, PROMPTS, 6), samples, strict=True):
        decoding = decoding_of(policy.tokenizer, sampling)
        expected = policy.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=sampling.response_tokens,
            min_new_tokens=sampling.response_tokens if sampling.fixed_length else 0,
            suppress_tokens=list(decoding.suppressed),
        )
        assert drawn.token_ids == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_recorded_log_probs_equal_recomputed_ones(
    policy: Policy, sampling: SamplingSettings, temperature: float
) -> None:
    sampling = sampling.changed(temperature=temperature)
    samples = sample(policy, PROMPTS * 4, sampling, seed=1)
    recomputed = response_log_probs(policy, PROMPTS * 4, [drawn.token_ids for drawn in samples], sampling)
    for drawn, log_probs in zip(samples, recomputed, strict=True):
        assert drawn.log_probs == pytest.approx(log_probs, abs=1e-5)


def test_log_probs_are_those_of_logits_over_temperature_without_suppressed_tokens(policy: Policy) -> None:
    sampling = FIXED.changed(temperature=0.7, response_tokens=1)
    drawn = sample(policy, ["red dog ."], sampling, seed=2)[0]
    logits = policy.model(policy.tokenizer("red dog .", return_tensors="pt")["input_ids"]).logits[0, -1]
    never = [policy.tokenizer.pad_token_id, policy.tokenizer.eos_token_id, policy.tokenizer.unk_token_id]
    allowed = [index for index in range(len(logits)) if index not in never]
    scaled = logits[allowed] / 0.7
    expected = (logits[drawn.token_ids[0]] / 0.7 - scaled.logsumexp(0)).item()
    assert drawn.log_probs[0] == pytest.approx(expected, abs=1e-5)


def test_fixed_length_responses_never_hold_a_special_token(policy: Policy) -> None:
    special = set(policy.tokenizer.all_special_ids)
    for drawn in sample(policy, PROMPTS, FIXED, seed=3, samples_per_prompt=50):
        assert len(drawn.token_ids) == FIXED.response_tokens
        assert not special & set(drawn.token_ids)


def test_a_response_ends_at_the_end_token(policy: Policy) -> None:
    with torch.no_grad():
        policy.model.transformer.wte.weight[policy.tokenizer.eos_token_id] *= 3
    samples = sample(policy, PROMPTS, VARIABLE, seed=4, samples_per_prompt=50)
    end = policy.tokenizer.eos_token_id
    lengths = {len(drawn.token_ids) for drawn in samples}
    assert len(lengths) > 1
    for drawn in samples:
        assert end not in drawn.token_ids[:-1]
        assert drawn.token_ids[-1] == end or len(drawn.token_ids) == VARIABLE.response_tokens
        assert len(drawn.log_probs) == len(drawn.token_ids)
        assert "<" not in drawn.text


def texts(samples: list[Sample]) -> list[str]:
    return [drawn.text for drawn in samples]


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_the_batch_size_does_not_change_the_samples(policy: Policy, sampling: SamplingSettings) -> None:
    runs = [texts(sample(policy, PROMPTS, sampling.changed(batch_size=n), 5, 7)) for n in (1, 3, 64)]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_dropping_rows_that_have_ended_changes_nothing(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    with torch.no_grad():
        policy.model.transformer.wte.weight[policy.tokenizer.eos_token_id] *= 3
    value_head, decoding = torch.nn.Linear(32, 1), decoding_of(policy.tokenizer, VARIABLE)
    encoded = pad(encode_prompts(policy.tokenizer, PROMPTS * 8, 6), decoding.pad_id, "left")
    uniforms = draw_uniforms(32, decoding.max_tokens, torch.Generator().manual_seed(0))
    monkeypatch.setattr(steps, "KEPT_WHILE_ALIVE", 0.0)
    kept, widths = generate(policy.model, encoded, uniforms, decoding, value_head), []
    monkeypatch.setattr(steps, "KEPT_WHILE_ALIVE", share)
    policy.model.transformer.wte.register_forward_hook(lambda module, ids, states: widths.append(len(states)))
    other = generate(policy.model, encoded, uniforms, decoding, value_head)
    assert (widths[-1] < 32) == (share > 0)
    assert torch.equal(kept.tokens, other.tokens)
    assert torch.equal(kept.mask, other.mask)
    torch.testing.assert_close(kept.log_probs, other.log_probs, rtol=0, atol=1e-5)
    torch.testing.assert_close(kept.values, other.values, rtol=0, atol=1e-5)


def test_the_seed_decides(policy: Policy) -> None:
    one, same, other = (texts(sample(policy, PROMPTS, FIXED, seed, 5)) for seed in (6, 6, 7))
    assert one == same != other


def test_frequencies_follow_the_distribution(policy: Policy) -> None:
    sampling = FIXED.changed(response_tokens=1, batch_size=4000)
    samples = sample(policy, ["red"], sampling, seed=8, samples_per_prompt=4000)
    ids = policy.tokenizer("red", return_tensors="pt")["input_ids"]
    decoding = decoding_of(policy.tokenizer, sampling)
    expected = policy_log_softmax(policy.model(ids).logits[0, -1], decoding).exp()
    counts = torch.bincount(torch.tensor([drawn.token_ids[0] for drawn in samples]), minlength=len(expected))
    # Four standard deviations of a binomial share from 4,000 draws are at most 0.032.
    torch.testing.assert_close(counts / 4000, expected, atol=0.032, rtol=0)


@given(
    st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0]), min_size=2, max_size=8).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_without_probability_is_never_drawn(weights: list[float], uniform: float) -> None:
    probabilities = torch.tensor([[0.0, *weights, 0.0]])
    log_probs = (probabilities / probabilities.sum()).log()
    for edge in (uniform, 0.0, 1 - 2**-53):
        drawn = draw(log_probs, torch.tensor([edge], dtype=torch.float64)).item()
        assert probabilities[0, int(drawn)] > 0


def test_padding_does_not_change_log_probs(policy: Policy) -> None:
    responses = encode_responses(policy.tokenizer, ["red", "good good dog", "cat bad", "dog"], add_end=True)
    together = response_log_probs(policy, PROMPTS, responses, VARIABLE)
    for prompt, response, log_probs in zip(PROMPTS, responses, together, strict=True):
        assert response_log_probs(policy, [prompt], [response], VARIABLE)[0] == pytest.approx(log_probs, abs=1e-5)


def test_a_response_beyond_the_context_is_refused(policy: Policy) -> None:
    context = policy.model.config.max_position_embeddings
    word = policy.tokenizer("red")["input_ids"]
    assert len(response_log_probs(policy, ["good"], [word * context], VARIABLE)[0]) == context
    with pytest.raises(UserError, match=f"A prompt with its response needs {context + 1} tokens but .* has {context};"):
        response_log_probs(policy, ["good"], [word * (context + 1)], VARIABLE)


def test_masked_log_probs_have_no_nan_gradient() -> None:
    decoding = Decoding(temperature=1.0, max_tokens=2, fixed_length=False, pad_id=0, end_id=1, suppressed=(0,))
    logits = torch.randn(1, 2, 5, requires_grad=True)
    log_probs = token_log_probs(logits, torch.tensor([[3, 0]]), torch.tensor([[1, 0]]), decoding)
    log_probs.sum().backward()
    assert log_probs[0, 1] == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, 1] == 0).all()


def test_positions_count_real_tokens_on_either_side_of_padding() -> None:
    left, right = pad([[5, 6, 7], [8]], 0, "left"), pad([[5, 6, 7], [8]], 0, "right")
    assert left.input_ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert right.input_ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert position_ids(left.attention_mask).tolist() == [[0, 1, 2], [0, 0, 0]]
    assert position_ids(right.attention_mask)[:, 0].tolist() == [0, 0]


def test_prompts_are_cut_on_the_left_and_an_empty_one_begins_a_document(policy: Policy) -> None:
    tokenizer = policy.tokenizer
    encoded = encode_prompts(tokenizer, ["red green blue", ""], 2)
    assert encoded == [tokenizer.convert_tokens_to_ids(["green", "blue"]), [tokenizer.eos_token_id]]
    assert len(sample(policy, [""], FIXED, seed=0)[0].token_ids) == FIXED.response_tokens


def test_plain_transformers_samples_with_the_loop_settings(sft: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(sft), AutoTokenizer.from_pretrained(sft)
    config = model.generation_config
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, FIXED.temperature, 0, 1.0)
    inputs = tokenizer(["red dog .", "good"], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    generated = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    assert generated.shape == (2, FIXED.response_tokens)
    assert not set(tokenizer.all_special_ids) & set(generated.flatten().tolist())


def test_lengths_that_do_not_fit_the_model_are_a_user_error(policy: Policy) -> None:
    with pytest.raises(UserError, match="context has 24"):
        sample(policy, ["red"], FIXED.changed(response_tokens=20), seed=0)
    with pytest.raises(UserError, match="no such model folder"):
        sample(Path("/no/model"), ["red"], FIXED, seed=0, compute=COMPUTE)
