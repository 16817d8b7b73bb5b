"""Control groups that give every node its share of a core, and what else runs next to nothing.

A group bears the process id of the program that made it. One whose program is gone is a leftover of
a kill, and the next run removes it.
"""

import contextlib
import os
import pathlib
import time

ROOT = pathlib.Path("/")
PREFIX = "jist-network-"
# Short, so that a node that waits for a message is not long without its share.
PERIOD_US = 10_000
LEAST_QUOTA_US = 1_000  # less is refused by the kernel


def controller(root: pathlib.Path = ROOT) -> tuple[pathlib.Path, int] | None:
    """Where control groups for processor time are, and of which version (1 or 2).

    Args:
        root: of the file system.
    """
    for line in (root / "proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        path = root / where.removeprefix("/")
        if kind == "cgroup" and "cpu" in options.split(","):
            return path, 1
        known = path / "cgroup.controllers"
        if kind == "cgroup2" and known.exists() and "cpu" in known.read_text().split():
            return path, 2
    return None


def quota(k: float) -> tuple[int, int]:
    """Microseconds that a node may compute, and of how many: 1/k of a core."""
    period = max(PERIOD_US, round(LEAST_QUOTA_US * k))
    return round(period / k), period


class Groups:
    """The control groups of a run; of use in a `with`.

    Args:
        nodes: number of nodes.
        k: a node has 1/k of a core.
        root: of the file system.

    Raises:
        PermissionError: they cannot be made.
    """

    def __init__(self, nodes: int, k: float, root: pathlib.Path = ROOT):
        found = controller(root)
        if found is None or not os.access(found[0], os.W_OK):
            raise PermissionError("control groups for processor time cannot be made here")
        parent, version = found
        self.path = parent / f"{PREFIX}{os.getpid()}"
        self._nodes, self._k, self._version = nodes, k, version

    def __enter__(self) -> "Groups":
        remove_stale(self.path.parent)
        remove(self.path)
        self.path.mkdir()
        with contextlib.suppress(OSError):  # of the weight alone: nodes then share with others
            name, most = ("cpu.shares", 262_144) if self._version == 1 else ("cpu.weight", 10_000)
            (self.path / name).write_text(str(most))
        if self._version == 2:
            (self.path / "cgroup.subtree_control").write_text("+cpu")
        self.starting.mkdir()
        for node in range(self._nodes):
            group = self.of(node)
            group.mkdir()
            limit, period = quota(self._k)
            if self._k == 1:
                continue
            if self._version == 2:
                (group / "cpu.max").write_text(f"{limit} {period}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(period))
                (group / "cpu.cfs_quota_us").write_text(str(limit))
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.path)

    @property
    def starting(self) -> pathlib.Path:
        """The group of what is not timed, without a limit."""
        return self.path / "starting"

    def of(self, node: int) -> pathlib.Path:
        """The group of a node."""
        return self.path / f"node{node}"


def join(group: str | os.PathLike) -> None:
    """Moves this process, all its threads included, to a group."""
    (pathlib.Path(group) / "cgroup.procs").write_text("0")


def remove(path: pathlib.Path) -> None:
    """Removes a group and those below, once what ran there has ended; waits for that a while."""
    for group in (*path.glob("*/"), path):
        for _ in range(100):
            try:
                group.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.1)
            else:
                break


def remove_stale(parent: pathlib.Path, root: pathlib.Path = ROOT) -> list[str]:
    """Removes the groups of programs that are gone; returns their names."""
    stale = [
        group
        for group in parent.glob(f"{PREFIX}*/")
        if not (root / "proc" / group.name.removeprefix(PREFIX)).exists()
    ]
    for group in stale:
        remove(group)
    return [group.name for group in stale]
