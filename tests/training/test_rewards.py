"""Rewards other than the reward model, alone and added to it."""

import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_server import Answer, Asked
from judge_server import QUICK, judging, says, texts_in
from ppo_modes import spec_of
from toy_language import COMPUTE, Tables, good_share
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.judging.reward import (
    ClassifierReward,
    EnsembleReward,
    FormatReward,
    FunctionReward,
    HttpReward,
    LengthReward,
    ModelReward,
    RewardSettings,
    RewardTerm,
)
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Chat
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.functions import reward_from_folder
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.reward import WeightedSum
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.rewards.classifier import label_log_odds, load_classifier
from rlhf_dagster.training.rewards.judged import judge_reward
from rlhf_dagster.training.rewards.rules import format_reward, length_reward
from rlhf_dagster.training.runtime.resuming import Checkpointing, fingerprint
from rlhf_dagster.training.specs import PpoSpec, TrainingResult, silent

GOOD = FunctionReward(kind="function", function="ppo_modes:good")
JUDGE = HttpReward(kind="http", model="judge-1", service=QUICK)
Make = Callable[..., PpoSpec]


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> Make:
    def make(reward: RewardSettings, with_model: bool = False, **changes: Any) -> PpoSpec:
        made = spec_of("rloo", deep_sft, deep_reward, tables, tmp_path / "ppo")
        model = deep_reward if with_model else None
        return replace(made, reward=reward, reward_model=model, settings=made.settings.changed(**changes))

    return make


def ensemble(*parts: RewardTerm) -> EnsembleReward:
    return EnsembleReward(kind="ensemble", parts=list(parts))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"longest": 3}, [0, 0, 0, -0.5, -1]),
        ({"shortest": 2, "longest": 3}, [-1, -0.5, 0, -0.5, -1]),
        ({"shortest": 4, "unit": "characters"}, [-1, -1, 0, 0, 0]),
    ],
)
def test_length(changes: dict[str, Any], expected: list[float]) -> None:
    reward = length_reward(LengthReward(kind="length", margin=2, **changes))
    texts = ["", "aa", "a b c", "a b c d", "a b c d e f g h"]
    assert reward(["p"] * 5, texts).tolist() == expected


def test_length_in_a_language_without_spaces() -> None:
    reward = length_reward(LengthReward(kind="length", margin=2, longest=3))
    assert reward(["p"] * 3, ["很好", "天气很好", "今天天气很好"]).tolist() == [0, -0.5, -1]


def test_format() -> None:
    texts = ["<b>x</b>", "so <b>x\ny</b>", "x"]
    whole = FormatReward(kind="format", pattern="<b>.*</b>")
    assert format_reward(whole)(["p"] * 3, texts).tolist() == [1, 0, 0]
    assert format_reward(whole.changed(matches="anywhere"))(["p"] * 3, texts).tolist() == [1, 1, 0]


def test_odds_of_a_label() -> None:
    config, logits = GPT2Config(num_labels=3), torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    softmax = logits.softmax(dim=1)[:, 2]
    assert label_log_odds(logits, 2, config).sigmoid().tolist() == pytest.approx(softmax.tolist())
    config.problem_type = "multi_label_classification"
    assert label_log_odds(logits, 2, config).tolist() == [0.5, 0.0]
    assert label_log_odds(logits[:, :1], 0, GPT2Config(num_labels=1)).tolist() == [1.0, 0.0]


@pytest.fixture
def classifier(deep_sft: Path, tmp_path: Path) -> Path:
    """Two labels by chance, by the tokenizer of the toy language."""
    torch.manual_seed(0)
    tokenizer, folder = AutoTokenizer.from_pretrained(deep_sft), tmp_path / "classifier"
    sizes = {"vocab_size": len(tokenizer), "n_positions": 12, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**sizes, id2label={0: "bad", 1: "good"}, pad_token_id=tokenizer.pad_token_id)
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classified(folder: Path, **changes: Any) -> list[float]:
    settings = ClassifierReward(kind="classifier", **{"folder": str(folder), "label": "good"} | changes)
    texts = ["good dog", "red", "bad bad cat ."]
    scores: list[float] = load_classifier(settings, COMPUTE)(["a dog", "a cat", "red"], texts).tolist()
    return scores


def test_a_classifier(classifier: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = GPT2ForSequenceClassification.from_pretrained(classifier).eval(), None
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    with torch.no_grad():
        alone = [
            model(**tokenizer(text, return_tensors="pt")).logits[0] for text in ("good dog", "red", "bad bad cat .")
        ]
    expected = [float(logits[1] - logits[0]) for logits in alone]
    assert classified(classifier) == pytest.approx(expected, abs=1e-6)
    assert classified(classifier, batch_size=1) == pytest.approx(expected, abs=1e-6)
    assert classified(classifier, label="1", value="probability") == pytest.approx(
        [1 / (1 + 2.718281828**-odds) for odds in expected], abs=1e-6
    )
    assert classified(classifier, reads="both") != pytest.approx(expected, abs=1e-6)
    assert not caplog.records
    long = load_classifier(ClassifierReward(kind="classifier", folder=str(classifier), label="good"), COMPUTE)
    long(["p"], ["red " * 20])
    assert "1 of 1 texts were cut to the 12 tokens" in caplog.text


def test_a_classifier_that_reads_a_text_by_those_beside_it_is_refused(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_length(self: Any, **inputs: Any) -> SequenceClassifierOutput:
        rows, length = inputs["input_ids"].shape
        return SequenceClassifierOutput(logits=torch.tensor([[0.0, float(length)]] * rows))

    monkeypatch.setattr(GPT2ForSequenceClassification, "forward", by_length)
    with pytest.raises(UserError, match="gives a text another score beside a longer one"):
        classified(classifier)


def test_a_classifier_without_the_label_or_the_folder(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no label 'fine'; it has bad, good"):
        classified(classifier, label="fine")
    with pytest.raises(UserError, match="no such model folder"):
        classified(tmp_path / "nowhere")


def test_the_sum_keeps_the_heads_of_an_ensemble() -> None:
    heads, rule = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([10.0, 20.0])
    scores = {"model": heads, "length": rule}
    total = WeightedSum(list(scores), [2.0, -0.5], list(scores.values()))  # type: ignore[arg-type]
    reward = total.reward(lambda score: score, 1.0)  # type: ignore[arg-type,return-value]
    assert reward.score.tolist() == [4 - 5 - 2, 4 - 10]
    assert reward.spread is not None
    assert reward.spread.tolist() == [2, 0]
    assert reward.parts is not None
    assert reward.parts.tolist() == [[4, -5], [4, -10]]


def test_ppo_is_rewarded_for_the_weighted_sum(spec: Make, classifier: Path) -> None:
    form = FormatReward(kind="format", pattern="good", matches="anywhere", weight=-3)
    classes = ClassifierReward(kind="classifier", folder=str(classifier), label="good")
    result = train_ppo(spec(ensemble(ModelReward(weight=0.5), GOOD, GOOD.changed(weight=2), form, classes), True))
    names = ["model", "function", "function_2", "format", "classifier"]
    parts = [result.curves[f"reward_from_{name}"] for name in names]
    assert [sum(update) for update in zip(*parts, strict=True)] == pytest.approx(result.curves["reward"], abs=1e-5)
    assert [2 * one for one in parts[1]] == pytest.approx(parts[2], abs=1e-5)
    assert min(parts[3]) < 0
    model = train_ppo(replace(spec(ModelReward(), True), output=result.folder.with_name("model")))
    assert model.curves["reward"][0] / 2 == pytest.approx(parts[0][0], abs=1e-5)


def test_the_reward_model_named_alone_is_the_reward_model(spec: Make) -> None:
    plain = train_ppo(replace(spec(ModelReward(), True), reward=None))
    named = train_ppo(replace(spec(ModelReward(), True), output=plain.folder.with_name("named")))
    assert named.curves["reward"] == plain.curves["reward"]
    assert named.curves["reward_from_model"] == plain.curves["reward"]


def test_rewards_that_leave_something_unused_are_refused(spec: Make, deep_reward: Path) -> None:
    cases = {
        "reward_model and a reward of another kind are both given": spec(GOOD, True),
        "reward_model is not given, but nothing rewards": spec(ensemble(ModelReward(), GOOD)),
        "reward and reward_function are both given": replace(spec(GOOD), reward_function="ppo_modes:good"),
        r"ppo\.spread_coef needs an ensemble": spec(GOOD, spread_coef=1.0),
        "'ppo_modes:absent' cannot be imported": spec(GOOD.changed(function="ppo_modes:absent")),
        "RLHF_JUDGE_URL is not set": spec(JUDGE),
    }
    for problem, wrong in cases.items():
        with pytest.raises(UserError, match=problem):
            prepare_ppo(wrong)


class Moody:
    """Rates a response by its words when it is asked first, and lower each time after that."""

    def __init__(self, fails_at: int | None = None) -> None:
        self._lock, self._asked, self._fails_at = threading.Lock(), Counter[str](), fails_at

    def __call__(self, asked: Asked) -> Answer:
        texts = texts_in(asked)
        with self._lock:
            if self._asked.total() == self._fails_at:
                return 401, "this key has expired"
            again = self._asked[json.dumps(texts)]
            self._asked[json.dumps(texts)] += 1
        rating = 5 + float(good_share(texts["response"])) - again
        return says(json.dumps({"rating": min(10, max(1, rating))}))

    @property
    def answered(self) -> int:
        return self._asked.total()


def trained(spec: PpoSpec, state: Path | None = None) -> TrainingResult:
    return train_here("ppo", spec, silent, Checkpointing(state, every_seconds=0.0))


def test_a_training_whose_judge_went_away_goes_on_bit_for_bit(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spec(ensemble(ModelReward(), JUDGE), True)
    with judging(whole_judge := Moody(), monkeypatch):
        whole = trained(replace(asked, output=tmp_path / "whole"))
    assert (tmp_path / "whole.answers").is_dir()
    with judging(Moody(fails_at=whole_judge.answered * 2 // 3), monkeypatch) as server:
        with pytest.raises(UserError, match="this key has expired"):
            trained(asked, tmp_path / "state")
        assert list((tmp_path / "state").glob("state-*"))
        server.answer = patient = Moody()
        result = trained(asked, tmp_path / "state")
    assert result.curves == whole.curves
    assert patient.answered == whole_judge.answered - whole_judge.answered * 2 // 3


def test_it_learns_from_a_judge(spec: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"updates": 12, "learning_rate": 1e-2, "batch_size": 32, "kl_coef": 0.02, "kl_target": None}
    with judging(Moody(), monkeypatch):
        curves = train_ppo(spec(JUDGE, **settings)).curves
    assert curves["reward"][-1] > curves["reward"][0] + 0.2
    assert curves["reward_from_http"] == pytest.approx(curves["reward"])


def test_a_response_that_the_judge_does_not_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with judging(lambda _: says("No."), monkeypatch):
        ends = judge_reward(JUDGE, str(tmp_path / "answers"), "test")
        with pytest.raises(UserError, match=r"judge-1 gave no rating that can be read in 3 tries: .*'No\.'"):
            ends(["p"], ["r"])
        goes_on = judge_reward(JUDGE.changed(unreadable=-0.5), str(tmp_path / "answers"), "test")
        with caplog.at_level(logging.WARNING):
            assert goes_on(["p"], ["r"]).tolist() == [-0.5]
    assert "1 of 1 responses got `unreadable` -0.5 from the judge judge-1" in caplog.text


def test_a_judge_reads_chats_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat.of([{"role": "system", "content": "Be good."}, {"role": "user", "content": "red"}])
    with judging(Moody(), monkeypatch) as server:
        judge_reward(JUDGE, str(tmp_path), "test")([chat], ["dog"])
        assert texts_in(server.asked[0])["prompt"] == "System: Be good.\n\nUser: red"


def test_what_decides_a_reward_decides_what_a_training_is_told_apart_by(
    spec: Make, classifier: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text("def f(prompts, responses):\n    return [0.0 for _ in responses]\n")
    classes = ClassifierReward(kind="classifier", folder=classifier.name, label="good")
    made = ensemble(GOOD.changed(function="own.py:f"), JUDGE, classes)
    asked = spec(reward_from_folder(made, tmp_path))
    first = fingerprint(asked)
    patient = JUDGE.changed(service=QUICK.changed(max_requests=3, url_variable="ANOTHER"))
    raised = spec(reward_from_folder(ensemble(made.parts[0], patient, classes), tmp_path))
    assert fingerprint(replace(raised, answers="/elsewhere")) == first
    others = [
        spec(reward_from_folder(ensemble(made.parts[0], JUDGE.changed(model="judge-2"), classes), tmp_path)),
        spec(reward_from_folder(ensemble(made.parts[0], JUDGE, classes.changed(label="bad")), tmp_path)),
        replace(asked, reward=None),
    ]
    assert len({first, *map(fingerprint, others)}) == 4
    file.write_text(re.sub("0.0", "1.0", file.read_text()))
    assert fingerprint(asked) != first
    changed = fingerprint(asked)
    (classifier / "config.json").write_text((classifier / "config.json").read_text() + " ")
    assert fingerprint(asked) != changed


def test_answers_are_kept_where_the_spec_says(spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with judging(Moody(), monkeypatch) as server:
        train_ppo(replace(spec(JUDGE), answers=str(tmp_path / "kept")))
        count = len(server.asked)
        train_ppo(replace(spec(JUDGE), answers=str(tmp_path / "kept"), output=tmp_path / "again"))
        assert len(server.asked) == count
    assert len(LocalStore(tmp_path / "kept").list("answers/given")) == count
