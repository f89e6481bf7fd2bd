"""torchvision's steps are checked without torch; what they do to an image is tested where torch is installed."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image as Pillow

from transom.plugins import Context, Reject
from transom.plugins.args import canonical, parse_args
from transom.plugins.builtin.torch_steps import STEPS, grown, is_random
from transom.plugins.builtin.torchvision import Torchvision
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

needs_torch = [
    pytest.mark.soak,
    pytest.mark.skipif(
        importlib.util.find_spec("torchvision") is None,
        reason="torchvision is not installed: it takes gigabytes, so the test environment goes without",
    ),
]
USUAL = [{"Resize": {"size": [20, 30]}}, {"CenterCrop": {"size": 16}}, {"ToTensor": {}}]


def picture(size: tuple[int, int] = (60, 40), mode: str = "RGB", name: str = "PNG") -> bytes:
    bands = [Pillow.linear_gradient("L").rotate(90 * turn).resize(size) for turn in range(3)]
    bands[0].paste(255, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))  # edges, for what sharpens
    output = io.BytesIO()
    Pillow.merge("RGB", bands).convert(mode).save(output, name)
    return output.getvalue()


def read(data: bytes) -> Pillow.Image:
    image = Pillow.open(io.BytesIO(data))
    image.load()
    return image


def array(data: bytes) -> Any:
    import numpy as np

    return np.load(io.BytesIO(data), allow_pickle=False)


@pytest.mark.parametrize(
    "given",
    [
        USUAL,
        {"Resize": {"size": [20, 30]}, "CenterCrop": {"size": 16}, "ToTensor": {}},
        {"Resize": {"size": [20, 30]}, "CenterCrop": {"size": 16}, "ToTensor": None},
        [{"Resize": {"size": [20, 30]}}, {"CenterCrop": {"size": 16}}, "ToTensor"],
        json.dumps({"Resize": {"size": [20, 30]}, "CenterCrop": {"size": 16}, "ToTensor": {}}),
    ],
)
def test_the_ways_to_write_steps_mean_the_same(given: object) -> None:
    args = parse_args(Torchvision(), {"transforms": given})
    assert list(args.transforms) == USUAL  # type: ignore[attr-defined]
    assert canonical(args) == canonical(parse_args(Torchvision(), {"transforms": USUAL}))


def test_the_order_of_steps_counts() -> None:
    first, second = {"RGB": None, "ToImage": None}, {"ToImage": None, "RGB": None}
    assert canonical(parse_args(Torchvision(), {"transforms": first})) != canonical(
        parse_args(Torchvision(), {"transforms": second})
    )


def test_steps_may_be_options() -> None:
    args = parse_args(Torchvision(), None, {"transforms": '["RGB"]', "format": "npy"})
    assert list(args.transforms) == [{"RGB": {}}]  # type: ignore[attr-defined]
    assert parse_args(Torchvision(), None, {"transforms": "RGB"}) == parse_args(Torchvision(), {"transforms": ["RGB"]})


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "argument 'transforms'"),
        (["Lambda"], "there is no transform 'Lambda' to choose; there are AugMix"),
        (["__class__"], "there is no transform '__class__'"),
        ([{"Resize": {}, "RGB": {}}], "each step of the list names one transform"),
        ([{"Resize": {"width": 3}}], "Resize takes no 'width'; its parameters are: size, interpolation"),
        ([{"RGB": {"x": 1}}], "RGB takes no 'x'; its parameters are: none"),
        ([{"Resize": {"size": "big"}}], "size of Resize is no text, not 'big'"),
        ([{"Resize": {"size": 1.5}}], "size of Resize is whole numbers of pixels"),
        ([{"Resize": {"size": -1}}], "size of Resize is whole numbers of pixels"),
        ([{"Resize": {"size": [1] * 17}}], "size of Resize is a number, or a short list of them"),
        ([{"Resize": {"size": {"a": 1}}}], "size of Resize is a number, or a short list of them"),
        ([{"Resize": {"size": 20_000}}], "size of Resize is at most 16384"),
        ([{"Resize": {"interpolation": "os.system"}}], "interpolation of Resize is one of nearest"),
        ([{"GaussianBlur": {"kernel_size": 33}}], "kernel_size of GaussianBlur is at most 31"),
        (["RGB"] * 33, "argument 'transforms'"),
        ('{"RGB"', "argument 'transforms'"),
        (7, "argument 'transforms'"),
    ],
)
def test_bad_steps_are_refused(steps: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Torchvision(), {"transforms": steps})


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("Resize", {"size": [20, 30]}, (30, 20)),
        ("Resize", {"size": 20}, (40, 20)),
        ("Resize", {"size": [20]}, (40, 20)),
        ("Resize", {"size": 20, "max_size": 30}, (30, 15)),
        ("CenterCrop", {"size": 7}, (7, 7)),
        ("RandomResizedCrop", {"size": [7, 9]}, (9, 7)),
        ("RandomCrop", {"size": 7, "padding": 1}, (102, 52)),
        ("RandomCrop", {"size": [300, 7]}, (100, 300)),
        ("Pad", {"padding": 3}, (106, 56)),
        ("Pad", {"padding": [3, 4]}, (106, 58)),
        ("Pad", {"padding": [1, 2, 3, 4]}, (104, 56)),
        ("RandomRotation", {"degrees": 45}, (100, 50)),
        ("RandomRotation", {"degrees": 45, "expand": True}, (112, 112)),
        ("Grayscale", {}, (100, 50)),
    ],
)
def test_the_size_a_step_may_make_is_known_before(name: str, params: dict[str, Any], expected: tuple[int, int]) -> None:
    assert grown(name, params, (100, 50)) == expected


def test_what_draws_is_known() -> None:
    drawing = {name for name in STEPS if is_random(name)}
    assert {"RandomCrop", "ColorJitter", "AutoAugment", "RandAugment", "GaussianBlur"} <= drawing
    assert not {"Resize", "Normalize", "ToTensor", "Pad", "CenterCrop", "ToDtype"} & drawing


def test_the_output_is_known_without_running() -> None:
    def told(args: object) -> tuple[str, str | None]:
        context = Context("b", "a.jpg", "torchvision", args=parse_args(Torchvision(), args))
        return Torchvision().content_type(context), Torchvision().output_extension(context)

    assert told(None) == ("image/jpeg", "jpg")
    assert told({"format": "npy"}) == ("binary/octet-stream", "npy")
    assert told({"format": "pt"}) == ("binary/octet-stream", "pt")
    assert told({"format": "webp"}) == ("image/webp", "webp")


class TestWithTorch:
    pytestmark = needs_torch

    def test_an_image_comes_out_as_the_steps_say(self, run: Run) -> None:
        made = read(run(Torchvision(), picture((600, 400))))
        assert (made.format, made.size) == ("PNG", (224, 224))

    def test_a_compose_by_hand_gives_the_same(self, run: Run) -> None:
        import numpy as np
        import torch
        from torchvision.transforms import v2

        normal = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
        to_float = v2.ToDtype(torch.float32, scale=True)
        by_hand = v2.Compose([v2.Resize([20, 30]), v2.CenterCrop(16), v2.ToImage(), to_float, v2.Normalize(**normal)])
        expected = by_hand(read(picture()))
        args = {"transforms": [*USUAL, {"Normalize": normal}]}
        made = array(run(Torchvision(), picture(), args | {"format": "npy"}))
        assert made.dtype == np.float32
        assert made.shape == (3, 16, 16)
        assert np.array_equal(made, expected.numpy())
        tensor = torch.load(io.BytesIO(run(Torchvision(), picture(), args | {"format": "pt"})), weights_only=True)
        assert torch.equal(tensor, expected.as_subclass(torch.Tensor))
        with pytest.raises(Reject, match="floats outside of 0 to 1, as after Normalize"):
            run(Torchvision(), picture(), args)

    def test_a_tensor_may_be_written_as_an_image(self, run: Run) -> None:
        with_tensor = read(run(Torchvision(), picture(), {"transforms": USUAL}))
        without = read(run(Torchvision(), picture(), {"transforms": USUAL[:2]}))
        assert with_tensor.size == (16, 16)
        assert with_tensor.tobytes() == without.tobytes()

    def test_an_image_as_an_array_is_its_bytes(self, run: Run) -> None:
        import numpy as np

        made = array(run(Torchvision(), picture(), {"transforms": ["RGB"], "format": "npy"}))
        assert made.dtype == np.uint8
        assert made.transpose(1, 2, 0).tobytes() == read(picture()).tobytes()

    @pytest.mark.parametrize(("mode", "channels"), [("rgb", 3), ("rgba", 4), ("grey", 1)])
    @pytest.mark.parametrize("stored", ["L", "LA", "P", "RGB", "RGBA"])
    def test_colours_are_brought_to_one_mode(self, run: Run, mode: str, channels: int, stored: str) -> None:
        args = {"transforms": ["ToImage"], "format": "npy", "mode": mode}
        assert array(run(Torchvision(), picture(mode=stored), args)).shape == (channels, 40, 60)

    @pytest.mark.parametrize("name", [name for name in STEPS if is_random(name)])
    def test_random_steps_draw_by_seed_and_key(self, run: Run, name: str) -> None:
        params: dict[str, Any] = {
            "RandomCrop": {"size": 16}, "RandomResizedCrop": {"size": 16}, "GaussianBlur": {"kernel_size": 5},
            "RandomRotation": {"degrees": 40}, "RandomAffine": {"degrees": 40}, "RandomPosterize": {"bits": 2},
            "RandomSolarize": {"threshold": 100}, "RandomAdjustSharpness": {"sharpness_factor": 3},
            "ColorJitter": {"brightness": 0.5, "hue": 0.3}, "JPEG": {"quality": [5, 90]},
        }.get(name, {})  # fmt: skip
        before = ["ToTensor"] if name in ("GaussianNoise", "RandomErasing") else []
        args = {"transforms": [*before, {name: params}], "format": "npy"}

        def drawn(key: str, seed: int) -> bytes:
            return run(Torchvision(), picture(), args | {"seed": seed}, key=key)

        assert drawn("a", 1) == drawn("a", 1)
        by_key, by_seed = ({drawn(key, seed) for key, seed in pairs} for pairs in (
            [(f"k{number}", 1) for number in range(24)], [("a", number) for number in range(24)],
        ))  # fmt: skip
        assert len(by_key) > 1
        assert len(by_seed) > 1

    def test_threads_do_not_draw_from_each_other(self, run: Run) -> None:
        transformer = Torchvision()
        args = {"transforms": [{"RandomResizedCrop": {"size": 24}}, {"ColorJitter": {"brightness": 0.5}}]}
        alone = [run(transformer, picture(), args, key=str(number)) for number in range(8)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda key: run(transformer, picture(), args, key=str(key)), range(8)))
        assert together == alone

    def test_the_generator_of_others_is_left_alone(self, run: Run) -> None:
        import torch

        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        run(Torchvision(), picture(), {"transforms": [{"RandomCrop": {"size": 16}}]})
        assert torch.equal(torch.rand(1), expected)

    @pytest.mark.parametrize(
        ("step", "size"),
        [
            ({"Resize": {"size": 16_000}}, (1, 60)),
            ({"Pad": {"padding": 16_000}}, (10, 10)),
            ({"CenterCrop": {"size": 16_000}}, (10, 10)),
            ({"RandomRotation": {"degrees": 45, "expand": True}}, (12_000, 1)),
        ],
    )
    def test_a_step_that_would_make_too_much_is_not_run(
        self, run: Run, step: dict[str, Any], size: tuple[int, int]
    ) -> None:
        with pytest.raises(Reject, match=r"would make \d+x\d+ pixels, more than 64000000 \(max_pixels\)"):
            run(Torchvision(), picture(size), {"transforms": [step]})

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ([{"Resize": {}}], "torchvision refuses Resize: .*size"),
            ([{"Normalize": {"mean": [0], "std": [1]}}], "Normalize can't be applied: "),
            ([{"Resize": {"size": 0}}], "Resize"),
        ],
    )
    def test_what_torchvision_refuses_is_rejected_by_the_step(
        self, run: Run, steps: list[object], message: str
    ) -> None:
        with pytest.raises(Reject, match=message):
            run(Torchvision(), picture(), {"transforms": steps})

    @pytest.mark.parametrize("data", [b"", b"plain text", picture()[:60]])
    def test_what_is_no_image_is_rejected(self, run: Run, data: bytes) -> None:
        with pytest.raises(Reject, match=r"not a readable image|a damaged image"):
            run(Torchvision(), data)
