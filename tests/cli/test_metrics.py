"""`rlhf metrics`: the numbers of a loop that was written by hand, in the text that Prometheus takes."""

import math
import re
import shutil
from pathlib import Path

import dagster as dg
import pytest
from batches import open_loop, send
from gate_figures import report as good_report
from loops import rlhf_here, write_loop
from rounds_on_disk import key, promote, refuse, register, report, store

from rlhf_dagster.assets.rounds import add_partition
from rlhf_dagster.automation.instance import open_instance
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.lineage.stop_cord import pull
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels, simulate
from rlhf_dagster.loop.reporting.prometheus import Gauge, prometheus_text

Values = dict[str, float]
"""By name, with what stands in braces but for the loop."""
VALUE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Reads the text as strictly as it is defined: HELP, TYPE, and then the values of that name alone."""
    assert text.endswith("\n")
    found, seen, name = {}, set(), ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in seen, f"{name} is there twice"
            seen.add(name)
            typed = False
        elif line.startswith("#"):
            assert (line, typed) == (f"# TYPE {name} gauge", False)
            typed = True
        else:
            match = VALUE.fullmatch(line)
            assert match, line
            assert (match["name"], typed) == (name, True), line
            inside = match["labels"] or ""
            labels = LABEL.findall(inside)
            assert "".join(m[0] for m in LABEL.finditer(inside)) == inside, line
            assert len({label for label, _ in labels}) == len(labels), line
            one = (name, tuple((label, re.sub(r"\\.", lambda m: ESCAPES[m[0]], said)) for label, said in labels))
            assert one not in found, line
            found[one] = float(match["value"].replace("Inf", "inf"))
    return found


def values_of(text: str, loop: str = "small") -> Values:
    found = {}
    for (name, labels), value in parsed(text).items():
        (first, said), *rest = labels
        assert (first, said) == ("loop", loop)
        found[" ".join([name, *(f"{label}={text}" for label, text in rest)])] = value
    return found


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """Round 1 was promoted, round 2 refused, round 3 is labelled in part and round 4 opened."""
    loop = open_loop(tmp_path / "loop")
    register(loop, "sft", "")
    loop.registry.set_initial("sft")
    for number in (1, 2, 3):
        send(loop, 20, key(number))
        if number < 3:
            simulate(loop, key(number), "train", Progress("annotate", print))
    promote(loop, key(1), "p1")
    return loop


def opened(loop: LoopFolder, rounds: int) -> None:
    with open_instance(loop) as instance:
        for number in range(1, rounds + 1):
            add_partition(instance, loop, key(number))


def test_the_numbers_of_a_loop(loop: LoopFolder) -> None:
    refuse(loop, key(2), "p2")
    store(loop, "eval_report", key(2), report("p2", labels_read={"position": loop.ledger.position()}))
    first, second, third = loop.ledger.comparisons(key(3), "train")["comparison_id"][:3]
    loop.ledger.submit(first, "Ada", {"choice": 1})
    loop.ledger.submit(second, "Ada", {"choice": "left"})  # no answer of a pair
    loop.ledger.skip(third, "Ada")
    read_labels(loop, key(3), "train")
    opened(loop, 4)
    with open_instance(loop) as instance:
        for asset, where in (("prompts", None), ("preference_batch", key(3)), ("preference_batch", key(2))):
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=where))
        made = {
            where: instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey("preference_batch"), asset_partitions=[where]), limit=1
            )
            .records[0]
            .timestamp
            for where in (key(2), key(3))
        }
    result = rlhf_here("metrics", loop.root)
    assert (result.returncode, result.stderr) == (0, "")
    found = values_of(result.stdout)
    count = {number: loop.label_store.count(key(number), "train") for number in (1, 2, 3)}
    assert {
        name.removeprefix("rlhf_rounds state="): value for name, value in found.items() if "rlhf_rounds" in name
    } == {
        "opened": 1,
        "labelling": 1,
        "trained": 0,
        "judging": 0,
        "approval": 0,
        "promoted": 1,
        "refused": 1,
        "closed": 0,
    }
    assert found["rlhf_labels_usable"] == count[1].usable + count[2].usable + 1
    assert found["rlhf_labels_pending"] == 1
    assert (found["rlhf_labels_quarantined"], found["rlhf_labels_skipped"]) == (1, 1)
    assert found["rlhf_comparisons_waiting purpose=train"] == 20 - count[3].complete
    assert found["rlhf_comparisons_waiting purpose=evaluation"] == 0
    oldest = "rlhf_comparisons_waiting_oldest_timestamp_seconds purpose"
    assert (found[f"{oldest}=train"], f"{oldest}=evaluation" in found) == (made[key(3)], False)
    assert found["rlhf_stage_last_success_timestamp_seconds stage=preference_batch"] == made[key(2)]
    assert "rlhf_stage_last_success_timestamp_seconds stage=reward_model" not in found
    assert found["rlhf_champion_info policy=p1 round=round-0001"] == 1
    assert found["rlhf_champion_win_rate against=sft judge=gold judge"] == 1
    assert found["rlhf_champion_win_rate against=behaviour judge=reward model"] == 0.8
    assert found["rlhf_champion_kl_nats"] == 6
    assert found["rlhf_models"] == 2
    sizes = [file.stat().st_size for file in (loop.root / "models").rglob("*") if file.is_file()]
    assert found["rlhf_models_bytes"] == found["rlhf_disk_used_bytes folder=models"] == sum(sizes)
    assert found["rlhf_disk_free_bytes"] == pytest.approx(shutil.disk_usage(loop.root).free, rel=0.1)
    assert (found["rlhf_label_store_up"], found["rlhf_stopped"], found["rlhf_runs status=FAILURE"]) == (1, 0, 0)
    assert found["rlhf_daemon_heartbeat_timestamp_seconds"] == 0
    assert {value for name, value in found.items() if "rlhf_readable" in name} == {1}


def test_judgments_that_are_waited_for(loop: LoopFolder) -> None:
    passing = good_report() | {"policy_id": "p2"}
    store(loop, "eval_report", key(2), passing | {"labels_read": {"position": loop.ledger.position()}})
    send(loop, 8, key(2), "evaluation")
    batch = loop.table("evaluation_batch", key(2))
    assert batch is not None
    batch["policy_ids"] = [["p2", "sft"]] * len(batch)
    batch.to_parquet(loop.root / loop.asset_key("evaluation_batch", key(2)))
    pull(loop.store, "Ada", "too rude")
    opened(loop, 2)
    found = values_of(rlhf_here("metrics", loop.root).stdout)
    assert found["rlhf_rounds state=judging"] == found["rlhf_stopped"] == 1
    assert found["rlhf_comparisons_waiting purpose=evaluation"] == 8
    assert found["rlhf_labels_pending"] == 0


def test_a_label_server_that_is_down_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "none")
    server = {"kind": "label_studio", "url": "http://127.0.0.1:9", "simulated_annotators": False}
    folder = write_loop(tmp_path / "loop", label_store=server)
    opened(LoopFolder.open(folder), 1)
    result = rlhf_here("metrics", folder)
    assert (result.returncode, result.stderr) == (0, "")
    found = values_of(result.stdout)
    assert (found["rlhf_label_store_up"], found["rlhf_rounds state=opened"]) == (0, 1)


def test_a_part_that_cannot_be_read_is_left_out_and_said(loop: LoopFolder) -> None:
    opened(loop, 3)
    (loop.root / "registry" / "policies" / "p1.json").write_text("{}")
    result = rlhf_here("metrics", loop.root)
    assert result.returncode == 1
    assert result.stderr.startswith("The metrics of champion are left out. registry/policies/p1.json")
    found = values_of(result.stdout)
    assert (found["rlhf_readable part=champion"], found["rlhf_readable part=rounds"]) == (0, 1)
    assert not [name for name in found if name.startswith("rlhf_champion")]


def test_the_file_is_replaced_whole(loop: LoopFolder, tmp_path: Path) -> None:
    out = tmp_path / "textfile" / "loop.prom"
    result = rlhf_here("metrics", loop.root, "--out", out)
    assert result.returncode == 2
    assert "there is no folder" in result.stderr
    out.parent.mkdir()
    out.write_text("old")
    result = rlhf_here("metrics", loop.root, "--out", out)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert values_of(out.read_text())["rlhf_metrics_timestamp_seconds"] > 1e9
    assert [path.name for path in out.parent.iterdir()] == ["loop.prom"]
    assert out.stat().st_mode & 0o777 == 0o644, "the collector is another user"
    result = rlhf_here("metrics", loop.root, "--out", out.with_suffix(".txt"))
    assert result.returncode == 2
    assert "node_exporter reads files that end in .prom alone" in result.stderr


def test_whatever_a_label_says_comes_back() -> None:
    said = ['a "b"', "back\\slash", "two\nlines", "ends in \\", '{x="1"} 2', ""]
    values = {text: float(place) for place, text in enumerate(said)}
    text = prometheus_text([Gauge.by("rlhf_a", "Help with \\ and\na line.", "what", values)], loop='"\\\n')
    loop = ("loop", '"\\\n')
    assert parsed(text) == {("rlhf_a", (loop, ("what", text))): value for text, value in values.items()}
    assert r"# HELP rlhf_a Help with \\ and\na line." in text.splitlines()


def test_numbers_that_are_not_finite_and_large_ones() -> None:
    values = dict(zip("abcd", (math.inf, -math.inf, 1764460800.123456, 1e22), strict=True))
    text = prometheus_text([Gauge.by("x", "X.", "l", values)])
    assert [line.split(" ")[1] for line in text.splitlines()[2:]] == ["+Inf", "-Inf", "1764460800.123456", "1e+22"]
    assert prometheus_text([Gauge.of("x", "X.", math.nan)]).endswith("\nx NaN\n")


@pytest.mark.parametrize(
    "gauges",
    [
        [Gauge.of("x", "X.", 1), Gauge.of("x", "X.", 2)],
        [Gauge.of("1x", "X.", 1)],
        [Gauge.by("x", "X.", "loop", {"a": 1})],
        [Gauge.by("x", "X.", "__name", {"a": 1})],
    ],
)
def test_what_prometheus_would_not_take_is_not_written(gauges: list[Gauge]) -> None:
    with pytest.raises(ValueError, match="there twice"):
        prometheus_text(gauges, loop="small")
