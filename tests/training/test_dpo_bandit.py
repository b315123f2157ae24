"""A bandit of eight words whose optimum is known: DPO finds it from labels, within their sampling error."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from toy_language import COMPUTE, FIXED, WORDS, Tables, dpo_spec, preference_row, write

from rlhf_dagster.config.training import DpoSettings
from rlhf_dagster.records.schemas import PREFERENCES
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.sampling.sample import response_log_probs

ONE_WORD = FIXED.changed(response_tokens=1)
PROMPT = "red dog ."
BETA = 0.5
REWARDS = np.array([0.8, -0.3, 0.1, 1.0, -1.0, 0.4, -0.6, 0.0])
LABELS = 250
"""Of each of the 28 pairs of words."""
PAIRS = list(combinations(range(len(WORDS)), 2))


def wins() -> np.ndarray:
    """Of the first of each pair, in labels of the Bradley-Terry model with the words' rewards."""
    rng = np.random.default_rng(0)
    first, second = np.array(PAIRS).T
    return rng.binomial(LABELS, 1 / (1 + np.exp(REWARDS[second] - REWARDS[first])))


def labels(won: np.ndarray) -> list[dict]:
    return [
        preference_row(number, PROMPT, [WORDS[first], WORDS[second]])
        | {"label_id": f"{number}-{label}", "kind": "pair", "split": "train"}
        | {"target": [1.0, 0.0] if label < count else [0.0, 1.0]}
        for number, ((first, second), count) in enumerate(zip(PAIRS, won, strict=True))
        for label in range(LABELS)
    ]


def fitted(won: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Bradley-Terry rewards (mean 0) of greatest likelihood, and their standard errors by Fisher's information."""
    contrasts = np.array(
        [[(word == first) - (word == second) for word in range(len(WORDS))] for first, second in PAIRS]
    )

    def loss(rewards: np.ndarray) -> float:
        h = contrasts @ rewards
        return float((won * np.logaddexp(0, -h) + (LABELS - won) * np.logaddexp(0, h)).sum())

    rewards = minimize(loss, np.zeros(len(WORDS)), tol=1e-10).x
    p = 1 / (1 + np.exp(-contrasts @ rewards))
    information = (contrasts * (LABELS * p * (1 - p))[:, None]).T @ contrasts
    return rewards - rewards.mean(), np.sqrt(np.diag(np.linalg.pinv(information)))


def log_probs(folder: Path) -> np.ndarray:
    policy = load_policy(folder, COMPUTE)
    ids = [[policy.tokenizer.convert_tokens_to_ids(word)] for word in WORDS]
    return np.array(response_log_probs(policy, [PROMPT] * len(WORDS), ids, ONE_WORD))[:, 0]


@pytest.fixture(scope="module")
def rewards_learned(sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """beta log(policy / reference) of each word, with mean 0: the implicit rewards."""
    folder = tmp_path_factory.mktemp("bandit")
    settings = DpoSettings(beta=BETA, epochs=400, batch_size=len(PAIRS), learning_rate=5e-3)
    spec = replace(dpo_spec(sft, tables, folder / "dpo"), settings=settings, sampling=ONE_WORD)
    trained = train_dpo(replace(spec, preferences=write(folder, "labels", labels(wins()), PREFERENCES)))
    assert np.exp(log_probs(trained.folder)).sum() == pytest.approx(1, abs=1e-5)
    ratios = BETA * (log_probs(trained.folder) - log_probs(sft))
    return ratios - ratios.mean()


def test_it_is_the_maximum_likelihood_of_the_labels(rewards_learned: np.ndarray) -> None:
    rewards, _ = fitted(wins())
    np.testing.assert_allclose(rewards_learned, rewards, atol=0.02)


def test_it_is_the_known_optimum_within_the_sampling_error(rewards_learned: np.ndarray, sft: Path) -> None:
    """pi* = ref exp(r / beta) / Z (Rafailov et al. 2023, equation 4), four standard errors around each reward."""
    _, errors = fitted(wins())
    assert errors.max() < 0.07  # of rewards that are 2 apart
    truth = REWARDS - REWARDS.mean()
    assert (np.abs(rewards_learned - truth) < 4 * errors).all()

    def tilted(rewards: np.ndarray) -> np.ndarray:
        weights = np.exp(log_probs(sft) + rewards / BETA)
        return weights / weights.sum()

    moved = np.abs(tilted(truth) - np.exp(log_probs(sft))).sum() / 2
    missed = np.abs(tilted(truth) - tilted(rewards_learned)).sum() / 2
    assert missed < 0.1 < 0.3 < moved
