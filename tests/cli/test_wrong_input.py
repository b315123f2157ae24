"""What a user can get wrong: each is one sentence on stderr and exit code 2, never a stack trace."""

import json
import os
import shlex
from pathlib import Path

import pytest
import yaml
from loops import assert_one_sentence, rlhf, rlhf_from_a_shell, rlhf_here, write_loop

from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels
from rlhf_dagster.records.round_keys import IMPORT_ROUND

GOOD = {"comparison": "c1", "prompt": "p", "responses": ["a", "b"], "annotator": "Ada", "choice": 0}


def test_a_process_of_its_own_ends_the_same_way(tmp_path) -> None:
    (tmp_path / "file").write_text("{broken")
    loop = write_loop(tmp_path / "loop")
    nothing = rlhf_from_a_shell("demo", "--out", tmp_path / "d", "--rounds", 0)
    assert_one_sentence(nothing, "rlhf: --rounds 0: at least 1 round")
    assert_one_sentence(rlhf("demo", "--out", tmp_path / "file" / "sub"), "cannot write there")
    assert_one_sentence(rlhf("import", "prompts", tmp_path / "file", "--loop", loop), "line 1: not valid JSON")
    assert_one_sentence(rlhf("run", "prepare", "--loop", tmp_path), "loop.yaml: no such file")


def test_a_reason_that_is_no_text_stops_the_loop_and_can_be_shown(tmp_path, monkeypatch) -> None:
    """As from a terminal of another encoding; and a terminal that has no such letters."""
    loop = write_loop(tmp_path / "loop")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:strict")
    said = rlhf_from_a_shell("stop", b"the labels of J\xfcrgen".decode("utf-8", "surrogateescape"), "--loop", loop)
    assert (said.returncode, said.stderr) == (0, "")
    shown = rlhf_from_a_shell("resume", "--loop", loop)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"the labels of J\udcfcrgen" in shown.stdout


def test_rounds_and_seeds(tmp_path) -> None:
    assert_one_sentence(rlhf_here("demo", "--out", tmp_path / "d", "--rounds", 0), "--rounds 0", "at least 1 round")
    assert_one_sentence(rlhf_here("demo", "--out", tmp_path / "d", "--seed", -1), "--seed -1")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("command", [("demo", "--out"), ("init",)])
def test_a_folder_that_cannot_be_written(tmp_path, command) -> None:
    (tmp_path / "file").write_text("a file")
    for folder in (tmp_path / "file" / "sub", "/proc/loop"):
        assert_one_sentence(rlhf_here(*command, folder), str(folder), "cannot write there", "choose another folder")


@pytest.mark.parametrize("name", ["a?b", "a%20b"])
def test_a_folder_whose_name_dagster_would_misread(tmp_path, name) -> None:
    """It would open other files, and say that its records are damaged."""
    assert_one_sentence(
        rlhf_here("init", tmp_path / name), f"{tmp_path / name}: Dagster cannot keep records", "rename it"
    )
    assert not (tmp_path / name).exists()
    assert_one_sentence(rlhf_here("round", "open", "--loop", write_loop(tmp_path / name)), "rename it")


@pytest.mark.parametrize("name", ["a#b", "100%", "a b[bold]", "d[/x]", "two\nlines", "it's; touch x", "$(touch x)"])
def test_a_folder_with_an_odd_name_is_a_folder(tmp_path, name) -> None:
    assert rlhf_here("round", "open", "--loop", write_loop(tmp_path / name)).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


@pytest.mark.parametrize("name", ["a b", "it's; touch x", "$(touch x)", "two\nlines"])
def test_a_command_that_is_said_can_be_copied_whatever_the_folder_is_called(tmp_path, name) -> None:
    folder = write_loop(tmp_path / name)
    said = rlhf_here("stop", "why", "--loop", folder).stdout
    command = said.partition("Next: ")[2]
    assert shlex.split(command) == ["rlhf", "resume", "--loop", str(folder)]
    assert shlex.split(LoopFolder.open(folder).option) == ["--loop", str(folder)]


def test_a_name_that_no_folder_has(tmp_path) -> None:
    assert_one_sentence(rlhf_here("round", "status", "--loop", "a" * 300), "cannot be read (File name too long)")
    assert_one_sentence(rlhf_here("init", "a" * 300), "File name too long; choose a shorter name.")


def test_a_folder_that_holds_something_else(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("not to be mixed with")
    assert_one_sentence(rlhf_here("demo", "--out", tmp_path), f"{tmp_path} exists and is not a demo's folder")
    assert_one_sentence(rlhf_here("demo", "--out", tmp_path / "thesis.txt"), "exists and is not a demo's folder")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_seed_than_the_folder_has(tmp_path) -> None:
    result = rlhf_here("demo", "--out", write_loop(tmp_path), "--seed", 8)
    assert_one_sentence(result, "seed 3", "--seed 3")


def test_a_loop_that_is_not_there(tmp_path) -> None:
    for command in (["run", "prepare"], ["round", "status"], ["round", "open"], ["annotate"], ["ui"]):
        assert_one_sentence(rlhf_here(*command, "--loop", tmp_path), "loop.yaml: no such file; `rlhf init DIR`")
    assert_one_sentence(rlhf_here("import", "prompts", tmp_path, "--loop", tmp_path), "loop.yaml: no such file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sead: 1\n", "`sead` is not a setting; did you mean `seed`?"),
        ("seed: five\n", "`seed`: input should be a valid integer"),
        ("seed: [\n", "not valid YAML"),
        ("- seed\n", "expected a mapping of settings, found list."),
        ("owner: bob\n", "`owner`: must be an e-mail address"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path, text, part) -> None:
    (tmp_path / "loop.yaml").write_text(text)
    assert_one_sentence(rlhf_here("run", "prepare", "--loop", tmp_path), f"{tmp_path / 'loop.yaml'}: ", part)
    assert_one_sentence(rlhf_here("demo", "--out", tmp_path), f"{tmp_path / 'loop.yaml'}: ", part)
    assert [path.name for path in tmp_path.iterdir()] == ["loop.yaml"]


def test_jobs_rounds_and_assets_that_are_not_there(tmp_path) -> None:
    loop = write_loop(tmp_path / "loop")
    assert_one_sentence(rlhf_here("run", "fly", "--loop", loop), "no job fly; choose one of prepare, collect_round")
    assert_one_sentence(rlhf_here("run", "collect_round", "--loop", loop), "No round is open", "`rlhf round open --")
    assert rlhf_here("round", "open", "--loop", loop).returncode == 0
    assert_one_sentence(
        rlhf_here("run", "collect_round", "--loop", loop, "--round", "round-0009"),
        "no round round-0009; open are round-0001",
    )
    for again in ([], ["--again"]):
        result = rlhf_here("run", "prepare", "--loop", loop, "--until", "promotion", *again)
        assert_one_sentence(result, "Job prepare has no asset promotion")
    assert_one_sentence(rlhf_here("annotate", "--loop", loop, "--purpose", "fun"), "--purpose fun")


def test_simulated_annotators_where_people_label(tmp_path) -> None:
    loop = write_loop(tmp_path, data={"source": "imports"}, label_store={"simulated_annotators": False})
    assert_one_sentence(rlhf_here("annotate", "--loop", loop), "here people label")


def test_nothing_imported_yet(tmp_path) -> None:
    loop = write_loop(tmp_path, data={"source": "imports"}, label_store={"simulated_annotators": False})
    result = rlhf("run", "prepare", "--loop", loop)
    assert_one_sentence(result, "prompts failed", "nothing imported yet; run `rlhf import prompts FILE")


def test_init_where_there_is_a_loop_or_no_such_source(tmp_path) -> None:
    assert_one_sentence(rlhf_here("init", write_loop(tmp_path)), "exists already")
    assert_one_sentence(
        rlhf_here("init", tmp_path / "other", "--source", "web"), "--source web: choose one of task, imports"
    )


@pytest.fixture
def loop(tmp_path):
    return write_loop(tmp_path / "loop", data={"source": "imports"}, label_store={"simulated_annotators": False})


def lines(tmp_path, *records: object):
    file = tmp_path / "judgments.jsonl"
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    file.write_text("\n".join(texts), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ("", ["the file is empty"]),
        ("\n \n", ["the file is empty"]),
        ('{"comparison": ', ["line 1: not valid JSON"]),
        (GOOD | {"choice": 2}, ["line 1: `choice` names response 2, but there are only 0 to 1"]),
    ],
)
def test_a_file_of_which_nothing_can_be_used(tmp_path, loop, record, parts) -> None:
    file = lines(tmp_path, record)
    assert_one_sentence(rlhf_here("import", "judgments", file, "--loop", loop), str(file), *parts)


def test_a_judgment_that_contradicts_an_earlier_one_is_its_correction(tmp_path, loop) -> None:
    assert rlhf_here("import", "judgments", lines(tmp_path, GOOD), "--loop", loop).returncode == 0
    result = rlhf_here("import", "judgments", lines(tmp_path, GOOD | {"choice": 1}), "--loop", loop)
    assert (result.returncode, result.stderr) == (0, "")
    labels, _ = read_labels(LoopFolder.open(loop), IMPORT_ROUND, "train")
    assert list(labels.sort_values("version")["latest"]) == [False, True]


def test_bad_lines_among_good_ones_are_refused_with_their_number_and_the_rest_is_kept(tmp_path, loop) -> None:
    file = lines(tmp_path, GOOD, "{", GOOD, GOOD | {"annotator": "Bob", "choice": 5}, GOOD | {"annotator": "Cy"})
    result = rlhf_here("import", "judgments", file, "--loop", loop)
    assert result.returncode == 0
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [f"{file}, line {n}" for n in (2, 4)]
    assert result.stdout.startswith("5 lines read: 2 added, 1 already there, 2 refused.\n")


def test_files_and_kinds_that_are_not_there(tmp_path, loop) -> None:
    assert_one_sentence(
        rlhf_here("import", "judgments", tmp_path / "no.jsonl", "--loop", loop), "no.jsonl: no such file"
    )
    assert_one_sentence(rlhf_here("import", "judgments", tmp_path, "--loop", loop), "no such file")
    file = lines(tmp_path, GOOD)
    assert_one_sentence(
        rlhf_here("import", "pictures", file, "--loop", loop), "pictures cannot be imported; choose one of"
    )
    assert yaml.safe_load((loop / "loop.yaml").read_text())["data"]["source"] == "imports"


def test_tables_of_another_kind_and_what_is_no_file(tmp_path, loop) -> None:
    table = tmp_path / "sales.csv"
    table.write_text("day,shop,sold\n" + "Monday,4,17\n" * 3000)
    os.mkfifo(tmp_path / "pipe")
    for file, part in (
        (table, "its columns (day, shop, sold) are those of no form of judgments"),
        (tmp_path / "pipe", "a pipe, not a file"),
        ("/dev/zero", "a device, not a file"),
    ):
        assert_one_sentence(rlhf_here("import", "judgments", file, "--loop", loop), str(file), part)
    assert_one_sentence(rlhf_here("import", "judgments", "--loop", loop), "No FILE is given")
    unknown = rlhf_here("import", "judgments", table, "--loop", loop, "--column", "prompt")
    assert_one_sentence(unknown, "--column prompt: give our name and that of the file")


def test_an_import_of_which_most_is_refused_is_held_back(tmp_path, loop) -> None:
    file = lines(tmp_path, GOOD, *[GOOD | {"choice": 2}] * 30)
    result = rlhf_here("import", "judgments", file, "--loop", loop)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 11
    assert result.stderr.splitlines()[-1] == "30 times: `choice` names response …, but there are only … to …"
    assert "Nothing is imported: more than half is refused; --partial imports the rest." in result.stdout
    assert "round-0000" not in result.stdout
    assert rlhf_here("import", "judgments", file, "--loop", loop, "--dry-run").returncode == 0
    assert rlhf_here("import", "judgments", file, "--loop", loop, "--partial").returncode == 0
