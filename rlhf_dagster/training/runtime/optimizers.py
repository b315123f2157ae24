"""AdamW as `compute` wants it: by PyTorch in float32, or with moments in eight bits, or for weights in bfloat16."""

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError

SCALED_TOGETHER = 256
"""Numbers that share a scale in eight bits (Dettmers et al. 2022, arXiv 2110.02861, section 2.1)."""
SMALLEST = 4096
"""Numbers below which a tensor's moments stay in float32: vectors are few, and more sensitive."""
NARROW_BITS = 16
"""Bits of a float32 number that bfloat16 has not."""
MOMENTS = ("exp_avg", "exp_avg_sq")


def optimizer_class(compute: ComputeSettings) -> tuple[Callable[..., Optimizer], dict[str, Any]]:
    """The class of AdamW for ``compute``, and what it is given beside weights and rates."""
    if compute.optimizer == "adamw" and compute.trained_weights == "fp32":
        return torch.optim.AdamW, {"fused": True}
    return SmallAdamW, {"bits": 8 if compute.optimizer == "adamw_8bit" else 32}


def require_optimizer(compute: ComputeSettings) -> None:
    """Raise UserError where `compute.optimizer` needs a package that is not there."""
    if compute.optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise UserError(
            f"compute.optimizer is `adamw_8bit`, which needs bitsandbytes; `{install_extras('quantised')}`, or set it "
            "to `adamw`."
        )


class SmallAdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019) whose moments or weights take less memory than float32.

    The arithmetic of a step is in float32. Weights in bfloat16 are rounded stochastically: up with the probability of
    how far they are above the number below, so that steps smaller than the last digit count on average. The random
    numbers depend on step and weight alone, so that all ranks, and a training that is resumed, round alike. Moments
    in eight bits are those of bitsandbytes, in blocks of 256 numbers; of small tensors they stay in float32.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bits: int = 32,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.bits = bits

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; ``closure`` is not called."""
        weights = [(weight, group) for group in self.param_groups for weight in group["params"]]
        for number, (weight, group) in enumerate(weights):
            if weight.grad is not None:
                self._step(number, weight, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As PyTorch's, but tensors keep the type that they were saved with, not that of the weights."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, state in state_dict["state"].items():
            weight = weights[number]
            self.state[weight] = {name: _moved(value, name, weight) for name, value in state.items()}

    def _step(self, number: int, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight] or self._begun(weight)
        # Of a weight in float32 these are itself, and are changed in place.
        wide, gradient = weight.float(), weight.grad.float()  # type: ignore[union-attr]
        state["step"] += 1
        update = _update_in_8_bits if "scale_exp_avg" in state else _update
        update(wide, gradient, state, group)
        if weight.dtype == torch.bfloat16:
            weight.copy_(rounded_stochastically(wide, _generator(weight.device, int(state["step"]), number)))

    def _begun(self, weight: Tensor) -> dict[str, Any]:
        state = self.state[weight]
        state["step"] = torch.tensor(0.0)
        in_8_bits = self.bits == 8 and weight.numel() >= SMALLEST
        for name in MOMENTS:
            state[name] = torch.zeros_like(weight, dtype=torch.uint8 if in_8_bits else torch.float32)
            if in_8_bits:
                state[f"scale_{name}"] = torch.zeros(-(-weight.numel() // SCALED_TOGETHER), device=weight.device)
        return state


def rounded_stochastically(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """``numbers`` in float32 as bfloat16, up or down at random so that the mean is theirs.

    A random number below the last digit is added to the bits, and the rest is cut. As in torchao's optimisers; Zamirai
    et al. 2020 (arXiv 2010.06192) show that it trains as well as float32 weights.
    """
    bits = numbers.contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << NARROW_BITS, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    return (bits + noise).bitwise_and_(-(1 << NARROW_BITS)).view(torch.float32).bfloat16()


def _generator(device: torch.device, step: int, number: int) -> torch.Generator:
    # On a CPU only the lower 32 bits of a seed count: distinct there for 65,536 weights in as many steps.
    return torch.Generator(device).manual_seed(((step << 16) + number) % (1 << 32) + (step << 32))


def _update(weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    adamw(
        [weight],
        [gradient],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        max_exp_avg_sqs=[],
        state_steps=[state["step"] - 1],  # counted inside
        foreach=False,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _update_in_8_bits(weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    from bitsandbytes.functional import optimizer_update_8bit_blockwise

    beta1, beta2 = group["betas"]
    signed, unsigned = _maps(weight.device)
    optimizer_update_8bit_blockwise(
        "adam",
        gradient.contiguous(),
        weight,
        state["exp_avg"],
        state["exp_avg_sq"],
        beta1,
        beta2,
        0.0,  # of AdEMAMix, as the next
        0.0,
        group["eps"],
        int(state["step"]),
        group["lr"],
        signed,
        unsigned,
        state["scale_exp_avg"],
        state["scale_exp_avg_sq"],
        weight_decay=group["weight_decay"],
    )


def _maps(device: torch.device) -> Sequence[Tensor]:
    """The numbers of the 256 codes of moments, with and without a sign."""
    from bitsandbytes.functional import create_dynamic_map

    if device not in _MAPS:
        _MAPS[device] = [create_dynamic_map(signed=signed).to(device) for signed in (True, False)]
    return _MAPS[device]


_MAPS: dict[torch.device, Sequence[Tensor]] = {}


def _moved(value: Any, name: str, weight: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.clone() if name == "step" else value.to(weight.device, copy=True)
