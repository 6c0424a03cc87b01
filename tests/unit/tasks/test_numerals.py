"""A number is read by its value or not at all: no wrong answer is graded right because a part was skipped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.tasks import graders

RIGHT = (
    # gold, answer
    ("-5", "\u22125"),  # every sign of Unicode that stands for a minus
    ("-5", "\uff0d5"),
    ("-5", "\ufe635"),
    ("-5", "\u20105"),
    ("-5", "\u20115"),
    ("-5", "\u20125"),
    ("-5", "\u20135"),
    ("-5", "The answer is \u22125."),
    ("5", "\uff0b5"),
    ("\u22125", "-5"),
    ("72", "７２"),  # digits of any script
    ("72", "٧٢"),
    ("72", "𝟕𝟐"),
    ("1000", "１，０００"),
    ("9500", "$9{,}500$"),
    ("9500", r"The total is $9{,}500$."),
    ("5000", r"5 \times 10^{3}"),
    ("5000", r"$5 \times 10^{3}$"),
    ("5000", "5 × 10³"),
    ("5000", "5*10^3"),
    ("0.005", "5 × 10⁻³"),
    ("1000", "10^3"),
    ("5000", "5e3"),
    ("0.005", "5e\u22123"),
    ("0.5", "1/2"),
    ("0.5", "1⁄2"),
    ("1/2", "0.5"),
    ("0.5", r"\frac{1}{2}"),
    ("-0.5", r"$-\dfrac{1}{2}$"),
    ("1234.5", "1,234.5"),
    ("1234567", "1,234,567"),
    ("-5", "-$5"),
    ("-5", "$-5"),
    ("-5", "\u2212€5"),
    ("5", "US$5"),
    ("5", r"\$5"),
    ("5", "5%"),  # of a percentage the number is read as written
    ("5", r"5\%"),
    ("12", "It takes 12km."),
    ("12", "12 cm²"),
    ("12", "12cm²"),
    ("12", "**12**"),
    ("12", "So the answer is **12**."),
    ("12", "It is **12** (since 3 * 4 = 12)."),
    ("12", "That makes *12* (twelve)."),
    ("12", "The total is **12**."),
    ("12", "The total is **$12**, all in all."),
    ("12", "* 12 apples"),
    ("12", "**Total: 12 apples**"),
    ("12", "He sells 3*4=<<3*4=12>>12 apples."),
    ("12", "12 cm^2"),
    ("12", r"12 cm^{2}"),
    ("12", "12<|im_end|>"),
    ("12", "5 + 7 = 12"),
    ("12", "`12`"),
    ("12", "x=12"),
    ("12", "x = 12;"),
    ("12", "(12)"),
    ("12", "<answer>12</answer>"),
    ("12", r"\(12\)"),
    ("12", r"12 \text{ cm}"),
    ("12", "答案是12。"),
    ("12", "12个苹果"),
    ("12", "정답은 12입니다."),
    ("12", "3 + 9 = 12"),
    ("12", "a 12-year plan"),
    ("12", "$12/hour"),
    ("7", r"\boxed{7}, since 3 + 4 is what 2 rows of 9 leave."),
    ("7", r"\boxed{x = 7}"),
    ("0.5", r"so \boxed{\frac{1}{2}} it is"),
    ("9500", r"\boxed{\$9{,}500}"),
    ("7", "The answer is 7 (see step 2)"),
    ("7", "#### 7\n\nThis took 3 steps."),
    ("12", "She pays 3.\n#### 12"),
    ("7", "#### Step 2: add\nThe sum is 7"),
    ("7", "1 " * 15_000 + "#### 7"),
    ("7", "7"),
    ("0", "-0"),
    ("0.3", "0.30"),
    ("3", "3.000"),
    ("0.3333333", "1/3"),
    ("1000000.5", "1000000.6"),  # 1 part in 10⁶ of what is no integer
    ("7", "#### 1. Set up the equation\nSo x = 7"),  # a heading is no mark
    ("7", "#### 10 - 3 = 7"),  # of an equation what it comes to
    ("7", "The answer is 10 - 3 = 7."),
    ("7", "Answer: 2 hours + 5 hours = 7 hours"),
    ("7", "Answer: 20% of 35 = 7"),
    ("7", "The answer is 7, since 3 + 4 = 7."),
    ("7", r"\boxed{10 - 3 = 7}"),
    ("7", "#### 7 apples"),
    ("7", "#### **7** (3 red, 4 green)"),
    ("1250", "#### $1,250.00"),
    ("7", "**Answer:**\n\n$$7$$"),
    ("45", r"\boxed{45^\circ}"),
    ("45", r"$45^{\circ}$"),
    ("7", "The final answer is: $7.$"),
    ("7", r"\boxed{\left(7\right)}"),
    ("7", r"\boxed{7~\text{apples}}"),
    ("7", r"\boxed{\text{7 cm}}"),
    ("7", r"\fbox{7}"),
    ("9500", r"\boxed{9,\!500}"),
    ("7", r"\\boxed{7}"),
    ("7", "<final_answer>7</final_answer>"),
    ("7", "<think>3 or 4</think>7"),
    ("42", "42..."),
    ("42", "42…"),
    ("7", "**7**—correct"),
    ("42", "=>42"),
    ("15", "₩15"),
    ("15", "15 ₺"),
    ("-5", "-Rs. 5"),
    ("5", "USD 5"),
    ("7", r"7 \text{ cm}^2"),
    ("60", "60 m2"),
    ("60", "60m2"),
    ("-5", "-**5**"),
)

WRONG = (
    ("5", "\u22125"),
    ("5", "\uff0d5"),
    ("5", "\ufe635"),
    ("5", "\u20105"),
    ("5", "\u20115"),
    ("5", "\u20125"),
    ("5", "\u20135"),
    ("5", "\u20145"),
    ("5", "\u02d75"),
    ("5", "\u27965"),
    ("5", "\u207b5"),
    ("5", "-$5"),
    ("5", "$-5"),
    ("5", "\u2212$5"),
    ("5", "-€5"),
    ("5", "-(5)"),
    ("5", "- 5"),
    ("5", "The answer is - 5"),
    ("5", "The answer is \u2212 5"),
    ("5", "minus 5"),
    ("5", "negative 5"),
    ("5", "--5"),
    ("5", "+-5"),
    ("5", "±5"),
    ("5", "10-5"),
    ("5", "10\u22125"),
    ("5", "10 - 5"),
    ("5", "3-5"),
    ("7", "2024-05-07"),
    ("10", "5 × 10"),
    ("3", r"10^{3}"),
    ("3", "5 × 10³"),
    ("10", "5 × 10³"),
    ("10", "10³"),
    ("103", "10³"),
    ("5", "5²"),
    ("52", "5²"),
    ("2", "5^2"),
    ("2", "x^2"),
    ("12", "12 * 3"),
    ("3", "12 * 3"),
    ("3", "12*3"),
    ("3", "12 ** 3"),
    ("3", "n * 3"),
    ("12", "12*3"),
    ("12", "12**2"),
    ("12", "#### 12 * (3 + 4)"),
    ("12", "#### 12 - .5"),
    ("2", "x²"),
    ("2", "x2"),
    ("5", "√5"),
    ("5", r"\sqrt{5}"),
    ("5", "sqrt(5)"),
    ("2", r"\frac{1}{2}"),
    ("2", r"1\frac{1}{2}"),
    ("5.5", r"1\frac{1}{2}"),
    ("2", "1/2"),
    ("0.5", "1 1/2"),
    ("2", "1/0"),
    ("2", "2 ½"),
    ("2", "2½"),
    ("12", "2 of 12, that is ½"),
    ("3", "1/2/3"),
    ("1000000", "1000001"),
    ("0.0000001", "0.0000002"),
    ("1" + "0" * 40, "1" + "0" * 39 + "1"),
    ("1", "1.00001"),
    ("5", "1,2345"),
    ("2345", "1,2345"),
    ("3", "1,2,3"),
    ("5", "1,5"),
    ("5", "2,5"),
    ("1.234", "1.234,5"),
    ("5", "1.234,5"),
    ("1234.5", "1.234.5"),
    ("5", "1.234.5"),
    ("3", "1.2.3"),
    ("500", "9\u00a0500"),
    ("500", "9 500"),
    ("500", "9'500"),
    ("500", "9_500"),
    ("500", r"9\,500"),
    ("30", "10:30"),
    ("5", "٫5"),
    ("5", "5k"),
    ("5", "5M"),
    ("5", "5万"),
    ("5", "5 万"),
    ("5", "负5"),
    ("5", "第5"),
    ("5", "5만"),
    ("5", "5‰"),
    ("5", ">5"),
    ("5", "≥5"),
    ("16", "0x16"),
    ("10", "1e10"),
    ("3", "5e3"),
    ("1", "1e9999"),
    ("4", "GPT-4"),
    ("0.333", "0.333..."),
    ("3.14", "3.14…"),
    ("3", "#### 3 + 4 = 7"),
    ("250", "It costs 250 or 251."),
    ("7", r"\boxed{3, 7}"),
    ("7", r"\boxed{8} or 7"),
    ("7", "9" * 30_000 + "7"),
    ("7", "#### " + "9" * 30_000 + "7"),
    ("7", ""),
)

NOT_READ = (
    "I first thought the answer is 3, but that is wrong: it is 4",
    "**Answer:** 7, of 9",
    "The answer is: $7$. I checked it 3 times.",
    "The answer is not 5 but 7",
    "The answer is - **5**",
    "x = - (5)",
    r"- \(5\)",
    r"-\text{5}",
    "-$ 5",
    "- USD 5",
    "negative **5**",
    "-<b>5</b>",
    "|-7|",
    r"-\boxed{5}",
    r"\boxed{5}\pi",
    r"\boxed{5} million",
    r"\boxed{5}^2",
    r"\boxed{5!}",
    r"\boxed{\sqrt 5}",
    r"\boxed{2 \pi}",
    r"\boxed{2\sqrt{3}}",
    r"\boxed{2x}",
    r"\boxed{2 x}",
    r"\boxed{7 + x}",
    r"\boxed{7 - x}",
    r"\boxed{2(5)}",
    r"\boxed{x = 7, y = 8}",
    r"\boxed{\pm 5}",
    r"\log 5",
    r"\ln 5",
    r"\sin 5",
    "log 5",
    "x ≠ 5",
    r"x \neq 5",
    "x != 5",
    "x < 5",
    "x > 5",
    "x ≤ 5",
    "x >= 5",
    "x is not 5",
    "less than 5",
    "5 thousand",
    "5 million",
    "**5** million",
    "5-million",
    "5 billion",
    "5 dozen",
    "5 hundred",
    "#### 5 million",
    "5K",
    "5 k",
    "5B",
    "5 π",
    "5 squared",
    "5 and a half",
    "3€50",
)


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_the_same_value_is_right(gold: str, answer: str) -> None:
    assert graders.grade_declared("numeric", gold, answer).correct


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_another_value_or_an_unreadable_text_is_wrong(gold: str, answer: str) -> None:
    assert not graders.grade_declared("numeric", gold, answer).correct


@pytest.mark.parametrize("answer", NOT_READ)
def test_an_ambiguous_text_has_no_number(answer: str) -> None:
    assert graders.grade_declared("numeric", "5", answer).extracted is None


@pytest.mark.parametrize(
    ("gold", "grader"),
    [
        ("72", "numeric"),
        ("-72", "numeric"),
        ("\u221272", "numeric"),
        ("７２", "numeric"),
        ("1,250", "numeric"),
        ("$3.10", "numeric"),
        ("3.14", "numeric"),
        ("12.0", "numeric"),
        ("50%", "numeric"),
        ("1,2,3", "normalized"),
        ("1,5", "normalized"),
        ("1.234,5", "normalized"),
        ("1,2345", "normalized"),
        ("3.10", "numeric"),
        ("007", "normalized"),
        ("1.2.3", "normalized"),
        ("2024-05-07", "normalized"),
        ("9" * 2_000, "normalized"),
    ],
)
def test_numeric_is_suggested_for_one_well_formed_number_alone(gold: str, grader: str) -> None:
    assert graders.suggest_grader(gold) == grader
    assert graders.grade_declared(graders.suggest_grader(gold), gold, gold).correct


@pytest.mark.parametrize(("gold", "answer"), [("1,2,3", "9,9,3"), ("1,5", "2,5"), ("1,5", ".1,5")])
def test_the_suggested_grader_tells_different_values_apart(gold: str, answer: str) -> None:
    assert not graders.grade_declared(graders.suggest_grader(gold), gold, answer).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("[9007199254740993.0]", "[9007199254740992.0]"),
        ("[0.1]", "[0.1000000000000000001]"),
        ("[0.1234567890123456789012345678901]", "[0.1234567890123456789012345678902]"),
        ("[1e400]", "[1e999]"),
        ("[1e400]", "[1e999999999]"),
        ('{"x": 1}', '{"x": 1e9999999999999999999}'),
        ('{"x": 1e9999999999999999999}', '{"x": 1}'),
    ],
)
def test_numbers_in_json_are_compared_by_value(gold: str, answer: str) -> None:
    assert not graders.grade_declared("json", gold, answer).correct


SIGNS = ("", "-", "+", "\u2212", "\uff0d", "\ufe63", "\u2010", "\u2011", "\u2012", "\u2013", "\uff0b")
ZEROS = (*(chr(zero) for zero in (0x30, 0x660, 0x966, 0xFF10, 0x1D7CE)),)
FRAMES = (
    "{}",
    "The answer is {}.",
    "#### {}",
    "x = {}",
    "**{}**",
    r"\boxed{{{}}}",
    "Of 3 and 4 comes\n\nthe sum {}",
    "({})",
    "So the answer is **{}**.",
)


@st.composite
def spellings(draw: st.DrawFn, number: int) -> str:
    """A text that gives the number."""
    zero = ord(draw(st.sampled_from(ZEROS)))
    digits = f"{abs(number):,}" if draw(st.booleans()) else str(abs(number))
    signs = [sign for sign in SIGNS if (sign in ("", "+", "\uff0b")) == (number >= 0)]
    spelt = "".join(chr(zero + int(d)) if d.isdigit() else d for d in digits)
    frame = draw(st.sampled_from(FRAMES))
    text = draw(st.sampled_from(signs)) + spelt
    return frame.format(*[text] * frame.count("{}"))


@given(st.data(), st.integers(), st.integers())
def test_an_integer_is_right_exactly_if_it_is_equal_however_it_is_spelt(data: st.DataObject, n: int, m: int) -> None:
    m = n if data.draw(st.booleans()) else m
    answer = data.draw(spellings(m))
    assert graders.grade_declared("numeric", str(n), answer).correct == (n == m), answer


@given(st.text(alphabet="05-−.,eE/^ {}()$%×\\x²½\n#:=", max_size=40))
def test_every_number_that_is_read_can_be_graded_and_shown(text: str) -> None:
    grade = graders.grade_declared("numeric", "5", text)
    if grade.extracted is not None:
        assert graders.grade_declared("numeric", str(grade.extracted), str(grade.extracted)).correct


@pytest.mark.parametrize(
    "text",
    [
        "-" * 100_000 + "5",
        "1," * 50_000,
        "1/" * 50_000,
        "1e" * 50_000,
        "10^" * 33_000,
        "9" * 100_000,
        "５" * 100_000,
        "½" * 100_000,
        "." * 100_000 + "5",
        "{" * 100_000 + "5",
        "(" * 100_000 + "5" + ")" * 100_000,
        "5" + " " * 99_999,
        "answer is " * 10_000,
        "answer" + "*" * 100_000,
        "\\boxed{" * 15_000,
        "```" + "\n" * 100_000,
        "```json\n" * 12_000,
        "#### " * 20_000,
        "#### 7 x\n" * 10_000,
        "*" * 100_000,
        "(*a " * 25_000,
        "**a" * 33_000,
        "\\" * 100_000,
        "<" * 100_000,
        "<a" * 50_000,
        "|1" * 50_000,
        " (" * 50_000,
        "answer: " + "1, " * 30_000,
        "answer: " + "1 = " * 25_000,
        "x" * 100_000 + "5",
    ],
)
def test_long_texts_are_read_in_bounded_time(text: str) -> None:
    for grader in ("numeric", "math", "choice", "json", "normalized"):
        gold = "B" if grader == "choice" else "77"
        assert graders.grade_declared(grader, gold, text).error in ("wrong", "format", "ambiguous")


FRAGMENTS = st.sampled_from(
    [
        *'05.,-+/^{}()[]|$%"\n *½²\ud800',
        *(
            "#### ",
            "answer is ",
            "x^{2}",
            "\\sqrt{2}",
            "A) ",
            "\\boxed{",
            "\\frac{",
            "(add ",
            '{"x": ',
            "1e999",
            "1e9999999999999999999",
        ),
        *("9" * 900, "0." + "1" * 1_000 + "/", "3/0." + "0" * 900 + "7", f"1/{2**2_000}"),
    ]
)
TEXTS = st.text() | st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join)


@pytest.mark.parametrize("grader", graders.declared_graders())
@given(gold=TEXTS, answer=TEXTS)
def test_no_text_can_stop_a_grader(grader: str, gold: str, answer: str) -> None:
    graders.grade_declared(graders.suggest_grader(gold), gold, answer)
    grade = graders.grade_declared(grader, gold, answer, pattern="(5+)?")
    assert grade.model_dump_json()


def test_a_long_fraction_is_shown() -> None:
    long = "0." + "1" * 900 + "/" + str(2**2_000)
    for answer in (long, "1e999", "1e-999", "." + "7" * 1_000 + "e-999"):
        assert graders.grade_declared("numeric", answer, answer).correct
