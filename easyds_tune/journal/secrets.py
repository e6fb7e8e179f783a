"""What people and libraries say may hold a key: the words of an event are kept without it."""

from __future__ import annotations

from dataclasses import replace

from easyds_tune.journal.events import (
    Event,
    FinishEvent,
    LostEvent,
    NoteEvent,
    ResumeEvent,
    StopEvent,
    TrialError,
)
from easyds_tune.redact import redact


def without_secrets(event: Event) -> Event:
    """The event with its words redacted. What a spec gives has been searched for keys before."""
    match event:
        case NoteEvent(text=text):
            return NoteEvent(redact(text))
        case StopEvent(reason=reason):
            return StopEvent(redact(reason))
        case LostEvent(problem=problem):
            return replace(event, problem=redact(problem))
        case ResumeEvent(changes=changes):
            return replace(event, changes=[redact(change) for change in changes])
        case FinishEvent(error=TrialError() as error):
            return replace(event, error=TrialError(error.type, redact(error.message)))
        case _:
            return event
