import granary
import granary.tf
from made import content


def test_batches_become_tensors(folder):
    loader = granary.Loader(folder, 40, seed=2)
    plain = [batch.keys() for batch in granary.Loader(folder, 40, seed=2)]
    got = []
    for batch in granary.tf.dataset(loader, ["bin"]):
        keys = [key.decode() for key in batch["__key__"].numpy()]
        assert list(batch["bin"].numpy()) == [content(int(key)) for key in keys]
        got.append(keys)
    assert got == plain
