"""Responses that are equal in what a model reads of them teach nothing, and are counted; so are those that are cut."""

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from toy_language import FIXED, VARIABLE, Tables, dpo_spec, preference_row, reward_spec, sentence, sft_spec, write

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.training.dpo.pairs import encode_comparisons
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.reward.heads import normalise
from rlhf_dagster.training.reward.labels import encode_labels
from rlhf_dagster.training.reward.terms import merge_labels
from rlhf_dagster.training.reward.train import initial_reward_model, train_reward_model
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.texts.cuts import Cuts

LONG = "good good good good good"
"""As long as what is read of a response."""
SAME = [f"{LONG} cat", f"{LONG} dog dog"]
"""Equal where they are cut."""


def rows(*responses: list[str]) -> pd.DataFrame:
    return pd.DataFrame([preference_row(number, "red dog", texts) for number, texts in enumerate(responses)])


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_what_is_equal_where_it_is_cut_is_no_pair(policy: Policy, sampling) -> None:
    cuts = Cuts()
    frame = rows(SAME, ["good", "bad"], [*SAME, "bad"])
    encoded = encode_comparisons(frame, policy.tokenizer, sampling, cuts)
    assert [[(pair.first, pair.second) for pair in one.pairs] for one in encoded] == [[(0, 1)], [(0, 2), (1, 2)]]
    assert (cuts.comparisons, cuts.equal, cuts.responses.rows, cuts.responses.cut) == (3, 1, 7, 4)
    lost = {"cut_response_tokens": 2 * (1 + 2), "cut_response_share": 4 / 7}
    assert cuts.metrics() == {"cut_responses": 4, "equal_comparisons": 1} | lost
    longer, equal = cuts.warnings("sampling.response_tokens")
    assert longer.startswith("4 of 7 responses are longer than sampling.response_tokens, and were cut")
    assert equal.startswith("1 of 3 comparisons were left out: their responses are equal")


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_the_reward_model_leaves_out_what_it_reads_as_equal(
    sft: Path, tables: Tables, tmp_path: Path, sampling
) -> None:
    spec = replace(reward_spec(sft, tables, tmp_path / "reward"), sampling=sampling)
    room = 2 + len(LONG.split()) + (not sampling.fixed_length)
    spec = replace(spec, settings=spec.settings.changed(max_tokens=room))
    tokenizer, cuts = load_policy(sft).tokenizer, Cuts()
    encoded = encode_labels(merge_labels(rows(SAME, ["good", "bad"])), tokenizer, spec, cuts)
    assert len(encoded) == 1
    assert all(len(set(map(tuple, label.sequences))) == 2 for label in encoded)
    assert (cuts.comparisons, cuts.equal, cuts.responses.rows, cuts.responses.cut) == (2, 1, 4, 2)


def test_what_is_read_whole_is_not_counted_as_cut(sft: Path, tables: Tables, tmp_path: Path, policy: Policy) -> None:
    spec = reward_spec(sft, tables, tmp_path / "reward")
    for sampling in (FIXED, VARIABLE):
        cuts = Cuts()
        frame = rows(["good cat", "bad"])
        encode_labels(frame, policy.tokenizer, replace(spec, sampling=sampling), cuts)
        encode_comparisons(frame, policy.tokenizer, sampling, cuts)
        assert (cuts.responses.cut, cuts.equal, cuts.metrics(), cuts.warnings("x")) == (0, 0, {}, [])


def with_equal_ones(tables: Tables, folder: Path, every: int) -> Tables:
    """40 comparisons, of which every so-many-th has responses that are equal where they are cut."""
    rng = random.Random(3)
    made = [SAME if number % every == 0 else [sentence(rng, 4), sentence(rng, 3)] for number in range(40)]
    labels = [preference_row(number, "red dog", responses) for number, responses in enumerate(made)]
    return replace(tables, preferences=write(folder, "equal", labels, PREFERENCES))


def test_dpo_counts_and_warns(sft: Path, tables: Tables, tmp_path: Path) -> None:
    result = train_dpo(dpo_spec(sft, with_equal_ones(tables, tmp_path, 4), tmp_path / "dpo"))
    assert result.metrics["equal_comparisons"] == 10
    assert result.metrics["comparisons_train"] == 25
    assert any("comparisons were left out" in warning for warning in result.warnings)


def test_a_table_of_equal_responses_alone_is_refused(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = dpo_spec(sft, with_equal_ones(tables, tmp_path, 1), tmp_path / "dpo")
    with pytest.raises(UserError, match=r"have responses that are equal .* raise sampling.response_tokens"):
        train_dpo(spec)


def test_the_reward_model_counts_and_warns(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, with_equal_ones(tables, tmp_path, 4), tmp_path / "reward")
    spec = replace(
        spec,
        sampling=FIXED.changed(prompt_tokens=2, response_tokens=5),
        settings=spec.settings.changed(max_tokens=7),
    )
    result = train_reward_model(spec)
    assert (result.metrics["equal_comparisons"], result.metrics["comparisons"]) == (10, 25)
    assert any("raise reward_model.max_tokens" in warning for warning in result.warnings)


def test_normalising_on_samples_that_are_all_alike_is_refused(sft: Path, tables: Tables, tmp_path: Path) -> None:
    """Scores of one deviation 0 would be multiplied by 1e8, and give a reward of -8e8."""
    model = initial_reward_model(reward_spec(sft, tables, tmp_path / "reward"))
    before = model.model.score.weight.clone()
    for each_head in (True, False):
        with pytest.raises(UserError, match=r"all 16 normalisation samples \(1 different\) the same score"):
            normalise(model, [[4, 5, 6]] * 16, each_head)
    assert (model.model.score.weight == before).all()


def test_normalising_scores_that_are_not_finite_is_refused(sft: Path, tables: Tables, tmp_path: Path) -> None:
    model = initial_reward_model(reward_spec(sft, tables, tmp_path / "reward"))
    model.model.score.weight.data.fill_(float("inf"))
    with pytest.raises(UserError, match="not finite: it diverged"):
        normalise(model, [[4, 5], [5, 6, 7]])


def test_sft_and_sampling_count_the_prompts_they_cut(base: Path, sft: Path, tables: Tables, tmp_path: Path) -> None:
    longer = pd.read_parquet(tables.demonstrations)
    whole = [len(text.split()) for text in longer.loc[longer["split"] == "train", "prompt"]]
    result = train_sft(sft_spec(base, tables, tmp_path / "sft"))
    lost = [length - FIXED.prompt_tokens for length in whole if length > FIXED.prompt_tokens]
    assert result.metrics["cut_prompts"] == len(lost)
    assert result.metrics["cut_prompt_tokens"] == sum(lost)
    assert result.metrics["cut_prompt_share"] == len(lost) / len(whole)
    assert any("prompts are longer than sampling.prompt_tokens" in warning for warning in result.warnings)
    cuts, ended = Cuts(), Cuts()
    drawn = sample(sft, ["red " * 9, "red"], VARIABLE, seed=1, samples_per_prompt=4, cuts=cuts)
    assert (cuts.prompts.rows, cuts.prompts.cut, cuts.prompts.lost) == (2, 1, 9 - FIXED.prompt_tokens)
    assert cuts.unended == sum(len(one.token_ids) == 5 and len(one.text.split()) == 5 for one in drawn)
    sample(sft, ["red"], FIXED, seed=1, cuts=ended)
    assert ended.metrics() == {}
