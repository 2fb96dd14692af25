"""Every error the toolkit raises on purpose.

`TicketguardError` means bad data or a bad world: a file, an endpoint, a credential. `ConfigurationError`
means that what was asked for cannot be done: an unknown name, a density out of range. A plain `ValueError`
is the calling code's bug. Errors carry their facts as fields and build their own message from them.
"""

from __future__ import annotations

import reprlib

# Characters of what a file names that are repeated in a message.
LONGEST_NAME = 200


def shortened(value: object, *, longest: int = 120) -> str:
    """Return the repr of what a file holds, for messages that name it; a long one loses its middle."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = shown.maxlong = longest
    return shown.repr(value)


class TicketguardWarning(UserWarning):
    """Something was done as asked, but is worth less than the user may think."""


class TicketguardError(Exception):
    """Base of all errors raised on purpose; its text says what is wrong and what to do next."""


class ConfigurationError(TicketguardError):
    """What was asked for cannot be done as asked (the command line exits with 2)."""


class UntrustedNameError(ConfigurationError):
    """A file names code to run, or a place to read, and the user has not allowed it.

    Attributes:
        names: What the file names, such as "model 'package.module:factory'".
        deed: What would be done with it.
        repeat: How to allow this alone, on the command line and in a call.
    """

    def __init__(self, *, names: str, deed: str, repeat: str) -> None:
        self.names = names
        self.deed = deed
        self.repeat = repeat
        super().__init__(
            f"the ticket's file names {names}, which would be {deed}: if that is what you want, {repeat}, or trust "
            f"everything the file names with --trust-ticket-code (Ticket.load(..., trust_code=True))"
        )


class FileError(TicketguardError):
    """A file cannot be used.

    Attributes:
        path: The file, as it was given.
        reason: What is wrong with it.
        hint: What to do next.
    """

    def __init__(self, *, path: object, reason: str, hint: str) -> None:
        self.path = path
        self.reason = reason
        self.hint = hint
        super().__init__(f"'{path}': {reason}: {hint}")


class OutputExistsError(FileError, ConfigurationError):
    """A file that was to be written is there already and is not replaced."""


class UnknownVersionError(TicketguardError):
    """A format carries a version marker that this release does not know.

    Attributes:
        what: The thing that was read.
        found: Its version marker.
        known: The markers this release reads.
    """

    def __init__(self, *, what: str, found: object, known: tuple[str, ...]) -> None:
        self.what = what
        self.found = found
        self.known = known
        super().__init__(
            f"{what} has version {shortened(found)}, expected {' or '.join(known)}: "
            "it is not a ticketguard file, is damaged, or was written by a newer ticketguard"
        )


class TensorError(TicketguardError):
    """A tensor's values, shape or type make it unusable.

    Attributes:
        name: The tensor's state-dict name.
        reason: What is wrong with it.
        hint: What to do next.
    """

    def __init__(self, *, name: str, reason: str, hint: str) -> None:
        self.name = name
        self.reason = reason
        self.hint = hint
        shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
        super().__init__(f"tensor '{shown}' {reason}: {hint}")


MORE_EDGES = "raise the density or the share of edges to move ('ticketguard plan' says which share would do)"


class CapacityError(ConfigurationError):
    """A layer, or the whole ticket, has too little room for the mark.

    Attributes:
        layer: The layer that is too small, or "the whole ticket".
        needed_edges: Edges the mark needs.
        free_edges: Edges there is room for.
    """

    def __init__(self, *, layer: str, needed_edges: int, free_edges: int, advice: str = MORE_EDGES) -> None:
        self.layer = layer
        self.needed_edges = needed_edges
        self.free_edges = free_edges
        super().__init__(f"{layer} has room for {free_edges} edges of the mark, which needs {needed_edges}: {advice}")


class CredentialError(TicketguardError):
    """A key, claim or vault is damaged, forged, or does not belong to the others."""


class WrongPassphraseError(CredentialError):
    """The passphrase does not open the file.

    Attributes:
        path: The file, as it was given.
    """

    def __init__(self, *, path: object) -> None:
        self.path = path
        super().__init__(f"the passphrase does not open '{path}': check it and the file's name")


class PredictorError(TicketguardError):
    """A black-box suspect cannot be asked, or did not answer as a classifier does.

    Attributes:
        target: The endpoint, file or callable.
        reason: What went wrong.
        hint: What to do next.
    """

    def __init__(self, *, target: str, reason: str, hint: str) -> None:
        self.target = target
        self.reason = reason
        self.hint = hint
        super().__init__(f"predictor '{target}' {reason}: {hint}")


class NoAnswerError(PredictorError):
    """A black-box suspect gave no answer this time; asked again, it may.

    Attributes:
        retry_after_s: Seconds that it asks us to wait; 0 if it does not say.
    """

    def __init__(self, *, target: str, reason: str, hint: str, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(target=target, reason=reason, hint=hint)


class UnusableAnswerError(PredictorError):
    """A black-box suspect answered an input with something that is not a prediction."""


class UnverifiableError(TicketguardError):
    """The suspect and the credential have nothing that can be compared."""


class MissingExtraError(TicketguardError):
    """An optional dependency is not installed.

    Attributes:
        package: The package that is missing.
        extra: The extra of this distribution that installs it.
    """

    def __init__(self, *, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"the package '{package}' is not installed: pip install 'ticketguard[{extra}]'")
