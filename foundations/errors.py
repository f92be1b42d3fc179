"""Errors that a user can cause, or that files on disk can."""


class UserError(ValueError):
    """Input that cannot be acted on.

    The message is one line that names the key, the value and what is allowed; the command line
    prints it without a traceback.
    """


class IgnoredError(UserError):
    """A setting that nothing reads in a run, though something may in another.

    `key` is its run-config key; `readers` says what would read it.
    """

    def __init__(self, message: object, key: str, readers: str) -> None:
        super().__init__(str(message))
        self.key, self.readers = key, readers


class StateError(UserError):
    """Kept state on disk cannot be read or written; it is as it was before."""


class RunFailedError(RuntimeError):
    """A run that had begun has failed; the message is one line, the reason.

    `log` is all that the run printed.
    """

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


def refuse(key: str, value: object, allowed: str) -> UserError:
    """Return a refusal for the caller to raise.

    `key` is spelled as by the user: a run-config key, an option, a file.
    """
    return UserError(f"{key}={value!r} is not possible; allowed: {allowed}")
