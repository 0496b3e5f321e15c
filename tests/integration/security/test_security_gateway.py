"""Rucio's gateway asks the policy before it changes anything; where it does not, the box does or it is harmless.

A new version of Rucio with another such function fails here, and somebody has to look at it.
"""

from __future__ import annotations

import ast

from boxes import Box

UNASKED = {
    "did.delete_metadata": "application.py asks",
    "did.set_new_dids": "not reachable by REST",
    "did.add_did_to_followed": "own list",
    "did.add_dids_to_followed": "own list",
    "identity.add_identity": "means nothing until it is tied to an account, which is asked",
    "lifetime_exception.add_exception": "a request for administrators",
    "subscription.delete_subscription": "not implemented",
    "trace.trace": "goes nowhere: no broker is configured",
}
READS = (
    "list_",
    "get_",
    "has_",
    "is_",
    "parse_",
    "bulk_list",
    "scope_list",
    "filter_",
    "verify_",
    "validate_",
    "_",
)
LOGINS = {
    "account.account_exists",
    "authentication.refresh_cli_auth_token",
    "authentication.redirect_auth_oidc",
}


def test_every_change_asks_the_policy(box: Box) -> None:
    (gateway,) = box.state.glob("envs/rucio-*/lib/python*/site-packages/rucio/gateway")
    unasked, asked = set(), 0
    for file in sorted(gateway.glob("*.py")):
        text = file.read_text()
        for node in ast.parse(text).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith(READS):
                continue
            if "has_permission" in (ast.get_source_segment(text, node) or ""):
                asked += 1
            else:
                unasked.add(f"{file.stem}.{node.name}")
    assert asked > 50, "the source looks different: this test sees nothing"
    assert unasked - LOGINS == set(UNASKED)
