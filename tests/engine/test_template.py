"""Templates are programs from strangers: they render, refuse, or are stopped."""

from datetime import date

import pytest

from aios.engine.template import CHATML, MAX_TEMPLATE, ChatTemplate
from aios.engine.template_worker import Worker, render_here
from aios.errors import ModelError
from tests.engine.hand_batches import loaded

MESSAGES = [{"role": "user", "content": "hi"}]
DAY = "2026-11-22"


def test_chatml_is_used_when_the_file_has_no_template() -> None:
    assert ChatTemplate().source == CHATML
    assert ChatTemplate().render(MESSAGES) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert ChatTemplate().render(MESSAGES, generate=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_templates_written_for_python_work() -> None:
    source = "{{ bos_token }}{% for m in messages %}\n{{ m['role'].upper() + ': ' + m['content'].strip() }}{% endfor %}"
    assert ChatTemplate(source, bos="<s>").render(MESSAGES) == "<s>USER: hi"


def test_content_is_not_escaped() -> None:
    assert ChatTemplate("{{ messages[0].content }}").render([{"role": "user", "content": "<b>&"}]) == "<b>&"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(100000000) %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s|length }}",
        "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for i in range(25) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{{ ['x'] * 10000000000 }}",
    ],
)
def test_an_endless_or_greedy_template_is_stopped(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('true') }}",
        "{{ cycler.__init__.__globals__.os }}",
    ],
)
def test_a_template_reaches_no_python_object_and_no_file(source: str) -> None:
    try:
        shown = ChatTemplate(source).render(MESSAGES)
    except ModelError:
        return
    assert shown == ""


def test_after_a_stopped_template_the_next_rendering_works() -> None:
    bomb = "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
    worker = Worker()
    with pytest.raises(ModelError, match=r"stopped: more than 512 MB"):
        worker.render(bomb, {}, DAY)
    assert worker.render("{{ a }}", {"a": "é"}, DAY) == "é"


def test_a_template_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(ModelError, match=r"or 0 s"):
        Worker(timeout_s=0).render("x", {}, DAY)


def test_templates_that_we_have_read_start_no_process() -> None:
    assert ChatTemplate()._renderer is render_here
    assert ChatTemplate("x")._renderer is not render_here


@pytest.mark.model
def test_the_default_models_template_is_one_that_we_have_read() -> None:
    assert loaded(exact=True).tokenizer.template._renderer is render_here


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(ModelError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render(MESSAGES)


def test_a_broken_or_huge_template_is_refused_at_load() -> None:
    with pytest.raises(ModelError, match="does not compile"):
        ChatTemplate("{% for %}")
    with pytest.raises(ModelError, match="the limit is"):
        ChatTemplate("x" * (MAX_TEMPLATE + 1))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]'),
        ("{{ messages[0] | tojson(indent=2) }}", '{\n  "role": "user",\n  "content": "hi"\n}'),
        ("{{ {'a': '<é>'} | tojson(ensure_ascii=true, separators=(',', ':')) }}", '{"a":"<é>"}'),
        ("{% generation %}x{% endgeneration %}{%- generation -%} y {%- endgeneration -%}", "xy"),
        ("{{ none is iterable }} {{ 'a' is iterable }} {{ 'a' is sequence }}", "False True True"),
        ("{{ messages[0] is mapping }}", "True"),
        ("{{ tools is defined }} {{ tools is none }}", "True True"),
        ("{{ tools is iterable and tools | length > 0 }}", "False"),
        ("{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"),
        ("{% for x in [1, 2] %}{{ x }}{{ '' if loop.last else ', ' }}{% endfor %}", "1, 2"),
        ("{{ 'a</think>\n\nb'.split('</think>')[-1].lstrip('\n') ~ ' c '.strip() ~ 'defg'[1:-1][-1:] }}", "bcf"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('-') }}", "hi"),
        ("{{ messages[0].get('tool_calls') is none }}{{ 'tool_calls' in messages[0] }}", "TrueFalse"),
        ("{{ strftime_now('%d %b %Y') if strftime_now is defined }}", "22 Nov 2026"),
    ],
)  # fmt: skip
def test_what_templates_of_known_families_count_on_is_there(source: str, text: str) -> None:
    assert ChatTemplate(source, day=date.fromisoformat(DAY)).render(MESSAGES) == text


def test_a_day_that_cannot_be_written_is_the_templates_fault() -> None:
    with pytest.raises(ModelError, match="chat template: strftime"):
        ChatTemplate("{{ strftime_now(3) }}").render(MESSAGES)
