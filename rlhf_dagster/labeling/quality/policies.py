"""Whose responses people prefer: win rates, Bradley-Terry strengths and Elo ratings of named policies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rlhf_dagster.common.intervals import Rate, clustered_rate
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.records.machines import without_machines
from rlhf_dagster.records.round_keys import IMPORTED_POLICY

ELO_MEAN = 1000.0
ELO_SCALE = 400 / math.log(10)
"""Points of Elo's scale for one unit of log odds: 400 points are odds of ten to one."""
_PRIOR = 1 / 9
"""Precision of the normal prior of a strength, of standard deviation 3: who won every time stays finite."""
_STEPS = 100
_SMALL = 1e-10
_Z = 1.959964


@dataclass(frozen=True)
class Duels:
    """Pairs of responses by two policies in the labels: all arrays have shape (duels,)."""

    first: np.ndarray
    """Index of a policy."""
    second: np.ndarray
    outcome: np.ndarray
    """1 where the first is ranked better, 0 where the second is, 0.5 where they tie."""
    cluster: np.ndarray
    """Index of the comparison: all that one ranking says, and all that is said of one comparison, is one unit."""


def preferred_policies(labels: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, Any] | None:
    """Figures of the policies that ``comparisons`` name; None where labels compare fewer than two of them.

    The tables have the columns of LABELS and COMPARISONS; people's usable labels of role `label` count or, where there
    are none, machines'. ``policies`` are sorted
    by strength, each with ``win_rate`` (over all its duels, ties counting half), ``strength`` and ``elo``, which are
    None where some policies were never compared with others, not even by way of third ones; ``duels`` has the win rate
    of each pair of policies. All with ``value``, ``low``, ``high`` and ``n``, the number of comparisons.

    Strengths are the log odds of Bradley and Terry (1952) with a mean of 0, a tie being half a win for either;
    intervals are by the sandwich estimator, with comparisons as clusters (Liang and Zeger 1986). Elo's scale is the
    same with 400 points for odds of ten and a mean of 1000.
    """
    names, duels = _duels(labels, comparisons)
    if len(names) < 2:
        return None
    strengths = _strengths(duels, len(names))
    rows = [_figures_of(index, name, duels, strengths) for index, name in enumerate(names)]
    rows.sort(key=lambda row: -(row["strength"] or row["win_rate"])["value"])
    return {"policies": rows, "duels": _pairs(names, duels)}


def _duels(labels: pd.DataFrame, comparisons: pd.DataFrame) -> tuple[list[str], Duels]:
    asked = comparisons.loc[comparisons["role"] == "label", ["comparison_id", "policy_ids"]]
    people = without_machines(labels)
    usable = usable_labels(people if len(people) else labels)
    judged = usable[["comparison_id", "ranks"]].merge(asked, on="comparison_id")
    clusters = pd.factorize(judged["comparison_id"])[0]
    parts = []
    for _, group in judged.groupby(judged["ranks"].map(len)):
        parts += _of_one_size(group, clusters[group.index])
    if not parts:
        nothing = np.empty(0, dtype=np.int64)
        return [], Duels(nothing, nothing, nothing.astype(float), nothing)
    first, second, outcome, cluster = (np.concatenate(column) for column in zip(*parts, strict=True))
    kept = (first != second) & ~np.isin(first, _UNNAMED) & ~np.isin(second, _UNNAMED)
    names, codes = np.unique(np.concatenate([first[kept], second[kept]]), return_inverse=True)
    half = int(kept.sum())
    return names.tolist(), Duels(codes[:half], codes[half:], outcome[kept], cluster[kept])


_UNNAMED = ["", IMPORTED_POLICY]


def _of_one_size(group: pd.DataFrame, clusters: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The duels in labels of comparisons with equally many responses."""
    ranks = np.array(group["ranks"].tolist(), dtype=np.int64)
    policies = np.array(group["policy_ids"].map(list).tolist(), dtype=object).astype(str)
    return [
        (policies[:, i], policies[:, j], (np.sign(ranks[:, j] - ranks[:, i]) + 1) / 2, clusters)
        for i in range(ranks.shape[1])
        for j in range(i + 1, ranks.shape[1])
    ]


def _strengths(duels: Duels, k: int) -> list[Rate] | None:
    """Of each policy; None where they are not all on one scale."""
    graph = coo_matrix((np.ones(len(duels.first)), (duels.first, duels.second)), shape=(k, k))
    if connected_components(graph, directed=False)[0] > 1:
        return None
    strengths: np.ndarray = np.zeros(k)
    for _ in range(_STEPS):
        slope, curvature = _derivatives(strengths, duels, k)
        step = np.linalg.solve(curvature, slope)
        strengths = strengths + step
        if np.abs(step).max() < _SMALL:
            break
    strengths = strengths - strengths.mean()
    errors = np.sqrt(np.diag(_covariance(strengths, duels, k)))
    n = len(np.unique(duels.cluster))
    return [Rate(float(s), float(s - _Z * e), float(s + _Z * e), n) for s, e in zip(strengths, errors, strict=True)]


def _surprise(strengths: np.ndarray, duels: Duels) -> tuple[np.ndarray, np.ndarray]:
    """By how much each outcome is above its expectation, and the variance of a win: (duels,) each."""
    expected = 1 / (1 + np.exp(strengths[duels.second] - strengths[duels.first]))
    return duels.outcome - expected, expected * (1 - expected)


def _derivatives(strengths: np.ndarray, duels: Duels, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of the log posterior, shape (k,), and minus its second derivatives, shape (k, k)."""
    above, variance = _surprise(strengths, duels)
    slope = np.bincount(duels.first, above, k) - np.bincount(duels.second, above, k) - _PRIOR * strengths
    mixed: np.ndarray = np.bincount(duels.first * k + duels.second, variance, k * k).reshape(k, k)
    mixed = mixed + mixed.T
    return slope, np.diag(mixed.sum(axis=1) + _PRIOR) - mixed


def _covariance(strengths: np.ndarray, duels: Duels, k: int) -> np.ndarray:
    """Of strengths with a mean of 0, allowing for whatever depends on each other within a comparison: (k, k)."""
    above, _ = _surprise(strengths, duels)
    _, cluster = np.unique(duels.cluster, return_inverse=True)
    n = int(cluster.max()) + 1
    slopes = coo_matrix((above, (cluster, duels.first)), shape=(n, k)) - coo_matrix(
        (above, (cluster, duels.second)), shape=(n, k)
    )
    inverse = np.linalg.inv(_derivatives(strengths, duels, k)[1])
    centred = (np.eye(k) - 1 / k) @ inverse
    few = n / (n - 1) if n > 1 else 1.0
    covariance: np.ndarray = few * centred @ (slopes.T @ slopes).toarray() @ centred.T
    return covariance


def _figures_of(index: int, name: str, duels: Duels, strengths: Sequence[Rate] | None) -> dict[str, Any]:
    won = np.concatenate([duels.outcome[duels.first == index], 1 - duels.outcome[duels.second == index]])
    clusters = np.concatenate([duels.cluster[duels.first == index], duels.cluster[duels.second == index]])
    strength = strengths[index] if strengths else None
    return {
        "policy": name,
        "win_rate": clustered_rate(won, clusters.tolist()).as_dict(),
        "strength": strength.as_dict() if strength else None,
        "elo": _as_elo(strength).as_dict() if strength else None,
    }


def _as_elo(strength: Rate) -> Rate:
    value, low, high = (ELO_MEAN + ELO_SCALE * end for end in (strength.value, strength.low, strength.high))
    return Rate(value, low, high, strength.n)


def _pairs(names: Sequence[str], duels: Duels) -> list[dict[str, Any]]:
    """The win rate of each policy over each that comes after it in the alphabet, where they were compared."""
    turned = duels.first > duels.second
    low, high = np.minimum(duels.first, duels.second), np.maximum(duels.first, duels.second)
    outcome, pair = np.where(turned, 1 - duels.outcome, duels.outcome), low * len(names) + high
    found = []
    for code in np.unique(pair):
        own = pair == code
        rate = clustered_rate(outcome[own], duels.cluster[own].tolist())
        found.append(
            {"policy": names[code // len(names)], "against": names[code % len(names)], **rate.as_dict()}
            | {"wins": int((outcome[own] == 1).sum()), "ties": int((outcome[own] == 0.5).sum())}
            | {"losses": int((outcome[own] == 0).sum())}
        )
    return found
