"""Whether the links reach their rate: every node sends to the next one, all at once, over TCP.

Run on a node by the cluster. What counts are bytes that arrived between two moments, payload times
the share that headers add, so that a full link shows its nominal rate.
"""

import json
import socket
import sys
import threading
import time

from experiments.network.links import FRAME, PAYLOAD, address

PORT = 29_300
WARM_UP, MEASURED = 2.0, 3.0  # seconds
WITHIN = 0.05
CHUNK = 1 << 16


def wrong(rates: list[float], nominal: float) -> str | None:
    """What is wrong with the measured rates, in bits a second; None if nothing."""
    worst = max(rates, key=lambda rate: abs(rate / nominal - 1))
    if abs(worst / nominal - 1) <= WITHIN:
        return None
    return (
        f"a link of {nominal / 1e6:g} Mbit/s carries {worst / 1e6:.4g}, more than {WITHIN:.0%} off:"
        " other programs may hold the machine, or it is too slow for this rate"
    )


def rate_of(received: int, seconds: float) -> float:
    """Bits of frames a second that a payload of some bytes stands for."""
    return 8 * received * FRAME / PAYLOAD / seconds


def receive(listener: socket.socket) -> float:
    """The rate at which one peer sends, after it has warmed up."""
    connection, _ = listener.accept()
    buffer = bytearray(CHUNK)
    start = time.monotonic()
    begin, total = None, 0
    with connection:
        while True:
            size = connection.recv_into(buffer)
            now = time.monotonic()
            if begin is not None:
                total += size
            elif now >= start + WARM_UP:
                begin = now
            if begin is not None and now >= begin + MEASURED:
                return rate_of(total, now - begin)
            if not size:
                raise ConnectionError("the sender ended early")


def send(host: str) -> None:
    """Sends until the receiver has had enough."""
    for _ in range(200):
        try:
            connection = socket.create_connection((host, PORT))
            break
        except OSError:  # it does not listen yet
            time.sleep(0.05)
    else:
        raise ConnectionError(f"{host} does not answer")
    chunk = bytes(CHUNK)
    with connection:
        try:
            while True:
                connection.sendall(chunk)
        except OSError:
            return


def main(node: int, nodes: int) -> None:
    """Sends to the next node, and prints the rate at which the one before sends."""
    with socket.create_server((address(node), PORT)) as listener:
        sender = threading.Thread(target=send, args=(address((node + 1) % nodes),))
        sender.start()
        rate = receive(listener)
        sender.join()
    print(json.dumps(rate))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
