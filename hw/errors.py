"""The one exception type that users are meant to see."""


class PhonolithError(Exception):
    """A problem the user can act on.

    Parameters
    ----------
    kind : str
        Stable machine-readable name, such as ``"unsupported-operator"``.
    message : str
        What is wrong, with the offending value.
    remedy : str
        What to do about it.
    """

    def __init__(self, kind: str, message: str, remedy: str):
        super().__init__(f"{message} {remedy}".strip())
        self.kind = kind
        self.message = message
        self.remedy = remedy

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form printed by the commands under ``"error"``."""
        return {"kind": self.kind, "message": self.message, "remedy": self.remedy}
