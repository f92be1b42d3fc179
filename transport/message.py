"""Messages between a strategy and a client, inside Flower's messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Scalar = bool | bytes | float | int | str
Array = NDArray[np.generic]

_ACTION = "action"
_TENSORS = "tensors"


@dataclass
class Message:
    """An instruction or its answer: an action, a few scalars, and named tensors.

    The client is asked to do the action or, in an answer, did it. Fields are settings of the action
    and, in an answer, measurements; tensors are smashed data, labels, predictions, weights.

    Notes
    -----
    Fields of every protocol: ``client`` (the addressed client), ``phase`` (setup, learn, unlearn or
    evaluate), ``seconds`` (of the client's computing), ``digest`` (of its segment after the
    action), ``chunk`` and ``chunks`` (number of this part of an upload, and number of parts).
    """

    action: str
    fields: dict[str, Scalar] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)

    def pack(self) -> tuple[list[Array], dict[str, Scalar]]:
        """Return the message in a NumPyClient's form: arrays without names, and scalars.

        Raises
        ------
        ValueError
            If a name would be lost on the way.
        """
        if any("," in name for name in self.tensors) or {_ACTION, _TENSORS} & self.fields.keys():
            raise ValueError(
                f"a message has no tensor with a comma in its name and no field {_ACTION!r} or "
                f"{_TENSORS!r}; it has {[*self.tensors, *self.fields]}"
            )
        names = ",".join(self.tensors)
        return list(self.tensors.values()), {**self.fields, _ACTION: self.action, _TENSORS: names}

    @classmethod
    def unpack(cls, arrays: list[Array], scalars: Mapping[str, Scalar]) -> Message:
        """Read the result of `pack`.

        Raises
        ------
        ValueError
            If the names and the arrays do not match.
        """
        fields = dict(scalars)
        action, names = str(fields.pop(_ACTION)), str(fields.pop(_TENSORS))
        listed = names.split(",") if names else []
        return cls(action, fields, dict(zip(listed, arrays, strict=True)))

    def integer(self, name: str) -> int:
        """Return an integer field.

        Raises
        ------
        KeyError
            If there is no such field.
        TypeError
            If it is not an integer.
        """
        value = self.fields[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"field {name!r} of {self.action!r} is {value!r}, not an integer")
        return value
