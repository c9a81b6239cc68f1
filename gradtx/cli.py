"""The ``gradtx`` command: compare, landscape, describe, schedule, plot, plan.

This file parses arguments. Each subcommand hands them to the module that does the work, which is
imported only then. A request that cannot be met is one line on standard error and exit code 2; two
more lines show the place if a construction cannot be read.
"""

import argparse
import io
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from gradtx.demo.errors import CommandError, MissingPackageError

_DESCRIPTION = "Gradient transformations for JAX: see what they are and what they do."

_EXAMPLES = """\
examples:
  gradtx compare --optimizers sgd,momentum,adamw --seeds 0,1,2
  gradtx landscape --function rosenbrock --out rosenbrock.png
  gradtx describe adamw weight_decay=0.01
  gradtx describe "chain(clip(1.0), adam(1e-3))"
  gradtx schedule warmup_cosine_decay_schedule init_value=0 peak_value=0.1 \\
      warmup_steps=20 decay_steps=200
  gradtx plot run.jsonl
  gradtx plan --model llama-70b --mesh data=64,model=16 --optimizer adamw
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like every other error here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 for a request that cannot be met.

    If the reader goes away, as behind `| head`, or the user interrupts, the exit code is 128 plus
    the signal's number, as in a shell.
    """
    parser = _parser()
    try:
        _write_what_the_terminal_can()
        arguments = parser.parse_args(argv)
        if arguments.command is None:
            parser.print_help()
        else:
            arguments.run(arguments)
        if sys.stdout is not None:  # it is None if it was closed before the start
            sys.stdout.flush()  # notice here that the reader is gone, not while Python exits
    except BrokenPipeError:
        _abandon_output()
        return 141
    except OSError as error:
        _abandon_output()
        print(f"gradtx: {error}", file=sys.stderr)
        return 2
    except MissingPackageError as error:
        print(error, file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"gradtx: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _write_what_the_terminal_can() -> None:
    """Print a question mark for a character that the output cannot encode, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _abandon_output() -> None:
    """Point standard output at the null device, for the flush when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gradtx", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action=_Version, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_compare(commands)
    _add_landscape(commands)
    _add_describe(commands)
    _add_schedule(commands)
    _add_plot(commands)
    _add_plan(commands)
    return parser


# --------------------------------------------------------------------------- compare


def _add_compare(commands: _Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="train with every optimizer and with its Optax twin",
        description=(
            "Train the same model from the same start on real data with every optimizer from\n"
            "SGD to AdamW, or with any others, and with its Optax twin. Prints what was found, a\n"
            "table (held-out loss and accuracy, steps per second, time to trace and compile,\n"
            "largest parameter difference), and draws the loss curves. Half a minute on two\n"
            "cores; two minutes for --task text.\n\n"
            "An optimizer is a name of the comparison's (see --list), any other public name, at a\n"
            "learning rate of 0.001 unless one is given, lion:3e-4, or a construction."
        ),
        epilog=(
            "examples:\n  gradtx compare --optimizers sgd,momentum,adamw --seeds 0,1,2\n"
            "  gradtx compare --optimizers "
            "'adam,lion:3e-4,chain(clip(1.0), adamw(1e-3, b2=0.95))'"
        ),
    )
    parser.add_argument("--task", default="digits", help="digits (the default) or text")
    parser.add_argument(
        "--optimizers",
        type=_list,
        metavar="A,B,...",
        help="names, each with a learning rate if wanted, and constructions (default: all of the "
        "comparison)",
    )
    parser.add_argument(
        "--steps", type=_positive, metavar="N", help="default: 300 for digits, 120 for text"
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=[0], metavar="S,T,...", help="each is a run (default: 0)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("compare.png"), metavar="FILE", help="default: compare.png"
    )
    parser.add_argument("--no-optax", action="store_true", help="train with gradtx alone")
    parser.add_argument("--list", action="store_true", help="list the tasks and optimizers")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from gradtx.demo import comparison

    if arguments.list:
        print(comparison.listing())
        return
    comparison.compare(
        arguments.task,
        arguments.optimizers,
        arguments.steps,
        arguments.seeds,
        arguments.out,
        with_optax=not arguments.no_optax,
    )


# ------------------------------------------------------------------------- landscape


def _add_landscape(commands: _Commands) -> None:
    parser = commands.add_parser(
        "landscape",
        help="draw the paths of optimizers over functions of two variables",
        description=(
            "Draw the paths of SGD, momentum, Nesterov, AdaGrad, RMSProp, Adam, AMSGrad and\n"
            "AdamW over the contours of a ravine, Rosenbrock's and Beale's function. On the\n"
            "quadratic it also says how far the denominators of RMSProp and Adam are from the\n"
            "diagonal of the Hessian, and draws Newton's step beside them.\n\n"
            "Another optimizer without a learning rate is given the best of 0.001, 0.003, ..., 3."
        ),
        epilog=(
            "examples:\n  gradtx landscape --function quadratic --out quadratic.png\n"
            "  gradtx landscape --optimizers 'adam,lion,chain(clip(0.1), sgd(0.05))'"
        ),
    )
    parser.add_argument(
        "--function",
        type=_names,
        metavar="F,G,...",
        help="ravine, rosenbrock, beale, quadratic (default: the first three)",
    )
    parser.add_argument(
        "--optimizers",
        type=_list,
        metavar="A,B,...",
        help="names, each with a learning rate if wanted, and constructions (default: these eight)",
    )
    parser.add_argument(
        "--steps", type=_positive, metavar="N", help="default: what suits the function"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("landscape.png"),
        metavar="FILE",
        help="default: landscape.png",
    )
    parser.add_argument("--list", action="store_true", help="list the functions and optimizers")
    parser.set_defaults(run=_landscape)


def _landscape(arguments: argparse.Namespace) -> None:
    from gradtx.demo import landscape

    if arguments.list:
        print(landscape.listing())
        return
    landscape.landscape(arguments.function, arguments.optimizers, arguments.steps, arguments.out)


# -------------------------------------------------------------------------- describe


def _add_describe(commands: _Commands) -> None:
    parser = commands.add_parser(
        "describe",
        help="say what a transformation is made of",
        description=(
            "Say what a transformation is made of, with its default hyperparameters (and a\n"
            "learning rate of 0.001 where it needs one) unless others are given. A name that ends\n"
            "in .json or .yaml is a file that holds what to_config writes."
        ),
        epilog=(
            "examples:\n  gradtx describe adamw weight_decay=0.01\n  gradtx describe torch.sgd\n"
            "  gradtx describe optimizer.yaml\n"
            "  gradtx describe \"partition({'bias': sgd(0.1), '.*': adamw(1e-3)})\""
        ),
    )
    _add_name_and_arguments(parser, "transformations")
    parser.set_defaults(run=_describe)


def _describe(arguments: argparse.Namespace) -> None:
    from gradtx.demo import naming

    if arguments.list:
        for name, definition in naming.transformations().items():
            print(naming.signature(name, definition))
        return
    transformation = naming.make_transformation(_words(arguments))
    from gradtx.inspection.describe import describe

    print(describe(transformation))


# -------------------------------------------------------------------------- schedule


def _add_schedule(commands: _Commands) -> None:
    parser = commands.add_parser(
        "schedule",
        help="draw the value of a schedule against the step",
        description=(
            "Draw the value of a schedule against the step, and print some of its values: the\n"
            "whole of it, or some periods of one that never ends. Several, written as\n"
            "constructions, are drawn over each other."
        ),
        epilog=(
            "examples:\n  gradtx schedule warmup_cosine_decay_schedule init_value=0 "
            "peak_value=0.1 \\\n      warmup_steps=20 decay_steps=200\n"
            "  gradtx schedule 'cosine_decay_schedule(1.0, 200)' "
            "'0.5 * linear_schedule(1.0, 0.0, 100)'"
        ),
    )
    _add_name_and_arguments(parser, "schedules")
    parser.add_argument(
        "--steps", type=_positive, metavar="N", help="default: of each to a little after its end"
    )
    parser.add_argument("--log", action="store_true", help="draw a logarithmic axis of values")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("schedule.png"),
        metavar="FILE",
        help="default: schedule.png",
    )
    parser.set_defaults(run=_schedule)


def _schedule(arguments: argparse.Namespace) -> None:
    from gradtx.demo import figures, naming, schedules

    if arguments.list:
        for name, definition in naming.schedules().items():
            print(naming.signature(name, definition))
        return
    chosen = naming.make_schedules(_words(arguments))
    figures.ready_to_draw(arguments.out, command="schedule")
    schedules.show_schedules(chosen, arguments.steps, arguments.out, arguments.log)


# ------------------------------------------------------------------------------- plot


def _add_plot(commands: _Commands) -> None:
    parser = commands.add_parser(
        "plot",
        help="draw what a training run logged",
        description=(
            "Draw what a training run logged: learning rates, norms, the ratios of updates to\n"
            "parameters by group, and what was clipped, skipped or not finite, as gradtx.report\n"
            "makes them, and whatever else has a name, such as a loss.\n\n"
            "The file holds one JSON object a line, of numbers by name, and the step:\n"
            '{"step": 1, "loss": 2.3, "rate/adamw": 0.001, "norm/grads": 4.2, ...}'
        ),
        epilog="examples:\n  gradtx plot run.jsonl\n  gradtx plot run.jsonl --out norms.pdf",
    )
    parser.add_argument("log", type=Path, metavar="RUN", help="the file of the run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: the run's name, ending in .png"
    )
    parser.set_defaults(run=_plot)


def _plot(arguments: argparse.Namespace) -> None:
    from gradtx.demo import runs

    runs.plot_run(arguments.log, arguments.out or arguments.log.with_suffix(".png"))


# ------------------------------------------------------------------------------- plan


def _add_plan(commands: _Commands) -> None:
    parser = commands.add_parser(
        "plan",
        help="say what optimizers need on each device of a mesh that need not be there",
        description=(
            "Say what a training step of optimizers needs on each device of a mesh, which need\n"
            "not be there: the bytes of parameters, gradients and state, and, with a target, the\n"
            "temporary bytes and collectives of the program that the target's compiler makes.\n"
            "It needs libtpu for a TPU, and for a GPU jax-cuda12-plugin, jax-cuda12-pjrt and\n"
            "nvidia-cuda-nvcc-cu12, and no accelerator.\n\n"
            "Layers are stacked. The layout says how matrices lie: replicated, divided over the\n"
            "axis model (tensor), or over model and data (full). The gradients lie as the\n"
            "parameters. What the model itself needs is not counted."
        ),
        epilog=(
            "examples:\n  gradtx plan --model llama-8b --mesh data=16 --layout replicated "
            "--zero data\n"
            "  gradtx plan --model llama-70b --mesh data=64,model=16 --target v5p:8x8x16 \\\n"
            "      --optimizer adamw --optimizer 'chain(clip_by_global_norm(1.0), lion(1e-4))'"
        ),
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="llama-1b, llama-8b, llama-70b, llama-405b"
    )
    parser.add_argument(
        "--mesh",
        required=True,
        type=_axes,
        metavar="AXIS=N,...",
        help="the axes data and model, and how many devices each has",
    )
    parser.add_argument(
        "--layout",
        choices=("replicated", "tensor", "full"),
        default="full",
        help="default: full",
    )
    parser.add_argument(
        "--optimizer",
        action="append",
        metavar="NAME",
        help="a name, or a construction; may be given again (default: adamw, lion, adafactor, muon "
        "and adamw with a state of int8)",
    )
    parser.add_argument(
        "--zero",
        type=_axis_names,
        metavar="AXIS,...",
        help="spread the state over this axis too, or over several, as ZeRO-1 does",
    )
    parser.add_argument(
        "--target", metavar="DEVICES", help="h100x8, h200x8, v5e:4x4, v5p:8x8x16 and the like"
    )
    parser.add_argument(
        "--dtype", default="float32", help="of the parameters and gradients (default: float32)"
    )
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> None:
    from gradtx.demo import plans

    plans.show_plan(
        arguments.model,
        arguments.mesh,
        arguments.layout,
        arguments.optimizer,
        arguments.zero,
        arguments.target,
        arguments.dtype,
    )


# -------------------------------------------------------------------------- arguments


def _add_name_and_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="NAME [key=value ...]",
        help="or a construction, 'NAME(value, key=value)', as it is written in Python",
    )
    parser.add_argument("--list", action="store_true", help=f"list the {what}")


def _words(arguments: argparse.Namespace) -> list[str]:
    if not arguments.words:
        raise CommandError(f"name one, or see gradtx {arguments.command} --list")
    words: list[str] = arguments.words
    return words


class _Version(argparse.Action):
    """Prints the version, and imports the library only then."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        import gradtx

        print(f"gradtx {gradtx.__version__}")
        parser.exit()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def _list(text: str) -> list[str]:
    from gradtx.demo.naming import split

    return split(text)


def _seeds(text: str) -> list[int]:
    parts = _names(text)
    if not parts or not all(part.isdecimal() and int(part) < 2**32 for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers such as 0,1,2, below 2**32, got {text!r}"
        )
    return list(dict.fromkeys(int(part) for part in parts))


def _axes(text: str) -> list[tuple[str, int]]:
    pairs = [part.partition("=") for part in _names(text)]
    if not pairs or not all(name and n.isdecimal() and int(n) for name, _, n in pairs):
        raise argparse.ArgumentTypeError(f"must be axes such as data=8,model=4, got {text!r}")
    names = [name for name, _, _ in pairs]
    if len({*names}) < len(names):
        raise argparse.ArgumentTypeError(f"must name each axis once, got {text!r}")
    return [(name, int(n)) for name, _, n in pairs]


def _axis_names(text: str) -> tuple[str, ...]:
    if not (names := _names(text)):
        raise argparse.ArgumentTypeError(f"must be axes such as data or data,model, got {text!r}")
    return tuple(names)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
