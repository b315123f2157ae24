"""Prometheus's text format, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NAME, _LABEL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*"), re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_IN_LABEL = _IN_HELP | {ord('"'): r"\""}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Gauge:
    """A number that goes up and down, for each of some sets of labels."""

    name: str
    help: str
    values: Mapping[Labels, float]

    @classmethod
    def of(cls, name: str, help: str, value: float, **labels: str) -> "Gauge":
        """A gauge of one value."""
        return cls(name, help, {tuple(labels.items()): value})

    @classmethod
    def by(cls, name: str, help: str, label: str, values: Mapping[str, float]) -> "Gauge":
        """A gauge with one label: its values by what it says."""
        return cls(name, help, {((label, said),): value for said, value in values.items()})


def prometheus_text(gauges: Iterable[Gauge], **common: str) -> str:
    """The text of some gauges, each value with the labels ``common`` as well.

    Raises ValueError where it would be none that Prometheus takes: a name twice, a name that cannot be one, a label
    twice.
    """
    lines, seen = [], set()
    for gauge in gauges:
        if gauge.name in seen or not _NAME.fullmatch(gauge.name):
            raise ValueError(f"{gauge.name!r} is there twice, or cannot be the name of a metric")
        seen.add(gauge.name)
        lines += [f"# HELP {gauge.name} {gauge.help.translate(_IN_HELP)}", f"# TYPE {gauge.name} gauge"]
        lines += [
            f"{gauge.name}{_braces((*common.items(), *labels))} {_number(value)}"
            for labels, value in gauge.values.items()
        ]
    return "".join(f"{line}\n" for line in lines)


def _braces(labels: Labels) -> str:
    names = [name for name, _ in labels]
    if len(set(names)) < len(names) or not all(map(_LABEL.fullmatch, names)):
        raise ValueError(f"{', '.join(names)}: a label is there twice, or cannot be the name of one")
    return "{" + ",".join(f'{name}="{said.translate(_IN_LABEL)}"' for name, said in labels) + "}" if labels else ""


def _number(value: float) -> str:
    """Go's and Python's words for numbers are the same but for those that are not finite."""
    said = repr(float(value))
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(said, said.removesuffix(".0"))
