"""The errors lsdask raises, each a subclass of the built-in a user would catch, and the one sentence form."""


class LsdaskError(Exception):
    """Base of every error that lsdask raises on purpose."""


class BadInput(LsdaskError, ValueError):
    """An argument, file or array breaks a stated rule."""


class NotFound(LsdaskError, FileNotFoundError):
    """A path or pattern names nothing."""


class Unreadable(LsdaskError, OSError):
    """A file or chunk exists but cannot be read."""


class OtherPlan(LsdaskError, RuntimeError):
    """A target already holds another run."""


class Unfinished(LsdaskError, RuntimeError):
    """A run ended with tiles not done."""


def sentence(name: str, rule: str, got: object, do: str = "") -> str:
    """Say what is wrong with a parameter in lsdask's one form.

    Parameters
    ----------
    name : str
        The parameter as its user wrote it.
    rule : str
        What it must be, completing "<name> must ...".
    got : object
        What it was.
    do : str
        What to do about it: a sentence without its full stop.

    Returns
    -------
    str
        ``<name> must <rule>. Got <got>. <do>.``

    Examples
    --------
    >>> sentence("tile", "be positive", "tile=0", "Pass tile=2048")
    'tile must be positive. Got tile=0. Pass tile=2048.'
    """
    text = f"{name} must {rule}. Got {got}."
    return f"{text} {do}." if do else text
