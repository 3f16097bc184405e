"""The answer of a realtime service as JSON: what may be in it, and that its vectors have the declared lengths.

Used on both sides of the pipe. Free of imports that take long: the handler, which must start quickly, uses it
as well as the worker.
"""

from __future__ import annotations

import math
from typing import Any

ANSWER_BYTES_MAX = 4 * 1024 * 1024
INPUT_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 20
_PARTS_MAX = 2_000_000


class AnswerFault(Exception):
    """The answer breaks a rule; ``code`` is of the table of errors."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def to_plain(answer: Any) -> Any:
    """The answer with arrays turned into lists and nothing in it that JSON does not have. Raises
    AnswerFault."""
    return _plain(answer, "the answer", 0, [_PARTS_MAX])


def check_answer(answer: Any, features: list[tuple[str, int]], inputs: dict) -> None:
    """Checks the vectors of a plain answer: ``embedding``, ``embeddings`` and the features' own names.

    Raises AnswerFault.
    """
    if not isinstance(answer, dict):
        return
    all_dims = {dims for _, dims in features}
    if "embedding" in answer:
        _vector(answer["embedding"], all_dims, "embedding")
    if "embeddings" in answer:
        many = answer["embeddings"]
        if not isinstance(many, list):
            raise AnswerFault("realtime_wrong_answer", f"embeddings is {_kind(many)}; expected a list of vectors")
        texts = inputs.get("texts")
        expected = len(texts) if isinstance(texts, list) else 1 if isinstance(inputs.get("text"), str) else None
        if expected is not None and len(many) != expected:
            raise AnswerFault(
                "realtime_wrong_answer", f"embeddings has {len(many)} vectors for {expected} texts"
            )
        for index, vector in enumerate(many):
            _vector(vector, all_dims, f"embeddings[{index}]")
    for name, dims in features:
        if name in answer and answer[name] is not None and name not in ("embedding", "embeddings"):
            vectors = answer[name]
            if isinstance(vectors, list) and vectors and isinstance(vectors[0], list):
                for index, vector in enumerate(vectors):
                    _vector(vector, {dims}, f"{name}[{index}]")
            else:
                _vector(vectors, {dims}, name)


def _vector(vector: Any, dims: set[int], where: str) -> None:
    if not isinstance(vector, list):
        raise AnswerFault("vector_not_numeric", f"{where} is {_kind(vector)}; expected a list of numbers")
    for index, number in enumerate(vector):
        if type(number) not in (int, float):
            raise AnswerFault(
                "vector_not_numeric", f"{where}[{index}] is {_kind(number)}; expected a number"
            )
        if not abs(number) <= _FLOAT32_MAX:
            raise AnswerFault("vector_not_finite", f"{where}[{index}] is not finite as float32")
    if dims and len(vector) not in dims:
        wanted = " or ".join(map(str, sorted(dims)))
        raise AnswerFault("vector_wrong_shape", f"{where}: expected {wanted} numbers, got {len(vector)}")


_FLOAT32_MAX = 3.4028235677973366e38


def _plain(value: Any, where: str, depth: int, parts_left: list[int]) -> Any:
    parts_left[0] -= 1
    if parts_left[0] < 0:
        raise AnswerFault("realtime_wrong_answer", f"the answer has more than {_PARTS_MAX} parts")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise AnswerFault("realtime_wrong_answer", f"{where} is an integer above 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise AnswerFault("vector_not_finite", f"{where} is {value}, which JSON does not have")
        return float(value)
    if depth >= DEPTH_MAX:
        raise AnswerFault("realtime_wrong_answer", f"the answer is nested more than {DEPTH_MAX} deep")
    convert = getattr(value, "tolist", None)
    if callable(convert):
        # numpy's arrays and numbers, pandas' columns. Whatever it is, once is enough.
        value = convert()
        if callable(getattr(value, "tolist", None)):
            raise AnswerFault("realtime_wrong_answer", f"{where} is {_kind(value)}, which JSON does not have")
        return _plain(value, where, depth + 1, parts_left)
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{i}]", depth + 1, parts_left) for i, part in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise AnswerFault("realtime_wrong_answer", f"{where} has a key that is {_kind(key)}, not text")
        return {
            str(key).encode("utf-8", "replace").decode("utf-8"): _plain(
                part, f"{where}.{str(key)[:40]}", depth + 1, parts_left
            )
            for key, part in value.items()
        }
    raise AnswerFault("realtime_wrong_answer", f"{where} is {_kind(value)}, which JSON does not have")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"[:80]
