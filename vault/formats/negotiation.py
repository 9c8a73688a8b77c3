"""Which form of a page a client gets, and in which content coding (RFC 9110 sections 12.4 and 12.5; PEP 691)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache

USUAL = 256
"""What follows from longer fields is not remembered: whoever sends them may send many."""

_WEIGHT = re.compile(r"\d?(?:\.\d*)?")


class Choice(Enum):
    """A form of the pages of the Simple Repository API; the value is its Content-Type, exactly as it is sent."""

    HTML = "text/html; charset=utf-8"
    V1_HTML = "application/vnd.pypi.simple.v1+html"
    JSON = "application/vnd.pypi.simple.v1+json"

    @property
    def content_type(self) -> str:
        """The value of the Content-Type field."""
        return self.value


# A wildcard gets the first of these it covers, which a person with a browser or curl can read; a client that has named
# several and likes them equally gets the last, which says most.
_NAMES = {
    Choice.HTML: {"text/html"},
    Choice.V1_HTML: {"application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.latest+html"},
    Choice.JSON: {"application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.latest+json"},
}


def choose(accept: str | None, format: str | None = None) -> Choice:
    """The form for a client that sends this ``Accept`` (its lines joined by ``", "``) and this ``?format=``.

    ``format`` is a media type and takes the place of ``Accept``.  A form that is named wins over one that only a
    wildcard covers with the same weight.  ``latest`` means version 1.  Where nothing is acceptable the answer is HTML
    all the same, as the public index does it; never 406.
    """
    # A plus sign that was not escaped in a query arrives as a space.
    field = format.strip().replace(" ", "+") if format and format.strip() else accept or ""
    return _choice(field) if len(field) <= USUAL else _choice.__wrapped__(field)


@lru_cache(256)  # each program sends the same with every request
def _choice(field: str) -> Choice:
    ranges = dict(_weighted(field))
    best = Choice.HTML
    best_rank = (0.0, 0, 0)
    for position, (choice, names) in enumerate(_NAMES.items()):
        named = [ranges[name] for name in names if name in ranges]
        if named:
            rank = (max(named), 1, position)
        else:
            group = choice.value.partition("/")[0]
            rank = (ranges.get(f"{group}/*", ranges.get("*/*", 0.0)), 0, -position)
        if rank[0] > 0 and rank > best_rank:
            best, best_rank = choice, rank
    return best


def coding(accept_encoding: str | None, offered: Sequence[str]) -> str | None:
    """The content coding to send to a client with this ``Accept-Encoding``; None is no coding at all.

    ``offered`` are the codings there are, best first; it decides between those the client likes equally.  A client
    that says nothing gets no coding, and so does one that accepts nothing.
    """
    field = accept_encoding or ""
    return _coding(field, *offered) if len(field) <= USUAL else _coding.__wrapped__(field, *offered)


@lru_cache(256)
def _coding(field: str, *offered: str) -> str | None:
    weights = {name.removeprefix("x-"): weight for name, weight in _weighted(field)}
    others = weights.get("*", 0.0)
    if not offered:
        return None
    best = max(offered, key=lambda name: weights.get(name, others))
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def _weighted(field: str) -> Iterator[tuple[str, float]]:
    """The elements of a field in lower case, with their weights; what is malformed is passed over.

    Parameters other than the weight are not looked at: no form has any that would tell it from another.
    """
    for element in field.lower().split(","):
        name, *parameters = (part.strip() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = (part.strip() for part in parameter.partition("="))
            if key == "q":
                digits = _WEIGHT.fullmatch(value)
                weight = min(float(value), 1.0) if digits and any(map(str.isdigit, value)) else -1.0
        if name and weight >= 0:
            yield name, weight
