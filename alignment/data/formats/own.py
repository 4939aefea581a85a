"""A format of a user's own: a Python file outside this package that defines what every file of this folder defines."""

from __future__ import annotations

from alignment.data.example import Example
from alignment.data.formats import example_record
from alignment.data.formats.common import Row, RowError
from alignment.errors import UserError
from alignment.imports import import_named


class OwnFormat:
    """The format in `path/to/file.py` or `package.module`.

    A row that it refuses with RowError is a bad row, as for any format, and so is a row whose Example the toolkit's own
    record does not allow: one with an empty answer, say.

    Raises:
        UserError: it cannot be imported, or lacks NAME, DESCRIPTION or parse; from `parse`: it raises something else
            than RowError, or gives something else than examples or None.
    """

    def __init__(self, place: str) -> None:
        self._what = f"data format {place}"
        file, _, function = place.rpartition(":")
        if file.endswith(".py"):  # as for a loss
            raise UserError(f"{self._what}: a format is a whole file, not one function: leave out :{function}")
        module = import_named(place, self._what)
        for attribute in ("NAME", "DESCRIPTION"):
            if not isinstance(getattr(module, attribute, None), str):
                raise UserError(f'{self._what}: {attribute} is missing: a text is needed, such as {attribute} = "…"')
        if not callable(getattr(module, "parse", None)):
            raise UserError(f"{self._what}: parse is missing: a function from a row to an Example or None is needed")
        self.NAME: str = module.NAME
        self.DESCRIPTION: str = module.DESCRIPTION
        self._parse = module.parse

    def parse(self, row: Row) -> list[Example] | None:
        try:
            found = self._parse(row)
        except RowError:
            raise
        except Exception as error:  # a mistake in the file, which is not to pass for a bad row
            raise UserError(f"{self._what}: parse raises {type(error).__name__}: {error}") from error
        if found is None:
            return None
        return [self._checked(example) for example in (found if isinstance(found, list) else [found])]

    def _checked(self, example: object) -> Example:
        if not isinstance(example, Example):
            raise UserError(
                f"{self._what}: parse gives {type(example).__name__}, not an Example, a list of them, or None"
            )
        try:
            record = example.to_dict()
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{self._what}: parse gives an Example with a field of another type: {error}") from error
        checked = example_record.parse(record)
        assert checked is not None  # it has the fields of a record
        return checked
