"""Tokens: known again after a restart with the same secret, and the operator's is no use inside an agent's tree."""

import os
import subprocess
import sys

import pytest

from aios.kernel.credentials import Credentials, hash_of


def test_a_token_is_known_by_its_hash_and_forgotten_some_time_after_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aios.kernel.credentials.KEPT_RETIRED", 1)
    credentials = Credentials(b"secret")
    token = credentials.token_of(7)
    assert credentials.owner(token, None) is None
    credentials.admit(7, hash_of(token))
    assert credentials.owner(token, None) == 7
    assert credentials.owner(token + "x", None) is None
    credentials.retire(7)
    assert credentials.owner(token, None) == 7
    credentials.retire(8)
    assert credentials.owner(token, None) is None


def test_tokens_differ_by_process_and_by_secret_and_come_back_with_it() -> None:
    one, two = Credentials(b"one"), Credentials(b"two")
    assert len({one.token_of(1), one.token_of(2), two.token_of(1)}) == 3
    assert Credentials(b"one").token_of(1) == one.token_of(1)


def test_the_operators_token_opens_for_outsiders_only() -> None:
    credentials = Credentials(b"secret")
    token = credentials.operator_token
    assert credentials.owner(token, os.getpid()) == 0
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        credentials.confine(child.pid)
        assert credentials.owner(token, child.pid) is None
        assert credentials.owner(token, os.getpid()) == 0
        assert credentials.owner(token, os.getppid()) == 0
    finally:
        child.kill()
        child.wait()


def test_a_descendant_of_an_agent_is_inside_its_tree() -> None:
    credentials = Credentials(b"secret")
    credentials.confine(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert credentials.owner(credentials.operator_token, child.pid) is None
    finally:
        child.kill()
        child.wait()
    assert credentials.owner(credentials.operator_token, child.pid) is None  # one that cannot be looked at is inside


def test_a_subprocess_of_the_kernels_program_acts_as_the_operator_only_if_vouched_for() -> None:
    credentials = Credentials(b"secret")
    token = credentials.operator_token
    children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)]
    manager, tool = children
    try:
        assert credentials.owner(token, tool.pid) is None
        credentials.vouch(manager.pid)
        assert credentials.owner(token, manager.pid) == 0
        assert credentials.owner(token, tool.pid) is None
    finally:
        for child in children:
            child.kill()
            child.wait()
