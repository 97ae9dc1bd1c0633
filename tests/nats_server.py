"""NATS servers of the tests' own: on loopback, on free ports, gone with the test. Faults: kill, stop, start again, partition."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 30.0


def binary() -> str | None:
    """Where a nats-server is: what NATS_SERVER says, beside the interpreter, or on the path."""
    if said := os.environ.get("NATS_SERVER"):
        return said
    beside = Path(sys.executable).with_name("nats-server")
    gone = Path.home() / "go" / "bin" / "nats-server"
    found = [str(each) for each in (beside, gone) if each.exists()]
    return found[0] if found else shutil.which("nats-server")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """One server, with JetStream in a directory that outlives its kills."""

    def __init__(
        self, name: str = "one", port: int | None = None, cluster: tuple[int, list[int]] | None = None, config: str = ""
    ) -> None:
        self.name = name
        self.port = port or free_ports(1)[0]
        self.directory = Path(tempfile.mkdtemp(prefix="segq-nats-"))
        routes = ""
        if cluster is not None:
            own, all_ports = cluster
            urls = ", ".join(f"nats://127.0.0.1:{each}" for each in all_ports)
            routes = f'cluster {{ name: "segq", listen: "127.0.0.1:{own}", routes: [{urls}] }}\n'
        self._config = self.directory / "server.conf"
        self._config.write_text(
            f'server_name: "{name}"\nlisten: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.directory}/js", max_mem: 64MB, max_file: 4GB }}\n{routes}{config}'
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> Self:
        found = binary()
        assert found is not None
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([found, "-c", str(self._config)], stdout=log, stderr=log)
        return self

    def wait(self) -> Self:
        """Until it takes connections; fails with its log if it ends."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, (self.directory / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the server does not come up"
                time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start().wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Cluster:
    """Three servers that replicate."""

    def __init__(self) -> None:
        ports = free_ports(6)
        self.servers = [Server(f"n{i}", ports[i], (ports[3 + i], ports[3:])) for i in range(3)]

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers)

    def named(self, name: str) -> Server:
        return next(each for each in self.servers if each.name == name)

    def close(self) -> None:
        for each in self.servers:
            each.close()

    def __enter__(self) -> Self:
        for each in self.servers:
            each.start()
        for each in self.servers:
            each.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


if __name__ == "__main__":  # `python -m tests.nats_server`: a server to play with, until Ctrl-C
    with Server() as server:
        print(server.url, os.getpid(), flush=True)
        signal.pause()
