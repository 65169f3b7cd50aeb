#!/usr/bin/env bash
# Train on the machines of a Slurm job: sbatch docs/slurm.sh configs/my_parts.yaml [KEY VALUE ...]
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
# Three minutes before the time limit the training saves a checkpoint and ends; submit the same command to continue.
#SBATCH --signal=TERM@180
# After a preemption or a machine failure Slurm automatically queues the job again.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# OUTPUT_DIR must be on a file system that all machines share. With --resume a repeated job continues where the last
# one stopped; the first one finds nothing to resume and starts from the beginning.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not inherit it
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
    --nnodes="$SLURM_NNODES" \
    --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$head_node:${MASTER_PORT:-29500}" \
    --rdzv-id="$SLURM_JOB_ID" \
    --max-restarts=3 \
    tools/train_net.py --config-file "$1" --resume "${@:2}"
