import readme


def test_blocks_for_torch_run(tmp_path, monkeypatch):
    readme.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert readme.run("python torch", namespace) == 1
    assert tuple(namespace["images"].shape) == (64, 37, 45, 3)
