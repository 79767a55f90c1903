"""What a forked child must not use: threads stay behind in the parent, and locks may be held by them for ever.

So an open handle belongs to the process that opened it. A child opens its own at first use, and leaves the parent's
alone: not even dropping it is safe there, since that would wait for threads that do not exist.
"""

import os
from typing import Any

_generation = 0
_left_behind: list[Any] = []


def generation() -> int:
    """Counts the forks that led to this process."""
    return _generation


def leave_behind(handle: Any) -> None:
    """Keeps a parent's handle from being dropped in this process."""
    _left_behind.append(handle)


def _in_child() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_in_child)
