"""The pure parts of the benchmark of the trainings: nothing here measures or installs anything."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.training.cases import CASES, chosen, ragged
from benchmarks.training.chart import draw
from benchmarks.training.inputs import Shape, Texts, make_inputs
from benchmarks.training.learning import Curves, agreement, interval, learning_table
from benchmarks.training.report import as_json, matmul_share, table
from benchmarks.training.runner import Measured, Outcome
from benchmarks.training.sides.measuring import Laps, peak_bytes
from benchmarks.training.statistics import estimate, ratios, speed
from benchmarks.training.work import Episodes, forward, ppo_update

SMALL = Shape(layers=1, width=8, heads=2, vocabulary=20, context=16)


def outcome(seconds: list[float], peer_seconds: list[float]) -> Outcome:
    case = replace(CASES[0], unit="updates")
    ours, peer = Measured("ours"), Measured("peer")
    for measured, laps in ((ours, seconds), (peer, peer_seconds)):
        for lap in laps:
            measured.add(
                {
                    "seconds": [lap],
                    "cpu_seconds": [lap / 2],
                    "peak_bytes": 2**30,
                    "numbers": {"matmul_rates": {"torch": 1e9}},
                },
                amount=1,
            )
    return Outcome(case, ours, peer)


def test_a_ratio_is_taken_within_each_repetition() -> None:
    # The second repetition ran on a machine half as fast: the ratio does not see it.
    result = outcome([1, 2, 1], [3, 6, 4])
    assert result.ratio == estimate([3, 3, 4])
    assert (result.ratio.median, result.ratio.low, result.ratio.high) == (3, 3, 4)
    assert result.cpu_ratio.median == 3
    assert ratios([2.0], [1.0]).median == 2


def test_speed_is_the_amount_over_the_median_lap() -> None:
    assert speed([1, 2, 10], 6) == 3
    with pytest.raises(ValueError, match="no repetition"):
        estimate([])


def test_laps_are_between_marks_and_the_first_are_dropped() -> None:
    laps = Laps(warm_up=1)
    for pause in (0.0, 0.02, 0.01):
        time.sleep(pause)
        laps.mark()
    (seconds,), (cpu,) = laps.intervals().values()
    assert 0.01 <= seconds < 0.02 + seconds
    assert cpu < seconds
    assert Laps(0).intervals() == {"seconds": [], "cpu_seconds": []}
    assert peak_bytes() > 2**20


def test_the_table_says_what_was_measured_and_what_failed() -> None:
    failed = replace(outcome([1], [1]), failure="TRL: no such thing")
    lines = table([outcome([0.5, 0.4], [2, 2]), failed]).splitlines()
    assert len(lines) == 4
    assert "0.444 s/update" in lines[2]
    assert "4.50 [4.00, 5.00]" in lines[2]
    assert "3 (5)" in lines[2]
    assert "failed: TRL: no such thing" in lines[3]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_json_has_every_repetition(tmp_path: Path) -> None:
    content = json.loads(json.dumps(as_json([outcome([0.5, 0.4], [2, 2])], {"processor": "x"})))
    (case,) = content["cases"]
    assert case["ours"]["laps"] == [[0.5], [0.4]]
    assert case["times_faster"]["repetitions"] == 2
    draw([outcome([0.5, 0.4], [2, 2])], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000
    draw([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_cases_are_chosen_by_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert [case.name for case in chosen(["sft"], quick=False)] == ["sft"]
    assert {case.shape.width for case in chosen(None, quick=True)} == {128}
    with pytest.raises(SystemExit, match="No such case: sfx"):
        chosen(["sfx"], quick=False)


def test_inputs_are_made_once_and_end_as_often_as_asked(tmp_path: Path) -> None:
    shape = ragged(replace(SMALL, vocabulary=200), 14)
    folder = make_inputs(shape, Texts(rows=3, prompt=(2, 4), response=(3, 3), compared=4), tmp_path)
    assert make_inputs(shape, Texts(rows=3, prompt=(2, 4), response=(3, 3), compared=4), tmp_path) == folder
    rows = json.loads((folder / "data.json").read_text())
    assert [len(row["responses"]) for row in rows] == [4, 4, 4]
    assert all(2 <= len(row["prompt"].split()) <= 4 for row in rows)
    model = AutoModelForCausalLM.from_pretrained(folder / "sft").eval()
    ends = model(torch.arange(3, 15)[None]).logits.softmax(dim=-1)[0, :, 1]
    assert ends.mean().item() == pytest.approx(2.8 / 14, rel=0.2)


def test_operations_of_an_update() -> None:
    # A layer of width 8: 12 x 64 weights, and attention over 5 tokens; the head has 8 x 20 weights.
    weights, attention, head = 2 * 768 * 5, 4 * 8 * 25 / 2, 2 * 160 * 3
    one = 2 * (weights + attention + head)
    assert forward(SMALL, rows=2, tokens=5, predicted=3) == one
    scored = 2 * (2 * 768 * 6 + 4 * 8 * 36 / 2)
    assert ppo_update(SMALL, Episodes(count=2, prompt=3, response=3, epochs=4)) == 14 * one + scored


def test_the_share_of_the_matrix_product() -> None:
    result = outcome([2, 2], [3, 3])
    shape, options = result.case.shape, result.case.options
    operations = ppo_update(shape, Episodes(options["batch_size"], 8, 24, 4))
    share = matmul_share(result, "torch")
    assert share is not None
    # One update in a CPU second, on a machine that multiplies at 1e9 operations per second.
    assert share.median == pytest.approx(operations / 1e9)
    assert matmul_share(replace(result, failure="x"), "torch") is None


def test_intervals_over_seeds() -> None:
    # Three seeds, mean 2, deviation 1: t is 4.303 with two degrees of freedom.
    band = interval(np.array([[1.0], [2.0], [3.0]]))
    assert band.mean.tolist() == [2]
    assert band.half.tolist() == pytest.approx([4.303 / 3**0.5], abs=1e-3)
    with pytest.raises(ValueError, match="needs two"):
        interval(np.zeros((1, 3)))


def test_sides_agree_where_each_mean_is_in_the_interval_of_the_other() -> None:
    one = np.array([[0.0, 0.0], [2.0, 2.0]])
    narrow = np.array([[3.0, 0.9], [3.1, 1.1]])
    assert agreement(one, one) == 1
    # At the first update the narrow interval misses the mean of the wide one, though not the other way round.
    assert agreement(one, narrow) == 0.5
    curves = [Curves("ours", one, one), Curves("peer", narrow, one)]
    lines = learning_table(curves).splitlines()
    assert "50% of updates | 100% of updates" in lines[2]
    assert "1.00 ± 12.71" in lines[2]
