"""The matrix as a page: a row for each model, and below it why what is not right is not."""

import re
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from zoo.models import NOT_MADE, ZOO

from benchmarks.models.matrix import CELLS, Outcome
from benchmarks.models.run import Row

HEAD = """# Models

What transformers calls a causal language model, and what can be done with it here. For every architecture that
transformers has a class of, a tiny model with random weights goes through every stage, some in several variants, and
its numbers are compared with those of plain transformers, one row at a time without padding. `make models` makes this
page (`make models ONLY=llama,gpt2` tries some); it holds for {versions}.

{summary}

| sign | means |
|---|---|
| ● | right: log-probs, scores and values are those of plain transformers, merged and reloaded too; the first \
ratio is 1, the first KL 0, DPO's first loss ln 2; what was interrupted ends with the same bits |
| a letter | refused with one sentence, below |
| a number | wrong, below |
| · | not tried: what it needs was refused |

"""
VERSIONED = ("torch", "transformers", "peft", "accelerate", "tokenizers")


def page(rows: Sequence[Row]) -> str:
    """The page in Markdown."""
    signs, sentences = _signs(rows)
    head = HEAD.format(versions=_versions(), summary=summary(rows))
    return "\n".join([head + table(rows, signs), *_below(sentences), *_not_made()]) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """How many models and cells are right, refused and wrong."""
    counts = {verdict: sum(row.count(verdict) for row in rows) for verdict in ("right", "refused", "wrong")}
    whole = sum(row.count("right") == len(row.outcomes) for row in rows)
    refused = sum(row.outcomes[0].verdict == "refused" for row in rows)
    architectures = len({ZOO[row.model].model_type for row in rows})
    return (
        f"{len(rows)} models of {architectures} architectures: {whole} are right throughout, {refused} are refused at "
        f"`base_model`. Of all cells {counts['right']} are right, {counts['refused']} refused, {counts['wrong']} wrong."
    )


def table(rows: Sequence[Row], signs: dict[str, str] | None = None) -> str:
    """A line for each model; a reason without a sign is shown by its verdict."""
    names = [cell.name for cell in CELLS if any(outcome.cell == cell.name for row in rows for outcome in row.outcomes)]
    lines = ["| model | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row in rows:
        by_cell = {outcome.cell: outcome for outcome in row.outcomes}
        marks = [_mark(row, by_cell.get(name), signs or {}) for name in names]
        lines.append(f"| {row.model} | " + " | ".join(marks) + " |")
    return "\n".join(lines)


def reason_of(row: Row, outcome: Outcome) -> str:
    """A reason without what is this model's alone, so that reasons of one kind are one sentence."""
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[ZOO[row.model].model_type]
    stem = re.sub(r"(ForCausalLM|LMHeadModel|ModelWithLMHead|ForConditionalGeneration|Decoder)$", "", architecture)
    text = re.sub(rf"\b{re.escape(stem)}\w*", "The model", outcome.reason)
    return re.sub(r"\boff by \S+", "off", text)


def _signs(rows: Sequence[Row]) -> tuple[dict[str, str], dict[str, tuple[str, list[str]]]]:
    """The sign of each reason, and for each sign the reason and where it was given."""
    signs: dict[str, str] = {}
    sentences: dict[str, tuple[str, list[str]]] = {}
    for verdict in ("refused", "wrong"):
        places: defaultdict[str, list[str]] = defaultdict(list)
        for row in rows:
            for outcome in row.outcomes:
                if outcome.verdict == verdict:
                    places[reason_of(row, outcome)].append(f"{row.model} ({outcome.cell})")
        for number, (reason, where) in enumerate(places.items()):
            signs[reason] = _letters(number) if verdict == "refused" else str(number + 1)
            sentences[signs[reason]] = (reason, where)
    return signs, sentences


def _mark(row: Row, outcome: Outcome | None, signs: dict[str, str]) -> str:
    if outcome is None or outcome.verdict == "not reached":
        return "·"
    if outcome.verdict == "right":
        return "●"
    return signs.get(reason_of(row, outcome), outcome.verdict)


def _below(sentences: dict[str, tuple[str, list[str]]]) -> list[str]:
    lines = ["", "## Why not", ""]
    for sign, (reason, where) in sentences.items():
        lines += [f"- **{sign}** {reason}  ", f"  {_short(where)}"]
    return lines if sentences else []


def _short(where: list[str]) -> str:
    """Models with their cells, each model once."""
    cells: defaultdict[str, list[str]] = defaultdict(list)
    for place in where:
        model, _, cell = place.removesuffix(")").partition(" (")
        cells[model].append(cell)
    return "; ".join(f"{model}: {', '.join(names)}" for model, names in cells.items())


def _not_made() -> list[str]:
    lines = ["", "## Not in the matrix", "", "| architecture | why |", "|---|---|"]
    return lines + [f"| {name} | {why} |" for name, why in sorted(NOT_MADE.items())]


def _letters(number: int) -> str:
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in VERSIONED)
