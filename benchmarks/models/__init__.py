"""Which language models can be trained here: tiny models of every architecture go through every stage."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"

# The zoo and the tables of the toy language are plain modules among the tests.
sys.path += [str(folder) for folder in (TESTS, TESTS / "training") if str(folder) not in sys.path]
