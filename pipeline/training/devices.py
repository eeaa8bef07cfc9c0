"""The devices that a run is trained on: one, several of one machine, or several machines.

Each device holds a replica of the model and takes its own rows of every batch; the replicas' gradients are added up
before they are clipped and applied. A batch is a pure function of its number, so every machine makes the same ones
and no data travel. A step is that of one device with the whole batch, but for the last digits and for dropout.

Several machines need a folder for runs that all of them see. The first of them, the chief, writes there.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.layers.micro_batches import Nested, number_of_micro_batches
from pipeline.models.graph import layers_of
from pipeline.settings import RequestError, one_line

BFLOAT16_FLAG = "amx_bf16"  # of processors with fast products in bfloat16; those of avx512_bf16 alone are slow

SUM = tf.distribute.ReduceOp.SUM


class Devices:
    """The replicas of a model, and what passes between them.

    Args:
        strategy: TensorFlow's own, for example `tf.distribute.MirroredStrategy()`.

    Attributes:
        replicas: how many there are, on all machines together.
        machines: how many of those.
        is_chief: whether this process writes the run's folder.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.replicas = strategy, strategy.num_replicas_in_sync
        cluster = strategy.cluster_resolver and strategy.cluster_resolver.cluster_spec()
        self.machines = (
            len(cluster.as_dict().get("chief", []) + cluster.as_dict()["worker"]) if _is_many(cluster) else 1
        )
        self.is_chief = self.machines == 1 or _number(strategy.cluster_resolver) == 0
        self._share_out = tf.function(
            functools.partial(self.run, self.own_rows), autograph=False, reduce_retracing=True
        )
        self._gather = tf.function(
            functools.partial(self.run, self._sum_of_rows), autograph=False, reduce_retracing=True
        )
        # A value that no operation has made is on no device, and could not be sent from there.
        self._sum = tf.function(lambda number: self.run(lambda: self.sum(tf.identity(number))), autograph=False)

    def scope(self):
        """A context inside which variables are made, one on each device."""
        return self.strategy.scope()

    def check(self, batch_size: int) -> None:
        """Refuses a batch that cannot be shared out evenly."""
        if batch_size % self.replicas:
            fewer = max(self.replicas, batch_size - batch_size % self.replicas)
            raise RequestError(
                f"dataset.batch_size={batch_size} cannot be shared by {self.replicas} devices: set "
                f"dataset.batch_size={fewer}, or training.devices=one."
            )

    def advice(self, precision: str) -> str:
        """A remark on a precision that this machine has no fast arithmetic for; "" if there is none."""
        if (
            precision == "float32"
            or tf.config.list_logical_devices("GPU")
            or isinstance(self.strategy, tf.distribute.TPUStrategy)
        ):
            return ""
        if precision == "mixed_bfloat16" and BFLOAT16_FLAG in _processor_flags():
            return ""
        return f" Without a GPU {precision} is slower than float32 here: this processor has no fast arithmetic for it."

    # === Inside a replica ===

    def micro_batches(self, rows: int | None) -> int:
        """How many micro-batches a replica's own rows are computed in; several replicas take one each."""
        return number_of_micro_batches(rows) if self.replicas == 1 else 1

    def own_rows(self, values: Nested) -> Nested:
        """This replica's share (B / replicas, …) of what all hold (B, …)."""
        if self.replicas == 1:
            return values
        number = tf.distribute.get_replica_context().replica_id_in_sync_group

        def own(tensor):
            size = tensor.shape[0] // self.replicas
            return tensor[number * size : (number + 1) * size]

        return tf.nest.map_structure(own, values)

    def sum(self, values: Nested) -> Nested:
        """The sum over all replicas, which each of them gets; sparse gradients stay sparse."""
        return values if self.replicas == 1 else tf.distribute.get_replica_context().all_reduce(SUM, values)

    def _sum_of_rows(self, values: Nested) -> Nested:
        """All replicas' rows: each pads its own with zeros to (B, …), and these are added up."""
        number = tf.distribute.get_replica_context().replica_id_in_sync_group

        def padded(rows):
            # No bfloat16 travels between machines; in float32 its values are the same.
            rows = tf.cast(rows, tf.float32) if rows.dtype == tf.bfloat16 else rows
            size = rows.shape[0]
            after = (self.replicas - 1 - number) * size
            return tf.pad(rows, [[number * size, after], *[[0, 0]] * (rows.shape.rank - 1)])

        summed = self.sum(tf.nest.map_structure(padded, values))
        return tf.nest.map_structure(lambda total, rows: tf.cast(total, rows.dtype), summed, values)

    # === Outside ===

    def run(self, function: Callable, *arguments):
        """Calls a function in each replica; what it returns is a value for each."""
        return self.strategy.run(function, arguments)

    def first(self, values: Nested) -> Nested:
        """Returns the local one of values that are the same in all replicas."""
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], values)

    def share_out(self, values: Nested) -> Nested:
        """Gives each replica its rows of values (B, …)."""
        return values if self.replicas == 1 or not tf.nest.flatten(values) else self._share_out(values)

    def gather(self, values: Nested) -> Nested:
        """Puts the replicas' rows together: (B, …). All machines must call it."""
        return values if self.replicas == 1 or not tf.nest.flatten(values) else self.first(self._gather(values))

    def diverge(self, model: keras.Model) -> None:
        """Gives each replica dropout of its own; what a checkpoint holds, the first replica's seeds, stays as it is."""
        objects = [value for layer in layers_of(model) for value in vars(layer).values()]
        generators = {id(value): value for value in objects if isinstance(value, keras.random.SeedGenerator)}
        seeds = [generator.state.value for generator in generators.values()]
        if self.replicas == 1 or not seeds:
            return

        @tf.function
        def add_numbers():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for seed in seeds:
                seed.assign_add(tf.cast(tf.stack([number, 0]), seed.dtype))

        self.run(add_numbers)

    # === Between machines ===

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any machine. All must ask at the same place."""
        if self.machines == 1:
            return flag
        return int(self.first(self._sum(tf.constant(int(flag))))) > 0

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Lets the other machines enter after the chief has left."""
        if not self.is_chief:
            self.any(False)
        yield
        if self.is_chief:
            self.any(False)


def _processor_flags() -> list[str]:
    """What the processor can do, in Linux's words."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split() for line in lines if line.startswith("flags")), [])


@functools.cache  # a cluster is joined once
def open_devices(devices: str) -> Devices:
    """Returns the devices that a run asks for.

    Args:
        devices: "one"; "all" of this machine, its GPUs or, without any, its logical CPUs; "cluster": the machines of
            the environment variable TF_CONFIG; "tpu": those of the TPU that the environment names; "auto": the
            cluster if TF_CONFIG names several machines, all GPUs if there are several, else one device.

    Raises:
        RequestError: there is no such cluster or TPU.
    """
    if devices == "auto":
        devices = (
            "cluster" if _is_many(_cluster()) else "all" if len(tf.config.list_logical_devices("GPU")) > 1 else "one"
        )
    if devices == "one":
        return Devices(tf.distribute.get_strategy())
    if devices == "all":
        names = [d.name for kind in ("GPU", "CPU") for d in tf.config.list_logical_devices(kind)]
        gpus = [name for name in names if "GPU" in name]
        # NCCL moves what GPUs have to add up; CPUs have no such library.
        return Devices(
            tf.distribute.MirroredStrategy(gpus)
            if gpus
            else tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())
        )
    if devices == "tpu":
        return Devices(_tpu())
    if not _is_many(_cluster()):
        raise RequestError(
            "training.devices=cluster needs at least two workers in the environment variable TF_CONFIG, on the first "
            """of them for example TF_CONFIG='{"cluster": {"worker": ["host1:2222", "host2:2222"]}, """
            """"task": {"type": "worker", "index": 0}}'."""
        )
    return Devices(tf.distribute.MultiWorkerMirroredStrategy())


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, tf.errors.OpError) as error:
        raise RequestError(
            f"training.devices=tpu found no TPU ({one_line(error)}). Set TPU_NAME, or training.devices=auto."
        ) from None
    return tf.distribute.TPUStrategy(resolver)


def _cluster() -> tf.train.ClusterSpec:
    text = os.environ.get("TF_CONFIG", "")
    try:
        return tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(
            f"TF_CONFIG={text!r} cannot be read ({error}): it must be JSON with a cluster and a task."
        ) from None


def _is_many(cluster) -> bool:
    jobs = cluster.as_dict() if cluster else {}
    return len(jobs.get("worker", [])) + len(jobs.get("chief", [])) > 1 and "ps" not in jobs


def _number(resolver) -> int:
    """This machine's number among all: the chief, if one has that name, is 0."""
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", []))
    return resolver.task_id if resolver.task_type == "chief" else resolver.task_id + chiefs
