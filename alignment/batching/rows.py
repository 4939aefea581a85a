"""How many rows groups take, counted as they come: lengths only, no tokens and no tensors."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.batching.groups import Group


class FirstFit:
    """First fit by falling length into rows as long as the longest: attention stays as short as it can be.

    Lengths may come in any order: what is shorter than a new one is taken out and placed again behind it.
    """

    def __init__(self) -> None:
        self.capacity = 0  # length of a row
        self.room: list[int] = []  # what is left in each row
        self.placed: list[tuple[int, int]] = []  # (length, row) of all, lengths falling

    def add(self, length: int) -> None:
        shorter = []
        while self.placed and self.placed[-1][0] < length:
            last, row = self.placed.pop()
            shorter.append(last)
            self.room[row] += last
            if self.room[row] == self.capacity:  # the row that was opened last
                self.room.pop()
        for each in (length, *reversed(shorter)):
            self._place(each)

    def _place(self, length: int) -> None:
        if not self.room:
            self.capacity = length
        row = next((row for row, room in enumerate(self.room) if room >= length), len(self.room))
        if row == len(self.room):
            self.room.append(self.capacity)
        self.room[row] -= length
        self.placed.append((length, row))


class Tally:
    """What `pack` would make the model compute for groups that come one after the other."""

    def __init__(self, layout: str) -> None:
        self.shared = layout == "shared"
        self.real = 0  # tokens without padding
        self._fit = FirstFit()
        self._rows, self._width = 0, 0  # of the padded layout

    @property
    def encoded(self) -> int:
        """Rows times row length, padding included."""
        return len(self._fit.room) * self._fit.capacity if self.shared else self._rows * self._width

    def add(self, groups: Sequence[Group]) -> None:
        for group in groups:
            if self.shared:
                self._fit.add(group.shared_length)
                self.real += group.shared_length
            else:
                lengths = group.padded_lengths
                self._rows, self._width = self._rows + len(lengths), max(self._width, *lengths)
                self.real += sum(lengths)
