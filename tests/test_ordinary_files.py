"""Files that are written whole or not at all, and never in the place of what is no file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from minigen.errors import MinigenError, UsageError
from minigen.files import check_writable, new_folder, replacing


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with replacing(path) as beside:
        beside.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as beside:
        beside.write_text("half\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_keeps_its_place(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, reason in ((pipe, "it is not a regular file"), (folder, "Is a directory")):
        for write in (replacing(path).__enter__, lambda path=path: check_writable(path)):
            with pytest.raises(MinigenError) as caught:
                write()
            assert str(caught.value) == f"cannot write {path}: {reason}"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert folder.is_dir()
    link = tmp_path / "link"
    link.symlink_to(pipe)  # as /dev/stdout is one
    with pytest.raises(MinigenError, match="it is not a regular file"), replacing(link):
        pass


def test_what_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "new")
    (tmp_path / "old").write_text("")
    check_writable(tmp_path / "old")
    with pytest.raises(
        MinigenError, match=rf"^cannot write {tmp_path}/no/f: there is no folder {tmp_path}/no$"
    ):
        check_writable(tmp_path / "no" / "f")
    with pytest.raises(MinigenError, match=r"^cannot write .*/x+: File name too long$"):
        check_writable(tmp_path / ("x" * 300))
    with (
        pytest.raises(MinigenError, match=r"^cannot write .*/x+: File name too long$"),
        new_folder(tmp_path / ("x" * 300)),
    ):
        pass
    with pytest.raises(UsageError, match="is there already"), new_folder(tmp_path / "old"):
        pass
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(
        MinigenError, match=rf"^cannot write {tmp_path}/new: {tmp_path} is not writable$"
    ):
        check_writable(tmp_path / "new")
