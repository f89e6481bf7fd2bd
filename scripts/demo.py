"""The demo: real samples, a real server, stock clients; every answer is compared with the same work done by hand."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import select
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from PIL import Image, ImageDraw

from transom.client.boto import get_object

BIN = Path(sys.executable).parent
READY = "transom: listening on "
START_TIMEOUT_S = 60
WIDTH = 224
TEXTS = {
    "proverb.txt": "Every window over a gate lets in some light.\n",
    "poem.txt": "".join(f"line {n}: the gate is shut, the transom open\n" for n in range(1, 41)),
}


class MismatchError(Exception):
    """An answer is not what it must be."""


def main() -> int:
    """Run the demo; 0 when every answer was right."""
    with tempfile.TemporaryDirectory(prefix="transom-demo-") as name:
        work = Path(name)
        photos = make_photos(work / "photos")
        print(f"samples   {len(photos)} images in {work}/photos, served read-only as the bucket 'photos'")
        try:
            with running_server(work) as environment:
                Demo(environment, work, photos).run()
        except MismatchError as error:
            print(f"\nFAILED: {error}", file=sys.stderr)
            return 1
    print("\nevery answer was right; the server is stopped and its data removed")
    return 0


def make_photos(folder: Path) -> dict[str, bytes]:
    """Draw a gradient, some shapes and rings, as PNG, JPEG and WebP."""
    folder.mkdir()
    red, blue = Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90)
    sunrise = Image.merge("RGB", (red, red.point(lambda v: v // 2), blue)).resize((1600, 1000))
    shapes = Image.new("RGB", (1200, 1200), "#f4efe6")
    pen = ImageDraw.Draw(shapes)
    for n in range(12):
        box = (80 * n, 60 * n, 80 * n + 300, 60 * n + 300)
        (pen.ellipse if n % 2 else pen.rectangle)(box, fill=(20 * n, 230 - 15 * n, 120), outline="black", width=4)
    rings = Image.merge("RGB", [Image.radial_gradient("L").rotate(30 * n) for n in range(3)]).resize((900, 600))
    sunrise.save(folder / "sunrise.png")
    shapes.save(folder / "shapes.jpg", quality=92)
    rings.save(folder / "rings.webp", quality=90)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def running_server(work: Path) -> Iterator[dict[str, str]]:
    """Run `transom serve` with keys of its own; yield the environment that its clients need."""
    access, secret = "demo" + secrets.token_hex(6), secrets.token_hex(20)
    environment = {
        **os.environ,
        "TRANSOM_ACCESS_KEY": access,
        "TRANSOM_SECRET_KEY": secret,
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    environment.pop("AWS_PROFILE", None)
    command = [str(BIN / "transom"), "serve", str(work / "data"), "--port", "0", "--folder", f"photos={work}/photos"]
    log = work / "server.log"
    with log.open("wb") as errors:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors)
    try:
        endpoint = _await_ready(server, log)
        print(f"server    transom serve at {endpoint} (pid {server.pid})\n")
        environment["TRANSOM_ENDPOINT"] = environment["AWS_ENDPOINT_URL"] = endpoint
        yield environment
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await_ready(server: subprocess.Popen[bytes], log: Path) -> str:
    pipe = server.stdout
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    seen, give_up = b"", time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        select.select([pipe], [], [], 1)
        piece = pipe.read()
        seen += piece or b""
        for line in seen.decode().splitlines(keepends=True):
            if line.startswith(READY) and line.endswith("\n"):
                return line.removeprefix(READY).strip()
        if piece == b"":
            break
    raise MismatchError(f"the server did not start:\n{log.read_text()}")


class Demo:
    """Asks for objects in all the ways there are, and shows what came back."""

    def __init__(self, environment: dict[str, str], work: Path, photos: dict[str, bytes]) -> None:
        self.environment = environment
        self.work = work
        self.photos = photos
        self.s3: Any = boto3.client(
            "s3",
            endpoint_url=environment["TRANSOM_ENDPOINT"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def run(self) -> None:
        """Go through the demo."""
        for title, part in (
            ("Put objects as ever", self.put),
            ("Ask for them transformed: the etl parameter", self.parameter),
            ("A pipeline", self.pipeline),
            ("A view: for clients that can't add a parameter", self.view),
            ("Every bucket and ETL has a view already", self.implicit_view),
        ):
            print(title)
            part()

    def put(self) -> None:
        """Put texts with boto3 and an image with aws."""
        self.s3.create_bucket(Bucket="notes")
        for key, text in TEXTS.items():
            self.s3.put_object(Bucket="notes", Key=key, Body=text.encode(), ContentType="text/plain")
            show(f"boto3  put_object notes/{key}", f"{len(text)} bytes")
        self.aws("s3", "cp", f"{self.work}/photos/shapes.jpg", "s3://notes/pictures/shapes.jpg")
        size = self.s3.head_object(Bucket="notes", Key="pictures/shapes.jpg")["ContentLength"]
        same("the size of pictures/shapes.jpg", size, len(self.photos["shapes.jpg"]))
        show("aws    s3 cp shapes.jpg s3://notes/pictures/", f"{size} bytes")

    def parameter(self) -> None:
        """`?etl=md5`, and arguments."""
        self.ask("notes", "proverb.txt", "md5", None, md5_hex(TEXTS["proverb.txt"].encode()))
        self.ask("photos", "sunrise.png", "md5", None, md5_hex(self.photos["sunrise.png"]))
        self.ask("notes", "poem.txt", "text", {"head": 2}, "".join(TEXTS["poem.txt"].splitlines(True)[:2]))
        output = self.run_command("transom", "get", "s3://notes/proverb.txt", "--etl", "upper", "-o", "-")
        same("upper", output.decode(), TEXTS["proverb.txt"].upper())
        show("cli    transom get s3://notes/proverb.txt --etl upper", output.decode().strip())

    def pipeline(self) -> None:
        """`hello_world>>md5` of anything, and a real one."""
        self.ask("notes", "poem.txt", "hello_world>>md5", None, "ed076287532e86365e841e92bfc50d8c")
        upper = TEXTS["poem.txt"].upper().splitlines(True)[-1]
        self.ask("notes", "poem.txt", "upper>>text", [None, {"tail": 1}], upper)

    def view(self) -> None:
        """A resizing view over the folder, read by aws and by ranges."""
        self.run_command(
            *("transom", "view", "create", "thumbs", "--of", "photos", "--etl", "image"),
            *("--args", f'{{"width":{WIDTH}}}'),
        )
        show("cli    transom view create thumbs --of photos --etl image", f"--args '{{\"width\":{WIDTH}}}'")
        listing = self.aws("s3", "ls", "s3://thumbs/").decode().split()
        same("the keys of the view", sorted(set(self.photos) & set(listing)), sorted(self.photos))
        for key, raw in self.photos.items():
            thumb = self.aws("s3", "cp", f"s3://thumbs/{key}", "-")
            before, after = image_of(raw), image_of(thumb)
            expected = (WIDTH, round(before.height * WIDTH / before.width))
            same(f"the size of thumbs/{key}", (after.format, after.size), (before.format, expected))
            sizes = f"{before.width}x{before.height}, {len(raw)} bytes -> {after.width}x{after.height}, {len(thumb)}"
            show(f"aws    s3 cp s3://thumbs/{key} -", sizes)
        whole = self.s3.get_object(Bucket="thumbs", Key="sunrise.png")["Body"].read()
        head = self.s3.head_object(Bucket="thumbs", Key="sunrise.png")["ContentLength"]
        part = self.s3.get_object(Bucket="thumbs", Key="sunrise.png", Range="bytes=100-199")
        same("HEAD's length", head, len(whole))
        same("the range", part["Body"].read(), whole[100:200])
        show("boto3  get_object thumbs/sunrise.png Range=bytes=100-199", part["ContentRange"])

    def implicit_view(self) -> None:
        """BUCKET--etl--NAME, with nothing to create."""
        output = self.aws("s3", "cp", "s3://notes--etl--md5/poem.txt", "-").decode()
        same("md5", output, md5_hex(TEXTS["poem.txt"].encode()))
        show("aws    s3 cp s3://notes--etl--md5/poem.txt -", output)

    def ask(self, bucket: str, key: str, etl: str, args: Any, expected: str) -> None:
        """Read one object through a pipeline with boto3 and compare it."""
        response = get_object(self.s3, Bucket=bucket, Key=key, etl=etl, etl_args=args)
        text = response["Body"].read().decode()
        same(f"{bucket}/{key} through {etl}", text, expected)
        shown = etl if args is None else f"{etl} {args}"
        show(f"boto3  {bucket}/{key}  etl={shown}", text.strip())

    def aws(self, *arguments: str) -> bytes:
        """Run aws-cli against the server."""
        return self.run_command("aws", *arguments)

    def run_command(self, program: str, *arguments: str) -> bytes:
        """Run a program of the environment and return what it printed."""
        done = subprocess.run(
            [str(BIN / program), *arguments], env=self.environment, capture_output=True, timeout=60, check=False
        )
        if done.returncode:
            raise MismatchError(f"{program} {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done.stdout


def image_of(data: bytes) -> Image.Image:
    """Open an encoded image."""
    return Image.open(io.BytesIO(data))


def md5_hex(data: bytes) -> str:
    """The MD5 of the data, in hex."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def same(what: str, got: object, expected: object) -> None:
    """Raise MismatchError unless both are equal."""
    if got != expected:
        raise MismatchError(f"{what}: got {got!r}, not {expected!r}")


def show(request: str, answer: str) -> None:
    """Print one exchange."""
    lines = answer.splitlines() or [""]
    print(f"  {request:<58} {textwrap.shorten(lines[0], 60)}")
    for line in lines[1:]:
        print(f"  {'':<58} {textwrap.shorten(line, 60)}")


if __name__ == "__main__":
    sys.exit(main())
