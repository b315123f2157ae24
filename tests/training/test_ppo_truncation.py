"""Where responses end: ids 0 padding, 1 end-of-text, 9 the truncation token."""

import pytest
import torch
from torch import Tensor

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.ppo.truncation import Truncation, penalised, truncate_id

WHOLE = torch.ones(1, 5, dtype=torch.long)


def real(tokens: Tensor) -> Tensor:
    return (tokens != 0).long()


@pytest.mark.parametrize(
    ("tokens", "after", "kept", "ended"),
    [
        ([5, 9, 6, 7, 8], 0, [1, 1, 0, 0, 0], True),
        ([5, 9, 6, 7, 8], 1, [1, 1, 0, 0, 0], True),
        ([5, 9, 6, 7, 8], 2, [1, 1, 1, 1, 1], False),
        ([5, 9, 6, 9, 9], 2, [1, 1, 1, 1, 0], True),
        ([9, 9, 9, 9, 9], 0, [1, 0, 0, 0, 0], True),
        ([5, 6, 7, 8, 9], 4, [1, 1, 1, 1, 1], True),
        ([5, 6, 7, 8, 8], 0, [1, 1, 1, 1, 1], False),
        ([5, 6, 1, 0, 0], 4, [1, 1, 1, 0, 0], True),
        ([5, 9, 1, 0, 0], 1, [1, 1, 0, 0, 0], True),
    ],
)
def test_a_response_is_read_up_to_its_first_end(tokens: list[int], after: int, kept: list[int], ended: bool) -> None:
    rule, ids = Truncation(end_ids=(1,), truncate_id=9, after=after), torch.tensor([tokens])
    assert rule.kept(ids, real(ids)).tolist() == [kept]
    assert rule.ended(ids, real(ids)).tolist() == [ended]


def test_without_a_truncation_token_only_end_of_text_ends() -> None:
    rule, ids = Truncation(end_ids=(1,)), torch.tensor([[5, 9, 1, 0, 0], [5, 9, 5, 9, 5]])
    assert torch.equal(rule.kept(ids, real(ids)), real(ids))
    assert rule.ended(ids, real(ids)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [2.0, 3.0]),
        ({"missing_end_penalty": -1.0}, [2.0, -1.0]),
        ({"missing_end_penalty": 1.0, "missing_end": "subtract"}, [2.0, 2.0]),
    ],
)
def test_what_a_missing_end_costs(changes: dict, expected: list[float]) -> None:
    scores = penalised(torch.tensor([2.0, 3.0]), torch.tensor([True, False]), PpoSettings(**changes))
    assert scores.tolist() == expected


def test_the_token_must_be_one(policy: Policy) -> None:
    assert truncate_id(policy.tokenizer, PpoSettings()) is None
    assert truncate_id(policy.tokenizer, PpoSettings(truncate_token=".")) == policy.tokenizer.get_vocab()["."]
    for text in ("red dog", "unheard", ""):
        with pytest.raises(UserError, match=r"ppo\.truncate_token .* is not one token"):
            truncate_id(policy.tokenizer, PpoSettings(truncate_token=text))
