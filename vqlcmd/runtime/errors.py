"""What the user gave wrong: shown as one line, exit status 1, no traceback."""


class UserError(Exception):
    """An error the user can mend. The message names the thing, the rule and the remedy in one line."""


class ConfigError(UserError):
    """A parameter is unknown, missing, mistyped, out of range, or impossible beside another one."""


class DataError(UserError):
    """A file or folder is missing, damaged, or not what its manifest or header says."""


class Interrupted(Exception):  # noqa: N818  (no error)
    """The run was asked to stop; its state is saved."""


class Diverged(Exception):  # noqa: N818
    """What the numbers did: a loss term stopped being one."""
