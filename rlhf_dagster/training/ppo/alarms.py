"""Warnings that PPO's curves give of a training that goes wrong."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median

RATIO_TOLERANCE = 1e-2
BF16_LOG_RATIO = 0.1
"""Nats, mean of |log ratio| over a minibatch. In bfloat16 a pretrained model of 135 million parameters has 0.03
(docs/training.md); a sampler that does not see the past, or other positions than in training, gives more than 1."""
BF16_FURTHEST = 1.0
"""Nats of a single token, of which rounding to bfloat16 moved none of that model's by more than a quarter."""
NEGATIVE_KL = -0.1
NEGATIVE_UPDATES = 5
FEW_DISTINCT = 0.1
WINDOW = 5
"""How many of the first and of the last updates are averaged for a comparison."""
COLLAPSED = 0.1
"""Alarm below this share of the first updates' entropy."""
RUN_AWAY = 2.0
"""Alarm above this multiple of the first updates' response length."""
EXPLODED = 10.0
"""Alarm above this multiple of the median value loss before."""
SAMPLER_KL = 0.01
"""Nats a token between sampler and policy: as much as an update of PPO commonly changes, and eight times what rounding
to bfloat16 does to a pretrained model (docs/training.md)."""
MOSTLY_START = 0.1
"""Share of the start's weights in an average above which it says less about training than about where it began."""


def alarms(curves: dict[str, list[float]], precision: str = "fp32", ahead: int = 0) -> list[str]:
    """One sentence for each problem; an empty list when nothing stands out.

    The curves are those of :func:`rlhf_dagster.training.ppo.train.run_ppo`, computed in ``precision``. Where rollouts
    are drawn ``ahead``, the first update alone begins as the policy that its responses are from: of the ratios its own
    is looked at.
    """
    first = {name: curve[:1] if ahead else curve for name, curve in curves.items() if name.endswith("ratio_first")}
    found = [
        _ratio(first["ratio_first"]) if precision == "fp32" else _ratio_in_bf16(first),
        _negative_kl(curves["kl"]),
        _same_answer(curves["distinct_responses"]),
        _entropy_collapse(curves.get("entropy", ())),
        _length_run_away(curves.get("response_length", ())),
        _value_explosion(curves.get("value_loss", ())),
        _sampler_disagrees(curves.get("sampler_kl", ())),
    ]
    return [sentence for sentence in found if sentence]


def _ratio(ratios: Sequence[float]) -> str | None:
    update = max(range(len(ratios)), key=lambda index: abs(ratios[index] - 1))
    if abs(ratios[update] - 1) <= RATIO_TOLERANCE:
        return None
    return (
        f"The probability ratio was {ratios[update]:.4f} instead of 1 at the first step of update {update + 1}: "
        "sampling and training do not agree on the policy's log-probabilities."
    )


def _ratio_in_bf16(curves: Mapping[str, Sequence[float]]) -> str | None:
    """Rounding moves single tokens by tenths of a nat, whatever the model; what it cannot do is to move them all."""
    furthest = [abs(math.log(ratio)) for ratio in curves["ratio_first"]]
    for nats, limit, of_what in (
        (curves.get("log_ratio_first", [0.0]), BF16_LOG_RATIO, "on average"),
        (furthest, BF16_FURTHEST, "at one token"),
    ):
        if max(nats) > limit:
            return (
                f"At the first step of update {list(nats).index(max(nats)) + 1} the policy's log-probabilities were "
                f"{max(nats):.2f} nats {of_what} from those of sampling, more than bfloat16 explains: sampling and "
                "training do not agree on them."
            )
    return None


def _negative_kl(kl: Sequence[float]) -> str | None:
    run = longest = 0
    for value in kl:
        run = run + 1 if value < NEGATIVE_KL else 0
        longest = max(longest, run)
    if longest < NEGATIVE_UPDATES:
        return None
    return (
        f"The KL to the SFT policy was negative for {longest} updates in a row: "
        "responses are not drawn from the distribution whose log-probabilities are recorded."
    )


def _same_answer(distinct: Sequence[float]) -> str | None:
    if distinct[-1] > FEW_DISTINCT:
        return None
    return (
        f"Only {distinct[-1]:.0%} of the last update's responses are distinct: "
        "the policy gives nearly the same answer to every prompt; raise kl_coef or lower learning_rate."
    )


def _entropy_collapse(entropy: Sequence[float]) -> str | None:
    first, last = _ends(entropy)
    if last >= COLLAPSED * first:
        return None
    return (
        f"The entropy fell from {first:.2f} to {last:.2f} nats a token: the policy hardly varies its responses any "
        "more; raise kl_coef or lower learning_rate."
    )


def _length_run_away(lengths: Sequence[float]) -> str | None:
    first, last = _ends(lengths)
    if last <= RUN_AWAY * first:
        return None
    return (
        f"Responses grew from {first:.1f} to {last:.1f} tokens: the reward pays for length; compare the reward model "
        "with the length alone, or set missing_end_penalty."
    )


def _value_explosion(losses: Sequence[float]) -> str | None:
    before, (_, last) = losses[:-WINDOW], _ends(losses)
    if not before or last <= EXPLODED * median(before):
        return None
    return (
        f"The value loss rose to {last:.3g}, from {median(before):.3g} before: the values no longer follow the "
        "returns; lower learning_rate or value_coef, or set max_grad_norm."
    )


def _sampler_disagrees(kl: Sequence[float]) -> str | None:
    last = fmean(kl[-WINDOW:]) if kl else 0.0
    if last <= SAMPLER_KL:
        return None
    return (
        f"The rollout backend samples from a policy {last:.3f} nats a token away from the one that is trained; weights "
        "correct it only up to ppo.importance_cap: set compute.precision to fp32, or compute.rollout_backend to native."
    )


def _ends(curve: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last updates; both 0, which raises no alarm, where the two would overlap."""
    if len(curve) < 2 * WINDOW:
        return 0.0, 0.0
    return fmean(curve[:WINDOW]), fmean(curve[-WINDOW:])


def mostly_start(decay: float | None, updates: int) -> str:
    """The sentence for an average that has forgotten too little of the start; empty where it has forgotten."""
    if decay is None or not updates or (left := decay**updates) <= MOSTLY_START:
        return ""
    return (
        f"The checkpoint's average holds {left:.0%} of the weights that training started from: with ppo.ema_decay "
        f"{decay:g}, {updates} updates are few; lower it or train longer."
    )
