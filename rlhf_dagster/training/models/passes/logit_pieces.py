"""Numbers of tokens whose logits are computed in pieces, so that [B, T, V] never stands in memory.

With a vocabulary of 100,000 tokens the logits of a batch are larger than all that a model's layers keep for it. Here
the model runs once up to its output head, and the head, with what the architecture does behind it (a soft cap, a
scale), runs on some positions at a time: once for the numbers, and again in the backward pass, which holds the logits
of one piece too. Where the logits fit into one piece nothing is different from a plain forward pass.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.checkpoints.tokenizers import vocabulary_rows
from rlhf_dagster.training.models.abilities import abilities_of
from rlhf_dagster.training.models.log_probs import (
    Decoding,
    drawn_log_probs,
    head_on,
    head_states,
    response_outputs,
    response_reading,
    token_log_probs,
    where_real,
)
from rlhf_dagster.training.models.passes.layer_lists import TRIAL_LENGTH
from rlhf_dagster.training.models.reading import accepted, as_in_sampling, close, outputs_of, trial_rows
from rlhf_dagster.training.texts.tokens import PaddedBatch

Measure = Callable[[Tensor, Tensor], Tensor]
"""A number for each of n positions [n], from logits [n, V] and targets [n]."""
FLOAT32 = 4
PIECE_ON_TRIAL = 3
_log = logging.getLogger("rlhf_dagster.training")


def limit_logits(model: PreTrainedModel, mib: float) -> None:
    """Have ``model`` compute at most so many MiB of logits, in float32, at once; copies of it too."""
    model.logits_mib = mib  # type: ignore[assignment]
    head_runs_alone(model)  # asked now, as the model cannot be tried in the middle of a forward pass


def log_probs_of(
    model: PreTrainedModel, batch: PaddedBatch, tokens: Tensor, mask: Tensor, decoding: Decoding, hidden: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probs [B, T] of the last tokens of a batch and, where asked, the states [B, T, d] before them.

    Args:
        model: a causal language model, which may be wrapped for training on several ranks.
        batch: [B, Q + T] prompts, padded on the left, and responses, padded on the right.
        tokens: [B, T] the responses' tokens.
        mask: [B, T] 1 at tokens that count; the log-probs of others are 0.
        decoding: what turns logits into the policy's distribution.
        hidden: whether to return the states that the output head reads.
    """
    if not needs_pieces(model, tokens.numel()):
        logits, states = response_outputs(model, *batch, tokens.shape[1], hidden)
        return token_log_probs(logits, tokens, mask, decoding), states
    read = response_reading(model, batch, tokens.shape[1])
    head, below = _run_to_head(model, read.given, read.choose)
    measure = partial(drawn_log_probs, decoding=decoding)
    found = _in_pieces(head, below.flatten(0, 1), tokens.flatten(), measure).view_as(tokens)
    return where_real(found, mask), below if hidden else None


def next_token_loss(model: PreTrainedModel, labels: Tensor, learned: Tensor, **given: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats, of ``labels`` [B, L] where ``learned`` [B, L] is true.

    ``given`` are the arguments of the forward pass, whose output at position i predicts label i.
    """
    targets = labels[learned]
    if not needs_pieces(model, len(targets)):
        with head_on(model, learned):
            logits = model(**given, use_cache=False).logits
        return F.cross_entropy(logits.float(), targets)
    head, below = _run_to_head(model, {**given, "use_cache": False}, lambda states: states[learned])
    return _in_pieces(head, below, targets, _surprise).mean()


def needs_pieces(model: nn.Module, positions: int) -> bool:
    """Whether the logits of so many positions are more than ``model`` computes at once, and it can do pieces."""
    plain = plain_model(model)
    if positions <= _positions_at_once(plain):
        return False
    if not head_runs_alone(plain):
        _say(f"compute.logits_mib does not bound {type(plain).__name__}, whose output head does not run alone.")
    return head_runs_alone(plain)


def head_runs_alone(model: PreTrainedModel) -> bool:
    """Whether logits in pieces are those of a whole forward pass, found out by running ``model`` once."""
    known = abilities_of(model)
    if known.trunk is None:
        known.trunk = _find_trunk(model)
    return bool(known.trunk)


def plain_model(model: nn.Module) -> PreTrainedModel:
    """The language model in a wrapper of adapters, or of training on several ranks."""
    model = cast("nn.Module", getattr(model, "module", model))
    return cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)


class _Head:
    """The output head of a model and what its architecture does behind it, on states that are given."""

    def __init__(self, model: PreTrainedModel, trunk: nn.Module, trunk_output: Any) -> None:
        self.model, self.trunk, self.trunk_output = model, trunk, _of_one(trunk_output)

    def __call__(self, states: Tensor) -> Tensor:
        """Logits [n, V] from the states [n, d] that the head reads."""
        one = torch.zeros(1, 1, dtype=torch.long, device=states.device)
        given = accepted(self.model, input_ids=one, attention_mask=torch.ones_like(one), use_cache=False)
        with _giving(self.trunk, self.trunk_output), head_states(self.model, lambda _: states[None]):
            # Without the hooks of the whole model: in its backward pass a sharded one would gather weights once more.
            return cast("Tensor", self.model.forward(**given).logits[0])

    def trained(self, states: Tensor) -> list[Tensor]:
        """The weights that the logits depend on and that are trained: the leaves of their graph."""
        with torch.enable_grad():
            waiting = [self(states[:1].detach()).grad_fn]
        seen, leaves = set(waiting), []
        while waiting:
            node = waiting.pop()
            leaves += [cast("Any", node).variable] if hasattr(node, "variable") else []
            ahead = {before for before, _ in node.next_functions if before is not None} - seen if node else set()
            seen |= ahead
            waiting += ahead
        return leaves


def _run_to_head(
    model: nn.Module, given: dict[str, Any], choose: Callable[[Tensor], Tensor], trunk_name: str = ""
) -> tuple[_Head, Tensor]:
    """A forward pass whose head runs on one position alone; the head, and what ``choose`` takes of its states."""
    plain, outputs = plain_model(model), []
    trunk = plain.get_submodule(trunk_name or cast("str", abilities_of(plain).trunk))
    hook = trunk.register_forward_hook(lambda trunk, inputs, output: outputs.append(output))
    one = cast("Callable[[Tensor], Tensor]", lambda states: states.flatten(0, -2)[None, :1])
    try:
        with head_states(plain, choose) as chosen, head_states(plain, one):
            model(**given)
    finally:
        hook.remove()
    return _Head(plain, trunk, outputs[0]), chosen[0]


def _in_pieces(head: _Head, states: Tensor, targets: Tensor, measure: Measure) -> Tensor:
    """What ``measure`` gives [N] for ``targets`` [N], from states [N, d]; some positions at a time."""
    count = -(-len(states) // _positions_at_once(head.model))
    weights = head.trained(states) if torch.is_grad_enabled() else []
    return cast("Tensor", _Pieces.apply(head, measure, count, states, targets, *weights))


class _Pieces(torch.autograd.Function):
    """Numbers [N] from states [N, d], whose logits are computed again in the backward pass, a piece at a time."""

    @staticmethod
    def forward(
        ctx: Any, head: _Head, measure: Measure, count: int, states: Tensor, targets: Tensor, *weights: Tensor
    ) -> Tensor:
        ctx.of_logits, ctx.count = lambda states, targets: measure(head(states), targets), count
        ctx.precision = _same_precision(states.device.type)
        ctx.save_for_backward(states, targets, *weights)
        pieces = zip(states.tensor_split(count), targets.tensor_split(count), strict=True)
        return torch.cat([ctx.of_logits(*piece) for piece in pieces])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of weights are summed over pieces in float32, whatever their own precision."""
        states, targets, *weights = ctx.saved_tensors
        of_states, sums = [], [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        cut = (each.tensor_split(ctx.count) for each in (states, targets, gradient))
        for piece, wanted, upstream in zip(*cut, strict=True):
            read = piece.detach().requires_grad_()
            with torch.enable_grad(), ctx.precision():
                numbers = ctx.of_logits(read, wanted)
            found = torch.autograd.grad(numbers, [read, *weights], upstream)
            of_states.append(found[0])
            for total, part in zip(sums, found[1:], strict=True):
                total.add_(part)
        of_weights = (total.to(weight.dtype) for total, weight in zip(sums, weights, strict=True))
        return None, None, None, torch.cat(of_states), None, *of_weights


def _same_precision(device: str) -> Callable[[], AbstractContextManager[object]]:
    """What brings back the precision of now: the backward pass may run outside of it."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


def _surprise(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


def _positions_at_once(model: PreTrainedModel) -> int:
    mib = getattr(model, "logits_mib", ComputeSettings().logits_mib)
    rows = getattr(model.get_output_embeddings(), "out_features", None) or vocabulary_rows(model)
    return max(1, int(mib * 2**20) // (FLOAT32 * rows))


@contextmanager
def _giving(trunk: nn.Module, output: Any) -> Iterator[None]:
    """The ``trunk`` gives ``output`` without computing anything."""
    own = trunk.__dict__.get("forward")
    trunk.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del trunk.forward
        if own is not None:
            trunk.forward = own


def _of_one(output: Any) -> Any:
    """A trunk's output with the states of one position alone."""
    states = output[0].detach()[:1, :1]
    return (states,) if isinstance(output, tuple) else type(output)(last_hidden_state=states)


@torch.no_grad()
def _find_trunk(model: PreTrainedModel) -> str:
    """The called module with the most weights, where logits without it are those of a whole forward pass."""
    ids = torch.tensor(trial_rows(model, (TRIAL_LENGTH,)), device=model.device)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    # Whatever an architecture raises, it works in one piece.
    with suppress(Exception), as_in_sampling(model):
        called: dict[str, int] = {}
        with _calls(model, called):
            whole = outputs_of(model, **given)[0]
        trunk = max(called, key=lambda name: called[name])
        head, states = _run_to_head(model, accepted(model, **given, use_cache=False), lambda states: states[0], trunk)
        pieces = torch.cat([head(piece) for piece in states.split(PIECE_ON_TRIAL)])
        return trunk if pieces.shape == whole.shape and close(pieces, whole) else ""
    return ""


@contextmanager
def _calls(model: PreTrainedModel, called: dict[str, int]) -> Iterator[None]:
    """The names of the modules in ``model`` that a forward pass calls, each with its number of weights."""
    hooks = [
        module.register_forward_pre_hook(lambda module, _, name=name: called.update({name: _weights(module)}))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@cache
def _say(sentence: str) -> None:
    _log.warning(sentence)
