"""Each rule of tools/check.py fails on a bad sample and holds on a good one. The tree itself: `bash tools/test`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "check.py"
FAMILY = '"""A family."""\n\nDECODERS = {"zebra": 1, "zebra2": 2}\n'
BODY = "".join(f"    x{i} = {i}\n" for i in range(8))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_of_opsin", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path):
    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def lines(count: int) -> str:
    return '"""Lines."""\n' + "x = 1\n" * (count - 1)


def function(count: int, name: str = "long") -> str:
    return f'"""A function."""\n\n\ndef {name}():\n    """Says so."""\n' + "    x = 1\n" * (count - 1)


def test_modules_of_tests_are_found_by_their_names(tool, tree):
    files = {"tests/a/test_x.py": "import helper\n", "tests/a/helper.py": "", "tests/b/test_y.py": "import json\n"}
    assert list(tool.modules(tool.read(tree(files), ("tests",)))) == []
    twice = {"tests/b/test_x.py": ""}
    assert list(tool.modules(tool.read(tree(twice), ("tests",)))) == [
        "tests/b/test_x.py: tests/a/test_x.py has this name, too"
    ]
    far = {"tests/b/test_x.py": "", "tests/b/test_z.py": "def f():\n    from helper import g\n"}
    assert list(tool.modules(tool.read(tree(far), ("tests",))))[1:] == [
        "tests/b/test_z.py:2: imports from tests/a, which is not on its path"
    ]
    near = {"tests/b/test_z.py": "import sys\nsys.path.insert(0, 'a')\nfrom helper import g\n"}
    assert len(list(tool.modules(tool.read(tree(near), ("tests",))))) == 1


def test_a_broken_rule_is_an_exit_code(tree) -> None:
    root = tree({"src/opsin/a.py": lines(401)})
    done = subprocess.run([sys.executable, str(TOOL), str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "src/opsin/a.py: 401 lines, at most 400\n"


def test_a_file_may_have_400_lines_and_a_kernel_500(tool, tree) -> None:
    kernels = "src/opsin/ops/cpu/kernels"
    root = tree({"src/opsin/a.py": lines(400), f"{kernels}/b.py": lines(500)})
    assert tool.check(root) == []
    root = tree({"src/opsin/a.py": lines(401), f"{kernels}/b.py": lines(501)})
    assert [line.split(":")[0] for line in tool.check(root)] == ["src/opsin/a.py", f"{kernels}/b.py"]


def test_a_function_may_have_60_lines_and_a_kernel_100(tool, tree) -> None:
    kernel = "src/opsin/ops/cpu/kernels/b.py"
    assert tool.check(tree({"src/opsin/a.py": function(60), kernel: function(100, "other")})) == []
    broken = tool.check(tree({"src/opsin/a.py": function(61), kernel: function(101, "other")}))
    assert broken == [
        "src/opsin/a.py:4: long has 61 lines, at most 60",
        f"{kernel}:4: other has 101 lines, at most 100",
    ]


def test_an_inner_function_counts_by_itself(tool, tree) -> None:
    inner = '"""Two."""\n\n\ndef outer():\n    def inner():\n' + "        x = 1\n" * 50 + "    y = 1\n" * 50
    assert tool.check(tree({"src/opsin/a.py": inner})) == []
    longer = inner.replace("        x = 1\n" * 50, "        x = 1\n" * 60)
    assert [line.split(": ")[1] for line in tool.check(tree({"src/opsin/a.py": longer}))] == [
        "inner has 61 lines, at most 60"
    ]


def test_the_ratchet_lets_old_lengths_be_and_not_grow(tool, tree) -> None:
    root = tree({"src/opsin/a.py": lines(410)})
    assert list(tool.lengths(tool.read(root), {"src/opsin/a.py": 410})) == []
    assert len(list(tool.lengths(tool.read(root), {"src/opsin/a.py": 409}))) == 1


@pytest.mark.parametrize("what", ["def one():", "class One:"])
def test_a_copied_body_is_found(tool, tree, what: str) -> None:
    copy = what.replace("o", "t", 1) if what.startswith("def") else "class Two:"
    first = f'"""First."""\n\n\n{what}\n{BODY}'
    second = f'"""Second."""\n\n\n{copy}\n    """Looks new."""\n{BODY}'
    broken = tool.check(tree({"src/opsin/a.py": first, "src/opsin/b.py": second}))
    assert len(broken) == 1
    assert "is a copy of src/opsin/a.py:4" in broken[0]


def test_short_or_different_bodies_are_no_twins(tool, tree) -> None:
    def two_files(first: str, second: str) -> dict[str, str]:
        texts = (f'"""A."""\n\n\ndef one():\n{first}', f'"""B."""\n\n\ndef two():\n{second}')
        return dict(zip(("src/opsin/a.py", "src/opsin/b.py"), texts, strict=True))

    short = "".join(BODY.splitlines(keepends=True)[:7])
    assert tool.check(tree(two_files(short, short))) == []
    assert tool.check(tree(two_files(BODY, BODY.replace("x7 = 7", "x7 = 8")))) == []


def test_a_public_class_name_stands_once(tool, tree) -> None:
    def two_files(first: str, second: str) -> dict[str, str]:
        return {
            "src/opsin/a.py": f'"""A."""\n\n\nclass {first}:\n    x = 1\n',
            "src/opsin/b.py": f'"""B."""\n\n\nclass {second}:\n    x = 2\n',
        }

    assert tool.check(tree(two_files("One", "Two"))) == []
    assert tool.check(tree(two_files("_One", "_One"))) == []
    assert tool.check(tree(two_files("One", "One"))) == ["src/opsin/b.py:4: class One stands in src/opsin/a.py:4, too"]


def test_families_may_name_their_classes_alike_and_not_as_others_do(tool, tree) -> None:
    text = '"""A part."""\n\n\nclass Projector:\n    """Projects."""\n'
    families = {"src/opsin/models/lion.py": text, "src/opsin/models/tiger.py": text}
    assert tool.check(tree(families)) == []
    broken = tool.check(tree({"src/opsin/nn/part.py": text}))
    assert broken == ["src/opsin/nn/part.py:4: class Projector stands in src/opsin/models/lion.py:4, too"]


def test_a_family_is_named_in_its_file_alone(tool, tree) -> None:
    home = {"src/opsin/models/zebra.py": FAMILY}
    allowed = {"src/opsin/text/tables.py": '"""Tables."""\n\nPRE = "zebra"\n', "tests/test_z.py": '"""Zebra."""\n'}
    assert tool.check(tree(home | allowed)) == []
    for text in ('"""As zebra does."""\n', '"""X."""\n\nif arch == "zebra2":\n    pass\n', '"""X."""\n# Zebra only\n'):
        broken = tool.check(tree({"src/opsin/nn/part.py": text}))
        assert len(broken) == 1, text
        assert broken[0].startswith("src/opsin/nn/part.py:")
        assert "src/opsin/models/zebra.py" in broken[0]


def test_families_do_not_name_each_other(tool, tree) -> None:
    lion = '"""Unlike zebra."""\n\nDECODERS = {}\n'
    root = tree({"src/opsin/models/zebra.py": FAMILY, "src/opsin/models/lion.py": lion})
    assert tool.check(root) == ["src/opsin/models/lion.py:1: names zebra, which belongs into src/opsin/models/zebra.py"]


def test_a_family_may_say_the_name_that_its_own_begins_with(tool, tree) -> None:
    longer = '"""Zebrafish, unlike zebra, swim."""\n\nDECODERS = {"zebrafish": 1}\n'
    root = tree({"src/opsin/models/zebra.py": FAMILY, "src/opsin/models/zebrafish.py": longer})
    assert tool.check(root) == []


@pytest.mark.parametrize("line", ['CLASSES = ("ZebraForSeeing",)', "from opsin.models.zebra import Stripes"])
def test_a_family_may_name_a_class_of_transformers_and_take_from_another_family(tool, tree, line) -> None:
    home = {"src/opsin/models/zebra.py": FAMILY}
    assert tool.check(tree(home | {"src/opsin/models/lion.py": f'"""Lions."""\n\n{line}\n'})) == []
    broken = tool.check(tree(home | {"src/opsin/nn/part.py": f'"""A part."""\n\n{line}\n'}))
    assert [found.split(":")[0] for found in broken] == ["src/opsin/nn/part.py"]


def test_a_projector_is_named_in_its_file_alone(tool, tree) -> None:
    home = {"src/opsin/models/lion.py": '"""Lions."""\n\nENCODERS = {"mlp": 1, "": 2}\n'}
    assert tool.check(tree(home | {"src/opsin/nn/vit.py": '"""An mlp."""\n\nname = "mlp.fc1"\n'})) == []
    broken = tool.check(tree({"src/opsin/nn/vit.py": '"""An mlp."""\n\nname = "mlp"\n'}))
    assert broken == ["src/opsin/nn/vit.py:3: names projector mlp, which belongs into src/opsin/models/lion.py"]


def test_the_program_of_that_name_is_no_family(tool, tree) -> None:
    root = tree({"src/opsin/models/zebra.py": FAMILY, "src/opsin/a.py": '"""Names are zebra.cpp\'s."""\n'})
    assert tool.check(root) == []


def test_a_module_says_what_it_is(tool, tree) -> None:
    assert tool.check(tree({"src/opsin/a.py": "", "src/opsin/b.py": '"""B."""\nx = 1\n'})) == []
    broken = tool.check(tree({"src/opsin/b.py": "x = 1\n", "tests/test_b.py": "y = 1\n"}))
    assert broken == ["src/opsin/b.py: no docstring", "tests/test_b.py: no docstring"]


def test_no_test_asserts_what_a_clock_says(tool, tree) -> None:
    timed = '"""T."""\n\n\ndef test_it():\n    assert time.process_time() - start < 1\n'
    assert tool.check(tree({"tests/test_t.py": timed.replace("assert ", "spent = ")})) == []
    assert tool.check(tree({"tests/test_t.py": timed})) == ["tests/test_t.py:5: asserts what a clock says"]


def test_a_name_of_a_project_that_has_a_familys_letters_is_none(tool, tree) -> None:
    family = '"""A family."""\n\nDECODERS = {"llama": 1}\n'
    files = {
        "src/opsin/models/llama.py": family,
        "src/opsin/hub/store.py": '"""Ollama\'s store."""\n\nX = "ollama:x"\n',
    }
    assert tool.check(tree(files)) == []
    files["src/opsin/hub/store.py"] += "# Unlike llama\n"
    assert len(tool.check(tree(files))) == 1


def test_the_engines_files_say_on_which_thread_they_run(tool, tree) -> None:
    assert tool.check(tree({"src/opsin/engine/a.py": '"""A.\n\nThread: the engine\'s.\n"""\nx = 1\n'})) == []
    (broken,) = tool.check(tree({"src/opsin/engine/a.py": '"""A thread: the engine\'s."""\nx = 1\n'}))
    assert broken.startswith("src/opsin/engine/a.py: does not say on which thread")
