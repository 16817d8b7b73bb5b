"""The namespaces in which a cluster lives, and which end with it.

Interfaces, bridge and nodes are made inside of new network, mount and process namespaces. When
their first process ends, the kernel ends all others and removes all of it, also after a kill of
whoever started them. Without root a user namespace comes first, where the system allows it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

TOOLS = "iproute2 (ip, tc) and util-linux (unshare, nsenter, setpriv)"
# Named namespaces are kept below /run: in one of our own they vanish with us.
PREPARE = "mount -t tmpfs tmpfs /run && "


def inside(command: Sequence[str]) -> list[str]:
    """The command that runs another as the first of new namespaces.

    It ends when the process that started it does, however that ends.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *user, *spaces, *command]


def on_node(node: int, command: Sequence[str]) -> list[str]:
    """The command that runs another on a node, from inside, where the node's name is the host's.

    XLA listens at the address that the host's name stands for.
    """
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', f"node{node}"]
    return ["nsenter", f"--net=/run/netns/node{node}", *named, *command]


def refusal(delay: float = 0.0) -> str | None:
    """Why no cluster can be had here, in one line; None if it can.

    Args:
        delay: of the links, in seconds.
    """
    if sys.platform != "linux":
        return f"a cluster needs network namespaces, which Linux has and {sys.platform} has not"
    shape = "tc -n node0 qdisc add dev lo root tbf rate 1mbit burst 5000 limit 9000"
    try_out = f"{PREPARE} ip link add name b type bridge && ip netns add node0 && {shape}"
    error = _error_of(try_out)
    if error:
        return (
            f"network namespaces cannot be made here ({error}); they need {TOOLS}, and root or "
            "unprivileged user namespaces"
        )
    if delay and (error := _error_of(f"tc qdisc add dev lo root netem delay {delay * 1e6:.0f}us")):
        return f"links cannot be delayed here ({error}): the kernel lacks netem; take --delay 0ms"
    return None


def _error_of(script: str) -> str | None:
    try:
        done = subprocess.run(inside(["sh", "-c", script]), capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    if not done.returncode:
        return None
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]


def read_counters() -> str:
    """The text of `/proc/net/dev` of this process's own namespace."""
    with open("/proc/self/net/dev") as file:
        return file.read()
