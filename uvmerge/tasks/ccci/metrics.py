"""How alike a candidate and the code that was there are: CodeBLEU, BLEU-4, edit similarity, exact match.

CodeBLEU (arXiv 2009.10297) is the mean of four components: BLEU of tokens, BLEU with keywords weighted,
subtrees of the syntax in common, data flow in common. The package `codebleu` gives the components; they
are joined here. It splits at white space, of which Java code needs little, so that two statements are
0.642 of themselves, and it counts a data flow of 0 as 1, so that nothing is 0.25 of them. Here code is
split into Java's tokens, data flow is left out only where the reference has none, and nothing is 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import UsageError
from .java import INSTALL

METRICS = ("codebleu", "bleu4", "edit_similarity", "exact_match")
NO_CODEBLEU = "codebleu is not installed: pip install 'uvmerge[ccci]' under Python 3.10 to 3.12"
_MOST = 4000
_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)              # a comment, which is no token
    |(?P<token>\"{3}.*?(?:\"{3}|\Z)            # a text block
    |"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'? # a string, a character
    |(?:0[xX][\da-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)[lLfFdD]?
    |[^\W\d]\w*|>>>=|<<=|>>=|\.\.\.|->|::|\+\+|--|&&|\|\||<<
    |[=!<>+\-*/%&|^]=|\S)""",
    re.VERBOSE | re.DOTALL,
)


def tokens(code: str) -> list[str]:
    """The tokens of Java code, without comments; code that is broken has tokens as well.

    `>>` is two tokens, since it mostly ends two type arguments.
    """
    return [found["token"] for found in _TOKEN.finditer(code) if found["token"] is not None]


def without_comments(code: str) -> str:
    """Java code with nothing in place of each comment."""
    return _TOKEN.sub(lambda found: found[0] if found["token"] is not None else "", code)


def need_packages() -> None:
    """Import what all metrics but CodeBLEU need.

    Raises:
        UsageError: a package of the extra `ccci` is missing.
    """
    for package in ("sacrebleu", "rapidfuzz.distance"):
        _needed(package)


def similarities(candidate: str, reference: str) -> dict[str, float]:
    """The metrics of a candidate, each between 0 and 1; without `codebleu` where that is not installed.

    Of a candidate the first 4,000 characters count: nested code costs the square of its length.

    Raises:
        UsageError: a package of the extra `ccci` is missing.
    """
    candidate = candidate[:_MOST]
    found = {
        "bleu4": bleu4(candidate, reference),
        "edit_similarity": edit_similarity(candidate, reference),
        "exact_match": float(_lines(candidate) == _lines(reference)),
    }
    return {"codebleu": codebleu(candidate, reference), **found} if has_codebleu() else found


@cache
def has_codebleu() -> bool:
    """Whether CodeBLEU can be computed here."""
    try:
        _language()
    except (
        ImportError,
        TypeError,
    ):  # TypeError: a tree-sitter-java of another time than tree-sitter
        return False
    return True


def codebleu(candidate: str, reference: str) -> float:
    """The mean of the components of CodeBLEU."""
    parts = components(candidate, reference)
    return sum(parts.values()) / len(parts)


def components(candidate: str, reference: str) -> dict[str, float]:
    """`ngram`, `weighted_ngram`, `syntax`, and `dataflow` if the reference has any.

    All are 0 where the candidate has no tokens.
    """
    from codebleu import bleu, dataflow_match, syntax_match, weighted_ngram_match

    ours, theirs, language = tokens(candidate), tokens(reference), _language()
    weights = {token: 1.0 if token in _keywords() else 0.2 for token in theirs}
    flows = _flows(reference, language)
    if not ours:
        return dict.fromkeys(["ngram", "weighted_ngram", "syntax", *(["dataflow"] * flows)], 0.0)
    found = {
        "ngram": bleu.corpus_bleu([[theirs]], [ours]),
        "weighted_ngram": weighted_ngram_match.corpus_bleu([[[theirs, weights]]], [ours]),
        "syntax": syntax_match.corpus_syntax_match([[reference]], [candidate], "java", language),
    }
    if flows:
        found["dataflow"] = dataflow_match.corpus_dataflow_match(
            [[reference]], [candidate], "java", language
        )
    return {name: float(value) for name, value in found.items()}


def bleu4(candidate: str, reference: str) -> float:
    """BLEU of up to four tokens in a row, of as many as the candidate has if it has fewer."""
    sacrebleu = _needed("sacrebleu")
    scorer = sacrebleu.BLEU(effective_order=True, tokenize="none")
    score = scorer.sentence_score(" ".join(_joinable(candidate)), [" ".join(_joinable(reference))])
    return min(1.0, float(score.score) / 100)


def edit_similarity(candidate: str, reference: str) -> float:
    """1 − Levenshtein distance / length of the longer text; indentation and empty lines do not count."""
    distance = _needed("rapidfuzz.distance").Levenshtein
    return float(distance.normalized_similarity(_lines(candidate), _lines(reference)))


def _lines(code: str) -> str:
    """The lines of code without indentation, trailing white space and empty lines."""
    return "\n".join(line for each in code.splitlines() if (line := each.strip()))


def _joinable(code: str) -> Sequence[str]:
    """Tokens without white space in them, for a scorer that splits there."""
    return [re.sub(r"\s", "\N{OPEN BOX}", token) for token in tokens(code)]


def _flows(reference: str, language: Any) -> bool:
    """Whether there is any data flow in a reference."""
    from codebleu import dataflow_match, parser
    from tree_sitter import Parser

    reader = Parser()
    reader.language = language
    with suppress(Exception):  # as in `codebleu`, which then takes the code with its comments
        reference = parser.remove_comments_and_docstrings(reference, "java")
    found = dataflow_match.get_data_flow(reference, [reader, parser.DFG_java])
    return bool(dataflow_match.normalize_dataflow(found))


@cache
def _language() -> Any:
    """Java's grammar, as `codebleu` takes it."""
    from codebleu.utils import get_tree_sitter_language

    return get_tree_sitter_language("java")


@cache
def _keywords() -> frozenset[str]:
    """The words that weigh more."""
    import codebleu

    file = Path(str(codebleu.__file__)).with_name("keywords") / "java.txt"
    return frozenset(file.read_text().split())


def _needed(package: str) -> Any:
    """A package of the extra `ccci`."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError:
        name = package.partition(".")[0]
        raise UsageError("ccci", f"needs {name}, which is not here", INSTALL) from None
