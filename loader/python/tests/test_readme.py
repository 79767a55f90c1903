"""Every block of README.md runs and does what it says."""

import re

import readme


def test_blocks_run(tmp_path, monkeypatch, capsys):
    readme.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    trained = []
    namespace = {"train": lambda images, labels: trained.append((images.shape, len(labels)))}
    assert readme.run("python", namespace) == 10
    assert trained == [((64, 37, 45, 3), 64)] * 6
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"160 000017 {readme.JPEGS[1].stat().st_size} 2"
    assert lines[1] == "(37, 45, 3) (64, 16000, 1) 16000"
    assert lines[2] == "dict_keys(['__key__', 'image.jpeg', 'label.txt'])"
    assert 0 < namespace["of_cats"] < 32 and len(namespace["first"]) >= 16000
    assert namespace["classes"] == ["owl", "wren"]


def test_no_block_is_left_out():
    text = (readme.PACKAGE / "README.md").read_text()
    kinds = re.findall(r"^```(\S.*)$", text, re.MULTILINE)
    assert sorted(kinds) == ["python"] * 10 + ["python torch", "sh"]
