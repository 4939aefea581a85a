"""Nash-MD's theorem, its rivals and the gradients of the online methods, checked exactly on small random problems.

    python scripts/tabular.py games --json games.json --plots docs/images
    python scripts/tabular.py gradients

`games`: on random preference games, how often Nash-MD breaks the bounds of its theorem, which of the other recursions
settle, and how far from the equilibrium each method ends. `gradients`: on all sequences over a small vocabulary, which
gradients move when the rewards get an offset, and how far two usual approximations are off. docs/tabular.md says what
came out. All of it is numpy on one core: a minute for the games, seconds for the gradients.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.tabular import gradients as exact  # noqa: E402
from alignment.tabular.dynamics import (  # noqa: E402
    average,
    constant,
    decaying,
    last_iterate_bound,
    mirror_descent,
    nash_ema,
    nash_md,
    one_step_excess,
    settled,
)
from alignment.tabular.games import (  # noqa: E402
    Array,
    Game,
    has_condorcet_winner,
    kl,
    mix,
    normalised,
    random_game,
    random_preferences,
)
from alignment.tabular.sequences import Policy, Sequences  # noqa: E402
from alignment.tabular.solutions import equilibrium, fit_bradley_terry, reward_optimum_at  # noqa: E402

SIZES = (3, 4, 5, 8, 12)  # answers in a game; every size has its share of the games
MIXTURES = (1.0, 0.5, 0.25, 0.125)  # of mu in the opponent, Nash-MD-PG's beta; 1 is the best response to mu
ETA = 0.1  # step size of what is run with a constant one
DECAY = 0.995  # of Nash-EMA's average: a memory of 200 steps, a tenth of a run, as .999 is of the paper's 10k
ROUNDING = 1e-12
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
console = Console(width=max(100, Console().width))  # the table of figures is that wide


# -- games -------------------------------------------------------------------------------------------------------------


def policies(game: Game, star: Array, steps: int) -> dict[str, tuple[Array, Array | None]]:
    """What each method ends with on a batch of games, (G, K) log-probs, and whether it settled (G,), where it moves."""
    found: dict[str, tuple[Array, Array | None]] = {"reference": (game.log_mu, None)}

    def ran(name: str, path: Array) -> None:
        found[name] = (path[-1], settled(path))

    ran("Nash-MD", nash_md(game, steps))
    ran("mirror descent, regularised", mirror_descent(game, steps, decaying(game.tau)))
    ran("self-play by best responses", mirror_descent(game, steps, constant(1 / game.tau)))
    current, averaged = nash_ema(game, steps, constant(ETA), DECAY)
    ran("Nash-EMA", current)
    ran("Nash-EMA, averaged parameters", averaged)
    plain = mirror_descent(game, steps, constant(ETA), regularised=False)
    ran("mirror descent, plain", plain)
    found["mirror descent, plain, average"] = (average(plain), None)
    for share in MIXTURES:
        name = "best response to mu" if share == 1 else f"fixed mixture, {share:g} of mu"
        found[name] = (equilibrium(game, share=share), None)
    found["Bradley-Terry, same KL to mu"] = (bradley_terry_policies(game, star), None)
    return found


def bradley_terry_policies(game: Game, star: Array) -> Array:
    """(G, K): RLHF with a reward fitted to pairs of mu, its beta such that it is as far from mu as the equilibrium."""
    found = []
    for preference, log_mu, nats in zip(game.preference, game.log_mu, kl(star, game.log_mu), strict=True):
        mu = np.exp(log_mu)
        rewards = fit_bradley_terry(preference, mu[:, None] * mu[None, :])
        found.append(reward_optimum_at(rewards, log_mu, nats))
    return np.stack(found)


def play(game: Game, steps: int) -> dict[str, Any]:
    """One batch of games: violations of both bounds, distances and exploitability of each method's policy."""
    star = equilibrium(game)
    path = nash_md(game, steps)
    distances = kl(star, path)
    return {
        "condorcet": has_condorcet_winner(game.preference),
        "scaled": distances * game.tau**2,  # (steps + 1, G), below 8 / (T + 1)
        "above": (distances > last_iterate_bound(game.tau, steps)).sum(),
        "above_one_step": (one_step_excess(path, star, game.tau, decaying(game.tau)) > ROUNDING).sum(),
        "methods": {
            name: {"kl": kl(star, log_pi), "exploitability": game.exploitability(log_pi), "settled": still}
            for name, (log_pi, still) in policies(game, star, steps).items()
        },
    }


def summary(played: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """The figures over all batches, for games without and with a Condorcet winner."""
    winner = np.concatenate([batch["condorcet"] for batch in played])
    scaled = np.concatenate([batch["scaled"] for batch in played], axis=1)
    methods = {}
    for name in played[0]["methods"]:
        joined: dict[str, Any] = {
            key: None if value is None else np.concatenate([batch["methods"][name][key] for batch in played])
            for key, value in played[0]["methods"][name].items()
        }
        methods[name] = {
            kind: {
                "kl_mean": float(joined["kl"][chosen].mean()),
                "kl_median": float(np.median(joined["kl"][chosen])),
                "exploitability_mean": float(joined["exploitability"][chosen].mean()),
                "settled": None if joined["settled"] is None else float(joined["settled"][chosen].mean()),
            }
            for kind, chosen in (("cycle", ~winner), ("winner", winner))
        }
    return {
        "games": int(winner.size),
        "without_condorcet_winner": int((~winner).sum()),
        "steps": steps,
        "above_last_iterate_bound": int(sum(batch["above"] for batch in played)),
        "above_one_step_bound": int(sum(batch["above_one_step"] for batch in played)),
        "largest_share_of_bound": float((scaled / (8 / np.arange(1, steps + 2))[:, None]).max()),
        "methods": methods,
    }


def show(found: dict[str, Any]) -> None:
    console.print(
        f"{found['games']} games, {found['without_condorcet_winner']} without a Condorcet winner; Nash-MD, "
        f"{found['steps']} steps each: {found['above_last_iterate_bound']} policies above the last-iterate bound, "
        f"{found['above_one_step_bound']} steps above the one-step bound; at most "
        f"{found['largest_share_of_bound']:.2%} of the bound was used"
    )
    table = Table(box=box.SIMPLE)
    table.add_column("method", no_wrap=True)
    for column in ("settled", "KL", "exploitable"):
        table.add_column(f"{column}\nno winner", justify="right")
        table.add_column("\nwinner", justify="right")
    for name, kinds in found["methods"].items():
        both = [kinds["cycle"], kinds["winner"]]
        still = ["" if kind["settled"] is None else f"{kind['settled']:.1%}" for kind in both]
        numbers = [f"{kind[key]:.1e}" for key in ("kl_mean", "exploitability_mean") for kind in both]
        table.add_row(name, *still, *numbers)
    console.print(table)


@app.command()
def games(
    number: Annotated[int, typer.Option(min=20, help="how many, shared out over 3, 4, 5, 8 and 12 answers")] = 1000,
    steps: Annotated[int, typer.Option(min=1, help="of every recursion")] = 2000,
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all figures there")] = None,
    plots: Annotated[Path | None, typer.Option(help="draw tabular_*.png into this folder")] = None,
) -> None:
    """Nash-MD's bounds, who settles, and how far from the equilibrium every method ends."""
    rng = np.random.default_rng(seed)
    played = [play(random_game(rng, -(-number // len(SIZES)), answers), steps) for answers in SIZES]
    found = summary(played, steps)
    show(found)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        draw_bound(np.concatenate([batch["scaled"] for batch in played], axis=1), plots / "tabular_bound.png")
        draw_paths(steps, plots / "tabular_paths.png")


# -- pictures ----------------------------------------------------------------------------------------------------------


def canvas(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(1, panels, figsize=(width, height), layout="constrained", squeeze=False)


def draw_bound(scaled: Array, file: Path) -> None:
    """tau^2 KL(equilibrium, pi_T) over T: in these units every game has the same bound."""
    figure, ((axes,),) = canvas(7, 4)
    times = np.arange(1, len(scaled) + 1)
    axes.loglog(times, 8 / times, color="black", label="the theorem's bound, 8 / (T + 1)")
    axes.loglog(times, scaled.max(1), color="tab:red", label=f"the furthest of {scaled.shape[1]} games")
    low, middle, high = np.quantile(scaled, (0.05, 0.5, 0.95), axis=1)
    axes.loglog(times, middle, color="tab:blue", label="median")
    axes.fill_between(times, low, high, color="tab:blue", alpha=0.2, linewidth=0, label="5 % to 95 % of the games")
    axes.set(xlabel="T + 1", ylabel="tau² · KL(equilibrium, policy) (nats)", title="Nash-MD, step by step")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def draw_paths(steps: int, file: Path) -> None:
    """One cycle of three answers as a triangle: where the recursions go."""
    preference = 0.5 + 0.4 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    game = Game(preference, normalised(np.log([0.6, 0.3, 0.1])), np.array(0.1))
    shown: dict[str, Callable[[], Array]] = {
        "Nash-MD": lambda: nash_md(game, steps),
        "mirror descent, plain": lambda: mirror_descent(game, steps, constant(ETA), regularised=False),
        "self-play by best responses": lambda: mirror_descent(game, steps, constant(1 / game.tau)),
        "Nash-EMA": lambda: nash_ema(game, steps, constant(ETA), DECAY)[0],
    }
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    figure, (panels,) = canvas(12, 3.4, len(shown))
    for axes, (name, path) in zip(panels, shown.items(), strict=True):
        points = np.exp(path()) @ corners
        axes.plot(*corners[[0, 1, 2, 0]].T, color="black", linewidth=0.8)
        axes.plot(*points.T, linewidth=0.7, color="tab:blue")
        axes.plot(*points[0], "o", color="tab:gray", label="mu")
        axes.plot(*points[-1], "s", color="tab:blue", label="last policy")
        axes.plot(*(np.exp(equilibrium(game)) @ corners), "*", color="tab:red", markersize=12, label="equilibrium")
        axes.set_title(name, fontsize=10)
        axes.set_aspect("equal")
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(file, dpi=120)


# -- gradients ---------------------------------------------------------------------------------------------------------


def relative(found: Array, truth: Array) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def one_problem(rng: np.random.Generator, sequences: Sequences, length: int) -> dict[str, float]:
    """Relative distances of gradients on one random policy, reference, reward and preference."""
    policy = Policy.random(sequences, rng, 0.7)
    old, reference = (Policy(sequences, policy.logits + 0.3 * rng.normal(size=policy.logits.shape)) for _ in range(2))
    rewards = rng.normal(size=len(sequences))
    preference = random_preferences(rng, 1, len(sequences))[0]

    def p3o(method: Callable[..., exact.PairGradient], values: Array, before: Policy) -> Array:
        return method(policy, before, exact.p3o_q(policy, reference, values, 0.05)).mean(policy.scores)

    plain = exact.policy_gradient(policy, rewards - 0.05 * (policy.logps - reference.logps))
    true_kl = exact.kl_gradient(policy, reference)
    by_token = policy.mixed(reference, 0.25)
    whole = Policy.of_sequence_logps(sequences, mix(policy.logps, reference.logps, 0.25))
    nash = [exact.nash_md_pg(policy, reference, opponent, preference, 0.0) for opponent in (by_token, whole)]
    return {
        "P3O V1, on-policy, from the policy gradient": relative(p3o(exact.p3o_v1, rewards, policy), plain),
        "P3O V2, on-policy, from the policy gradient": relative(p3o(exact.p3o_v2, rewards, policy), plain),
        "P3O V1, rewards + 1": relative(p3o(exact.p3o_v1, rewards + 1, old), p3o(exact.p3o_v1, rewards, old)),
        "P3O V2, rewards + 1": relative(p3o(exact.p3o_v2, rewards + 1, old), p3o(exact.p3o_v2, rewards, old)),
        "PPO, rewards + 1": relative(exact.ppo(policy, old, rewards + 1), exact.ppo(policy, old, rewards)),
        f"KL of each token alone, {length} tokens": relative(
            np.exp(policy.logps) @ exact.token_kl(policy, reference, "own"), true_kl
        ),
        f"opponent mixed by token, {length} tokens": relative(*nash),
    }


@app.command(name="gradients")
def gradients_command(
    problems: Annotated[int, typer.Option(help="random policies for each length")] = 50,
    vocabulary: int = 4,
    lengths: Annotated[str, typer.Option(help="most tokens of a sequence")] = "1,2,3,4",
    seed: int = 0,
) -> None:
    """Which gradients an offset of the rewards moves, and how far off two approximations are, relative to the exact."""
    table = Table("gradient", "median", "largest", box=box.SIMPLE)
    for length in (int(text) for text in lengths.split(",")):
        rng, sequences = np.random.default_rng(seed), Sequences(vocabulary, length)
        found = [one_problem(rng, sequences, length) for _ in range(problems)]
        last = length == int(lengths.split(",")[-1])
        for name in found[0]:
            if last or name.endswith("tokens"):
                values = [each[name] for each in found]
                table.add_row(name, f"{np.median(values):.2g}", f"{max(values):.2g}")
    console.print(table)


if __name__ == "__main__":
    app()
