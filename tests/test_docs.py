"""The documentation: its Python blocks run, its site's pages exist."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
import soundfile

import kikitori
from kikitori.loading import load
from tests.tiny import save_tiny, tiny_waveform

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {path: BLOCK.findall(path.read_text()) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
RUN = [path for path, blocks in PAGES.items() if blocks and path.name != "server.md"]  # tests/server has that client


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    save_tiny(folder / "model")
    (folder / "digits" / "recordings").mkdir(parents=True)
    for name in ("talk.flac", "lecture.mp3", "talk.wav", "digits/recordings/7_george_0.wav"):
        soundfile.write(folder / name, tiny_waveform(0.5), 16_000, format=Path(name).suffix[1:])
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_python_blocks_run(page, tiny, monkeypatch, capsys):
    def load_tiny(*arguments, **settings):
        inspect.signature(load).bind(*arguments, **settings)
        return recognizer

    recognizer = load(tiny / "model")
    monkeypatch.chdir(tiny)
    monkeypatch.setattr(kikitori, "load", load_tiny, raising=False)
    known = {"kikitori": kikitori, "recognizer": recognizer, "Path": Path, "paths": ["talk.flac"], "FOLDER": "model"}
    for block in PAGES[page]:
        exec(compile(block, page.name, "exec"), known)  # noqa: S102
    assert capsys.readouterr().err == ""


def test_python_blocks_compile():
    for page, blocks in PAGES.items():
        for block in blocks:
            compile(block, page.name, "exec")


def test_every_page_has_its_place_in_the_site():
    def pages(entries):
        for entry in entries:
            for target in entry.values():
                yield from [target] if isinstance(target, str) else pages(target)

    listed = [*pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])]
    generated = {"docs/command_line.md"}
    assert all((ROOT / page).is_file() for page in {*listed} - generated)
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= {*listed}
    assert len({*listed}) == len(listed)
