"""Tiny chat templates, one for each way in which families write calls of tools."""

from __future__ import annotations

_TURN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n"
)
_CALLS = "</think>\n\n{% endif %}{% if m.content %}{{ m.content }}{% endif %}{% if m.tool_calls %}CALLS{% endif %}"
_END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_EACH = "{% for c in m.tool_calls %}{% set f = c.function %}"
_ARGS = "{% for k, v in f.arguments.items() %}"
_VALUE = "{{ v if v is string else v | tojson }}"
_DONE = "{% endfor %}"
_COMMA = "{{ ', ' if not loop.last }}"
_JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'


def template(calls: str) -> str:
    return (_TURN + _CALLS + _END).replace("CALLS", calls)


JSON_BLOCKS = template(f"{_EACH}\n<tool_call>\n{_JSON}\n</tool_call>{_DONE}")
JSON_LIST = template(f"<TOOLCALL>[{_EACH}{_JSON}{_COMMA}{_DONE}]</TOOLCALL>")
JSON_LINES = template(f"<tool_calls>\n{_EACH}{_JSON}\n{_DONE}</tool_calls>")
JSON_WITH_IDS = template(
    f'[TOOL_CALLS][{_EACH}{{"name": "{{{{ f.name }}}}", "arguments": {{{{ f.arguments | tojson }}}}, '
    f'"id": "{{{{ c.id }}}}"}}{_COMMA}{_DONE}]'
)
JSON_COUNTED = template(
    f'<|START_ACTION|>[{_EACH}\n    {{"tool_call_id": "{{{{ loop.index0 }}}}", "tool_name": "{{{{ f.name }}}}", '
    f'"parameters": {{{{ f.arguments | tojson }}}}}}{{{{ "," if not loop.last }}}}{_DONE}\n]<|END_ACTION|>'
)
JSON_NESTED = template(
    f'<call>{_EACH}{{"type": "function", "function": {_JSON}}}{{{{ "\n" if not loop.last }}}}{_DONE}</call>'
)
JSON_BY_NAME = template(
    f'<|tools_prefix|>[{_EACH}{{"{{{{ f.name }}}}": {{{{ f.arguments | tojson }}}}}}{_COMMA}{_DONE}]<|tools_suffix|>'
)
JSON_BARE = template(
    "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call only') }}{% endif %}"
    f'{_EACH}{{"name": "{{{{ f.name }}}}", "parameters": {{{{ f.arguments | tojson }}}}}}{_DONE}'
)
JSON_FENCED = template(
    f'Action:\n```json\n[{_EACH}\n    {{\n        "tool_name": "{{{{ f.name }}}}",\n        "parameters": '
    f"{{{{ f.arguments | tojson }}}}\n    }}{_COMMA}{_DONE}\n]```"
)
NAMED = template(f"{_EACH}<function={{{{ f.name }}}}>{{{{ f.arguments | tojson }}}}</function>{_DONE}")
NAMED_WITH_IDS = template(
    f"{_EACH}[TOOL_CALLS]{{{{ f.name }}}}[CALL_ID]{{{{ c.id }}}}[ARGS]{{{{ f.arguments | tojson }}}}{_DONE}"
)
NAMED_ID_FIRST = template(
    f"<|tool_calls|>{_EACH}<|call:begin|>{{{{ c.id }}}}<|call:name|>{{{{ f.name }}}}<|call:args|>"
    f"{{{{ f.arguments | tojson }}}}<|call:end|>{_DONE}"
)
NAMED_FENCED = template(
    f"<｜tool▁calls▁begin｜>{_EACH}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{{{ f.name }}}}\n```json\n"
    f"{{{{ f.arguments | tojson }}}}\n```<｜tool▁call▁end｜>{{{{ '\n' if not loop.last }}}}{_DONE}<｜tool▁calls▁end｜>"
)
NUMBERED = template(
    f"<|tool_calls_section_begin|>{_EACH}<|tool_call_begin|>functions.{{{{ f.name }}}}:{{{{ loop.index0 }}}}"
    f"<|tool_call_argument_begin|>{{{{ f.arguments | tojson }}}}<|tool_call_end|>{_DONE}<|tool_calls_section_end|>"
)
TAGGED_LINES = template(
    f"{_EACH}\n<tool_call>\n<function={{{{ f.name }}}}>\n{_ARGS}<parameter={{{{ k }}}}>\n{_VALUE}\n</parameter>\n"
    f"{_DONE}"
    f"</function>\n</tool_call>{_DONE}"
)
TAGGED_PAIRS = template(
    f"{_EACH}\n<tool_call>{{{{ f.name }}}}\n{_ARGS}<arg_key>{{{{ k }}}}</arg_key>\n<arg_value>{_VALUE}</arg_value>\n"
    f"{_DONE}</tool_call>{_DONE}"
)
TAGGED_INVOKES = template(
    f'<calls>\n{_EACH}<invoke name="{{{{ f.name }}}}">\n{_ARGS}<parameter name="{{{{ k }}}}">{_VALUE}</parameter>\n'
    f"{_DONE}</invoke>\n{_DONE}</calls>"
)
TAGGED_KINDS = template(
    f'<｜DSML｜function_calls>\n{_EACH}<｜DSML｜invoke name="{{{{ f.name }}}}">\n{_ARGS}'
    "<｜DSML｜parameter name=\"{{ k }}\" string=\"{{ 'true' if v is string else 'false' }}\">"
    f"{_VALUE}</｜DSML｜parameter>\n{_DONE}</｜DSML｜invoke>\n{_DONE}</｜DSML｜function_calls>"
)
TAGGED_BY_KEY = template(
    f'<t:calls>\n{_EACH}<t:invoke name="{{{{ f.name }}}}">{_ARGS}<t:{{{{ k }}}}>{_VALUE}</t:{{{{ k }}}}>{_DONE}'
    f"</t:invoke>\n{_DONE}</t:calls>"
)
TAGGED_CDATA = template(
    f'{_EACH}\n<function name="{{{{ f.name }}}}">{_ARGS}<param name="{{{{ k }}}}">'
    "{% if v is string and ('<' in v or '&' in v or '\n' in v or ']' in v) %}<![CDATA[{{ v }}]]>{% else %}"
    f"{_VALUE}{{% endif %}}</param>{_DONE}</function>{_DONE}"
)
PYTHON = template(
    "{% macro py(v) %}{% if v is string %}{{ v | tojson }}{% elif v is sameas true %}True"
    "{% elif v is sameas false %}False"
    "{% elif v is none %}None{% else %}{{ v | tojson }}{% endif %}{% endmacro %}"
    f"<|tool_call_start|>[{_EACH}{{{{ f.name }}}}({_ARGS}{{{{ k }}}}={{{{ py(v) }}}}{_COMMA}{_DONE}){_COMMA}{_DONE}]"
    "<|tool_call_end|>"
)
GEMMA = (
    template(
        "{% macro note(v) %}{% if v is string %}<|\"|>{{ v }}<|\"|>{% elif v is mapping %}{{ '{' }}"
        "{% for k, x in v.items() %}{{ k }}:{{ note(x) }}{{ ',' if not loop.last }}{% endfor %}}"
        "{% elif v is sequence %}[{% for x in v %}{{ note(x) }}{{ ',' if not loop.last }}{% endfor %}]"
        "{% else %}{{ v | tojson }}{% endif %}{% endmacro %}"
        f"{_EACH}<|tool_call>call:{{{{ f.name }}}}{{{{ note(f.arguments) }}}}<tool_call|>{_DONE}"
    )
    .replace("<think>", "<|channel>thought")
    .replace("</think>", "<channel|>")
)
RECIPIENTS = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if m.role == 'assistant' %}"
    "{% if m.content %}>>>all\n{{ m.content }}{% endif %}"
    f"{_EACH}>>>{{{{ f.name }}}}\n{{{{ f.arguments }}}}{_DONE}{{% else %}}{{{{ m.content }}}}"
    "{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n>>>{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.reasoning_content %}<|start|>assistant"
    "<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>{% endif %}{% if m.content %}<|start|>assistant"
    "<|channel|>{{ 'commentary' if m.tool_calls else 'final' }}<|message|>{{ m.content }}<|end|>{% endif %}"
    f"{_EACH}<|start|>assistant<|channel|>commentary to=functions.{{{{ f.name }}}} <|constrain|>json<|message|>"
    f"{{{{ f.arguments | tojson }}}}<|call|>{_DONE}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
HEADED = CHANNELS.replace("<|channel|>commentary to=functions.{{ f.name }} <|constrain|>json",
                          " to=functions.{{ f.name }}<|channel|>commentary json")  # fmt: skip

FORMATS = {name.lower(): value for name, value in list(globals().items()) if name.isupper() and name[0] != "_"}
