"""Reads dates of the calendar as people and models write them, and compares them.

A date is a whole text of one of these forms, with an English month's name or its abbreviation:
``3 March 1990``, ``the 3rd of March, 1990``, ``March 3rd, 1990``, ``1990 March 3``, ``1990-03-03``,
``03/03/1990``, ``3.3.1990``; without its year ``March 3``; without its day ``March 1990``,
``1990-03``, ``03/1990``; a year alone, ``1990``. ``on``, ``in``, ``the`` may
stand in front, and before a day also that of the week, which is not looked at, or its abbreviation.
A year has four digits, or three beside a month's name, or an era (``44 BC``, ``AD 79``).

Of two numbers with ``/`` or ``-`` before a year the first is the month (as in English-language data
sets), with ``.`` the day; the other order is taken where that is no date (``13/04/1990``).
``2001-05``, which may be a range of years, is none. Nor are a month or a small number alone.

The grammar is this small on purpose: libraries that guess take ``may`` and ``12`` for dates and
fill in today's month and year, so that partial dates could not be told from whole ones.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from common.text_tokens import fold

_MAX_CHARACTERS = 60
_MONTHS = "january february march april may june july august september october november december"
_MONTH_OF = {
    form: number
    for number, name in enumerate(_MONTHS.split(), 1)
    for form in (name, name[:3], *(["sept"] if number == 9 else []))
}
_LAST_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_GREGORIAN_FROM = 1583

_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTH_OF, key=len, reverse=True))})"
_ERA = r"(?P<era>bce?|ad|ce)"
_YEAR = rf"(?:ad (?P<after>\d{{1,4}})|(?P<before>\d{{1,4}}) ?{_ERA}|(?P<year>\d{{3,4}}))"
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|mon|tues?|wed|thu(?:rs?)?|fri|sat|sun"
_WEEKDAY_FIRST = re.compile(rf"(?:(?:on|in) )?(?:{_WEEKDAY})\b")
_LEAD = re.compile(rf"(?:(?:on|in) )?(?:(?:{_WEEKDAY}) )?(?:the )?")
_WORDED = tuple(
    re.compile(form)
    for form in (
        rf"{_DAY} (?:of )?{_MONTH}(?: (?:of )?{_YEAR})?",
        rf"{_MONTH} (?:of )?{_YEAR}",
        rf"{_MONTH} (?:the )?{_DAY}(?: {_YEAR})?",
        rf"{_YEAR} {_MONTH} {_DAY}",
        r"(?:ad (?P<after>\d{1,4})|(?P<before>\d{1,4}) ?(?P<era>bce?|ad|ce)|(?P<year>\d{4}))",
    )
)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_MONTH_LAST = re.compile(r"(\d{4})-(\d{2})")
_MONTH_FIRST = re.compile(r"(\d{1,2})[-/.](\d{4})")


@dataclass(frozen=True, kw_only=True, slots=True)
class CalendarDate:
    """A date, or what is known of one.

    Attributes:
        year: 44 BC is -44; None for a day of any year.
        month: 1 to 12; None for a year alone.
        day: 1 to 31; None for a month of a year, and for a year alone.
    """

    year: int | None = None
    month: int | None = None
    day: int | None = None


@lru_cache(1024)  # the same gold answers come with every trajectory of a group
def parse_date(text: str) -> CalendarDate | None:
    """The date that ``text`` is, or None where it is anything else."""
    if len(text) > _MAX_CHARACTERS:
        return None
    folded = fold(text).strip(" .,;")
    found = _numeric(_without_lead(folded)) or _worded(folded)
    is_fitting = found is None or found.day or not _WEEKDAY_FIRST.match(folded)
    return found if is_fitting else None


def same_date(answer: str, gold: str) -> bool:
    """Whether both are dates, and the same one; one that says less is another one."""
    wanted = parse_date(gold)
    return wanted is not None and parse_date(answer[: _MAX_CHARACTERS + 1]) == wanted


def _without_lead(text: str) -> str:
    lead = _LEAD.match(text)
    return text[lead.end() :] if lead else text


def _numeric(text: str) -> CalendarDate | None:
    if found := _YEAR_FIRST.fullmatch(text):
        return _checked(int(found[1]), int(found[3]), int(found[4]))
    if found := _YEAR_LAST.fullmatch(text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        by_month, by_day = _checked(year, first, second), _checked(year, second, first)
        return (by_day or by_month) if found[2] == "." else (by_month or by_day)
    if found := _MONTH_LAST.fullmatch(text):
        year, month = int(found[1]), int(found[2])
        return _checked(year, month, None) if month <= year % 100 else None
    if found := _MONTH_FIRST.fullmatch(text):
        return _checked(int(found[2]), int(found[1]), None)
    return None


def _worded(text: str) -> CalendarDate | None:
    text = re.sub(r"(?<=\w)[-/](?=\w)|[.,]", " ", text)
    # "b.c." has lost its points
    text = re.sub(r"\b(b c e|b c|a d|c e)\b", lambda era: era[0].replace(" ", ""), text)
    text = _without_lead(" ".join(text.split()))
    for form in _WORDED:
        if found := form.fullmatch(text):
            parts = found.groupdict()
            month, day = parts.get("month"), parts.get("day")
            return _checked(
                _year(parts), _MONTH_OF[month] if month else None, int(day) if day else None
            )
    return None


def _year(parts: dict[str, str | None]) -> int | None:
    digits = parts["after"] or parts["before"] or parts["year"]
    if digits is None:
        return None
    return -int(digits) if parts["era"] in ("bc", "bce") else int(digits)


def _checked(year: int | None, month: int | None, day: int | None) -> CalendarDate | None:
    if year == 0 or (month is not None and not 1 <= month <= 12):
        return None
    if day is not None and (month is None or not 1 <= day <= _last_day(year, month)):
        return None
    return CalendarDate(year=year, month=month, day=day)


def _last_day(year: int | None, month: int) -> int:
    if month != 2 or year is None:
        return _LAST_DAYS[month - 1]
    common = year % 4 or (year >= _GREGORIAN_FROM and not year % 100 and year % 400)
    return 28 if year > 0 and common else 29
