"""The example of the README, and those of examples/python."""

import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[3]


def test_readme(capsys):
    text = (ROOT / "README.md").read_text()
    code = re.search(r"<!-- python example -->\n```python\n(.*?)```\n", text, re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "(1, 56, 56, 128) 1.652" in printed and "multiply-accumulates" in printed


@pytest.mark.parametrize("example", sorted((ROOT / "examples/python").glob("*.py")), ids=lambda p: p.stem)
def test_example(example, capsys):
    runpy.run_path(str(example))
    assert "Conv2d" in capsys.readouterr().out
