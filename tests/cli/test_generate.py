"""`rlhf generate` and `rlhf chat`: who answers, how it is asked, and what is said of what was cut."""

import io
import json
from pathlib import Path

import pytest
from kept_models import SHORT, kept_chat_model, loop_of_policies
from loops import assert_one_sentence, rlhf_here, write_loop

from rlhf_dagster.cli.policies import chat, generate
from rlhf_dagster.cli.policies.chat import Conversation, converse
from rlhf_dagster.cli.policies.generate import read_prompt
from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.inference.answers import OpenPolicy, PolicyAnswer, PolicyAnswers, open_policy
from rlhf_dagster.loop.inference.named_policy import named_policy
from rlhf_dagster.records.chats import Chat, Message, Prompt

QUESTION = '[{"role": "user", "content": "Hello?"}]'


class Stub:
    """Policies that answer with what they were asked, and count how often they were opened."""

    def __init__(self, reads_chats: bool = True, finish: str = "stop", unread: int = 0) -> None:
        self.reads_chats, self.finish, self.unread = reads_chats, finish, unread
        self.opened: list[str] = []
        self.asked: list[tuple[Prompt, int | None, int]] = []

    def open(self, loop: LoopFolder, checkpoint: Checkpoint) -> OpenPolicy:
        self.opened.append(checkpoint.model_id)
        return OpenPolicy(checkpoint.model_id, self.reads_chats, self.answer)

    def answer(self, prompt: Prompt, seed: int | None, n: int) -> PolicyAnswers:
        self.asked.append((prompt, seed, n))
        said = [PolicyAnswer(f"{prompt!s:.9} \x1b[2J{index}", 3, self.finish) for index in range(n)]  # type: ignore[arg-type]
        return PolicyAnswers(said, self.unread)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr(generate, "open_policy", made.open)
    monkeypatch.setattr(chat, "open_policy", made.open)
    return made


def test_policies_are_found_by_every_name_that_they_have(tmp_path: Path) -> None:
    loop = loop_of_policies(tmp_path)
    ids = {name: named_policy(loop, name).model_id for name in ("champion", "sft", "base", "round-0001")}
    assert ids["champion"] == ids["sft"]
    assert [ids[name].rpartition("-")[0] for name in ("sft", "base", "round-0001")] == ["sft", "base", "ppo-round-0001"]
    assert named_policy(loop, ids["round-0001"]) == named_policy(loop, "round-0001")
    for name, sentence in {
        "round-0007": "No policy of round-0007 is there; rounds with one are round-0001",
        "ghost": f"no policy ghost; give champion, sft, base, a round .*, or one of {ids['round-0001']}",
    }.items():
        with pytest.raises(UserError, match=sentence):
            named_policy(loop, name)
    loop.deletions.delete("round-0001", "ada", "wrong prompts")
    with pytest.raises(UserError, match="rlhf round restore round-0001"):
        named_policy(loop, "round-0001")


@pytest.mark.parametrize("name", ["champion", "sft", "base"])
def test_what_is_not_made_yet_is_one_sentence(tmp_path: Path, name: str) -> None:
    loop = write_loop(tmp_path)
    assert_one_sentence(rlhf_here("generate", "Hi", "--policy", name, "--loop", loop), "rlhf run prepare")


def test_policies_answer_beside_each_other_with_one_seed(tmp_path: Path, stub: Stub) -> None:
    loop = loop_of_policies(tmp_path)
    given = ["generate", "Hi", "--policy", "round-0001", "--beside", "sft", "--beside", "base", "-n", "2"]
    found = rlhf_here(*given, "--seed", "5", "--loop", loop.root)
    assert (found.returncode, found.stderr) == (0, "")
    assert stub.asked == [("Hi", 5, 2)] * 3
    shown = found.stdout.split("\n\n")
    assert [text.partition("-")[0] for text in shown[:3]] == ["round", "sft: sft", "base: base"]
    assert "(seed 5)" in shown[0]
    assert "  1. Hi \u25a1[2J0\n  2. Hi \u25a1[2J1" in shown[0]
    assert "\x1b" not in found.stdout
    as_json = json.loads(rlhf_here(*given, "--json", "--loop", loop.root).stdout)
    assert (as_json["prompt"], [row["name"] for row in as_json["policies"]]) == ("Hi", ["round-0001", "sft", "base"])
    answer = {"text": "Hi \x1b[2J1", "tokens": 3, "finish_reason": "stop"}
    assert as_json["policies"][0]["answers"][1] == answer
    assert stub.asked[-1][1] == as_json["seed"]
    again = json.loads(rlhf_here(*given, "--json", "--loop", loop.root).stdout)
    assert again["seed"] != as_json["seed"]


def test_greedy_has_no_seed_and_one_answer(tmp_path: Path, stub: Stub) -> None:
    loop = loop_of_policies(tmp_path)
    assert "(likeliest tokens)" in rlhf_here("generate", "Hi", "--greedy", "--loop", loop.root).stdout
    assert stub.asked == [("Hi", None, 1)]
    for more in (["-n", "2"], ["--seed", "1"]):
        result = rlhf_here("generate", "Hi", "--greedy", *more, "--loop", loop.root)
        assert_one_sentence(result, "leave -n and --seed out")


def test_two_names_of_one_policy_are_refused(tmp_path: Path, stub: Stub) -> None:
    loop = loop_of_policies(tmp_path)
    result = rlhf_here("generate", "Hi", "--beside", "sft", "--loop", loop.root)
    assert_one_sentence(result, "sft and champion are both sft-")
    assert stub.opened == []


def test_what_was_cut_is_said(tmp_path: Path, stub: Stub) -> None:
    stub.unread, stub.finish = 7, "length"
    loop = loop_of_policies(tmp_path)
    found = rlhf_here("generate", "Hi", "--loop", loop.root)
    assert found.stderr.splitlines() == [
        "champion: The first 7 tokens of the prompt were not read: sampling.prompt_tokens is 60.",
        "champion: The answer was cut off after 5 tokens (sampling.response_tokens).",
    ]


def test_a_prompt_is_a_text_unless_it_is_a_list_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_prompt(QUESTION) == Chat((Message("user", "Hello?"),))
    for text in ("[1, 2]", "[]", '{"role": "user"}', "Hello?", "[not JSON"):
        assert read_prompt(text) == text
    with pytest.raises(UserError, match="role 'robot'"):
        read_prompt('[{"role": "robot", "content": "Hello?"}]')
    with pytest.raises(UserError, match="nothing to answer"):
        read_prompt('[{"role": "assistant", "content": "Hello."}]')
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert read_prompt("-") == "two\nlines"


def test_a_chat_remembers_until_it_is_reset(tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of_policies(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\nAnd?\n/reset\nHello\n"))
    found = rlhf_here("chat", "--seed", "3", "--loop", loop.root)
    assert found.returncode == 0, found.stderr
    assert len(stub.opened) == 1
    prompts = [[message.content for message in prompt.messages] for prompt, _, _ in stub.asked]  # type: ignore[union-attr]
    assert prompts == [["Hello"], ["Hello", "Hello \x1b[2J0", "And?"], ["Hello"]]
    assert [seed for _, seed, _ in stub.asked] == [3, 4, 5]
    assert "\x1b" not in found.stdout
    assert "(forgotten)" in found.stdout


def test_a_policy_of_texts_sends_the_person_to_generate(tmp_path: Path, stub: Stub) -> None:
    stub.reads_chats = False
    loop = loop_of_policies(tmp_path)
    assert_one_sentence(rlhf_here("chat", "--loop", loop.root), "reads no chats", "rlhf generate")


def test_a_real_model_answers_texts_and_chats(tmp_path: Path) -> None:
    loop = loop_of_policies(tmp_path)
    reader = open_policy(loop, kept_chat_model(loop, "chatty", chat=True))
    asked = read_prompt(QUESTION)
    first = reader.answer(asked, 1, 2)
    assert reader.answer(asked, 1, 2) == first
    assert (len(first.answers), first.unread) == (2, 0)
    assert all(1 <= one.tokens <= SHORT["response_tokens"] for one in first.answers)
    assert {one.finish_reason for one in first.answers} <= {"stop", "length"}
    assert reader.answer(asked, None, 1) == reader.answer(asked, None, 1)
    long = reader.answer("Hello world " * 40, 1, 1)
    assert long.unread > 0
    lines = iter(["Hello", "And?"])

    def ask(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    shown: list[str] = []
    converse(Conversation(reader, 1, SamplingSettings(**SHORT)), ask, shown.append)
    assert len([line for line in shown if line and not line.startswith("(")]) >= 1
    plain = open_policy(loop, kept_chat_model(loop, "plain", chat=False))
    assert not plain.reads_chats
    assert len(plain.answer("Hello", 1, 1).answers) == 1
    with pytest.raises(UserError, match="lists of messages"):
        plain.answer(asked, 1, 1)
