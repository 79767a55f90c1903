import grain
import granary
import granary.grain
from made import content


def test_a_data_set_is_a_source(data):
    source = grain.MapDataset.source(data).map(lambda sample: bytes(sample["bin"]))
    assert len(source) == 1000 and source[17] == content(17)


def test_it_is_shuffled_batched_and_gone_on_with(folder):
    pipeline = (
        grain.MapDataset.source(granary.grain.DataSource(str(folder)))
        .shuffle(seed=3)
        .map(lambda sample: sample["__key__"])
        .to_iter_dataset()
        .batch(10)
    )
    whole = [list(batch) for batch in pipeline]
    assert sorted(sum(whole, [])) == [f"{number:06d}" for number in range(1000)]
    batches = iter(pipeline)
    given = [list(next(batches)) for _ in range(7)]
    state = batches.get_state()
    again = iter(pipeline)
    again.set_state(state)
    assert given + [list(batch) for batch in again] == whole


def test_its_loader_reads_in_other_processes(folder):
    loader = grain.DataLoader(
        data_source=granary.grain.DataSource(str(folder)),
        sampler=grain.samplers.SequentialSampler(num_records=1000, shard_options=grain.sharding.NoSharding()),
        worker_count=2,
    )
    assert {sample["__key__"]: sample["bin"] for sample in loader} == {f"{number:06d}": content(number) for number in range(1000)}
