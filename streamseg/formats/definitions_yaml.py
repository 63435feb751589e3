"""Definitions files: YAML to `Definitions`, with every error at its line and column.

Files are read as a tree of nodes with places, never as Python objects: no tags, anchors or aliases, no
duplicate keys, at most 256 KB. All errors of a file are found in one go where that makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from streamseg.core.condition import BrokenNameError
from streamseg.core.definitions import DEFAULT_REFUND_WINDOW, MAX_SEGMENTS, Definitions, DefinitionsBuilder
from streamseg.core.errors import ExpressionError, InputError
from streamseg.core.expression import FUNCTIONS, KEYWORDS, closest, duration_hint
from streamseg.core.scheme import Scheme, Segment
from streamseg.core.units import CURRENCY, Duration, parse_decimal, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 20
MAX_EXPONENT = 30
"""Of ten: a number with a million zeros would be a typing mistake, and each amount that it converts a second."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_RESERVED = frozenset({*FUNCTIONS, *KEYWORDS, "r", "f", "m", "any", "engagement", "all"})
_PROSE_KEYS = ("action", "owner", "channel", "consent", "description")
_TOP = ("version", "currency", "rates", "refund_window", "features", "rfm", "schemes", "description", "owner")
_SEGMENT = ("name", "when", "stay_when", "min_stay", *_PROSE_KEYS)
_SCHEME = ("segments", "default", *_PROSE_KEYS)
_RFM = ("recency", "frequency", "monetary", "cuts", "refresh")
_SCORES = ("recency", "frequency", "monetary")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or doubtful) in a file; line and column count from 1."""

    message: str
    line: int
    column: int
    length: int = 1
    hint: str | None = None
    severity: str = "error"

    def render(self, name: str, lines: list[str]) -> str:
        """As a good compiler shows it: place, source line, caret, hint."""
        source = lines[self.line - 1].rstrip().replace("\t", " ") if self.line <= len(lines) else ""
        head = f"{name}:{self.line}:{self.column}: {self.severity}: {self.message}"
        if not source and self.column == 1:
            return head + (f"\n = hint: {self.hint}" if self.hint else "")
        caret = "^" * max(1, min(self.length, len(source) - self.column + 1))
        margin = " " * len(str(self.line))
        text = [
            head,
            f" {self.line} | {source}",
            f" {margin} | {' ' * (self.column - 1)}{caret}",
        ]
        if self.hint:
            text.append(f" {margin} = hint: {self.hint}")
        return "\n".join(text)


class DefinitionsError(InputError):
    """A definitions file cannot be used. Its text shows every problem with its source line."""

    def __init__(self, name: str, text: str, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        lines = text.split("\n")
        super().__init__("\n".join(problem.render(name, lines) for problem in self.problems))


def load_definitions(data: bytes, name: str = "definitions.yaml") -> Definitions:
    """The definitions in a file's bytes. Raises DefinitionsError."""
    return _Loader(data, name).load()


def read_definitions(path: Path) -> Definitions:
    """The definitions in a file. Raises InputError if it cannot be read, DefinitionsError if it is wrong."""
    return load_definitions(read_source(path), str(path))


def read_source(path: Path) -> bytes:
    """A definitions file as it is. Raises InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"definitions file {path}: {error.strerror}") from error


class _Stop(Exception):  # noqa: N818 - not an error: the problem is noted already
    """A part of the file cannot be read further."""


class _Loader:
    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self.data = data
        self.problems: list[Problem] = []
        self.text = ""

    def load(self) -> Definitions:
        definitions = None
        try:
            self.text = self._decoded()
            definitions = self._document(self._compose())
        except _Stop:
            pass
        if self.problems or definitions is None:
            raise DefinitionsError(self.name, self.text, self.problems)
        return definitions

    # Problems

    def problem(self, message: str, node: yaml.Node, hint: str | None = None, length: int | None = None) -> None:
        mark, end = node.start_mark, node.end_mark
        if length is None:
            length = end.column - mark.column if end.line == mark.line else 1
        if not isinstance(node, yaml.ScalarNode):
            length = 1
        self.problems.append(Problem(message, mark.line + 1, mark.column + 1, max(length, 1), hint))

    def stop(self, message: str, node: yaml.Node, hint: str | None = None) -> _Stop:
        self.problem(message, node, hint)
        return _Stop()

    def _stop_at(self, message: str, line: int, column: int, hint: str | None = None) -> _Stop:
        self.problems.append(Problem(message, line, column, 1, hint))
        return _Stop()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Notes what is wrong in one part and goes on with the next."""
        with suppress(_Stop):
            yield

    # YAML

    def _decoded(self) -> str:
        if len(self.data) > MAX_BYTES:
            hint = "definitions are some pages of text: is it the right file?"
            raise self._stop_at(f"the file is larger than {MAX_BYTES // 1024} KB", 1, 1, hint)
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.text = self.data.decode("utf-8", "replace")
            before = self.data[: error.start].decode("utf-8", "replace")
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise self._stop_at("the file is not UTF-8", line, column, "save it as UTF-8") from None

    def _compose(self) -> yaml.Node:
        try:
            self._refuse_tricks()
            node = yaml.compose(self.text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            message, hint, mark = _yaml_problem(error)
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise self._stop_at(f"not YAML: {message}", line, column, hint) from None
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            character = f"U+{ord(self.text[error.position]):04X}"
            raise self._stop_at(f"not YAML: the character {character} is not allowed", line, column) from None
        except RecursionError:
            raise self._stop_at("nested too deeply", 1, 1) from None
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            raise self._stop_at("the file is empty", 1, 1, "start with version: 1")
        return node

    def _refuse_tricks(self) -> None:
        depth = 0
        for count, event in enumerate(yaml.parse(self.text, Loader=yaml.SafeLoader)):
            mark: Any = event.start_mark
            place = (mark.line + 1, mark.column + 1)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                hint = "write the value out; quote it if it is a text that begins with & or *"
                raise self._stop_at("anchors and aliases are not allowed", *place, hint)
            if getattr(event, "tag", None):
                raise self._stop_at("tags are not allowed", *place, "leave it out; quote a text that begins with !")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise self._stop_at(f"nested deeper than {MAX_DEPTH}", *place)
            if count > MAX_NODES:
                raise self._stop_at(f"more than {MAX_NODES} parts", *place)

    def mapping(
        self, node: yaml.Node, what: str, known: tuple[str, ...] | None = None
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Keys to (key node, value node); notes duplicates and, if `known` is given, unknown keys.

        A misspelt key is noted, and taken for what was meant: what is missing then is no second problem.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.stop(f"{what} must be a mapping (key: value)", node)
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        meant: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem("a key must be a plain name", key)
            elif key.value in entries:
                first = entries[key.value][0].start_mark.line + 1
                self.problem(f"{key.value!r} is there twice", key, f"the first is in line {first}")
            else:
                if known is not None and key.value not in known:
                    likely = closest(key.value, known)
                    hint = f"did you mean `{likely}`?" if likely else f"known: {', '.join(known)}"
                    self.problem(f"{what} has no key {key.value!r}", key, hint)
                    meant[likely or ""] = (key, value)
                entries[key.value] = (key, value)
        return meant | entries

    def scalar(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.stop(f"{what} must be a single value", node)
        if not node.value.strip():
            raise self.stop(f"{what} is empty", node)
        return str(node.value)

    def name_of(self, node: yaml.Node, what: str) -> str:
        text = self.scalar(node, what)
        if NAME.fullmatch(text) is None:
            raise self.stop(f"{text!r} is no name for {what}", node, "a letter, then letters, digits and _, at most 64")
        return text

    def duration(self, node: yaml.Node, what: str) -> Duration:
        text = self.scalar(node, what)
        try:
            return parse_duration(text)
        except ValueError:
            raise self.stop(f"{what}: {text!r} is no duration", node, duration_hint(text)) from None

    def decimal(self, node: yaml.Node, what: str) -> Fraction:
        text = self.scalar(node, what)
        try:
            number = parse_decimal(text)
        except ValueError:
            raise self.stop(f"{what} must be a decimal number", node) from None
        if abs(number.adjusted()) > MAX_EXPONENT:
            raise self.stop(f"{what} is beyond all measure", node, f"at most {MAX_EXPONENT} zeros")
        return Fraction(number)

    def expression(self, node: yaml.Node, what: str, bind: Callable[[str], Any]) -> Any:
        """What `bind` makes of an expression; its errors get their place in the file."""
        text = self.scalar(node, what)
        try:
            return bind(text)
        except BrokenNameError:
            raise _Stop from None
        except ExpressionError as error:
            line, column = self._place(node, error.start)
            end_line, end_column = self._place(node, max(error.end - 1, error.start))
            length = end_column - column + 1 if end_line == line else 1
            self.problems.append(Problem(error.message, line, column, max(length, 1), error.hint))
            raise _Stop from None

    def _place(self, node: yaml.Node, offset: int) -> tuple[int, int]:
        """Line and column of an offset in a scalar's value: found again in the source, past quotes and folding."""
        assert isinstance(node, yaml.ScalarNode)
        start, end = node.start_mark, node.end_mark
        source = self.text[start.index : end.index]
        position = 0
        if node.style in ("|", ">"):
            position = source.index("\n") + 1
        elif node.style in ("'", '"'):
            position = 1
        for character in node.value[:offset]:
            position = _after(source, position, character)
        while position < len(source) and source[position].isspace() and not node.value[offset : offset + 1].isspace():
            position += 1
        before = source[:position]
        line = before.count("\n")
        column = position - (before.rfind("\n") + 1) if line else start.column + position
        return start.line + 1 + line, column + 1

    # The parts of the file

    def _document(self, node: yaml.Node) -> Definitions | None:
        top = self.mapping(node, "the file", _TOP)
        self._version(node, top)
        currency = self._currency(node, top)
        builder = DefinitionsBuilder(currency)
        rates: Mapping[str, Fraction] = {}
        refund_window = DEFAULT_REFUND_WINDOW
        if "rates" in top:
            with self.attempt():
                rates = self._rates(top["rates"][1], currency)
        if "refund_window" in top:
            with self.attempt():
                refund_window = self.duration(top["refund_window"][1], "refund_window")
        if "features" in top:
            with self.attempt():
                self._features(top["features"][1], builder)
        if "rfm" in top:
            builder.scope.broken_features |= {"r", "f", "m"}
            with self.attempt():
                self._rfm(top["rfm"][1], builder)
        self._schemes(node, top, builder)
        if self.problems:
            return None
        digest = "sha256:" + sha256(self.data).hexdigest()
        return builder.build(name=self.name, digest=digest, rates=rates, refund_window=refund_window)

    def _version(self, node: yaml.Node, top: Mapping[str, tuple[yaml.Node, yaml.Node]]) -> None:
        if "version" not in top:
            self.problem("version is missing", node, "start the file with version: 1")
        elif getattr(top["version"][1], "value", None) != "1":
            self.problem("this streamseg reads version 1", top["version"][1], "version: 1")

    def _currency(self, node: yaml.Node, top: Mapping[str, tuple[yaml.Node, yaml.Node]]) -> str:
        if "currency" not in top:
            self.problem("currency is missing", node, "such as currency: EUR")
            return "EUR"
        value = top["currency"][1]
        text = str(value.value) if isinstance(value, yaml.ScalarNode) else ""
        if CURRENCY.fullmatch(text) is None:
            self.problem("currency must be three capital letters of ISO 4217", value, "such as EUR")
            return "EUR"
        return text

    def _rates(self, node: yaml.Node, currency: str) -> dict[str, Fraction]:
        rates = {}
        for code, (key, value) in self.mapping(node, "rates").items():
            with self.attempt():
                if CURRENCY.fullmatch(code) is None:
                    raise self.stop("a rate stands under three capital letters of ISO 4217", key)
                rate = self.decimal(value, f"the rate of {code}")
                if rate <= 0:
                    raise self.stop("a rate must be above zero", value)
                rates[code] = rate
        rates.pop(currency, None)
        return rates

    def _features(self, node: yaml.Node, builder: DefinitionsBuilder) -> None:
        entries = self.mapping(node, "features")
        scope = builder.scope
        scope.later_features = frozenset(entries)
        for name, (key, value) in entries.items():
            with self.attempt():
                self.name_of(key, "a feature")
                if name in _RESERVED:
                    raise self.stop(f"{name!r} has a meaning of its own", key, "choose another name")
                self.expression(value, f"feature {name}", partial(builder.feature, name))
            if name not in scope.features:
                scope.broken_features.add(name)

    def _rfm(self, node: yaml.Node, builder: DefinitionsBuilder) -> None:
        entries = self.mapping(node, "rfm", _RFM)
        if missing := [name for name in (*_SCORES, "cuts") if name not in entries]:
            raise self.stop(f"rfm needs {_listed(missing)}", node)
        terms = {name: self.expression(entries[name][1], name, partial(builder.score, name)) for name in _SCORES}
        cuts = self._cuts(entries["cuts"][1])
        builder.scores(terms["recency"], terms["frequency"], terms["monetary"], cuts)

    def _cuts(self, node: yaml.Node) -> dict[str, tuple[Any, ...]]:
        if isinstance(node, yaml.ScalarNode):
            hint = "write four cut points for recency, frequency and monetary"
            raise self.stop(f"cuts: {node.value} is not supported yet", node, hint)
        entries = self.mapping(node, "cuts", _SCORES)
        cuts: dict[str, tuple[Any, ...]] = {}
        for name in _SCORES:
            if name not in entries:
                raise self.stop(f"cuts need {name}", node)
            cuts[name] = self._points(name, entries[name][1])
        return cuts

    def _points(self, name: str, node: yaml.Node) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 4:
            found = f"; there are {len(node.value)}" if isinstance(node, yaml.SequenceNode) else ""
            raise self.stop(f"cuts of {name} must be a list of four ascending points{found}", node)
        read = self.duration if name == "recency" else self.decimal
        points = [read(item, f"a cut of {name}") for item in node.value]
        for item, lower, upper in zip(node.value[1:], points, points[1:], strict=False):
            if upper <= lower:
                raise self.stop("cut points must ascend", item)
        return tuple(int(point) if point == int(point) else point for point in points)

    def _schemes(
        self, node: yaml.Node, top: Mapping[str, tuple[yaml.Node, yaml.Node]], builder: DefinitionsBuilder
    ) -> None:
        if "schemes" not in top:
            self.problem("schemes are missing", node, "schemes: {value: {default: .., segments: [..]}}")
            return
        with self.attempt():
            entries = self.mapping(top["schemes"][1], "schemes")
            if not entries:
                raise self.stop("there is no scheme", top["schemes"][1])
            builder.scope.later_schemes = frozenset(entries)
            for name, (key, value) in entries.items():
                noted = len(self.problems)
                builder.scope.own_scheme = name
                with self.attempt():
                    self.name_of(key, "a scheme")
                    self._scheme(name, value, builder)
                if len(self.problems) > noted or name not in builder.scope.schemes:
                    builder.scope.schemes.pop(name, None)
                    builder.scope.broken_schemes.add(name)

    def _scheme(self, name: str, node: yaml.Node, builder: DefinitionsBuilder) -> None:
        entries = self.mapping(node, f"scheme {name}", _SCHEME)
        if "default" not in entries:
            raise self.stop(f"scheme {name} needs a default", node, "default: the segment of everybody else")
        default = self.name_of(entries["default"][1], "a segment")
        hint = "each begins with - name:"
        if "segments" not in entries:
            raise self.stop(f"scheme {name} needs segments", node, hint)
        if not isinstance(entries["segments"][1], yaml.SequenceNode):
            raise self.stop("segments must be a list", entries["segments"][1], hint)
        items = entries["segments"][1].value
        if len(items) > MAX_SEGMENTS:
            raise self.stop(f"more than {MAX_SEGMENTS} segments", entries["segments"][1])
        segments, conditions, seen = [], [], {default: entries["default"][1].start_mark.line + 1}
        for item in items:
            with self.attempt():
                segment, bound = self._segment(item, seen, builder)
                segments.append(segment)
                conditions.append(bound)
        owner = self.scalar(entries["owner"][1], "owner") if "owner" in entries else None
        builder.scheme(Scheme(name=name, segments=tuple(segments), default=default, owner=owner), conditions)

    def _segment(self, node: yaml.Node, seen: dict[str, int], builder: DefinitionsBuilder) -> tuple[Segment, Any]:
        entries = self.mapping(node, "a segment", _SEGMENT)
        if "name" not in entries:
            raise self.stop("a segment needs a name", node)
        name = self.name_of(entries["name"][1], "a segment")
        if name in seen:
            raise self.stop(
                f"segment {name!r} is there twice", entries["name"][1], f"the first is in line {seen[name]}"
            )
        seen[name] = entries["name"][1].start_mark.line + 1
        if "when" not in entries:
            raise self.stop(f"segment {name!r} needs when", entries["name"][1], "such as when: orders >= 3")
        when = self.expression(entries["when"][1], "when", builder.condition)
        stay = (
            self.expression(entries["stay_when"][1], "stay_when", builder.condition) if "stay_when" in entries else None
        )
        segment = Segment(
            name=name,
            when=str(entries["when"][1].value),
            stay_when=str(entries["stay_when"][1].value) if stay is not None else None,
            min_stay=self.duration(entries["min_stay"][1], "min_stay") if "min_stay" in entries else 0,
            line=seen[name],
            **{key: self.scalar(entries[key][1], key) for key in ("action", "owner") if key in entries},
        )
        return segment, (when, stay)


def _after(source: str, position: int, character: str) -> int:
    """The position after the next occurrence of a character of the value in the source."""
    if character.isspace():
        while position < len(source) and source[position].isspace():
            position += 1
            if position < len(source) and not source[position].isspace():
                break
        return position
    found = source.find(character, position)
    return position if found < 0 else found + 1


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _yaml_problem(error: yaml.MarkedYAMLError) -> tuple[str, str | None, Any]:
    """What is wrong, how to mend it, and where, of an error of the YAML parser."""
    problem, context = str(error.problem or error.context), str(error.context or "")
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    if "\\t" in problem:
        return "a tab cannot indent", "indent with spaces, not tabs", mark
    if "quoted scalar" in context and opened is not None:
        return "a quoted text that does not end", "close it with the same quote", opened
    if "flow" in context and opened is not None:
        kind = "list [..]" if "sequence" in context else "mapping {..}"
        return f"{problem}, in a {kind}", f"it was opened in line {opened.line + 1}: is it closed?", mark
    if "another document" in problem:
        return "a second document begins here", "a file holds one: leave out ---", mark
    if "mapping values are not allowed" in problem:
        return problem, "quote a text that has ': ' in it", mark
    if "found '<scalar>'" in problem:
        return problem, "a value that begins with a quote ends with it: put the whole text in '..'", mark
    if "<block end>" in problem:
        return problem, "check the indentation", mark
    return problem, None, mark
