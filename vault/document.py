"""A YAML file as Settings: nothing in it is constructed, so that text stays as written and lines stay known.

Mistakes are noted with their place and reported together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from vault.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the file and its line: text as written, a list, a mapping, or None where nothing is given.

    ``hidden`` values came from the environment and are not shown; ``wrong`` ones have been reported already.
    """

    value: str | list[Setting] | dict[str, Setting] | None = field(repr=False)
    line: int
    hidden: bool = False
    wrong: bool = False

    @property
    def emptied(self) -> bool:
        """Whether something is written that the environment has made nothing of."""
        return self.value is None and self.hidden


class Problems:
    """The mistakes found so far in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, path: str, message: str) -> None:
        """Note a mistake at ``line`` in the value named by ``path``, which is empty for the file as a whole."""
        self._found.append((line, f"{self.file}:{line}: {path + ': ' if path else ''}{message}"))

    def include(self, error: ConfigError) -> None:
        """Note mistakes that somebody raised instead of noting them."""
        self._found.extend((0, line) for line in error.problems)

    def raise_any(self) -> None:
        """Raise ConfigError with every mistake, in the order of their lines, if there is one."""
        if self._found:
            raise ConfigError([text for _, text in sorted(self._found, key=lambda found: found[0])])


def plain(key: str) -> str:
    """A key as a message may show it: nothing after the characters of a name, where a value may have slipped in."""
    name = re.match(r"[\w.\[\]-]*", key)
    return key if name is None or name[0] == key else name[0] + "..."


LARGEST = 100_000
"""Values in a file: aliases of aliases can make any number of them."""

TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")}
VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with each ``${NAME}`` and ``${NAME:-default}`` replaced, and ``$$`` read as ``$``.

    As in a shell the default stands in for an empty variable too.  Raises ValueError for a variable that is not set,
    and for one in a default.
    """

    def value(match: re.Match[str]) -> str:
        dollar, name, default, unclosed = match.groups()
        if dollar:
            return "$"
        if unclosed:
            raise ValueError(
                "has a ${ that names no variable; write ${NAME} or ${NAME:-default}, and $${ for a plain ${"
            )
        if default is not None and "${" in default.replace("$$", ""):
            raise ValueError(
                f"has a ${{ in the default of {name}, where no variable can be; give the default as plain text"
            )
        if default is None and name not in environ:
            raise ValueError(
                f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-value}}"
            )
        return environ.get(name) or (default or "").replace("$$", "$")

    return VARIABLE.sub(value, text)


def _token(quoted: re.Match[str]) -> str:
    return quoted[0] if len(quoted[1]) < 2 or quoted[1].startswith("<") else "a name"


class Document:
    """A YAML file as Settings: nothing in it is constructed, so that text stays as written and lines stay known."""

    def __init__(self, environ: Mapping[str, str], problems: Problems) -> None:
        self._environ = environ
        self._problems = problems
        self._size = 0

    def read(self, text: str) -> Setting:
        """The whole file; raises ConfigError where it is not YAML."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            # What the parser quotes may be part of a secret; the kinds of token it names are not.
            reason = re.sub(r"'([^']*)'", _token, error.problem or "it cannot be read")
            if (error.problem or "").startswith(r"found character '\t'"):
                reason = "a tab stands where YAML wants spaces"
            wrong = f"is not YAML: {reason}; check indentation and quotes"
            if error.problem == "but found another document":
                wrong = "begins a second document here (---); put all into one"
            self._problems.add(mark.line + 1 if mark else 1, "", wrong)
        except RecursionError:
            self._problems.add(1, "", "is nested too deeply; write it as the sample configuration is written")
        except (ValueError, OverflowError):  # PyYAML's own, for escapes and directives with absurd numbers
            self._problems.add(
                1, "", "is not YAML: it has an escape or a directive that means nothing; give plain text"
            )
        except yaml.YAMLError:
            self._problems.add(1, "", "is not YAML: it has control characters in it; give a plain text file")
        self._problems.raise_any()
        if root is None:
            return Setting({}, 1)
        try:
            return self._setting(root, 1, "", ())
        except RecursionError:
            self._problems.add(1, "", "is nested too deeply; write it as the sample configuration is written")
        self._problems.raise_any()
        raise AssertionError("a mistake was noted")

    def _wrong(self, line: int, path: str, message: str) -> Setting:
        self._problems.add(line, path, message)
        return Setting(None, line, wrong=True)

    def _setting(self, node: yaml.Node, line: int, path: str, above: tuple[yaml.Node, ...]) -> Setting:
        self._size += 1
        if self._size > LARGEST:
            self._problems.add(line, path, f"makes more than {LARGEST} values of the file; use fewer aliases")
            self._problems.raise_any()
        if node.tag not in TAGS:
            return self._wrong(line, path, "has a YAML tag (!...); put text that starts with ! in quotes")
        if any(node is outer for outer in above):
            return self._wrong(line, path, "contains itself; write it out instead of using an alias")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line, path)
        inside = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            items = [
                self._setting(item, item.start_mark.line + 1, f"{path}[{index}]", inside)
                for index, item in enumerate(node.value)
            ]
            return Setting(items, line)
        mapping: dict[str, Setting] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(at, path, "has a key that is not text; give a plain name")
                continue
            if key.tag.endswith(":merge"):
                self._wrong(at, path, "has a merge key (<<); write the keys out, or give an alias for a whole value")
                continue
            where = f"{path}.{plain(key.value)}" if path else plain(key.value)
            if key.value in mapping:
                self._wrong(at, where, f"is given twice, first on line {mapping[key.value].line}; give it once")
                continue
            mapping[key.value] = self._setting(value, at, where, inside)
        return Setting(mapping, line)

    def _scalar(self, node: yaml.ScalarNode, line: int, path: str) -> Setting:
        if node.tag.endswith(":null"):
            return Setting(None, line)
        try:
            text = substituted(node.value, self._environ)
        except ValueError as error:
            return self._wrong(line, path, str(error))
        if re.search("[\0\ud800-\udfff]", text):
            return self._wrong(line, path, "has a character in it that is no text; leave it out")
        # A variable that is empty gives nothing, so that the default holds.
        return Setting(text if text or not node.value else None, line, hidden="${" in node.value)
