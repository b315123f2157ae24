"""An evaluation small enough to check by hand: three prompts, three roles, two judges."""

import pandas as pd
import pytest

from rlhf_dagster.evaluation.samples import Scores

TEXTS = {
    "policy": ["good good good", "fine day", "<script>alert('x')</script>"],
    "sft": ["bad day", "bad day", "so so"],
    "behaviour": ["fine", "good", "so so"],
}
POLICY_IDS = {"policy": "ppo-round-0002", "sft": "sft", "behaviour": "ppo-round-0001"}


@pytest.fixture
def completions() -> pd.DataFrame:
    """The policy's log-probabilities exceed SFT's by 1, 2 and 3 nats a response; rows of other roles are shuffled."""
    rows = [
        {
            "prompt_id": f"p{index}",
            "prompt": f"prompt {index}",
            "role": role,
            "policy_id": POLICY_IDS[role],
            "text": text,
            "token_ids": list(range(index + 2)),
            "log_probs": [-1.0] * (index + 2),
            "reference_log_probs": [-1.0] * (index + 1) + [-1.0 - (index + 1 if role == "policy" else 0)],
        }
        for role, texts in TEXTS.items()
        for index, text in (reversed(list(enumerate(texts))) if role == "sft" else enumerate(texts))
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def scores() -> Scores:
    return {
        "reward model": {"policy": [3.0, 1.0, 0.0], "sft": [0.0, 0.0, 1.0], "behaviour": [1.0, 1.0, 0.0]},
        "gold judge": {"policy": [2.0, 2.0, 2.0], "sft": [0.0, 0.0, 0.0], "behaviour": [3.0, 3.0, 2.0]},
    }
