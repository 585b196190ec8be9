"""Evidence -> Failure: what a failure is, how far it reaches, and what its row of the error table says to do.

The knowledge is in ``errors.tsv``; here it is only looked up. For an answer of Telegram the id alone
decides, never an exception's class or a substring: rules such as "contains 'proxy'" are wrong for 870 of the
938 ids. An id matches its row exactly, or with one number written as X (``FLOOD_WAIT_35`` is ``FLOOD_WAIT_X``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from supervisor.core.failure import Evidence, Failure, Kind, Override, Remedy, Scope, Source

NO_OVERRIDES: Final[Mapping[str, Override]] = MappingProxyType({})

# Above it a number is no wait but a date: Unix time passed it in 2001, and as seconds it is 31 years
# (errors.tsv, the default for 420, and STORY_SEND_FLOOD_X as TDLib reads it).
LONGEST_WAIT: Final = 1e9

_NUMBER: Final = re.compile("[0-9]+")
_UNITS: Final = {"seconds": 1.0, "minutes": 60.0}
_STANDS_FOR: Final = frozenset({"", "number", "text", *_UNITS})
_ANY: Final = "*"

_K = TypeVar("_K")


class TableError(ValueError):
    """A row of ``errors.tsv`` that makes no sense; the message names the line."""


class _Row(
    NamedTuple
):  # a tuple: a frozen dataclass takes four times as long to make, and there are a thousand
    code: str  # Telegram's number, or the Source that the row is for
    error_id: str
    verdict: Override
    x: str
    when: tuple[tuple[str, Override], ...]
    note: str

    @property
    def judgement(self) -> tuple[object, ...]:
        """What all rows of one id must agree on."""
        return self.verdict, self.x, self.when

    @property
    def name(self) -> str:
        return f"{self.code} {self.error_id}"


@dataclass(slots=True)
class _Table:
    ids: dict[str, dict[str, _Row]] = field(default_factory=dict)  # id -> code -> row
    codes: dict[str, _Row] = field(default_factory=dict)  # for an id in no table
    ours: dict[tuple[Source, str], _Row] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)  # ids whose X is text


def classify(
    evidence: Evidence,
    *,
    overrides: Mapping[str, Override] = NO_OVERRIDES,
    signing_in: bool = False,
    in_a_row: int | None = None,
) -> Failure:
    """Judge one failure.

    `Failure.wait` is set where Telegram named a time, whatever the remedy is: a caller that is handed the
    error needs it too. It is at least 1 s (FLOOD_WAIT_0 occurs). A flood wait without a usable number (none,
    or a date) is raised: nobody knows how long to wait, and a repeat without waiting makes it worse.

    Args:
        evidence: what was seen. `code` may be missing where the id is in the table.
        overrides: the operator's own rows (`[classify]`), by id as it was sent or as the table spells it; by
            code (``"500"``, ``"-404"``) for what no row names. They come before the table.
        signing_in: whether the failing call is a step of signing in; some ids then mean something else.
        in_a_row: how often the same has been met by now without anything that worked in between; some failures
            mean less the first times, or more at last. None where nobody counts: what the row says by itself.
    """
    return _judge(evidence, overrides, signing_in=signing_in, in_a_row=in_a_row, by_name=False)


def lookup(
    text: str, *, overrides: Mapping[str, Override] = NO_OVERRIDES, signing_in: bool = False
) -> Failure:
    """Judge an error by its name alone, for `explain`.

    An id with its X (``FLOOD_WAIT_X``) is judged as its row stands, without `Failure.wait`.

    Args:
        text: an id (``FLOOD_WAIT_35``, ``SQLITE_CORRUPT``), a code (``500``, ``-404``), or both, as the client
            libraries print them (``[420 FLOOD_WAIT_35]``).
        overrides: see `classify`.
        signing_in: see `classify`.
    """
    return _judge(_imagined(text), overrides, signing_in=signing_in, in_a_row=None, by_name=True)


@cache
def known_ids() -> frozenset[str]:
    """Every id of the table, ours too, as it is spelled there (``FLOOD_WAIT_X``)."""
    table = _table()
    return frozenset(table.ids).union(spelled for _, spelled in table.ours if spelled != _ANY)


def is_frozen(error_id: str | None) -> bool:
    """Whether the id says that the account is frozen: read-only until an appeal or its deletion.

    Telegram has two such ids, FROZEN_METHOD_INVALID and FROZEN_PARTICIPANT_MISSING.
    """
    return error_id in ("FROZEN_METHOD_INVALID", "FROZEN_PARTICIPANT_MISSING")


def _judge(
    evidence: Evidence,
    overrides: Mapping[str, Override],
    *,
    signing_in: bool,
    in_a_row: int | None,
    by_name: bool,
) -> Failure:
    row, number = _find(evidence)
    error_id = _spelling(evidence, row)
    key = _overriding(evidence, row, error_id, overrides)
    if key is None:
        condition, verdict = _verdict(row, evidence, signing_in=signing_in, in_a_row=in_a_row)
        why = _reason(row, condition)
    else:
        verdict, why = overrides[key], f"[classify] {key}"
    wait = _wait(row, number, verdict)
    remedy = verdict.remedy
    asked_about = by_name and evidence.error_id == row.error_id
    if wait is None and not asked_about and remedy is Remedy.WAIT and verdict.kind is Kind.FLOOD_WAIT:
        remedy, why = Remedy.RAISE, f"{why} (no usable number of seconds)"
    return Failure(
        kind=verdict.kind,
        scope=verdict.scope,
        remedy=remedy,
        evidence=evidence,
        error_id=error_id,
        wait=wait,
        limited=verdict.remedy is Remedy.RAISE and verdict.scope is Scope.ACCOUNT,
        why=why,
    )


# --- From evidence to its row ----------------------------------------------------------------------------


def _find(evidence: Evidence) -> tuple[_Row, str | None]:
    """Give the row for the evidence and, where it has one, the number that stands for the X."""
    table = _table()
    if evidence.source is Source.RPC:
        return _find_answer(table, evidence.error_id or "", str(evidence.code))
    name = str(evidence.code) if evidence.source is Source.TRANSPORT else evidence.error_id or ""
    # SQLite's extended codes name the primary one first: SQLITE_CORRUPT_INDEX is a SQLITE_CORRUPT
    # (sqlite.org/rescode.html#extrc).
    primary = "_".join(name.split("_")[:2]) if evidence.source is Source.STORAGE else name
    keys = ((evidence.source, spelled) for spelled in (name, primary, _ANY))
    return next(table.ours[key] for key in keys if key in table.ours), None


def _find_answer(table: _Table, error_id: str, code: str) -> tuple[_Row, str | None]:
    for spelled, number in _spellings(table, error_id):
        rows = table.ids.get(spelled)
        if rows is not None:
            row = rows.get(code) or next(iter(rows.values()))
            if number is None or row.x:
                return row, number
    row = table.codes.get(code) or table.ours[Source.RPC, _ANY]
    numbers = _NUMBER.findall(error_id)
    return row, numbers[-1] if numbers else None


def _spellings(table: _Table, error_id: str) -> Iterator[tuple[str, str | None]]:
    """Yield how a table may spell the id, likeliest first, each with the number that its X replaced."""
    yield error_id, None
    for found in reversed(list(_NUMBER.finditer(error_id))):
        yield f"{error_id[: found.start()]}X{error_id[found.end() :]}", found.group()
    for spelled in table.texts:
        if error_id.startswith(spelled[:-1]):
            yield spelled, None


def _spelling(evidence: Evidence, row: _Row) -> str | None:
    """Give the id as the table spells it; for an id in no table as it was sent, a number of seconds as X."""
    if row.error_id != _ANY and evidence.source is not Source.TRANSPORT:
        return row.error_id
    if row.code == "420" and evidence.error_id:
        return _generic(evidence.error_id)
    return evidence.error_id


def _generic(error_id: str) -> str:
    """Write the last number of an id as X."""
    for found in reversed(list(_NUMBER.finditer(error_id))):
        return f"{error_id[: found.start()]}X{error_id[found.end() :]}"
    return error_id


# --- From the row to a verdict ---------------------------------------------------------------------------


def _overriding(
    evidence: Evidence, row: _Row, error_id: str | None, overrides: Mapping[str, Override]
) -> str | None:
    """Give the key of the override that applies: the id as sent, as the table spells it, or the code."""
    if not overrides:
        return None
    keys = [evidence.error_id, error_id]
    if row.error_id == _ANY or evidence.source is Source.TRANSPORT:
        keys += [_generic(evidence.error_id or ""), str(evidence.code)]
    return next((key for key in keys if key in overrides), None)


def _verdict(
    row: _Row, evidence: Evidence, *, signing_in: bool, in_a_row: int | None
) -> tuple[str, Override]:
    method = (evidence.method or "").rpartition(".")[2].lower()
    holds = {"login": signing_in, "call": not signing_in, "proxied": evidence.path != "direct"}
    for condition, verdict in row.when:
        if holds.get(condition, condition.lower() == method) or _counts(condition, in_a_row):
            return condition, verdict
    return "", row.verdict


def _counts(condition: str, in_a_row: int | None) -> bool:
    """Whether a condition on the count holds: ``first_2`` the first two times in a row, ``from_3`` from the third on."""
    word, _, number = condition.partition("_")
    if in_a_row is None or not number.isdecimal():
        return False
    return in_a_row <= int(number) if word == "first" else word == "from" and in_a_row >= int(number)


def _reason(row: _Row, condition: str) -> str:
    where = f" ({condition})" if condition else ""
    return f"error table: {row.name}{where}" + (f": {row.note}" if row.note else "")


def _wait(row: _Row, number: str | None, verdict: Override) -> float | None:
    """Give the seconds that Telegram demands, or None where it named none."""
    if row.error_id == _ANY:
        unit, least = (1.0 if verdict.kind is Kind.FLOOD_WAIT else None), 1.0
    else:
        unit, least = _UNITS.get(row.x), 0.0
    if unit is None or number is None or not least <= float(number) <= LONGEST_WAIT:
        return None
    return max(float(number), 1.0) * unit


def _imagined(text: str) -> Evidence:
    """Make up the evidence that somebody who asks about `text` has seen."""
    table = _table()
    name = text.strip(" []")
    code, _, error_id = name.partition(" ")
    if not re.fullmatch("-?[0-9]{1,9}", code):
        own = next((source for source, spelled in table.ours if spelled == name != _ANY), Source.RPC)
        return Evidence(own, text, error_id=name)
    transport = code.startswith("-") and code not in table.codes and not error_id
    return Evidence(
        Source.TRANSPORT if transport else Source.RPC, text, error_id=error_id.strip() or None, code=int(code)
    )


# --- The table -------------------------------------------------------------------------------------------


@cache
def _table() -> _Table:
    return _parse(resources.files("supervisor.core").joinpath("errors.tsv").read_text("utf-8"))


def _parse(text: str) -> _Table:
    table = _Table()
    lines = ((n, line) for n, line in enumerate(text.splitlines(), 1) if line and not line.startswith("#"))
    next(lines)  # the names of the columns
    for n, line in lines:
        try:
            _add(table, _row(line))
        except (TableError, ValueError) as error:
            raise TableError(f"errors.tsv:{n}: {error}") from None
    missing = [source.value for source in Source if (source, _ANY) not in table.ours]
    if missing:
        raise TableError(f"errors.tsv: no row * for {', '.join(missing)}")
    return table


def _row(line: str) -> _Row:
    code, error_id, kind, action, scope, x, when, note = line.split("\t")
    if x not in _STANDS_FOR:
        raise TableError(f"X cannot stand for {x!r}")
    return _Row(code, error_id, _judged(f"{kind}/{action}/{scope}"), x, _conditions(when), note)


@cache
def _conditions(text: str) -> tuple[tuple[str, Override], ...]:
    pairs = (word.partition("=") for word in text.split())
    return tuple((condition, _judged(verdict)) for condition, _, verdict in pairs)


@cache
def _judged(text: str) -> Override:
    kind, remedy, scope = text.split("/")
    return Override(Kind(kind), Remedy(remedy), Scope(scope))


def _add(table: _Table, row: _Row) -> None:
    if not row.code.lstrip("-").isdigit():
        _put(table.ours, (Source(row.code), row.error_id), row)
    elif row.error_id == _ANY:
        _put(table.codes, row.code, row)
    else:
        rows = table.ids.setdefault(row.error_id, {})
        if any(other.judgement != row.judgement for other in rows.values()):
            raise TableError(f"{row.error_id} is judged otherwise under another code")
        _put(rows, row.code, row)
        if row.x == "text":
            table.texts.append(row.error_id)


def _put(rows: dict[_K, _Row], key: _K, row: _Row) -> None:
    if key in rows:
        raise TableError(f"{row.name} stands there twice")
    rows[key] = row
