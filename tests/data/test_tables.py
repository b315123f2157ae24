import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from people import pseudonym

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.data.tables import build_demonstrations, build_pretraining_text, build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import demonstration_id, prompt_id, split_of
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PRETRAINING_TEXT, PROMPTS, table
from rlhf_dagster.storage.local import LocalStore

IMPORTS = {"label_store": {"simulated_annotators": False}}


def config(**data: Any) -> LoopConfig:
    return LoopConfig(data={"prompts": 300, "demonstrations": 100, "pretraining_texts": 100} | data)


def prompts_of(settings: LoopConfig, root: Path) -> pd.DataFrame:
    return build_prompts(settings, root, LocalStore(root))


def imported(**data: Any) -> LoopConfig:
    return LoopConfig(data={"source": "imports"} | data, **IMPORTS)


def load(root: Path, kind: Any, records: list[dict[str, Any]]) -> None:
    file = root / f"{kind}.jsonl"
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert not import_file(kind, file, LocalStore(root)).refused


def has_schema(frame: pd.DataFrame, schema: pa.Schema) -> bool:
    identity = schema.names[0]
    return table(frame, schema).to_pandas().equals(frame) and frame[identity].is_monotonic_increasing


NO_PROMPTS = pd.DataFrame(columns=PROMPTS.names)


@pytest.fixture(scope="module")
def task_tables(tmp_path_factory):
    root, settings = tmp_path_factory.mktemp("task"), config()
    prompts = prompts_of(settings, root)
    demonstrations, _ = build_demonstrations(settings, root, LocalStore(root), prompts)
    return prompts, demonstrations, build_pretraining_text(settings, root, demonstrations)


def test_the_task_s_tables_have_their_sizes_and_schemas(task_tables) -> None:
    prompts, demonstrations, text = task_tables
    assert has_schema(prompts, PROMPTS)
    assert has_schema(demonstrations, DEMONSTRATIONS)
    assert has_schema(text, PRETRAINING_TEXT)
    assert prompts["split"].value_counts().to_dict() == {"train": 240, "validation": 30, "test": 30}
    assert demonstrations["split"].value_counts().to_dict() == {"train": 80, "validation": 10}
    assert text["split"].value_counts().to_dict() == {"train": 100, "validation": 5}


def test_no_prompt_is_in_two_splits_of_any_table(task_tables) -> None:
    prompts, demonstrations, text = task_tables
    assert prompts["text"].is_unique
    assert (prompts["prompt_id"] == prompts["text"].map(prompt_id)).all()
    split = dict(zip(prompts["text"], prompts["split"], strict=True))
    both = demonstrations[demonstrations["prompt"].isin(split)]
    assert (both["prompt"].map(split) == both["split"]).all()
    test = tuple(text for text, found in split.items() if found == "test")
    assert not set(demonstrations["prompt"]) & set(test)
    assert not any(document.startswith(test) for document in text["text"])


def test_the_seed_decides_prompts_but_not_the_base_models_text(tmp_path) -> None:
    one, two = LoopConfig(seed=1, data=config().data), LoopConfig(seed=2, data=config().data)
    assert prompts_of(one, tmp_path).equals(prompts_of(one, tmp_path))
    assert not prompts_of(one, tmp_path).equals(prompts_of(two, tmp_path))
    assert build_pretraining_text(one, tmp_path, NO_PROMPTS).equals(build_pretraining_text(two, tmp_path, NO_PROMPTS))


def test_imported_prompts_split_by_user_or_text_with_the_configs_shares(tmp_path) -> None:
    load(tmp_path, "prompts", [{"prompt": f"{user} asks {n}", "user": user} for user in "abcdefgh" for n in range(20)])
    load(tmp_path, "prompts", [{"prompt": f"anonymous {n}"} for n in range(400)])
    frame = prompts_of(imported(validation=0.0, test=0.5), tmp_path)
    assert has_schema(frame, PROMPTS)
    assert len(frame) == 560
    users = frame[frame["user"] != ""].groupby("user")["split"]
    assert (users.nunique() == 1).all()
    assert set(users.first()) == {"train", "test"}
    # Half of 400, give or take five standard deviations.
    assert abs((frame.loc[frame["user"] == "", "split"] == "test").sum() - 200) < 50
    assert "validation" not in set(frame["split"])


def test_no_demonstration_is_about_a_test_prompt_also_where_users_decide_the_split(tmp_path) -> None:
    asked = [{"prompt": f"{user} asks {n}", "user": user} for user in map(str, range(30)) for n in range(3)]
    load(tmp_path, "prompts", asked)
    load(tmp_path, "demonstrations", [{"prompt": row["prompt"], "response": "an answer"} for row in asked])
    load(tmp_path, "demonstrations", [{"prompt": f"nobody asks {n}", "response": "anyway"} for n in range(100)])
    settings = imported(test=0.4)
    prompts = prompts_of(settings, tmp_path)
    split = dict(zip(prompts["text"], prompts["split"], strict=True))
    frame, left_out = build_demonstrations(settings, tmp_path, LocalStore(tmp_path), prompts)
    assert has_schema(frame, DEMONSTRATIONS)
    assert len(frame) + len(left_out) == len(asked) + 100
    known = frame[frame["prompt"].isin(split)]
    assert set(known["prompt"]) == {text for text, found in split.items() if found != "test"}
    assert (known["prompt"].map(split) == known["split"]).all()
    assert 40 < len(frame) - len(known) < 80  # 60 of 100, give or take four standard deviations


def test_a_demonstration_is_held_out_with_its_user(tmp_path) -> None:
    users = [str(user) for user in range(30)]
    load(tmp_path, "prompts", [{"prompt": f"{user} asks", "user": user} for user in users])
    own = [{"prompt": f"{user} writes {n}", "response": "r", "user": user} for user in users for n in range(4)]
    load(tmp_path, "demonstrations", own)
    settings = imported(validation=0.2, test=0.3)
    prompts = prompts_of(settings, tmp_path)
    split = {text.split()[0]: found for text, found in zip(prompts["text"], prompts["split"], strict=True)}
    assert set(split.values()) == {"train", "validation", "test"}
    frame, _ = build_demonstrations(settings, tmp_path, LocalStore(tmp_path), prompts)
    assert [split[prompt.split()[0]] for prompt in frame["prompt"]] == frame["split"].tolist()
    assert len(frame) == 4 * sum(found != "test" for found in split.values())


@pytest.mark.parametrize(("asked", "expected"), [("train", "user"), ("validation", "validation"), ("test", "test")])
def test_of_a_users_and_a_prompts_split_the_one_held_out_further_counts(tmp_path, asked, expected) -> None:
    answers = [{"prompt": "shared", "response": str(user), "user": str(user)} for user in range(40)]
    load(tmp_path, "demonstrations", answers)
    prompts = pd.DataFrame([{"prompt_id": prompt_id("shared"), "text": "shared", "split": asked}])
    settings = imported(validation=0.3, test=0.3)
    if expected == "test":
        with pytest.raises(UserError, match="No demonstrations"):
            build_demonstrations(settings, tmp_path, LocalStore(tmp_path), prompts)
        return
    frame, _ = build_demonstrations(settings, tmp_path, LocalStore(tmp_path), prompts)
    by_user = {str(user): split_of(pseudonym(str(user)), 0.3, 0.3) for user in range(40)}
    kept = {user: expected if expected != "user" else found for user, found in by_user.items() if found != "test"}
    assert dict(zip(frame["response"], frame["split"], strict=True)) == kept


def test_the_same_pair_is_kept_once(tmp_path) -> None:
    load(tmp_path, "demonstrations", [{"prompt": "p", "response": response} for response in ("a", "b", "a")])
    frame, _ = build_demonstrations(imported(test=0.0, validation=0.0), tmp_path, LocalStore(tmp_path), NO_PROMPTS)
    assert set(frame["demonstration_id"]) == {demonstration_id("p", "a"), demonstration_id("p", "b")}


def test_demonstrations_are_the_pretraining_text_of_imports_unless_files_are_given(tmp_path) -> None:
    load(tmp_path, "demonstrations", [{"prompt": f"p{n}", "response": "r"} for n in range(40)])
    settings = imported(test=0.0, validation=0.5)
    demonstrations, _ = build_demonstrations(settings, tmp_path, LocalStore(tmp_path), NO_PROMPTS)
    text = build_pretraining_text(settings, tmp_path, demonstrations)
    assert has_schema(text, PRETRAINING_TEXT)
    train = demonstrations.loc[demonstrations["split"] == "train", "prompt"]
    assert 0 < len(train) < 40
    assert set(text["text"]) == {f"{prompt}\nr" for prompt in train}
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\none\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": "two"}\n', encoding="utf-8")
    files = imported(pretraining_files=["a.txt", "b.jsonl"])
    text = build_pretraining_text(files, tmp_path, demonstrations)
    assert dict(zip(text["text"], text["source"], strict=True)) == {"one": "a.txt", "two": "a.txt", "three": "b.jsonl"}


def test_a_data_set_replaces_one_table_and_keeps_users_together(tmp_path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "asked").mkdir()
    rows = [{"q": f"{user} asks {n % 4}", "a": f"answer {n}", "by": user} for user in "abcdefghij" for n in range(8)]
    (tmp_path / "asked" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = {"name": "asked", "prompt": "q", "response": "a", "text": "a", "user": "by"}
    settings = config(prompts_dataset=source, demonstrations_dataset=source, pretraining_dataset=source, test=0.4)
    prompts = prompts_of(settings, tmp_path)
    assert has_schema(prompts, PROMPTS)
    assert set(prompts["text"]) == {row["q"] for row in rows}
    by_user = prompts.groupby("user")["split"]
    assert len(by_user) == 10
    assert (by_user.nunique() == 1).all()
    assert not set(prompts["user"]) & set("abcdefghij")
    demonstrations, _ = build_demonstrations(settings, tmp_path, LocalStore(tmp_path), prompts)
    test = set(prompts.loc[prompts["split"] == "test", "text"])
    assert test
    assert set(demonstrations["prompt"]) == set(prompts["text"]) - test
    assert set(build_pretraining_text(settings, tmp_path, demonstrations)["text"]) == {f"answer {n}" for n in range(8)}


def test_a_person_is_in_one_split_whether_imported_or_of_a_data_set(tmp_path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "answered").mkdir()
    rows = [{"q": f"{user} answers", "a": "answer", "by": user} for user in range(30)]
    (tmp_path / "answered" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    load(tmp_path, "prompts", [{"prompt": f"{user} asks", "user": str(user)} for user in range(30)])
    source = {"name": "answered", "prompt": "q", "response": "a", "user": "by"}
    settings = imported(demonstrations_dataset=source, test=0.4)
    prompts = prompts_of(settings, tmp_path)
    split = {text.split()[0]: found for text, found in zip(prompts["text"], prompts["split"], strict=True)}
    frame, _ = build_demonstrations(settings, tmp_path, LocalStore(tmp_path), prompts)
    assert {prompt.split()[0]: found for prompt, found in zip(frame["prompt"], frame["split"], strict=True)} == {
        user: found for user, found in split.items() if found != "test"
    }


def test_an_import_of_an_older_form_is_one_sentence(tmp_path) -> None:
    (tmp_path / "imports").mkdir()
    for kind, schema in (("prompts", PROMPTS), ("demonstrations", DEMONSTRATIONS)):
        schema.empty_table().to_pandas().to_parquet(tmp_path / "imports" / f"{kind}.parquet")
    for build in (prompts_of, _demonstrations):
        with pytest.raises(UserError, match=r"not a table of imported records .*; move it away and import again"):
            build(imported(), tmp_path)


def test_nothing_to_work_with_is_one_sentence(tmp_path) -> None:
    for build, kind in [(prompts_of, "prompts"), (_demonstrations, "demonstrations")]:
        with pytest.raises(UserError, match=f"{kind}.parquet: nothing imported yet; run `rlhf import {kind} FILE"):
            build(imported(), tmp_path)
    (tmp_path / "blank.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"No pretraining text: the source is empty; check `data`"):
        build_pretraining_text(config(pretraining_files=["blank.txt"]), tmp_path, NO_PROMPTS)
    with pytest.raises(UserError, match="No demonstrations"):
        _demonstrations(config(validation=0.0, test=0.99, demonstrations=1), tmp_path)


def _demonstrations(settings: LoopConfig, root: Path) -> pd.DataFrame:
    return build_demonstrations(settings, root, LocalStore(root), NO_PROMPTS)
