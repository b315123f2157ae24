"""Figures that every plan takes as known, each with its source."""

from rlhf_dagster.planning.arithmetic import Known

GIB = 1.073741824
"""GB of a GiB."""
USABLE = Known("share of a GPU's memory that is planned with", 0.9, "", "vLLM's default, gpu_memory_utilization")
TRAINING_SHARE = Known(
    "share of the peak rate in training", 0.4, "", "38 to 43% on H100s, Llama 3 (Grattafiori et al. 2024, table 4)"
)
SERVING_SHARE = Known(
    "share of the peak rates in generation", 0.4, "", "assumed; vLLM's published figures for 8B and 70B are near it"
)
TRAINING_PASS = Known(
    "operations for a trained parameter and token", 6, "", "forward 2, backward 4 (Kaplan et al. 2020, section 2.1)"
)
ADAPTER_PASS = Known(
    "operations for a parameter under adapters and token", 4, "", "forward 2, backward 2: no gradient of the base"
)
RECOMPUTATION = Known("operations to compute activations again", 2, "", "one more forward pass: gradient checkpointing")
READING_PASS = Known("operations for a parameter and token that is read", 2, "", "forward (Kaplan et al. 2020)")
HALF_BYTES = Known("bytes of a weight in bfloat16", 2, "B", "its format")
FULL_BYTES = Known("bytes of a weight in a checkpoint", 4, "B", "float32, as checkpoints are written")
STATE_BYTES = Known("bytes of a trained weight in a state", 12, "B", "the weight and Adam's two moments in float32")
NETWORK = Known("GB a second from one host to another", 50, "GB/s", "400 Gb/s, NVIDIA ConnectX-7 data sheet")
SHIFT = Known("hours a day that an annotator works", 8, "h", "assumed")
LABELLING_SHARE = Known("share of these hours spent judging", 0.9, "", "assumed; the rest is pauses and instructions")
CHARACTERS = Known("characters of a token", 4, "", "English text and tokenizers of 32,000 to 128,000 tokens, about")

# Measured on the schemas of this package, with texts of Shakespeare's plays in place of prompts and responses.
ANNOTATION_BYTES = Known("bytes of an annotation", 465, "B", "measured: Postgres 15, with its indexes")
COMPARISON_BYTES = Known("bytes of a comparison without texts", 1000, "B", "measured: Postgres 15, with its indexes")
CHARACTER_BYTES = Known("bytes of a character there", 0.8, "B", "measured: Postgres 15 packs texts")
COMPLETION_BYTES = Known("bytes of a completion without its tokens", 770, "B", "measured: Parquet, ids and prompt")
TOKEN_BYTES = Known("bytes of a token in a completion", 8.3, "B", "measured: Parquet, text, id and log-probability")

# Measured on two shared cores.
LEDGER_RATE = Known(
    "labels a second that the ledger takes", 3500, "/s", "measured: Postgres 15, batches of 1,000, as a reader has them"
)
LABEL_STUDIO_WRITES = Known(
    "labels a second that a Label Studio server takes", 17, "/s", "measured: 17 to 22, version 1.23.2 on Postgres"
)
LABEL_STUDIO_READS = Known(
    "labels a second that the loop reads from it", 670, "/s", "measured: python benchmarks/label_studio.py"
)
DISK = Known("GB that a host's disk holds of a loop", 1000, "GB", "assumed; a bucket has no such limit")
