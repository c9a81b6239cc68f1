"""Hooks of mkdocs: the pages of the API, written from the live objects.

A definition's signature and docstring are put together at run time, so they are asked of the
object itself. In a page,

    ::: gradtx.optimizers.adam

stands for all public names of a module, and `::: gradtx.step` for one object. Each becomes a
heading with an anchor, its signature and its docstring. A public name that no page shows is a
warning, which fails a strict build.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import logging
import operator
import re
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import gradtx

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "benchmarks" / "results"
DIRECTIVE = re.compile(r"^::: (gradtx[\w.]*)$", re.MULTILINE)
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# Where the public names live: the package itself, and the packages that it shows as attributes.
FOLDERS = ("inspection", "interop", "sharding", "torch", "tree")
PLACES = ("gradtx", *(f"gradtx.{name}" for name in FOLDERS))
log = logging.getLogger("mkdocs.hooks.gradtx")


# -- names ---------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A public object under the name by which a user calls it."""

    name: str  # gradtx.tree.norm
    value: Any

    @property
    def short(self) -> str:
        """The name as it is written behind `gradtx.`."""
        return self.name.removeprefix("gradtx.")


def entries(target: str) -> list[Entry]:
    """The objects that a directive stands for."""
    try:
        module = importlib.import_module(target)
    except ImportError:
        place, _, name = target.rpartition(".")
        return [Entry(target, getattr(importlib.import_module(place), name))]
    place = importlib.import_module(_place(target))
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(place).items() if getattr(value, "__module__", "") == target
    ]
    found = []
    for name in names:
        here = getattr(place, name, None) is getattr(module, name)
        found.append(Entry(f"{place.__name__ if here else 'gradtx'}.{name}", getattr(module, name)))
    return found


def _place(module: str) -> str:
    """The package by which the names of a module are public."""
    return max((place for place in PLACES if f"{module}.".startswith(f"{place}.")), key=len)


def unseen() -> list[str]:
    """The public names of objects that no page shows."""
    seen = {id(operator.attrgetter(name.removeprefix("gradtx."))(gradtx)) for name in anchors()}
    missing = []
    for place in PLACES:
        for name, value in vars(importlib.import_module(place)).items():
            public = not (name.startswith("_") or isinstance(value, types.ModuleType))
            if public and id(value) not in seen:
                missing.append(f"{place}.{name}")
    return missing


@functools.cache
def anchors() -> dict[str, str]:
    """The page of each name that a directive shows: `{"gradtx.adamw": "api/optimizers.md"}`."""
    docs = Path(__file__).parent
    found: dict[str, str] = {}
    for page in sorted(docs.rglob("*.md")):
        for target in DIRECTIVE.findall(page.read_text()):
            for entry in entries(target):
                found.setdefault(entry.name, page.relative_to(docs).as_posix())
    return found


# -- one object ----------------------------------------------------------------------------------


def shown(entry: Entry) -> str:
    """A heading, the signature and the docstring."""
    heading = f"### {entry.short} {{ #{entry.name} }}"
    text = "" if _older(entry) else inspect.getdoc(_documented(entry.value)) or ""
    parts = [heading, _signature(entry), docstring(text)]
    return "\n\n".join(part for part in parts if part)


def _older(entry: Entry) -> bool:
    """Whether it is another name of something that has its own."""
    own = getattr(entry.value, "__name__", "")
    public = f"gradtx.{own}" in anchors()
    return isinstance(entry.value, type) and public and own != entry.name.rpartition(".")[2]


def _documented(value: Any) -> Any:
    """The object, or None for one that only has the docstring of its type (a type alias)."""
    plain = isinstance(value, (type, types.FunctionType)) or callable(value)
    alias = isinstance(value, types.UnionType) or typing.get_origin(value) is not None
    return value if plain and not alias and value is not Any else None


def _signature(entry: Entry) -> str:
    value = entry.value
    if _documented(value) is None:
        return _alias(entry)
    if _older(entry):
        return f"```python\n{entry.short} = {value.__name__}\n```"
    if isinstance(value, type) and hasattr(value, "_fields"):
        return _fields(entry)
    if isinstance(value, enum.EnumMeta):
        members = "\n".join(f"{entry.short}.{name}" for name in value.__members__)
        return f"```python\n{members}\n```"
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [str(_bare(p)) for p in signature.parameters.values()]
    kinds = [p.kind for p in signature.parameters.values()]
    star = inspect.Parameter.KEYWORD_ONLY
    if star in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(star), "*")
    returned = signature.return_annotation
    tail = ""
    if returned not in (inspect.Signature.empty, None, "None") and not isinstance(value, type):
        tail = f" -> {_annotation(returned)}"
    line = f"{entry.short}({', '.join(parameters)}){tail}"
    if len(line) > 88:
        inside = "".join(f"    {parameter},\n" for parameter in parameters)
        line = f"{entry.short}(\n{inside}){tail}"
    return f"```python\n{line}\n```"


def _alias(entry: Entry) -> str:
    """What a name stands for: numbers of a kind in words, other types as they are written.

    Nothing if the type says nothing: then the page has a sentence below the directive.
    """
    for mark in getattr(entry.value, "__metadata__", ()):
        if hasattr(mark, "accepts"):
            start = {"in": "A number ", "a ": ""}.get(mark.text[:2], "A number that is ")
            given = "an array of them or a schedule" if mark.scheduled else "or an array of them"
            text = start + mark.text
            return f"{text[0].upper()}{text[1:]}, {given}."
    text = _annotation(entry.value)
    return "" if text == "Any" or "Annotated" in text else f"```python\n{entry.short} = {text}\n```"


def _bare(parameter: inspect.Parameter) -> str:
    """A parameter as it is written, its annotation without quotes."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    empty = inspect.Parameter.empty
    if parameter.annotation is not empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not empty:
        equals = " = " if parameter.annotation is not empty else "="
        text += f"{equals}{_default(parameter.default)}"
    return text


def _default(value: Any) -> str:
    """Functions by their names: their reprs hold addresses."""
    if isinstance(value, (type, types.FunctionType)):
        return value.__name__
    text = repr(value)
    enumerated = re.fullmatch(r"<([\w.]+): .*>", text)
    if enumerated:
        return enumerated[1]
    return text if " at 0x" not in text else getattr(value, "__name__", "...")


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"ForwardRef\('(\w+)'[^)]*\)", r"\1", text)
    return re.sub(r"\b(?:gradtx|typing|collections|jax|numpy)(?:\.\w+)*\.(\w+)", r"\1", text)


def _fields(entry: Entry) -> str:
    annotations = entry.value.__annotations__.items()
    lines = [f"    {name}: {_annotation(annotation)}" for name, annotation in annotations]
    body = "\n".join(lines) or "    pass"
    return f"```python\nclass {entry.short}(NamedTuple):\n{body}\n```"


# -- docstrings ----------------------------------------------------------------------------------

SECTION = re.compile(
    r"^(Args|Arguments|Attributes|Raises|Returns|State|Example|Examples|See also|"
    r"References|Note|Notes):[ ]?(.*)$"
)
ARGUMENT = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?= \(|:)(.*)$")  # at the margin
URL = re.compile(r"(?<![<(\[])(https?://[^\s)>]+[^\s)>.,])")


def docstring(text: str) -> str:
    """A docstring as Markdown: formulas and examples become blocks, arguments a list."""
    output: list[str] = []
    section = ""
    for paragraph in _paragraphs(text):
        first, *rest = paragraph
        match = SECTION.match(first)
        if match:
            section = match[1]
            output.append(f"**{section}**{': ' + _linked(match[2]) if match[2] else ''}")
            if match[2]:
                output[-1] += "".join(f"\n{_linked(line.strip())}" for line in rest)
                continue
            paragraph = _dedented(rest)
            if not paragraph:
                continue
        elif section and first.startswith("    "):
            paragraph = _dedented(paragraph)
        output.append(
            _block(paragraph, in_arguments=section in ("Args", "Arguments", "Attributes"))
        )
    return "\n\n".join(output)


def _paragraphs(text: str) -> list[list[str]]:
    """Lines between empty lines; a section's heading always begins a paragraph."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if not line.strip() or SECTION.match(line):
            found.append([])
        if line.strip():
            found[-1].append(line)
    return [paragraph for paragraph in found if paragraph]


def _dedented(lines: list[str]) -> list[str]:
    depth = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return [line[depth:] for line in lines]


def _block(lines: list[str], in_arguments: bool) -> str:
    if lines[0].startswith((">>>", "    >>>")):
        return "```pycon\n" + "\n".join(_dedented(lines)) + "\n```"
    if lines[0].startswith("    "):
        return "```text\n" + "\n".join(_dedented(lines)) + "\n```"
    if lines[0].startswith("|") or lines[0].startswith("- "):
        return "\n".join(_linked(line) for line in lines)
    if in_arguments:
        return _arguments(lines)
    return "\n".join(_linked(line) for line in lines)


def _arguments(lines: list[str]) -> str:
    output = []
    for line in lines:
        match = ARGUMENT.match(line)
        if match:
            names = ", ".join(f"`{name.strip()}`" for name in match[1].split(","))
            output.append(f"- {names}{_linked(match[2])}")
        else:
            output.append(f"  {_linked(line.strip())}" if output else _linked(line))
    return "\n".join(output)


def _linked(line: str) -> str:
    """URLs become links, and what Markdown would read as emphasis stays as it is written."""

    def prose(part: str) -> str:
        if URL.search(part):
            return URL.sub(r"<\1>", part)
        return re.sub(r"([_*<])", r"\\\1", part)

    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else prose(part) for part in parts)


# -- links from names ----------------------------------------------------------------------------

NAME = re.compile(r"(?<![\[`\w])`(gradtx\.[\w.]+|\w{4,})`(?![\]`])")
# Names that mean something else in most sentences.
COMMON = {"clip", "flatten", "identity", "normalize", "scale", "schedule", "step", "trace"}


def with_links(text: str, page: str) -> str:
    """Names of the library, in code outside of blocks and headings, lead to the reference."""
    up = "../" * page.count("/")

    def link(match: re.Match[str]) -> str:
        written = match[1]
        full = written if written.startswith("gradtx.") else f"gradtx.{written}"
        plain = full == f"gradtx.{written}"
        if full not in anchors() or (plain and written in COMMON):
            return match[0]
        return f"[{match[0]}]({up}{anchors()[full]}#{full})"

    def prose(piece: str) -> str:
        lines = piece.split("\n")
        return "\n".join(line if line.startswith("#") else NAME.sub(link, line) for line in lines)

    pieces = FENCE.split(text)
    return "".join(piece if piece.startswith("```") else prose(piece) for piece in pieces)


# -- the hooks -----------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pictures of the benchmarks stay beside their results; the site shows them from there."""
    for picture in sorted(PICTURES.rglob("*.png")):
        name = f"benchmarks/{picture.relative_to(PICTURES).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    anchors.cache_clear()  # pages may have changed while they are served
    if missing := unseen():
        log.warning("no page shows %s", ", ".join(missing))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Directives become what they stand for, and names become links."""
    source = page.file.src_uri

    def expanded(match: re.Match[str]) -> str:
        its = [e for e in entries(match[1]) if anchors()[e.name] == source]
        return "\n\n".join(shown(entry) for entry in its)

    up = "../" * source.count("/")
    markdown = markdown.replace("](../benchmarks/results/", f"]({up}benchmarks/")
    return with_links(DIRECTIVE.sub(expanded, markdown), source)
