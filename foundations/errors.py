"""The one error that a user's input can cause."""


class UserError(ValueError):
    """Input that cannot be acted on.

    The message is one line that names the key, the value and what is allowed; the command line
    prints it as it is, without a traceback.
    """


class StateError(UserError):
    """What was kept on disk cannot be read, or cannot be written; it is as it was before."""


def refuse(key: str, value: object, allowed: str) -> UserError:
    """Word a refusal.

    Parameters
    ----------
    key : str
        What the user set, as the user spells it: a run-config key, an option, a file.
    value : object
        What it was set to.
    allowed : str
        What it could have been.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    return UserError(f"{key}={value!r} is not possible; allowed: {allowed}")
