"""The matrix of models: what a cell comes to, and how the page says it."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.models.matrix import Cell, Outcome, try_model
from benchmarks.models.page import page, reason_of, summary, table
from benchmarks.models.run import Row, run_models
from benchmarks.models.trial import (
    NotReachedError,
    Trial,
    WrongNumberError,
    require_close,
    require_rows_close,
    require_same_weights,
)
from rlhf_dagster.errors import UserError


def fails(error: Exception) -> Cell:
    def try_it(trial: Trial) -> None:
        raise error

    return Cell(type(error).__name__, try_it)


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (UserError("LlamaForCausalLM cannot."), "refused", "LlamaForCausalLM cannot."),
        (NotReachedError("reward"), "not reached", "needs reward"),
        (WrongNumberError("values: off by 2"), "wrong", "values: off by 2"),
        (IndexError("index\nout of range"), "wrong", "IndexError: index out of range"),
    ],
)
def test_what_a_cell_raises_is_its_verdict(error: Exception, verdict: str, reason: str, tmp_path: Path) -> None:
    [outcome] = try_model("llama", tmp_path, [fails(error)])
    assert (outcome.verdict, outcome.reason) == (verdict, reason)


def test_a_cell_that_ends_is_right(tmp_path: Path) -> None:
    [outcome] = try_model("llama", tmp_path, [Cell("quiet", lambda trial: None)])
    assert outcome.verdict == "right"


def test_numbers_that_are_apart_not_a_number_or_too_few_are_wrong() -> None:
    require_close("score", [1.0, 2.0], [1.0, 2.0005])
    for ours in ([1.0, 2.1], [1.0, float("nan")], [1.0]):
        with pytest.raises(WrongNumberError, match="score"):
            require_close("score", ours, [1.0, 2.0])
    with pytest.raises(WrongNumberError, match=r"off by 0\.5"):
        require_rows_close("rows", [[1.0], [2.0, 3.0]], [[1.0], [2.0, 3.5]])


def test_a_tensor_that_differs_or_is_missing_is_seen(tmp_path: Path) -> None:
    for name, tensors in (("a", {"x": torch.ones(2)}), ("b", {"x": torch.tensor([1.0, 1.5])}), ("c", {})):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    require_same_weights("resumed", tmp_path / "a", tmp_path / "a")
    with pytest.raises(WrongNumberError, match=r"1 tensors differ, x by 0\.5"):
        require_same_weights("resumed", tmp_path / "a", tmp_path / "b")
    with pytest.raises(WrongNumberError, match="1 tensors differ, x by nan"):
        require_same_weights("resumed", tmp_path / "a", tmp_path / "c")


def test_what_was_tried_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "llama.json").write_text(json.dumps([{"cell": "SFT", "verdict": "right", "reason": "", "seconds": 1}]))
    told: list[Row] = []
    rows = run_models(["llama"], [], tmp_path, told.append)
    assert rows == told == [Row("llama", [Outcome("SFT", "right", "", 1)])]


def test_a_process_that_dies_is_wrong(tmp_path: Path) -> None:
    def die(trial: Trial) -> None:
        os._exit(3)

    [row] = run_models(["llama"], [Cell("SFT", die)], tmp_path, lambda row: None)
    assert row.outcomes == [Outcome("SFT", "wrong", "its process did not come to an end")]


ROWS = [
    Row(
        "llama", [Outcome("base_model", "right"), Outcome("SFT", "right"), Outcome("DPO", "wrong", "loss: off by 0.3")]
    ),
    Row(
        "gpt2",
        [
            Outcome("base_model", "right"),
            Outcome("SFT", "refused", "GPT2LMHeadModel has none; choose another."),
            Outcome("DPO", "wrong", "loss: off by 0.7"),
        ],
    ),
    Row(
        "mamba",
        [Outcome("base_model", "refused", "MambaForCausalLM has none; choose another."), Outcome("SFT", "not reached")],
    ),
]


def test_reasons_of_one_kind_are_one_sentence() -> None:
    assert reason_of(ROWS[1], ROWS[1].outcomes[1]) == reason_of(ROWS[2], ROWS[2].outcomes[0])
    text = page(ROWS)
    assert "- **a** The model has none; choose another.  \n  gpt2: SFT; mamba: base_model" in text
    assert "- **1** loss: off  \n  llama: DPO; gpt2: DPO" in text


def test_the_page_has_a_row_for_each_model_and_says_what_is_missing() -> None:
    text = page(ROWS)
    assert "| llama | ● | ● | 1 |" in text
    assert "| gpt2 | ● | a | 1 |" in text
    assert "| mamba | a | · | · |" in text
    assert "| musicgen | " in text
    assert "| mamba | refused | · | · |" in table(ROWS)


def test_the_summary_counts_models_and_cells() -> None:
    assert summary(ROWS) == (
        "3 models of 3 architectures: 0 are right throughout, 1 are refused at `base_model`. "
        "Of all cells 3 are right, 2 refused, 2 wrong."
    )
