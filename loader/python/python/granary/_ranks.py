"""Which of how many ranks this process is, when its program does not say so."""

import os

from granary.errors import InvalidError


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """As given, or as ``torchrun`` and others tell it (``RANK``, ``WORLD_SIZE``), or one rank alone."""
    if (rank is None) != (world_size is None):
        raise InvalidError("rank and world_size go together: give both, or neither")
    if rank is not None and world_size is not None:
        return _checked(rank, world_size, "rank and world_size")
    named = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if named == (None, None):
        return 0, 1
    if None in named:
        raise InvalidError("only one of RANK and WORLD_SIZE is set in the environment: give rank and world_size")
    try:
        return _checked(int(named[0]), int(named[1]), "RANK and WORLD_SIZE")  # type: ignore[arg-type]
    except ValueError as e:
        raise InvalidError(f"RANK={named[0]!r} and WORLD_SIZE={named[1]!r} are not a rank of so many: {e}") from e


def _checked(rank: int, world_size: int, names: str) -> tuple[int, int]:
    if world_size < 1 or not 0 <= rank < world_size:
        raise InvalidError(f"{names} say rank {rank} of {world_size}: ranks are 0 to {max(world_size - 1, 0)}")
    return rank, world_size
