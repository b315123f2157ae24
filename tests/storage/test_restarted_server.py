"""A bucket whose server restarts."""

import time
from threading import Thread

from object_server import S3Server

from rlhf_dagster.storage.known import open_store


def test_a_server_that_restarts_is_waited_for(s3: S3Server) -> None:
    store = open_store(f"s3://{s3.new_bucket()}/loop")
    store.put("assets/one", b"1")
    restarting = Thread(target=s3.restart, daemon=True)
    restarting.start()
    while s3.answers():
        time.sleep(0.1)
    assert (found := store.get("assets/one")) and found.data == b"1"
    restarting.join()
    assert store.list("assets") == ["assets/one"]
