#!/usr/bin/env bash
# The checks on a GPU, where nothing can be installed: bash tests/cuda/run.sh [pytest options]
# Needs torch with CUDA, pytest and what the package depends on, on the path of PYTHON (or in PYTHONPATH).
# It stops by itself after SECONDS_LIMIT seconds with what is known by then; each outcome is printed at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON="${PYTHON:-python3}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" ENGINE_TESTS_KEEP_PYTHONPATH=1 OMP_NUM_THREADS=1
"$PYTHON" - << 'END'
import importlib.util, sys
needed = "torch torchvision yacs fvcore pycocotools cv2 tabulate tqdm tensorboard safetensors PIL numpy pytest hypothesis"
missing = [name for name in needed.split() if importlib.util.find_spec(name) is None]
sys.exit(f"missing here: {', '.join(missing)}; put them in PYTHONPATH" if missing else 0)
END
# The compiled loop of box voting; without a compiler its fallback is tested.
"$PYTHON" -c 'import engine.layers._voting' 2> /dev/null ||
    "$PYTHON" setup.py -q build_ext --inplace > /dev/null 2>&1 ||
    echo "the Cython module could not be built: its Python fallback is used"
processes=()
if "$PYTHON" -c 'import xdist' 2> /dev/null; then
    cpus="$(nproc)"
    processes=(-n "$((cpus < 6 ? cpus : 6))" --dist worksteal)
fi
exec timeout -k 20 -s INT "${SECONDS_LIMIT:-150}" "$PYTHON" -m pytest -q -p no:cacheprovider --tb=short --durations=10 \
    "${processes[@]}" "$@" tests/cuda tests/inference/test_augment.py::test_on_a_gpu
