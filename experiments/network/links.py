"""Links as numbers and as the commands that make them; nothing here runs anything.

Every node has one Ethernet interface, `eth0`, in a namespace of its own. Its other end is a port of
a bridge. What leaves a node is shaped at `eth0`, what reaches it at the port, as at a switch.
"""

import dataclasses
import math
import re

from experiments.command.errors import UsageError

BRIDGE, INTERFACE = "bridge0", "eth0"
NETWORK = "10.77.0"
PORT = 29_400
MOST_NODES = 250
# Of a full frame of 1514 bytes TCP's payload is 1448: the rest are headers and time stamps.
FRAME, PAYLOAD = 1514, 1448
_RATES = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_DELAYS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
UNSHAPED = "none"
# Fills a link whatever else the machine does; BBR, some systems' default, mistakes a sender that
# had to wait for a core for a slow link. No other is allowed in every namespace.
CONTROL, CONTROLS = "reno", "/proc/sys/net/ipv4/tcp_congestion_control"
VETH = ("type", "veth", "peer", "name", INTERFACE, "netns")


@dataclasses.dataclass(frozen=True)
class Link:
    """A node's link, the same in both directions.

    Attributes:
        rate: bits of Ethernet frames a second; infinite if nothing holds it back.
        delay: seconds that a message takes from one node to another beside its transmission.
    """

    rate: float
    delay: float = 0.0

    def dilated(self, k: float) -> "Link":
        """The link on a machine where everything takes k times as long."""
        return Link(self.rate / k, self.delay * k)


def parse_rate(text: str) -> float:
    """Bits a second of `100mbit`, `1gbit` and so on; infinite for `none`.

    Raises:
        ValueError: it is no rate.
    """
    return math.inf if text == UNSHAPED else _parse("bandwidth", text, _RATES, "100mbit or 1gbit")


def parse_delay(text: str) -> float:
    """Seconds of `1ms`, `200us`, `0ms`.

    Raises:
        ValueError: it is no time.
    """
    return _parse("delay", text, _DELAYS, "1ms or 200us", least=0.0)


def _parse(
    name: str, text: str, units: dict[str, float], like: str, *, least: float = 1.0
) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", text)
    if found is None or found[2] not in units or float(found[1]) * units[found[2]] < least:
        raise UsageError(f"{name} must be a number and a unit like {like}, got {text!r}")
    return float(found[1]) * units[found[2]]


def dilation(nodes: int, cores: int) -> int:
    """The least k for which every node has 1/k of a core to itself."""
    return max(1, math.ceil(nodes / cores))


def address(node: int) -> str:
    """The address of a node."""
    return f"{NETWORK}.{node + 1}"


def hosts(nodes: int) -> str:
    """The text of `/etc/hosts` with which nodes find each other by name."""
    names = [(address(node), f"node{node}") for node in range(nodes)]
    return "".join(f"{where} {name}\n" for where, name in [("127.0.0.1", "localhost"), *names])


def set_up(nodes: int, link: Link) -> list[list[str]]:
    """The commands that join the nodes, to be run in a network namespace of their own.

    Args:
        nodes: number of nodes, each a namespace `node0`, `node1` ...
        link: of each of them.
    """
    commands = [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "name", BRIDGE, "type", "bridge"],
        ["ip", "link", "set", BRIDGE, "up"],
    ]
    for node in range(nodes):
        port, own = f"port{node}", ["ip", "-n", f"node{node}"]
        commands += [
            ["ip", "netns", "add", f"node{node}"],
            ["ip", "link", "add", "name", port, *VETH, f"node{node}"],
            ["ip", "link", "set", port, "master", BRIDGE, "up"],
            [*own, "addr", "add", f"{address(node)}/24", "dev", INTERFACE],
            [*own, "link", "set", INTERFACE, "up"],
            [*own, "link", "set", "lo", "up"],
            ["nsenter", f"--net=/run/netns/node{node}", "sh", "-c", f"echo {CONTROL} > {CONTROLS}"],
            *_shaped([], port, Link(link.rate)),
            # Delayed where it leaves: once on every way.
            *_shaped(["-n", f"node{node}"], INTERFACE, link),
        ]
    return commands


def _shaped(where: list[str], device: str, link: Link) -> list[list[str]]:
    add = ["tc", *where, "qdisc", "add", "dev", device]
    commands = []
    if math.isfinite(link.rate):
        bucket = ["burst", str(burst(link.rate)), "limit", str(queue(link.rate))]
        rate = ["rate", f"{round(link.rate)}bit", *bucket]
        commands.append([*add, "root", "handle", "1:", "tbf", *rate])
    if link.delay:
        parent = ["parent", "1:1"] if commands else ["root"]
        delay = ["delay", f"{round(link.delay * 1e6)}us", "limit", "100000"]
        commands.append([*add, *parent, "netem", *delay])
    return commands


def burst(rate: float) -> int:
    """Bytes that a link sends at once: those of 2 ms, and at least some frames."""
    return max(10 * FRAME, round(rate / 8 * 2e-3))


def queue(rate: float) -> int:
    """Bytes that wait for a link at most: those of 50 ms, as a switch may hold."""
    return max(200_000, round(rate / 8 * 50e-3))


def counters(text: str, interface: str = INTERFACE) -> tuple[int, int]:
    """Bytes received and sent by an interface, from the text of `/proc/net/dev`.

    Raises:
        ValueError: there is no such interface.
    """
    for line in text.splitlines():
        name, found, numbers = line.partition(":")
        if found and name.strip() == interface:
            fields = numbers.split()
            return int(fields[0]), int(fields[8])
    raise ValueError(f"/proc/net/dev has no interface {interface!r}")
