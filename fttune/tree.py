"""A YAML file as a tree of keys and values, and single values changed in it from the command line."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fttune.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but for a key that stands twice: YAML itself would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
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
        raise ConfigError(f"{path}: cannot read the {kind}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a {kind} is a mapping that starts with {start}, but got {_kind(tree)}")
    return tree


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """`name=value` options as a tree of their own."""
    tree: dict[str, Any] = {}
    for text in texts:
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
    except yaml.YAMLError:
        raise ConfigError(f"override '{text}': the value is not YAML") from None


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
