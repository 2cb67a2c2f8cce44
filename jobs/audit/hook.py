"""Who is told when an audit fails: a program of one's own, or a webhook."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from archives.errors import UsageError, one_line
from jobs.audit.plan import Hook

SECONDS = 10.0
ATTEMPTS = 3
PAUSE = 1.0
# A program's last words, in a message.
MOST_WORDS = 300


def check_hook(hook: Hook) -> None:
    """Raises UsageError for one that cannot be told, before anything is done."""
    if hook.url is None:
        return
    try:
        parts = urlsplit(hook.url)
    except ValueError as error:
        raise UsageError("hook.url: expected https://HOST/PATH") from error
    secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))
    if not secure or not parts.hostname:
        raise UsageError(
            "hook.url: expected https://..., or http:// on loopback, which nobody can read on its"
            " way"
        )
    if parts.username or parts.password:
        raise UsageError("hook.url: a password in it ends in logs; name a token_variable instead")
    if hook.token_variable is not None:
        token = _token(hook.token_variable)
        if not token:
            raise UsageError(f"hook.token_variable: {hook.token_variable} is not set")
        # No header takes other characters, and the error that says so has the token in it.
        if not (token.isascii() and token.isprintable()):
            raise UsageError(
                f"hook.token_variable: {hook.token_variable} holds no token: it has"
                " characters that no header may have"
            )


def _token(variable: str) -> str:
    """Files of secrets end with a line's end."""
    return os.environ.get(variable, "").strip()


def tell(hook: Hook, report: bytes) -> str:
    """Hands the report's JSON over; what went wrong, in one line without the address, or ""."""
    return _run(hook.command, report) if hook.url is None else _post(hook, report)


def _run(command: tuple[str, ...], report: bytes) -> str:
    try:
        done = subprocess.run(command, input=report, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the hook's command did not run: {one_line(error)}"
    if done.returncode:
        words = " ".join(done.stderr.decode(errors="backslashreplace").split())[-MOST_WORDS:]
        return f"the hook's command ended with {done.returncode}: {words}"
    return ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is for one address alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(hook: Hook, report: bytes) -> str:
    assert hook.url is not None
    headers = {"Content-Type": "application/json"}
    if hook.token_variable is not None:
        headers["Authorization"] = f"Bearer {_token(hook.token_variable)}"
    request = urllib.request.Request(hook.url, report, headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirect)
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            with opener.open(request, timeout=SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            problem = f"the webhook answered {error.code}"
            error.close()
            if error.code < 500 and error.code != 429:
                break
        except (OSError, HTTPException) as error:
            problem = f"the webhook could not be reached: {type(error).__name__}"
    return problem


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
