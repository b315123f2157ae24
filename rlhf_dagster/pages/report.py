"""The evaluation report as one self-contained HTML page: inline style, pictures as data, no script, no outside link."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlhf_dagster.config.arms import BEST_OF_N_SFT, GRPO, PPO, RLOO, TRAINED, Arm
from rlhf_dagster.evaluation.report import LABEL_COUNTS
from rlhf_dagster.evaluation.standing import Standing
from rlhf_dagster.evaluation.texts.copying import NOVEL
from rlhf_dagster.pages.plots import REPORT_CURVES, data_uri, training_curves
from rlhf_dagster.records.chats import ROLE_NAMES, Chat, Prompt

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from rlhf_dagster.evaluation.samples import ShownSample

MISSING = "–"
STANDING = ("<!-- standing -->", "<!-- /standing -->")
"""Between them stands what has become of the policy, which is written anew when that changes."""
NGRAMS = ("words", "word pairs", "word triples", "groups of four words")
RULE_NAMES = {
    "min_win_rate": "Win rate",
    "min_length_controlled_win_rate": "Win rate at equal length",
    "max_kl": "KL budget",
    "max_length_ratio": "Length",
    "min_distinct": "Diversity",
    "max_repetition": "Repetition",
    "max_copying": "Copying",
    "max_copied_sentences": "Copied sentences",
    "max_perplexity_ratio": "Alignment tax",
    "max_reward_drift": "Over-optimisation",
}
"""What the page calls the gate's rules."""
TEXT_ROWS = (
    ("copying.copied_sentences", "Copied sentences", "of a response’s; the others are not in the source"),
    ("copying.copied_start", "Begins by copying", "the first words of the source"),
    ("copying.lcs_bigrams", "Word pairs in the source’s order", "with gaps"),
    *((f"copying.novel_{n}", f"New {name}", "not in the source") for n, name in zip(NOVEL, NGRAMS, strict=True)),
    ("rouge.rouge1", "ROUGE-1", "words"),
    ("rouge.rouge2", "ROUGE-2", "word pairs"),
    ("rouge.rougeL", "ROUGE-L", "words in the same order"),
    ("truthfulness.covered", "Key facts covered", ""),
    ("truthfulness.truthful", "Truthful responses", "without a false fact"),
    ("truthfulness.false_facts", "False facts", "in a response"),
)
"""What the page calls the figures of :func:`~rlhf_dagster.evaluation.texts.figures.text_figures`, and their units."""
STAGE_NAMES = {"sft_checkpoint": "SFT", "reward_model": "Reward model"} | {
    arm.asset: arm.title for arm in TRAINED.values()
}
"""What the page calls the stages that trained the models of a round."""
USES_OF_REWARD = {
    PPO: "PPO maximises its score",
    RLOO: "RLOO maximises its score",
    GRPO: "GRPO maximises its score",
    BEST_OF_N_SFT: "best-of-n SFT learns from the samples that it scores highest",
}
"""What an arm does with the reward model; DPO does without."""


def render_report(
    report: Mapping[str, Any],
    samples: Sequence["ShownSample"],
    curves: Mapping[str, Sequence[float]] | None = None,
    standing: Standing | None = None,
) -> str:
    """The page for a dict of :func:`report.build_report`.

    ``curves`` are those of the policy's training, of which the page draws :data:`plots.REPORT_CURVES`; ``standing`` is
    what the page begins with, which :func:`with_standing` replaces when it changes. Every text of a model, a prompt or
    an annotator is escaped.
    """
    drawn = {name: curves[name] for name in REPORT_CURVES if curves and any(True for _ in curves.get(name, ()))}
    arm = arm_of_report(report)
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            arm=arm.title,
            use_of_reward=USES_OF_REWARD.get(arm),
            samples=[asdict(sample) | {"turns": turns(sample.prompt)} for sample in samples],
            cuts=cuts(report["training"]),
            picture=data_uri(training_curves(drawn)) if drawn else None,
            drawn=list(drawn),
            by_samples="reward" in drawn,
            standing=_standing_html(standing) if standing else "",
            rule_names=RULE_NAMES,
            text_rows=TEXT_ROWS,
            label_counts=LABEL_COUNTS,
            behaviour_is_sft=report["behaviour_policy"] == report["policies"]["sft"]["policy_id"],
        )
    )


def with_standing(page: str, standing: Standing) -> str:
    """A page of :func:`render_report` that begins with ``standing``; unchanged where it has no place for it."""
    before, opened, rest = page.partition(STANDING[0])
    _, closed, after = rest.partition(STANDING[1])
    return before + opened + str(_standing_html(standing)) + closed + after if opened and closed else page


def _standing_html(standing: Standing) -> "Markup":
    from markupsafe import Markup

    # What a person wrote in it is escaped, so that no text can end its place on the page too early.
    return Markup(_templates().get_template("standing.html.j2").render(standing=standing, rule_names=RULE_NAMES))  # noqa: S704


def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rlhf_dagster.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pct": percent, "num": decimals, "count": count, "span": interval}
    return environment


def arm_of_report(report: Mapping[str, Any]) -> Arm:
    """The arm that has trained the policy; PPO where the report does not say."""
    return next((arm for arm in TRAINED.values() if arm.asset in report["training"]), PPO)


def turns(prompt: Prompt) -> list[tuple[str, str]]:
    """The turns of a chat, each with its role; a text is one turn without a role."""
    if not isinstance(prompt, Chat):
        return [("", prompt)]
    return [(ROLE_NAMES[message.role], message.content) for message in prompt.messages]


def cuts(training: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each stage did not read because it was too long, from its metrics: number and share of texts, and tokens."""
    return [
        {"stage": STAGE_NAMES.get(stage, stage), "what": f"{what}s", "count": metrics[f"cut_{what}s"]}
        | {"share": metrics.get(f"cut_{what}_share"), "tokens": metrics.get(f"cut_{what}_tokens")}
        for stage, metrics in training.items()
        for what in ("prompt", "response")
        if metrics.get(f"cut_{what}s")
    ]


def percent(share: float | None, digits: int = 0) -> str:
    return MISSING if share is None else f"{share:.{digits}%}"


def decimals(value: float | None, digits: int = 2) -> str:
    """With a typographic minus, so that columns line up and lines do not break at a hyphen."""
    # Adding 0.0 after rounding turns -0.0 into 0.0.
    return MISSING if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def interval(rate: Mapping[str, Any] | None, digits: int = 1, *, scale: float = 1.0) -> str:
    """The interval's ends as ``low – high``, multiplied by ``scale`` (100 for percentages)."""
    if not rate or rate.get("low") is None or rate.get("high") is None:
        return MISSING
    return f"{decimals(scale * rate['low'], digits)} – {decimals(scale * rate['high'], digits)}"
