"""A model as a function of numpy blocks, which is all that prediction knows of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import isnan
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsdask.errors import BadInput, sentence
from lsdask.models.architectures import assemble
from lsdask.models.compiling import compiled, objection, warn
from lsdask.models.folder import described_digest, load, read_spec
from lsdask.models.folding import fold
from lsdask.models.precision import Check, Precision, candidates, check_precision, compare, reduce
from lsdask.models.segmenter import Segmenter
from lsdask.models.spec import Spec
from lsdask.schema import floats_block
from lsdask.tiling import grid

CHECKED = 512
"""Side of the window on which precisions are compared, pixels."""


class Runner:
    """Blocks as stored in, probabilities out. Made by ``models.runner``.

    Threads may share it: one forward pass runs at a time. Pickled, it carries the folder's path and the digest of
    its weights, or the model, and the precision once that is settled, so that every worker computes the same.

    Attributes
    ----------
    spec : Spec
        What the model is.
    stride : int
        What the sides of its input must be divisible by, pixels; other blocks are padded.
    precision : str
        ``"auto"`` until settled.
    compiled : bool or None
        Whether it runs compiled; None until settled.
    refused : str
        Why it does not, though that was asked for.
    digest : str or None
        Of a folder's weights, when this was made: others are refused.
    checks : list of Check
        What the comparison of precisions found, if one was made.
    """

    def __init__(
        self, source: Segmenter | str | Path, nodata: float | None, device: str, precision: str, compile: bool
    ) -> None:
        self.source = source if isinstance(source, Segmenter) else Path(source)
        self.nodata = None if nodata is None or isnan(nodata) else nodata
        self.device = device
        self.precision = precision
        self.compiled = None if compile else False
        self.refused = ""
        self.checks: list[Check] = []
        self.spec: Spec = source.spec if isinstance(source, Segmenter) else read_spec(source)
        self.digest = None if isinstance(source, Segmenter) else described_digest(source)
        self.stride = source.stride if isinstance(source, Segmenter) else _stride(self.spec)
        self._start()

    def _start(self) -> None:
        self._lock = Lock()
        self._ready: dict[str, nn.Module] = {}
        self._fast: dict[str, Callable[[Tensor], Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_ready", "_fast")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        """Score blocks.

        Parameters
        ----------
        blocks : (n, band, y, x) array
            As stored, any dtype and size.

        Returns
        -------
        (n, class, y, x) float32 array
            Probabilities, of void pixels too: which pixels those are is the caller's to say.

        Raises
        ------
        BadInput
            If the band count is not the model's, or a value makes scores that are not finite.
        MemoryError
            If so many blocks do not fit into the device's memory.
        """
        self._check(blocks)
        with self._lock, torch.inference_mode(), _memory_told():
            image = self._put(blocks)
            precision = self._settle(image)
            scores = self._scores(image, precision)
            if precision != "float32" and not torch.isfinite(scores).all():
                scores = self._scores(image, "float32")
        if not torch.isfinite(scores).all():
            do = "Declare its nodata value, or mask what is not a measurement"
            raise BadInput(sentence("image", "hold finite values that the model can take", "scores of NaN", do))
        return scores.cpu().numpy()

    def settle(self, blocks: np.ndarray) -> Precision:
        """Choose the precision by these blocks, if it is still "auto", and give it; and whether to run compiled.

        Who shares a runner among workers settles it first, so that all compute alike.

        Parameters
        ----------
        blocks : (n, band, y, x) array
            As stored, with data in them; of blocks without any, float32 is given and nothing settled.

        Returns
        -------
        str
        """
        self._check(blocks)
        with self._lock, torch.inference_mode(), _memory_told():
            return self._settle(self._put(blocks))

    def refuse(self, why: str) -> None:
        """Run as it is and not compiled, and warn that it does."""
        self.compiled, self.refused = False, why
        self._fast.clear()
        warn(why)

    def _check(self, blocks: np.ndarray) -> None:
        if blocks.ndim != 4 or blocks.shape[1] != len(self.spec.bands):
            rule = f"be an (n, band, y, x) array with the model's {len(self.spec.bands)} bands, {self.spec.bands}"
            raise BadInput(sentence("blocks", rule, f"shape {blocks.shape}"))

    def _settle(self, image: Tensor) -> Precision:
        if self.precision == "auto":
            window = _best_window(image)
            if window is None:
                return "float32"
            self.precision = self._choose(window)
        if self.compiled is None:
            self._try_compiled(image, self.precision)  # type: ignore[arg-type]  # no longer "auto"
        return self.precision  # type: ignore[return-value]

    def _choose(self, window: Tensor) -> Precision:
        for precision in candidates(window.device):
            self.checks.append(compare(lambda each: self._scores(window, each), precision))
            if self.checks[-1].passed:
                return precision
        return "float32"

    def _try_compiled(self, image: Tensor, precision: Precision) -> None:
        """Run compiled from now on, if these blocks get the same scores; else warn."""
        plain = self._scores(image, precision)
        self.compiled = True
        why = objection(plain, lambda: self._scores(image, precision), precision)
        if why:
            self.refuse(why)

    def _put(self, blocks: np.ndarray) -> Tensor:
        """Bring blocks to the device as float32, channels last, with NaN where void."""
        device = torch.device(self.device)
        if device.type != "cuda" or (blocks.dtype.kind in "iu" and blocks.dtype.itemsize > 2):
            image = torch.from_numpy(floats_block(blocks, self.nodata))
            return image.to(device, memory_format=torch.channels_last)
        # Narrow integers cross to the device as they are, from page-locked memory, and are widened there.
        staged = torch.empty(blocks.shape, dtype=_torch_dtype(blocks.dtype), pin_memory=True)
        np.copyto(staged.numpy(), blocks)
        image = staged.to(device, non_blocking=True).float().contiguous(memory_format=torch.channels_last)
        if self.nodata is not None:
            image[image == float(np.float32(self.nodata))] = float("nan")
        return image

    def _scores(self, image: Tensor, precision: Precision) -> Tensor:
        reduced = precision != "float32"
        dtype = getattr(torch, precision) if reduced else None
        model = self._compiled(image.device, precision) if self.compiled else self._model(image.device, precision)
        with torch.autocast(image.device.type, dtype=dtype, enabled=reduced):
            logits = model(image)
        return torch.sigmoid(logits) if self.spec.classes == 1 else torch.softmax(logits, dim=1)

    def _model(self, device: torch.device, precision: Precision) -> nn.Module:
        """Give the model, ready to run in a precision; made on first use, once a process."""
        if precision not in self._ready:
            exact = precision == "float32"
            made = self._prepare(device) if exact else reduce(self._model(device, "float32"), precision)
            self._ready[precision] = made
        return self._ready[precision]

    def _compiled(self, device: torch.device, precision: Precision) -> Callable[[Tensor], Tensor]:
        if precision not in self._fast:
            self._fast[precision] = compiled(self._model(device, precision), device)
        return self._fast[precision]

    def _prepare(self, device: torch.device) -> nn.Module:
        model = deepcopy(self.source) if isinstance(self.source, Segmenter) else load(self.source, digest=self.digest)
        model.eval().requires_grad_(False).cpu()
        side = max(64, 2 * model.stride)
        probe = model.mean + model.std * torch.linspace(-2, 2, side).expand(1, 1, side, side)
        return fold(model, probe).to(memory_format=torch.channels_last).to(device)


def runner(
    model: Segmenter | str | Path,
    *,
    nodata: float | None,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
) -> Runner:
    """Make a function of blocks as stored that gives probabilities.

    Parameters
    ----------
    model : Segmenter or path of a model folder
        A folder is read on first use, once in each process the runner is sent to.
    nodata : float, int or None
        The value of the blocks that stands for no data; NaN always does.
    device : str
        ``"auto"`` (a GPU if there is one), or as torch writes it: ``"cpu"``, ``"cuda:1"``.
    precision : str
        ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: a reduced one that the hardware computes,
        if on the first block with data its scores agree with float32's (``models.precision``).
    compile : bool
        Run through ``torch.compile`` (on a GPU with CUDA graphs), which takes a minute or so for each shape of blocks
        and, on a CPU, needs a C++ compiler. If it fails on the first block with data, or changes its scores, the
        network runs as it is, and a warning says why.

    Returns
    -------
    Runner
        ``runner(blocks)``: (n, band, y, x) as stored -> (n, class, y, x) float32.

    Raises
    ------
    BadInput
        If the device or precision is unknown.
    NotFound, Unreadable
        If the folder's description cannot be read.
    """
    check_precision(precision)
    if not isinstance(model, Segmenter | str | Path):
        rule = "be a model folder, or made by lsdask.models.build or load"
        raise BadInput(sentence("model", rule, f"a {type(model).__name__}"))
    return Runner(model, nodata, find_device(device), precision, compile)


def find_device(device: str) -> str:
    """Give the name of a device that is here, the GPU for "auto" if there is one.

    Raises
    ------
    BadInput
        If it is not here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as why:
        told = str(why).splitlines()[0].rstrip(".")
        rule = "be a device of this machine"
        raise BadInput(sentence("device", rule, f"device={device!r}: {told}", "Pass 'auto' or 'cpu'")) from why
    return device


def _stride(spec: Spec) -> int:
    """Give a network's stride without making its weights."""
    with torch.device("meta"):
        return assemble(spec).stride


@contextmanager
def _memory_told() -> Iterator[None]:
    """Raise what torch says where memory is full, on a GPU or a CPU, as MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise MemoryError(str(error)) from error


def _best_window(image: Tensor) -> Tensor | None:
    """Give the part of the blocks with the most data, to compare precisions on; None if there is no data."""
    known = ~torch.isnan(image).any(dim=1)
    windows = grid((image.shape[-2], image.shape[-1]), CHECKED)
    places = [(n, *windows[place].write) for n in range(len(image)) for place in windows.places()]
    n, y, x = max(places, key=lambda place: int(known[place].sum()))
    return image[n : n + 1, :, y, x] if known[n, y, x].any() else None


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype=dtype.newbyteorder("="))).dtype
