"""A data set as a user has one: tars in WebDataset's layout, adopted by `index_tars`."""

from pathlib import Path

import granary
import pytest
from made import write_tars


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 samples in 7 shards. Tests that change files make their own."""
    at = tmp_path_factory.mktemp("data") / "set"
    write_tars(at, samples=1000, shards=7)
    granary.index_tars(at)
    return at


@pytest.fixture
def data(folder: Path) -> granary.Dataset:
    return granary.Dataset(folder)
