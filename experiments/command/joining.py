"""The options of a process that joins others; apart, so that joining imports no data and models."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """The processes that train together; under a scheduler no option is needed."""

    coordinator: str | None = None
    """HOST:PORT at which all processes can reach process 0."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""
    join_timeout: int = 300
    """Seconds to wait for the other processes."""
    partner_timeout: int = 120
    """Seconds without a sign of life of another process after which training ends: how long a
    process may stand still, or its machine be out of reach."""
