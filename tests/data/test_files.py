import json

import pytest

from rlhf_dagster.config.data import HubDataset
from rlhf_dagster.data.files import read_dataset, read_documents
from rlhf_dagster.errors import UserError


def test_an_empty_line_ends_a_document(tmp_path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one\nstill one\n\n \t\n  two  \n\n\n", encoding="utf-8")
    assert read_documents(file) == ["one\nstill one", "two"]


def test_a_jsonl_document_may_hold_every_line_separator_but_the_newline(tmp_path) -> None:
    texts = ["plain", "a\u2028b\x85c\x0bd", "two\nlines"]
    file = tmp_path / "text.jsonl"
    file.write_text("\n\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts), encoding="utf-8")
    assert read_documents(file) == texts


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "expected a JSON object with a `text` key"),
        ("[1]", "expected a JSON object with a `text` key"),
        ('{"txt": "a"}', "expected a JSON object with a `text` key"),
        ('{"text": 5}', "`text` must be a string"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, reason) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text(f'{{"text": "good"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError, match=f"text.jsonl, line 3: {reason}"):
        read_documents(file)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no such file; `data.pretraining_files` names it"):
        read_documents(tmp_path / "nothing.txt")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.txt: not UTF-8 text; convert it first\."):
        read_documents(tmp_path / "latin.txt")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """``dataset(rows)`` makes a local data set; returns ``read(**columns)``."""
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def make(*lines):
        folder = tmp_path / "questions"
        folder.mkdir()
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (folder / "train.jsonl").write_text(text, encoding="utf-8")
        return lambda **columns: list(read_dataset(HubDataset(name="questions", **columns), tmp_path))

    return make


def test_a_local_data_set_is_found_beside_the_config_and_its_columns_renamed(dataset) -> None:
    read = dataset({"q": "why?", "a": "because", "by": 7, "n": 1}, {"q": "how?", "a": "so", "by": None, "n": 2})
    assert read(prompt="q", response="a", user="by") == [
        {"prompt": "why?", "response": "because", "user": 7},
        {"prompt": "how?", "response": "so", "user": None},
    ]


def test_a_data_set_that_does_not_fit_is_one_sentence(dataset) -> None:
    read = dataset({"q": "why?", "n": 1}, {"q": None, "n": 2})
    with pytest.raises(UserError, match=r"questions has no column `question`; it has q, n\."):
        read(prompt="question")
    with pytest.raises(UserError, match="questions, row 2: `q` is not text"):
        read(prompt="q")
    with pytest.raises(UserError, match="questions, row 1: `n` is not text"):
        read(text="n")
    with pytest.raises(UserError, match=r"questions cannot be read: .*nosplit"):
        read(prompt="q", split="nosplit")


def test_a_data_set_with_broken_json_is_one_sentence(dataset) -> None:
    read = dataset({"q": "why?"}, "{broken")
    with pytest.raises(UserError, match="The data set questions cannot be read: ") as caught:
        read(prompt="q")
    assert "\n" not in str(caught.value)


def test_a_data_set_that_is_nowhere_is_one_sentence(tmp_path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match="The data set nobody/nothing cannot be read: "):
        list(read_dataset(HubDataset(name="nobody/nothing", prompt="q"), tmp_path))


HH = "\n\nHuman: Hello\n\nAssistant: Hello: what is it?\n\nHuman: Why?\n\nAssistant: Because.\n\nSo it is."


def test_whole_chats_give_prompt_and_response_as_messages_or_as_text(dataset) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    [first, second] = dataset({"chat": turns}, {"chat": [turns[0], turns[1]]})(chat="chat")
    assert first == second == {"prompt": "Why?", "messages": turns[:1], "response": "Because."}


def test_chats_as_text_have_turns_of_a_human_and_an_assistant(dataset) -> None:
    [row] = dataset({"chosen": HH})(chat="chosen")
    assert row["response"] == "Because.\n\nSo it is."
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "user"]
    assert row["messages"][1]["content"] == "Hello: what is it?"


@pytest.mark.parametrize("text", ["", "Human", "\n\nHuman: Why?", "\n\nAssistant: Because."])
def test_a_chat_without_an_answer_is_one_sentence(dataset, text: str) -> None:
    with pytest.raises(UserError, match=r"questions, row 1: `c` (does not end|has nothing before).*; correct it\."):
        dataset({"c": text})(chat="c")


def test_the_beginning_of_a_text_is_the_prompt_and_the_rest_the_response(dataset) -> None:
    read = dataset({"t": " One two.\nThree  four five. "}, {"t": "a b c d"}, {"t": " "})
    assert [row["prompt"] for row in read(prompt="t", beginning=3)] == ["One two.\nThree", "a b c"]
    assert [row["response"] for row in read(prompt="t", response="t", beginning=3)] == ["four five.", "d"]
    assert read(prompt="t", beginning=9)[1]["prompt"] == "a b c d"
    assert [row["response"] for row in read(prompt="t", response="t", beginning=4)] == ["five."]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"chat": "c", "prompt": "p"}, "leave the columns `prompt` and `response` out"),
        ({"text": "t", "beginning": 3}, "is that of the column `prompt`"),
        ({"prompt": "t", "response": "t"}, "say with `beginning` where it is cut"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(columns, said) -> None:
    with pytest.raises(UserError, match=said):
        HubDataset.parse({"name": "x"} | columns, "loop.yaml")
