"""The shapes of the answers."""

from typing import Generic, TypeVar

from msgspec import Struct

_Data = TypeVar("_Data")


class Success(Struct, Generic[_Data]):
    """The documented envelope."""

    data: _Data
    success: bool = True


class Done(Struct, kw_only=True):
    """Nothing but that it is done. In the order of the guide."""

    success: bool = True
    message: str
