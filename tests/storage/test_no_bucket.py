"""An address whose bucket does not exist."""

import pytest
from object_server import S3Server

from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.known import open_store


def test_a_bucket_that_is_not_there_is_one_sentence(s3: S3Server) -> None:
    store = open_store("s3://there-is-none/loop")
    for write in (store.put, store.create):
        with pytest.raises(UserError, match="s3://there-is-none/loop: there is no such bucket; make it"):
            write("assets/prompts.parquet", b"x")
    with pytest.raises(UserError, match="gives no answer"):
        store.list("assets")
    assert store.get("assets/prompts.parquet") is None
    assert not store.replace("assets/prompts.parquet", b"x", "e_tag:none")
