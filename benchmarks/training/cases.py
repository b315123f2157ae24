"""What is measured: inputs, the two sides, the amount of work in a lap, and the bar."""

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from benchmarks.training.inputs import Shape, Texts

TINY = Shape(layers=4, width=128, heads=4, vocabulary=1024, context=64)
SMALL = Shape(layers=12, width=768, heads=12, vocabulary=50_257, context=136)
LORA = {"rank": 8, "alpha": 16.0}
SUPERVISED_STEPS, SUPERVISED_WARM_UP = 14, 4


@dataclass(frozen=True)
class Side:
    """One library in one case."""

    label: str
    module: str
    """Of :mod:`benchmarks.training.sides`."""
    environment: str = ""
    """A key of :data:`~benchmarks.training.environments.PEERS`; empty: this interpreter."""
    options: dict[str, Any] = field(default_factory=dict)
    """Added to those of the case."""


@dataclass(frozen=True)
class Case:
    """Both sides do the same work in laps that they mark themselves."""

    name: str
    title: str
    job: str
    shape: Shape
    texts: Texts
    options: dict[str, Any]
    ours: Side
    peer: Side
    unit: str
    """What `amount` counts: speed is given in units per second."""
    amount: float
    """Of work in a lap of ours."""
    peer_amount: float
    """Of work in a lap of the peer."""
    bar: float
    """How many times faster we are to be, at least."""
    aim: float
    warm_up: int = 1
    """Laps that are not counted."""
    memory_bar: float | None = None
    """Largest share of the peer's peak memory that we are to use."""


OURS = Side("ours", "ours")
TRL_PPO = Side("TRL 1.12 PPOTrainer", "trl_ppo", "trl-ppo")


def ppo_options(prompt: int, response: int, batch: int, updates: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "response_tokens": response,
        "batch_size": batch,
        "epochs": 4,
        "minibatches": 1,
        "updates": updates,
        "learning_rate": 1e-5,
        "kl_coef": 0.05,
        "seed": 1,
    }


def _ppo_case(name: str, title: str, **changes: Any) -> Case:
    """Marks fall at the end of each update, so that the first update, with all that is set up in it, is no lap."""
    defaults: dict[str, Any] = {
        "job": "ppo",
        "shape": TINY,
        "texts": Texts(rows=512, prompt=(8, 8), response=(24, 24)),
        "options": ppo_options(8, 24, 64, updates=7),
        "ours": OURS,
        "peer": TRL_PPO,
        "unit": "updates",
        "amount": 1,
        "peer_amount": 1,
    }
    return Case(name=name, title=title, **(defaults | changes))


def _reward_case(k: int, bar: float) -> Case:
    sequences = 128
    per_step = sequences // k * len(list(combinations(range(k), 2)))
    return Case(
        name=f"reward_model_k{k}",
        title=f"Reward model, K = {k}, 32 tokens each, 128 sequences in a batch",
        job="reward_model",
        shape=TINY,
        texts=Texts(rows=SUPERVISED_STEPS * (sequences // k), prompt=(8, 8), response=(24, 24), compared=k),
        options={
            "sequences": sequences,
            "compared": k,
            "steps": SUPERVISED_STEPS,
            "learning_rate": 1e-4,
            "max_tokens": 48,
            "prompt_tokens": 8,
            "response_tokens": 24,
        },
        ours=OURS,
        peer=Side("TRL 1.16 RewardTrainer", "trl_supervised", "trl"),
        unit="comparisons",
        amount=per_step,
        peer_amount=sequences // 2,
        bar=bar,
        aim=bar,
        warm_up=SUPERVISED_WARM_UP,
    )


def _sft_case() -> Case:
    batch, prompt, response = 64, (8, 24), (7, 39)
    tokens = batch * (sum(prompt) / 2 + sum(response) / 2 + 1)
    return Case(
        name="sft",
        title="SFT, 16 to 64 tokens a row, loss on responses, batch 64",
        job="sft",
        shape=TINY,
        texts=Texts(rows=SUPERVISED_STEPS * batch, prompt=prompt, response=response),
        options={
            "batch_size": batch,
            "learning_rate": 1e-4,
            "max_tokens": 64,
            "prompt_tokens": 24,
            "response_tokens": 40,
        },
        ours=OURS,
        peer=Side("TRL 1.16 SFTTrainer", "trl_supervised", "trl"),
        unit="tokens",
        amount=tokens,
        peer_amount=tokens,
        bar=1.2,
        aim=1.2,
        warm_up=SUPERVISED_WARM_UP,
    )


def _rollout_case(name: str, title: str, shape: Shape, batch: int, batches: int, longest: int) -> Case:
    return Case(
        name=name,
        title=title,
        job="rollouts",
        shape=shape,
        texts=Texts(rows=batch, prompt=(4, 8), response=(1, 1)),
        options={"prompt_tokens": 8, "response_tokens": longest, "batch_size": batch, "batches": batches},
        ours=OURS,
        peer=Side("transformers generate()", "transformers_generate"),
        unit="responses",
        amount=batch,
        peer_amount=batch,
        bar=2,
        aim=3,
    )


def ragged(shape: Shape, longest: int) -> Shape:
    """``shape`` with responses of geometric length, cut at ``longest``, whose mean is a third of it."""
    probability = 2.8 / longest
    return Shape(shape.layers, shape.width, shape.heads, shape.vocabulary, longest + 8, shape.activation, probability)


SMALL_PPO: dict[str, Any] = {
    "shape": SMALL,
    "texts": Texts(rows=64, prompt=(64, 64), response=(1, 1)),
    "options": ppo_options(64, 64, 8, updates=2),
    "bar": 2,
    "aim": 2,
    "warm_up": 0,
}

CASES: list[Case] = [
    _ppo_case("ppo", "PPO update, 4x128, value head on the policy", bar=3, aim=5),
    _ppo_case(
        "ppo_separate",
        "PPO update, 4x128, separate value model",
        ours=Side("ours", "ours", options={"ours": {"value": "separate"}}),
        bar=1.5,
        aim=2,
    ),
    _ppo_case(
        "ppo_fused_activation",
        "PPO update, 4x128, value head on the policy; the peer's checkpoint names the fused activation too",
        shape=Shape(**(TINY.__dict__ | {"activation": "gelu_pytorch_tanh"})),
        bar=3,
        aim=5,
    ),
    _ppo_case("ppo_small", "PPO update, GPT-2 small (12x768), value head on the policy", **SMALL_PPO),
    _ppo_case(
        "ppo_small_lora",
        "PPO update, GPT-2 small (12x768), ours with adapters and one base, the peer trains all weights",
        ours=Side("ours", "ours", options={"ours": {"lora": LORA}}),
        memory_bar=0.5,
        **SMALL_PPO,
    ),
    _rollout_case("rollouts", "Ragged responses, 4x128", ragged(TINY, 128), batch=64, batches=7, longest=128),
    _rollout_case(
        "rollouts_small", "Ragged responses, GPT-2 small (12x768)", ragged(SMALL, 96), batch=16, batches=3, longest=96
    ),
    _reward_case(4, 3),
    _reward_case(9, 6),
    _sft_case(),
]


def chosen(names: list[str] | None, quick: bool) -> list[Case]:
    """The cases named, or all; with ``quick`` those of the tiny shape. Raises SystemExit at an unknown name."""
    known = {case.name: case for case in CASES}
    if unknown := [name for name in names or [] if name not in known]:
        raise SystemExit(f"No such case: {unknown[0]}; choose from {', '.join(known)}.")
    if names:
        return [known[name] for name in names]
    return [case for case in CASES if not quick or case.shape.width == TINY.width]
