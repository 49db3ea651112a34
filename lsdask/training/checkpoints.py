"""The last state of a run on disk, from which it goes on. Reading never unpickles code."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from lsdask.errors import OtherPlan, Unreadable, sentence

LAST = "last.ckpt"
"""In the model folder: weights, optimiser, learning rates, random states, streams, sums and history of a run."""


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write a state of plain values and tensors; the one before stays until this one is whole."""
    held = io.BytesIO()
    torch.save(state, held)
    replace(folder / LAST, held.getbuffer())


def read(folder: Path) -> dict[str, Any] | None:
    """Read the last state, or None if there is none.

    Raises
    ------
    Unreadable
        If it is damaged, or holds anything but plain values and tensors.
    """
    path = folder / LAST
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as why:
        told = (str(why) or type(why).__name__).splitlines()[0].rstrip(".")
        raise Unreadable(sentence(str(path), "be a checkpoint as lsdask wrote it", told, "Remove it")) from why


def check(folder: Path, held: dict[str, Any], plan: dict[str, Any]) -> None:
    """Raise OtherPlan, naming what differs, unless a state is of the run with this plan."""
    keys = [key for key in sorted({*plan, *held}) if plan.get(key) != held.get(key)]
    if keys:
        differs = ", ".join(f"{key}: {_short(held.get(key))} -> {_short(plan.get(key))}" for key in keys)
        do = "Pass the same arguments to go on, or resume=False to start again."
        raise OtherPlan(f"{folder / LAST} holds another run ({differs}). {do}")


def replace(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole: beside its place, then into it.

    Raises
    ------
    Unreadable
        If it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.fresh")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as why:
        raise Unreadable(sentence("folder", "be writable", f"{path.parent}: {why}")) from why


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
