#!/bin/sh
# Keeps a TVM RPC server running on a board. When a session dies (a candidate crashed, memory ran out), TVM's server stays
# as a process but serves no more; this starts it again.
# usage: PYTHON=/home/pi/rpc/bin/python rpc_server.sh --tracker HOST:9190 --key rpi4 [more arguments of tvm.exec.rpc_server]
set -u
if [ $# -eq 0 ]; then
    sed -n '4s/^# //p' "$0" >&2
    exit 2
fi
# candidates are measured on one thread
export PYTHON="${PYTHON:-python3}" TVM_NUM_THREADS=1
"$PYTHON" -c 'import tvm.rpc, tornado' || exit 1
child=
trap '[ -z "$child" ] || kill -- "-$child"; exit 0' INT TERM
while :; do
    # a process group of its own, so that the server and its workers end together
    setsid sh -c '"$PYTHON" -m tvm.exec.rpc_server "$@" 2>&1 | { sed -u "/exited unsuccessfully/q"; kill 0; }' rpc_server "$@" &
    child=$!
    wait "$child"
    echo "the server ended; starting it again"
    sleep 2
done
