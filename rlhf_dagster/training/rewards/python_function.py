"""A Python function as reward."""

import math
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt, messages_of
from rlhf_dagster.training.functions import load_function
from rlhf_dagster.training.rewards.text_reward import TextReward
from rlhf_dagster.training.runtime.distributed import first_text


def load_reward_function(name: str) -> TextReward:
    """The function that ``name`` refers to (:func:`load_function`); all ranks check the result of every call together.

    It is called with prompts and responses as texts, and, if it has a parameter `messages`, with a list that has the
    messages of each prompt that is a chat, as dictionaries with `role` and `content`, and None for any other.

    Raises:
        UserError: the function cannot be imported, or a call raises or gives not one finite number for each response.
    """
    called = load_function(name, "reward_function")
    wants_messages = _has_parameter(called, "messages")

    def reward(prompts: list[Prompt], responses: list[str]) -> Tensor:
        extra = {"messages": [messages_of(prompt) for prompt in prompts]} if wants_messages else {}
        values, problem = _call(partial(called, **extra), [str(prompt) for prompt in prompts], responses)
        # Where one rank raised alone, the others would wait for it.
        if problem := first_text(problem):
            raise UserError(f"reward_function {name!r} {problem}.")
        return torch.tensor(values, dtype=torch.float32)

    return reward


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in signature(function).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return False


def _call(function: Callable[..., Any], prompts: list[str], responses: list[str]) -> tuple[list[float], str]:
    """The function's values and what is wrong with them, empty if nothing is."""
    try:
        values = [float(value) for value in function(prompts, responses)]
    except Exception as error:  # somebody else's code
        return [], f"raised {type(error).__name__}: {str(error).split(chr(10))[0]}".rstrip(".: ")
    if len(values) != len(responses):
        return [], f"gave {len(values)} numbers for {len(responses)} responses; it must give one for each"
    wrong = next((index for index, value in enumerate(values) if not math.isfinite(value)), None)
    if wrong is not None:
        return [], f"gave {values[wrong]} for the response {responses[wrong][:60]!r}; it must give finite numbers"
    return values, ""
