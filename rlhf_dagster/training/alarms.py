"""What in PPO's curves says that something is wrong."""

from collections.abc import Sequence

RATIO_TOLERANCE = 1e-2
NEGATIVE_KL = -0.1
NEGATIVE_UPDATES = 5
FEW_DISTINCT = 0.1


def alarms(curves: dict[str, list[float]]) -> list[str]:
    """One sentence for each problem; an empty list when nothing stands out.

    The curves are those of :func:`rlhf_dagster.training.ppo.run_ppo`.
    """
    found = [_ratio(curves["ratio_first"]), _negative_kl(curves["kl"]), _same_answer(curves["distinct_responses"])]
    return [sentence for sentence in found if sentence]


def _ratio(ratios: Sequence[float]) -> str | None:
    update = max(range(len(ratios)), key=lambda index: abs(ratios[index] - 1))
    if abs(ratios[update] - 1) <= RATIO_TOLERANCE:
        return None
    return (
        f"The probability ratio was {ratios[update]:.4f} instead of 1 at the first step of update {update + 1}: "
        "sampling and training do not agree on the policy's log-probabilities."
    )


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
