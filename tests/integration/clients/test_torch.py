"""A torch DataLoader over a view, by the stock s3torchconnector."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.clients.cases import CASE, Case
from tests.integration.clients.drivers import environment
from tests.integration.clients.matrix import SOURCE, Matrix

# torch is too large for the suite's own environment; name the interpreter of one that has it.
PYTHON = os.environ.get("TRANSOM_TORCH_PYTHON", sys.executable)
OBJECTS = 10


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", [CASE[name] for name in ("upper", "grow12", "empty")], ids=lambda case: case.name)
def test_data_loader_batches_are_the_transformers_output(matrix: Matrix, tmp_path: Path, case: Case) -> None:
    if subprocess.run([PYTHON, "-c", "import s3torchconnector"], capture_output=True, check=False).returncode:
        pytest.skip(
            "torch and s3torchconnector are not installed: make an environment with"
            " `pip install torch s3torchconnector` and set TRANSOM_TORCH_PYTHON to its python"
        )
    prefix = f"torch/{case.name}/"
    for number in range(OBJECTS):
        matrix.s3.copy_object(Bucket=SOURCE, Key=f"{prefix}{number}", CopySource={"Bucket": SOURCE, "Key": case.source})
    child = Path(__file__).with_name("torch_child.py")
    done = subprocess.run(
        [PYTHON, str(child), matrix.server.endpoint, f"s3://{case.view}/{prefix}"],
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wanted = hashlib.sha256(case.result_bytes()).hexdigest()
    every = {f"{prefix}{number}": wanted for number in range(OBJECTS)}
    assert json.loads(done.stdout) == {"by index": every, "as a stream": every}
