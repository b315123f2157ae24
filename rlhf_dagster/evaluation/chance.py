"""Whether a reward model is better than guessing, as far as labels that it never saw can tell."""

from rlhf_dagster.evaluation.rules import Figures

_GUESSES = {
    "length_baseline": "picking the longest response",
    "brevity_baseline": "picking the shortest response",
}


def not_above_chance(accuracy: Figures) -> str:
    """Why a reward model is not known to be better than guessing; empty where it is.

    ``accuracy`` is :func:`~rlhf_dagster.evaluation.reward_accuracy.reward_accuracy`. Of all labels not trained on, the
    lower end of the 95% interval of the accuracy must be above chance, and above the accuracy of picking the longest
    and of picking the shortest response: a policy that is trained on less learns noise, or learns lengths. The fewer
    the labels, the lower is that end, so that too few are never enough.

    Figures of version 0.1, which measured less, are not judged.
    """
    if "unseen" not in accuracy:
        return ""
    unseen: Figures = accuracy["unseen"]
    if unseen["accuracy"] is None:
        return "No label that names a best response is kept from training, so nothing tells it from chance"
    guesses = _guesses(unseen)
    if unseen["accuracy"]["low"] > max(guesses.values()):
        return ""
    listed = [f"{name} ({value:.1%})" for name, value in guesses.items()]
    return f"{_found(unseen)}; the lower end must be above {', '.join(listed[:-1])} and {listed[-1]}"


def _guesses(unseen: Figures) -> dict[str, float]:
    """The accuracies that need no model."""
    return {"chance": unseen["chance"]} | {said: unseen[name]["value"] for name, said in _GUESSES.items()}


def _found(unseen: Figures) -> str:
    rate = unseen["accuracy"]
    return (
        f"It picks what people picked on {rate['value']:.1%} of {rate['n']:,} comparisons that it never saw "
        f"(95% interval {rate['low']:.1%} to {rate['high']:.1%})"
    )


def cannot_be_told(perfect: Figures) -> str:
    """Why no reward model could be known to be better than guessing; empty where one could.

    ``perfect`` is :func:`~rlhf_dagster.evaluation.reward_accuracy.perfect_accuracy` of the labels.
    """
    if not not_above_chance(perfect):
        return ""
    unseen: Figures = perfect["unseen"]
    if unseen["accuracy"] is None:
        return "no label that names a best response is kept from training"
    kept, guesses = unseen["accuracy"]["n"], _guesses(unseen)
    name = max(guesses, key=lambda guess: guesses[guess])
    return f"{kept:,} comparisons are kept from training, and {name} is right on {guesses[name]:.1%} of them"
