#!/bin/sh
# Submits the run in @{title}, or resumes it: sh submit.sh
#
# Written by comir-batch render, as were the scripts beside it; needs sbatch and nothing else. The driver's job ends with the
# exit code of comir-batch run, and its log is @{logs}/driver-*.log.
set -eu
cd -- "$(dirname -- "$0")"

mine="--user=$(id -un) --name=@{job_name}"
if command -v squeue >/dev/null && [ -n "$(squeue --noheader $mine)" ]; then
    echo "jobs of this run are in the queue already: look at them with squeue $mine, end them with cancel.sh" >&2
    exit 1
fi

# A site may print a banner; with --parsable the id stands on the last line.
submit() {
    answer=$(sbatch --parsable "$@@") || return
    id=$(printf '%s\n' "$answer" | tail -n 1)
    id=${id%%;*}
}

submit driver.sbatch
driver=$id
echo "driver: job $driver"
for kind in @{kinds}; do
    # Workers come when the driver has started.
    submit --dependency="after:$driver" "$kind-worker.sbatch" "$driver" || {
        echo "the $kind workers were refused, so the driver's job is cancelled" >&2
        sh cancel.sh
        exit 1
    }
    echo "$kind workers: job $id"
done
