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
from collections.abc import Iterable, Sequence

PAUSE = 0.2  # seconds between attempts
PATIENCE = 10.0  # seconds until a process says that it waits
WELCOME = b"all are here\n"


class JoinError(Exception):
    """The processes of a run did not come together."""


def call_roll(
    address: str,
    processes: int,
    index: int,
    timeout: float,
    bind: str | None = None,
    *,
    hosts: Sequence[str] = (),
) -> dict[int, socket.socket]:
    """Waits until all processes of a run are there.

    Args:
        address: HOST:PORT of process 0, as every process reaches it.
        processes: number of processes.
        index: of this process, from 0.
        timeout: seconds to wait.
        bind: HOST:PORT at which process 0 listens; by default at all addresses of its machine.
        hosts: names of the hosts, for a roll call of launchers, one on each.

    Returns:
        {index: open connection}: of process 0 those to all others, of the others the one to it.

    Raises:
        JoinError: the port is taken, or somebody did not come in time.
    """
    if index > 0:
        return {0: _say_here(address, index, timeout, hosts)}
    return _wait_for_others(address, processes, timeout, bind, hosts)


def _wait_for_others(
    address: str, processes: int, timeout: float, bind: str | None, hosts: Sequence[str]
) -> dict[int, socket.socket]:
    begin, said = time.monotonic(), False
    here: dict[int, socket.socket] = {}
    with _listen(address, bind) as listener, contextlib.ExitStack() as stack:
        listener.settimeout(PAUSE)
        while missing := set(range(1, processes)) - here.keys():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                stack.enter_context(connection)
                number = _index_of(connection, hosts)
                if number is None:
                    connection.close()
                else:  # of one that came again, the last connection counts
                    if number in here:
                        here[number].close()
                    here[number] = connection
                continue
            waited = time.monotonic() - begin
            if waited > timeout:
                raise JoinError(
                    f"{_named(missing, hosts)} of {processes} did not come to {address} "
                    f"within {timeout:g} s (--join-timeout)"
                )
            if waited > PATIENCE and not said:
                said = True
                print(
                    f"{_named([0], hosts)} waits for {_named(missing, hosts)} of {processes} "
                    f"at {address}",
                    file=sys.stderr,
                )
        for connection in here.values():
            with contextlib.suppress(OSError):
                connection.sendall(WELCOME)
        stack.pop_all()
    return here


def _listen(address: str, bind: str | None) -> socket.socket:
    host, _, port = (bind or f":{address.rpartition(':')[2]}").rpartition(":")
    family = socket.AF_INET6 if "[" in address else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family)
    except OverflowError:
        raise JoinError(f"port {port} of {address} is above 65535") from None
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = " is taken by another program; choose another" if taken else f": {error.strerror}"
        raise JoinError(f"port {port} of {address}{why}") from None


def _index_of(connection: socket.socket, hosts: Sequence[str]) -> int | None:
    """The index that a process sends; None of a stranger."""
    connection.settimeout(5)
    words = _line(connection).decode(errors="replace").rpartition(" ")
    known = words[0] == _hello(hosts) and words[2].strip().isdigit()
    return int(words[2]) if known else None


def _line(connection: socket.socket) -> bytes:
    """A line that was sent; nothing behind it is read, for the connection is used further."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 100 and (came := connection.recv(1)):
        line += came
    return line


def _say_here(address: str, index: int, timeout: float, hosts: Sequence[str]) -> socket.socket:
    host, _, port = address.rpartition(":")
    why = ""
    where, begin, said = (host.strip("[]"), int(port)), time.monotonic(), False
    own, first = _named([index], hosts), _named([0], hosts)
    while (waited := time.monotonic() - begin) < timeout:
        left = timeout - waited
        try:
            with contextlib.ExitStack() as stack:
                connection = socket.create_connection(where, min(5, left))
                stack.enter_context(connection)
                connection.sendall(f"{_hello(hosts)} {index}\n".encode())
                connection.settimeout(min(2 * PATIENCE, left))
                if _line(connection) == WELCOME:
                    stack.pop_all()
                    return connection
                why = f"another program answers there, or {first} has ended"
        except TimeoutError:
            why = "it waits for others"
        except OverflowError:
            raise JoinError(f"port {port} of {address} is above 65535") from None
        except UnicodeError:  # of a name as in DNS: an empty part, or one of above 63 bytes
            raise JoinError(f"{host!r} cannot be the name of a host") from None
        except OSError as error:
            why = error.strerror or str(error)
        if waited > PATIENCE and not said:
            said = True
            print(f"{own} waits for {first} at {address}: {why}", file=sys.stderr)
        time.sleep(PAUSE)
    raise JoinError(
        f"{own} was not joined by {first} at {address} within {timeout:g} s (--join-timeout): {why}"
    )


def _hello(hosts: Sequence[str]) -> str:
    """Launchers and the processes that they start meet at one port, and not each other."""
    return "jist host" if hosts else "jist process"


def _named(indices: Iterable[int], hosts: Sequence[str]) -> str:
    names = [hosts[index] if hosts else str(index) for index in sorted(indices)]
    kind = "host" if hosts else "process"
    plural = ("s" if hosts else "es") if len(names) > 1 else ""
    return f"{kind}{plural} {', '.join(names)}"
