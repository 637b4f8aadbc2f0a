#!/bin/sh
# train.sh MODEL DATA RATE MICRO_BATCH ACCUMULATION STEPS SEED: trains by whatever you like and prints the validation loss.
set -e
here=$(dirname "$0")
"${PYTHON:-python3}" "$here/hf_train.py" "$1" "$2" --lr "$3" --bs "$4" --accum "$5" --steps "$6" --seed "$7"
