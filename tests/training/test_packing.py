"""Packed demonstrations: full rows, the same loss and gradients, and architectures that cannot."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language import VARIABLE, Tables, demonstration_row, sft_spec

from benchmarks.models.matrix import CELLS, try_model
from rlhf_dagster.config.training import SftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.models.windows import IGNORED
from rlhf_dagster.training.sft import packing_check
from rlhf_dagster.training.sft import train as stage
from rlhf_dagster.training.sft.packing import bins, pack
from rlhf_dagster.training.sft.train import Demonstrations, response_loss, train_sft

PAIRS = [
    ("red dog .", "good"),
    ("blue", "cat cat cat bad ."),
    ("green .", "dog red"),
    ("good", "bad"),
    ("cat", "dog ."),
]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_every_text_is_in_one_row_and_rows_are_not_overfull(lengths: list[int]) -> None:
    rows = bins(lengths, 20)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= 20
    # No two rows would fit into one.
    assert all(a + b > 20 for number, a in enumerate(filled) for b in filled[number + 1 :])


def test_a_packed_row_by_hand() -> None:
    batch = pack([[5, 6], [7, 8, 9]], [[IGNORED, 6], [IGNORED, 8, 9]], capacity=6, pad_id=0)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 5, 6]]
    assert batch["labels"].tolist() == [[IGNORED, 8, 9, IGNORED, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    narrow = pack([[5, 6], [7, 8, 9]], [[IGNORED, 6], [IGNORED, 8, 9]], capacity=4, pad_id=0)
    assert narrow["input_ids"].tolist() == [[7, 8, 9], [5, 6, 0]]
    assert narrow["labels"][1].tolist() == [IGNORED, 6, IGNORED]


@pytest.mark.parametrize("capacity", [7, 12, 16])
def test_loss_and_gradients_are_those_of_padded_rows(policy: Policy, capacity: int) -> None:
    frame = pd.DataFrame([demonstration_row(i, *pair) for i, pair in enumerate(PAIRS)])
    rows = Demonstrations(frame, policy.tokenizer, SftSettings(max_tokens=16), VARIABLE).rows
    found = []
    for room in (0, capacity):
        policy.model.zero_grad()
        batch = stage._collate(rows, policy.tokenizer.pad_token_id, room)
        loss = response_loss(policy.model, batch)
        loss.backward()
        found.append((loss.detach(), {name: p.grad.clone() for name, p in policy.model.named_parameters()}))
    assert batch["input_ids"].numel() < 5 * 7
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_training_is_the_same_but_for_rounding(base: Path, tables: Tables, tmp_path: Path) -> None:
    spec = sft_spec(base, tables, tmp_path / "apart", VARIABLE)
    packed = replace(spec, settings=spec.settings.changed(packing=True), output=tmp_path / "packed")
    one, other = train_sft(spec), train_sft(packed)
    assert one.curves["loss"] == pytest.approx(other.curves["loss"], rel=1e-4)
    weights = [
        load_policy(result.folder).model.state_dict()["transformer.h.0.mlp.c_fc.weight"] for result in (one, other)
    ]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=0)


def test_a_model_whose_texts_see_each_other_is_refused(
    base: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(*arguments: object) -> dict[str, torch.Tensor]:
        batch = pack(*arguments)
        return batch | {"attention_mask": torch.ones_like(batch["attention_mask"]).tril()}

    monkeypatch.setattr(packing_check, "pack", leaking)
    spec = sft_spec(base, tables, tmp_path / "sft", VARIABLE)
    with pytest.raises(UserError, match=r"sft\.packing: GPT2LMHeadModel does not keep texts of one row apart"):
        train_sft(replace(spec, settings=spec.settings.changed(packing=True)))


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_a_model_that_takes_no_mask_of_several_texts_is_refused(name: str, tmp_path: Path) -> None:
    _, outcome = try_model(name, tmp_path, [cell for cell in CELLS if cell.name in ("base_model", "SFT packed")])
    assert outcome.verdict == "refused"
    assert "does not keep texts of one row apart (" in outcome.reason
