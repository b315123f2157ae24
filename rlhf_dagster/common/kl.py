"""Kullback-Leibler divergences that are known without a measurement."""

import math


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n nats: KL of the best of n samples to the policy that draws them.

    Stiennon et al. 2020, arXiv 2009.01325, appendix G.3. It is exact where no two samples have the same score, as with
    continuous scores and a policy that never repeats itself, and an upper bound otherwise (Beirami et al. 2024, arXiv
    2401.01879).
    """
    return math.log(n) - (n - 1) / n
