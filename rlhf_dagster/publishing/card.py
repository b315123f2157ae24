"""The model card of a publication, and the mark of one that was withdrawn."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rlhf_dagster.lineage.weight_files import CONFIG
from rlhf_dagster.records.licences import LicensedSource

POLICY_CARD = "README.md"
_FRONT = "---\n"


def write_policy_card(
    out: Path,
    facts: dict[str, Any],
    *,
    licence: str,
    sources: Sequence[LicensedSource],
    place: str,
    revision: str,
    adapters: bool,
    rows: int,
) -> None:
    """Write the card beside the model in ``out``.

    ``place`` and ``revision`` are what `from_pretrained` is given, the latter empty where there are none. ``rows`` are
    those of the embedding that adapters belong to.
    """
    data_sets = [source.name for source in sources if source.name and source.name != facts["base"].get("name")]
    text = _template().render(
        **facts,
        licence=licence,
        sources=sources,
        adapters=adapters,
        rows=rows,
        data_sets=data_sets,
        where=f'"{place}"' + (f', revision="{revision}"' if revision else ""),
        reads_chats=_reads_chats(out),
        interval=_interval,
    )
    (out / POLICY_CARD).write_text(text, encoding="utf-8")


def withdrawn_card(text: str, day: str, reason: str) -> str:
    """A card that begins with its withdrawal, behind the data that the Hub reads."""
    mark = f"> **Withdrawn on {day}.** {' '.join(reason.split())}\n"
    if not text.startswith(_FRONT):
        return f"{mark}\n{text}"
    front, end, body = text.removeprefix(_FRONT).partition(f"\n{_FRONT}")
    return f"{_FRONT}{front}{end}\n{mark}\n{body.lstrip()}"


def embedding_rows(folder: Path) -> int:
    """Rows of the embedding of the model in a folder."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return int(config.get("vocab_size") or config["text_config"]["vocab_size"])


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(  # noqa: S701  # Markdown, of which nothing is escaped
        loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    return environment.get_template("card.md.j2")


def _interval(figure: dict[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return "unknown"
    return f"{figure['low']:.3g} to {figure['high']:.3g}"


def _reads_chats(out: Path) -> bool:
    """Whether the tokenizer among the files has SFT's mark that prompts are chats."""
    from rlhf_dagster.training.texts.chats.encoding import MARK

    file = out / "tokenizer_config.json"
    return file.is_file() and bool(json.loads(file.read_text(encoding="utf-8")).get(MARK))
