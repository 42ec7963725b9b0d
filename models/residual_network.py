"""The residual network of the image classifier: its training in torch and its ONNX graph.

Stride-2 stem, three blocks of 16, 32 and 64 channels, global mean, linear head: 78,000 weights. Half of
the photos are mirrored in training; the graph sees each photo both ways round and takes the mean. It is
written out by hand with batch normalisation folded in, and checked against torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import ShelflifeError
from models.checkpoints import Checkpoint, Descent
from models.fitting import batches, fit_temperature, limited_threads, softmax
from models.metrics import expected_calibration_error

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EMBEDDING_DIM", "TrainedNetwork", "train"]

EMBEDDING_DIM = 64
_BLOCKS = ((16, 16, 1), (16, 32, 2), (32, 64, 2))  # channels in, channels out, stride
_MEAN, _STD = 73.0, 90.0  # of Fashion-MNIST's pixels
_EPSILON = 1e-5
_BATCH = (32, 96)  # of few photos and of many
_PEAK_RATE = 0.015
_WARM, _KNOWN = 0.3, 0.01  # of the peak rate, where weights are given; where they know all classes, too
_HELD_OUT = 0.1
_OPSET, _IR = 18, 9
Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TrainedNetwork:
    """The ONNX graph, the raw weights (batch normalisation apart) and the held-out figures."""

    onnx: bytes
    weights: Weights
    report: dict[str, float]


def train(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: int,
    *,
    seed: int,
    epochs: int,
    start: Mapping[str, NDArray[np.float32]] | None,
    threads: int,
    knows_all: bool = False,
    held: NDArray[np.bool_] | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainedNetwork:
    """Train on uint8 [n, 28, 28] with one cycle of Adam.

    `held` bool [n]: kept for the temperature, a random tenth where it is not given; `knows_all`: the
    start has been trained on all of the classes; `checkpoint`: where a killed training goes on from.
    """
    rng = np.random.default_rng(seed)
    if held is None:
        held = rng.random(len(labels)) < (_HELD_OUT if len(labels) >= 100 else 0.0)
    weights = {k: v.copy() for k, v in start.items()} if start else _initial(classes, rng)
    share = 1.0 if start is None else _KNOWN if knows_all else _WARM
    with limited_threads(threads):
        weights = _descend(
            images[~held], labels[~held], weights, rng=rng, epochs=epochs, rate=share, checkpoint=checkpoint
        )
        logits = _logits(images[held], weights)
        temperature = fit_temperature(logits, labels[held])
        graph = _graph(weights, temperature)
        sample = images[: min(64, len(images))]
        expected = softmax(_logits(sample, weights) / np.float32(temperature))
    _check_graph(graph, sample, expected)
    report = {"rows": float(held.sum()), "temperature": temperature}
    if held.any():
        probabilities = softmax(logits / np.float32(temperature))
        right = probabilities[np.arange(len(probabilities)), labels[held]]
        report["accuracy"] = float(np.mean(probabilities.argmax(axis=1) == labels[held]))
        report["log_loss"] = float(-np.mean(np.log(np.maximum(right, 1e-9))))
        report["calibration_error"] = expected_calibration_error(probabilities, labels[held])
    return TrainedNetwork(graph, weights, report)


def _convolutions() -> list[tuple[str, int, int, int, int]]:
    """(name, channels in, channels out, kernel, stride) of every convolution, in order."""
    out = [("stem", 1, _BLOCKS[0][0], 3, 2)]
    for b, (wide_in, wide_out, stride) in enumerate(_BLOCKS):
        out += [(f"block{b}.a", wide_in, wide_out, 3, stride), (f"block{b}.b", wide_out, wide_out, 3, 1)]
        if wide_in != wide_out:
            out.append((f"block{b}.skip", wide_in, wide_out, 1, stride))
    return out


def _initial(classes: int, rng: np.random.Generator) -> Weights:
    weights: Weights = {}
    for name, wide_in, wide_out, kernel, _ in _convolutions():
        scale = np.sqrt(2.0 / (wide_in * kernel * kernel))
        weights[f"{name}.weight"] = rng.normal(0.0, scale, (wide_out, wide_in, kernel, kernel)).astype(
            np.float32
        )
        weights[f"{name}.gamma"] = np.ones(wide_out, np.float32)
        weights[f"{name}.beta"] = np.zeros(wide_out, np.float32)
        weights[f"{name}.mean"] = np.zeros(wide_out, np.float32)
        weights[f"{name}.var"] = np.ones(wide_out, np.float32)
    weights["head.weight"] = np.zeros((classes, EMBEDDING_DIM), np.float32)
    weights["head.bias"] = np.zeros(classes, np.float32)
    return weights


def _forward(w: Mapping[str, Tensor], images: NDArray[np.uint8], *, training: bool) -> Tensor:
    import torch
    from torch.nn import functional

    def convolve(x: Tensor, name: str, stride: int) -> Tensor:
        kernel = w[f"{name}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return functional.batch_norm(
            x, w[f"{name}.mean"], w[f"{name}.var"], w[f"{name}.gamma"], w[f"{name}.beta"],
            training=training, momentum=0.1, eps=_EPSILON,
        )  # fmt: skip

    if not training:  # both ways round
        images = np.concatenate([images, images[:, :, ::-1]])
    x = (torch.tensor(images).float().unsqueeze(1) - _MEAN) / _STD
    # The layout in which convolutions are fastest on CPUs: a sixth less time in all.
    x = x.contiguous(memory_format=torch.channels_last)
    x = functional.relu(convolve(x, "stem", 2))
    for b, (wide_in, wide_out, stride) in enumerate(_BLOCKS):
        inner = functional.relu(convolve(x, f"block{b}.a", stride))
        inner = convolve(inner, f"block{b}.b", 1)
        x = functional.relu(inner + (convolve(x, f"block{b}.skip", stride) if wide_in != wide_out else x))
    pooled = x.mean(dim=(2, 3))
    if not training:
        pooled = (pooled[: len(pooled) // 2] + pooled[len(pooled) // 2 :]) / 2
    return functional.linear(pooled, w["head.weight"], w["head.bias"])


def _descend(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    weights: Weights,
    *,
    rng: np.random.Generator,
    epochs: int,
    rate: float,
    checkpoint: Checkpoint | None,
) -> Weights:
    import torch
    from torch.nn import functional

    w: dict[str, Tensor] = {name: torch.from_numpy(array) for name, array in weights.items()}
    learned = {n: t.requires_grad_() for n, t in w.items() if not n.endswith((".mean", ".var"))}
    optimizer = torch.optim.AdamW(learned.values(), lr=_PEAK_RATE, weight_decay=0.01)
    size = int(np.clip(len(labels) // 32, *_BATCH))
    steps = max(2, epochs * len(batches(len(labels), size, np.random.default_rng(0))))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _PEAK_RATE * rate, total_steps=steps, pct_start=0.25
    )
    descent = Descent(w, optimizer, schedule, checkpoint)
    for part in descent.batches(len(labels), size, epochs=epochs, rng=rng):
        batch = images[part]
        mirrored = rng.random(len(batch)) < 0.5
        batch = np.where(mirrored[:, None, None], batch[:, :, ::-1], batch)
        loss = functional.cross_entropy(_forward(w, batch, training=True), torch.from_numpy(labels[part]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule.last_epoch < steps - 1:
            schedule.step()
    return {name: tensor.detach().numpy().copy() for name, tensor in w.items()}


def _logits(images: NDArray[np.uint8], weights: Weights) -> NDArray[np.float32]:
    import torch

    w = {name: torch.from_numpy(array) for name, array in weights.items()}
    with torch.no_grad():
        parts = [_forward(w, images[i : i + 512], training=False).numpy() for i in range(0, len(images), 512)]
    return np.concatenate(parts) if parts else np.empty((0, len(weights["head.bias"])), np.float32)


def _graph(weights: Weights, temperature: float) -> bytes:
    """The network as ONNX: "images" uint8 [n, 28, 28] → "probabilities" [n, C], "embedding" [n, 64]."""
    from onnx import TensorProto, checker, helper, numpy_helper

    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolve(x: str, name: str, stride: int) -> str:
        w = {k: weights[f"{name}.{k}"].astype(np.float64) for k in ("weight", "gamma", "beta", "mean", "var")}
        scale = w["gamma"] / np.sqrt(w["var"] + _EPSILON)
        kernel = constant(f"{name}.kernel", (w["weight"] * scale[:, None, None, None]).astype(np.float32))
        shift = constant(f"{name}.shift", (w["beta"] - w["mean"] * scale).astype(np.float32))
        pad = w["weight"].shape[-1] // 2
        return node("Conv", [x, kernel, shift], f"{name}.out", strides=[stride] * 2, pads=[pad] * 4)

    ends = [constant(name, np.array([v], np.int64)) for name, v in
            (("last", -1), ("first", -(1 << 31)), ("width", 2), ("back", -1))]  # fmt: skip
    mirrored = node("Slice", ["images", *ends], "mirrored")
    x = node("Cast", [node("Concat", ["images", mirrored], "both", axis=0)], "float", to=TensorProto.FLOAT)
    x = node("Unsqueeze", [x, constant("axis", np.array([1], np.int64))], "channel")
    x = node("Sub", [x, constant("pixel_mean", np.float32(_MEAN))], "centred")
    x = node("Div", [x, constant("pixel_std", np.float32(_STD))], "scaled")
    x = node("Relu", [convolve(x, "stem", 2)], "stem.relu")
    for b, (wide_in, wide_out, stride) in enumerate(_BLOCKS):
        inner = node("Relu", [convolve(x, f"block{b}.a", stride)], f"block{b}.a.relu")
        inner = convolve(inner, f"block{b}.b", 1)
        skip = convolve(x, f"block{b}.skip", stride) if wide_in != wide_out else x
        x = node("Relu", [node("Add", [inner, skip], f"block{b}.sum")], f"block{b}.relu")
    node("Split", [node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "flat")], "one", num_outputs=2)
    nodes[-1].output.append("other")
    x = node("Mean", ["one", "other"], "embedding")
    head = constant("head", (weights["head.weight"].T / temperature).astype(np.float32))
    bias = constant("bias", (weights["head.bias"] / temperature).astype(np.float32))
    node("Softmax", [node("Gemm", [x, head, bias], "logits")], "probabilities", axis=1)
    graph = helper.make_graph(
        nodes,
        "image_classifier",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 28, 28])],
        [
            helper.make_tensor_value_info(
                "probabilities", TensorProto.FLOAT, ["n", len(weights["head.bias"])]
            ),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", EMBEDDING_DIM]),
        ],
        constants,
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, producer_name="shelflife", opset_imports=[opset], ir_version=_IR)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _check_graph(graph: bytes, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = session.run(["probabilities"], {"images": np.ascontiguousarray(images)})[0]
    worst = float(np.abs(found - expected).max())
    if worst > 1e-3:
        raise ShelflifeError(f"the exported image classifier differs from the trained one by {worst:.2g}")
