"""ffmpeg and split_audio give the samples and frames that other readers see, the same every time, and stay bounded."""

from __future__ import annotations

import array
import io
import json
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.unit.plugins.media import decoded, encoded, grey, read_wav, samples, video, wav
from transom.plugins import Context, Reject, Transformer
from transom.plugins.args import parse_args
from transom.plugins.builtin.ffmpeg import Ffmpeg
from transom.plugins.builtin.split_audio import SplitAudio
from transom.plugins.errors import ArgsError
from transom.target.etl.runtimes.command_line import filled
from transom.target.etl.spec_load import load
from transom.target.etl.transports.base import Call

Run = Callable[..., bytes]  # of conftest

SPECS = Path(__file__).parents[3] / "deploy" / "specs"
STEREO = samples(1.5, rate=16000, channels=2)
WAV = wav(STEREO, rate=16000, channels=2)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    return {kind: video(folder / f"film.{kind}") for kind in ("mp4", "mkv", "avi")}


def far(one: bytes, other: bytes) -> int:
    """The largest difference between 16-bit samples."""
    return max(abs(a - b) for a, b in zip(array.array("h", one), array.array("h", other), strict=True))


def pictures(data: bytes) -> dict[str, Pillow.Image]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found: dict[str, Pillow.Image] = {
            member.name: Pillow.open(archive.extractfile(member))  # type: ignore[arg-type]
            for member in archive
        }
        for picture in found.values():
            picture.load()
        return found


def numbers(found: dict[str, Pillow.Image]) -> list[int]:
    """Which frames of `video` the pictures are of."""
    levels = [picture.convert("L").getpixel((picture.width - 4, picture.height - 4)) for picture in found.values()]
    return [round((level - grey(0)) / (grey(1) - grey(0))) for level in levels]  # type: ignore[operator]


def test_a_wav_comes_out_as_it_went_in(run: Run) -> None:
    assert run(Ffmpeg(), WAV) == WAV


def test_flac_keeps_every_sample(run: Run) -> None:
    made = run(Ffmpeg(), WAV, "flac")
    assert decoded(made) == ("flac", 16000, "stereo", 24000)
    assert run(Ffmpeg(), made) == WAV


def test_flac_keeps_24_bits(run: Run) -> None:
    data = b"".join(struct.pack("<i", value * 65521)[:3] for value in range(-100, 100))
    deep = wav(data, width=3)
    made = run(Ffmpeg(), deep, "flac")
    assert run(Ffmpeg(), made, {"format": "raw", "codec": "pcm_s24le"}) == data


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"format": "mp3"}, ("mp3", 16000, "stereo")),
        ({"format": "mp3", "rate": 44100, "channels": 1, "bitrate": "64k"}, ("mp3", 44100, "mono")),
        ({"format": "opus"}, ("ogg", 48000, "stereo")),
        ({"format": "ogg", "rate": 24000}, ("ogg", 48000, "stereo")),  # opus is always decoded to 48 kHz
        ({"format": "ogg", "codec": "flac"}, ("ogg", 16000, "stereo")),
        ({"rate": 8000}, ("wav", 8000, "2 channels")),
        ({"channels": 1}, ("wav", 16000, "1 channels")),
        ({"codec": "pcm_f32le"}, ("wav", 16000, "2 channels")),
        ({"AR": "22050", "AC": "1", "FORMAT": "flac"}, ("flac", 22050, "mono")),
        ({"FORMAT": "mp3", "BR": "96K", "CODEC": "libmp3lame"}, ("mp3", 16000, "stereo")),
    ],
)
def test_sound_is_written_as_asked(run: Run, args: dict[str, Any], expected: tuple[str, int, str]) -> None:
    made = run(Ffmpeg(), WAV, args)
    name, rate, layout, count = decoded(made)
    assert (name, rate, layout) == expected
    assert abs(count / rate - 1.5) < 0.1
    assert run(Ffmpeg(), WAV, args) == made


@pytest.mark.parametrize(("format", "codec"), [("mp3", "libmp3lame"), ("ogg", "libopus"), ("matroska", "flac")])
def test_lossy_sound_is_decoded_to_about_what_it_was(run: Run, format: str, codec: str) -> None:
    data = samples(1, rate=48000)
    rate, channels, width, made = read_wav(run(Ffmpeg(), encoded(wav(data, rate=48000), format, codec)))
    assert (rate, channels, width) == (48000, 1, 2)
    inside = slice(9600, 86400)  # encoders begin and end softly
    offset = {"mp3": 2 * 1105, "ogg": 0, "matroska": 0}[format] if len(made) != len(data) else 0
    assert far(made[offset:][inside], data[inside]) < 700


def test_samples_alone_and_as_an_array(run: Run) -> None:
    assert run(Ffmpeg(), WAV, "raw") == STEREO
    made = run(Ffmpeg(), WAV, {"format": "npy", "codec": "pcm_s16le"})
    head = made[10:128].decode()
    assert "'descr': '<i2', 'fortran_order': False, 'shape': (24000, 2)" in head
    assert made[128:] == STEREO
    floats = array.array("f", run(Ffmpeg(), WAV, "npy")[128:])
    assert floats.tolist() == [value / 32768 for value in array.array("h", STEREO)]


def test_metadata_stays_behind(run: Run) -> None:
    secret = b"LIST" + struct.pack("<I", 4 + 8 + 12) + b"INFOINAM" + struct.pack("<I", 12) + b"secret place"
    tagged = WAV[:4] + struct.pack("<I", len(WAV) - 8 + len(secret)) + WAV[8:36] + secret + WAV[36:]
    assert run(Ffmpeg(), tagged) == WAV
    for name in ("flac", "mp3", "ogg"):
        assert b"secret" not in run(Ffmpeg(), tagged, name)


@pytest.mark.parametrize("container", ["wav", "flac"])
@pytest.mark.parametrize(("start", "end"), [(0, 0.25), (0.1, 1.2), (0.000125, 0.00025), (1.4, 99), (12.3456, 12.5)])
def test_a_piece_is_exact_to_the_sample(run: Run, container: str, start: float, end: float) -> None:
    data = samples(15, rate=8000)
    source = wav(data) if container == "wav" else encoded(wav(data), "flac", "flac")
    piece = data[2 * round(start * 8000) : 2 * round(end * 8000)]
    assert read_wav(run(SplitAudio(), source, {"from_time": start, "to_time": end}))[3] == piece
    assert read_wav(run(Ffmpeg(), source, {"start": start, "duration": end - start}))[3] == piece


def test_pieces_in_a_row_are_the_whole(run: Run) -> None:
    times = [0, 0.3331, 0.66677, 1.0001, None]
    args = [{"from_time": start, "to_time": end} for start, end in pairwise(times)]
    joined = b"".join(read_wav(run(SplitAudio(), WAV, each))[3] for each in args)
    assert joined == STEREO


def test_a_piece_of_lossy_sound_is_a_piece_of_what_it_decodes_to(run: Run) -> None:
    source = encoded(wav(samples(2, rate=48000), rate=48000), "ogg", "libopus")
    whole = read_wav(run(Ffmpeg(), source))[3]
    assert read_wav(run(SplitAudio(), source, {"from_time": 0.5, "to_time": 1.25}))[3] == whole[48000:120000]


def test_a_piece_behind_the_end_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match="no sound in the part"):
        run(SplitAudio(), WAV, {"from_time": 5, "to_time": 6})


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_frames_are_spaced_evenly(run: Run, films: dict[str, bytes], kind: str) -> None:
    found = pictures(run(Ffmpeg(), films[kind], {"frames": 5, "format": "png"}))
    assert list(found) == [f"frame-000{number}.png" for number in range(1, 6)]
    assert {picture.size for picture in found.values()} == {(48, 32)}
    assert numbers(found) == [2, 6, 10, 14, 18]
    assert {picture.format for picture in pictures(run(Ffmpeg(), films[kind], {"frames": 2})).values()} == {"JPEG"}
    assert numbers(pictures(run(Ffmpeg(), films[kind], {"frames": 2, "start": 1, "duration": 0.4}))) == [11, 13]


def test_no_frame_is_given_twice(run: Run, films: dict[str, bytes]) -> None:
    assert numbers(pictures(run(Ffmpeg(), films["mp4"], {"frames": 70, "format": "png"}))) == list(range(20))


def test_frames_are_scaled_and_given_as_an_array(run: Run, films: dict[str, bytes]) -> None:
    assert pictures(run(Ffmpeg(), films["mp4"], {"frames": 1, "width": 24}))["frame-0001.jpg"].size == (24, 16)
    made = run(Ffmpeg(), films["mp4"], {"frames": 3, "format": "npy"})
    assert "'shape': (3, 32, 48, 3)" in made[:128].decode("latin-1")
    assert len(made) == 128 + 3 * 32 * 48 * 3
    png = pictures(run(Ffmpeg(), films["mp4"], {"frames": 3, "format": "png"}))
    assert made[128:] == b"".join(picture.tobytes() for picture in png.values())


def test_a_video_is_turned_upright(run: Run, films: dict[str, bytes]) -> None:
    """The matrix in the track's header says how: here by a quarter, as a telephone held upright writes it."""
    film = bytearray(films["mp4"])
    at = film.index(struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000), film.index(b"tkhd"))
    film[at : at + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    for args, size in (({}, (32, 48)), ({"width": 16}, (16, 24))):
        (picture,) = pictures(run(Ffmpeg(), bytes(film), {"frames": 1, "format": "png", **args})).values()
        assert picture.size == size
        corners = [(2, 2), (size[0] - 3, 2), (2, size[1] - 3), (size[0] - 3, size[1] - 3)]
        dark = [picture.convert("L").getpixel(corner) < 30 for corner in corners]  # type: ignore[operator]
        assert dark == [False, True, False, False]  # clockwise


@pytest.mark.parametrize("transformer", [Ffmpeg(), SplitAudio()], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"some text\n" * 500,
        bytes(range(256)) * 64,
        WAV[:30],
        b"RIFF\xff\xff\xff\xffWAVEfmt " + b"\xff" * 200,
        b"OggS" + bytes(500),
        b"\x1aE\xdf\xa3" + bytes(500),
    ],
)
def test_what_is_no_sound_is_rejected(run: Run, transformer: Transformer, data: bytes) -> None:
    with pytest.raises(Reject, match=r"not readable audio or video|damaged|there is no"):
        run(transformer, data)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        "<Representation><BaseURL>{path}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ],
    ids=["hls", "concat", "sdp", "dash"],
)
@pytest.mark.parametrize("suffix", [".m3u8", ".ffconcat", ".sdp", ".mpd", ".txt"])
def test_what_names_other_files_is_not_followed(run: Run, tmp_path: Path, text: str, suffix: str) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(WAV)
    with pytest.raises(Reject, match="not readable audio or video"):
        run(Ffmpeg(), text.format(path=other).encode(), key="list" + suffix)


def test_damage_is_refused_or_left_out(run: Run) -> None:
    whole = encoded(WAV, "flac", "flac")
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 200] = bytes(200)
    for data in (bytes(damaged), whole[: len(whole) // 2]):
        with pytest.raises(Reject, match="damaged audio"):
            run(Ffmpeg(), data)
        assert 44 < len(run(Ffmpeg(), data, {"errors": "skip"})) < len(WAV)


def test_output_time_and_size_are_bounded(run: Run, films: dict[str, bytes]) -> None:
    with pytest.raises(Reject, match=r"more than 50000 bytes \(max_output\)"):
        run(Ffmpeg(), WAV, {"max_output": 50_000})
    for name in ("png", "npy"):
        with pytest.raises(Reject, match=r"more than 1000 bytes \(max_output\)"):
            run(Ffmpeg(), films["mp4"], {"frames": 20, "format": name, "max_output": 1000})
    for args in ({}, {"frames": 3}):
        with pytest.raises(TimeoutError):
            run(Ffmpeg(), films["mp4"] if args else WAV, args, deadline=time.monotonic())


def test_pictures_of_too_many_pixels_are_rejected(run: Run) -> None:
    output = io.BytesIO()
    Pillow.new("P", (1, 1)).save(output, "GIF")
    bomb = bytearray(output.getvalue())
    for at in (6, bomb.index(b",") + 5):
        bomb[at : at + 4] = struct.pack("<HH", 6001, 6001)
    with pytest.raises(Reject, match="its pictures have 6001x6001 pixels, more than 36000000"):
        run(Ffmpeg(), bytes(bomb), {"frames": 1})
    with pytest.raises(Reject, match="the frames would have"):
        run(Ffmpeg(), output.getvalue(), {"frames": 1, "width": 8192})


@pytest.mark.parametrize(("rate", "channels"), [(1, 2), (44100, 0), (44100, 65535)])
def test_sound_of_an_absurd_kind_is_rejected(run: Run, rate: int, channels: int) -> None:
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 4, 4, 16)
    data = b"RIFF" + struct.pack("<I", 4036) + b"WAVEfmt " + head + b"data" + struct.pack("<I", 4000) + bytes(4000)
    with pytest.raises(Reject, match=r"its sound has \d+ channels at \d+ Hz|not readable|damaged"):
        run(Ffmpeg(), data)


@pytest.mark.parametrize(
    ("transformer", "args", "message"),
    [
        (Ffmpeg(), {"format": "mp4"}, "argument 'format'.*allowed: one of wav, flac"),
        (Ffmpeg(), {"codec": "flac"}, "format 'wav' has the codecs pcm_s16le.*, not flac"),
        (Ffmpeg(), {"format": "opus", "rate": 44100}, "libopus has the rates 8000, .*not 44100"),
        (Ffmpeg(), {"format": "mp3", "channels": 3}, "libmp3lame has up to 2 channels, not 3"),
        (Ffmpeg(), {"format": "png"}, "format 'png' is for frames: say how many"),
        (Ffmpeg(), {"width": 100}, "width is for frames"),
        (Ffmpeg(), {"frames": 1, "format": "wav"}, "format 'wav' is none for frames"),
        (Ffmpeg(), {"frames": 1, "AR": 8000}, "rate is for sound"),
        (Ffmpeg(), {"BR": "fast"}, "argument 'BR'.*allowed: integer from 6000 to 512000"),
        (Ffmpeg(), {"AUDIO_FILTERS": "volume=2"}, "argument 'AUDIO_FILTERS': there is no such argument"),
        (SplitAudio(), {"from_time": 2, "to_time": 1}, "to_time must be after from_time"),
        (SplitAudio(), {"from_time": -1}, "argument 'from_time'.*allowed: number from 0"),
    ],
)
def test_bad_arguments_are_refused(transformer: Transformer, args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(transformer, args)


@pytest.mark.parametrize(
    ("args", "content_type", "extension"),
    [
        (None, "audio/wav", "wav"),
        ("mp3", "audio/mpeg", "mp3"),
        ("opus", "audio/ogg", "opus"),
        ({"frames": 3}, "application/x-tar", "tar"),
        ({"frames": 3, "format": "npy"}, "binary/octet-stream", "npy"),
    ],
)
def test_the_kind_of_output_is_known_ahead(args: object, content_type: str, extension: str) -> None:
    context = Context(bucket="b", key="k", etl="ffmpeg", args=parse_args(Ffmpeg(), args))
    assert (Ffmpeg().content_type(context), Ffmpeg().output_extension(context)) == (content_type, extension)


def test_the_sample_command_does_what_the_transformer_does(run: Run, films: dict[str, bytes], tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    (spec,) = load((SPECS / "ffmpeg-command.yaml").read_text())
    command = spec.runtime.command or ()
    files = {"input": tmp_path / "input", "output": tmp_path / "output"}
    call = Call(etl=spec.name, bucket="b", key="k", etl_args=json.dumps(spec.args))
    files["input"].write_bytes(WAV)
    subprocess.run(filled(command, call, files), check=True, timeout=60)
    rate, channels, width, made = read_wav(files["output"].read_bytes())
    assert (rate, channels, width) == (16000, 1, 2)
    assert far(made, read_wav(run(Ffmpeg(), WAV, spec.args))[3]) <= 1
    files["input"].write_text(f"ffconcat version 1.0\nfile '{files['output']}'\n")
    assert subprocess.run(filled(command, call, files), check=False, capture_output=True).returncode
