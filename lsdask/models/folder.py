"""A model on disk: ``model.safetensors`` and ``model.json`` in a folder. Reading never unpickles."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from lsdask import __version__
from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.models.architectures import assemble
from lsdask.models.reach import measure
from lsdask.models.segmenter import Segmenter
from lsdask.models.spec import Spec
from lsdask.models.wrapping import CUSTOM

FORMAT = 1
"""Version of the folder's format."""

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def save(
    model: Segmenter,
    folder: str | Path,
    *,
    tile: int | None = None,
    halo: int | None = None,
    threshold: float | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model and all that is needed to use it.

    Each file is written beside its place and renamed into it, and the description holds the digest of the
    weights: a folder is whole, or says that it is not.

    Parameters
    ----------
    model : Segmenter
        From ``models.build`` or ``training.fit``.
    folder : path
        Made if missing; a model already there is replaced.
    tile, halo : int, optional
        Tile and halo to predict with, pixels; the model's own if not given.
    threshold : float, optional
        Score from which a pixel is a landslide; the model's own if not given.
    record : mapping, optional
        How it was trained, as JSON.

    Returns
    -------
    Path of the folder

    Raises
    ------
    BadInput
        If an argument breaks its rule or ``model`` is no Segmenter.
    Unreadable
        If the folder cannot be written.
    """
    check_savable(model)
    given: dict[str, Any] = {"tile": tile, "halo": halo, "threshold": threshold, "record": record and dict(record)}
    spec = replace(model.spec, **{key: value for key, value in given.items() if value is not None})
    tensors = _tensors(model)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / WEIGHTS, tensors)
        _write(folder / DESCRIPTION, _describe(spec, tensors, measure(model)))
    except OSError as why:
        raise Unreadable(sentence("folder", "be writable", f"{folder}: {why}")) from why
    return folder


def check_savable(model: Any) -> None:
    """Raise BadInput unless a model can be written to a folder and built again from it."""
    if not isinstance(model, Segmenter):
        raise BadInput(sentence("model", "be made by lsdask.models.build or load", f"a {type(model).__name__}"))
    if model.spec.name == CUSTOM:
        do = "Save its state_dict with torch, and wrap the module again"
        raise BadInput(sentence("model", "be a network that lsdask can build again", "a wrapped module", do))


def load(folder: str | Path, *, digest: str | None = None) -> Segmenter:
    """Read a model from its folder, ready to predict.

    Parameters
    ----------
    folder : path
        Written by ``models.save`` or ``training.fit``.
    digest : str, optional
        The weights' (``models.digest``), if no other model will do that has been put there since.

    Returns
    -------
    Segmenter in evaluation mode, on the CPU

    Raises
    ------
    NotFound
        If the folder or one of its files is missing.
    Unreadable
        If a file is damaged.
    BadInput
        If the two files do not belong together or to this version of lsdask, or the weights are of another digest.
    """
    folder = Path(folder)
    tensors = read_weights(folder / WEIGHTS, digest)
    model = assemble(read_spec(folder))
    fill(model, tensors, folder / WEIGHTS)
    return model.eval()


def read_spec(folder: str | Path) -> Spec:
    """Read what a model is from its folder, without its weights. Raises as ``load`` does."""
    path = Path(folder) / DESCRIPTION
    return _spec(_description(path), path)


def described_digest(folder: str | Path) -> str:
    """Read the digest of a model's weights, as its folder says it is, without them. Raises as ``load`` does."""
    return str(_description(Path(folder) / DESCRIPTION)["digest"])


def reach(model: Segmenter | str | Path) -> int | None:
    """Give how many pixels away an input can change a score: the halo at which tiles are seamless.

    It is written in a model's folder when it is saved. Of a model in memory it is measured, once a process for each
    architecture.

    Parameters
    ----------
    model : Segmenter or path of a model folder

    Returns
    -------
    int, pixels, or None if a score depends on the whole input, as with global pooling

    Raises
    ------
    NotFound, Unreadable, BadInput
        If a folder cannot be read.
    """
    if isinstance(model, Segmenter):
        return measure(model)
    text = _description(Path(model) / DESCRIPTION)
    return text["reach"] if "reach" in text else measure(load(model))


def _description(path: Path) -> dict[str, Any]:
    """Read what a folder says of its model."""
    try:
        text = json.loads(_read(path))
    except ValueError as why:
        raise Unreadable(sentence(str(path), "be JSON as lsdask wrote it", str(why))) from why
    if not isinstance(text, dict) or text.get("format") != FORMAT:
        got = text.get("format", "none") if isinstance(text, dict) else "no JSON object"
        do = "Read it with the lsdask that wrote it, or train again"
        raise BadInput(sentence(str(path), f"be of format {FORMAT}", f"format {got}", do))
    missing = [key for key in (*_KEYS, "digest") if key not in text and key not in _LATER]
    if missing:
        do = "Save the model again"
        raise BadInput(sentence(str(path), f"hold the keys {', '.join(_KEYS)}", f"no {', '.join(missing)}", do))
    return text


def digest(model: Segmenter | str | Path) -> str:
    """Give the SHA-256 of a model's weights (its normalisation is among them), which identifies it in a run's plan.

    Parameters
    ----------
    model : Segmenter or path of a model folder

    Returns
    -------
    str of 64 hexadecimal digits; a model and the folder it was saved to have the same

    Raises
    ------
    NotFound, Unreadable
        If a folder's weights cannot be read.
    BadInput
        If they are others than its description says: cut, altered or exchanged.
    """
    data = _tensors(model) if isinstance(model, Segmenter) else _described_weights(Path(model))
    return hashlib.sha256(data).hexdigest()


def _described_weights(folder: Path) -> bytes:
    data = _read(folder / WEIGHTS)
    if (folder / DESCRIPTION).exists():
        _check_digest(data, folder / WEIGHTS, folder / DESCRIPTION)
    return data


def _tensors(model: Segmenter) -> bytes:
    return dump_tensors({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})


def read_weights(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; in a model folder, check that they are the described ones."""
    data = _read(path)
    if digest not in (None, hashlib.sha256(data).hexdigest()):
        do = "Put that one back, or run again: with another model, to another target"
        raise BadInput(sentence(str(path), "be of the model that the run began with", "another one's weights", do))
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as why:
        raise Unreadable(sentence(str(path), "be a whole safetensors file", str(why), "Copy it again")) from why
    described = path.with_name(DESCRIPTION)
    if path.name == WEIGHTS and described.exists():
        _check_digest(data, path, described)
    return tensors


def fill(module: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a module, every one in its place.

    Raises
    ------
    BadInput
        If a name or a shape differs; it names the first that does.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            rule = f"hold the described model's tensors, {name} of shape {wanted.get(name, 'none')}"
            raise BadInput(sentence(str(path), rule, f"shape {found.get(name, 'none')}"))
    module.load_state_dict(dict(tensors))


_KEYS = tuple(field.name for field in fields(Spec))

_LATER = {"terrain", "pixel_m"}
"""Keys that folders of the first version do not have."""


def _describe(spec: Spec, tensors: bytes, far: int | None) -> bytes:
    digest = hashlib.sha256(tensors).hexdigest()
    text = {"format": FORMAT, "lsdask": __version__, "digest": digest, "reach": far, **asdict(spec)}
    return json.dumps(_plain(text), indent=1, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Give what strict JSON can hold: numbers that are none become null, numpy's become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _spec(text: dict[str, Any], path: Path) -> Spec:
    try:
        known = {key: text[key] for key in _KEYS if key in text}
        for key in known.keys() & {"bands", "mean", "std", "terrain"}:
            known[key] = tuple(known[key])
        return Spec(**known)
    except (TypeError, ValueError) as why:
        raise BadInput(sentence(str(path), "describe a model", str(why).rstrip("."))) from why


def _check_digest(data: bytes, path: Path, described: Path) -> None:
    try:
        said = json.loads(_read(described)).get("digest")
    except (ValueError, AttributeError):
        return  # read_spec says what is wrong with it
    if said is not None and said != hashlib.sha256(data).hexdigest():
        do = "Copy both files again from one model folder"
        raise BadInput(sentence(str(path), f"be the weights that {described.name} describes", "others", do))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as why:
        do = "Pass a folder written by lsdask.models.save or lsdask.training.fit"
        raise NotFound(sentence(str(path.parent), f"be a model folder holding {path.name}", "none", do)) from why
    except OSError as why:
        raise Unreadable(sentence(str(path), "be readable", str(why))) from why


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
