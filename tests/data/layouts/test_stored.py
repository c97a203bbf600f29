import gzip
import tarfile

import pytest

from kikitori.data.layouts.tars import members
from kikitori.errors import DataError
from tests.data.layouts.sounds import tar

FILES = {"a/1.txt": b"one", "a/" + "long" * 60 + ".txt": b"x" * 1000, "empty.txt": b"", "ねこ.txt": b"y" * 512}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_lie_where_they_are_said_to(tmp_path, form, monkeypatch):
    monkeypatch.setattr(tarfile, "DEFAULT_FORMAT", form)
    tar(tmp_path / "1.tar", FILES)
    found = dict(members(tmp_path / "1.tar"))
    assert {name: each.read() for name, each in found.items()} == FILES
    content = (tmp_path / "1.tar").read_bytes()
    assert all(content[each.start : each.start + each.size] == FILES[name] for name, each in found.items())


def test_members_of_a_compressed_tar_are_read_on_the_way(tmp_path):
    tar(tmp_path / "1.tar", FILES)
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress((tmp_path / "1.tar").read_bytes()))
    found = dict(members(tmp_path / "1.tar.gz"))
    assert {name: each.read() for name, each in found.items()} == FILES
    assert {each.start for each in found.values()} == {None}


def test_a_tar_that_is_cut_anywhere_is_named(tmp_path):
    """Python's reader takes one that ends behind a member for a whole one."""
    tar(tmp_path / "1.tar", {"1.txt": b"x" * 700, "2.txt": b"y" * 512})
    content = (tmp_path / "1.tar").read_bytes()
    whole = 512 + 1024 + 512 + 512
    for size in (0, 1, 511, 512, 513, 1200, 1536, 1537, 2047, 2048, 2100, whole - 1, whole, whole + 511):
        (tmp_path / "2.tar").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"2\.tar: is no whole tar .*copy it again"):
            [*members(tmp_path / "2.tar")]
    (tmp_path / "2.tar").write_bytes(content[: whole + 512])
    assert len([*members(tmp_path / "2.tar")]) == 2


def test_what_is_gone_when_it_is_read_is_named(tmp_path):
    tar(tmp_path / "1.tar", FILES)
    _, first = next(members(tmp_path / "1.tar"))
    (tmp_path / "1.tar").write_bytes(b"x" * (first.start + 1))
    with pytest.raises(DataError, match=r"1\.tar: cannot be read \(it ends at byte \d+"):
        first.read()
