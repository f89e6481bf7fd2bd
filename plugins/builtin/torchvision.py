"""`torchvision`: an image through a list of torchvision's transforms, out as an image or as a tensor.

What may be asked for is in `torch_steps`, reading and writing images in `pictures`. torch is imported when the first
object comes.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict, Field

from transom.plugins.builtin import pictures, torch_steps
from transom.plugins.builtin.torch_steps import Params, Steps
from transom.plugins.contract import Context, Reject, Transformer

if TYPE_CHECKING:
    from torch import Tensor

_MODES = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}
_Step = tuple[str, Params, Callable[[Any], Any]]


class TorchvisionArgs(BaseModel):
    """Arguments of `torchvision`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transforms: Steps = Field(
        default=({"Resize": {"size": 256}}, {"CenterCrop": {"size": 224}}),
        description='The transforms of torchvision.transforms.v2, in order: [{"Resize": {"size": [224, 224]}}, '
        '"ToTensor"], or one object with them as its keys, or such JSON in a text.',
        json_schema_extra={"first": True},
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="What random transforms draw follows from it and the object's key."
    )
    mode: Literal["rgb", "rgba", "grey"] = Field(default="rgb", description="Colours of the image that is transformed.")
    format: Literal["keep", "jpeg", "png", "webp", "gif", "tiff", "bmp", "npy", "pt"] = Field(
        default="keep",
        description="npy: NumPy's array file, pt: torch.save of a tensor, both of channels x height x width; keep goes "
        "by the object's Content-Type, then its extension, then takes png.",
    )
    quality: int = Field(default=85, ge=1, le=100, description="For jpeg and webp.")
    max_pixels: int = Field(
        default=pictures.MAX_PIXELS,
        ge=1,
        le=pictures.PILLOW_WARNS_ABOVE,
        description="Most pixels of the image, and of what any transform makes of it.",
    )


class Torchvision(Transformer):
    """Returns an image sent through torchvision's transforms, as an image, a NumPy array or a torch tensor.

    A result that is a tensor can be written as an image if it is of bytes, or of floats from 0 to 1. Random transforms
    draw the same for the same key and seed; another seed draws anew.
    """

    name = "torchvision"
    Args = TorchvisionArgs
    isolated = True  # torch takes hundreds of megabytes of any process it is imported into

    def __init__(self) -> None:
        self._drawing = threading.Lock()  # torch has one random generator for all threads

    def content_type(self, context: Context) -> str:
        """The image format's; arrays and tensors have none."""
        name = _format(context)
        return "binary/octet-stream" if name in ("npy", "pt") else pictures.content_type_of(name)

    def output_extension(self, context: Context) -> str | None:
        """The format's."""
        name = _format(context)
        return name if name in ("npy", "pt") else pictures.extension_of(name)

    def transform(self, data: bytes, context: Context) -> bytes:
        """Decode, transform step by step, encode. Raises Reject for what no image is, or a step doesn't take."""
        args: TorchvisionArgs = context.args
        image = pictures.upright(data, args.max_pixels)
        image = pictures.converted(image, "png", mode=args.mode)
        steps = _built(json.dumps(args.transforms))
        random = any(torch_steps.is_random(name) for name, _, _ in steps)
        with self._drawn(context) if random else nullcontext():
            made = _transformed(image, steps, args.max_pixels)
        return _encoded(made, _format(context), args.quality)

    @contextmanager
    def _drawn(self, context: Context) -> Iterator[None]:
        """Let random transforms draw by the object's own seed, and put the generator back afterwards."""
        import torch

        text = json.dumps([context.args.seed, context.bucket, context.key])
        with self._drawing, torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)
            yield


def _format(context: Context) -> str:
    return pictures.output_format(context.args.format, context)


def _transformed(image: Pillow.Image, steps: tuple[_Step, ...], max_pixels: int) -> Any:
    """Apply one step after the other, each only if what it makes is sure to be within bounds."""
    made: Any = image
    for name, params, step in steps:
        width, height = torch_steps.grown(name, params, _size(made))
        if width * height > max_pixels:
            raise Reject(f"{name} would make {width}x{height} pixels, more than {max_pixels} (max_pixels)")
        try:
            made = step(made)
        except (ValueError, TypeError, RuntimeError) as error:
            raise Reject(f"{name} can't be applied: {_cause(error)}") from error
    return made


def _size(made: Any) -> tuple[int, int]:
    """Width and height of an image, or of a tensor with these last."""
    return made.size if isinstance(made, Pillow.Image) else (made.shape[-1], made.shape[-2])


@lru_cache(maxsize=64)
def _built(text: str) -> tuple[_Step, ...]:
    """Make the transforms; the same steps are made once in a process."""
    import torch

    torch.set_num_threads(1)  # objects run side by side already
    return tuple((name, params, _made(name, params)) for name, params in torch_steps.named(json.loads(text)))


def _made(name: str, params: Params) -> Callable[[Any], Any]:
    import torch
    from torchvision.transforms import v2

    made: Callable[[Any], Any]
    if name == "ToTensor":  # deprecated in v2, which says to write it so
        made = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        return made
    given = {key: _param(key, value) for key, value in params.items()}
    if name == "ConvertImageDtype":
        name, given = "ToDtype", {"dtype": torch.float32, **given, "scale": True}
    try:
        made = getattr(v2, name)(**given)
    except (ValueError, TypeError) as error:
        raise Reject(f"torchvision refuses {name}: {_cause(error)}") from error
    return made


def _param(key: str, value: Any) -> Any:
    """Turn a parameter's text into the member of an enumeration that torchvision wants."""
    import torch
    from torchvision.transforms import AutoAugmentPolicy, InterpolationMode

    if not isinstance(value, str):
        return value
    makers: Mapping[str, Callable[[str], Any]] = {
        "interpolation": InterpolationMode,
        "policy": AutoAugmentPolicy,
        "dtype": lambda name: getattr(torch, name),
    }
    return makers[key](value) if key in makers else value


def _encoded(made: Any, name: str, quality: int) -> bytes:
    if name in ("npy", "pt"):
        return _tensor_file(_tensor(made), name)
    if not isinstance(made, Pillow.Image):
        made = _image(_tensor(made))
    return pictures.encoded(pictures.converted(made, name), name, quality=quality)


def _tensor(made: Any) -> Tensor:
    import torch
    from torchvision.transforms.v2 import functional

    tensor = functional.pil_to_tensor(made) if isinstance(made, Pillow.Image) else made
    plain: Tensor = tensor.as_subclass(torch.Tensor).contiguous()
    return plain


def _tensor_file(tensor: Tensor, name: str) -> bytes:
    import numpy as np
    import torch

    output = io.BytesIO()
    if name == "npy":
        np.save(output, tensor.numpy(), allow_pickle=False)
    else:
        torch.save(tensor.clone(), output)  # a clone holds its own elements only, and so does the file
    return output.getvalue()


def _image(tensor: Tensor) -> Pillow.Image:
    import torch
    from torchvision.transforms.v2 import functional

    if tensor.is_floating_point() and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise Reject("the result has floats outside of 0 to 1, as after Normalize: ask for the format npy or pt")
    if tensor.dtype not in (torch.uint8, torch.float16, torch.float32, torch.float64):
        raise Reject(f"the result has elements of {tensor.dtype}: ask for the format npy or pt")
    try:
        made: Pillow.Image = functional.to_pil_image(tensor.float() if tensor.is_floating_point() else tensor)
    except (ValueError, TypeError) as error:
        raise Reject(f"the result is no image: {_cause(error)}") from error
    return made


def _cause(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
