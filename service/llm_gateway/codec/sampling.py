# SPDX-License-Identifier: Apache-2.0
"""GenerationParams: which values make sense, and the ones that the caller set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llm_gateway.v1 import generation_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.duration_pb2 import Duration

    from llm_gateway.codec.violations import Violations

# The least and the greatest value (both allowed) by vLLM's sampling_params.py and the proto's comments.
RANGES: Mapping[str, tuple[float, float]] = {
    "max_tokens": (1, math.inf),
    "temperature": (0, 2),
    "top_k": (-1, math.inf),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "n": (1, 128),
    "truncate_prompt_tokens": (-1, math.inf),
}
# The same, where the least value itself is not allowed.
OPEN_RANGES: Mapping[str, tuple[float, float]] = {"top_p": (0, 1), "repetition_penalty": (0, math.inf)}
MAX_ITEMS: Mapping[str, int] = {
    "stop": 64, "stop_token_ids": 1024, "bad_words": 1024, "logprob_token_ids": 128, "logit_bias": 4096,
}  # fmt: skip
MAX_LOGIT_BIAS = 100
MAX_TIME_LIMIT = 86_400.0
TRUNCATION_SIDES = {pb.TRUNCATION_SIDE_LEFT: "left", pb.TRUNCATION_SIDE_RIGHT: "right"}


def decode_sampling(params: pb.GenerationParams, violations: Violations) -> dict[str, Any]:
    """What the caller set, by field name, `time_limit` apart; nothing that was not set is in it."""
    sampling: dict[str, Any] = {}
    for field, value in params.ListFields():
        name = field.name
        _check_range(name, value, violations)
        if name in MAX_ITEMS:
            _check_list(name, value, violations)
        if name not in {"time_limit", "truncation_side", "repetition_detection"}:
            sampling[name] = _plain(value)
    _check_together(params, violations)
    _add_messages(params, sampling, violations)
    return sampling


def seconds(duration: Duration, field: str, limit: float, violations: Violations) -> float:
    """A duration in seconds; a violation if it is negative or longer than `limit` seconds."""
    value = duration.seconds + duration.nanos / 1e9
    violations.check(0 <= value <= limit, field, f"must be from 0 s to {limit:g} s")
    return value


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a field holds
    """A field's value without protobuf: a list for a repeated field, a dict for a map."""
    if isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "items"):
        return dict(value)
    return list(value)


def _check_range(name: str, value: Any, violations: Violations) -> None:  # noqa: ANN401
    if isinstance(value, float) and not math.isfinite(value):
        violations.add(f"params.{name}", "must be a finite number")
    elif name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high:
            violations.add(f"params.{name}", _range_text(low, high, "at least"))
    elif name in OPEN_RANGES:
        low, high = OPEN_RANGES[name]
        if not low < value <= high:
            violations.add(f"params.{name}", _range_text(low, high, "above"))
    elif name == "logit_bias":
        in_range = all(-MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS for bias in value.values())
        violations.check(in_range, "params.logit_bias", _range_text(-MAX_LOGIT_BIAS, MAX_LOGIT_BIAS, "at least"))


def _range_text(low: float, high: float, word: str) -> str:
    return f"must be {word} {low:g}" + (f" and at most {high:g}" if math.isfinite(high) else "")


def _check_list(name: str, value: Any, violations: Violations) -> None:  # noqa: ANN401
    if not violations.few(value, MAX_ITEMS[name], f"params.{name}"):
        return
    for index, item in enumerate(value):
        violations.check(not isinstance(item, str) or item, f"params.{name}[{index}]", "must not be empty")


def _check_together(params: pb.GenerationParams, violations: Violations) -> None:
    """Fields that contradict each other."""
    if params.HasField("max_tokens") and params.min_tokens > params.max_tokens:
        violations.add("params.min_tokens", "must not be more than max_tokens")
    if params.top_logprobs and not params.logprobs:
        violations.add("params.top_logprobs", "needs logprobs")
    if params.logprob_token_ids and not params.logprobs:
        violations.add("params.logprob_token_ids", "needs logprobs")
    greedy = params.HasField("temperature") and params.temperature == 0
    if params.n > 1 and greedy and not params.use_beam_search:
        violations.add("params.n", "must be 1 with temperature 0: the choices would be equal")


def _add_messages(params: pb.GenerationParams, sampling: dict[str, Any], violations: Violations) -> None:
    if params.truncation_side != pb.TRUNCATION_SIDE_UNSPECIFIED:
        side = TRUNCATION_SIDES.get(params.truncation_side)
        violations.check(side is not None, "params.truncation_side", "is not known")
        sampling["truncation_side"] = side
    if params.HasField("repetition_detection"):
        detection = params.repetition_detection
        field = "params.repetition_detection"
        violations.check(detection.max_pattern_size >= 1, f"{field}.max_pattern_size", "must be at least 1")
        violations.check(detection.min_count >= 2, f"{field}.min_count", "must be at least 2")  # noqa: PLR2004
        ordered = detection.min_pattern_size <= detection.max_pattern_size
        violations.check(ordered, f"{field}.min_pattern_size", "must not be more than max_pattern_size")
        sampling["repetition_detection"] = {f.name: value for f, value in detection.ListFields()}
