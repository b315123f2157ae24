"""Where a ledger is: a file or a database, without ever showing a password."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash

LEDGER_FILE = "label_store.sqlite"
"""The ledger's file in a loop's folder, unless the setting `ledger` names another place."""
POSTGRES = "postgresql+psycopg"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRETS = ("password", "sslpassword", "passfile")
_NAME_LENGTH = 63
"""Bytes of a name that Postgres keeps; it cuts the rest off without a word."""


@dataclass(frozen=True)
class LedgerAddress:
    """An SQLite file, or a Postgres database and the schema in it that holds one loop's ledger."""

    url: sa.URL
    schema: str = ""

    @classmethod
    def of(cls, place: "str | Path | LedgerAddress", schema: str = "") -> Self:
        """``place`` is a file, an address, or ``${VARIABLE}`` for the address that an environment variable holds.

        An address may name its schema (``?schema=``); ``schema`` is the one to take where it does not. Raises UserError
        for what is neither.
        """
        if isinstance(place, LedgerAddress):
            return cls(place.url, place.schema or schema)
        if isinstance(place, Path):
            return cls(sa.URL.create("sqlite", database=str(place)))
        url = _parsed(_expanded(place.strip()))
        if url.get_backend_name() == "sqlite":
            return cls(url)
        named = url.query.get("schema", schema)
        return cls(url.difference_update_query(["schema"]), schema_name(str(named)))

    @property
    def path(self) -> Path | None:
        """The file; None in Postgres."""
        return Path(self.url.database or "") if self.is_sqlite else None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def beside(self, folder: Path) -> Self:
        """A relative file is one in ``folder``."""
        if self.path is None or self.path.is_absolute():
            return self
        return replace(self, url=self.url.set(database=str(folder / self.path)))

    def hidden(self, text: str) -> str:
        """``text`` without the password, should a library have quoted it."""
        secrets = [self.url.password, *(self.url.query.get(name) for name in _SECRETS)]
        for secret in secrets:
            text = text.replace(str(secret), "***") if secret else text
        return text

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        shown = self.url.set(password=None).difference_update_query(_SECRETS).set(drivername="postgresql")
        return f"{shown.render_as_string()} (schema {self.schema})" if self.schema else shown.render_as_string()

    def __repr__(self) -> str:
        return f"LedgerAddress({self})"


def schema_name(loop_name: str) -> str:
    """A name that Postgres keeps whole; a longer one is told apart by its hash."""
    if loop_name and not _NAME.fullmatch(loop_name):
        raise UserError(f"The ledger's schema {loop_name!r} is no name of letters, digits and underscores.")
    return loop_name if len(loop_name.encode()) <= _NAME_LENGTH else f"{loop_name[:40]}_{content_hash(loop_name)}"


def _expanded(text: str) -> str:
    variable = _VARIABLE.fullmatch(text)
    if variable is None:
        return text
    found = os.environ.get(variable[1], "").strip()
    if not found:
        raise UserError(f"The ledger's address is in ${variable[1]}, which is not set; set it to the address.")
    return found


def _parsed(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # What cannot be parsed is not shown: it may hold a password.
        raise UserError(
            "The ledger's address cannot be read; it is like postgresql://user@host/database or sqlite:///file."
        ) from None
    if url.drivername in ("postgresql", "postgres", POSTGRES):
        return url.set(drivername=POSTGRES)
    if url.get_backend_name() == "sqlite" and url.database:
        return sa.URL.create("sqlite", database=url.database)
    raise UserError(
        f"A ledger cannot be kept in {url.drivername}; its address begins with postgresql:// or sqlite:///."
    )
