"""pip, uv and poetry in homes of their own: nothing that is configured on the machine decides what they do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.functional.vault_process import environment

PYTHON_SETTINGS = ("PIP_", "UV_", "POETRY_", "VIRTUAL_ENV", "PYTHON", "SSL_", "REQUESTS_")
TIMEOUT = 90.0


def client_environment(home: Path, **changes: str) -> dict[str, str]:
    """An environment without settings for these clients."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in environment().items() if not name.startswith(PYTHON_SETTINGS)}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CONFIG_DIRS": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # What a client would ask of anybody else goes nowhere.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "UV_PYTHON_DOWNLOADS": "never",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "POETRY_VIRTUALENVS_IN_PROJECT": "true",
        "POETRY_VIRTUALENVS_OPTIONS_NO_PIP": "true",
        "POETRY_KEYRING_ENABLED": "false",
        "NO_COLOR": "1",
        **changes,
    }


def program(name: str) -> str:
    """Where a client is installed; skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        raise SkipTest(f"{name} is not installed")
    return found


def run(
    home: Path, *command: str, cwd: Path | None = None, timeout: float = TIMEOUT, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a client to its end."""
    return subprocess.run(
        command,
        cwd=cwd or home,
        env=client_environment(home, **changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def pip(home: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """pip of this Python; it keeps no cache between calls unless told where."""
    home.mkdir(parents=True, exist_ok=True)
    return run(home, sys.executable, "-m", "pip", *arguments, **changes)


def pip_install(home: Path, index: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Install into ``home/site`` from one index."""
    site = str(home / "site")
    return pip(home, "install", "--no-input", "--target", site, "--index-url", index, *arguments, **changes)


def uv_install(home: Path, index: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """The same by uv."""
    uv = program("uv")
    home.mkdir(parents=True, exist_ok=True)
    where = ("--python", sys.executable, "--target", str(home / "site"), "--default-index", index)
    return run(home, uv, "pip", "install", *where, *arguments, **changes)


def poetry_project(home: Path, index: str, *requirements: str) -> Path:
    """A project of poetry's that takes these requirements from one index."""
    project = home / "project"
    project.mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        "\n".join(
            [
                '[project]\nname = "a-project"\nversion = "1.0"',
                f'requires-python = "=={sys.version_info[0]}.{sys.version_info[1]}.*"',
                f"dependencies = [{', '.join(repr(one) for one in requirements)}]",
                "[tool.poetry]\npackage-mode = false",
                f'[[tool.poetry.source]]\nname = "vault"\nurl = "{index}"\npriority = "primary"\n',
            ]
        )
    )
    return project


def poetry(home: Path, project: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run poetry in a project."""
    return run(home, program("poetry"), *arguments, "--no-interaction", cwd=project, **changes)
