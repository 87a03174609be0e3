"""Who a token belongs to.

Owns the secret that tokens are derived from and their hashes; tokens themselves are never stored. Invariant: the
operator's token opens nothing for a peer inside the operating-system process tree of an agent, nor for one below the
kernel's own process (a tool's subprocess), unless the program that started it vouched for it.
"""

import base64
import hashlib
import hmac
import os
from collections import deque

import psutil

from aios.ids import OPERATOR, new_token

KEPT_RETIRED = 1024
"""Exited processes whose clients may still ask for their last reply."""

MOST_JUDGED = 256
"""Peers whose place in the tree is remembered."""


def hash_of(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Credentials:
    """Derives, remembers and recognises tokens. With the same secret a restarted kernel knows the old ones."""

    def __init__(self, secret: bytes, operator_token: str | None = None) -> None:
        self._secret = secret
        self.operator_token = operator_token or new_token()
        self._owners: dict[str, int] = {}
        self._hashes: dict[int, str] = {}
        self._retired: deque[int] = deque()
        self._confined: dict[int, float] = {}
        self._vouched: dict[int, float] = {}
        self._judged: dict[int, tuple[float, bool]] = {}
        self.admit(OPERATOR, hash_of(self.operator_token))

    def token_of(self, pid: int) -> str:
        """Return the token of a process."""
        mac = hmac.new(self._secret, f"pid:{pid}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

    def admit(self, pid: int, token_hash: str) -> None:
        """Recognise the token with this hash from now on."""
        self._owners[token_hash] = pid
        self._hashes[pid] = token_hash

    def retire(self, pid: int) -> None:
        """The process has exited: its token still opens the door to its last reply, for a while."""
        self._retired.append(pid)
        if len(self._retired) > KEPT_RETIRED:
            self._expel(self._retired.popleft())

    def _expel(self, pid: int) -> None:
        token_hash = self._hashes.pop(pid, None)
        if token_hash is not None:
            del self._owners[token_hash]

    def confine(self, os_pid: int) -> None:
        """Register the operating-system process of a child agent: nothing in it or below may act as the operator."""
        self._confined[os_pid] = _created(os_pid)
        self._judged.clear()

    def vouch(self, os_pid: int) -> None:
        """Let a process that this one started, and what is below it, act as the operator."""
        self._vouched[os_pid] = _created(os_pid)
        self._judged.clear()

    def owner(self, token: str, peer_pid: int | None) -> int | None:
        """Return whose token it is; None if nobody's, or the operator's from where nobody may act as the operator."""
        presented = hash_of(token)
        found = self._owners.get(presented)
        known = self._hashes.get(found, "") if found is not None else ""
        if not hmac.compare_digest(known, presented):
            return None
        if found == OPERATOR and peer_pid is not None and self._is_confined(peer_pid):
            return None
        return found

    def _is_confined(self, peer_pid: int) -> bool:
        """Judge a peer by the nearest process at or above it of which something is known; once for each process."""
        if peer_pid == os.getpid():
            return False  # the program that the kernel is embedded in: its code is trusted
        created = _created(peer_pid)
        known, verdict = self._judged.get(peer_pid, (0.0, True))
        if known != created:
            verdict = self._judge(peer_pid)
            self._judged = {peer_pid: (created, verdict), **dict(list(self._judged.items())[:MOST_JUDGED])}
        return verdict

    def _judge(self, peer_pid: int) -> bool:
        self._confined, self._vouched = _living(self._confined), _living(self._vouched)
        try:
            peer = psutil.Process(peer_pid)
            line = [peer_pid, *(parent.pid for parent in peer.parents())]
        except psutil.Error:
            return True  # a peer that cannot be looked at is not trusted with the operator's rights
        for pid in line:
            if pid in self._confined or pid == os.getpid():
                return True
            if pid in self._vouched:
                return False
        return False


def _living(processes: dict[int, float]) -> dict[int, float]:
    return {pid: created for pid, created in processes.items() if _created(pid) == created}


def _created(os_pid: int) -> float:
    try:
        return float(psutil.Process(os_pid).create_time())
    except psutil.Error:
        return -1.0
