"""Every process of a run says that it is there, before JAX joins them.

JAX waits in silence, cannot be interrupted meanwhile, and ends the process with a stack trace when
its patience is over. Here each process connects to process 0 at the coordinator's address and sends
its index, and waits for an answer, which comes when all are there. So whoever waits can say for
whom, and Ctrl-C works.
"""

import contextlib
import errno
import socket
import sys
import time

PAUSE = 0.2  # seconds between attempts
PATIENCE = 10.0  # seconds until a process says that it waits
HELLO, WELCOME = "jist process", b"all are here\n"


class JoinError(Exception):
    """The processes of a run did not come together."""


def call_roll(address: str, processes: int, index: int, timeout: float, bind: str | None) -> None:
    """Waits until all processes of a run are there.

    Args:
        address: HOST:PORT of process 0, as every process reaches it.
        processes: number of processes.
        index: of this process, from 0.
        timeout: seconds to wait.
        bind: HOST:PORT at which process 0 listens; by default at all addresses of its machine.

    Raises:
        JoinError: the port is taken, or somebody did not come in time.
    """
    if index == 0:
        _wait_for_others(address, processes, timeout, bind)
    else:
        _say_here(address, index, timeout)


def _wait_for_others(address: str, processes: int, timeout: float, bind: str | None) -> None:
    begin, said = time.monotonic(), False
    here: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(address, bind))
        listener.settimeout(PAUSE)
        while missing := set(range(1, processes)) - here.keys():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                stack.enter_context(connection)
                number = _index_of(connection)
                if number is not None:  # of one that came again, the last connection counts
                    here[number] = connection
                continue
            waited = time.monotonic() - begin
            if waited > timeout:
                raise JoinError(
                    f"process(es) {_listed(missing)} of {processes} did not come to {address} "
                    f"within {timeout:g} s (--join-timeout)"
                )
            if waited > PATIENCE and not said:
                said = True
                print(
                    f"process 0 of {processes} waits for {_listed(missing)} at {address}",
                    file=sys.stderr,
                )
        for connection in here.values():
            with contextlib.suppress(OSError):
                connection.sendall(WELCOME)


def _listen(address: str, bind: str | None) -> socket.socket:
    host, _, port = (bind or f":{address.rpartition(':')[2]}").rpartition(":")
    family = socket.AF_INET6 if "[" in address else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family)
    except OverflowError:
        raise JoinError(f"port {port} of --coordinator {address} is above 65535") from None
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is taken by another program; choose another" if taken else f": {error.strerror}"
        raise JoinError(f"port {port} of --coordinator {address} {why}") from None


def _index_of(connection: socket.socket) -> int | None:
    """The index that a process sends; None of a stranger."""
    connection.settimeout(5)
    words = connection.makefile("rb").readline(100).decode(errors="replace").rpartition(" ")
    return int(words[2]) if words[0] == HELLO and words[2].strip().isdigit() else None


def _say_here(address: str, index: int, timeout: float) -> None:
    host, _, port = address.rpartition(":")
    why = ""
    where, begin, said = (host.strip("[]"), int(port)), time.monotonic(), False
    while (waited := time.monotonic() - begin) < timeout:
        left = timeout - waited
        try:
            with socket.create_connection(where, min(5, left)) as connection:
                connection.sendall(f"{HELLO} {index}\n".encode())
                connection.settimeout(min(2 * PATIENCE, left))
                if connection.makefile("rb").readline(100) == WELCOME:
                    return
                why = "another program answers there, or process 0 has ended"
        except TimeoutError:
            why = "it waits for others"
        except OverflowError:
            raise JoinError(f"port {port} of --coordinator {address} is above 65535") from None
        except OSError as error:
            why = error.strerror or str(error)
        if waited > PATIENCE and not said:
            said = True
            print(f"process {index} waits for process 0 at {address}: {why}", file=sys.stderr)
        time.sleep(PAUSE)
    raise JoinError(
        f"process {index} was not joined by process 0 at {address} within {timeout:g} s "
        f"(--join-timeout): {why}"
    )


def _listed(indices: set[int]) -> str:
    return ", ".join(map(str, sorted(indices)))
