from __future__ import annotations

import pytest

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package)

from benchmarks import export  # noqa: E402


@pytest.mark.parametrize(
    ("form", "faster", "ap", "native", "number"),
    [
        ("OpenVINO int8", 8.0, None, True, 0),
        ("OpenVINO int8", 7.9, None, True, 1),
        ("OpenVINO int8", 7.9, 0.48, True, 2),
        ("OpenVINO int8", 9.0, 0.495, True, 0),
        ("ONNX Runtime int8", 1.0, 0.48, True, 1),
        ("OpenVINO bf16", 4.9, 0.5, True, 1),
        ("OpenVINO bf16", 4.9, 0.5, False, 0),
        ("torch fast", 1.0, None, True, 0),
    ],
)
def test_targets(
    monkeypatch: pytest.MonkeyPatch, form: str, faster: float, ap: float | None, native: bool, number: int
) -> None:
    monkeypatch.setattr(export, "is_native", lambda device, dtype: native)
    missed = export.Row("detector", form, 10.0, faster, ap).missed(0.5)
    assert len(missed) == number
    assert all(line.startswith(f"detector, {form}: ") for line in missed)


def test_forms_take_turns_after_one_that_warms_up() -> None:
    calls: list[str] = []
    times = export.times_of({name: lambda name=name: calls.append(name) for name in "ab"}, turns=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}
