"""From a log to prompts: duplicates, limits, consent, splits, thumbs, lineage."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from conversation_logs import chat_line, thumbs_line, write_log
from people import pseudonym

from rlhf_dagster.config.data import DataSettings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.conversations.duplicates import BEGINS_AS_ANOTHER, TURN_OF_LONGER
from rlhf_dagster.data.conversations.keeping import LINEAGE, keep_logs, sentences_on_logs
from rlhf_dagster.data.conversations.taking import OVER_THE_LIMIT, UNKNOWN_RESPONSE, WITHOUT_CONSENT, Taken, take
from rlhf_dagster.data.imported import imported
from rlhf_dagster.data.tables import build_feedback, build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Chat
from rlhf_dagster.records.ids import prompt_id, split_of
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.schemas import IMPORTED_FEEDBACK
from rlhf_dagster.storage.local import LocalStore

LONG = "Please write a letter to my landlord about the heating, which has not worked since Monday. " * 4


def settings(**changes: Any) -> DataSettings:
    feedback = {"logs": ["log.jsonl"], "personal_data": "keep"} | changes
    return DataSettings(source="imports", feedback=feedback)  # type: ignore[arg-type]


def taken(folder: Path, lines: Iterable[Any], **changes: Any) -> Taken:
    write_log(folder / "log.jsonl", lines)
    found = take(settings(**changes).feedback, folder)
    assert found.conversations == len(found.prompts) + sum(found.left_out.values())
    return found


def places(found: Taken) -> list[int]:
    return sorted(one.place.line for one in found.prompts)


def test_a_conversation_logged_turn_by_turn_is_one(tmp_path: Path) -> None:
    turns = ["Hi", "Hello.", "Who are you?", "A policy.", "Since when?"]
    lines = [chat_line(*turns[:length], user="ada") for length in (1, 3, 5)]
    found = taken(tmp_path, [lines[0], lines[2], lines[1]])
    assert places(found) == [2]
    assert [message.content for message in found.prompts[0].prompt.messages] == turns  # type: ignore[union-attr]
    assert found.left_out == {TURN_OF_LONGER: 2}


def test_another_user_who_begins_the_same_way_has_a_conversation_of_their_own(tmp_path: Path) -> None:
    lines = [chat_line("Hi", "Hello.", "Who are you?", user="ada"), chat_line("Hi", "Hello.", "Bye", user="bob")]
    assert places(taken(tmp_path, lines)) == [1, 2]
    assert places(taken(tmp_path, [chat_line("Hi", user="ada"), lines[1]])) == [1, 2]


def test_what_has_a_long_beginning_in_common_is_one_and_belongs_to_the_first(tmp_path: Path) -> None:
    lines = [chat_line(LONG + tail, user=user) for user, tail in (("ada", "A"), ("bob", "B"), ("ada", "C"))]
    found = taken(tmp_path, lines)
    assert (places(found), found.left_out) == ([1], {BEGINS_AS_ANOTHER: 2})
    assert places(taken(tmp_path, lines, common_prefix=None)) == [1, 2, 3]
    # It stays with its first user where the log has gone on, so that it stays in that user's split.
    found = taken(tmp_path, [*lines, chat_line(LONG + "A", "Dear sir", "Shorter.", user="ada")])
    assert [(one.user, one.place.line) for one in found.prompts] == [("ada", 3)]


def test_system_messages_and_white_space_do_not_make_a_difference(tmp_path: Path) -> None:
    same = [chat_line("What is two?", system="Be brief.", user="ada"), chat_line("What  is\ntwo?", user="ada")]
    other = chat_line("What is three?", system="Be brief.", user="ada")
    assert places(taken(tmp_path, [*same, other])) == [1, 3]


def test_a_user_has_the_newest_few_and_nobody_known_counts_as_one(tmp_path: Path) -> None:
    users = ("ada", "", "bob", "", "ada", "ada", "")
    lines = [chat_line(f"Question {number}", user=user) for number, user in enumerate(users)]
    found = taken(tmp_path, lines, per_user=2)
    assert (places(found), found.left_out) == ([3, 4, 5, 6, 7], {OVER_THE_LIMIT: 2})
    assert places(taken(tmp_path, lines, per_user=None)) == [1, 2, 3, 4, 5, 6, 7]


def test_consent_is_asked_for_where_the_settings_say_so(tmp_path: Path) -> None:
    lines = [
        chat_line(f"Question {number}", consent=said) for number, said in enumerate([True, "true", False, None, "no"])
    ]
    lines.append(chat_line("Question 9", consent=None, request={"prompt": "Go on", "metadata": {"consent": "yes"}}))
    found = taken(tmp_path, lines)
    assert (places(found), found.left_out) == ([1, 2, 6], {WITHOUT_CONSENT: 3})
    assert len(taken(tmp_path, lines, consent=False).prompts) == 6


def test_forms_of_lines(tmp_path: Path) -> None:
    about = {"metadata": {"consent": True}, "user": "ada"}
    lines = [
        {"messages": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "1"}], **about},
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Two"}], **about},
        {"prompt": "The film was", "response": "good", **about},
        {"request": {"prompt": "Three", **about}, "response": {"model": "ppo-2", "choices": [{"text": "3"}]}},
        {"request": {"messages": [{"role": "tool", "content": "x"}]}, **about},
        {"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, **about},
        {"input": "nothing known", **about},
        "{broken",
        chat_line("x" * 100_001),
    ]
    found = taken(tmp_path, lines)
    assert places(found) == [1, 2, 3, 4]
    assert found.prompts[1].prompt == Chat.of(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two"}]
    )
    assert (found.prompts[2].prompt, found.prompts[3].policy_id) == ("The film was", "ppo-2")
    assert {one.user for one in found.prompts} == {"ada"}
    assert (found.lines.read, found.lines.refused, len(found.refused)) == (9, 5, 5)
    assert found.refused[0].startswith("log.jsonl, line 5: message 1 of `messages` has the role 'tool'")


def test_users_share_no_split_and_other_prompts_keep_theirs(tmp_path: Path) -> None:
    lines = [chat_line(f"Question {number} of {user}", user=f"u{user}") for user in range(40) for number in range(3)]
    lines += [chat_line(f"Of nobody {number}") for number in range(40)]
    write_log(tmp_path / "log.jsonl", lines)
    data = settings()
    rows = keep_logs(data, tmp_path, LocalStore(tmp_path)).rows
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["user"] or row["text"], set()).add(row["split"])
        assert row["split"] == split_of(row["user"] or row["text"], data.validation, data.test)
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "validation", "test"} == {row["split"] for row in rows}
    # A conversation of nobody known stays in its split when it goes on.
    longer = [chat_line(f"Of nobody {number}", "Yes.", "And then?") for number in range(40)]
    write_log(tmp_path / "log.jsonl", longer)
    later = keep_logs(data, tmp_path, LocalStore(tmp_path)).rows
    before = {row["text"]: row["split"] for row in rows if not row["user"]}
    assert {row["messages"][0]["content"]: row["split"] for row in later} == before


def test_each_prompt_has_its_lineage_and_thumbs_are_unpaired_feedback(tmp_path: Path) -> None:
    lines = [
        chat_line("Hi", answer="Hello.", user="ada", id="chatcmpl-1"),
        thumbs_line("chatcmpl-1", "down", user="ada"),
        chat_line("Hi", "Hello.", "Bye", answer="Bye.", user="ada", id="chatcmpl-2"),
        thumbs_line("chatcmpl-1", "up", user="ada"),
        thumbs_line("chatcmpl-2", "down"),
        thumbs_line("chatcmpl-2", "up", choice=1),
        thumbs_line("chatcmpl-9"),
        chat_line("No", user="bob", consent=False, id="chatcmpl-3", thumbs="up"),
    ]
    write_log(tmp_path / "logs" / "monday.jsonl", lines)
    data, store = settings(logs=["logs"]), LocalStore(tmp_path / "store")
    found = keep_logs(data, tmp_path, store)
    (row,) = found.rows
    held = store.get(LINEAGE)
    assert held is not None
    assert read_parquet(held.data, LINEAGE).to_pylist() == [
        {
            "prompt_id": row["prompt_id"], "log": "logs/monday.jsonl", "line": 3, "user": pseudonym("ada"),
            "policy_id": "ppo-1", "conversation": "chatcmpl-2",
        }
    ]  # fmt: skip
    kept = imported(store, "feedback", IMPORTED_FEEDBACK)
    assert kept is not None
    assert [(one["prompt"], one["response"], one["liked"], one["user"]) for one in kept.to_pylist()] == [
        ("Hi", "Hello.", True, pseudonym("ada")),
        ("User: Hi\n\nAssistant: Hello.\n\nUser: Bye", "Bye.", False, pseudonym("ada")),
    ]
    assert found.counts["thumbs_left_out"] == {WITHOUT_CONSENT: 1, UNKNOWN_RESPONSE: 2}
    again = keep_logs(data, tmp_path, store)
    assert (again.counts["thumbs_added"], again.counts["thumbs_already_there"]) == (0, 2)
    assert "0 thumbs are new, 2 were there already." in list(sentences_on_logs(again.counts))
    # What is taken out of the log is gone.
    write_log(tmp_path / "logs" / "monday.jsonl", lines[:2])
    assert [row["prompt_id"] for row in keep_logs(data, tmp_path, store).rows] == [
        prompt_id(Chat.of([{"role": "user", "content": "Hi"}]))
    ]


def test_thumbs_on_an_earlier_turn_are_in_the_split_of_the_conversation(tmp_path: Path) -> None:
    lines = []
    for number in range(60):
        turns = [f"Of nobody {number}", "Yes.", "And then?"]
        lines += [chat_line(*turns[:1], id=f"chatcmpl-{number}", thumbs="up"), chat_line(*turns)]
    write_log(tmp_path / "log.jsonl", lines)
    config = LoopConfig(data=settings(), sft={"chat": True}, label_store={"simulated_annotators": False})  # type: ignore[arg-type]
    store = LocalStore(tmp_path / "store")
    prompts = build_prompts(config, tmp_path, store, keep_logs(config.data, tmp_path, store).rows)
    feedback, of_test = build_feedback(config, store, prompts)
    splits = {
        messages[0]["content"]: split for messages, split in zip(prompts["messages"], prompts["split"], strict=True)
    }
    assert of_test == list(splits.values()).count("test") > 0
    assert feedback["split"].tolist() == [splits[text] for text in feedback["prompt"]]


def test_a_log_that_is_not_there_yet_is_said(tmp_path: Path) -> None:
    found = keep_logs(settings(logs=["logs"]), tmp_path, LocalStore(tmp_path / "store"))
    assert "logs is not there yet." in list(sentences_on_logs(found.counts))
    assert not (tmp_path / "store" / LINEAGE).exists()


def test_the_logs_of_a_task_are_refused() -> None:
    with pytest.raises(UserError, match="hold prompts of people, which no task can judge"):
        DataSettings.parse({"feedback": {"logs": ["log.jsonl"]}}, "loop.yaml")
