"""Every word of every node is there in every language, and none that no node has any more."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sandbox.locales import differences, english, languages, our_nodes, texts, written
from sandbox.paths import ROOT
from sandbox.server import ComfyServer
from ziplora_core.dreambooth.objective import INSTANCE, PRIOR
from ziplora_core.ziplora.objective import TERMS

Json = dict[str, Any]

TRANSLATED = [language for language in languages() if language != "en"]
NUMBER = re.compile(r"\d+(?:\.\d+)*(?:e-?\d+)?")
MESSAGE_SYNTAX = set("@{}|")
"""The frontend compiles names and descriptions as messages of vue-i18n, where these command."""
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
SAID = re.compile(rf"\bsay\(\s*{TEXT.pattern}")
LOSSES = {*TERMS, INSTANCE, PRIOR, "penalty", "slider", "high", "low"}
"""Their terms, as they come from the server."""
BASES = {"the SDXL refiner", "a distilled SDXL", "a checkpoint", "a whole model"}
"""Words for the base of a LoRA, which come from there, too."""
VALUE = re.compile(r"{\w+}")
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def nodes(server: ComfyServer) -> Json:
    return our_nodes(server.object_info())


@pytest.fixture(scope="module")
def served(server: ComfyServer) -> Json:
    """The words that ComfyUI hands to the frontend, by language."""
    return server.get("/i18n")


def test_locales_in_english_are_the_nodes_own_words(nodes: Json, served: Json) -> None:
    assert differences("en", english(nodes)) == [], "run `make locales`"
    assert written("en") == english(nodes), "run `make locales`"
    assert served["en"]["nodeDefs"].items() >= written("en").items()


def test_nodes_explain_every_input_and_output(nodes: Json) -> None:
    for node_id, node in nodes.items():
        words = english(nodes)[node_id]
        assert [name for name, said in words["inputs"].items() if "tooltip" not in said] == []
        outputs = words.get("outputs", {})
        assert len(outputs) == len(node["output"])
        assert [index for index, said in outputs.items() if "tooltip" not in said] == [], node_id


@pytest.mark.parametrize("language", TRANSLATED)
def test_locales_translated_have_every_word_and_no_stale_one(
    nodes: Json, served: Json, language: str
) -> None:
    assert differences(language, english(nodes)) == []
    assert served[language]["nodeDefs"].items() >= written(language).items()


@pytest.mark.parametrize("language", TRANSLATED)
def test_locales_translated_name_the_same_numbers(nodes: Json, language: str) -> None:
    found = dict(texts(written(language)))
    different = [
        (key, numbers(text), numbers(found[key]))
        for key, text in texts(english(nodes))
        if key in found and numbers(text) != numbers(found[key])
    ]
    assert different == []


@pytest.mark.parametrize("language", languages())
def test_locales_names_have_nothing_that_the_frontend_compiles(language: str) -> None:
    names = [text for key, text in texts(written(language)) if not key.endswith(".tooltip")]
    assert [text for text in names if MESSAGE_SYNTAX & set(text)] == []


def test_locales_in_chinese_are_chinese() -> None:
    words = [text for key, text in texts(written("zh")) if not key.endswith(".name")]
    assert [text for text in words if not HAN.search(text)] == []


def test_locales_name_every_category_and_the_pack_in_the_template_browser(nodes: Json) -> None:
    categories = {word for node in nodes.values() for word in node["category"].split("/")}
    for language in languages():
        main = written(language, "main")
        assert set(main["nodeCategories"]) == categories
        assert main["templateWorkflows"]["category"]["ziplora"]


def test_locales_name_every_command_of_the_pack(served: Json) -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "js").glob("*.js"))
    commands = {name.replace(".", "_") for name in re.findall(r'COMMAND = "([\w.]+)"', sources)}
    assert commands
    for language in languages():
        names = written(language, "commands")
        assert set(names) == commands and all(words["label"] for words in names.values())
        assert served[language]["commands"].items() >= names.items()


def numbers(text: str) -> list[str]:
    """The numbers of a text, in any order."""
    return sorted(NUMBER.findall(text))


def test_help_in_english_names_every_input_and_output(nodes: Json) -> None:
    for node_id, node in nodes.items():
        page = (ROOT / "js" / "docs" / node_id / "en.md").read_text(encoding="utf-8")
        inputs = [
            name for group in ("required", "optional") for name in node["input"].get(group, {})
        ]
        missing = [name for name in [*inputs, *node["output_name"]] if f"**{name}**" not in page]
        assert missing == [], node_id


def test_help_in_chinese_names_what_the_node_shows(nodes: Json) -> None:
    """Inputs and outputs by both names: the one on the node, and the one in messages."""
    for node_id, node in written("zh").items():
        page = (ROOT / "js" / "docs" / node_id / "zh.md").read_text(encoding="utf-8")
        assert (
            page.splitlines()[0] == f"# {nodes[node_id]['display_name']} · {node['display_name']}"
        )
        for name, words in node["inputs"].items():
            if words["name"].lower() != name:
                assert f"**{name}**「{words['name']}」" in page, (node_id, name)


def test_panels_have_chinese_for_all_they_say_and_no_stale_one() -> None:
    sources = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "js").glob("*.js")}
    entries = re.findall(
        rf"^  {TEXT.pattern}:\s+{TEXT.pattern},$", sources.pop("translations.js"), re.M
    )
    words, panels = dict(entries), "".join(sources.values())
    texts = TEXT.findall(panels)
    others = [text for text in texts if re.match(r"(?!Comfy\.)[A-Z][a-z].*[ .]|.*{\w+}", text)]
    labels = re.findall(rf"\blabel: {TEXT.pattern}", panels)
    assert labels
    assert {*SAID.findall(panels), *others, *labels, *LOSSES, "loss", "error"} <= set(words)
    assert set(words) - set(texts) <= LOSSES | BASES
    source = (ROOT / "ziplora_core" / "files" / "base_model.py").read_text(encoding="utf-8")
    assert set(words) >= BASES and set(TEXT.findall(source)) >= BASES
    for text, translated in words.items():
        assert HAN.search(translated), text
        assert sorted(VALUE.findall(translated)) == sorted(VALUE.findall(text))
