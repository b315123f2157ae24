"""The loops of the sentiment task that several claims share, so that each is run once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.replication.base import Probe, Results, Size, Variant
from rlhf_dagster.replication.measures.answers import VariantAnswers, given_answers

STYLE_TASK = "sentiment"
TEST_PROMPTS = 512
"""All of the test split, so that every policy of a seed answers the same ones, whatever its round."""
UPDATES = 40
"""Of PPO and RLOO, after which the KL hardly grows any more."""
OPEN_GATE = {
    "min_win_rate": None,
    "max_kl": None,
    "max_length_ratio": None,
    "min_distinct": None,
    "max_repetition": None,
    "max_copying": None,
    "max_perplexity_ratio": None,
    "max_reward_drift": None,
}
"""Every policy goes on to the next round: what the gate would have stopped is part of what is measured."""
SHARED: Mapping[str, Any] = {
    # Train prompts for 5,000 comparisons, one each.
    "data": {"prompts": 6400, "validation": 0.08, "test": 0.08},
    # Whether a reward model of few labels is better than chance is part of what is measured.
    "reward_model": {"accept_chance": True},
    "ppo": {"updates": UPDATES, "start": "sft"},
    "evaluation": {"prompts": TEST_PROMPTS, "human_judgments": 0},
    "gate": OPEN_GATE,
}

ZERO_SHOT = Probe("zero_shot")
"""Responses of the base model to the test prompts."""
NEW_PAIRS = Probe("reward_accuracy", {"pairs": 1024})
"""The last reward model on new pairs of responses of each round's behaviour policy."""
MORE_PAIRS = Probe("reward_accuracy", {"pairs": 2048})
"""The same on more, where rounds are compared, which share no pairs."""
FOLDS = Probe("annotator_folds", {"folds": 4, "comparisons": 1200, "measured": 0.4})
"""Reward models that each leave out the labels of some people."""
BEST_OF_SFT = Probe("best_of_n", {"n": [1, 2, 4, 8, 16, 32], "prompts": 256})
"""Of the last round's reward model, among samples of SFT."""
WORDS_AT_THE_END = Probe("last_words")
"""How often the last round's policy, and SFT, find the last word of a held-out text."""
TAXED = 0.03
"""The KL coefficient at which PPO is compared with PPO-ptx."""
NATS = 20.0
"""KL to which the full size steers online and offline labels' policies, as Ziegler et al. (section 2.2) do: with a
coefficient that stays as it is, one policy in some goes several times as far as the others."""
NATS_HORIZON = 150
"""Episodes in which that corrects an error of 100%, of :data:`UPDATES` times 64. With 1,500, the default, it hardly
moves within a round; of 1,500, 400 and 150 this held four seeds from 100 on nearest to it (19 to 27 nats).
It holds most others, not all."""
PREPARED = Variant("prepared", STYLE_TASK, SHARED, until="sft_checkpoint", probes=(ZERO_SHOT,))
"""Data, base model and SFT, with which all others begin."""
FEW_COMPARISONS, SOME_COMPARISONS, MANY_COMPARISONS = 250, 1000, 5000
"""Comparisons: budgets that several claims look at."""
STUDIED: Mapping[Size, int] = {"quick": SOME_COMPARISONS, "full": 2500}
"""Comparisons behind policies that differ in little else: the more, the less do seeds differ."""


def of_prepared(name: str, settings: Mapping[str, Any], *probes: Probe, rounds: int = 1, until: str = "") -> Variant:
    """A loop with the common settings but for ``settings``, on the data and the SFT checkpoint that all share."""
    laid_over = overlaid(dict(SHARED), dict(settings))
    until = until or "eval_report"
    return Variant(name, STYLE_TASK, laid_over, rounds, until, forks=PREPARED, after="sft_checkpoint", probes=probes)


def labelled(comparisons: int) -> Variant:
    """One round on so many comparisons of four responses, and PPO with the default target of KL."""
    settings = {"labeling": {"comparisons_per_round": comparisons}}
    others = {SOME_COMPARISONS: (BEST_OF_SFT,), FEW_COMPARISONS: (BEST_OF_SFT,), MANY_COMPARISONS: (FOLDS,)}.get(
        comparisons, ()
    )
    return of_prepared(f"labels-{comparisons}", settings, NEW_PAIRS, *others)


LOOSE = 0.01
"""A KL coefficient at which a policy goes where its reward model has seen little."""
KL_SWEEP: Mapping[Size, Sequence[float]] = {
    "quick": (0.3, 0.1, 0.03, LOOSE, 0.0),
    "full": (0.6, 0.3, 0.1, 0.03, LOOSE, 0.0),
}
"""Coefficients of the KL that stay as they are, so that the KL they come to rises along the row."""


def at_kl(comparisons: int, coefficient: float) -> Variant:
    """PPO on so many comparisons with a KL coefficient that no controller moves."""
    settings = {"ppo": {"kl_coef": coefficient, "kl_target": None}}
    probes = (WORDS_AT_THE_END,) if comparisons in STUDIED.values() and coefficient == TAXED else ()
    return learning_anew(labelled(comparisons), f"kl-{coefficient:g}", settings, *probes)


def learning_anew(source: Variant, name: str, settings: Mapping[str, Any], *probes: Probe) -> Variant:
    """The same labels and reward model, and another way to learn from them."""
    laid_over = overlaid(dict(source.settings), dict(settings))
    return replace(
        source,
        name=f"{source.name}-{name}",
        settings=laid_over,
        forks=source,
        after="reward_model_accuracy",
        probes=probes,
    )


ONLINE_ROUNDS = 4


def offline(size: Size) -> Variant:
    """One round's labels, all of SFT's responses."""
    if size == "quick":
        return at_kl(STUDIED[size], LOOSE)
    return learning_anew(labelled(STUDIED[size]), f"at-{NATS:g}-nats", {"ppo": _loose(size)})


def online(size: Size) -> Variant:
    """As many labels and updates, in rounds that each sample from the newest policy."""
    settings = {
        "labeling": {"comparisons_per_round": STUDIED[size] // ONLINE_ROUNDS},
        "ppo": _loose(size) | {"updates": UPDATES // ONLINE_ROUNDS, "start": "behaviour"},
    }
    return of_prepared(f"online-{STUDIED[size]}", settings, MORE_PAIRS, rounds=ONLINE_ROUNDS)


def _loose(size: Size) -> dict[str, Any]:
    steered = {"kl_target": NATS, "kl_horizon": NATS_HORIZON}
    return {"kl_coef": LOOSE} | ({"kl_target": None} if size == "quick" else steered)


SMALL_MODEL = replace(
    learning_anew(labelled(SOME_COMPARISONS), "small", {"base_model": {"tiny": {"width": 32}}}),
    anew=("base_model", "sft_checkpoint"),
)
"""A model of less than a tenth of the size, from its pretraining on, against the large one's labels and reward model:
InstructGPT (appendix C.2) trained policies of all sizes against one reward model, of 6 billion parameters."""


PRETRAINING_COEFFICIENTS: Mapping[Size, Sequence[float]] = {"quick": (0.1,), "full": (0.1, 1.0)}
"""Weights of the loss on pretraining text. The first is judged, the smallest of three with which PPO's perplexity on
held-out text came at least half of the way back to SFT's on every one of four seeds from 100 on (61 to 68% of it)."""


def with_pretraining_text(size: Size, coefficient: float | None = None) -> Variant:
    """PPO-ptx: at the same KL coefficient, with the loss on pretraining text mixed into each update."""
    weight = PRETRAINING_COEFFICIENTS[size][0] if coefficient is None else coefficient
    settings = {"ppo": {"kl_coef": TAXED, "kl_target": None, "pretraining_coef": weight}}
    return learning_anew(labelled(STUDIED[size]), f"ptx-{weight:g}", settings, WORDS_AT_THE_END)


DPO_BETAS: Mapping[Size, Sequence[float]] = {"quick": (1.0, 0.3, 0.1), "full": (1.0, 0.5, 0.3, 0.1, 0.03)}
RLOO_COEFFICIENTS: Mapping[Size, Sequence[float]] = {"quick": (0.1, 0.03), "full": (0.3, 0.1, 0.03)}


DPO_BETA = 0.3
"""The one that is judged; the others show the frontier."""


def by_dpo(beta: float) -> Variant:
    return learning_anew(
        labelled(SOME_COMPARISONS), f"dpo-{beta:g}", {"release": {"arm": "dpo"}, "dpo": {"beta": beta}}
    )


def by_rloo(coefficient: float) -> Variant:
    settings = {"kl_coef": coefficient, "kl_target": None, "updates": UPDATES}
    return learning_anew(
        labelled(SOME_COMPARISONS), f"rloo-{coefficient:g}", {"release": {"arm": "rloo"}, "rloo": settings}
    )


CHOOSING = ("random", "margin", "disagreement")
"""Ways to choose what is labelled."""
CHOOSING_ROUNDS = 3


def choosing(selection: str) -> Variant:
    """Rounds of few comparisons, all of SFT's responses, chosen from many candidates by the last reward model."""
    settings = {
        "labeling": {
            "comparisons_per_round": FEW_COMPARISONS,
            "selection": selection,
            "selection_pool": 4.0,
            "selection_random": 0.0,
        },
        "reward_model": {"heads": 5},
    }
    end = "reward_model_accuracy"
    several = of_prepared(f"choosing-{selection}", settings, NEW_PAIRS, rounds=CHOOSING_ROUNDS, until=end)
    return replace(several, between=end)


def zero_shot_answers(results: Results) -> VariantAnswers:
    """The base model's responses, of the size that all but one variant have."""
    return given_answers(results.loop(PREPARED), results.probe(PREPARED, ZERO_SHOT.name))
