"""Chats in what is imported: messages beside the text that people read, and nothing that merely looks like messages."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.frames import demonstrations_table, preferences_table, prompts_table
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.data.imported import imported
from rlhf_dagster.data.judgment_forms.own import parse_judgment
from rlhf_dagster.data.line_records import parse_demonstration, parse_gold, parse_prompt
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, response_in
from rlhf_dagster.data.tables import build_demonstrations, build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.records.chats import Chat, Message, prompt_of_row
from rlhf_dagster.records.ids import prompt_id
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import IMPORTED_GOLD, IMPORTED_PROMPTS
from rlhf_dagster.storage.local import LocalStore

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Who are you?"},
]
CHAT = Chat.of(TURNS)
TEXT = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Who are you?"
HI = [{"role": "user", "content": "Hi"}]


def test_a_chat_is_read_from_prompt_or_messages() -> None:
    assert parse_prompt({"prompt": TURNS}).prompt == parse_prompt({"messages": TURNS}).prompt == CHAT
    assert str(CHAT) == TEXT
    assert str(Chat.of(HI)) == "Hi"


def test_what_looks_like_messages_is_a_text() -> None:
    text = json.dumps(HI)
    assert parse_prompt({"prompt": text}).prompt == text
    assert len({prompt_id(text), prompt_id("Hi"), prompt_id(Chat.of(HI))}) == 3


def test_the_id_of_a_text_is_what_it_was() -> None:
    assert prompt_id("Which?") == "a689306684ec49db4e1b"


def test_parts_of_text_are_joined() -> None:
    content = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]
    assert parse_prompt({"prompt": [{"role": "user", "content": content}]}).prompt == Chat((Message("user", "Hi you"),))


def test_responses_may_be_a_message_of_the_assistant() -> None:
    answer = [{"role": "assistant", "content": "Hello"}]
    assert parse_demonstration({"prompt": HI, "response": answer}).response == "Hello"
    line = parse_demonstration({"messages": [*HI, *answer]})
    assert (line.prompt, line.response) == (Chat.of(HI), "Hello")
    judged = {"comparison": "c", "prompt": TURNS, "responses": [answer, "Go away"], "annotator": "Ada", "choice": 0}
    assert parse_judgment(judged).responses == ("Hello", "Go away")
    gold = {name: judged[name] for name in ("prompt", "responses", "choice")}
    assert parse_gold(gold).prompt == CHAT


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": None}, "`prompt` is not a text or a list of messages"),
        ({"prompt": 12}, "`prompt` is not a text or a list of messages"),
        ({"prompt": {"text": "x"}}, "`prompt` is not a text or a list of messages"),
        ({"prompt": "   "}, "`prompt` is empty"),
        ({"prompt": []}, "`prompt` is a list without any message"),
        ({"messages": "Hi"}, "`messages` is not a list of messages"),
        ({"messages": HI, "prompt": "Hi"}, "both `prompt` and `messages` are given"),
        ({"prompt": ["Hi"]}, "message 1 of `prompt` is not an object with `role` and `content`"),
        ({"prompt": [{"role": "user"}]}, "message 1 of `prompt` is not an object with `role` and `content`"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "message 1 of `prompt` has the role 'tool'"),
        ({"prompt": [{"role": ["user"], "content": "x"}]}, "message 1 of `prompt` has the role"),
        ({"prompt": [{"role": "user", "content": " "}]}, "message 1 of `prompt` is empty"),
        ({"prompt": [{"role": "user", "content": 3}]}, "the content of message 1 of `prompt` is not a text"),
        ({"prompt": [*HI, {"role": "assistant", "content": "x"}]}, "the last message of `prompt` is not a user's"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "has a part of type 'image'; only text"),
        ({"prompt": [{**HI[0], "name": "Ada"}]}, "message 1 of `prompt` has `name`, which would be ignored"),
        ({"prompt": [{"role": "user", "content": "\ud800"}]}, "holds a character that Unicode does not have"),
    ],
)
def test_bad_messages_are_refused_in_a_sentence(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadLineError) as refused:
        parse_prompt(values)
    assert reason in str(refused.value)


def test_a_response_of_several_messages_is_refused() -> None:
    with pytest.raises(BadLineError, match="`response` is a list of messages other than a single one"):
        parse_demonstration({"prompt": HI, "response": TURNS})


def load(root: Path, kind: Any, records: list[dict[str, Any]]) -> EmbeddedLabelStore:
    file, store = root / f"{kind}.jsonl", EmbeddedLabelStore(root / "labels.sqlite")
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert not import_file(kind, file, LocalStore(root), store).refused
    return store


def config(chat: bool = True) -> LoopConfig:
    return LoopConfig(data={"source": "imports"}, label_store={"simulated_annotators": False}, sft={"chat": chat})


def test_chats_reach_the_tables_with_their_messages(tmp_path: Path) -> None:
    load(tmp_path, "prompts", [{"prompt": TURNS}, {"prompt": TEXT}, {"prompt": "plain"}])
    load(tmp_path, "demonstrations", [{"prompt": TURNS, "response": "A parrot."}, {"prompt": TEXT, "response": "x"}])
    prompts = build_prompts(config(), tmp_path, LocalStore(tmp_path))
    rows = {row["prompt_id"]: row for row in prompts.to_dict("records")}
    assert {key: prompt_of_row(row, "text") for key, row in rows.items()} == {
        prompt_id(prompt): prompt for prompt in (CHAT, TEXT, "plain")
    }
    assert rows[prompt_id(CHAT)]["text"] == rows[prompt_id(TEXT)]["text"] == TEXT
    written, _ = build_demonstrations(config(), tmp_path, LocalStore(tmp_path), prompts)
    splits = {prompt_id(prompt_of_row(row)): row["split"] for row in written.to_dict("records")}
    assert splits == {key: rows[key]["split"] for key in splits}


def test_chats_without_a_chat_model_are_refused_where_the_data_is_made(tmp_path: Path) -> None:
    load(tmp_path, "prompts", [{"prompt": TURNS}, {"prompt": "plain"}])
    with pytest.raises(UserError, match=r"1 of 2 prompts are lists of messages.*set `sft.chat: true`"):
        build_prompts(config(chat=False), tmp_path, LocalStore(tmp_path))


def test_judgments_of_chats_keep_their_messages(tmp_path: Path) -> None:
    shared = {"responses": ["a", "b"], "annotator": "Ada", "choice": 0}
    lines = [{"comparison": "1", "prompt": TURNS} | shared, {"comparison": "2", "prompt": TEXT} | shared]
    store = load(tmp_path, "judgments", lines)
    sent = store.comparisons(IMPORT_ROUND, "train").to_dict("records")
    assert {row["prompt_id"]: prompt_of_row(row) for row in sent} == {prompt_id(CHAT): CHAT, prompt_id(TEXT): TEXT}
    prompts = imported(LocalStore(tmp_path), "prompts", IMPORTED_PROMPTS)
    assert prompts is not None
    assert {prompt_of_row(row, "text") for row in prompts.to_pylist()} == {CHAT, TEXT}


@pytest.mark.parametrize(("name", "schema"), [("prompts", IMPORTED_PROMPTS), ("gold", IMPORTED_GOLD)])
def test_tables_of_older_versions_are_read_without_messages(tmp_path: Path, name: str, schema: pa.Schema) -> None:
    older = schema.remove(schema.get_field_index("messages"))
    row = {field.name: ["x"] if pa.types.is_list(field.type) else "x" for field in older} | {"best": 0}
    rows = pa.Table.from_pylist([{key: row[key] for key in older.names}], schema=older)
    LocalStore(tmp_path).put(f"imports/{name}.parquet", to_parquet(rows))
    found = imported(LocalStore(tmp_path), name, schema)
    assert found is not None
    assert found.schema.names == schema.names
    assert found["messages"].to_pylist() == [None]
    load(tmp_path, name, [{"prompt": TURNS} | ({"responses": ["a", "b"], "choice": 1} if name == "gold" else {})])
    added = imported(LocalStore(tmp_path), name, schema)
    assert added is not None
    assert added["messages"].to_pylist() == [None, TURNS]


def test_data_frames_may_hold_chats() -> None:
    prompts = prompts_table([TURNS, TEXT], validation=0)
    assert [prompt_of_row(row, "text") for row in prompts.to_dict("records")] == [CHAT, TEXT]
    # A column that came out of Parquet holds arrays of messages.
    again = prompts_table(prompts["messages"].head(1), validation=0)
    assert again["prompt_id"].tolist() == [prompt_id(CHAT)]
    labels = preferences_table(pd.DataFrame({"prompt": [TURNS, TEXT], "chosen": "a", "rejected": "b"}), validation=0)
    assert [prompt_of_row(row) for row in labels.to_dict("records")] == [CHAT, TEXT]
    assert labels["comparison_id"].nunique() == 2
    shown = demonstrations_table(pd.DataFrame({"prompt": [TURNS], "response": ["a"]}), validation=0)
    assert prompt_of_row(shown.to_dict("records")[0]) == CHAT


def test_texts_and_chats_are_bounded_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model's tokenizer makes of them, pages and label stores hold them whole."""
    raised = "set RLHF_LIMIT_{} .now {}. higher"
    with pytest.raises(BadLineError, match=r"`prompt` has more than 4,000,000 characters; .*TEXT_CHARACTERS"):
        prompt_in({"prompt": "x" + " " * 4_000_000})
    monkeypatch.setenv("RLHF_LIMIT_TEXT_CHARACTERS", "10")
    monkeypatch.setenv("RLHF_LIMIT_MESSAGES", "3")
    assert prompt_in({"prompt": "x" * 10}) == "x" * 10
    for contents, why in (
        (["x" * 11], raised.format("TEXT_CHARACTERS", 10)),
        (["x" * 6, "y" * 6], raised.format("TEXT_CHARACTERS", 10)),
        (["x"] * 4, raised.format("MESSAGES", 3)),
    ):
        with pytest.raises(BadLineError, match=why):
            prompt_in({"prompt": [{"role": "user", "content": content} for content in contents]})
    with pytest.raises(BadLineError, match=raised.format("TEXT_CHARACTERS", 10)):
        response_in("x" * 11, "`response`")
