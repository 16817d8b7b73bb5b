"""Joining the processes of a run, on one machine or on many."""

import os
import re
import socket
import sys
import threading
import time
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.command import schedulers
from experiments.command.errors import UsageError
from experiments.command.joining import ProcessOptions
from experiments.command.partners import Partners
from experiments.command.quiet import silence_libraries
from experiments.command.rollcall import PATIENCE, call_roll

# The launcher's process id, in the environment of those that it starts.
LAUNCHER = "JIST_LAUNCHER"
_partners: Partners | None = None


def join(options: ProcessOptions) -> None:
    """Joins this process to those that train together; call it before any computation.

    A scheduler's processes (SLURM, Kubernetes, MPI) are found by `jax.distributed`. On CPUs arrays
    travel through gloo, on GPUs through NCCL.

    Raises:
        UsageError: some of the three options are given and not all, or they contradict each other.
        JoinError: somebody did not come in time, or a port or a variable is not as it must be.
    """
    given = (options.coordinator, options.num_processes, options.process_id)
    explicit = None not in given
    if not explicit and given != (None, None, None):
        raise UsageError(
            "coordinator, num_processes and process_id must be given together or not at all, "
            f"got {given}"
        )
    if not explicit and not schedulers.scheduled():
        return
    if explicit and not re.fullmatch(r".+:\d+", options.coordinator or ""):
        raise UsageError(f"coordinator must be HOST:PORT, got {options.coordinator}")
    _end_with_launcher()
    connections: dict[int, socket.socket] = {}
    if explicit:
        connections = _call_roll(*given, options.join_timeout)
    else:
        schedulers.prepare()
    sys.excepthook = _leave_with_traceback
    # JAX's preemption service would catch SIGTERM, and the process would not end.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Workers are spread over processes, so each has one device where it has no GPUs.
    jax.config.update("jax_num_cpu_devices", 1)
    if "--debug" not in sys.argv:
        silence_libraries()
    global _partners
    if explicit:
        _partners = Partners(connections, given[1] or 1, options.partner_timeout)
    _initialize(given, "deactivate" if explicit else schedulers.detection(), options)
    if not explicit:
        connections = _connect_scheduled(options.join_timeout)
        _partners = Partners(connections, jax.process_count(), options.partner_timeout)


def _connect_scheduled(timeout: int) -> dict[int, socket.socket]:
    """Connects processes that a scheduler has started: their first exchange says where."""
    with socket.create_server(("", 0)) as listener:
        address = f"{socket.gethostbyname(socket.gethostname())}:{listener.getsockname()[1]}"
    own = np.frombuffer(address.ljust(64).encode(), np.uint8)
    of_first = multihost_utils.broadcast_one_to_all(own)
    address = np.asarray(of_first, np.uint8).tobytes().decode().strip()
    return call_roll(address, jax.process_count(), jax.process_index(), timeout)


def lost_partner(error: BaseException | None) -> str:
    """Which other process an error comes from, in a sentence; empty if it has another cause.

    An exchange fails as soon as a connection breaks, and does not say whose it was.
    """
    if _partners is None:
        return ""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    of_gloo = any("Gloo" in str(each) for each in chain)  # which also raises ValueError
    if not of_gloo and not any(isinstance(each, jax.errors.JaxRuntimeError) for each in chain):
        return ""
    said = _partners.lost()
    if not said and of_gloo:
        said = "the connection to another process broke, which has probably ended"
    return said


def _call_roll(address: Any, processes: Any, index: Any, timeout: int) -> dict[int, socket.socket]:
    if index >= processes:
        raise UsageError(f"process_id must be below num_processes={processes}, got {index}")
    bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    return call_roll(address, processes, index, timeout, bind)


def _initialize(given: tuple[Any, ...], detection: str | None, options: ProcessOptions) -> None:
    """Joins through JAX, in a thread: it cannot be interrupted, and the one that waits here can."""
    failed: list[BaseException] = []
    timeout, said = options.join_timeout, detection == "deactivate"

    def initialize() -> None:
        try:
            # Longer than ours: when JAX loses patience, it ends the process with a stack trace.
            jax.distributed.initialize(
                *given,
                cluster_detection_method=detection,
                initialization_timeout=timeout + 60,
                heartbeat_timeout_seconds=options.partner_timeout + 60,
            )
        except BaseException as error:  # told by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    begin = time.monotonic()
    try:
        thread.start()
        while thread.is_alive() and (waited := time.monotonic() - begin) < timeout:
            thread.join(0.2)
            if waited > PATIENCE and not said:
                said = True
                print(
                    f"{schedulers.own_name()} waits for the others; to run alone: "
                    "--coordinator 127.0.0.1:45711 --num-processes 1 --process-id 0",
                    file=sys.stderr,
                )
    except KeyboardInterrupt:
        _leave_at_once("interrupted", 130)
    if thread.is_alive():
        _leave_at_once(
            f"error: not all processes of the job came within {timeout} s (--join-timeout)", 1
        )
    if failed:
        raise failed[0]


def _leave_at_once(message: str, code: int) -> NoReturn:
    """Ends this process while JAX still waits in another thread."""
    print(message, file=sys.stderr, flush=True)
    os._exit(code)


def _end_with_launcher() -> None:
    """Makes this process end soon after its launcher, which may be killed without a word."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return

    def watch() -> None:
        while os.getppid() == int(launcher):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave(code: int) -> NoReturn:
    """Ends this process; immediately if others train with it.

    A normal exit would wait for the others, which wait for this process in the middle of a round.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _leave_with_traceback(kind: type[BaseException], error: BaseException, where: Any) -> None:
    sys.__excepthook__(kind, error, where)
    leave(1)
