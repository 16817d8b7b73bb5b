"""Starts the processes of a run on this machine, or on each of several machines.

    python -m experiments.launch -n 4 -- experiments.distributed --workers 4 ...
    python -m experiments.launch --hosts a,b -n 2 -- experiments.distributed --workers 4 ...

Starts a script N times, each with `--coordinator`, `--num-processes` and `--process-id`, and
prefixes every line of output by its process. Signals are passed on. When a process fails, the
others are ended, and the launcher exits with its exit code (128 + N for one ended by signal N);
with `--max-restarts K` all are started again up to K times, and go on from the last checkpoint,
with `--elastic` in as many processes as are left. All end with the launcher, however it ends. On a
machine with GPUs process I takes GPU I.

With `--hosts` the same command is given on every one of them, within `--join-timeout`; process 0
runs on the first, at whose `--port` the others find it. Expected: as long as the script takes.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

from experiments.command.children import Children, most_processes
from experiments.command.rollcall import JoinError, call_roll

LOOPBACK = "127.0.0.1"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WRONG_OPTION = 2  # the exit code; it would be wrong again
PORT = 45711


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The machines of a run.

    Attributes:
        names: of all, or their addresses, in the same order on each.
        index: of this one, from 0.
        port: of the first, where process 0 is found.
        join_timeout: seconds to wait for the others.
    """

    names: Sequence[str]
    index: int
    port: int = PORT
    join_timeout: float = 300

    def meet(self) -> str:
        """Waits until a launcher has come to this point on every host; returns HOST:PORT.

        Raises:
            JoinError: one did not come in time, or the port is taken.
        """
        address = f"{self.names[0]}:{self.port}"
        everybody = (address, len(self.names), self.index, self.join_timeout)
        for connection in call_roll(*everybody, hosts=self.names).values():
            connection.close()
        return address


def launch(
    processes: int,
    command: Sequence[str],
    max_restarts: int = 0,
    *,
    elastic: bool = False,
    hosts: Hosts | None = None,
) -> int:
    """Runs a script in several processes, until all have ended or one has failed.

    Args:
        processes: number of processes, on each host.
        command: the script's module name and its arguments.
        max_restarts: how often a failure is answered by starting all again, the same number on
            every host. A wrong option (exit code 2) is not, nor a signal that the launcher was
            sent.
        elastic: whether those that have failed are left out from then on, and further ones if the
            script says (by exit code 2) that its work cannot be divided among so many. On one host.
        hosts: all machines; by default this one alone.

    Returns:
        The exit code: 0, or that of the first process that failed.

    Raises:
        JoinError: as of `Hosts.meet`.
    """
    children, left, restarts = Children(), processes, 0
    with _signals_passed_on(children):
        while True:
            if hosts is None:
                coordinator, indices, total = f"{LOOPBACK}:{_free_port()}", range(left), left
                environment = {"JAX_COORDINATOR_BIND_ADDRESS": coordinator}  # not on the network
            else:
                coordinator, environment = hosts.meet(), {}
                indices = range(hosts.index * left, (hosts.index + 1) * left)
                total = len(hosts.names) * left
            code, failed = children.run(command, indices, total, coordinator, environment)
            if code == 0 or children.told:
                return code
            if code == WRONG_OPTION:
                if left in (1, processes):
                    return code
                left -= 1  # the work cannot be divided among so many
            elif restarts == max_restarts:
                return code
            else:
                restarts += 1
                left = max(1, left - failed) if elastic else left
            print(
                f"a process ended with exit code {code}: starting all again, "
                f"{restarts} of {max_restarts}{f', in {left} processes' if elastic else ''}",
                file=sys.stderr,
                flush=True,
            )


@contextlib.contextmanager
def _signals_passed_on(children: Children) -> Iterator[None]:
    before = {name: signal.signal(name, children.pass_on) for name in PASSED_ON}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def _own_index(hosts: Sequence[str]) -> int | None:
    """Which of the hosts this machine is; None if that cannot be told."""
    own = []
    for index, host in enumerate(hosts):
        with contextlib.suppress(OSError, UnicodeError), socket.create_server((host, 0)):
            own.append(index)
    return own[0] if len(own) == 1 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and launches; returns the exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch",
        usage="%(prog)s -n N [--max-restarts K [--elastic]] [--hosts A,B] -- SCRIPT [OPTION ...]",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number = {"type": int, "metavar": "N"}
    parser.add_argument("-n", required=True, **number, help="number of processes, on each host")
    parser.add_argument(
        "--max-restarts",
        default=0,
        **number,
        help="how often all are started again when one fails",
    )
    parser.add_argument(
        "--elastic", action="store_true", help="start again without those that have failed"
    )
    parser.add_argument(
        "--hosts", metavar="A,B", help="all machines of the run, the first with process 0"
    )
    parser.add_argument(
        "--host-index", **number, help="which of them this is, from 0; found by its addresses"
    )
    parser.add_argument("--port", default=PORT, **number, help="of the first host")
    parser.add_argument(
        "--join-timeout", default=300, **number, help="seconds to wait for the other hosts"
    )
    parser.add_argument("command", nargs="+", metavar="SCRIPT", help="module and its options")
    given = parser.parse_args(arguments)
    for name, least in (("n", 1), ("max_restarts", 0), ("join_timeout", 1), ("port", 1)):
        if getattr(given, name) < least:
            option = "-n" if name == "n" else f"--{name.replace('_', '-')}"
            parser.error(f"{option} must be at least {least}, got {getattr(given, name)}")
    most, why = most_processes()
    if given.n > most:
        parser.error(f"-n must be at most {most} on this machine, got {given.n}: {why}")
    if given.elastic and (given.max_restarts == 0 or given.hosts):
        parser.error("--elastic needs --max-restarts, and goes with one host")
    _check_script(parser, given.command[0])
    try:
        return launch(
            given.n,
            given.command,
            given.max_restarts,
            elastic=given.elastic,
            hosts=_hosts(parser, given),
        )
    except JoinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _check_script(parser: argparse.ArgumentParser, script: str) -> None:
    """A mistyped script would fail in every process, and once more at every restart."""
    try:
        known = importlib.util.find_spec(script) is not None
    except (ImportError, ValueError):  # of a parent that is none; an empty name
        known = False
    if not known:
        meant = script.removesuffix(".py").replace("/", ".")
        also = f" (meant {meant}?)" if meant != script else ""
        parser.error(
            f"SCRIPT must be a module that `python -m` takes, such as experiments.distributed, got "
            f"{script!r}{also}"
        )
    if script == "experiments.launch":
        parser.error("SCRIPT must not be the launcher itself: it starts N processes already")


def _hosts(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Hosts | None:
    if given.hosts is None:
        for name in ("host_index", "port", "join_timeout"):
            if getattr(given, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} needs --hosts")
        return None
    names = [name.strip() for name in given.hosts.split(",")]
    if not all(names) or len(set(names)) < len(names):
        parser.error(f"--hosts must be different names between commas, got {given.hosts}")
    index = _own_index(names) if given.host_index is None else given.host_index
    if index is None:
        parser.error(f"--host-index must say which of {given.hosts} this machine is")
    if not 0 <= index < len(names):
        parser.error(f"--host-index must be 0 to {len(names) - 1}, got {index}")
    return Hosts(names, index, given.port, given.join_timeout)


if __name__ == "__main__":
    sys.exit(main())
