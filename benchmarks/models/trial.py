"""One model on its way through the stages: its folders, and how numbers are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.models.inputs import Inputs
from benchmarks.models.plain import Plain, TokenIds, tensors_of

TOLERANCE = 1e-3
"""Nats, or units of a score: rounding in float32 stays below, a wrong position or mask is far above."""


class WrongNumberError(Exception):
    """A number that plain transformers contradicts."""


class NotReachedError(Exception):
    """A cell needs what an earlier one was refused or has not made."""


@dataclass(frozen=True)
class Trial:
    """What the cells of one model share."""

    name: str
    folder: Path
    """Where everything of this model is."""
    inputs: Inputs

    @property
    def source(self) -> Path:
        """The model as it was published."""
        return self.folder / "source"

    @property
    def base(self) -> Path:
        """The model that `base_model` has made of it."""
        return self.made("base")

    @cached_property
    def plain(self) -> Plain:
        """Transformers' own view of :attr:`base`."""
        return Plain(self.base)

    @cached_property
    def given(self) -> list[list[float]]:
        """Log-probs of the given responses under :attr:`base`, by transformers."""
        return self.given_by(self.plain)

    def given_by(self, plain: Plain) -> list[list[float]]:
        """Log-probs of the given responses under another checkpoint."""
        return [plain.log_probs(prompt, answer) for prompt, answer in self.rows]

    @cached_property
    def rows(self) -> list[tuple[TokenIds, TokenIds]]:
        """The tokens of each prompt and of its given response."""
        pairs = zip(self.inputs.texts, self.inputs.answers, strict=True)
        return [(self.plain.ids(text), self.plain.answer(answer)) for text, answer in pairs]

    def made(self, name: str) -> Path:
        """The folder that an earlier cell made; raises NotReachedError where it did not."""
        if not (self.folder / name / "config.json").is_file():
            raise NotReachedError(name)
        return self.folder / name

    def new(self, name: str) -> Path:
        """A folder for a cell to make."""
        return self.folder / name


def require_close(
    what: str, ours: Sequence[float] | Tensor, plain: Sequence[float] | Tensor, by: float = TOLERANCE
) -> None:
    """Raise WrongNumberError where two rows of numbers are further apart than ``by``."""
    one, other = (torch.as_tensor(numbers, dtype=torch.float64).flatten() for numbers in (ours, plain))
    if one.shape != other.shape:
        raise WrongNumberError(f"{what}: {len(one)} numbers instead of {len(other)}")
    apart = (one - other).abs()
    if not bool((apart <= by).all()):
        raise WrongNumberError(f"{what}: off by {float(apart.max()):.2g}")


def require_rows_close(what: str, ours: Sequence[Sequence[float]], plain: Sequence[Sequence[float]]) -> None:
    """:func:`require_close` of rows of unequal lengths."""
    require_close(what, [n for row in ours for n in row], [n for row in plain for n in row])


def require_same_weights(what: str, one: Path, other: Path) -> None:
    """Raise WrongNumberError where two checkpoints differ in a bit."""
    first, second = tensors_of(one), tensors_of(other)
    different = [name for name in first | second if name not in first or name not in second]
    different += [name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])]
    if different:
        name = different[0]
        apart = float((first[name] - second[name]).abs().max()) if name in first and name in second else torch.nan
        raise WrongNumberError(f"{what}: {len(different)} tensors differ, {name} by {apart:.2g}")
