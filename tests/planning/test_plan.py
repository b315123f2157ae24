"""Plans with numbers worked by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planning.test_arithmetic import evaluated

from rlhf_dagster.cli.sizing.outlines import outline_of_size
from rlhf_dagster.compute.memory import BUFFERS
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.planning.devices import find_gpu
from rlhf_dagster.planning.known_models import SIZES
from rlhf_dagster.planning.plan import PaperPlan, plan_on_paper
from rlhf_dagster.planning.question import PlanQuestion
from rlhf_dagster.planning.training import sharded, smallest
from rlhf_dagster.training.input_sizes import model_sizes

PARAMETERS = {
    "1B": 1_235_814_400,
    "3B": 3_212_749_824,
    "7B": 6_738_415_616,
    "8B": 8_030_261_248,
    "13B": 13_015_864_320,
    "70B": 70_553_706_496,
}
"""As published with the models."""
SMALL, ADAPTERS = (LoopConfig(preset=preset) for preset in ("small", "lora"))


@pytest.fixture(scope="module")
def outlines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models by their sizes."""
    folders = {}
    for size in PARAMETERS:
        with outline_of_size(size) as folder:
            kept = tmp_path_factory.mktemp(size)
            for file in folder.iterdir():
                (kept / file.name).write_bytes(file.read_bytes())
            folders[size] = kept
    return folders


def asked(model: str, **figures: float) -> PlanQuestion:
    given = {"labels_per_day": 1e6, "prompts_per_second": 10_000} | figures
    return PlanQuestion(model, gpu=find_gpu("H100"), **given)


@pytest.fixture(scope="module")
def large(outlines: dict[str, Path]) -> PaperPlan:
    return plan_on_paper(asked("70B"), SMALL, outlines["70B"])


def test_sizes_are_those_of_the_published_models(outlines: dict[str, Path]) -> None:
    assert {size: model_sizes(folder).parameters for size, folder in outlines.items()} == PARAMETERS
    assert SIZES.keys() - PARAMETERS.keys() == {"405B"}


def test_every_line_s_arithmetic_gives_its_figure(large: PaperPlan) -> None:
    """Each number is shown with four digits, so that what they give is right to three."""
    shown = [line for sheet in large.sheets for line in sheet.lines if line.computed]
    assert len(shown) >= 35
    for line in shown:
        assert evaluated(line.how) == pytest.approx(line.value, rel=2e-3), line


def test_people_and_ledger_by_hand(large: PaperPlan) -> None:
    # A million labels of a minute each, in days of 8 hours of which nine tenths are spent judging.
    assert large.value("People", "annotators") == math.ceil(1e6 * 60 / (8 * 3600 * 0.9)) == 2315
    # 15% of comparisons are judged three times: 1.3 labels each.
    assert large.value("Ledger and label server", "labels of a comparison") == pytest.approx(1.3)
    assert large.value("Ledger and label server", "rows of the ledger a day") == pytest.approx(1e6 + 1e6 / 1.3)
    # A prompt of 512 tokens and four responses of 256 are 6,144 characters, 0.8 bytes each, beside 1,000.
    daily = (1e6 / 1.3 * (1000 + 0.8 * 6144) + 1e6 * 465) / 1e9
    assert large.value("Ledger and label server", "ledger a day") == pytest.approx(daily)
    assert large.value("Ledger and label server", "labels a second in one shift") == pytest.approx(34.72, abs=0.01)


def test_generation_by_hand(large: PaperPlan) -> None:
    # 4 GPUs of 80 GiB, 90% of them, without 141.1 GB of weights; a response of 768 tokens has 327,680 bytes each.
    rows = (4 * 80 * 2**30 * 0.9 - 2 * 70_553_706_496) // (768 * 2 * 2 * 80 * 8 * 128)
    assert large.value("Generation", "responses at once") == rows == 668
    products = 2 * 70_553_706_496 * rows / (4 * 989e12 * 0.4)
    reading = (2 * 70_553_706_496 + rows * 640 * 327_680) / (4 * 3.35e12 * 0.4)
    assert products > reading
    rate = rows / products / 4
    assert large.value("Generation", "tokens a second of a GPU") == pytest.approx(rate)
    seconds = 512 * 2 * 70_553_706_496 / (989e12 * 0.4) + 256 / rate
    assert large.value("Serving the champion", "GPUs that serve") == math.ceil(10_000 * seconds) == 2740


def test_a_small_model_s_engine_is_one_gpu_that_reads_its_memory(outlines: dict[str, Path]) -> None:
    plan = plan_on_paper(asked("8B"), SMALL, outlines["8B"])
    rows = (80 * 2**30 * 0.9 - 2 * 8_030_261_248) // (768 * 131_072)
    reading = (2 * 8_030_261_248 + rows * 640 * 131_072) / (3.35e12 * 0.4)
    assert plan.value("Generation", "GPUs of an engine") == 1
    assert plan.value("Generation", "tokens a second of a GPU") == pytest.approx(rows / reading)


def test_the_hours_of_a_round_by_hand(large: PaperPlan) -> None:
    p, peak = 70_553_706_496, 989e12 * 0.4
    prompt, response = (large.value("Generation", f"GPU-seconds of a {what}") for what in ("prompt", "response"))
    sampling = 7e6 / 1.3 * (prompt + 4 * response) / 3600
    reward = 7e6 * 4 * 768 * 8 * p / peak / 3600
    # Four models are read, and two learn: 8 operations each, activations computed again.
    ppo = 200 * 512 * (prompt + response + 768 * p * (4 * 2 + 2 * 8) / peak) / 3600
    assert large.value("A round", "GPU-hours of a round") == pytest.approx(sampling + reward + ppo, rel=1e-6)
    gpus = {title: large.value("Memory of the trainings", "GPUs for the trainings") for title in ("PPO",)}
    moved = 200 * 2 * p / 50e9 / 3600
    hours = (sampling + ppo) / gpus["PPO"] + reward / 32 + moved
    assert large.value("A round", "hours of a round's machines") == pytest.approx(hours, rel=1e-6)


def test_weights_gradients_and_moments_are_divided_among_gpus(outlines: dict[str, Path]) -> None:
    found = {training.title: training for training in smallest(outlines["70B"], SMALL, find_gpu("H100"))}
    p, ppo = 70_553_706_496, found["PPO"]
    assert (found["SFT"].gpus, ppo.gpus, ppo.drawing) == (32, 56, None)
    assert found["SFT"].learning.weights + found["SFT"].learning.optimizer == pytest.approx(16 * p / 32)
    # Policy and value model are trained; reference and reward model are read, two bytes each.
    assert ppo.learning.weights + ppo.learning.optimizer == pytest.approx((2 * 16 * p + 2 * 2 * p) / 56)
    # The model that learns: embedding, head and its gradient, and of the layers two, and the gradients of two.
    embedding, norm = 128_256 * 8192, 8192
    layer = (p - 2 * embedding - norm) / 80
    assert ppo.learning.gathered == pytest.approx(4 * (2 * embedding + norm + embedding + 4 * layer))
    usable = 0.9 * 80 * 2**30
    assert ppo.needed <= usable < sharded("PPO", _ppo(outlines["70B"]), ppo.gpus - 8, False).needed


def test_drawing_responses_takes_the_whole_policy_on_every_gpu(outlines: dict[str, Path]) -> None:
    p, eight = PARAMETERS["8B"], sharded("PPO", _ppo(outlines["8B"]), 8)
    assert eight.drawing is not None
    # Two trained models with their moments, two that are read; the policy whole beside its share, and in bfloat16.
    assert eight.drawing.weights + eight.drawing.optimizer == pytest.approx((2 * 12 * p + 2 * 2 * p) / 8)
    layer = (p - 2 * 128_256 * 4096 - 4096) / 32
    assert eight.drawing.gathered == pytest.approx(4 * (p + layer) + 2 * p)
    assert eight.learning.total < eight.drawing.total == eight.needed
    found = {training.title: training for training in smallest(outlines["8B"], SMALL, find_gpu("H100"))}
    assert found["PPO"].gpus == 16
    # A reward model's scale is set on samples of SFT, which is read: before there are gradients and moments.
    reward = found["Reward model"]
    assert reward.drawing is not None
    assert reward.drawing.weights == pytest.approx((4 + 2) * p / reward.gpus)
    assert reward.drawing.gathered == pytest.approx(2 * (p + layer))
    assert found["SFT"].drawing is None


@pytest.mark.parametrize("gpus", [1, 8])
def test_a_plan_needs_what_check_memory_says(gpus: int, outlines: dict[str, Path]) -> None:
    from rlhf_dagster.compute.memory import PROCESS, required_bytes

    spec = _ppo(outlines["1B"])
    compute = spec.compute.changed(launch="process", processes=gpus, sharding="full" if gpus > 1 else "none")
    asked_for = required_bytes(replace(spec, compute=compute))
    assert sharded("PPO", spec, gpus).needed == pytest.approx(asked_for - BUFFERS - PROCESS, abs=2)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"compute": {"optimizer": "adamw_8bit"}}, "`compute.optimizer: adamw`"),
        ({"preset": "qlora"}, "`lora.base_bits: null`"),
    ],
)
def test_what_is_not_held_in_parts_is_not_planned_so(
    changes: dict[str, Any], needed: str, outlines: dict[str, Path]
) -> None:
    with pytest.raises(
        UserError, match=f"fit on a GPU of 20 GiB, and is not divided among several: that needs {needed}"
    ):
        smallest(outlines["70B"], LoopConfig.parse({"preset": "small"} | changes, "loop.yaml"), find_gpu("H100", 20))


def test_how_a_loop_trains_now_is_not_asked(outlines: dict[str, Path]) -> None:
    """A plan says itself on how many GPUs, and looks at drawing here and elsewhere."""
    compute = {"launch": "process", "processes": 2, "sharding": "full", "device": "cpu"}
    other = {"rollout_backend": "vllm", "launch": "process"}
    here = smallest(outlines["1B"], SMALL, find_gpu("H100"))
    for changes in (compute, other):
        config = LoopConfig.parse({"preset": "small", "compute": changes}, "loop.yaml")
        assert smallest(outlines["1B"], config, find_gpu("H100")) == here


def test_adapters_fit_on_fewer(outlines: dict[str, Path]) -> None:
    small = {training.title: training.gpus for training in smallest(outlines["8B"], ADAPTERS, find_gpu("H100"))}
    large = {training.title: training.gpus for training in smallest(outlines["70B"], ADAPTERS, find_gpu("H100"))}
    assert set(small.values()) == {1}
    assert all(2 <= gpus <= 8 for gpus in large.values())


def test_what_is_small_stays_on_one_host(outlines: dict[str, Path]) -> None:
    plan = plan_on_paper(asked("1B", labels_per_day=2000, prompts_per_second=1), SMALL, outlines["1B"])
    assert plan.advice[0] == "Every part fits on one host: nothing has to move."
    assert all(part.times <= 1 for part in plan.parts)


def test_what_is_large_moves_in_the_order_of_need(large: PaperPlan) -> None:
    assert [part.name for part in large.parts][:3] == ["serving", "files", "training"]
    assert large.advice[0].startswith("What runs on more than one host needs its files in a bucket (`root`)")
    assert [sentence.split(":")[0] for sentence in large.advice[1:-1]] == [
        part.name for part in large.parts if part.times > 1
    ]
    assert large.advice[-1].startswith("Reward model and PPO: the whole policy does not fit on a GPU while it draws")


def test_a_question_that_has_no_answer_is_refused(outlines: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="--labels-per-day is 0; give a number above 0"):
        asked("8B", labels_per_day=0)
    with pytest.raises(UserError, match="--gpu-gib is -1"):
        PlanQuestion("8B", 1, 1, find_gpu("H100", -1))
    with pytest.raises(UserError, match="choose one of A100, H100, H200"):
        find_gpu("H9000")
    with pytest.raises(UserError, match="SFT does not fit on 1,024 GPUs of 4 GiB"):
        plan_on_paper(PlanQuestion("70B", 1, 1, find_gpu("H100", 4)), SMALL, outlines["70B"])
    with (
        pytest.raises(UserError, match=r"9B is neither a size that is known here \(1B, 3B, 7B"),
        outline_of_size("9B"),
    ):
        pass


def _ppo(model: Path):
    from rlhf_dagster.compute.stages import loop_specs
    from rlhf_dagster.planning.training import at_size

    return loop_specs(model, at_size(SMALL))["PPO"]
