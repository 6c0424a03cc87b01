from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from deployer.canary import MIN_ERRORS, MIN_REQUESTS, Canary, alarm, compare, reply
from ratchet.data.example import Example
from ratchet.evaluation.record import ItemRecord, RecordKey
from ratchet.inference.generator import Generation
from ratchet.serving.protocol import Conditions, Traffic
from ratchet.settings.serving import ServingSettings

JUDGED_UNDER = RecordKey(
    weights="w", suite="s", grader="g", decoding="d", dtype="fp32", engine="transformers", gpu_class="cpu"
)
SAME = Conditions(engine="transformers", dtype="fp32", gpu_class="cpu")
OTHER = Conditions(engine="vllm", dtype="bf16", gpu_class="rtx-3090")
LOGPROBS = (-0.1, -0.2, -0.3)


@dataclass(frozen=True)
class Row:
    """One canary item, by default judged and served alike. The right answer is ``2``."""

    judged: str = "2"
    served: str = "2"
    judged_ids: tuple[int, ...] = (5, 6, 7)
    served_ids: tuple[int, ...] = (5, 6, 7)
    judged_logprobs: tuple[float, ...] = LOGPROBS
    served_logprobs: tuple[float, ...] = LOGPROBS
    scored: tuple[float, ...] = LOGPROBS
    finish_reason: str = "stop"

    def record(self) -> ItemRecord:
        return ItemRecord(
            item_id="1",
            key="1",
            family="text",
            level=1,
            answer=self.judged,
            extracted=self.judged,
            extraction="ok",
            correct=self.judged == "2",
            token_logprobs=self.judged_logprobs,
            finish_reason=self.finish_reason,
            latency_s=0.0,
            token_ids=self.judged_ids,
        )

    def generation(self) -> Generation:
        return Generation(
            text=self.served,
            token_ids=self.served_ids,
            token_logprobs=self.served_logprobs,
            finish_reason="stop",
            prompt_tokens=3,
            latency_s=0.0,
            weights="w",
        )


def check(rows: Sequence[Row], served_under: Conditions | None = SAME, logprob_epsilon: float | None = None) -> Canary:
    return compare(
        [Example.ask("1+1=", "2", grader="exact", gold="2")] * len(rows),
        [row.record() for row in rows],
        [row.generation() for row in rows],
        [row.scored for row in rows],
        ServingSettings(logprob_epsilon=logprob_epsilon),
        judged_under=JUDGED_UNDER,
        served_under=served_under,
    )


def moved(by: float) -> Row:
    return Row(scored=(LOGPROBS[0], LOGPROBS[1] + by, LOGPROBS[2]))


def test_the_same_model_passes_with_its_numbers() -> None:
    canary = check([Row()] * 4)
    assert canary.passed
    assert canary.reason == ""
    assert (canary.numbers.items, canary.numbers.compared, canary.numbers.same_texts) == (4, 4, 4)
    assert (canary.numbers.largest_difference, canary.numbers.is_text_required) == (0.0, True)


def test_one_changed_token_fails() -> None:
    canary = check([*[Row()] * 9, moved(0.002)])
    assert not canary.passed
    assert "a log-probability differs by 0.002 from the judged one, over 0.001" in canary.reason


def test_the_coarser_dtype_sets_the_tolerance_unless_it_is_set() -> None:
    rest = [Row()] * 9
    assert check([moved(0.5), *rest], OTHER).passed
    assert not check([moved(0.8), *rest], OTHER).passed
    assert not check([moved(0.1), *rest], OTHER, logprob_epsilon=0.05).passed
    assert check([moved(0.1), *rest], None).numbers.epsilon == 0.001


def test_small_differences_of_many_tokens_fail_in_the_mean() -> None:
    canary = check([moved(0.5)] * 4, OTHER)
    assert not canary.passed
    assert "differ by 0.17 a token in the mean from the judged ones, over 0.1" in canary.reason


def test_nan_never_passes() -> None:
    assert not check([Row(), moved(math.nan)]).passed
    assert not check([moved(math.nan)] * 2).passed


def test_worse_grades_fail_and_changed_ones_that_balance_do_not() -> None:
    lost = Row(served="3", served_ids=(5, 8, 7), served_logprobs=(-0.1, -2.0, -0.3))
    won = Row(judged="3", served_ids=(5, 8, 7), served_logprobs=(-0.1, -2.0, -0.3))
    assert "1 of 3 items lost, 0 won" in check([Row(), Row(), lost], OTHER).reason
    assert check([Row(), lost, won], OTHER).passed


def test_text_must_be_the_same_on_the_same_engine_alone() -> None:
    reworded = Row(judged=" 2", judged_ids=(4, 6, 7), served_logprobs=(-0.9, -0.2, -0.3))
    assert "1 of 2 answers differ from the judged text" in check([Row(), reworded], SAME).reason
    assert check([Row(), reworded], OTHER).passed


def test_a_tie_of_two_tokens_may_fall_the_other_way() -> None:
    tied = Row(judged=" 2", judged_ids=(4, 6, 7), served_logprobs=(-0.1005, -1.0, -2.0))
    canary = check([tied], SAME)
    assert canary.passed
    assert canary.numbers.ties == 1


def test_a_grade_that_a_tie_decides_is_not_lost() -> None:
    tied = Row(served="3", served_ids=(4, 6, 7), served_logprobs=(-0.1005, -1.0, -2.0))
    assert check([Row(), tied], SAME).passed
    clear = replace(tied, served_logprobs=(-0.9, -1.0, -2.0))
    assert "1 of 2 items lost, 0 won" in check([Row(), clear], SAME).reason


def test_a_record_without_tokens_is_compared_by_its_text() -> None:
    row = Row(judged_ids=())
    assert reply(row.record()) == "2"
    assert reply(Row().record()) == (5, 6, 7)
    assert check([row]).passed
    assert not check([replace(moved(0.01), judged_ids=())]).passed


def test_a_text_at_its_limit_has_no_end_token_to_compare() -> None:
    cut = Row(judged_ids=(), finish_reason="length", scored=(*LOGPROBS, -9.0))
    assert check([cut]).numbers.compared == 1
    assert check([replace(cut, scored=(*LOGPROBS[:2], -9.0))], OTHER).numbers.compared == 1


def test_tokens_that_do_not_line_up_are_compared_as_served() -> None:
    respelled = Row(judged_ids=(), scored=(-0.5,))
    assert check([respelled]).passed
    assert not check([replace(respelled, served_logprobs=(-0.1, -0.2, -0.9))]).passed


def test_too_little_to_compare_is_a_failure() -> None:
    foreign = Row(judged_ids=(), scored=(-0.5,), served_logprobs=(-0.5,))
    assert check([Row(), foreign]).passed
    assert "only 1 of 3 canary items" in check([Row(), foreign, foreign]).reason
    assert "only 0 of 0 canary items" in check([]).reason


LIMITS = ServingSettings(max_error_rate=0.02, max_latency_ratio=3.0)
BEFORE = Traffic(requests=500, latency_p95_s=0.1)


@pytest.mark.parametrize(
    "new",
    [
        Traffic(),
        Traffic(requests=100, errors=2, latency_p95_s=0.1),
        Traffic(requests=100, latency_p95_s=0.3),
        Traffic(requests=MIN_REQUESTS - 1, latency_p95_s=9.0),
        Traffic(requests=100, latency_p95_s=None),
    ],
    ids=["no traffic", "errors at the limit", "latency at the limit", "too few to tell", "no latency"],
)
def test_a_healthy_watch_raises_no_alarm(new: Traffic) -> None:
    assert alarm(new, BEFORE, LIMITS) is None


def test_errors_over_the_limit_raise_an_alarm_with_their_counts() -> None:
    assert alarm(Traffic(requests=100, errors=3), None, LIMITS) == ("3 of 100 requests failed, over the limit of 2%")


def test_a_few_failed_requests_raise_no_alarm_and_one_more_does() -> None:
    few = MIN_ERRORS - 1
    assert alarm(Traffic(requests=few, errors=few), None, LIMITS) is None
    assert alarm(Traffic(requests=MIN_ERRORS, errors=MIN_ERRORS), None, LIMITS) is not None


@pytest.mark.parametrize(("errors", "is_usual"), [(20, True), (21, False)])
def test_an_error_rate_that_the_last_champion_had_raises_no_alarm(errors: int, is_usual: bool) -> None:
    overloaded = Traffic(requests=50, errors=10, latency_p95_s=0.1)
    assert (alarm(Traffic(requests=100, errors=errors), overloaded, LIMITS) is None) is is_usual


def test_slow_answers_are_compared_with_the_last_champion() -> None:
    said = alarm(Traffic(requests=100, latency_p95_s=0.42), BEFORE, LIMITS)
    assert said == "95 % of requests take up to 0.420 s, 4.2 times as long as with the previous champion (limit 3.0)"


@pytest.mark.parametrize("before", [None, Traffic(), Traffic(requests=MIN_REQUESTS - 1, latency_p95_s=0.1)])
def test_without_a_champion_to_compare_with_latency_raises_no_alarm(before: Traffic | None) -> None:
    assert alarm(Traffic(requests=100, latency_p95_s=60.0), before, LIMITS) is None


@pytest.mark.parametrize(
    ("new", "wider"),
    [
        (Traffic(requests=100, errors=3), {"max_error_rate": 0.03}),
        (Traffic(requests=100, latency_p95_s=0.42), {"max_latency_ratio": 5.0}),
    ],
    ids=["max_error_rate", "max_latency_ratio"],
)
def test_the_limits_of_the_watch_follow_the_settings(new: Traffic, wider: dict[str, float]) -> None:
    assert alarm(new, BEFORE, LIMITS) is not None
    assert alarm(new, BEFORE, ServingSettings.model_validate(wider)) is None
