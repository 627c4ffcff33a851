"""Packed weights on disk: mapped to the bit, never stale, never damaged, never somebody else's."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from samples import normal, raw

from opsin.config import from_environment
from opsin.ops import Raw
from opsin.ops.cpu import Cpu, weight_cache
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.kernels.sums import FACTOR, LANES
from opsin.ops.cpu.pack import Packer
from opsin.ops.cpu.tiles import SUMS_PIECE as SUMMED
from opsin.ops.cpu.weight_cache import open_cache
from opsin.ops.cpu.weight_shelves import FOOT, kept_models, remove
from opsin.ops.device import KeptModel
from opsin.ops.layout import weight_bytes
from opsin.ops.raw import Origin
from opsin.quants import by_id

STATE = b"a file as it stands"
ROWS, WIDTH = 3000, 256  # three pieces that are summed, in 8 bits


@contextmanager
def device(folder: Path, **options: int) -> Iterator[Cpu]:
    config = dataclasses.replace(from_environment(), weights=folder, **{"weights_least": 0, **options})
    cpu = Cpu(config, threads=2)
    yield cpu
    cpu.close()


def origin(state: bytes | None = STATE, size: int = 1000, label: str = "model.gguf") -> Origin:
    return Origin(label, lambda: state, size)


class Read:
    """A tensor of a file, and how often it was read."""

    def __init__(self, whole: Raw, of: Origin, place: str = "0") -> None:
        self.count = 0

        def read(first: int, last: int, into: np.ndarray) -> None:
            self.count += 1
            whole.read(first, last, into)

        self.raw = dataclasses.replace(whole, read=read, origin=of, place=place)


def packed(folder: Path, whole: Raw, of: Origin | None = None, experts: int = 0, **options: int) -> tuple[bytes, int]:
    """The strips of a tensor, and how often it was read for them."""
    tensor = Read(whole, origin() if of is None else of)
    with device(folder, **options) as cpu:
        ops = cpu.eager()
        weight = ops.pack_experts(tensor.raw, experts) if experts else ops.pack(tensor.raw)
        size = max(1, experts) * weight_bytes(by_id(whole.type), *weight.shape[-2:])
        return weight.block.data.tobytes()[:size], tensor.count


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However full the disk is on which tests run."""
    empty = SimpleNamespace(f_bavail=1 << 30, f_bfree=1 << 30, f_blocks=1 << 30, f_frsize=4096)
    monkeypatch.setattr(weight_cache.os, "statvfs", lambda folder: empty)


@pytest.fixture(scope="module")
def whole() -> Raw:
    return raw("Q8_0", ROWS, WIDTH)


@pytest.fixture(scope="module")
def wanted(whole, tmp_path_factory) -> bytes:
    """Its strips where nothing is kept."""
    return packed(tmp_path_factory.mktemp("off"), whole, origin(state=None))[0]


@pytest.fixture
def kept(whole, tmp_path) -> Path:
    """A folder that holds it, and the file."""
    packed(tmp_path, whole)
    return tmp_path


@pytest.fixture
def mapping(monkeypatch) -> None:
    """As if all files were mapped in large pages; what is small is copied elsewhere in these tests."""
    monkeypatch.setattr(weight_cache.WeightCache, "maps", lambda self, block: True)


class TestKeeping:
    @pytest.mark.parametrize(("name", "outputs", "experts"), [
        ("Q8_0", 65, 0), ("Q4_K", 40, 0), ("F16", 33, 0), ("I8", 7, 0), ("Q4_0", 5 * 37, 5), ("Q6_K", 3 * 64, 3),
    ])  # fmt: skip
    def test_what_one_device_packed_another_maps_to_the_bit(self, tmp_path, name, outputs, experts):
        matrix = raw(name, outputs, WIDTH)
        off, _ = packed(tmp_path / "off", matrix, origin(state=None), experts)
        assert not (tmp_path / "off").exists()
        first, reads = packed(tmp_path / "on", matrix, None, experts)
        assert reads > 0
        assert packed(tmp_path / "on", matrix, None, experts) == (off, 0)
        assert first == off

    def test_mapped_weights_give_the_same_products(self, tmp_path, whole, mapping):
        x, results = normal(5, WIDTH), []
        for _ in range(2):
            with device(tmp_path) as cpu:
                ops = cpu.eager()
                weight = ops.pack(Read(whole, origin()).raw)
                results.append(ops.linear(ops.constant(x), weight).numpy())
                assert not weight.block.data.flags.writeable
        np.testing.assert_array_equal(*results)

    def test_two_devices_map_one_file_and_keep_it_when_it_is_cleared(self, kept, whole, wanted, mapping):
        with device(kept) as one, device(kept) as two:
            weights = [cpu.eager().pack(Read(whole, origin()).raw) for cpu in (one, two)]
            (path,) = files(kept)
            if Path("/proc/self/maps").exists():
                assert Path("/proc/self/maps").read_text().count(str(path)) == 2
            assert remove(path.parent) > len(wanted)
            assert list(kept.iterdir()) == []
            assert [weight.block.data.tobytes()[: len(wanted)] for weight in weights] == [wanted] * 2

    def test_who_comes_second_maps_what_the_first_wrote(self, tmp_path, whole, wanted, mapping):
        """Both find nothing and pack; the other one is done while this one reads."""
        others = []

        def read(first: int, last: int, into: np.ndarray) -> None:
            if not others:
                others.append((packed(tmp_path, whole)[0], files(tmp_path)[-1].stat().st_ino))
            whole.read(first, last, into)

        with device(tmp_path) as cpu:
            weight = cpu.eager().pack(dataclasses.replace(whole, read=read, origin=origin(), place="0"))
            assert weight.block.data.tobytes()[: len(wanted)] == wanted == others[0][0]
            (path,) = files(tmp_path)
            assert path.stat().st_ino == others[0][1]
            if Path("/proc/self/maps").exists():
                assert str(path) in Path("/proc/self/maps").read_text()

    @pytest.mark.parametrize(("large", "maps"), [(9000, True), (4000, False), (None, False)])
    def test_what_is_not_in_large_pages_is_copied(self, tmp_path, monkeypatch, large, maps):
        """As smaps has it, and on another system, which has none."""
        big, told = raw("Q8_0", 32768, WIDTH), weight_cache.is_in_large_pages

        def smaps(self: Path, **options: str) -> str:
            if large is None:
                raise FileNotFoundError
            return MAPS.format(address[0], address[0] + (16 << 20), large)

        def looked(text: str, block: Block) -> bool:
            address[:] = [block.address]
            return told(smaps(Path()), block)

        address = [0]
        monkeypatch.setattr(Path, "read_text", smaps)
        monkeypatch.setattr(weight_cache, "is_in_large_pages", looked)
        with device(tmp_path) as cpu:
            ops, small = cpu.eager(), raw("Q8_0", 64, WIDTH)
            weights = [ops.pack(Read(tensor, origin(), place).raw) for place, tensor in enumerate((big, small))]
            assert [not weight.block.data.flags.writeable for weight in weights] == [maps, False]

    def test_another_file_tensor_and_form_are_others(self, kept, whole):
        for other in (raw("Q4_0", ROWS, WIDTH), raw("Q8_0", ROWS // 2, WIDTH * 2)):
            assert packed(kept, other)[1] > 0
        assert packed(kept, whole, origin(b"another state"))[1] > 0
        assert packed(kept, whole, None, 3)[1] > 0
        tensor = Read(whole, origin(), "another place")
        with device(kept) as cpu:
            cpu.eager().pack(tensor.raw)
        assert tensor.count > 0
        assert packed(kept, whole)[1] == 0

    def test_other_code_and_another_cpu_share_nothing(self, kept, whole, tmp_path, monkeypatch):
        with device(kept) as cpu:
            monkeypatch.setattr(cpu.code.store, "folder", tmp_path / "other code")
            cache = open_cache(cpu.config, cpu.code)
            tensor = Read(whole, origin())
            Packer(cpu.code, cpu.team, cache).pack(tensor.raw)
        assert tensor.count > 0

    def test_what_is_small_and_what_nobody_can_tell_apart_is_not_kept(self, tmp_path, whole):
        assert packed(tmp_path, whole, weights_least=1001)[1] > 0
        assert packed(tmp_path, whole, origin(state=None))[1] > 0
        assert packed(tmp_path, whole, weights_most=999)[1] > 0
        with device(tmp_path) as cpu:
            cpu.eager().pack(whole)
        assert files(tmp_path) == []

    def test_a_file_that_changes_while_it_is_packed_is_not_kept(self, tmp_path, whole):
        states = iter([STATE, b"another state"])
        of = Origin("model.gguf", lambda: next(states), 1000)
        assert packed(tmp_path, whole, of)[1] > 0
        assert files(tmp_path) == []


MAPS = """\
7f0000000000-7f0000200000 r--p 00000000 fe:00 7                          /usr/lib/x:y.so
Rss:                 600 kB
FilePmdMapped:         0 kB
{:x}-{:x} r--s 00000000 fe:00 8                          /a folder/a.strips
Rss:               16384 kB
FilePmdMapped:      {} kB
ProtectionKey:         0
VmFlags: rd mr mw me ms hg
"""


class TestSums:
    @pytest.mark.parametrize("size", [64, 4032, SUMMED, SUMMED + 64, 3 * SUMMED - 64])
    def test_they_are_as_they_are_defined(self, cpu, size):
        block = Block(size)
        block.data[:] = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        assert Packer(cpu.code, cpu.team)._sums(block) == defined(block.data.tobytes())


def defined(data: bytes) -> bytes:
    def mix(lane: int, word: int) -> int:
        mixed = (lane ^ word) * FACTOR % (1 << 64)
        return mixed ^ (mixed >> 32)

    sums = []
    for at in range(0, len(data), SUMMED):
        lanes, whole = list(range(LANES)), 0
        for i, word in enumerate(np.frombuffer(data[at : at + SUMMED], "<u8").tolist()):
            lanes[i % LANES] = mix(lanes[i % LANES], word)
        for lane in lanes:
            whole = mix(whole, lane)
        sums.append(whole)
    return np.array(sums, "<u8").tobytes()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "strips alone": lambda data: data[: -FOOT.size - 32],
    "without its foot": lambda data: data[: -FOOT.size],
    "without a sum": lambda data: data[: -FOOT.size - 8] + data[-FOOT.size :],
    "a byte short": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "a byte more in front": lambda data: b"\0" + data,
    "half": lambda data: data[: len(data) // 2],
    "zeros at the end": lambda data: data[:-8192] + bytes(8192),
    "a page of zeros": lambda data: data[:4096] + bytes(4096) + data[8192:],
    "zeros": lambda data: bytes(len(data)),
    "pages in another order": lambda data: data[4096:8192] + data[:4096] + data[8192:],
    "pieces in another order": lambda data: data[SUMMED : 2 * SUMMED] + data[:SUMMED] + data[2 * SUMMED :],
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGES)
    def test_a_damaged_file_is_not_there_and_is_made_again(self, kept, whole, wanted, name):
        (path,) = files(kept)
        path.write_bytes(DAMAGES[name](path.read_bytes()))
        got, reads = packed(kept, whole)
        assert got == wanted
        assert reads > 0
        assert packed(kept, whole) == (wanted, 0)

    def test_any_bit_and_any_length_is_seen(self, kept, whole, wanted):
        """By chance, and at each edge: strips, sums, foot."""
        (path,) = files(kept)
        good, random = path.read_bytes(), np.random.default_rng(7)
        sums = len(good) - FOOT.size
        ends = [0, len(wanted) - 1, len(wanted), sums - 32, sums - 1, sums, sums + 32, sums + 40, len(good) - 1]
        places = [*ends, *random.integers(0, len(good), 25).tolist(), *random.integers(sums, len(good), 10).tolist()]
        with device(kept) as cpu:
            packer = cpu.eager()
            for place in places:
                data = bytearray(good)
                data[place] ^= 1 << int(random.integers(8))
                path.write_bytes(data)
                tensor = Read(whole, origin())
                weight = packer.pack(tensor.raw)
                assert (weight.block.data.tobytes()[: len(wanted)], tensor.count > 0) == (wanted, True), place
            for length in random.integers(0, len(good), 10).tolist():
                path.write_bytes(good[:length])
                tensor = Read(whole, origin())
                assert packer.pack(tensor.raw).block.data.tobytes()[: len(wanted)] == wanted
                assert tensor.count > 0


class TestOthersFiles:
    @pytest.fixture(params=["link", "pipe", "folder", "writable by others", "somebody else's"])
    def foreign(self, request, kept) -> Path:
        """The file is somebody's who may change it, or none."""
        (path,) = files(kept)
        beside = kept / "beside"
        path.rename(beside)
        if request.param == "link":
            path.symlink_to(beside)
        elif request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "folder":
            path.mkdir()
        elif request.param == "writable by others":
            beside.rename(path)
            path.chmod(0o622)
        elif not hasattr(os, "geteuid") or os.geteuid() != 0:
            pytest.skip("only root gives files away")
        else:
            beside.rename(path)
            os.chown(path, 12345, -1)
        return kept

    def test_it_is_neither_read_nor_touched(self, foreign, whole, wanted):
        before = [(path, path.lstat().st_mode, path.lstat().st_uid) for path in files(foreign)]
        got, reads = packed(foreign, whole)
        assert got == wanted
        assert reads > 0
        assert [(path, path.lstat().st_mode, path.lstat().st_uid) for path in files(foreign)] == before

    @pytest.mark.parametrize("mode", [0o777, 0o720])
    def test_nothing_is_kept_in_a_folder_where_others_may_write(self, tmp_path, whole, wanted, mode):
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(mode)
        assert packed(tmp_path / "shared", whole)[0] == wanted
        assert files(tmp_path) == []

    def test_the_folders_are_their_owners_alone(self, tmp_path, whole):
        packed(tmp_path / "new" / "folder", whole)
        (path,) = files(tmp_path)
        assert [at.stat().st_mode & 0o777 for at in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]


class TestRoom:
    def test_the_model_that_was_not_used_for_longest_goes_first(self, tmp_path, whole):
        """Each takes some 0.85 MB; there is room for two."""
        (tmp_path / "somebody's notes").write_bytes(bytes(5000))
        most = {"weights_most": 2_000_000}
        for number, label in enumerate(["a", "b"]):
            packed(tmp_path, whole, origin(label.encode(), 800_000, label), **most)
            for kept in kept_models(tmp_path):
                if kept.label == label:
                    os.utime(kept.folder, (number + 1, number + 1))
        assert packed(tmp_path, whole, origin(b"a", 800_000, "a"), **most)[1] == 0  # used again
        packed(tmp_path, whole, origin(b"c", 800_000, "c"), **most)
        assert [(kept.label, kept.files) for kept in kept_models(tmp_path)] == [("a", 1), ("c", 1)]
        assert sum(kept.bytes for kept in kept_models(tmp_path)) < 2_000_000
        assert (tmp_path / "somebody's notes").exists()

    def test_a_model_that_grows_beyond_the_limit_ends_in_memory(self, tmp_path, whole, wanted):
        got, _ = packed(tmp_path, whole, origin(size=10), weights_most=500_000)
        assert got == wanted
        assert files(tmp_path) == []

    def test_nothing_is_kept_on_a_disk_that_is_nearly_full(self, tmp_path, whole, wanted, monkeypatch):
        blocks = 1 << 24  # of 4096 bytes: 64 GB, of which a tenth stays free
        disk = SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bavail=blocks // 10 + 100)
        monkeypatch.setattr(weight_cache.os, "statvfs", lambda folder: disk)
        assert packed(tmp_path, whole)[0] == wanted
        assert list(tmp_path.iterdir()) == []
        disk.f_bavail = blocks // 10 + 1000
        assert packed(tmp_path, whole)[0] == wanted
        assert len(files(tmp_path)) == 1

    @pytest.mark.parametrize(("bytes_free", "given", "left"), [
        (600_000, True, ["b", "c"]),  # the longest unused one goes
        (600_000, False, ["b"]),  # somebody has it mapped: no more go, and the new one lies in memory
        (-900_000, True, ["a", "b"]),  # both would not do
    ])  # fmt: skip
    def test_on_a_full_disk_models_go_that_were_not_used_for_long(
        self, tmp_path, whole, monkeypatch, bytes_free, given, left
    ):
        """Each takes some 0.85 MB."""
        for label in "ab":
            packed(tmp_path, whole, origin(label.encode(), 800_000, label))
        for kept in kept_models(tmp_path):
            os.utime(kept.folder, (ord(kept.label), ord(kept.label)))
        before = sum(path.stat().st_size for path in files(tmp_path))

        def disk(folder: Path) -> SimpleNamespace:
            gone = before - sum(path.stat().st_size for path in files(tmp_path))
            free = (10 << 30) + bytes_free + (gone if given else 0)
            return SimpleNamespace(f_frsize=1, f_blocks=100 << 30, f_bavail=free)

        monkeypatch.setattr(weight_cache.os, "statvfs", disk)
        packed(tmp_path, whole, origin(b"c", 800_000, "c"))
        assert sorted(kept.label for kept in kept_models(tmp_path)) == left

    def test_room_that_another_process_made_meanwhile_is_not_taken_for_none(self, tmp_path, whole, monkeypatch):
        for label in "ab":
            packed(tmp_path, whole, origin(label.encode(), 800_000, label))

        def listed(folder: Path) -> list[KeptModel]:
            found = sorted(kept_models(folder), key=lambda kept: kept.label)
            if len(found) == 2:
                remove(Path(found[0].folder))
            return found

        full = SimpleNamespace(f_frsize=1, f_blocks=100 << 30, f_bavail=10 << 30)

        def disk(folder: Path) -> SimpleNamespace:
            """It has room once both are gone."""
            return SimpleNamespace(**{**vars(full), "f_bavail": full.f_bavail + (0 if files(tmp_path) else 1 << 30)})

        monkeypatch.setattr(weight_cache, "kept_models", listed)
        monkeypatch.setattr(weight_cache.os, "statvfs", disk)
        packed(tmp_path, whole, origin(b"c", 800_000, "c"))
        assert [kept.label for kept in kept_models(tmp_path)] == ["c"]

    @pytest.mark.parametrize("name", ["pwrite", "ftruncate", "link"])
    def test_a_disk_that_takes_nothing_more_leaves_nothing_behind(self, tmp_path, whole, wanted, monkeypatch, name):
        def full(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(weight_cache.os, name, full)
        monkeypatch.setattr(Path, "replace", full)
        assert packed(tmp_path, whole)[0] == wanted
        assert files(tmp_path) == []

    def test_a_file_system_without_links_keeps_them_as_well(self, tmp_path, whole, wanted, monkeypatch):
        def none(*arguments: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(weight_cache.os, "link", none)
        packed(tmp_path, whole)
        assert packed(tmp_path, whole) == (wanted, 0)

    def test_a_slow_disk_is_not_waited_for(self, tmp_path, whole, wanted, monkeypatch):
        monkeypatch.setattr(weight_cache, "_PATIENCE", 0.0)
        monkeypatch.setattr(weight_cache, "_PACE", float("inf"))
        assert packed(tmp_path, whole)[0] == wanted
        assert files(tmp_path) == []

    def test_what_a_killed_process_left_goes(self, tmp_path, whole):
        packed(tmp_path, whole)
        (path,) = files(tmp_path)
        old, new = path.parent / ".part-old", path.parent / ".part-new"
        (path.parent / ".part-gone").symlink_to("nowhere")
        for part in (old, new):
            part.write_bytes(bytes(100))
        os.utime(old, (1, 1))
        packed(tmp_path, raw("Q8_0", 64, WIDTH))
        assert len([path for path in files(tmp_path) if path.suffix == ".strips"]) == 2
        assert not old.exists()
        assert new.exists()

    def test_kept_weights_are_read_where_nothing_can_be_written(self, kept, whole, wanted, monkeypatch):
        monkeypatch.setattr(weight_cache.os, "utime", lambda path: (_ for _ in ()).throw(PermissionError()))
        assert packed(kept, whole) == (wanted, 0)


def test_systems_whose_mapped_files_cannot_go_keep_none(cpu, tmp_path, monkeypatch):
    config = dataclasses.replace(cpu.config, weights=tmp_path)
    assert open_cache(config, cpu.code) is not None
    monkeypatch.setattr(weight_cache, "os", SimpleNamespace(name="nt"))
    assert open_cache(config, cpu.code) is None


def test_without_a_folder_there_is_no_cache_and_no_kernel_for_it(whole):
    with device(None) as cpu:  # type: ignore[arg-type]
        cpu.eager().pack(dataclasses.replace(whole, origin=origin()))
        assert Kernel.of("sums") not in cpu.code.loaded
