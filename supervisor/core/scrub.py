"""Text without what nobody may read: the last look before anything is kept, logged or sent."""

from __future__ import annotations

import re

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A URL's user and password, up to the last @ of the word: passwords do hold / and @.
    (re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]{0,30}://)[^\s/:@'\"]{0,256}:[^\s'\"]{0,512}@"), r"\1…@"),
    # A bot's token; what stands before the colon is the bot's public id.
    (re.compile(r"(?<!\d)(\d{1,20}):[A-Za-z0-9_-]{30,}"), r"\1:…"),
    # Session strings (362 characters), auth keys as hex (512) or as a number (617), any alphabet of base64.
    (re.compile(r"(?<![A-Za-z0-9_+/-])[A-Za-z0-9_+/-]{300,}={0,2}"), "…"),
    # An auth key as Python shows bytes.
    (re.compile(r"(?:\\x[0-9a-f]{2}[ -\[\]-~]{0,8}?){32,}"), "…"),
    # +49 1511 2345678
    (re.compile(r"\+(\d{2})(?:[ ().-]{0,2}\d){4,11}[ ().-]{0,2}(\d)[ ().-]?(\d)(?!\d)"), r"+\1…\2\3"),
)


def scrub(text: str) -> str:
    """The text without bot tokens, session strings, auth keys, URL passwords and whole phone numbers."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


_PERSONAL: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\+\d{2}…\d{2}"), "…"),  # what `scrub` leaves of a phone number
    (re.compile(r"'[^']*'|\"[^\"]*\""), "'…'"),
    (re.compile(r"[\w.+-]+@[\w.-]+"), "…"),
    (re.compile(r"@\w+"), "@…"),
    (re.compile(r"[A-Za-z][\w+.-]*://\S+"), "…"),
    (re.compile(r"(?<!\w)[~.]?(?:/[^\s/:,]+)+/?"), "/…"),
    (re.compile(r"\b[\w-]*(?:\.[\w-]+)*\.[A-Za-z]{2,}:\d+\b"), "…"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\[?[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){3,7}\]?"), "…"),
    (re.compile(r"\d{4,}"), "…"),
)


def anonymous(text: str) -> str:
    """The text without secrets, and without anything that could tell whose it is, as far as its looks show.

    What is quoted, numbers of four digits and more, names with an @, addresses and paths are taken out.
    """
    text = scrub(text)
    for pattern, instead in _PERSONAL:
        text = pattern.sub(instead, text)
    return text[:500]
