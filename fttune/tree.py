"""A YAML file as a tree of keys and values, and single values changed in it from the command line."""

from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from fttune.errors import ConfigError

_VALUES, _DEPTH, _DIGITS = 100_000, 50, 100  # of a file, at most
_MERGE = "tag:yaml.org,2002:merge"  # the key `<<`


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but for a key that stands twice, of which YAML itself would silently keep the last, and for
    what a few lines can make too large to handle: aliases of aliases, nesting, numbers.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values: dict[int, int] = {}  # values in a finished node, each alias counted out, by the node's id
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ComposerError(None, None, f"nested more than {_DEPTH} deep", None)
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not alias:
            self._values[id(node)] = 1 + sum(self._values[id(inner)] for inner in _inner(node))
        self._check_size(node)
        return node

    def _check_size(self, node: yaml.Node | None) -> None:
        place = node.start_mark if node else None
        if node is not None and id(node) not in self._values:
            raise ComposerError(None, None, "an alias stands inside of what it stands for", place)
        if node is not None and self._values[id(node)] > _VALUES:
            raise ComposerError(None, None, f"more than {_VALUES:,} values, aliases counted out", place)
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) and len(node.value) > _DIGITS:
            raise ComposerError(None, None, f"a number of more than {_DIGITS} digits", place)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{twice}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_tree(path: Path, kind: str = "sweep file", start: str = "'name:' and 'grid:'") -> dict[str, Any]:
    """The tree of a file of some kind, which starts with these keys; ConfigError, naming the file, when it cannot be
    read or is no mapping.
    """
    try:
        tree = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        near = get_close_matches(path.name, [file.name for file in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean '{path.with_name(near[0])}'?" if near and not path.exists() else ""
        raise ConfigError(f"{path}: cannot read the {kind}: {error.strerror}{hint}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: a date that no calendar has
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a {kind} is a mapping that starts with {start}, but got {_kind(tree)}")
    return tree


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """`name=value` options as a tree of their own."""
    tree: dict[str, Any] = {}
    for text in texts:
        if "=" not in text:
            raise ConfigError(f"option '{text:.200}' must read NAME=VALUE, such as most_per_class=100")
        override(tree, text)
    return tree


def override(tree: dict[str, Any], text: str) -> None:
    """Set one `key.path=value` in a tree; the value is read as YAML."""
    key, equals, value = text.partition("=")
    steps = key.split(".")
    if not equals or not all(steps):
        raise ConfigError(f"override '{text}' must read key.path=value, such as train.lr=0.02")
    node = tree
    for step in steps[:-1]:
        node = node.setdefault(step, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override '{text}': '{step}' holds {_kind(node)}, not keys")
    try:
        node[steps[-1]] = yaml.load(value, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError):
        raise ConfigError(f"override '{text:.200}': the value is not YAML") from None


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
