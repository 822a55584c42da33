"""A condition on a record, as one writes it: `dataset=digits`, `images_per_class>=20`, `mode!=scratch`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fttune.errors import ConfigError, unknown

_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_READ = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What a field must be; a field that is None meets `!=` alone."""

    name: str
    sign: str
    value: str | float

    @classmethod
    def parse(cls, text: str, fields: Mapping[str, type]) -> "Condition":
        """ConfigError for a sign, a field or a number that is none; `fields` tells the type of each."""
        found = _READ.fullmatch(text)
        if not found:
            raise ConfigError(
                f"a condition reads FIELD{'|'.join(_SIGNS)}VALUE, such as images_per_class>=20, not '{text}'"
            )
        name, sign, value = found.groups()
        if name not in fields:
            raise ConfigError(f"condition '{text}': {unknown('field', name, fields)}")
        if fields[name] is str:
            return cls(name=name, sign=sign, value=value)
        try:
            return cls(name=name, sign=sign, value=float(value))
        except ValueError:
            raise ConfigError(f"condition '{text}': {name} is a number, not '{value}'") from None

    def meets(self, row: object) -> bool:
        """Whether an object with such a field meets it."""
        value = getattr(row, self.name)
        if value is None:
            return self.sign == "!="
        return _SIGNS[self.sign](value, self.value)


def meeting(rows: Sequence[Any], conditions: Sequence[Condition]) -> list[Any]:
    """The rows that meet every condition."""
    return [row for row in rows if all(condition.meets(row) for condition in conditions)]
