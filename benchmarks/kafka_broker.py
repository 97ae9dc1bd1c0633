"""A real Apache Kafka broker on loopback, for tests, benchmarks and trying things out: one KRaft node, from its Java archives.

``python -m benchmarks.kafka_broker fetch``             resolves the archives with Maven, once, into a cache of the user
``python -m benchmarks.kafka_broker run --port 9092``   runs a fresh broker until Ctrl-C; its data goes with it

Tests share one: whoever comes first starts a *keeper* (``serve``), which keeps the broker up while anybody uses it, and ends
with the last of them, however that ends, taking the broker along.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

VERSION = "3.9.1"
"""The last line of versions that speak the protocol as old as turbo-queue asks for."""
_COORDINATES = (("org.apache.kafka", "kafka_2.13", VERSION), ("org.slf4j", "slf4j-reload4j", "1.7.36"))
_CACHE = Path(os.environ.get("SEGQ_KAFKA_JARS") or Path.home() / ".cache" / "segq" / f"kafka-{VERSION}")
_JAVA = ("-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_START_SECONDS = 60.0
_FETCH_SECONDS = 300.0
_DESERTED_SECONDS = 1.0


class UnavailableError(Exception):
    """There is no broker to be had here, and why."""


def fetch() -> Path:
    """The directory of the archives; resolved by Maven if they are not there yet. Raises UnavailableError."""
    if _CACHE.is_dir():
        return _CACHE
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise UnavailableError(f"{program} is not installed")
    _CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE.parent) as directory:
        wanted = "".join(
            f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
            for group, name, version in _COORDINATES
        )
        (Path(directory) / "pom.xml").write_text(
            "<project><modelVersion>4.0.0</modelVersion><groupId>segq</groupId><artifactId>broker</artifactId><version>1</version>"
            f"<packaging>pom</packaging><dependencies>{wanted}</dependencies></project>"
        )
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
        try:
            done = subprocess.run(command, check=False, cwd=directory, capture_output=True, text=True, timeout=_FETCH_SECONDS)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"Maven did not resolve Kafka's archives within {_FETCH_SECONDS:g} s") from None
        if done.returncode:
            raise UnavailableError(f"Maven cannot resolve Kafka's archives: {done.stdout[-400:].strip()}")
        with contextlib.suppress(OSError):  # somebody else was faster
            (Path(directory) / "jars").rename(_CACHE)
    return _CACHE


class Broker:
    """A broker of this process; `start` after `kill` finds its data again, under the same address."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        """Raises UnavailableError."""
        if shutil.which("java") is None:
            raise UnavailableError("java is not installed")
        archives = fetch()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._port = port or _free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        log = directory / "log4j.properties"
        log.write_text(
            "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d %p %c: %m%n\n"
        )
        self._java = ["java", *_JAVA, f"-Dlog4j.configuration=file:{log}", "-cp", f"{archives}/*"]
        if shutil.which("setpriv"):  # the broker must not survive us, even if we are killed
            self._java = ["setpriv", "--pdeathsig", "KILL", *self._java]
        self._settings = directory / "server.properties"
        controller = _free_port()
        self._settings.write_text(
            f"""process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{self.address}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory / "data"}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=300
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=1
num.io.threads=2
log.cleaner.enable=false
auto.create.topics.enable=false
controlled.shutdown.enable=false
"""
        )
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._run("kafka.tools.StorageTool", "format", "-t", identity, "-c", str(self._settings))

    def start(self) -> None:
        """Returns when it takes connections."""
        with (self.directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        begun = time.monotonic()
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() - begun > _START_SECONDS:
                said = (self.directory / "broker.log").read_text(errors="replace")[-800:]
                raise UnavailableError(f"the broker did not start: {said}")
            time.sleep(0.05)

    def answers(self) -> bool:
        host, port = self.address.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([*self._java, *arguments], check=False, capture_output=True, text=True, timeout=_START_SECONDS)
        if done.returncode:
            raise UnavailableError(f"Kafka's {arguments[0]} fails: {(done.stdout + done.stderr)[-400:].strip()}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- one broker for several processes -----------------------------------------------------------------------------------


class SharedBroker:
    """The broker that all who name the same directory use. Raises UnavailableError if there is none to be had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "users").mkdir(parents=True, exist_ok=True)
        with _locked(directory / "begin"):
            self._use = _lock_file(directory / "users" / str(os.getpid()), wait=True)
            fetch()
            guard = _lock_file(directory / "keeper")
            if guard is not None:  # nobody keeps one
                os.close(guard)
                for name in ("address", "failed", "down", "pid"):
                    (directory / name).unlink(missing_ok=True)
                _spawn([sys.executable, str(Path(__file__)), "serve", str(directory)], directory / "keeper.log")
            _wait(lambda: self._read("address") or self._read("failed"), "the broker is up")
        if failed := self._read("failed"):
            raise UnavailableError(failed)
        self.address = self._read("address")

    def kill(self) -> None:
        """SIGKILL; it stays down until `start`."""
        (self._directory / "down").touch()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self._read("pid")), signal.SIGKILL)
        _wait(lambda: not self._answers(), "the broker is down")

    def start(self) -> None:
        (self._directory / "down").unlink(missing_ok=True)
        _wait(self._answers, "the broker is up again")

    def close(self) -> None:
        """The broker ends when all have closed it, or have died."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def _answers(self) -> bool:
        host, port = self.address.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    def _read(self, name: str) -> str:
        try:
            return (self._directory / name).read_text().strip()
        except FileNotFoundError:
            return ""


def _spawn(command: Sequence[str], log: Path) -> None:
    """A process that is nobody's child to wait for: it outlives us if others need it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_OPEN, number, str(log), flags, 0o600) for number in (1, 2)]
    os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)


def _serve(directory: Path) -> int:
    """The keeper."""
    lock = _lock_file(directory / "keeper")
    if lock is None:
        return 0
    shutil.rmtree(directory / "broker", ignore_errors=True)
    try:
        broker = Broker(directory / "broker")
        broker.start()
    except UnavailableError as error:
        _say(directory / "failed", str(error))
        return 1
    _say(directory / "pid", str(broker.pid))
    _say(directory / "address", broker.address)
    last_used = time.monotonic()
    try:
        while True:
            if _used(directory):
                last_used = time.monotonic()
            elif time.monotonic() - last_used > _DESERTED_SECONDS:
                with _locked(directory / "begin"):  # nobody comes just now
                    if not _used(directory):
                        (directory / "address").unlink()
                        return 0
            if not broker.alive and not (directory / "down").exists():
                broker.start()
                _say(directory / "pid", str(broker.pid))
            time.sleep(0.1)
    finally:
        broker.kill()
        shutil.rmtree(directory / "broker", ignore_errors=True)


def _used(directory: Path) -> bool:
    for path in (directory / "users").iterdir():
        descriptor = _lock_file(path)
        if descriptor is None:
            return True
        os.close(descriptor)
    return False


def _lock_file(path: Path, *, wait: bool = False) -> int | None:
    """A descriptor that holds the file's lock; None if somebody else does. A kill lets go of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _locked(path: Path):
    descriptor = _lock_file(path, wait=True)
    try:
        yield
    finally:
        os.close(descriptor)  # type: ignore[arg-type]


def _say(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def _wait(condition, what: str) -> None:
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > _START_SECONDS:
            raise UnavailableError(f"not within {_START_SECONDS:g} s: {what}")
        time.sleep(0.05)


# --- the command --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kafka_broker", description=__doc__.split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("fetch", help="resolve the archives")
    run = verbs.add_parser("run", help="run a fresh broker until Ctrl-C")
    run.add_argument("--port", type=int, default=9092)
    serve = verbs.add_parser("serve", help="keep one while somebody uses it")
    serve.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "serve":
            return _serve(options.directory)
        if options.verb == "fetch":
            print(f"Kafka {VERSION} is in {fetch()}")
            return 0
        return _run(options.port)
    except UnavailableError as error:
        print(f"no Kafka broker: {error}", file=sys.stderr)
        return 1


def _run(port: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        broker = Broker(Path(directory), port)
        broker.start()
        print(f"Kafka {VERSION} listens on {broker.address}; Ctrl-C ends it and deletes its data", flush=True)
        try:
            while broker.alive:
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass
        finally:
            broker.kill()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
