"""The authorization endpoint's decision (RFC 6749 section 4.1.1, OpenID Connect Core section 3.1.2)."""

from __future__ import annotations

from dataclasses import replace

from authlib.common.urls import add_params_to_uri
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.base import invalid_error_characters
from authlib.oidc.core.errors import LoginRequiredError

from jupyterhub_dmsp.box.issuer.accounts import Account
from jupyterhub_dmsp.box.issuer.protocol import Core, Incoming, Reply, Request
from jupyterhub_dmsp.box.issuer.store import Session


class BadRequest(Exception):
    """A request that must not send the browser anywhere; the text is shown on the error page."""


class LoginNeeded(Exception):
    """The user has to log in first."""


def logged_in(core: Core, incoming: Incoming) -> tuple[Session, Account] | None:
    """The browser's session and its user, if both are still there."""
    session = core.store.session(incoming.session) if incoming.session else None
    account = core.users.by_sub(session.sub) if session else None
    return (session, account) if session and account else None


def authorize(core: Core, incoming: Incoming) -> Reply:
    """A redirect to the client with a code or an error.

    Raises:
        BadRequest: client or redirect address are not right, so there is nobody to redirect to.
        LoginNeeded: nobody is logged in, or not recently enough.
    """
    request = Request(incoming, core.config.issuer)
    redirect_uri = _redirect_uri(core, request)
    who = logged_in(core, incoming)
    user = (who[1], who[0].auth_time) if who else None
    try:
        grant = core.get_consent_grant(request, end_user=user)
        if who is None or grant.prompt in ("login", "select_account") or _too_old(core, request, who[0]):
            if request.payload.data.get("prompt") == "none":
                raise LoginRequiredError(redirect_uri=redirect_uri, state=request.payload.state)
            raise LoginNeeded
        reply: Reply = core.create_authorization_response(request, grant_user=user, grant=grant)
    except OAuth2Error as error:
        reply = core.handle_error_response(request, error)
    if reply.location is None:
        raise BadRequest(reply.body.get("error_description") or "The request is not valid.")
    # RFC 9207: the answer says who gives it.
    location = add_params_to_uri(reply.location, [("iss", core.config.issuer)])
    return replace(reply, headers={**reply.headers, "Location": location})


def _redirect_uri(core: Core, request: Request) -> str:
    """Checked before Authlib sees the request: nothing may be sent to an address that is not registered."""
    parameters = request.payload.data
    client = core.query_client(parameters.get("client_id", ""))
    if client is None:
        raise BadRequest("The application that sent you here is not known to this site.")
    redirect_uri: str | None = parameters.get("redirect_uri") or client.get_default_redirect_uri()
    if redirect_uri is None or not client.check_redirect_uri(redirect_uri):
        raise BadRequest("The application that sent you here gave a return address that is not registered.")
    if invalid_error_characters(parameters.get("response_type", "")):
        # Authlib quotes it in an error and refuses these characters there with a bare ValueError.
        raise BadRequest("The request's response_type is not valid.")
    return redirect_uri


def _too_old(core: Core, request: Request, session: Session) -> bool:
    """``max_age``: whether the login is longer ago than the client accepts."""
    max_age = request.payload.data.get("max_age", "")
    return max_age.isdigit() and core.store.clock() - session.auth_time > int(max_age)
