"""`engine`: each of them in turn. The local one in the default run, the others where their servers are (`-m external`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import LOCAL, NATS, Engine
from nats_server import Server, binary


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Server]:
    pytest.importorskip("nats", reason="needs nats-py: pip install 'segq[nats]'")
    if binary() is None:
        pytest.skip("there is no nats-server on this machine (.ci/nats-server installs one)")
    with Server() as server:
        yield server


@pytest.fixture(params=["local", pytest.param("nats", marks=pytest.mark.external)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "local":
        made = Engine("local", f"segq://{tmp_path}", LOCAL)
    else:
        server: Any = request.getfixturevalue("nats_server")
        made = Engine("nats", f"{server.url}/{uuid.uuid4().hex[:8]}-".rstrip("/"), NATS)
        made.address = lambda: f"{server.url}/{uuid.uuid4().hex[:12]}"  # type: ignore[method-assign]
    yield made
    made.close()
