"""The figures of docs/scale.md are those of `rlhf plan`."""

import re
from pathlib import Path

import pytest
from compose_file import DEPLOY
from planning.test_plan import ADAPTERS, SMALL, asked

from rlhf_dagster.cli.sizing.outlines import outline_of_size
from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import number_text
from rlhf_dagster.planning.plan import PaperPlan, plan_on_paper
from rlhf_dagster.planning.training import at_size, sharded

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
COLUMNS = [("8B", "all"), ("8B", "adapters"), ("70B", "all"), ("70B", "adapters")]
ROWS = [
    ("People", "annotators", "annotators"),
    ("Ledger and label server", "ledger a day", "ledger a day, GB"),
    ("Memory of the trainings", "SFT", "SFT: GPUs, GB of each"),
    ("Memory of the trainings", "Reward model", "reward model: GPUs, GB of each"),
    ("Memory of the trainings", "PPO", "PPO: GPUs, GB of each"),
    ("Memory of the trainings", "DPO", "DPO: GPUs, GB of each"),
    ("Generation", "GPUs of an engine", "GPUs of an engine"),
    ("Generation", "tokens a second of a GPU", "tokens a second of a GPU"),
    ("Serving the champion", "GPUs that serve", "GPUs that serve"),
    ("A round", "GPU-hours to sample them", "GPU-hours of a round: sampling"),
    ("A round", "GPU-hours of the reward model", "reward model"),
    ("A round", "GPU-hours of PPO", "PPO"),
    ("A round", "hours of a round's machines", "hours of a round's machines"),
    ("A round", "GPUs that do them in a day", "GPUs that do them in a day"),
    ("Storage", "a round", "a round in the bucket, GB"),
    ("Storage", "a state of PPO, while it trains", "a state of PPO, GB"),
]
SHOWN = ["Generation", "Serving the champion", "A round"]
"""Sheets whose lines the page has for 70B."""


@pytest.fixture(scope="module")
def plans() -> dict[tuple[str, str], PaperPlan]:
    made = {}
    for size, train in COLUMNS:
        with outline_of_size(size) as folder:
            made[size, train] = plan_on_paper(asked(size), {"all": SMALL, "adapters": ADAPTERS}[train], folder)
    return made


def table(plans: dict[tuple[str, str], PaperPlan]) -> str:
    """The page's table of plans."""
    head = "| | " + " | ".join(f"{size}, {train}" for size, train in COLUMNS) + " |"
    rows = [
        f"| {title} | " + " | ".join(figure(plans[column], sheet, line) for column in COLUMNS) + " |"
        for sheet, line, title in ROWS
    ]
    return "\n".join([head, "|---" * (len(COLUMNS) + 1) + "|", *rows])


def figure(plan: PaperPlan, sheet: str, line: str) -> str:
    if sheet != "Memory of the trainings":
        return number_text(round(plan.value(sheet, line), 1))
    (found,) = (one for one in plan.sheets if one.title == sheet)
    learning, *drawing = (one for one in found.lines if one.name.startswith((f"{line}: a GPU of", f"{line}: the same")))
    most = max(one.value for one in (learning, *drawing))
    return f"{learning.name.rsplit(' ', 1)[1]}, {number_text(round(most, 1))}"


def lines(plan: PaperPlan) -> str:
    """The computed lines of the sheets that the page shows."""
    shown = [line for sheet in plan.sheets if sheet.title in SHOWN for line in sheet.lines if line.computed]
    width = max(len(line.name) for line in shown)
    texts = (f"{line.name:{width}}  {number_text(line.value):>14} {line.unit:8}= {line.how}" for line in shown)
    return "```\n" + "\n".join(texts) + "\n```"


def test_the_table_and_the_lines_are_those_of_the_command(plans: dict[tuple[str, str], PaperPlan]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table(plans) in page
    assert lines(plans["70B", "all"]) in page


def test_the_sentences_say_what_the_plan_says(plans: dict[tuple[str, str], PaperPlan]) -> None:
    page, large = PAGE.read_text(encoding="utf-8"), plans["70B", "all"]
    assert f"{large.value('People', 'annotators'):,.0f} people" in page
    assert large.value("Ledger and label server", "rows of the ledger a day") / 1e6 == pytest.approx(1.8, abs=0.05)
    assert large.value("Ledger and label server", "ledger a year") / 1e3 == pytest.approx(1.8, abs=0.05)
    assert f"{constants.LEDGER_RATE.value:,} labels a second" in page
    assert SMALL.ppo.updates * SMALL.ppo.batch_size == 102_400
    reward, ppo = (large.value("A round", f"GPU-hours of {name}") for name in ("the reward model", "PPO"))
    assert reward / ppo == pytest.approx(84, abs=25)
    assert large.value("Memory of the trainings", "GPUs for the trainings") == 7 * 8
    assert plans["70B", "adapters"].value("Memory of the trainings", "GPUs for the trainings") == 8
    assert "engines of their own have to draw them" in large.advice[-1]


def test_the_memory_of_70_billion_parameters_is_what_the_command_computes(
    plans: dict[tuple[str, str], PaperPlan],
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (sheet,) = (one for one in plans["70B", "all"].sheets if one.title == "Memory of the trainings")
    computed = [line for line in sheet.lines if ": a GPU of" in line.name]
    assert len(computed) == 4
    for line in computed:
        title = line.name.split(":")[0]
        title = title if title.isupper() else title.lower()
        assert f"{title:13} {number_text(line.value):>6} = {line.how}\n" in page


def test_what_is_whole_for_a_time_by_hand() -> None:
    page, embedding, layer = PAGE.read_text(encoding="utf-8"), 128_256 * 8192 * 4 / 1e9, 855_654_400 * 4 / 1e9
    assert f"embedding and output head ({2 * embedding:.1f} GB in float32)" in page
    assert f"gradient ({embedding:.1f}), and of the layers ({layer:.1f} GB each)" in page
    whole = 3 * embedding + 4 * layer
    assert f"{whole:.1f} are whole for a time" in page
    assert f"each has 77 GB: {(2 * 16 + 2 * 2) * 70.5537 / 56:.1f} are its share" in page


def test_what_8b_needs_to_learn_and_to_draw_on_one_host() -> None:
    with outline_of_size("8B") as folder:
        eight = sharded("PPO", loop_specs(folder, at_size(SMALL))["PPO"], 8)
    assert eight.drawing is not None
    learning, drawing = (round(moment.total / 1e9) for moment in (eight.learning, eight.drawing))
    page = PAGE.read_text(encoding="utf-8")
    assert f"learn on 8 GPUs with {learning} GB of each, and draws there with {drawing}" in page


def test_what_it_says_of_deploy_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(deploy/[\w./-]+)`", page)) | {"deploy/compose", "deploy/kubernetes"}
    assert [name for name in named if not (DEPLOY.parent / name).exists()] == []
    assert (DEPLOY.parent / "tests" / "integration" / "test_deployment.py").exists()
