"""GPUs by their makers' data sheets: peak rates without sparsity."""

from dataclasses import dataclass, replace

from rlhf_dagster.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """A device of a kind."""

    name: str
    gib: float
    """Memory in GiB."""
    tflops: float
    """Peak of dense matrix products in bfloat16, in 10^12 operations a second."""
    bandwidth: float
    """Of its memory, in TB a second."""
    source: str


_ROWS = (
    Gpu("A100", 80, 312, 2.039, "NVIDIA A100 80GB SXM data sheet"),
    Gpu("H100", 80, 989, 3.35, "NVIDIA H100 SXM data sheet; 1,979 there is with sparsity"),
    Gpu("H200", 141 / 1.073741824, 989, 4.8, "NVIDIA H200 SXM data sheet; 1,979 there is with sparsity, 141 GB"),
)
GPUS = {row.name: row for row in _ROWS}
IN_A_HOST = 8
"""GPUs of one host, as in NVIDIA's DGX and HGX of these kinds."""


def find_gpu(name: str, gib: float | None = None) -> Gpu:
    """The GPU of that name, with ``gib`` of memory where that is given; UserError with all names for another."""
    known = GPUS.get(name.upper())
    if known is None:
        raise UserError(f"{name} is no GPU that is known here; choose one of {', '.join(GPUS)}.")
    return known if gib is None else replace(known, gib=gib, source=f"{known.source}; memory as asked for")
