"""A model computes the same in training as in sampling: nothing in it is random, and nothing else asks for its mode.

PPO's ratios and DPO's reference need that: a policy that has learned nothing yet must be the policy that was sampled.
Training mode adds dropout, layers that are left out, noise on the routers of experts (whose settings have many names,
and which PhiMoE draws even where its noise is set to 0), and in Gemma 3n it clips weights. So a model stays
in evaluation mode, in which it learns as well.
"""

from functools import cache
from typing import Any, Self, TypeVar, cast

from torch import nn
from transformers import PretrainedConfig

_Module = TypeVar("_Module", bound=nn.Module)


def without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    """``config``, changed in place: dropout 0, and nothing that depends on the mode or that no loss here reads.

    The losses of routers (`output_router_logits`) balance experts in pretraining. RWKV in evaluation mode halves its
    upper layers' weights in place against overflow in float16, and would save them like that.
    """
    for name, value in config.to_dict().items():
        if ("drop" in name or "pdrop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    for name, value in (("output_router_logits", False), ("rescale_every", 0)):
        if getattr(config, name, value) != value:
            setattr(config, name, value)
    return config


def always_in_evaluation_mode(model: _Module) -> _Module:
    """``model``, for which :meth:`train` does nothing any more, also inside other modules and in its copies.

    Only its class changes. A method of its own would hold the model, which then would stay in memory, with nobody using
    it, until Python looks for circles.
    """
    model.eval()
    model.__class__ = _staying(cast("Any", type(model)))
    return model


class _Staying(nn.Module):
    def train(self, mode: bool = True) -> Self:
        return self


@cache
def _staying(kind: Any) -> Any:
    """The class ``kind`` under its own name, whose models stay in the mode that they are in."""
    if issubclass(kind, _Staying):
        return kind
    return type(kind.__name__, (_Staying, kind), {"__module__": kind.__module__})
