"""The command line: wrong input gets two clear lines and a status, never a traceback, and nothing is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xenonode.cli import main
from xenonode.cli.output import Output

PROGRAM = [sys.executable, "-c", "from xenonode.cli.main import main; main()"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads this user's settings or writes into this user's folders."""
    for name in list(os.environ):
        if name.startswith("XENONODE_"):
            monkeypatch.delenv(name)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main.run(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [(str(one.name),) for one in main.app.registered_commands]
    for group in main.app.registered_groups:
        assert group.typer_instance is not None
        names = [str(one.name) for one in group.typer_instance.registered_commands]
        found.extend((str(group.typer_instance.info.name), name) for name in names)
    return found


def test_every_promised_command_is_there() -> None:
    promised = """join|register|search|quote|peers|status|statement|doctor|advert show|audit verify
        |config show|config example|corp init|corp serve|corp credit|corp audit|corp upgrade
        |corp members|corp approve|corp refuse|server sessions|server stop|server publish
        |server dimensions|server leave|server enter|value put|value get
        |order create|order show|order list|order release|session create|session list|session show|session ssh
        |session resize|session pause|session resume|session stop|session console|session agent"""
    assert {tuple(one.split()) for one in promised.split("|")} <= set(every_command())


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_help_teaches_with_an_example(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    status, out, _ = call(capsys, *command, "--help")
    assert status == 0
    for needed in ("--config", "--json", "--set", "Example: xenonode"):
        assert needed in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("order", "create", "-1", "USD"), "more than zero, not -1"),
        (("order", "create", "-1 USD"), "more than zero, not -1"),
        (("order", "create", "0", "USD"), "more than zero"),
        (("order", "create", "1e400", "USD"), "'1e400' is no amount"),
        (("order", "create", "NaN", "USD"), "'NaN' is no amount"),
        (("order", "create", "0.0000000001", "USD"), "more than nine decimals"),
        (("order", "create", "9999999999999", "USD"), "more than an account can hold"),
        (("order", "create", "5", "XYZ"), "currency XYZ is not one of"),
        (("order", "create", "5"), "currency (none) is not one of"),
        (("order", "create", "5", "USD", "--frobnicate"), "no such option: --frobnicate"),
        (("order", "create", "5", "USD", "--expires-in", "soon"), "no quantity with a unit"),
        (("order", "create", "5", "USD", "--server", "abc"), "no key of 64 hex digits"),
        (("corp", "credit", "entity", "-1", "USD"), "more than zero, not -1"),
        (("quote", "ab", "--cpu", "250"), "no quantity with a unit"),
        (("quote", "ab", "--memory", "1 XB"), "is not one of"),
        (("quote", "ab", "--lease", "-1 h"), "no quantity with a unit"),
        (("session", "resize", "ab"), "nothing to change"),
        (("statement", "--currency", "DOGE"), "currency DOGE"),
        (("config", "show", "king"), "role 'king'"),
        (("config", "show", "--set", "folder"), "names no value"),
        (("audit", "verify", ".", "zz"), "no key of 64 hex digits"),
        (("ordre",), "No such command 'ordre'"),
        (("order", "show"), "Missing argument"),
        (("order", "list", "--frobnicate"), "No such option"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ") and message in lines[0]
    assert lines[1].startswith("next:  ") and len(lines) == 2
    status, out, err = call(capsys, *arguments, "--json")
    assert (status, out) == (2, "")
    fields = json.loads(err)
    assert fields["code"] == "usage" and message in fields["message"] and fields["next_step"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("order", "list"), ("search", "cores >= 1"), ("join",), ("session", "list")],
    ids=" ".join,
)
def test_without_a_network_file_or_settings_it_says_what_to_get(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    status, out, err = call(capsys, *arguments, "--json", "--set", f"folder={tmp_path / 'state'}")
    assert (status, out) == (1, "")
    fields = json.loads(err)
    assert fields["message"] and fields["next_step"] and fields["code"] != "unexpected"


def test_an_unknown_setting_names_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text("version = 1\nfoldr = '/tmp'\n")
    status, _, err = call(capsys, "config", "show", "--config", str(tmp_path / "client.toml"))
    assert status == 1
    assert "unknown setting 'foldr'" in err and "did you mean folder" in err


def test_config_show_says_where_each_value_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XENONODE_OWNER_COUNTRY", "GB")
    status, out, _ = call(capsys, "config", "show", "--json", "--set", "owner.email=a@b.c")
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(out)}
    assert status == 0
    assert rows["owner.country"] == ("GB", "environment XENONODE_OWNER_COUNTRY")
    assert rows["owner.email"] == ("a@b.c", "flag")
    assert rows["udp"] == ("any", "default")


def test_doctor_finds_open_folders_open_keys_and_used_ports(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "corp"
    folder.mkdir(mode=0o755)
    key = folder / "node.key"
    key.write_bytes(b"k")
    key.chmod(0o644)
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = call(
            capsys, "doctor", "corp", "--json", "--set", f"folder={folder}", "--set", f"control=127.0.0.1:{port}"
        )
    found = {row["check"]: row for row in json.loads(out)}
    assert status == 1 and json.loads(err)["code"] == "doctor"
    assert [found[name]["level"] for name in ("folder", "key file", "port control")] == ["fail"] * 3
    assert found["folder"]["next_step"] == f"chmod 0700 {folder}"
    assert found["python"]["level"] == "ok"


def test_a_closed_stdout_is_an_error_before_anything_is_done() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "config", "show"],
        stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("error: standard output is closed")


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        program = [*PROGRAM, "config", "example", "server"]
        done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr and b"carried out" in done.stderr


SLOW = (
    "async def slow(run: command.Run) -> None:\n"
    "    mark.touch()\n"
    "    try: await asyncio.sleep(60)\n"
    "    finally: mark.unlink()\n"
)
WATCHING = (
    "async def looks(run: command.Run):\n"
    "    await slow(run)\n"
    "    yield\n"
    "async def watching(run: command.Run) -> None:\n"
    "    await searching._watch(run, looks(run))\n"
)


@pytest.mark.parametrize(
    ("handler", "says"), [("slow", "error: interrupted; nothing was left behind\n"), ("watching", "")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so_and_cleans_up_and_a_watch_ends_without_a_word(
    tmp_path: Path, number: signal.Signals, handler: str, says: str
) -> None:
    program = (
        "import asyncio, pathlib, signal, sys\n"
        # A shell that started the tests in the background has had them ignore it, and so their children.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from xenonode.cli import command, main, searching\n"
        f"mark = pathlib.Path(sys.argv[2])\n{SLOW}{WATCHING}"
        f"command.command(main.app, 'slow', example='xenonode slow')({handler})\n"
        "sys.exit(main.run(['slow']))\n"
    )
    mark = tmp_path / "mark"
    child = subprocess.Popen([sys.executable, "-c", program, "slow", str(mark)], stderr=subprocess.PIPE, text=True)
    while not mark.exists():
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, says)
    assert not mark.exists()


def test_an_unexpected_error_is_one_line_and_a_log(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from xenonode.cli import command, main\n"
        "def broken(run: command.Run) -> None: raise RuntimeError('a bug')\n"
        "command.command(main.app, 'broken', example='xenonode broken')(broken)\n"
        "sys.exit(main.run(sys.argv[1:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "broken"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 70
    assert done.stderr.startswith("error: unexpected error: RuntimeError: a bug\nnext:  the traceback is in ")
    assert "Traceback" not in done.stderr
    log = Path(done.stderr.partition("traceback is in ")[2].partition(";")[0])
    assert "RuntimeError: a bug" in log.read_text()
    broken = [sys.executable, "-c", program, "broken"]
    done = subprocess.run([*broken, "--debug"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 70 and "Traceback" in done.stderr


def test_what_others_say_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    steering = "eu\x1b]0;title\x07\x1b[2J\x9b31m\r\x7f"
    output = Output(False)
    output.rows([], ("region",), [(steering,)], "none")
    output.facts({}, [("reason", steering), ("told", {steering: 1})])
    output.note(steering)
    main._report({"code": "refused", "message": steering, "next_step": steering}, False, 1)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "eu" in text and "title" in text
        assert all(letter in "\n\t" or letter.isprintable() for letter in text)
