"""Who is who: pseudonyms of Label Studio's users, and the file that is the only key to them."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.records.ids import pseudonym
from rlhf_dagster.records.pseudonyms import Pseudonyms

SIMULATED_DOMAIN = "annotators.invalid"
"""E-mail domain (it can never exist) of users who stand for simulated or imported annotators."""
UNKNOWN = "unknown"
"""Name of the annotator where an annotation names no user."""
_LOCAL_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


def email_of(name: str) -> str:
    """The address of the Label Studio user who stands for the simulated annotator called ``name``."""
    return f"{name if _LOCAL_PART.fullmatch(name) else pseudonym(name)}@{SIMULATED_DOMAIN}"


class People:
    """The key file ``path``: pseudonym to e-mail address, readable by its owner alone.

    An account is somebody's under their own name only where this file says so: whoever joins the server chooses the
    address of their account, and could choose one that reads as a simulated annotator's or as a pseudonym.
    """

    def __init__(self, path: Path, pseudonyms: Callable[[], Pseudonyms]) -> None:
        self.path, self._pseudonyms = path, pseudonyms

    def names(self, users: Mapping[int, str]) -> dict[int, str]:
        """The pseudonym of each user, given their e-mail addresses by user id; new ones are added to the file."""
        known = self._read()
        kept, people = {email: name for name, email in known.items()}, self._pseudonyms()
        names = {user: kept.get(email.lower()) or people.of(email.lower()) for user, email in users.items()}
        self._add({names[user]: email.lower() for user, email in users.items()}, known)
        return names

    def add_simulated(self, names: Iterable[str]) -> None:
        """Add simulated or imported annotators under the names they have; their addresses lead to nobody."""
        self._add({name: email_of(name) for name in names}, self._read())

    def _read(self) -> dict[str, str]:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}

    def _add(self, entries: Mapping[str, str], known: dict[str, str]) -> None:
        if entries.items() <= known.items():
            return
        data = json.dumps(known | dict(entries), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomically(self.path, data.encode(), private=True)
