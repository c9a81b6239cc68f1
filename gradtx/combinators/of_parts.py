"""What composites of several transformations share: their parts' hyperparameters are read and
replaced as their own, where only one part has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gradtx.core.transformation import GradientTransformation


class OfParts(GradientTransformation):
    """A composite of parts that have keys."""

    # The word for a part in errors.
    _word: ClassVar[str] = "part"

    @property
    def _by_key(self) -> Mapping[Any, GradientTransformation]:
        """The parts by their keys, in order."""
        return dict(enumerate(self.parts))

    def _path(self, key: Any) -> str:
        """The expression that reads a part, after `tx.`."""
        return f"parts[{list(self._by_key).index(key)}]"

    def _owners(self, name: str) -> list[Any]:
        """The keys of the parts that have this hyperparameter."""
        return [key for key, part in self._by_key.items() if part._has(name)]

    def _has(self, name: str) -> bool:
        return bool(self._owners(name))

    def _named(self) -> dict[str, Any]:
        of_parts = {
            name: x
            for part in self.parts
            for name, x in part._named().items()
            if len(self._owners(name)) == 1
        }
        return of_parts | super()._named()

    def _no_attribute(self, name: str) -> AttributeError:
        owners, who = self._owners(name), self.definition.name
        if len(owners) == 1:  # a composite itself, several of whose parts have it
            return self._by_key[owners[0]]._no_attribute(name)
        if owners:
            ways = " or ".join(f"tx.{self._path(key)}.{name}" for key in owners)
            return AttributeError(f"{who}: {len(owners)} {self._word}s have {name!r}: read {ways}")
        parts = ", ".join(part.definition.name for part in self.parts)
        return AttributeError(
            f"{who} has no attribute {name!r}, nor has a {self._word} of it ({parts})"
            + self._where_to_read(name)
        )

    def _parts_with(
        self, changes: Mapping[str, Any], parts: Mapping[Any, GradientTransformation], hint: str
    ) -> dict[Any, GradientTransformation]:
        """The parts by key with some hyperparameters changed, each in the one part that has it.

        hint: how errors end.

        Raises: TypeError if no part, or more than one, has the hyperparameter.
        """
        changed = dict(parts)
        for name, value in changes.items():
            owners = [key for key, part in changed.items() if part._has(name)]
            if len(owners) != 1:
                which = f"{len(owners)} {self._word}s have" if owners else f"no {self._word} has"
                way = self._where_to_replace(name) or f"; replace it in the {self._word} itself"
                raise TypeError(f"{self.definition.name}: {which} an argument {name!r}{way}{hint}")
            changed[owners[0]] = changed[owners[0]].replace(**{name: value})
        return changed
