"""The engine of vLLM's workers that reads weights from files; imported by vLLM alone."""

from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class FilesInitInfo(WeightTransferInitInfo):  # type: ignore[misc, unused-ignore]
    """Nothing has to be agreed on."""


@dataclass
class FilesUpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc, unused-ignore]
    path: str
    """A safetensors file with some of the weights, under the names of a checkpoint."""


class FilesWeightTransferEngine(WeightTransferEngine):  # type: ignore[misc, unused-ignore]
    """Reads a file for each `update_weights` between `start_weight_update` and `finish_weight_update`."""

    init_info_cls = FilesInitInfo
    update_info_cls = FilesUpdateInfo

    def init_transfer_engine(self, init_info: FilesInitInfo) -> None: ...

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # As the base class does, which waits for an accelerator that a CPU has not.
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: FilesUpdateInfo) -> None:
        self.model.load_weights(load_file(update_info.path, device=str(self.device)).items())

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None: ...
