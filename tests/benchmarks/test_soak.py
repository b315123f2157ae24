"""What a soak looks at, without the hours: `python -m benchmarks.soak` lives them."""

from collections import Counter
from pathlib import Path

import pytest
from dagster._utils.error import SerializableErrorInfo

from benchmarks.soak.checks import _outcome, given_labels
from benchmarks.soak.living import MOST_STANDING, Living, Record, living_loops
from benchmarks.soak.series import FEWEST, growth, keep, kept


def error(name: str, cause: SerializableErrorInfo | None = None) -> SerializableErrorInfo:
    return SerializableErrorInfo("m", [], name, cause)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (error("SensorExecutionError", error("TickFailed")), "failed in a sentence"),
        (error("DagsterUserCodeUnreachableError", error("_InactiveRpcError")), "code server away"),
        (error("SensorExecutionError", error("KeyError")), "traceback"),
    ],
)
def test_a_tick_that_no_sentence_explains_is_told_from_the_others(found: SerializableErrorInfo, outcome: str) -> None:
    assert _outcome(found) == outcome


def test_labels_that_were_confirmed_are_counted_over_all_runs(tmp_path: Path) -> None:
    said = (
        "Annotators label every open round, at most 40 labels a minute (Ctrl-C stops them).\n"
        "round-0001, train: 1,200 labels given, 3 to go\n"
        "round-0001, evaluation: 1 label given, 0 to go\n"
    )
    (tmp_path / "annotators.log").write_text(said * 2, encoding="utf-8")
    given = given_labels(Living(tmp_path, 1, 2))
    assert given == Counter({("round-0001", "train"): 2400, ("round-0001", "evaluation"): 2})


def test_what_grows_without_end_is_said_and_what_settles_is_not(tmp_path: Path) -> None:
    for minute in range(3 * FEWEST):
        keep(tmp_path, "loop0", minute, {"daemon, MiB": 200 + 30 * minute, "web server, MiB": min(150 + minute, 160)})
    (tmp_path / "samples.jsonl").open("a").write('{"loop": "loop0", "sec')  # its soak was killed
    assert growth(kept(tmp_path)["loop0"]) == ["daemon, MiB: 545, then 785"]


def test_a_soak_finds_its_loops_again(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None
    Record(3, [(1, 2), (3, 4)], 1, 60.5, {"ui": 2}, ["p"]).write(tmp_path)
    found = Record.read(tmp_path)
    assert found == Record(3, [[1, 2], [3, 4]], 1, 60.5, {"ui": 2}, ["p"])
    assert [(one.root.name, one.port, one.label_port) for one in living_loops(tmp_path, found)] == [
        ("loop0", 1, 2),
        ("loop1", 3, 4),
    ]


def test_a_round_that_stands_still_is_said() -> None:
    record = Record(0, [])
    waits = {"round-0001": "promoted. ", "round-0002": "labelling. waits for annotators"}
    assert record.stands("loop0", waits) == []
    record.seconds += MOST_STANDING + 1
    assert record.stands("loop0", waits) == ["round-0002 has not moved for 45 minutes: labelling. waits for annotators"]
    assert record.stands("loop0", {"round-0002": "trained. waits for its judges"}) == []
