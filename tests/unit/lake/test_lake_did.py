"""DIDs, hostile ones too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.lake.did import BadDid, Did


@pytest.mark.parametrize(
    ("text", "scope", "name", "quoted"),
    [
        ("dmsp:events", "dmsp", "events", "dmsp/events"),
        ("user.km3net-user:a", "user.km3net-user", "a", "user.km3net-user/a"),
        ("dmsp:a:b", "dmsp", "a:b", "dmsp/a%3Ab"),
        ("dmsp:a/b/c.root", "dmsp", "a/b/c.root", "dmsp/a%2Fb%2Fc.root"),
        ("dmsp:a/../b", "dmsp", "a/../b", "dmsp/a%2F..%2Fb"),
        ("dmsp:with space", "dmsp", "with space", "dmsp/with%20space"),
        ("dmsp:Δ?#%", "dmsp", "Δ?#%", "dmsp/%CE%94%3F%23%25"),
        ("dmsp:<script>", "dmsp", "<script>", "dmsp/%3Cscript%3E"),
        ('dmsp:it\'s "it"', "dmsp", 'it\'s "it"', "dmsp/it%27s%20%22it%22"),
        ("s" * 25 + ":" + "n" * 250, "s" * 25, "n" * 250, "s" * 25 + "/" + "n" * 250),
    ],
)
def test_accepted(text: str, scope: str, name: str, quoted: str) -> None:
    did = Did.parse(text)
    assert (did.scope, did.name, did.quoted, str(did)) == (scope, name, quoted, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dmsp",
        ":name",
        "dmsp:",
        "dmsp:.",
        "dmsp:..",
        "..:name",
        "a b:name",
        "sc/ope:name",
        "s" * 26 + ":n",
        "s:" + "n" * 251,
        "dmsp:a\nb",
        "dmsp:a\x00b",
        "dmsp:a\x7fb",
        "dmsp:\ud800",
    ],
)
def test_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadDid) as caught:
        Did.parse(text)
    shown = str(caught.value)
    assert shown.isprintable()
    assert shown.endswith(".")
    assert len(shown) < 250


@given(st.text(max_size=300))
def test_any_text_is_a_did_or_a_sentence(text: str) -> None:
    try:
        did = Did.parse(text)
    except BadDid as refusal:
        sentence = str(refusal)
    else:
        sentence = ""
        assert str(did) == text
        assert did.quoted.count("/") == 1
        assert did.quoted.isascii()
    assert sentence.isprintable()
