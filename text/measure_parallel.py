"""What the same text costs in different languages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def premiums(costs: Mapping[str, float], reference: str) -> dict[str, float]:
    """Each cost over that of the reference: 2.0 pays twice.

    costs  language -> tokens (or bytes: the byte premium) of a parallel text. Text that is not translated
           hides a premium: leave it out first.

    Petrov et al. 2023; Arnett et al. 2025. ValueError when the reference is missing or costs nothing.
    """
    if reference not in costs:
        raise ValueError(f"no costs of the reference {reference!r}; there are {', '.join(costs)}")
    if not costs[reference] > 0:
        raise ValueError(f"the reference {reference!r} costs {costs[reference]}: expected more than 0")
    return {language: cost / costs[reference] for language, cost in costs.items()}


def gini(costs: Iterable[float]) -> float:
    """Gini coefficient, the mean difference of two costs over twice their mean: 0 when all pay the same, up
    to 1 - 1/n when one of n pays all. ValueError without costs, or when one is negative or all are 0."""
    found = np.sort(np.fromiter(costs, np.float64))
    if not found.size or not found[0] >= 0 or not found.sum() > 0:
        raise ValueError(f"costs {found.tolist()}: expected numbers from 0 up, not all of them 0")
    ranks = np.arange(1, found.size + 1)
    return float(((2 * ranks - found.size - 1) * found).sum() / (found.size * found.sum()))


def spread(costs: Iterable[float]) -> float:
    """The dearest over the cheapest. ValueError without costs, or when one is not positive."""
    found = list(costs)
    if not found or not min(found) > 0:
        raise ValueError(f"costs {found}: expected numbers above 0")
    return max(found) / min(found)
