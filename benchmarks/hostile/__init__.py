"""What strangers may bring to a loop: each is refused in a sentence, or taken as the harmless thing that it is."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2] / "tests"
sys.path += [str(folder) for folder in (_TESTS, _TESTS / "training") if str(folder) not in sys.path]
