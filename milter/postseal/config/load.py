"""TOML text -> ``Config``, with every mistake named by file, line and key."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import date
from datetime import time as clock_time
from typing import Any

from postseal.config.model import ARRAYS, SECTIONS, Anchor, Config
from postseal.config.rule import Policy
from postseal.config.values import ElementError, Kind
from postseal.core.errors import ConfigError
from postseal.core.policy import Rule, Seal, WithoutCertificate

Place = tuple[str | int, ...]
Lines = Mapping[Place, int]

_FILE_MAX = 1024 * 1024
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``line`` is 0 when the text isn't known."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class ConfigProblems(ConfigError):
    """All mistakes of one file; as a text it is the first one, and how many more there are."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        tail = f" (and {more} more, see 'postseal config check')" if more else ""
        super().__init__(f"{self.problems[0]}{tail}")


def load_config(path: str) -> Config:
    """Read and check a file. Raises ConfigProblems."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_MAX + 1)
    except OSError as exc:
        raise ConfigProblems([Problem(path, 0, f"can't read the configuration: {exc.strerror}")]) from exc
    if len(raw) > _FILE_MAX:
        raise ConfigProblems([Problem(path, 0, "the configuration is larger than 1 MiB")])
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigProblems([Problem(path, line, "the configuration is not UTF-8 text")]) from exc
    return load_text(text, path)


def load_text(text: str, path: str) -> Config:
    """Check a TOML text; ``path`` is its name in messages. Raises ConfigProblems."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        cause, _, position = str(exc).rpartition(" (at ")
        line = _line_of_error(position, text)
        twice = "overwrite" in cause or "twice" in cause
        said = "a section or option is written twice" if twice else f"not valid TOML: {cause or exc}"
        raise ConfigProblems([Problem(path, line, said)]) from exc
    return from_mapping(data, path, line_numbers(text))


def _line_of_error(position: str, text: str) -> int:
    digits = position.removeprefix("line ").partition(",")[0]
    return int(digits) if digits.isdecimal() else text.rstrip("\n").count("\n") + 1


def line_numbers(text: str) -> dict[Place, int]:
    """Where each table and key of a valid TOML text starts: ``("milter", "workers")``, ``("policy", 1, "seal")`` -> line."""
    out: dict[Place, int] = {}
    prefix: Place = ()
    counts: dict[Place, int] = {}
    for line, statement in _statements(text):
        parsed = tomllib.loads(statement)
        if not parsed:
            continue
        if statement.lstrip().startswith("["):
            prefix = _header(parsed, counts)
            out.setdefault(prefix, line)
        else:
            for place in _places(parsed):
                out.setdefault(prefix + place, line)
    return out


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every header and key; a value over several lines belongs to its key."""
    pending, start = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        start = start if pending else number
        pending = f"{pending}{line}\n"
        try:
            tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        yield start, pending
        pending = ""


def _header(parsed: Mapping[str, Any], counts: dict[Place, int]) -> Place:
    place: Place = ()
    node: Any = parsed
    while node:
        key, node = next(iter(node.items()))
        place = (*place, key)
        if isinstance(node, list):
            counts[place] = counts.get(place, -1) + 1
            node = node[0]
            place = (*place, counts[place])
        elif place in counts:
            place = (*place, counts[place])
    return place


def _places(node: Any) -> Iterator[Place]:
    """Every key below a parsed statement, dotted keys and inline tables included."""
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (key,)
        for rest in _places(value):
            yield (key, *rest)


def from_mapping(data: Mapping[str, Any], path: str, lines: Lines) -> Config:
    """Check a parsed configuration. Raises ConfigProblems with all mistakes, in the order of the file."""
    return _Checker(path, lines).config(data)


class _Checker:
    """Collects the problems of one file while its sections are converted."""

    def __init__(self, path: str, lines: Lines) -> None:
        self.path = path
        self.lines = lines
        self.problems: list[Problem] = []

    def problem(self, place: Place, text: str) -> None:
        while place and place not in self.lines:
            place = place[:-1]
        self.problems.append(Problem(self.path, self.lines.get(place, 0), text))

    def config(self, data: Mapping[str, Any]) -> Config:
        for name in data:
            if name not in SECTIONS:
                self.problem((name,), self._unknown_section(name, data[name]))
        sections = {name: self.table(name, data.get(name, {})) for name in SECTIONS if name not in ARRAYS}
        self.relations(sections)
        rules = self.rules(self.entries("policy", data, "rules"))
        anchors = self.anchors(self.entries("anchor", data, "anchors"))
        responders = tuple(entry for _, entry in self.entries("responder", data, "responders"))
        if self.problems:
            raise ConfigProblems(sorted(self.problems, key=lambda p: p.line))
        return Config(path=self.path, **sections, rules=rules, anchors=anchors, responders=responders)

    def relations(self, sections: Mapping[str, Any]) -> None:
        """What one option of a section says about another."""
        metrics, lookup = sections["metrics"], sections["lookup"]
        if lookup.no_proxy and lookup.proxy is None:
            self.problem(("lookup", "no_proxy"), "[lookup] no_proxy: means nothing without a proxy")
        if metrics.listen is not None and not metrics.allow_remote and not metrics.listen.is_loopback:
            self.problem(
                ("metrics", "listen"),
                f"[metrics] listen = {_shown(f'{metrics.listen.host}:{metrics.listen.port}')}: must be on a loopback "
                "address, because whoever reaches it can read it; with allow_remote = true any address is taken",
            )

    @staticmethod
    def _unknown_section(name: str, value: object) -> str:
        if not isinstance(value, dict | list):
            owners = [section for section, model in SECTIONS.items() if name in {f.name for f in fields(model)}]
            hint = f"; did you mean {name} in [{owners[0]}]?" if owners else f"; the sections are {_listed(SECTIONS)}"
            return f"option {_shown_key(name)} stands outside of any section{hint}"
        return (
            f"there is no section [{_shown_key(name)}]{_suggest(name, SECTIONS)}; the sections are {_listed(SECTIONS)}"
        )

    def table(self, name: str, value: object) -> Any:
        if not isinstance(value, dict):
            self.problem((name,), f"{name} must be a section: write [{name}] on a line of its own")
            value = {}
        return self.options(f"[{name}]", (name,), SECTIONS[name], value)

    def options(self, label: str, place: Place, model: type, table: Mapping[str, Any]) -> Any:
        """The dataclass of one table, or None when an option that must be given is wrong or missing."""
        known = {f.name: f for f in fields(model)}
        values: dict[str, Any] = {}
        for key, given in table.items():
            if key not in known:
                listed = f"; the options are {_listed(known)}"
                self.problem((*place, key), f"{label} has no option {_shown_key(key)}{_suggest(key, known)}{listed}")
                continue
            kind: Kind = known[key].metadata["kind"]
            try:
                values[key] = kind.parse(given)
            except ElementError as exc:
                self.problem((*place, key), f"{label} {key} contains {_shown(exc.element)}: must be {exc.allowed}")
            except ValueError:
                self.problem((*place, key), f"{label} {key} = {_shown(given)}: must be {kind.allowed}")
        missing = [f for f in known.values() if f.default is MISSING and f.name not in values]
        for f in missing:
            if f.name not in table:
                self.problem(place, f"{label} has no {f.name}: must be {f.metadata['kind'].allowed}")
        return None if missing else model(**values)

    def entries(self, section: str, data: Mapping[str, Any], word: str) -> list[tuple[int, Any]]:
        """The index and content of each entry of an array of tables that can be understood."""
        value = data.get(section, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.problem((section,), f"{section} must be a list of {word}: write [[{section}]] above each")
            return []
        model = SECTIONS[section]
        made = [(i, self.options(f"[[{section}]]", (section, i), model, entry)) for i, entry in enumerate(value)]
        return [(i, entry) for i, entry in made if entry is not None]

    def anchors(self, entries: Sequence[tuple[int, Anchor]]) -> tuple[Anchor, ...]:
        """The entries, of which no two may be about the same file or certificate."""
        seen: set[str] = set()
        for index, anchor in entries:
            if anchor.certificate in seen:
                text = f"[[anchor]] certificate = {_shown(anchor.certificate)}: another entry is about it already"
                self.problem(("anchor", index, "certificate"), text)
            seen.add(anchor.certificate)
        return tuple(anchor for _, anchor in entries)

    def rules(self, policies: Sequence[tuple[int, Policy]]) -> tuple[Rule, ...]:
        """The rules with a catch-all at the end. Relations between options and between rules are checked here."""
        seen: dict[str, int] = {}
        catch_all = ""
        for index, policy in policies:
            name, place = policy.name, ("policy", index)
            if name in seen:
                self.problem((*place, "name"), f"[[policy]] name = {_shown(name)}: another rule has this name already")
            seen[name] = index
            if catch_all:
                self.problem(
                    place, f'[[policy]] rule "{name}" can never match: rule "{catch_all}" before it matches all mail'
                )
            if policy.seal is Seal.MUST and policy.without_certificate is WithoutCertificate.CLEAR:
                self.problem(
                    (*place, "without_certificate"),
                    f'[[policy]] rule "{name}": without_certificate = "clear" contradicts seal = "must"; '
                    'must be "refuse" or "defer" or "hold"',
                )
            contradiction = policy.rule().ciphers.contradiction()
            if contradiction:
                self.problem((*place, contradiction.partition(" ")[0]), f'[[policy]] rule "{name}": {contradiction}')
            if policy.rule().catch_all:
                catch_all = catch_all or name
        made = tuple(policy.rule() for _, policy in policies)
        if catch_all:
            return made
        if "default" in seen:
            self.problem(
                ("policy", seen["default"], "name"),
                '[[policy]] name = "default": this name is kept for a rule with recipients and senders "any"',
            )
        return (*made, Policy(name="default").rule())


def _shown(value: object) -> str:
    """A value as TOML would write it, in ASCII and not too long."""
    try:
        text = value.isoformat() if isinstance(value, date | clock_time) else json.dumps(value)
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _shown_key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "_").replace(".", "_").isidentifier() else _shown(key)


def _suggest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names)
