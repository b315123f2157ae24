"""Log-probs of tokens, their gradient, and the output head on some positions alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_dagster.training.models.log_probs import Decoding, head_inputs, head_on, response_outputs, token_log_probs
from rlhf_dagster.training.models.policies import Policy


def decoding(temperature: float, suppressed: tuple[int, ...]) -> Decoding:
    return Decoding(temperature, max_tokens=3, fixed_length=False, pad_id=0, end_id=1, suppressed=suppressed)


def plainly(logits: Tensor, tokens: Tensor, how: Decoding) -> Tensor:
    """The formula, left to autograd."""
    masked = logits / how.temperature
    masked = masked.index_fill(-1, torch.tensor(how.suppressed, dtype=torch.long), -torch.inf)
    return masked.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]


@given(st.integers(0, 1000), st.sampled_from([0.5, 1.0, 1.3]), st.sampled_from([(), (0,), (0, 4)]))
def test_the_gradient_is_that_of_the_formula(seed: int, temperature: float, suppressed: tuple[int, ...]) -> None:
    torch.manual_seed(seed)
    logits = (3 * torch.randn(2, 3, 6)).requires_grad_()
    tokens, mask = torch.tensor([[1, 2, 3], [5, 1, 2]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    how, weights = decoding(temperature, suppressed), torch.randn(2, 3)
    kept = logits.detach().clone()
    ours = token_log_probs(logits, tokens, mask, how)
    expected = plainly(logits, tokens, how) * mask
    torch.testing.assert_close(ours, expected)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), logits)
    (reference,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)
    assert torch.equal(logits, kept)


def test_a_gradient_in_half_precision_has_the_precision_of_the_logits() -> None:
    logits = torch.randn(1, 2, 6).bfloat16().requires_grad_()
    token_log_probs(logits, torch.tensor([[1, 2]]), torch.ones(1, 2), decoding(1.0, (0,))).sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, 8, (2, 7), generator=torch.Generator().manual_seed(0))


def test_the_states_are_those_that_the_head_reads(policy: Policy, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    logits, hidden = response_outputs(policy.model, ids, mask, 3, hidden=True)
    outputs = policy.model(ids[:, :-1], output_hidden_states=True)
    torch.testing.assert_close(hidden, outputs.hidden_states[-1][:, -3:])
    torch.testing.assert_close(logits, outputs.logits[:, -3:])
    assert not policy.model.get_output_embeddings()._forward_pre_hooks


def test_the_head_on_some_positions(policy: Policy, ids: Tensor) -> None:
    positions = ids % 2 == 0
    with head_on(policy.model, positions):
        some = policy.model(ids).logits
    torch.testing.assert_close(some, policy.model(ids).logits[positions])


def test_a_forward_pass_that_fails_leaves_no_hook(policy: Policy, ids: Tensor) -> None:
    for context in (head_on(policy.model, ids > 0), head_inputs(policy.model)):
        with pytest.raises(IndexError), context:
            policy.model(ids + 10_000)
    assert not policy.model.get_output_embeddings()._forward_pre_hooks
