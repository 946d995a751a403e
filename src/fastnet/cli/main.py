"""Command group: imports the command that is run, turns errors into lines and exit codes.

A command is a module of this package with a function `commands`. It may raise any FastnetError; no
other module prints an error or chooses an exit code.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from itertools import pairwise

import click

from fastnet._version import __version__
from fastnet.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNEXPECTED,
    EXIT_USAGE,
    FastnetError,
    printable,
    reason,
)

DEBUG_VARIABLE = "FASTNET_LOG_LEVEL"

OUTPUT_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of printing, and of no other call that gets here: a full disk, a limit, a closed
terminal, a closed descriptor.
"""

COMMANDS = {
    "echo": ("fastnet.cli.servers", "Echo server (RFC 862): sends every byte back."),
    "discard": (
        "fastnet.cli.servers",
        "Discard server (RFC 863): reads and discards everything.",
    ),
    "chargen": (
        "fastnet.cli.servers",
        "Character generator (RFC 864): an endless pattern of lines.",
    ),
    "daytime": (
        "fastnet.cli.servers",
        "Daytime server (RFC 867): sends date and time, then closes.",
    ),
    "dict": ("fastnet.cli.dictionary", "Dictionary: serve a file of words, or look words up."),
    "connect": (
        "fastnet.cli.connect",
        "Connect to a server: standard input to the socket, the socket to standard output.",
    ),
    "send": ("fastnet.cli.send", "Send files and folders to a receiver, which acknowledges them."),
    "recv": (
        "fastnet.cli.recv",
        "Receive files and folders; each gets its name when it is complete.",
    ),
    "chat": ("fastnet.cli.chat", "Group chat: serve one, or join it."),
    "exec": (
        "fastnet.cli.exec",
        "Remote commands: serve the allowed ones, or run one on a server.",
    ),
    "up": ("fastnet.cli.up", "Run a set of servers from a TOML file."),
    "doctor": ("fastnet.cli.doctor", "What this host and this build support, and why not."),
}


class Commands(click.Group):
    """A click group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.commands()[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Options of a command: fastnet COMMAND --help",
)
@click.version_option(__version__, prog_name="fastnet", message="%(prog)s %(version)s")
def fastnet() -> None:
    """Socket servers and tools at native speed."""


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    An error becomes one line on standard error, and with --json a JSON document.
    """
    as_json = wants_json(sys.argv[1:] if arguments is None else arguments)
    try:
        result = fastnet.main(args=arguments, prog_name="fastnet", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.UsageError as error:
        # `fastnet dict`; a class of click 8.2 and later
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return EXIT_USAGE
        return complain(usage_line(error), EXIT_USAGE, as_json)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except SystemExit:
        # outside of standalone mode click exits only when the reader of its output has closed it
        return EXIT_OK
    except FastnetError as error:
        show_traceback()
        return complain(
            error.message, error.exit_code, as_json, error.hint, getattr(error, "code", "")
        )
    except BrokenPipeError:
        # the reader has closed our output (`fastnet doctor | head -1`): not an error
        drop_output()
        return EXIT_OK
    except OSError as error:
        if error.filename is not None:
            return complain(f"{error.filename}: {reason(error)}", EXIT_UNEXPECTED, as_json)
        if error.errno in OUTPUT_FAILS:
            drop_output()
            return complain(
                f"cannot write to standard output: {reason(error)}", EXIT_UNEXPECTED, as_json
            )
        return unexpected(error, as_json)
    except Exception as error:
        return unexpected(error, as_json)


def drop_output() -> None:
    """Discard buffered output; Python would try to write it at exit and print its own error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wants_json(arguments: list[str]) -> bool:
    """Whether --json is among the options, even if click could not parse them."""
    given = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in given or os.environ.get("FASTNET_JSON", "").lower() in (
        "1",
        "true",
        "yes",
        "on",
    )


def debug_asked(arguments: list[str]) -> bool:
    return "--log-level=debug" in arguments or ("--log-level", "debug") in pairwise(arguments)


def usage_line(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "fastnet"
    return f"{error.format_message().rstrip('.')}. See {path} --help."


def unexpected(error: Exception, as_json: bool) -> int:
    """A bug: one line, and the traceback at log level debug."""
    show_traceback()
    hint = f"This is a bug of fastnet; {DEBUG_VARIABLE}=debug shows where"
    return complain(f"unexpected {type(error).__name__}: {error}", EXIT_UNEXPECTED, as_json, hint)


def show_traceback() -> None:
    if os.environ.get(DEBUG_VARIABLE) == "debug" or debug_asked(sys.argv):
        traceback = import_module("traceback")
        traceback.print_exc()


def complain(message: str, code: int, as_json: bool, hint: str = "", code_word: str = "") -> int:
    """Print an error as one line on standard error and, with --json, as a document.

    code_word: the `code` of the error, in place of the exit code.
    """
    sentence = f"{message}. {hint}" if hint else message
    stop = "" if sentence.endswith("?") else "."
    print(f"fastnet: {printable(sentence).rstrip('.')}{stop}", file=sys.stderr)
    if as_json:
        json = import_module("json")
        print(
            json.dumps(
                {"event": "error", "code": code_word or code, "message": message, "hint": hint}
            ),
            flush=True,
        )
    return code
