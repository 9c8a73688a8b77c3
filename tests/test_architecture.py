"""The layout: dependencies point one way, the reactor is passed in, files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import vault

ROOT = Path(vault.__file__).parent
MAX_LINES = 400

VALUES = {
    "vault",
    "vault.artifact",
    "vault.clock",
    "vault.errors",
    "vault.interfaces",
    "vault.levels",
    "vault.freshness",
    "vault.outcome",
    "vault.rate",
    "vault.urls",
}
CONFIGURATION = {"vault.values", "vault.document", "vault.options", "vault.endpoints", "vault.config"}

# What a module may know beside VALUES and its own package; the longest name that fits counts.
MAY_IMPORT: dict[str, set[str]] = {
    "vault.answer": set(),
    "vault.handover": set(),
    "vault.proxy": {"vault.handover"},
    "vault.connect": {"vault.handover", "vault.proxy", "vault.values"},
    "vault.slots": set(),
    "vault.hosts": {"vault.slots"},
    "vault.redirects": set(),
    "vault.explanation": {"vault.connect", "vault.handover", "vault.proxy"},
    "vault.upstream": {
        "vault.answer",
        "vault.connect",
        "vault.hosts",
        "vault.explanation",
        "vault.options",
        "vault.redirects",
    },
    "vault.sources": {"vault.answer", "vault.memory", "vault.redirects", "vault.upstream"},
    "vault.feed": {"vault.answer", "vault.sources", "vault.store.writer"},
    "vault.stages": {"vault.store"},
    "vault.confirmation": {"vault.answer", "vault.sources", "vault.store"},
    "vault.first_answer": {"vault.answer", "vault.sources", "vault.feed", "vault.store", "vault.confirmation"},
    "vault.transfer": {
        "vault.answer",
        "vault.sources",
        "vault.feed",
        "vault.stages",
        "vault.store",
        "vault.first_answer",
        "vault.confirmation",
    },
    "vault.parts": {"vault.answer", "vault.sources", "vault.feed", "vault.transfer", "vault.store"},
    "vault.memory": set(),
    "vault.failures": {"vault.memory"},
    "vault.metrics": set(),
    "vault.verified": {"vault.store"},
    "vault.cache": {
        "vault.sources",
        "vault.stages",
        "vault.transfer",
        "vault.parts",
        "vault.store",
        "vault.failures",
        "vault.verified",
    },
    "vault.kitchen": {"vault.cache", "vault.sources", "vault.store"},
    "vault.body": {"vault.sendfile"},
    "vault.sendfile": set(),
    "vault.store": {"vault.paths", "vault.eviction"},
    "vault.backends": {
        "vault.options",
        "vault.values",
        "vault.formats",
        "vault.backend",
        "vault.paths",
        "vault.memory",
    },
    "vault.backend": set(),
    "vault.web": {"vault.body", "vault.sendfile", "vault.memory", "vault.paths"},
    "vault.web.registry": {"vault.web", "vault.formats"},
    "vault.web.tunnel": {"vault.web", "vault.connect"},
    "vault.paths": set(),
    "vault.formats": {"vault.paths"},
    "vault.eviction": set(),
    "vault.values": set(),
    "vault.document": set(),
    "vault.options": {"vault.values", "vault.document"},
    "vault.endpoints": {"vault.values"},
    "vault.config": {*CONFIGURATION, "vault.backends"},
    "vault.starting": set(),
    "vault.listeners": {"vault.config", "vault.endpoints"},
    "vault.logs": {"vault.web.accesslog"},
}
KNOW_EVERYBODY = {"vault.service", "vault.tap", "vault.cli", "vault.__main__"}


def modules() -> Iterator[tuple[str, Path]]:
    """Each module's name and file."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("vault", *path.relative_to(ROOT).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that some code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES or name == "twisted.internet.reactor" else str(node.module)


def at_module_level(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported when the code itself is."""
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from imported(node)


def inside(name: str, packages: set[str]) -> bool:
    """True if a module is one of these or in one of them; ``vault`` itself is only itself."""
    return any(name == package or (package != "vault" and name.startswith(f"{package}.")) for package in packages)


class ArchitectureTests(SynchronousTestCase):
    """Every module of the package."""

    def test_one_way(self) -> None:
        """No module knows more than it may."""
        wrong = []
        for name, path in MODULES.items():
            if name in KNOW_EVERYBODY or name in VALUES:
                continue
            known = max((key for key in MAY_IMPORT if inside(name, {key})), key=len, default=None)
            if known is None:
                wrong.append(f"{name} has no place in the layout: say here what it may import")
                continue
            allowed = MAY_IMPORT[known] | VALUES | {known}
            for other in sorted(set(imported(ast.parse(path.read_text())))):
                if other.split(".")[0] == "vault" and not inside(other, allowed):
                    wrong.append(f"{name} imports {other}")
        self.assertEqual(wrong, [])

    def test_values(self) -> None:
        """The modules everybody may know know only each other."""
        for name in sorted(VALUES):
            for other in imported(ast.parse(MODULES[name].read_text())):
                self.assertTrue(other.split(".")[0] != "vault" or other in VALUES, f"{name} imports {other}")

    def test_reactor(self) -> None:
        """Nobody imports the reactor but within a function, and nobody but the edge at all."""
        for name, path in MODULES.items():
            tree = ast.parse(path.read_text())
            self.assertNotIn("twisted.internet.reactor", list(at_module_level(tree)), name)
            if name not in KNOW_EVERYBODY:
                self.assertNotIn("twisted.internet.reactor", list(imported(tree)), name)

    def test_small(self) -> None:
        """No file is longer than a person reads in one go."""
        for path in MODULES.values():
            self.assertLessEqual(len(path.read_text().splitlines()), MAX_LINES, path.name)

    def test_plugin(self) -> None:
        """The plugin imports nothing of the vault until it is run."""
        plugin = ROOT.parent / "twisted" / "plugins" / "vault_plugin.py"
        found = list(at_module_level(ast.parse(plugin.read_text())))
        self.assertEqual(found, ["os", "typing", "twisted.application.service"])
