"""Each source of examples, against a real child process, a real server and real scripts."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from datagen.batch_generation import BatchGeneration
from datagen.generators import generator
from datagen.generators.generator import GenerationContext, Generator, Order
from datagen.generators.script import Script
from datagen.generators.tasks import CHUNK, Tasks, to_line
from datagen.generators.teacher import Teacher
from ratchet.data.example import Example
from ratchet.errors import DataError, GenerationError, SettingsError, TransientError, UnknownPlugin
from ratchet.evaluation.suite import hold_out
from ratchet.processes.child_runner import ChildRunner
from ratchet.settings.serving import InferenceSettings
from ratchet.tasks import registry as tasks
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import grade_example

if TYPE_CHECKING:
    from conftest import TeacherServer

MIX = [("chain_sum", 2, 1.0), ("chain_sum", 3, 1.0)]
HELD = hold_out({"chain_sum": tasks.get("chain_sum")}, [("chain_sum", 2), ("chain_sum", 3)], seed=3)
ASKING = InferenceSettings(concurrency=4)


def batch(generator: Generator, folder: Path, n: int = 40, **workshop: Any) -> BatchGeneration:
    return BatchGeneration(
        generator, GenerationContext(HELD, folder, inference=ASKING, **workshop), MIX, n, seed=5, epoch_cap=9
    )


def script(folder: Path, body: str, **options: Any) -> Script:
    file = folder / "maker.py"
    file.write_text(textwrap.dedent(body))
    return Script(command=(sys.executable, str(file)), **options)


def test_generators_are_plug_ins_and_keep_to_the_protocol() -> None:
    options = {"teacher": {"base_url": "http://localhost:1", "model": "m"}, "script": {"command": ["true"]}}
    for name in generator.known_generators():
        assert isinstance(generator.make_generator(name, options.get(name, {})), Generator)


def test_unknown_generators_and_options_are_refused() -> None:
    with pytest.raises(UnknownPlugin, match=r"no generator 'teachers'.*Known: script, tasks, teacher"):
        generator.make_generator("teachers", {})
    with pytest.raises(SettingsError, match=r"generator teacher are wrong:\n.*base_url"):
        generator.make_generator("teacher", {"model": "m"})
    with pytest.raises(SettingsError, match="does not ask the"):
        generator.make_generator("teacher", {"base_url": "x", "model": "m", "templates": {"chain_sum": "hello"}})


def test_the_fast_line_equals_the_line_of_the_example() -> None:
    for family in ("chain_sum", "reverse", "rg:spell_backward"):
        problem = tasks.get(family).generate(1, 7)
        assert to_line(problem) == to_example(problem, "generation").to_line()


@pytest.mark.parametrize("workers", [1, 2])
def test_families_make_the_same_batch_in_any_number_of_processes(tmp_path: Path, workers: int) -> None:
    n = CHUNK + 500
    here = list(batch(Tasks(), tmp_path / "here", n).lines())
    with ChildRunner() as children:

        def child(target: str, spec: Any) -> dict[str, Any]:
            return children.run(target, spec)

        making = batch(Tasks(), tmp_path / "there", n, workers=workers, child=child)
        assert list(making.lines()) == here
    assert making.report.refused["held_out"] > 0
    assert list((tmp_path / "there").iterdir()) == []


def test_a_teachers_answers_are_graded_counted_and_paid_for(tmp_path: Path, teacher_server: TeacherServer) -> None:
    teacher_server.wrong_every, teacher_server.cut_every = 5, 7
    making = batch(Teacher(base_url=teacher_server.url, model="big"), tmp_path)
    examples = list(making)
    assert len(examples) == 40
    assert all(grade_example(example, example.answer or "").correct for example in examples)
    assert {example.metadata["source"] for example in examples} == {"teacher:big"}
    report = making.report
    assert report.refused["wrong_answer"] > 0
    assert report.refused["truncated"] > 0
    asked = len(teacher_server.asked)
    assert report.cost == {"requests": asked, "prompt_tokens": 7 * asked, "answer_tokens": 5 * asked}
    assert asked < 40 + report.refused["wrong_answer"] + report.refused["truncated"] + ASKING.concurrency
    assert not any(example.metadata["key"] in HELD for example in examples)


@pytest.mark.parametrize("every", [3, 1])
def test_a_teacher_that_only_reasons_is_told_apart_and_not_asked_on(
    tmp_path: Path, teacher_server: TeacherServer, every: int
) -> None:
    teacher_server.reasoned_every = every
    making = batch(Teacher(base_url=teacher_server.url, model="big"), tmp_path)
    if every == 1:
        with pytest.raises(GenerationError, match="raise max_tokens above 512, or switch reasoning off"):
            list(making)
        assert len(teacher_server.asked) == making.report.cost["requests"] <= ASKING.concurrency
    else:
        assert len(list(making)) == 40
        assert making.report.refused["reasoning_only"] > 0
        assert making.report.refused.get("truncated", 0) == 0


def test_a_teacher_is_asked_by_the_familys_template(tmp_path: Path, teacher_server: TeacherServer) -> None:
    templates = {"chain_sum": "Solve: {question}"}
    teacher = Teacher(base_url=teacher_server.url, model="big", system="Show each sum.", templates=templates)
    examples = list(batch(teacher, tmp_path, 5))
    messages = teacher_server.asked[0]["messages"]
    assert messages[0] == {"role": "system", "content": "Show each sum."}
    assert messages[1]["content"].startswith("Solve: ")
    assert not any("Solve" in example.question for example in examples)


def test_an_unreachable_teacher_is_a_transient_error(tmp_path: Path, teacher_server: TeacherServer) -> None:
    url = teacher_server.url.replace(str(teacher_server.server_port), "1")
    with pytest.raises(TransientError):
        list(batch(Teacher(base_url=url, model="big"), tmp_path).lines())


def test_answers_before_or_beside_a_failure_are_counted_as_cost(tmp_path: Path, teacher_server: TeacherServer) -> None:
    teacher_server.refused = range(10, 11)
    bills: list[dict[str, int]] = []
    making = batch(Teacher(base_url=teacher_server.url, model="big"), tmp_path, paid=bills.append)
    with pytest.raises(GenerationError):
        list(making.lines())
    came = len(teacher_server.asked) - 1
    assert making.report.cost == {"requests": came, "prompt_tokens": 7 * came, "answer_tokens": 5 * came}
    assert sum(bill["requests"] for bill in bills) == came >= 9


def test_a_teacher_that_is_always_wrong_ends_the_batch_short(tmp_path: Path, teacher_server: TeacherServer) -> None:
    teacher_server.wrong_every = 1
    making = batch(Teacher(base_url=teacher_server.url, model="big"), tmp_path, 4)
    assert list(making.lines()) == []
    assert making.report.refused["wrong_answer"] == len(teacher_server.asked) < 400


HONEST = """
    import json, random, sys
    order = json.loads(sys.stdin.readline())
    draw = random.Random(order["seed"] * 100 + order["part"])
    for _ in range(order["count"]):
        level = draw.choice(order["levels"])["level"]
        terms = [draw.randrange(50)] + [draw.randrange(10) for _ in range(level)]
        question = "+".join(map(str, terms)) + "="
        print(json.dumps({"prompt": question, "completion": f"={sum(terms)}", "skill": "chain_sum"}))
"""


def test_a_script_reads_an_order_and_writes_rows_in_any_known_shape(tmp_path: Path) -> None:
    first, again = (list(batch(script(tmp_path, HONEST), tmp_path / "work").lines()) for _ in range(2))
    assert first == again
    examples = [Example.model_validate_json(line) for line in first]
    assert len(examples) == 40
    assert {(example.family, example.level) for example in examples} == {("chain_sum", 2), ("chain_sum", 3)}
    assert not any(example.metadata["key"] in HELD for example in examples)


def test_wrong_rows_of_a_script_are_refused_and_counted(tmp_path: Path) -> None:
    rows = """
        print('{"prompt": "1+2+3=", "completion": "=7", "skill": "chain_sum"}')
        print('{"prompt": "1+2+3=", "completion": "=6", "skill": "chain_sum"}')
        print('{"prompt": "1+2=", "completion": "=3", "skill": "chain_sum"}')
        print('{"prompt": "What is love?", "completion": "42", "skill": "chain_sum"}')
        print("no json")
    """
    making = batch(script(tmp_path, rows), tmp_path / "work", 3)
    made = list(making.lines())
    assert len(set(made)) == 1
    refused = making.report.refused
    assert min(refused[why] for why in ("wrong_answer", "not_ordered", "unknown_question", "unreadable")) > 0


@pytest.mark.parametrize("name", ["babi_qa1_100", "binary_100", "gsm8k_200", "syllo_easy_50"])
def test_unordered_real_rows_are_refused_each_with_its_reason(tmp_path: Path, name: str) -> None:
    rows = Path(__file__).parents[3] / "data" / f"{name}.jsonl"
    making = batch(Script(command=("cat", str(rows))), tmp_path / "work", 10)
    assert list(making.lines()) == []
    refused, read = making.report.refused, len(rows.read_text().splitlines())
    assert sum(refused.values()) % read == 0
    assert set(refused) == {"unknown_question"}


def test_a_failing_script_is_reported_with_its_output(tmp_path: Path) -> None:
    broken = script(tmp_path, "raise SystemExit('no cheese')")
    with pytest.raises(DataError, match="code 1: no cheese"):
        list(batch(broken, tmp_path / "work").lines())
    with pytest.raises(SettingsError, match="cannot be run"):
        list(batch(Script(command=(str(tmp_path / "absent"),)), tmp_path / "work").lines())


def test_a_script_past_its_timeout_is_killed(tmp_path: Path) -> None:
    sleeper = script(tmp_path, "import time; time.sleep(600)", timeout_s=0.5)
    with pytest.raises(DataError, match=r"longer than 0.5 s"):
        list(batch(sleeper, tmp_path / "work").lines())


def test_an_order_is_the_same_value_wherever_it_is_read() -> None:
    order = Order(seed=1, part=0, count=5, weights=(("chain_sum", 1, 0.5),))
    assert Order.model_validate(order.model_dump(mode="json")) == order
