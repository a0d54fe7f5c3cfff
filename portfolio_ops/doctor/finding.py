"""What looking found."""

from dataclasses import dataclass
from enum import Enum, unique


@unique
class Level(Enum):
    """How much it matters: `advice` is for a person to weigh, and no fault."""

    OK = "ok"
    ADVICE = "advice"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One precondition.

    Attributes:
        subject: What was looked at, in a word or two.
        text: What was found.
        cure: What to do; empty if nothing is to be done.
    """

    subject: str
    level: Level
    text: str
    cure: str = ""


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(subject, Level.OK, text)


def advice(subject: str, text: str, cure: str) -> Finding:
    """It works, and could be better."""
    return Finding(subject, Level.ADVICE, text, cure)


def fault(subject: str, text: str, cure: str) -> Finding:
    """It does not hold."""
    return Finding(subject, Level.FAULT, text, cure)
