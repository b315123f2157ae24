"""The papers' claims as experiments, run through loops of this package and judged by rules fixed beforehand."""
