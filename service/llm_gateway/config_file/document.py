# SPDX-License-Identifier: Apache-2.0
"""YAML as plain values, which remembers the line of each: what is wrong is found where it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml is slower, and says some things in other words
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_DEPTH = 50
MERGE = "tag:yaml.org,2002:merge"
TAGS = {MERGE, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))}
"""What may be in it."""


class NotReadableError(Exception):
    """It is no YAML, or YAML beyond what JSON can say; the text says what, and where as far as that is known."""


class Document:
    """One YAML document: `data` is None where there is nothing in it."""

    def __init__(self, data: Any, root: yaml.Node | None) -> None:  # noqa: ANN401 - whatever it holds
        self.data = data
        self._root = root

    @classmethod
    def of(cls, text: str) -> Self:
        """Read it. Raises NotReadableError."""
        try:
            _check_depth(text)
            loader = _Loader(text)
            try:
                root = loader.get_single_node()
                return cls(None if root is None else loader.construct_document(root), root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            raise NotReadableError(_at(error.problem_mark, _problem(error))) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
            raise NotReadableError(f"line {line}: has a character that YAML does not allow") from None
        except yaml.YAMLError:
            raise NotReadableError("is not YAML") from None

    def line_of(self, place: Sequence[str | int]) -> int | None:
        """The line, from 1 on, of what is at a place, or of the nearest that is there of what it is in."""
        node, mark = self._root, None
        for step in place:
            found = _step(node, step)
            if found is None:
                break
            node, mark = found
        return None if mark is None else mark.line + 1


class _Loader(SafeLoader):
    """YAML as JSON could say it, with every name once in a mapping; a date is text, as it is there."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{_shown(key.value)} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - whatever it holds
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            # What PyYAML's constructors raise for a tag that its value does not fit, and for numbers without measure.
            raise yaml.constructor.ConstructorError(
                None, None, "has a value that its type cannot have", node.start_mark
            ) from None


def _refuse_tag(_: _Loader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(None, None, "has a tag that is not known here", node.start_mark)


_Loader.yaml_constructors = {tag: made for tag, made in SafeLoader.yaml_constructors.items() if tag in TAGS}
_Loader.add_constructor(None, _refuse_tag)  # for every other tag
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in TAGS]
    for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
}


def _check_depth(text: str) -> None:
    """Refuse what is nested so deep that libyaml's own recursion would end the process."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise NotReadableError(_at(event.start_mark, f"is nested more than {MAX_DEPTH} deep"))


def _step(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, yaml.Mark] | None:
    """What is one step further, and where it begins; of a mapping's value that is its name."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return value, key.start_mark
    return None


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "is not YAML"
    return f"{error.context} {problem}" if problem.startswith("but ") else problem


def _at(mark: Any, problem: str) -> str:  # noqa: ANN401 - libyaml's mark or PyYAML's
    return problem if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _shown(name: str) -> str:
    return name[:64] if name.isprintable() else repr(name[:64])
