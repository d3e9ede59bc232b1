"""The documents tell the truth: every example in the Markdown files of the root and of docs/ runs.

Each document runs in a process of its own, so that what one registers is not seen by another. The rules
are in tools/run_docs.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.run_docs import ROOT, blocks

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def run_document(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "run_docs.py"), str(path)]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.mark.docs
@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in sorted(DOCUMENTS)])
def test_examples_of_the_document_run(path: Path) -> None:
    result = run_document(path)
    assert result.returncode == 0, result.stdout


MIXED = """Some text
```python
x = 1
```
- an item
  ```python file=f.py
  y = 2
  ```
```console exit=2
$ z
```
```text
```
"""


def test_blocks_keep_their_order_options_and_line_numbers() -> None:
    assert [(b.language, b.options, b.text, b.line) for b in blocks(MIXED)] == [
        ("python", {}, "x = 1\n", 3),
        ("python", {"file": "f.py"}, "y = 2\n", 7),
        ("console", {"exit": "2"}, "$ z\n", 10),
    ]


def test_a_block_inside_a_longer_fence_is_text() -> None:
    assert list(blocks("````text\n```python\n1 / 0\n```\n````\n")) == []


@pytest.mark.parametrize("text", ["```python norun\n```\n", "```python\nx = 1\n"])
def test_a_misspelt_option_or_an_open_block_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        list(blocks(text))


@pytest.mark.parametrize(
    ("text", "succeeds"),
    [
        ("```python\nx = 1\n```\n```python\nassert x == 1\n```\n", True),
        ("```python no-run\n1 / 0\n```\n", True),
        ("```python\n1 / 0\n```\n", False),
        ("```python requires=a_package_that_nobody_has\n1 / 0\n```\n", True),
        ("```python requires=jax\n1 / 0\n```\n", False),
        ("```python file=mine.py\nx = 1\n```\n```python\nimport mine\nassert mine.x == 1\n```\n", True),
        ("```python\nclass C: pass\n```\n```python\nimport pickle\npickle.dumps(C())\n```\n", True),
        ("```console\n$ stategraph-has-no-such-command\n```\n", False),
        ("```console exit=127\n$ stategraph-has-no-such-command\n```\n", True),
        ("```console\n$ make an-unrelated-command\n```\n", True),
    ],
)
def test_a_document_succeeds_exactly_when_its_blocks_do(text: str, succeeds: bool, tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(text)
    result = run_document(document)
    assert (result.returncode == 0) is succeeds, result.stdout


def test_an_error_names_the_line_of_the_document(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("# Title\n\n```python\nx = 1\n1 / 0\n```\n")
    assert 'document.md", line 5' in run_document(document).stdout
