"""How an engine in another process gets the trainer's weights: by NCCL, or in files on a disk that both see."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.sampling.engines.engine import EngineFacts, RolloutEngine
from rlhf_dagster.training.sampling.engines.vllm_plugin import FILES
from rlhf_dagster.training.sampling.vllm_backend import plain_weights

FILE_BYTES = 2**30
"""Weights that are written at once, where no single one is larger."""
NCCL = "nccl"


class WeightTransfer(Protocol):
    """Gives an engine the weights of a model as it is."""

    def send(self, model: PreTrainedModel) -> None: ...


def weight_transfer(engine: RolloutEngine, facts: EngineFacts) -> WeightTransfer:
    """The way in which ``engine`` takes weights; raises UserError where that is none of ours."""
    kinds = {FILES: FilesTransfer, NCCL: NcclTransfer}
    if facts.transfer not in kinds:
        has = f"weights by {facts.transfer!r}" if facts.transfer else "no weights"
        raise UserError(
            f"The engine of `compute.rollout_server` takes {has}; start it with --weight-transfer-config "
            f'\'{{"backend": "{NCCL}"}}\', or "{FILES}" where it has rlhf-dagster installed and sees this machine\'s '
            "folder for temporary files."
        )
    return kinds[facts.transfer](engine, facts)


class FilesTransfer:
    """Weights in safetensors, a few at a time, in the folder for temporary files (TMPDIR), which both see."""

    def __init__(self, engine: RolloutEngine, facts: EngineFacts, file_bytes: int = FILE_BYTES) -> None:
        self.engine, self.file_bytes = engine, file_bytes
        engine.init_weight_transfer_engine({})

    def send(self, model: PreTrainedModel) -> None:
        self.engine.start_weight_update()
        with tempfile.TemporaryDirectory(prefix="rlhf-weights-") as folder:
            for part in pieces(plain_weights(model), self.file_bytes):
                path = Path(folder) / "weights.safetensors"
                save_file(part, path)
                self.engine.update_weights({"path": str(path)})
        self.engine.finish_weight_update()


class NcclTransfer:
    """Weights from GPU to GPU, by vLLM's own engine of the trainer's side."""

    def __init__(self, engine: RolloutEngine, facts: EngineFacts) -> None:
        self.engine, self.workers = engine, facts.workers
        self.model: PreTrainedModel | None = None
        self._sender: Any = None

    def send(self, model: PreTrainedModel) -> None:
        if model.device.type != "cuda":
            raise UserError(
                f"The engine of `compute.rollout_server` takes weights by {NCCL}, from a GPU, and the policy is on "
                f'{model.device}; start it with --weight-transfer-config \'{{"backend": "{FILES}"}}\'.'
            )
        self.model = model
        with _on(model):
            self._sender = self._sender or self._begin()
            self._sender.send_weights()

    def _begin(self) -> Any:
        try:
            from vllm.distributed.weight_transfer import ParamMeta, WeightSource, WeightTransferTrainerFactory
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
            from vllm.utils.network_utils import get_ip, get_open_port
        except ImportError:
            raise UserError(
                f"Weights go to the engine of `compute.rollout_server` by {NCCL}, with vLLM's own code: "
                f"`{install_extras('vllm')}`."
            ) from None

        transfer = self

        class Source(WeightSource):  # type: ignore[misc, unused-ignore]
            """The model's weights under the names of a checkpoint, adapters added in."""

            def metadata(self) -> list[Any]:
                return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in self]

            def __iter__(self) -> Iterator[tuple[str, Tensor]]:
                assert transfer.model is not None  # noqa: S101  # set before
                return plain_weights(transfer.model)

        return WeightTransferTrainerFactory.trainer_init(
            init_info=NCCLTrainerInitInfo(
                master_address=get_ip(),
                master_port=get_open_port(),
                world_size=1 + self.workers,
                rank=0,
                packed=True,
            ),
            client=self.engine,
            source=Source(),
        )


def pieces(weights: Iterable[tuple[str, Tensor]], most: int) -> Iterator[dict[str, Tensor]]:
    """``weights`` on the CPU, in groups of at most ``most`` bytes or of one. Each has memory of its own."""
    group: dict[str, Tensor] = {}
    for name, weight in weights:
        held = sum(tensor.nbytes for tensor in group.values())
        if group and held + weight.nbytes > most:
            yield group
            group = {}
        group[name] = weight.detach().to("cpu", copy=True).contiguous()
    if group:
        yield group


def _on(model: PreTrainedModel) -> AbstractContextManager[Any]:
    return torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext()
