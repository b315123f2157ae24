import subprocess
import sys

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.store import LabelStoreUnavailable

SECRET = "opensesame"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgres_is_the_same_address(scheme: str) -> None:
    address = LedgerAddress.of(f"{scheme}://ada@host/labels", "loop")
    assert address == LedgerAddress.of("postgresql://ada@host/labels?schema=loop")
    assert str(address) == "postgresql://ada@host/labels (schema loop)"


def test_a_password_is_never_shown(monkeypatch) -> None:
    monkeypatch.setenv("LEDGER", f"postgresql://ada:{SECRET}@127.0.0.1:9/labels?sslpassword={SECRET}2")
    address = LedgerAddress.of("${LEDGER}", "loop")
    assert (address.url.password, address.url.host) == (SECRET, "127.0.0.1")
    with pytest.raises(LabelStoreUnavailable) as caught:
        EmbeddedLabelStore(address)
    for shown in (str(address), repr(address), str(caught.value), repr(caught.value), address.hidden(f"no {SECRET}")):
        assert SECRET not in shown
    assert "is the server up?" in str(caught.value)


@pytest.mark.parametrize("address", [f"mysql://ada:{SECRET}@host/labels", f"//{SECRET}", "sqlite://"])
def test_what_is_no_address_of_a_ledger_is_one_sentence_without_it(address: str) -> None:
    with pytest.raises(UserError) as caught:
        LedgerAddress.of(address)
    assert SECRET not in str(caught.value)


def test_a_variable_that_is_not_set_is_named(monkeypatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UserError, match=r"\$NOWHERE, which is not set"):
        LedgerAddress.of("${NOWHERE}")


def test_a_long_name_is_told_apart_from_one_that_begins_alike() -> None:
    names = {LedgerAddress.of("postgresql://host/labels", "n" * 80 + end).schema for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_without_psycopg_the_sentence_says_how_to_install_it() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
try:
    EmbeddedLabelStore("postgresql://ada@host/labels")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install 'rlhf-dagster[postgres]'" in done.stdout


def test_a_schema_is_a_name() -> None:
    with pytest.raises(UserError, match="is no name of letters"):
        LedgerAddress.of('postgresql://host/labels?schema=a";drop')
