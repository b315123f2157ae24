"""A chart of how many times faster each case is, with the bar that it should pass."""

from pathlib import Path

from benchmarks.training.runner import Outcome

OURS, BAR = "#2f6f9f", "#b5483a"


def draw(outcomes: list[Outcome], path: Path) -> None:
    """One horizontal bar for each case, the repetitions as dots; nothing where no case has a result."""
    done = [outcome for outcome in outcomes if not outcome.failure]
    if not done:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 * len(done) + 1.2), layout="constrained")
    axes = figure.subplots()
    for height, outcome in enumerate(reversed(done)):
        axes.barh(height, outcome.ratio.median, height=0.6, color=OURS)
        single = [a / b for a, b in zip(outcome.ours.speeds, outcome.peer.speeds, strict=True)]
        axes.plot(single, [height] * len(single), "o", color="black", markersize=3)
        axes.plot([outcome.case.bar] * 2, [height - 0.4, height + 0.4], color=BAR, linewidth=2)
        axes.text(outcome.ratio.high + 0.1, height, f"{outcome.ratio.median:.1f}", va="center")
    axes.set_yticks(range(len(done)), [f"{one.case.name}\nagainst {one.peer.label}" for one in reversed(done)], size=8)
    axes.margins(x=0.08)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("times faster (red: the least we ask; dots: repetitions)")
    figure.savefig(path, dpi=130)
