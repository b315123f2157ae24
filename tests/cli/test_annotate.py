import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from batches import answers, expected, open_loop, send
from forks import forked
from loops import ROUND, open_runner, write_loop

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.cli.labels.annotate import give_labels
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder


@pytest.fixture
def loop(tmp_path) -> LoopFolder:
    return open_loop(tmp_path / "loop")


@pytest.mark.parametrize("per_minute", [None, 60_000.0])
def test_the_newest_round_is_answered(loop, tmp_path, capsys, per_minute) -> None:
    assert open_next_round(open_runner(loop.root).instance, loop) == ROUND
    send(loop, 12)
    give_labels(loop.root, None, None, None, per_minute, follow=False)
    assert answers(loop) == expected(tmp_path / "other", 12)
    counts = loop.label_store.count(ROUND, "train")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{ROUND}: {counts.usable} usable labels on 12 of 12 comparisons."
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ((None, None, "writing", None, False), "--purpose writing"),
        ((None, None, None, 0.0, True), "--per-minute 0"),
        ((None, None, None, -3.0, False), "--per-minute -3"),
        ((None, None, None, float("nan"), True), "--per-minute nan"),
        ((None, None, None, None, False), "No round is open"),
        (("round-0007", None, None, None, True), "No round is open"),
    ],
)
def test_wrong_options_are_one_sentence(loop, options, part) -> None:
    with pytest.raises(UserError, match=part):
        give_labels(loop.root, *options)


def test_where_people_label_nobody_is_simulated(tmp_path) -> None:
    folder = write_loop(tmp_path, data={"source": "imports"}, label_store={"simulated_annotators": False})
    with pytest.raises(UserError, match="here people label"):
        give_labels(folder, None, None, None, 1.0, follow=True)


def follow(loop: LoopFolder, output: Path) -> ForkServerProcess:
    return forked(give_labels, loop.root, None, None, None, 6000.0, True, output=output)


def wait_for_labels(loop: LoopFolder, n: int, process: ForkServerProcess) -> None:
    while loop.label_store.count(ROUND, "train").labels < n:
        assert process.is_alive()
        time.sleep(0.02)


def test_followers_killed_and_stopped_in_the_middle_go_on(loop, tmp_path) -> None:
    send(loop, 40)
    for least in (10, 30):
        process = follow(loop, tmp_path / f"killed-{least}")
        wait_for_labels(loop, least, process)
        process.kill()
        process.join()
    process = follow(loop, tmp_path / "stopped")
    whole = expected(tmp_path / "other", 40)
    wait_for_labels(loop, whole.total(), process)
    process.terminate()
    process.join()
    assert process.exitcode == 0
    first, *_, last = (tmp_path / "stopped.out").read_text().splitlines()
    assert first == "Annotators label every open round, at most 6000 labels a minute on average (Ctrl-C stops them)."
    assert last.startswith("Stopped after ")
    assert answers(loop) == whole
