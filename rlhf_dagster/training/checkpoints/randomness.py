"""A model computes the same in training as in sampling: nothing in it is random, and nothing else asks for its mode.

PPO's ratios and DPO's reference need that: a policy that has learned nothing yet must be the policy that was sampled.
Training mode adds dropout, layers that are left out, noise on the routers of experts (whose settings have many names,
and which PhiMoE draws even where its noise is set to 0), and in Gemma 3n it clips weights. So a model stays
in evaluation mode, in which it learns as well.
"""

from types import MethodType
from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def always_in_evaluation_mode(model: _Module) -> _Module:
    """``model``, for which :meth:`train` does nothing any more, also inside other modules and in its copies."""
    model.eval()
    model.train = MethodType(_stay, model)  # type: ignore[method-assign]
    return model


def _stay(model: _Module, mode: bool = True) -> _Module:
    return model
