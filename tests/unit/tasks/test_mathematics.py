"""Expressions are read and compared in any thread, and no text costs more than a bounded amount of work."""

from __future__ import annotations

import subprocess
import sys
import threading
from fractions import Fraction

import pytest
from ratchet.tasks import mathematics
from ratchet.tasks.graders import grade_declared

HOSTILE = (
    "10^{10^{10}}",
    "10^(10^10)",
    "((9^{999})^{999})^{999}",
    "2^{2^{2^{2^{2}}}}",
    r"\sqrt[10^{10^{10}}]{2}",
    "((9!)!)!",
    "1000000!",
    r"\binom{1000000000}{500000000}",
    r"\sum_{i=1}^{10^{9}} i",
    r"\int_0^1 e^{x^2} dx",
    r"\lim_{x \to 0} x",
    r"2^x |_{x=10^{10}}",
    "(x+y+z+w)^{1000}",
    "x^{1000}+x+1=0",
    r"\operatorname{eye}(1000000)",
    r"\begin{pmatrix}" + "1&" * 60 + r"\end{pmatrix}",
    "(" * 100 + "1" + ")" * 100,
    r"\frac{1}{" * 30 + "2" + "}" * 30,
    "a^b^c^d^e^f^g",
    "9" * 200,
    "1/0",
    "0/0",
    "1=1",
    "9 500",
    "__import__('os').getcwd()",
    "eval(1)",
    "lambda: 1",
    "x" * 1_000,
    "$" * 300,
    "{" * 300,
    "\\" * 300,
    "",
    "=",
)


def test_what_could_grow_without_bound_is_no_expression() -> None:
    assert [text for text in HOSTILE if mathematics.parse(text) is not None] == []


def test_another_thread_reads_and_compares() -> None:
    found: list[object] = []

    def work() -> None:
        found.append(grade_declared("math", r"\frac{1}{\sqrt{2}}", r"\boxed{\frac{\sqrt{2}}{2}}").correct)
        found.append(grade_declared("math", "x^2-1", "(x-1)(x+1)").correct)
        found.append(grade_declared("math", "x^2-1", "(x-1)(x+2)").correct)
        found.append(sys.gettrace())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, True, False, None]


def test_endless_work_ends_with_the_default() -> None:
    def endless() -> bool:
        while True:
            Fraction(1)

    assert not mathematics.bounded(endless, default=False, most_calls=1_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^{10}", Fraction(1024)),
        (r"\frac{3 \cdot 4}{8}", Fraction(3, 2)),
        ("5!", Fraction(120)),
        (r"\lfloor 7/2 \rfloor", Fraction(3)),
        (r"\binom{5}{2}", Fraction(10)),
        (r"\sqrt{2}", None),
        ("2x", None),
        ("words of prose", None),
    ],
)
def test_the_value_of_an_expression(text: str, value: Fraction | None) -> None:
    assert mathematics.rational(text) == value


def test_numbers_are_graded_without_sympy() -> None:
    program = (
        "import sys; from ratchet.tasks.graders import grade_declared as grade, suggest_grader as suggest;"
        "right = [grade('numeric', '12', 'The answer is 12 km.').correct, grade('math', '1/2', '0.5').correct,"
        " suggest('12') == 'numeric', suggest('Paris') == 'normalized'];"
        "sys.exit('sympy' in sys.modules or not all(right))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
