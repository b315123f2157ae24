"""Numbers that keep how they came about, so that the arithmetic shown is the arithmetic done."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

_SUM, _PRODUCT, _ALONE = 1, 2, 3
"""How closely the parts of a text hold together."""


@dataclass(frozen=True)
class Term:
    """A value and the expression that gave it."""

    value: float
    text: str
    binds: int = _ALONE

    @classmethod
    def of(cls, value: float) -> Self:
        return cls(value, number_text(value))

    def __add__(self, other: Self) -> Self:
        return self._joined(self.value + other.value, "+", other, _SUM)

    def __sub__(self, other: Self) -> Self:
        return self._joined(self.value - other.value, "-", other, _SUM, right=_PRODUCT)

    def __mul__(self, other: Self) -> Self:
        return self._joined(self.value * other.value, "x", other, _PRODUCT)

    def __truediv__(self, other: Self) -> Self:
        return self._joined(self.value / other.value, "/", other, _PRODUCT, right=_ALONE)

    def called(self, name: str, apply: Callable[[float], float]) -> Self:
        """The value of a function at this one."""
        return type(self)(apply(self.value), f"{name}({self.text})")

    def _joined(self, value: float, sign: str, other: Self, binds: int, right: int = 0) -> Self:
        return type(self)(value, f"{self._within(binds)} {sign} {other._within(right or binds)}", binds)

    def _within(self, binds: int) -> str:
        return self.text if self.binds >= binds else f"({self.text})"


def rounded_up(term: Term) -> Term:
    return term.called("ceil", math.ceil)


def larger(one: Term, other: Term) -> Term:
    return Term(max(one.value, other.value), f"max({one.text}, {other.text})")


def number_text(value: float) -> str:
    """A number as it is shown: whole ones in full, others with four digits that count."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:,.0f}"


@dataclass(frozen=True)
class Known:
    """A figure that is taken as known, and from where."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Line:
    """A line of a sheet; ``how`` is the arithmetic, or where the figure is from."""

    name: str
    value: float
    unit: str
    how: str
    computed: bool = False
    """Whether ``how`` is arithmetic."""


@dataclass
class Sheet:
    """Lines about one part of a deployment."""

    title: str
    lines: list[Line] = field(default_factory=list)

    def known(self, figure: Known) -> Term:
        """Put down a figure that is known, once."""
        line = Line(figure.name, figure.value, figure.unit, figure.source)
        if line not in self.lines:
            self.lines.append(line)
        return Term.of(figure.value)

    def given(self, name: str, value: float, unit: str, whence: str = "asked for") -> Term:
        """Put down a figure of the question."""
        return self.known(Known(name, value, unit, whence))

    def result(self, name: str, unit: str, term: Term) -> Term:
        """Put down a result; gives it as a number of its own, for the lines that go on from it."""
        self.lines.append(Line(name, term.value, unit, term.text, computed=True))
        return Term.of(term.value)

    def value(self, name: str) -> float:
        return next(line.value for line in self.lines if line.name == name)
