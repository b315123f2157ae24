"""What stands for people in every table: a hash with a key, so that nobody without the key can find them by trying."""

import hmac
import re
from dataclasses import dataclass, field
from hashlib import sha256

from rlhf_dagster.records.ids import ID_LENGTH, pseudonym
from rlhf_dagster.records.machines import is_person

_LOOKS = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms that a loop gives."""

    key: bytes = field(repr=False)
    kept: frozenset[str] = frozenset()
    """Those without a key (:func:`~rlhf_dagster.records.ids.pseudonym`) that people had before the loop had one."""

    def of(self, name: str) -> str:
        """Stands for a person; the empty name and those of machines and sources stay what they are."""
        if not name or not is_person(name):
            return name
        first = pseudonym(name)
        return first if first in self.kept else hmac.new(self.key, name.encode(), sha256).hexdigest()[:ID_LENGTH]


NOBODY = Pseudonyms(b"")
"""Where no person is named."""


def is_pseudonym(name: str) -> bool:
    """Whether a name looks like a pseudonym, and so could be taken for somebody's."""
    return bool(_LOOKS.fullmatch(name))
