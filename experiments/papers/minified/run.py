"""Prune, fine-tune, train from scratch and quantize small networks on MNIST; rows that are there are kept.

CBS_DATA=/path/to/folder python experiments/papers/minified/run.py [--only mlp|cnn] [--seeds 0]
"""

import argparse
import copy
import csv
import itertools
import time
import tomllib
from pathlib import Path

import torch
from torch import nn

import cbs
from cbs.network.evaluate import evaluate
from cbs.quantization.stored import pruned_bytes

HERE = Path(__file__).parent
ROWS = HERE / "results" / "rows.csv"
KEY = ("network", "seed", "what", "method", "amount", "how")
FIELDS = (*KEY, "accuracy", "loss", "bytes", "parameters", "value", "bound", "seconds")
TUNED = "tuned"


def mlp(config):
    sizes = config["mlp"]["sizes"]
    layers = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(config):
    first, second = config["cnn"]["channels"]
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(9 * second, 10),
    )  # fmt: skip


class Table:
    """Rows in a file, each written once it is known."""

    def __init__(self):
        ROWS.parent.mkdir(exist_ok=True)
        self.known = set()
        if ROWS.exists():
            with ROWS.open() as file:
                self.known = {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
        else:
            ROWS.write_text(",".join(FIELDS) + "\n")

    def has(self, *key):
        return tuple(map(str, key)) in self.known

    def put(self, *key, **facts):
        self.known.add(tuple(map(str, key)))
        row = dict(zip(KEY, key, strict=True)) | facts
        with ROWS.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow(row)
        print(*key, f"{facts['accuracy']:.4f}", facts.get("bytes"), flush=True)


class Run:
    """One network and seed: the dense network is trained only if a row needs it."""

    def __init__(self, name, make, seed, config, split, table):
        self.name, self.seed, self.config, self.table = name, seed, config, table
        own = config[name]
        self.train = split.train.choose(own.get("images", config["images"]), seed)
        self.few, self.test = self.train.choose(config["calibrate"], seed), split.test
        torch.manual_seed(seed)
        self.initial = make(config)
        self.trained = None

    @property
    def dense(self):
        if self.trained is None:
            self.trained = copy.deepcopy(self.initial)
            cbs.train(self.trained, self.train, epochs=self.config["dense"], seed=self.seed)
        return self.trained

    def measure(self, *key, model, seconds, **facts):
        found = evaluate(model, self.test, nn.functional.cross_entropy)
        kept = sum(
            int((value != 0).sum()) for value in model.state_dict().values() if value.is_floating_point()
        )
        if "bytes" not in facts:
            facts["bytes"] = pruned_bytes(model)
        self.table.put(
            self.name, self.seed, *key, accuracy=round(found.accuracy, 5), loss=round(found.loss, 5),
            parameters=kept, seconds=round(seconds, 2), **facts,
        )  # fmt: skip

    def has(self, *key):
        return self.table.has(self.name, self.seed, *key)

    def all(self):
        own = self.config[self.name]
        if not self.has("dense", "-", 0.0, "-"):
            start = time.process_time()
            self.measure("dense", "-", 0.0, "-", model=self.dense, seconds=time.process_time() - start)
        for what in ("weights", "neurons"):
            if what in own:
                for method in own[f"{what[:-1]}_methods"]:
                    self.prune(what, method, own[what], scratch=method in own[f"{what[:-1]}_scratch"])
        for bits in own.get("bits", ()):
            for rounding in ("nearest", "feedback"):
                self.quantize(rounding, bits)

    def prune(self, what, method, amounts, scratch):
        ways = [TUNED, "pruned", *(["random", "original"] if scratch else [])]
        missing = {
            amount: [how for how in ways if not self.has(what, method, amount, how)] for amount in amounts
        }
        if not any(missing.values()):
            return
        start = time.process_time()
        results = cbs.compare(
            self.dense, self.few, sparsities=amounts, methods=[method], granularity=what, certify=False,
            scope="network" if what == "weights" else "layer", seed=self.seed,
            solver="greedy" if method == "joint" else "auto", time_limit=self.config["limit"],
        )  # fmt: skip
        spent = (time.process_time() - start) / len(amounts)
        for amount, result in zip(amounts, results, strict=True):
            self.follow(what, method, amount, result, missing[amount], spent)

    def follow(self, what, method, amount, result, missing, spent):
        """What becomes of one pruning: as it is, fine-tuned, and its architecture from scratch."""
        model = result.model if what == "weights" else result.permanent()
        found = result.history[0].stats.get("neurons", {}).values()
        proven = sum(each["value"] for each in found), [each["bound"] for each in found]
        facts = {"value": proven[0], "bound": sum(proven[1])} if found and None not in proven[1] else {}
        facts = {"value": result.value} | facts
        if "pruned" in missing:
            self.measure(what, method, amount, "pruned", model=model, seconds=spent, **facts)
        if TUNED in missing:
            start, tuned = time.process_time(), copy.deepcopy(model)
            rate, epochs = self.config["tuning_rate"], self.config["tune"]
            cbs.train(tuned, self.train, epochs=epochs, learning_rate=rate, seed=self.seed)
            spent += time.process_time() - start
            self.measure(what, method, amount, TUNED, model=tuned, seconds=spent)
        for how in ("random", "original"):
            if how in missing:
                start = time.process_time()
                begun = {"initial": self.initial} if how == "original" else {}
                model = cbs.from_scratch(result, how, seed=self.seed + 100, **begun)
                epochs = self.config["dense"] + self.config["tune"]
                cbs.train(model, self.train, epochs=epochs, seed=self.seed)
                spent = time.process_time() - start
                self.measure(what, method, amount, how, model=model, seconds=spent)

    def quantize(self, rounding, bits):
        if self.has("bits", rounding, bits, "-"):
            return
        start = time.process_time()
        found = cbs.quantize(self.dense, self.few, bits=bits, per="row", rounding=rounding)
        spent = time.process_time() - start
        self.measure(
            "bits",
            rounding,
            bits,
            "-",
            model=found.model,
            seconds=spent,
            bytes=found.bytes,
            value=found.value,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder with MNIST; by default that of CBS_DATA")
    parser.add_argument("--only", choices=("mlp", "cnn"))
    parser.add_argument("--seeds", type=int, nargs="+", help="by default those of config.toml")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config = tomllib.loads((HERE / "config.toml").read_text())
    split, table = cbs.mnist(asked.data_dir), Table()
    for name, make in (("mlp", mlp), ("cnn", cnn)):
        if asked.only in (None, name):
            for seed in asked.seeds or config[name].get("seeds", config["seeds"]):
                Run(name, make, seed, config, split, table).all()


if __name__ == "__main__":
    main()
