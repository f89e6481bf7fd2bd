"""The suite every transformer must pass; subclass it in your own tests and give it your transformer.

    class TestMine(TransformerConformance):
        @pytest.fixture
        def transformer(self) -> Transformer:
            return Mine()

It needs pytest, which Transom itself doesn't.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from transom.plugins.args import canonical, has_defaults, parse_args, schema
from transom.plugins.checks import check_transformer
from transom.plugins.contract import Context, Installed, Reject, Skip, Transformer
from transom.plugins.errors import ArgsError
from transom.plugins.shapes import stream

ContextOf = Callable[[bytes | None], Context]

_NOT_TEXT = bytes(range(256)) * 5
_LINES = b"".join(b"line %d of a text\n" % number for number in range(200))


class TransformerConformance:
    """Checks one transformer; override the fixtures to say which, with which arguments, on which inputs."""

    @pytest.fixture
    def transformer(self) -> Transformer:
        """Return the transformer to check."""
        raise NotImplementedError("override the fixture 'transformer'")

    @pytest.fixture
    def args(self, transformer: Transformer) -> BaseModel:
        """Return the arguments to run with; by default the defaults."""
        return parse_args(transformer, None)

    @pytest.fixture
    def inputs(self) -> Sequence[bytes]:
        """Return inputs that the transformer is to take; it may still raise Skip or Reject for some."""
        return [b"", b"x", _LINES, _NOT_TEXT]

    @pytest.fixture
    def content_type(self) -> str:
        """Return the Content-Type of the inputs."""
        return "binary/octet-stream"

    @pytest.fixture
    def installed(self) -> Installed | None:
        """Return what the transformer may look up, for one that runs others; by default nothing."""
        return None

    @pytest.fixture
    def context_of(
        self, transformer: Transformer, args: BaseModel, content_type: str, installed: Installed | None, tmp_path: Path
    ) -> ContextOf:
        """Make the context that goes with an input; None is one of unknown size."""
        base = Context("bucket", "folder/key", transformer.name, content_type, args=args, scratch=tmp_path)
        if installed is not None:
            base = replace(base, transformers=installed)
        return lambda data: replace(base, size=None if data is None else len(data))

    def test_it_keeps_the_contract(self, transformer: Transformer) -> None:
        """Its name, shape, declarations and schema pass the checks made at start."""
        assert check_transformer(transformer) is transformer

    def test_its_arguments_have_a_schema_and_a_canonical_form(self, transformer: Transformer, args: BaseModel) -> None:
        """The schema is JSON, and arguments survive being written down and read again."""
        assert json.loads(json.dumps(schema(transformer)))["type"] == "object"
        again = parse_args(transformer, json.loads(canonical(args)))
        assert canonical(again) == canonical(args)

    def test_it_says_truly_whether_it_has_defaults(self, transformer: Transformer) -> None:
        """No arguments at all are fine exactly if every argument has a default."""
        if has_defaults(transformer):
            assert parse_args(transformer, None) == parse_args(transformer, {})

    def test_an_unknown_argument_is_refused(self, transformer: Transformer) -> None:
        """Nothing misspelt is passed over in silence."""
        if transformer.Args.model_config.get("extra") == "allow":
            pytest.skip("its schema takes any argument")
        with pytest.raises(ArgsError, match="no_such_argument"):
            parse_args(transformer, {"no_such_argument": 1})

    def test_the_same_input_gives_the_same_output(
        self, transformer: Transformer, context_of: ContextOf, inputs: Sequence[bytes], tmp_path: Path
    ) -> None:
        """Unless it says that it is not deterministic."""
        if not transformer.deterministic:
            pytest.skip("it says that it is not deterministic")
        for data in inputs:
            context = context_of(data)
            first = _outcome(transformer, [data], context, tmp_path)
            assert _outcome(transformer, [data], context, tmp_path) == first

    @pytest.mark.parametrize("chunk_size", [1, 7, 1000])
    def test_the_output_does_not_depend_on_how_the_input_is_cut(
        self,
        transformer: Transformer,
        context_of: ContextOf,
        inputs: Sequence[bytes],
        tmp_path: Path,
        chunk_size: int,
    ) -> None:
        """Whole, byte by byte, with empty chunks between."""
        if not transformer.deterministic:
            pytest.skip("it says that it is not deterministic")
        for data in inputs:
            context = context_of(data)
            cut = [data[start : start + chunk_size] for start in range(0, len(data), chunk_size)]
            whole = _outcome(transformer, [data], context, tmp_path)
            assert _outcome(transformer, [b"", *cut, b""], context, tmp_path) == whole

    def test_a_file_on_disk_gives_what_its_chunks_give(
        self, transformer: Transformer, context_of: ContextOf, inputs: Sequence[bytes], tmp_path: Path
    ) -> None:
        """And the file is left as it was."""
        if not transformer.deterministic:
            pytest.skip("it says that it is not deterministic")
        for data in inputs:
            path = tmp_path / "object"
            path.write_bytes(data)
            context = context_of(data)
            from_file = _outcome(transformer, [data], context, tmp_path, path=path)
            assert from_file == _outcome(transformer, [data], context, tmp_path)
            assert path.read_bytes() == data

    def test_what_it_says_of_the_output_is_true(
        self, transformer: Transformer, context_of: ContextOf, inputs: Sequence[bytes], tmp_path: Path
    ) -> None:
        """Content type, extension and size are known ahead or not given."""
        for data in inputs:
            context = context_of(data)
            assert "/" in transformer.content_type(context)
            assert not (transformer.output_extension(context) or "").startswith(".")
            promised = transformer.output_size(context)
            outcome = _outcome(transformer, [data], context, tmp_path)
            if promised is not None and isinstance(outcome, bytes):
                assert len(outcome) == promised

    def test_a_size_not_known_ahead_is_coped_with(
        self, transformer: Transformer, context_of: ContextOf, inputs: Sequence[bytes], tmp_path: Path
    ) -> None:
        """In a pipeline the input is another ETL's stream, of no size known."""
        for data in inputs:
            known, unknown = context_of(data), context_of(None)
            transformer.output_size(unknown)
            outcome = _outcome(transformer, [data], unknown, tmp_path)
            if transformer.deterministic:
                assert outcome == _outcome(transformer, [data], known, tmp_path)

    def test_it_can_be_left_in_the_middle(
        self, transformer: Transformer, context_of: ContextOf, inputs: Sequence[bytes], tmp_path: Path
    ) -> None:
        """A client that goes away leaves no file behind."""
        before = sorted(tmp_path.iterdir())
        for data in inputs:
            context = context_of(data)
            running = stream(transformer, [data[:1], data[1:]], context, scratch=tmp_path)
            try:
                next(running, None)
            except (Skip, Reject):
                continue
            finally:
                running.close()
            assert sorted(tmp_path.iterdir()) == before


def _outcome(
    transformer: Transformer, chunks: Iterable[bytes], context: Context, scratch: Path, path: Path | None = None
) -> bytes | str:
    """Return the output, or "skip" or "reject"; any other exception is a failure of the test."""
    try:
        return b"".join(stream(transformer, chunks, context, scratch=scratch, path=path))
    except Skip:
        return "skip"
    except Reject:
        return "reject"
