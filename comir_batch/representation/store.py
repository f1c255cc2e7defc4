"""Models on disk: a folder with ``weights.safetensors`` and ``card.json`` each. Cards need no torch; see `weights`.

Known by name are the shipped models and those that a user has added to a folder of his own.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import comir_batch.models
from comir_batch.core.card import ModelCard
from comir_batch.core.errors import ModelError, wrong_fields

WEIGHTS, CARD = "weights.safetensors", "card.json"
OWN_MODELS = "COMIR_BATCH_MODELS"
"""The environment variable that names the folder of the user's own models."""
_SHIPPED = Path(comir_batch.models.__file__).parent.resolve()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NOT_OF_NAMES = re.compile(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Model:
    """A model's card and the folder that it lies in; small and picklable."""

    card: ModelCard
    folder: Path

    @property
    def shipped(self) -> bool:
        """Whether it came with comir-batch."""
        return self.folder.parent == _SHIPPED

    @property
    def reference(self) -> str:
        """By which `find_model` finds it where tasks run: a shipped one's name, which any installation has."""
        return self.card.name if self.shipped else str(self.folder)


def own_models() -> Path:
    """Return the folder of the user's own models: ``$COMIR_BATCH_MODELS``, else one in the user's data folder."""
    if given := os.environ.get(OWN_MODELS):
        return Path(given).expanduser().absolute()
    data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    return data / "comir-batch" / "models"


def known_models() -> tuple[Model, ...]:
    """Return the shipped models and the user's own, by name; of two with one name the shipped one.

    Those of the user's own whose card cannot be read are left out, see `unreadable_models`.

    Raises
    ------
    ModelError
        If the card of a shipped model cannot be read.
    """
    found = {model.card.name: model for model in map(_model, _folders(_SHIPPED))}
    for folder in _folders(own_models()):
        try:
            model = _model(folder)
        except ModelError:
            continue
        found.setdefault(model.card.name, model)
    return tuple(found[name] for name in sorted(found))


def unreadable_models() -> dict[str, str]:
    """Return why the cards of some of the user's own models cannot be read, by the names of their folders."""
    found = {}
    for folder in _folders(own_models()):
        try:
            read_card(folder)
        except ModelError as error:
            found[folder.name] = str(error)
    return found


def _folders(parent: Path) -> list[Path]:
    return sorted(path.parent for path in parent.glob(f"[!.]*/{CARD}"))


def _model(folder: Path) -> Model:
    return Model(read_card(folder), folder.resolve())


def list_models() -> tuple[ModelCard, ...]:
    """Return the cards of `known_models`."""
    return tuple(model.card for model in known_models())


def is_model(folder: Path) -> bool:
    """Tell whether a folder is a model's: whether a card lies in it."""
    return (folder / CARD).is_file()


def settled(name_or_folder: str, base: Path) -> str:
    """Return a model's name as it is, and its folder, which is relative to another one, as an absolute path.

    What is neither stays as it is, for `find_model` to refuse.
    """
    if not name_or_folder or name_or_folder in {card.name for card in list_models()}:
        return name_or_folder
    folder = base / Path(name_or_folder).expanduser()
    return str(folder.resolve()) if is_model(folder) else name_or_folder


def find_model(name_or_folder: str | Path) -> Model:
    """Return a model by its name, or by its folder.

    Parameters
    ----------
    name_or_folder : str or Path
        A text without a separator of folders is the name of a known model if there is such a one, whatever lies in the
        current directory; ``./name`` is the folder. A Path is a folder.

    Raises
    ------
    ModelError
        If there is none, or its card cannot be read; the message lists those that there are.
    """
    folder = Path(name_or_folder).expanduser()
    if not (isinstance(name_or_folder, Path) or folder.is_absolute()):
        for model in known_models():
            if model.card.name == name_or_folder:
                return model
        if wrong := unreadable_models().get(name_or_folder):
            raise ModelError(f"{wrong}, or delete it with: comir-batch models remove {name_or_folder}")
    if is_model(folder):
        return _model(folder)
    names = ", ".join(card.name for card in list_models()) or "none"
    raise ModelError(f"there is no model {str(name_or_folder)!r}; there are: {names}; or give a folder with a {CARD}")


def add_model(model: Model, *, replace: bool = False) -> Path:
    """Copy a model into the folder of the user's own, where it is found by its name; it appears there whole.

    Parameters
    ----------
    model : Model
        What to copy: its card and weights, nothing else of its folder.
    replace : bool
        Whether it may take the place of one of the user's own.

    Returns
    -------
    Path
        Its new folder.

    Raises
    ------
    ModelError
        If the name is taken, or cannot be that of a folder.
    """
    name = model.card.name
    require_name(name)
    folder = own_models() / name
    if is_model(_SHIPPED / name):
        raise ModelError(f"a shipped model has the name {name!r}; change the name in {model.folder / CARD}")
    if folder.exists() and not replace:
        raise ModelError(f"you have a model {name!r} in {folder}; add --replace to put this one in its place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=folder.parent) as aside:
        new, old = Path(aside) / "new", Path(aside) / "old"
        new.mkdir()
        for file in (WEIGHTS, CARD):
            shutil.copyfile(model.folder / file, new / file)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    return folder


def require_name(name: str) -> None:
    """Refuse a model's name that cannot be that of a folder.

    Raises
    ------
    ModelError
        If it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"the name {name!r} cannot be that of a folder; use letters, digits, '-', '_', '+' and '.'")


def as_name(words: str) -> str:
    """Return a name of a model made of words: what no folder may have becomes a dash."""
    return _NOT_OF_NAMES.sub("-", words).lstrip("-") or "model"


def remove_model(name: str) -> Path:
    """Delete one of the user's own models and return the folder that it lay in.

    Raises
    ------
    ModelError
        If the user has none of that name.
    """
    folder = own_models() / name
    if not (_NAME.fullmatch(name) and is_model(folder)):
        raise ModelError(f"you have added no model {name!r} to {own_models()}; `models list` shows those that you have")
    shutil.rmtree(folder)
    return folder


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model's folder.

    Raises
    ------
    ModelError
        If it is missing, or not a card of this version.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read the model card {folder / CARD}: {error.strerror}; check the folder") from error
    except ValidationError as error:
        wrong = wrong_fields(error)
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
