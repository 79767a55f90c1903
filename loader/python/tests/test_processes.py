"""Other processes: forked, spawned, killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import granary
import pytest
from made import content


def read_all(data: granary.Dataset, out) -> None:
    samples = data.read_many(range(len(data)))
    out.put((len(samples), all(sample["bin"] == content(number) for number, sample in enumerate(samples))))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_data_set_is_used_in_other_processes(data, method):
    data.read_many(range(500))  # its threads and mappings are there
    context = multiprocessing.get_context(method)
    out = context.Queue()
    children = [context.Process(target=read_all, args=(data, out)) for _ in range(3)]
    for child in children:
        child.start()
    assert [out.get(timeout=60) for _ in children] == [(1000, True)] * 3
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert data[999]["bin"] == content(999)


def go_on(loader: granary.Loader, out) -> None:
    out.put([batch.keys() for batch in loader])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_running_loader_goes_on_in_another_process(data, method):
    loader = granary.Loader(data, 100, seed=2)
    batches = iter(loader)
    next(batches)
    context = multiprocessing.get_context(method)
    out = context.Queue()
    child = context.Process(target=go_on, args=(loader, out))
    child.start()
    assert out.get(timeout=60) == [batch.keys() for batch in batches]
    child.join(60)
    assert child.exitcode == 0


TRAIN = """
import json, os, sys
import granary
folder, saved, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
loader = granary.Loader(folder, 20, seed=11)
if os.path.exists(saved):
    loader.load_state_dict(json.load(open(saved)))
for step, batch in enumerate(loader, 1):
    print(json.dumps(batch.keys()), flush=True)
    with open(saved + ".new", "w") as file:
        json.dump(loader.state_dict(), file)
    os.replace(saved + ".new", saved)
    if step == steps:
        os.kill(os.getpid(), 9)
"""


def test_a_run_killed_in_an_epoch_goes_on_from_its_state(folder: Path, tmp_path: Path):
    whole = [batch.keys() for batch in granary.Loader(folder, 20, seed=11)]
    got, exits = [], []
    for steps in (1, 19, 13, 1000):
        command = [sys.executable, "-c", TRAIN, str(folder), str(tmp_path / "state"), str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
        got += [json.loads(line) for line in done.stdout.splitlines()]
        exits.append(done.returncode)
    assert exits == [-signal.SIGKILL] * 3 + [0]
    assert got == whole


def test_import_takes_no_framework():
    code = "import sys, granary; print([m for m in ('torch', 'tensorflow', 'grain', 'numpy') if m in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip() == "[]"
