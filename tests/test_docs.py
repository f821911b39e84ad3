"""The README says what there is: every command, option, setting, preset, state and exit code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from decloud_trainer import config, presets
from decloud_trainer.cli.config_view import shown_text
from decloud_trainer.cli.main import EXIT_CODES, cli
from decloud_trainer.errors import DecloudError
from decloud_trainer.rounds.entry import State
from decloud_trainer.settings import TABLE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# What a reader puts in: the parser needs something that fits.
FILLED = {"HH:MM": "07:00", "YOUR_ADDRESS": "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"}


def code_blocks() -> str:
    """The text of all code blocks, lines that go on joined to one."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S)
    return "\n".join(blocks).replace("\\\n", " ")


def command_lines() -> list[str]:
    """Every line of a code block, and every `code` in the text, that calls the command."""
    lines = code_blocks().splitlines() + re.findall(r"`(decloud-trainer [^`]+)`", README)
    found = [line.partition("decloud-trainer ")[2] for line in lines if "decloud-trainer " in line]
    return list(dict.fromkeys(line.partition("#")[0].strip() for line in found))


def section(title: str) -> str:
    """From a heading to the next one of its level or above."""
    found = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |^\1 |\Z)", README, re.M | re.S
    )
    assert found, f"the README has no section {title!r}"
    return found[2]


def table(title: str, heading: str) -> list[list[str]]:
    """The rows, without code marks, of the table in that section whose first column it names."""
    lines = section(title).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def commands(
    group: click.Group = cli, *before: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)


def words_of(line: str) -> list[str]:
    """The words after the program's name, up to a pipe or a redirection."""
    words = shlex.split(line)
    end = next(
        (n for n, w in enumerate(words) if w[:1] in "|<>&" or w[:2] in ("2>", "3<")), len(words)
    )
    return [FILLED.get(word, word) for word in words[:end]]


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_is_one(line: str) -> None:
    """A command of the README is parsed as it stands: name, options and arguments."""
    group: click.Group = cli
    words = words_of(line)
    context = click.Context(cli, info_name="decloud-trainer")
    if words[0] in ("--keypair", "--passphrase-fd"):
        words = words[2:]
    while True:
        if words == ["--help"]:
            return
        name, command, words = group.resolve_command(context, words)
        assert command is not None
        if words == ["--help"]:
            return
        if not isinstance(command, click.Group):
            break
        group, context = command, click.Context(command, context, info_name=name)
    if words == [] and any(p.required for p in command.params):
        return  # named in a sentence
    command.make_context(name, [re.sub(r"^ID$", "42", w) for w in words], parent=context)


def test_every_command_and_option_is_explained() -> None:
    """The section Commands knows each command, and in its part each option."""
    told = section("Commands")
    titles = re.findall(r"^### (.+)$", told, re.M)
    missing = []
    for words, command in commands():
        title = next((t for t in titles if words[0] in t.split(", ")), None)
        assert title is not None, f"no heading for {words[0]}"
        text = section(title)
        if not isinstance(command, click.Group) and len(words) > 1 and words[1] not in text:
            missing.append(" ".join(words))
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                option = next(name for name in parameter.opts if name.startswith("--"))
                general = option in ("--json", "--help")
                if not general and not re.search(rf"{option}(?![\w-])", text):
                    missing.append(f"{' '.join(words)} {option}")
    assert not missing


def test_every_setting_is_in_the_table() -> None:
    """Keys and defaults are the program's, in its order."""
    rows = [(key, default) for key, default, _ in table("Configuration", "Setting")]
    assert rows == [
        (key, shown_text(row.setting.kind.show(row.default))) for key, row in TABLE.items()
    ]
    for row in TABLE.values():
        for variable in row.setting.env:
            assert f"`{variable}`" in section("Configuration")


def test_every_setting_in_an_example_is_taken() -> None:
    """--set KEY=VALUE in the README names a setting and a value that it can have."""
    given = re.findall(r"--set (\w+)=(\S*)", code_blocks())
    assert given
    for key, value in given:
        if value != "-":
            config.parse(key, FILLED.get(value, value), "README.md")


def test_every_preset_is_in_the_table() -> None:
    """Names, descriptions and datasets are those of the files."""
    known = [presets.load(name) for name in presets.names()]
    assert table("Presets", "Preset") == [
        [p.name, p.description, ", ".join(p.values["datasets"]) or "any"] for p in known
    ]


def test_every_state_is_in_the_table() -> None:
    """The states of a round are the journal's; final ones have no next step."""
    rows = table("How it works", "State")
    assert [name for name, _, _ in rows] == [state.value for state in State]
    for name, _, next_step in rows:
        assert (next_step == "-") == State(name).is_final


def test_every_exit_code_is_in_the_table() -> None:
    """The README's exit codes are those of --help, and of every error class."""
    rows = table("Commands", "Exit code")
    helped = re.findall(r"^  (\d+) +(\w+)", EXIT_CODES, re.M)
    assert [code for code, _ in rows] == [code for code, _ in helped]
    for (_, meaning), (_, word) in zip(rows, helped, strict=True):
        assert meaning.startswith(word)
    classes: list[type[DecloudError]] = [DecloudError]
    for kind in classes:
        classes.extend(kind.__subclasses__())
    assert {str(kind.exit_code) for kind in classes} <= {code for code, _ in rows}


def test_every_make_target_is_in_the_table() -> None:
    """`make TARGET` exists for each one named, and each one is named."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split()) - {"help"}  # type: ignore[index]
    rows = {target.removeprefix("make ") for target, _ in table("Development", "Target")}
    assert rows == phony
    for target in phony:
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert set(re.findall(r"^make (\w+)$", code_blocks(), re.M)) <= phony


def test_every_folder_named_exists() -> None:
    """Development's table of folders, and files that the text points to."""
    for folder, _ in table("Development", "Folder"):
        assert (ROOT / folder).is_dir(), folder
    for path in re.findall(r"`((?:decloud_trainer|tests|\.ci)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path
    assert (ROOT / "LICENSE").exists()


@pytest.mark.parametrize(
    "phrase", ["No private key found", "Failed to upload gradients", "Dataset not found"]
)
def test_troubleshooting_quotes_the_program(phrase: str) -> None:
    """What the README explains is what the program says, word for word."""
    assert f'### "{phrase}"' in section("Troubleshooting")
    sources = (ROOT / "decloud_trainer").rglob("*.py")
    assert any(phrase in path.read_text("utf-8") for path in sources)


def test_links_within_the_readme_lead_somewhere() -> None:
    """No link to a heading or a file that isn't there."""
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_data_are_attributed() -> None:
    """The shipped digits keep their authors, source and licence."""
    for words in ("E. Alpaydin and C. Kaynak", "UCI Machine Learning Repository", "CC BY 4.0"):
        assert words in README
