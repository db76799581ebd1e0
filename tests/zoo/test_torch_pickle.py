import contextlib
import io
import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.zoo.errors import CheckpointError
from engines.zoo.torch_pickle import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
VALUES = np.arange(6, dtype="<f4")


class Named:
    """Pickles as a call of `module.name`, which need not exist here."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class Storage:
    def __init__(self, key: str, numel: int) -> None:
        self.key, self.numel = key, numel


class Pickler(pickle._Pickler):  # type: ignore[name-defined]  # The Python one lets names be written that do not exist.
    def persistent_id(self, obj: object) -> object:
        if isinstance(obj, Storage):
            return ("storage", Named("torch", "FloatStorage"), obj.key, "cpu", obj.numel, None)
        return None

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            if obj.arguments:
                super().save(obj.arguments)
                self.write(pickle.REDUCE)
            return
        super().save(obj, save_persistent_id)


def dump(obj: object) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(obj)
    return stream.getvalue()


def checkpoint(state: object, keys: list[str], count: int = 6, magic: int = MAGIC) -> bytes:
    head = dump(magic) + dump(1001) + dump({"little_endian": True}) + dump(state) + dump(keys)
    return head + count.to_bytes(8, "little") + VALUES.tobytes()


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Named:
    return Named("torch._utils", "_rebuild_tensor_v2", Storage("0", 6), offset, size, stride, False, OrderedDict())


def test_strided_views_of_one_storage() -> None:
    state = OrderedDict(a=tensor(0, (2, 3), (3, 1)), t=tensor(0, (3, 2), (1, 3)), tail=tensor(4, (2,), (1,)))
    read = read_state_dict(checkpoint(state, ["0"]))

    np.testing.assert_array_equal(read["a"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(read["t"], VALUES.reshape(2, 3).T)
    np.testing.assert_array_equal(read["tail"], [4, 5])
    assert all(array.flags.c_contiguous for array in read.values())


@pytest.mark.parametrize("module", ["os", "posix", "builtins", "torch", "engines.zoo.torch_pickle"])
def test_a_pickle_that_names_anything_else_is_refused(module: str) -> None:
    with pytest.raises(CheckpointError, match=f"names '{module}.system', only plain tensors are admitted"):
        read_state_dict(checkpoint(Named(module, "system", "true"), []))


def test_an_ordinary_malicious_pickle_does_not_run(tmp_path: Any) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    with pytest.raises(CheckpointError, match="checkpoint refused"):
        read_state_dict(pickle.dumps(Evil()))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a PyTorch stream checkpoint"),
        (b"PK\x03\x04", "not a PyTorch stream checkpoint"),
        (checkpoint(OrderedDict(), [], magic=1), "wrong magic number"),
        (checkpoint(OrderedDict(a=tensor(0, (7,), (1,))), ["0"]), "beyond its storage"),
        (checkpoint(OrderedDict(a=tensor(0, (10**12,), (0,))), ["0"]), "beyond its storage"),
        (checkpoint(OrderedDict(a=tensor(-1, (1,), (1,))), ["0"]), "impossible sizes"),
        (checkpoint(OrderedDict(a=tensor(0, (6,), (1,))), ["0"], count=5), "5 elements, 6 declared"),
        (checkpoint(OrderedDict(a=tensor(0, (6,), (1,))), ["0"])[:-1], "ends before its last tensor"),
    ],
)
def test_damaged_checkpoints(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_state_dict(data)


@settings(deadline=None)  # the machine's other work is no failure
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), value=st.integers(0, 255))
def test_any_damage_raises_only_the_declared_error(cut: int, flip: int, value: int) -> None:
    data = bytearray(checkpoint(OrderedDict(a=tensor(0, (2, 3), (3, 1))), ["0"]))
    data[flip % len(data)] = value
    with contextlib.suppress(CheckpointError):
        read_state_dict(bytes(data[: max(1, len(data) - cut)]))
