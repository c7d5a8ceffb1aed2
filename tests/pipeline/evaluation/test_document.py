"""A table in Markdown and in LaTeX."""

from pipeline.evaluation.document import Bold, TextTable

TABLE = TextTable(
    ("Backbone", "Score"), [("VGG16-BN", Bold("0.857 ± 0.012")), ("a|b_c", "5 % & <0.001")], numbers_from=1
)


def test_markdown_aligns_numbers_to_the_right() -> None:
    assert TABLE.markdown() == (
        "| Backbone | Score |\n| --- | ---: |\n| VGG16-BN | **0.857 ± 0.012** |\n| a\\|b_c | 5 % & <0.001 |\n"
    )


def test_latex_is_a_booktabs_table_whose_special_signs_are_escaped() -> None:
    assert TABLE.latex("5 % of {all}").splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{5 \% of \{all\}}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"Backbone & Score \\",
        r"\midrule",
        r"VGG16-BN & \textbf{0.857 $\pm$ 0.012} \\",
        r"a|b\_c & 5 \% \& $<$0.001 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_a_backslash_and_a_brace_stay_what_they_are_in_latex() -> None:
    (row,) = [line for line in TextTable(("x",), [("\\{^~",)], 1).latex("c").splitlines() if "textbackslash" in line]
    assert row == r"\textbackslash{}\{\textasciicircum{}\textasciitilde{} \\"
