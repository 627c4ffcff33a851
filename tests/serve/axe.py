"""axe-core, which finds what keeps people from using a page. Fetched once into the cache of tests, never shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import platformdirs
from browser import Browser

VERSION = "4.10.3"


def fetch_axe() -> Path | str:
    """Its script; or, as a text, why it cannot be had."""
    cache = Path(os.environ.get("OPSIN_TEST_CACHE") or platformdirs.user_cache_path("opsin-tests"))
    script = cache / f"axe-core-{VERSION}" / "axe.min.js"
    if script.exists():
        return script
    npm = shutil.which("npm")
    if npm is None:
        return "no npm on this machine"
    script.parent.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", "--silent", f"axe-core@{VERSION}"]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=120)
    archive = script.parent / f"axe-core-{VERSION}.tgz"
    if done.returncode or not archive.exists():
        return f"npm has no axe-core {VERSION}: {done.stderr[-200:]}"
    with tarfile.open(archive) as packed:
        found = packed.extractfile("package/axe.min.js")
        assert found is not None
        half = script.with_suffix(".part")
        half.write_bytes(found.read())
    half.rename(script)
    archive.unlink()
    return script


def faults(page: Browser) -> list[str]:
    """What axe finds on a page into which its script was run: rules, with the first element that breaks each."""
    found = page.run("axe.run(document, {resultTypes: ['violations']}).then((told) => told.violations)")
    return [f"{fault['impact']} {fault['id']}: {fault['nodes'][0]['html']:.120}" for fault in found]
