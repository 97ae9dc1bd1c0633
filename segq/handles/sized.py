"""What follows from `qsize`, for every kind of handle."""

from __future__ import annotations


class Sized:
    """`len` is `qsize`; a handle is true whether or not something is in it."""

    def qsize(self) -> int:
        """How many items there are."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True

    def empty(self) -> bool:
        """Whether `qsize` is 0 just now: whoever gets would have to wait."""
        return self.qsize() == 0
