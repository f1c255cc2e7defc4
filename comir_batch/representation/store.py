"""Models on disk: a folder with ``weights.safetensors`` and ``card.json`` each. Cards need no torch; see `weights`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

import comir_batch.models
from comir_batch.core.card import ModelCard
from comir_batch.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHTS, CARD = "weights.safetensors", "card.json"


@dataclass(frozen=True)
class Model:
    """A model's card and the folder that it lies in; small and picklable."""

    card: ModelCard
    folder: Path


def list_models(extra_dirs: Iterable[Path] = ()) -> tuple[ModelCard, ...]:
    """Return the cards of the shipped models and of those in other folders of models, by name.

    Raises
    ------
    ModelError
        If a card cannot be read.
    """
    return tuple(model.card for model in _models(extra_dirs))


def is_model(folder: Path) -> bool:
    """Tell whether a folder is a model's: whether a card lies in it."""
    return (folder / CARD).is_file()


def find_model(name_or_folder: str | Path, extra_dirs: Iterable[Path] = ()) -> Model:
    """Return a model by its name, or by its folder.

    Parameters
    ----------
    name_or_folder : str or Path
        A text without a separator of folders is the name of a known model if there is such a one, whatever lies in the
        current directory; ``./name`` is the folder. A Path is a folder.
    extra_dirs : iterable of Path
        Folders of models, besides the shipped ones.

    Raises
    ------
    ModelError
        If there is none; the message lists those that there are.
    """
    known = _models(extra_dirs)
    if isinstance(name_or_folder, str):
        for model in known:
            if model.card.name == name_or_folder:
                return model
    folder = Path(name_or_folder).expanduser()
    if is_model(folder):
        return Model(read_card(folder), folder.resolve())
    names = ", ".join(model.card.name for model in known) or "none"
    raise ModelError(f"there is no model {str(name_or_folder)!r}; there are: {names}; or give a folder with a {CARD}")


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model's folder.

    Raises
    ------
    ModelError
        If it is missing, or not a card of this version.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read the model card {folder / CARD}: {error.strerror}; check the folder") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{folder / CARD} is not a model card of version 1: {wrong}; train the model anew") from error


def save_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write the card of a model's folder and return it."""
    write_whole(folder / CARD, (card.model_dump_json(indent=2) + "\n").encode())
    return card


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of a model; it appears whole, by a rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def _models(extra_dirs: Iterable[Path]) -> list[Model]:
    shipped = Path(comir_batch.models.__file__).parent
    folders = [path.parent for parent in (shipped, *extra_dirs) for path in parent.glob(f"*/{CARD}")]
    return sorted((Model(read_card(folder), folder.resolve()) for folder in folders), key=lambda m: m.card.name)
