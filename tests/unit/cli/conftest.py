from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from stand_in import ACCESS_KEY, SECRET_KEY, StandIn


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in server, with the environment that finds it."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("TRANSOM_ENDPOINT", server.endpoint)
    monkeypatch.setenv("TRANSOM_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("TRANSOM_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
