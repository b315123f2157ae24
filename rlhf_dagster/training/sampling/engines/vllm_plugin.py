"""vLLM's side of weights in files: a plugin that vLLM loads where this package is installed beside it.

vLLM's own ways go from GPU to GPU. This one works on every device, between processes that see the same disk. Nothing of
vLLM is imported before vLLM asks for it.
"""

FILES = "rlhf_files"
"""The `backend` of `--weight-transfer-config`."""


def register() -> None:
    """Make the way known to vLLM; it calls this in each of its processes (entry point `vllm.general_plugins`)."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    if FILES not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(
            FILES, "rlhf_dagster.training.sampling.engines.vllm_files", "FilesWeightTransferEngine"
        )
