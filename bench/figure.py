"""A figure that was measured, beside its bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure beside its bound (0: none); `most` says on which side of it a good figure lies."""

    name: str
    value: float
    bound: float
    unit: str
    note: str = ""
    most: bool = True

    @property
    def good(self) -> bool:
        """Whether the bound is kept."""
        return not self.bound or (self.value <= self.bound if self.most else self.value >= self.bound)

    def line(self) -> str:
        """For the terminal."""
        wanted = f"{'<=' if self.most else '>='} {self.bound:g}" if self.bound else "beside"
        word = "ok  " if self.good else "MISS"
        return f"{word} {self.name}: {self.value:.3g} {self.unit} ({wanted}) {self.note}"
